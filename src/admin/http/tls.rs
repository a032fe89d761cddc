//! The TLS configuration in force.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;

/// What a client may offer; one that offers nothing is taken as well.
const ALPN: &[u8] = b"http/1.1";

/// A TLS configuration that can be replaced while the server runs: handshakes from then on use the new one.
#[derive(Debug)]
pub struct Tls(Mutex<Arc<ServerConfig>>);

impl Tls {
    /// Takes the certificates, the verifier of clients and the versions from `config`, which must not have a
    /// ticketer. Sessions are never resumed: each connection shows its certificate anew.
    pub fn new(config: ServerConfig) -> Self {
        Self(Mutex::new(prepare(config)))
    }

    /// Replaces the configuration. Connections that are open keep theirs.
    pub fn replace(&self, config: ServerConfig) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = prepare(config);
    }

    pub(super) fn current(&self) -> Arc<ServerConfig> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn prepare(mut config: ServerConfig) -> Arc<ServerConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Arc::new(config)
}
