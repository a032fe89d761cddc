//! The server's side of mutual TLS: certificate files read and checked, and handed to gRPC again after a
//! reload. Open connections keep what they were made with.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use grpcio::{CertificateRequestType, ServerCredentials, ServerCredentialsBuilder, ServerCredentialsFetcher};

use super::error::ListenError;
use crate::config::Config;

const CLIENT_CERTIFICATE: CertificateRequestType =
    CertificateRequestType::RequestAndRequireClientCertificateAndVerify;

/// The three files' content.
pub(super) struct Pems {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl Pems {
    /// Reads and checks the files.
    pub(super) fn read(config: &Config) -> Result<Self, ListenError> {
        let tls = &config.tls;
        let file = |key: &str, path: &Path, label: &str| {
            read(path, label).map_err(|problem| config.error_at(key, format!("{} {problem}", path.display())))
        };
        check_secret(&tls.key).map_err(|problem| {
            config.error_at("tls_server_key_path", format!("{} {problem}", tls.key.display()))
        })?;
        Ok(Self {
            ca: file("tls_ca_path", &tls.ca, "BEGIN CERTIFICATE")?,
            cert: file("tls_server_cert_path", &tls.cert, "BEGIN CERTIFICATE")?,
            key: file("tls_server_key_path", &tls.key, "PRIVATE KEY")?,
        })
    }

    fn builder(self) -> ServerCredentialsBuilder {
        ServerCredentialsBuilder::new().root_cert(self.ca, CLIENT_CERTIFICATE).add_cert(self.cert, self.key)
    }
}

fn read(path: &Path, label: &str) -> Result<Vec<u8>, String> {
    let pem = std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))?;
    // C strings end at a NUL, and gRPC takes what comes before it.
    if pem.contains(&0) || !String::from_utf8_lossy(&pem).contains(label) {
        return Err(format!("is not what was expected: PEM with {label}"));
    }
    Ok(pem)
}

/// A private key that everybody on the machine can read is nobody's private key.
fn check_secret(path: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).map_err(|e| format!("cannot be read: {e}"))?;
    let mode = metadata.permissions().mode();
    if mode & 0o004 != 0 {
        return Err(format!("is readable by everybody (mode {:o}); expected 600", mode & 0o777));
    }
    Ok(())
}

/// Certificates that wait to be taken up: by the first handshake after a reload.
#[derive(Clone)]
pub(super) struct Renewal {
    waiting: Arc<Mutex<Option<Pems>>>,
}

impl Renewal {
    pub(super) fn new(first: Pems) -> Self {
        Self { waiting: Arc::new(Mutex::new(Some(first))) }
    }

    /// New handshakes use these.
    pub(super) fn replace(&self, pems: Pems) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(pems);
    }

    pub(super) fn credentials(&self) -> ServerCredentials {
        ServerCredentials::with_fetcher(Box::new(self.clone()), CLIENT_CERTIFICATE)
    }
}

impl ServerCredentialsFetcher for Renewal {
    // Called at every handshake: no I/O here, and no panic.
    fn fetch(&self) -> Result<Option<ServerCredentialsBuilder>, Box<dyn std::error::Error>> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(waiting.map(Pems::builder))
    }
}
