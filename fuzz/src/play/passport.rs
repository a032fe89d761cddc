//! What a client needs for its handshakes.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest, Sha256};

#[derive(Clone)]
pub struct Passport {
    verifier: Arc<WebPkiServerVerifier>,
    shown: Option<(CertificateDer<'static>, Arc<PrivateKeyDer<'static>>)>,
}

impl Passport {
    /// Without a certificate; who is trusted.
    pub fn without(ca: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(ca).expect("a certificate")).expect("a CA's");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Self { verifier: verifier.build().expect("a CA"), shown: None }
    }

    /// The same trust, and that certificate.
    pub fn with(&self, cert: &str, key: &str) -> Self {
        let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
        Self { verifier: self.verifier.clone(), shown: Some((cert, Arc::new(key))) }
    }

    /// The certificate's fingerprint.
    pub fn fingerprint(&self) -> Option<[u8; 32]> {
        self.shown.as_ref().map(|(cert, _)| Sha256::digest(cert).into())
    }

    pub fn config(&self, tls12: bool, alpn: bool) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let version = if tls12 { &TLS12 } else { &TLS13 };
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .expect("versions that ring knows")
            .with_webpki_verifier(self.verifier.clone());
        let mut config = match &self.shown {
            Some((cert, key)) => {
                config.with_client_auth_cert(vec![cert.clone()], key.clone_key()).expect("a pair")
            }
            None => config.with_no_client_auth(),
        };
        if alpn {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        Arc::new(config)
    }
}
