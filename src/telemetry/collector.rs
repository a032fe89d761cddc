//! The collector, over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ureq::Agent;
use ureq::http::{HeaderName, HeaderValue};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Longest that one export may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Statuses with which a collector asks to be told again.
const AGAIN: [u16; 4] = [429, 502, 503, 504];

/// Where exports go.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    agent: Agent,
    base: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why an export has failed.
pub(super) struct Failure {
    pub why: String,
    /// Whether it may succeed later.
    pub again: bool,
}

impl Collector {
    /// The error says which header cannot be sent, or why no authority is trusted. Values may be secrets and are not in it.
    pub(super) fn new(endpoint: &str, headers: &BTreeMap<String, String>) -> Result<Self, String> {
        let headers = headers.iter().map(|(name, value)| {
            let parsed =
                HeaderName::try_from(name.as_str()).ok().zip(HeaderValue::try_from(value.as_str()).ok());
            let (header, mut value) =
                parsed.ok_or_else(|| format!("gateway.telemetry.headers: {name:?} cannot be sent"))?;
            value.set_sensitive(true);
            Ok((header, value))
        });
        let headers = headers.collect::<Result<_, String>>()?;
        let mut builder = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_global(Some(PATIENCE));
        if endpoint.starts_with("https://") {
            let found = rustls_native_certs::load_native_certs();
            let roots: Vec<Certificate<'static>> =
                found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
            if roots.is_empty() {
                return Err("gateway.telemetry.otlp_endpoint: the system trusts no authority".to_owned());
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::from(roots))
                .unversioned_rustls_crypto_provider(provider);
            builder = builder.tls_config(tls.build());
        }
        let base = endpoint.trim_end_matches('/').trim_end_matches("/v1/traces").to_owned();
        Ok(Self { agent: builder.build().into(), base, headers })
    }

    /// Sends one export.
    pub(super) fn post(&self, path: &str, body: &[u8]) -> Result<(), Failure> {
        let mut request =
            self.agent.post(format!("{}{path}", self.base)).content_type("application/x-protobuf");
        for (name, value) in &self.headers {
            request = request.header(name.clone(), value.clone());
        }
        match request.send(body) {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => {
                let status = answer.status().as_u16();
                Err(Failure { why: format!("the collector says {status}"), again: AGAIN.contains(&status) })
            }
            Err(error) => Err(Failure { why: error.to_string(), again: true }),
        }
    }
}
