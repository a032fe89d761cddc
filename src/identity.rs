//! Who is calling: the agent id in the one SPIFFE URI of the client's certificate.
//!
//! The TLS handshake has proven that the configured CA issued the certificate and that the peer holds
//! its key. This module decides what the certificate says, and nothing else does: not the common name,
//! not request metadata. A connection may outlive its certificate, so validity is checked again at every session and
//! call.

use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use crate::certs::{Fingerprint, OPERATOR_URI_PREFIX, Revocations, Serial};
use crate::clock::Now;
use crate::ids::{AgentId, is_operator_name};
use crate::refusal::Refusal;

/// Scheme, trust domain and path before the agent id.
const SPIFFE_AGENT_PREFIX: &str = "spiffe://mas/agent/";
const SPIFFE_SCHEME: &str = "spiffe://";
/// What is logged of a URI that proves nothing, in characters.
const MAX_CLAIMED_CHARS: usize = 128;

/// What a certificate proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The agent.
    pub agent: AgentId,
    /// SHA-256 of the certificate's DER.
    pub fingerprint: [u8; 32],
    /// Its serial number.
    pub serial: Serial,
    /// First second of validity, Unix time.
    pub not_before_s: i64,
    /// Last second of validity, Unix time.
    pub not_after_s: i64,
}

/// What a certificate says, whoever signed it and whoever shows it: for log lines alone.
#[derive(Debug)]
pub struct Claim {
    /// The beginning of its one SPIFFE URI.
    pub uri: Option<String>,
    /// The agent that the URI names.
    pub agent: Option<AgentId>,
    /// Its serial number; `None`: it is no certificate.
    pub serial: Option<Serial>,
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
}

impl Claim {
    /// Reads a certificate, DER.
    pub fn of(der: &[u8]) -> Self {
        let certificate = X509Certificate::from_der(der).ok().map(|(_, certificate)| certificate);
        let uri = certificate.as_ref().and_then(|certificate| uri_of(certificate).ok());
        Self {
            uri: uri.map(|uri| uri.chars().take(MAX_CLAIMED_CHARS).collect()),
            agent: uri.and_then(agent_of_uri),
            serial: certificate.as_ref().map(|certificate| Serial::of(certificate.raw_serial())),
            fingerprint: Fingerprint::of(der),
        }
    }
}

/// What an operator's certificate proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorIdentity {
    /// The operator.
    pub name: String,
    fingerprint: [u8; 32],
    serial: Serial,
    not_before_s: i64,
    not_after_s: i64,
}

impl OperatorIdentity {
    /// Reads the leaf certificate, DER; `None` where it is no operator's.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let name = uri_of(&certificate).ok()?.strip_prefix(OPERATOR_URI_PREFIX)?.to_owned();
        check_usage(&certificate).ok()?;
        is_operator_name(&name).then(|| Self {
            name,
            fingerprint: Sha256::digest(der).into(),
            serial: Serial::of(certificate.raw_serial()),
            not_before_s: certificate.validity().not_before.timestamp(),
            not_after_s: certificate.validity().not_after.timestamp(),
        })
    }

    /// Whether the deny-list names this certificate.
    pub fn is_revoked(&self, list: &Revocations) -> bool {
        let fingerprint = Fingerprint::parse(&crate::ids::hex(&self.fingerprint));
        !list.is_empty()
            && fingerprint.is_none_or(|fingerprint| list.contains(&fingerprint, &self.serial, None))
    }

    /// Whether the certificate is within its dates.
    pub fn is_current(&self, now: Now) -> bool {
        is_within(self.not_before_s, self.not_after_s, now)
    }
}

fn is_within(not_before_s: i64, not_after_s: i64, now: Now) -> bool {
    let now_s = i64::try_from(now.unix_s()).unwrap_or(i64::MAX);
    not_before_s <= now_s && now_s <= not_after_s
}

impl Identity {
    /// Reads the leaf certificate, DER. The error is what the caller is told.
    pub fn from_der(der: &[u8]) -> Result<Self, Refusal> {
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Refusal::INVALID_CERTIFICATE)?;
        let agent = agent_of(&certificate)?;
        check_usage(&certificate)?;
        Ok(Self {
            agent,
            fingerprint: Sha256::digest(der).into(),
            serial: Serial::of(certificate.raw_serial()),
            not_before_s: certificate.validity().not_before.timestamp(),
            not_after_s: certificate.validity().not_after.timestamp(),
        })
    }

    /// Whether the deny-list names this certificate or its agent.
    pub fn is_revoked(&self, list: &Revocations) -> bool {
        !list.is_empty()
            && Fingerprint::parse(&crate::ids::hex(&self.fingerprint))
                .is_none_or(|fingerprint| list.contains(&fingerprint, &self.serial, Some(&self.agent)))
    }

    /// Whether the certificate is within its dates.
    pub fn is_current(&self, now: Now) -> bool {
        is_within(self.not_before_s, self.not_after_s, now)
    }
}

fn agent_of(certificate: &X509Certificate<'_>) -> Result<AgentId, Refusal> {
    agent_of_uri(uri_of(certificate)?).ok_or(Refusal::INVALID_SPIFFE_FORMAT)
}

/// The one SPIFFE URI.
fn uri_of<'a>(certificate: &X509Certificate<'a>) -> Result<&'a str, Refusal> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| Refusal::INVALID_SPIFFE_SAN)?
        .ok_or(Refusal::MISSING_SPIFFE_SAN)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    // SPIFFE allows exactly one URI; other kinds of names may stand beside it.
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(Refusal::INVALID_SPIFFE_SAN);
    };
    if !uri.starts_with(SPIFFE_SCHEME) {
        return Err(Refusal::INVALID_SPIFFE_SAN);
    }
    Ok(uri)
}

/// The id in `spiffe://mas/agent/{id}`, compared byte for byte: no decoding, no normalization.
pub fn agent_of_uri(uri: &str) -> Option<AgentId> {
    AgentId::parse(uri.strip_prefix(SPIFFE_AGENT_PREFIX)?)
}

/// An agent's certificate is a leaf that may sign handshakes.
fn check_usage(certificate: &X509Certificate<'_>) -> Result<(), Refusal> {
    let refused = Refusal::INVALID_CERTIFICATE;
    if certificate.is_ca() {
        return Err(refused);
    }
    let usage = certificate.key_usage().map_err(|_| refused)?;
    if usage.is_some_and(|usage| !usage.value.digital_signature()) {
        return Err(refused);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn path_tricks_are_no_identity() {
        for uri in [
            "spiffe://mas/agent/",
            "spiffe://mas/agent//a",
            "spiffe://mas/agent/../a",
            "spiffe://mas/agent/a/",
            "spiffe://mas/agent/a/b",
            "spiffe://mas/agent/%61",
            "spiffe://mas/agent/a?x",
            "spiffe://mas/agent/a#x",
            "spiffe://mas:1/agent/a",
            "spiffe://u@mas/agent/a",
            "spiffe://MAS/agent/a",
            "SPIFFE://mas/agent/a",
            "spiffe://mas/Agent/a",
            "spiffe://mas.evil/agent/a",
            "spiffe://mas/operator/a",
            "spiffe://mas/agent/a\n",
            "spiffe://mas/agent/a\0",
            " spiffe://mas/agent/a",
        ] {
            assert_eq!(agent_of_uri(uri), None, "{uri:?}");
        }
    }

    proptest! {
        #[test]
        fn exactly_the_well_formed_uri_names_an_agent(id in "[A-Za-z0-9_-]{1,64}", extra in ".{1,5}") {
            let uri = format!("spiffe://mas/agent/{id}");
            let agent = agent_of_uri(&uri);
            prop_assert_eq!(agent.as_ref().map(AgentId::as_str), Some(id.as_str()));
            let prefixed = format!("{extra}{uri}");
            prop_assert!(agent_of_uri(&prefixed).is_none());
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Identity::from_der(&bytes);
            let _ = Claim::of(&bytes);
        }
    }
}
