//! Who may finish a handshake: who shows a certificate of the CA that is within its dates. One that is not, and is of the
//! CA otherwise, is on record with the identity that it names.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::knock::Shown;
use super::report::Report;
use crate::clock::Now;
use crate::identity::Identity;

/// What is wrong with a certificate that has ended.
const EXPIRED: &str = "its certificate is expired";

/// rustls' own verification, and a record of whom it refuses.
#[derive(Debug)]
pub(super) struct Verifier {
    rules: Arc<dyn ClientCertVerifier>,
    report: Arc<Report>,
}

impl Verifier {
    pub(super) fn new(rules: Arc<dyn ClientCertVerifier>, report: Arc<Report>) -> Self {
        Self { rules, report }
    }

    /// Puts on record whose certificate is not within its dates, if that is all that is wrong with it; keeps what was
    /// shown for the log.
    fn note(&self, leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>], error: &Error) {
        self.report.showed(Shown::keep(leaf, false));
        let (why, at): (_, fn(&Identity) -> i64) = match error {
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => (EXPIRED, |identity| identity.not_after_s),
            Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => ("its certificate is not yet valid", |identity| identity.not_before_s),
            _ => return,
        };
        let Ok(identity) = Identity::from_der(leaf) else { return };
        let Ok(then) = u64::try_from(at(&identity)) else { return };
        let then = UnixTime::since_unix_epoch(Duration::from_secs(then));
        if self.rules.verify_client_cert(leaf, chain, then).is_ok() {
            let now_us = Now::mono_us();
            if why == EXPIRED {
                self.report.ended(identity.agent.as_str(), identity.not_after_s, now_us);
            }
            self.report.outdated(identity.agent.as_str(), why, now_us);
        }
    }

    /// Keeps for the log what was shown by somebody who does not hold its key: the certificate itself was good.
    fn note_signature(&self, leaf: &CertificateDer<'_>, is_good: bool) {
        if !is_good {
            self.report.showed(Shown::keep(leaf, true));
        }
    }
}

impl ClientCertVerifier for Verifier {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.rules.verify_client_cert(leaf, chain, now);
        if let Err(error) = &verified {
            self.note(leaf, chain, error);
        }
        verified
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.rules.root_hint_subjects()
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.rules.verify_tls12_signature(message, leaf, signature);
        self.note_signature(leaf, verified.is_ok());
        verified
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let verified = self.rules.verify_tls13_signature(message, leaf, signature);
        self.note_signature(leaf, verified.is_ok());
        verified
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.rules.supported_verify_schemes()
    }

    fn offer_client_auth(&self) -> bool {
        self.rules.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.rules.client_auth_mandatory()
    }

    fn requires_raw_public_keys(&self) -> bool {
        self.rules.requires_raw_public_keys()
    }
}
