//! The server's side of mutual TLS: certificate files read and checked, made into what a handshake needs, and replaced
//! as one thing by a reload. A session is never resumed: each connection shows its certificate anew.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use super::report::Report;
use super::verifier::Verifier;
use crate::config::{Config, ConfigError};

/// What a client must offer.
pub(super) const ALPN: &[u8] = b"h2";

/// Reads and checks the files. `report`: where certificates are counted that are not within their dates.
pub fn load(config: &Config, report: &Arc<Report>) -> Result<Arc<ServerConfig>, ConfigError> {
    let tls = &config.tls;
    let at = |key: &str, path: &Path, problem: String| {
        config.error_at(key, format!("{} {problem}", path.display()))
    };
    let chain = |key: &str, path: &Path| certificates(path).map_err(|problem| at(key, path, problem));
    let key_problem = |problem| at("tls_server_key_path", &tls.key, problem);
    check_secret(&tls.key).map_err(key_problem)?;
    let mut roots = RootCertStore::empty();
    for certificate in chain("tls_ca_path", &tls.ca)? {
        roots
            .add(certificate)
            .map_err(|error| at("tls_ca_path", &tls.ca, format!("is no CA's certificate: {error}")))?;
    }
    let certificates = chain("tls_server_cert_path", &tls.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read(&tls.key).map_err(key_problem)?)
        .map_err(|_| key_problem(expected("PRIVATE KEY")))?;
    let provider = Arc::new(provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| at("tls_ca_path", &tls.ca, format!("is no CA's certificate: {error}")))?;
    let mut made = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| key_problem(error.to_string()))?
        .with_client_cert_verifier(Arc::new(Verifier::new(verifier, report.clone())))
        .with_single_cert(certificates, key)
        .map_err(|error| {
            at("tls_server_cert_path", &tls.cert, format!("does not go with {}: {error}", tls.key.display()))
        })?;
    made.alpn_protocols = vec![ALPN.to_vec()];
    made.session_storage = Arc::new(NoServerSessionStorage {});
    made.send_tls13_tickets = 0;
    Ok(Arc::new(made))
}

/// Groups in the order in which the server prefers them.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![ring::kx_group::X25519, ring::kx_group::SECP384R1, ring::kx_group::SECP256R1],
        ..ring::default_provider()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot be read: {e}"))
}

fn expected(label: &str) -> String {
    format!("is not what was expected: PEM with {label}")
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let label = "BEGIN CERTIFICATE";
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|_| expected(label))?;
    if found.is_empty() { Err(expected(label)) } else { Ok(found) }
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
