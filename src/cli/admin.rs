//! How commands ask a running server, at its admin listener.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Body, http::Response};

use super::exit::Exit;
use crate::config::{AdminListen, Config};

/// Longest that a server may take to begin its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read as a whole, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Which server is asked, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub struct AdminArgs {
    /// The configuration of the server; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Its admin listener: host:port, or a URL; else that of the configuration.
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// The certificate of an operator: for a listener that others can reach.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The authority that the server's certificate comes from; else that of the configuration.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// An argument, the configuration, or a file that they name.
    #[error("{0}")]
    Usage(String),
    /// The server.
    #[error("no answer of {url}: {why}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why.
        why: String,
    },
    /// It refused to answer.
    #[error("{url}: {status}: {why}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Its word.
        why: String,
    },
    /// Nobody reads on.
    #[error("the output is closed")]
    Output(#[from] std::io::Error),
}

/// How a command ends.
pub fn exit(command: &str, outcome: Result<Exit, Trouble>) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(Trouble::Output(_)) => Exit::Done,
        Err(error) => {
            eprintln!("mas {command}: {error}");
            if matches!(error, Trouble::Usage(_)) { Exit::Usage } else { Exit::Failed }
        }
    }
}

impl AdminArgs {
    /// A way to ask the server, again and again.
    pub(super) fn asker(&self) -> Result<Asker, Trouble> {
        let config = match (&self.admin, &self.ca) {
            (Some(_), Some(_)) => None,
            (Some(_), None) => Config::locate_and_load(self.config.as_deref()).ok(),
            (None, _) => Some(self.configuration()?),
        };
        let base = self.base(config.as_ref())?;
        let agent = self.agent(config.as_ref(), base.starts_with("https://"))?;
        Ok(Asker { agent, base })
    }

    /// Asks once; the answer is read by the caller.
    pub(super) fn get(&self, path_and_query: &str) -> Result<Response<Body>, Trouble> {
        self.asker()?.get(path_and_query)
    }

    /// Asks once, for JSON.
    pub(super) fn json(&self, path: &str) -> Result<serde_json::Value, Trouble> {
        self.asker()?.json(path)
    }

    /// Where the configuration is, where that was said.
    pub(super) fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The configuration of the server.
    pub(super) fn configuration(&self) -> Result<Config, Trouble> {
        Config::locate_and_load(self.config.as_deref()).map_err(|error| Trouble::Usage(error.to_string()))
    }

    /// Scheme, host and port.
    fn base(&self, config: Option<&Config>) -> Result<String, Trouble> {
        if let Some(addr) = &self.admin {
            let is_url = addr.starts_with("http://") || addr.starts_with("https://");
            return Ok(if is_url { addr.trim_end_matches('/').to_owned() } else { self.of_addr(addr) });
        }
        match config.map(|config| &config.admin_listen_addr) {
            Some(AdminListen::At(addr)) if addr.ends_with(":0") => Err(Trouble::Usage(
                "admin_listen_addr has port 0: the server's ready line says which one it got (--admin ADDR)"
                    .to_owned(),
            )),
            Some(AdminListen::At(addr)) => Ok(self.of_addr(addr)),
            Some(AdminListen::Default) => Ok(self.of_addr(AdminListen::DEFAULT_ADDR)),
            Some(AdminListen::Off) | None => {
                Err(Trouble::Usage("admin_listen_addr is null: the server does not listen there".to_owned()))
            }
        }
    }

    fn of_addr(&self, addr: &str) -> String {
        let (host, port) = addr.rsplit_once(':').unwrap_or((addr, "9464"));
        // What a server listens on at all of its addresses, it listens on at this one.
        let host = match host {
            "0.0.0.0" => "127.0.0.1",
            "[::]" => "[::1]",
            host => host,
        };
        let is_open = addr.starts_with("127.") || addr.starts_with("[::1]") || addr.starts_with("localhost:");
        let scheme = if is_open && self.cert.is_none() { "http" } else { "https" };
        format!("{scheme}://{host}:{port}")
    }

    fn agent(&self, config: Option<&Config>, with_tls: bool) -> Result<Agent, Trouble> {
        let mut builder = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE));
        if with_tls {
            let ca = self.ca.as_deref().or(config.map(|config| config.tls.ca.as_path()));
            let ca =
                ca.ok_or_else(|| Trouble::Usage("https needs --ca FILE, or a configuration".to_owned()))?;
            let roots = RootCerts::from(certificates(ca)?);
            let provider = rustls::crypto::ring::default_provider();
            let mut tls =
                TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(Arc::new(provider));
            if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
                let private = PrivateKey::from_pem(&read(key)?)
                    .map_err(|error| Trouble::Usage(format!("{}: {error}", key.display())))?;
                tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(cert)?, private)));
            }
            builder = builder.tls_config(tls.build());
        }
        Ok(builder.build().into())
    }
}

/// Asks one server.
pub(super) struct Asker {
    agent: Agent,
    /// Scheme, host and port.
    base: String,
}

impl Asker {
    /// Asks; the answer is read by the caller. Anything but 200 is an error.
    pub(super) fn get(&self, path_and_query: &str) -> Result<Response<Body>, Trouble> {
        let (url, mut answer) = self.ask(path_and_query)?;
        let status = answer.status().as_u16();
        if status == 200 {
            return Ok(answer);
        }
        let why = answer.body_mut().read_to_string().unwrap_or_default();
        let json: Option<serde_json::Value> = serde_json::from_str(&why).ok();
        let why = json.and_then(|json| Some(json.get("error")?.as_str()?.to_owned())).unwrap_or(why);
        Err(Trouble::Refused { url, status, why: super::text::plain(why.trim()) })
    }

    /// Asks for text, whatever the HTTP status of the answer; that, and the text.
    pub(super) fn text(&self, path: &str) -> Result<(u16, String), Trouble> {
        let (url, mut answer) = self.ask(path)?;
        let mut text = String::new();
        let read = answer.body_mut().as_reader().take(MAX_ANSWER_BYTES).read_to_string(&mut text);
        let _ = read.map_err(|error| Trouble::Unreachable { url, why: error.to_string() })?;
        Ok((answer.status().as_u16(), text))
    }

    /// Asks for JSON.
    pub(super) fn json(&self, path: &str) -> Result<serde_json::Value, Trouble> {
        let mut answer = self.get(path)?;
        let unreadable = |why: String| Trouble::Unreachable { url: path.to_owned(), why };
        let mut text = String::new();
        let read = answer.body_mut().as_reader().take(MAX_ANSWER_BYTES).read_to_string(&mut text);
        let _ = read.map_err(|error| unreadable(error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| unreadable(error.to_string()))
    }

    fn ask(&self, path_and_query: &str) -> Result<(String, Response<Body>), Trouble> {
        let url = format!("{}{path_and_query}", self.base);
        let answer = self.agent.get(&url).call();
        let answer =
            answer.map_err(|error| Trouble::Unreachable { url: url.clone(), why: error.to_string() })?;
        Ok((url, answer))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    std::fs::read(path).map_err(|error| Trouble::Usage(format!("{}: {error}", path.display())))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Trouble> {
    let found: Vec<Certificate<'static>> = ureq::tls::parse_pem(&read(path)?)
        .filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match found.is_empty() {
        true => Err(Trouble::Usage(format!("{}: no certificate in it", path.display()))),
        false => Ok(found),
    }
}
