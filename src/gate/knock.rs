//! Who knocked and was not let in: why a handshake is refused, in words and as a reason that does not change with them,
//! and what the certificate says that was shown.

use std::borrow::Cow;
use std::net::SocketAddr;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::identity::{Claim, Identity};
use crate::refusal::Refusal;

/// Longest certificate that is kept for a log line, in bytes.
const MAX_SHOWN_BYTES: usize = 16 * 1024;

/// Why a handshake is refused.
#[derive(Debug)]
pub(super) enum Cause {
    /// Its first message cannot be read.
    Hello(Error),
    /// A later one cannot, or what it shows is not good.
    Tls(Error),
    /// It took longer than a handshake may.
    TimedOut,
    /// Others came meanwhile, and there was no room for all.
    CrowdedOut,
    /// Too many came from its address.
    TooMany,
    /// There are as many connections as there may be.
    NoRoom,
    /// It does not speak HTTP/2.
    NoHttp2,
    /// Linux has none of what a connection needs.
    System(std::io::Error),
}

/// The certificate of a handshake that failed over it.
#[derive(Debug)]
pub(super) struct Shown {
    der: Vec<u8>,
    /// A CA of the configuration signed it. Whoever shows it may be somebody else all the same.
    is_signed: bool,
}

impl Shown {
    /// Keeps what a client has shown, where it is of a size that certificates have.
    pub(super) fn keep(der: &[u8], is_signed: bool) -> Option<Self> {
        (der.len() <= MAX_SHOWN_BYTES).then(|| Self { der: der.to_vec(), is_signed })
    }
}

impl Cause {
    /// The reason and its words.
    fn told(&self, is_signed: bool) -> (&'static str, Cow<'static, str>) {
        let (reason, words) = match self {
            Self::Hello(Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            )) => ("not_tls", "it does not speak TLS"),
            Self::Hello(error) | Self::Tls(error) => return told(error, is_signed),
            Self::TimedOut => ("timeout", "it took too long"),
            Self::CrowdedOut => ("crowded_out", "others came while it took its time"),
            Self::TooMany => ("too_many_handshakes", "too many handshakes from its address"),
            Self::NoRoom => ("too_many_connections", "there are as many connections as there may be"),
            Self::NoHttp2 => ("no_http2", "it does not offer HTTP/2 (ALPN h2)"),
            Self::System(error) => return ("system", error.to_string().into()),
        };
        (reason, words.into())
    }
}

fn told(error: &Error, is_signed: bool) -> (&'static str, Cow<'static, str>) {
    let (reason, words) = match error {
        Error::NoCertificatesPresented => ("no_certificate", "it shows no certificate"),
        Error::InvalidCertificate(error) => return told_of_certificate(error, is_signed),
        Error::NoApplicationProtocol => ("no_http2", "it does not offer HTTP/2 (ALPN h2)"),
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            // It has a CA of the same name that did not sign it.
            | AlertDescription::DecryptError,
        ) => {
            let words = format!("it does not take this server's certificate ({error})");
            return ("server_not_trusted", words.into());
        }
        Error::AlertReceived(_) => return ("broken_off", format!("it broke it off ({error})").into()),
        Error::PeerIncompatible(_) => {
            let words = format!("its TLS and this server's have too little in common ({error})");
            return ("tls_incompatible", words.into());
        }
        _ => return ("tls_error", format!("it does not keep to TLS ({error})").into()),
    };
    (reason, words.into())
}

fn told_of_certificate(error: &CertificateError, is_signed: bool) -> (&'static str, Cow<'static, str>) {
    let (reason, words) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ("certificate_expired", "its certificate is expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ("certificate_not_yet_valid", "its certificate is not yet valid")
        }
        // Of what it has signed in the handshake itself.
        CertificateError::BadSignature if is_signed => {
            ("key_not_held", "it does not hold the key of the certificate that it shows")
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ("unknown_ca", "its certificate is not signed by a CA of tls_ca_path")
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            ("certificate_not_for_clients", "its certificate is not one for clients")
        }
        other => return ("certificate_unusable", format!("its certificate cannot be used ({other})").into()),
    };
    (reason, words.into())
}

/// Logs a handshake that was refused. Nothing proves that who shook hands is whom the certificate names.
pub(super) fn handshake_refused(from: SocketAddr, cause: &Cause, shown: Option<&Shown>, left_out: u64) {
    let (reason, words) = cause.told(shown.is_some_and(|shown| shown.is_signed));
    let claim = shown.map(|shown| Claim::of(&shown.der));
    let says =
        claim.as_ref().map_or(String::new(), |claim| format!("; the certificate shown is {}", named(claim)));
    log::warn!(
        code = "handshake_refused", peer:% = from, reason,
        claimed_agent = claim.as_ref().and_then(|claim| claim.agent.as_ref()).map(|agent| agent.as_str()),
        serial = claim.as_ref().and_then(|claim| claim.serial.as_ref()).map(|serial| serial.as_str()),
        fingerprint = claim.as_ref().map(|claim| claim.fingerprint.as_str()),
        left_out = (left_out > 0).then_some(left_out);
        "a handshake from {from} was refused: {words}{says}{}", and_more(left_out)
    );
}

/// Logs that somebody is connected whose calls are all refused, for what the certificate says or for who it is.
pub(super) fn caller_refused(
    from: SocketAddr,
    der: &[u8],
    identity: Option<&Identity>,
    refusal: Refusal,
    left_out: u64,
) {
    let claim = Claim::of(der);
    log::warn!(
        code = "caller_refused", peer:% = from, reason = refusal.detail,
        agent = identity.map(|identity| identity.agent.as_str()),
        serial = claim.serial.as_ref().map(|serial| serial.as_str()),
        fingerprint = claim.fingerprint.as_str(),
        left_out = (left_out > 0).then_some(left_out);
        "whoever connected from {from} with a certificate of {} is refused every call: {}{}",
        named(&claim), because(refusal, identity.is_some()), and_more(left_out)
    );
}

/// Whom a certificate names.
fn named(claim: &Claim) -> String {
    match (&claim.agent, &claim.uri) {
        (Some(agent), _) => format!("agent \"{agent}\""),
        (None, Some(uri)) => format!("{uri:?}"),
        (None, None) => "nobody".to_owned(),
    }
}

fn because(refusal: Refusal, is_agent: bool) -> &'static str {
    match refusal {
        Refusal::MISSING_SPIFFE_SAN => "it has no subject alternative name",
        Refusal::INVALID_SPIFFE_SAN => "it does not have exactly one URI, a SPIFFE URI, among its names",
        Refusal::INVALID_SPIFFE_FORMAT => "its URI is not spiffe://mas/agent/ID",
        Refusal::INVALID_CERTIFICATE if is_agent => "it is not within its dates",
        Refusal::INVALID_CERTIFICATE => "it is a CA's, or its key is not for signatures",
        Refusal::CERTIFICATE_REVOKED => "the deny-list names it or its agent",
        Refusal::AGENT_NOT_ALLOWLISTED => "the configuration has no such agent",
        Refusal::QUARANTINED => "the agent is in quarantine",
        other => other.detail,
    }
}

/// Says how many lines were left out before this one.
pub(super) fn and_more(left_out: u64) -> String {
    if left_out == 0 { String::new() } else { format!(" ({left_out} more were not logged)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_that_is_not_good_is_the_ca_s_or_the_client_s() {
        let cause = Cause::Tls(Error::InvalidCertificate(CertificateError::BadSignature));
        assert_eq!(cause.told(false).0, "unknown_ca");
        assert_eq!(cause.told(true).0, "key_not_held");
    }

    #[test]
    fn a_client_that_turns_away_is_told_from_one_that_gives_up() {
        let alert = |alert| Cause::Tls(Error::AlertReceived(alert)).told(false).0;
        assert_eq!(alert(AlertDescription::UnknownCA), "server_not_trusted");
        assert_eq!(alert(AlertDescription::DecryptError), "server_not_trusted");
        assert_eq!(alert(AlertDescription::UserCanceled), "broken_off");
    }

    #[test]
    fn what_no_certificate_has_the_size_of_is_not_kept() {
        assert!(Shown::keep(&[0; MAX_SHOWN_BYTES], true).is_some());
        assert!(Shown::keep(&[0; MAX_SHOWN_BYTES + 1], true).is_none());
    }
}
