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
use crate::certs::sense::{self, Sense};
use crate::config::{Config, ConfigError};
use crate::files::{self, MAX_MATERIAL_BYTES};

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
    let authorities = chain("tls_ca_path", &tls.ca)?;
    let sense = sense::of_authorities(authorities.iter().map(|certificate| certificate.as_ref()));
    usable(sense).map_err(|problem| at("tls_ca_path", &tls.ca, problem))?;
    for certificate in authorities {
        roots
            .add(certificate)
            .map_err(|error| at("tls_ca_path", &tls.ca, format!("is no CA's certificate: {error}")))?;
    }
    let certificates = chain("tls_server_cert_path", &tls.cert)?;
    let sense = certificates.first().map(|leaf| sense::of_server(leaf)).unwrap_or_default();
    usable(sense).map_err(|problem| at("tls_server_cert_path", &tls.cert, problem))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&tls.key).map_err(key_problem)?)
        .map_err(|_| key_problem(unexpected(&read(&tls.key).unwrap_or_default(), "PRIVATE KEY")))?;
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
    files::read(path, MAX_MATERIAL_BYTES).map_err(|e| format!("cannot be read: {e}"))
}

/// The first error.
fn usable(sense: Vec<Sense>) -> Result<(), String> {
    let error = |one| match one {
        Sense::Error(why) => Some(why),
        Sense::Warning(_) => None,
    };
    sense.into_iter().find_map(error).map_or(Ok(()), Err)
}

/// What a file holds that should hold PEM with `label`.
fn unexpected(bytes: &[u8], label: &str) -> String {
    let has = |text: &str| memchr::memmem::find(bytes, text.as_bytes()).is_some();
    let what = match () {
        () if bytes.trim_ascii().is_empty() => "is empty",
        () if bytes.first() == Some(&0x30) => {
            "is DER; `openssl x509 -inform der` and `openssl pkey -inform der` make PEM of it"
        }
        () if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") => {
            "is an encrypted key; `openssl pkey` takes the password off"
        }
        () if has("BEGIN CERTIFICATE REQUEST") || has("BEGIN NEW CERTIFICATE REQUEST") => {
            "is a certificate request"
        }
        () if has("PRIVATE KEY-----") && label != "PRIVATE KEY" => "is a private key",
        () if has("BEGIN CERTIFICATE") && label != "CERTIFICATE" => "is a certificate",
        () if has("BEGIN PUBLIC KEY") => "is a public key",
        () => "cannot be read",
    };
    format!("{what}; expected PEM with BEGIN {label}")
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    const LABEL: &str = "CERTIFICATE";
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|_| unexpected(&pem, LABEL))?;
    if found.is_empty() {
        return Err(unexpected(&pem, LABEL));
    }
    // One whose BEGIN stands behind the END of another would be passed over in silence.
    let begun = memchr::memmem::find_iter(&pem, b"-----BEGIN CERTIFICATE-----").count();
    if begun != found.len() {
        return Err(format!(
            "has {begun} certificates, of which {} can be read: each BEGIN and END needs a line of its own",
            found.len()
        ));
    }
    Ok(found)
}

/// What an operator should look at in files that can be used.
pub fn warnings(config: &Config) -> Vec<String> {
    let tls = &config.tls;
    let mut warnings = Vec::new();
    let mut add = |key: &str, path: &Path, sense: Vec<Sense>| {
        for one in sense {
            let (Sense::Error(why) | Sense::Warning(why)) = one;
            warnings.push(format!("{key}: {} {why}", path.display()));
        }
    };
    if let Ok(authorities) = certificates(&tls.ca) {
        add("tls_ca_path", &tls.ca, sense::of_authorities(authorities.iter().map(|one| one.as_ref())));
    }
    if let Ok(chain) = certificates(&tls.cert) {
        add(
            "tls_server_cert_path",
            &tls.cert,
            chain.first().map(|leaf| sense::of_server(leaf)).unwrap_or_default(),
        );
    }
    for (key, path) in
        [("tls_ca_path", &tls.ca), ("tls_server_cert_path", &tls.cert), ("tls_server_key_path", &tls.key)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(path).map_or(0, |metadata| metadata.permissions().mode());
        if mode & 0o002 != 0 {
            warnings.push(format!(
                "{key}: {} can be written by everybody (mode {:o})",
                path.display(),
                mode & 0o777
            ));
        }
    }
    warnings
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
