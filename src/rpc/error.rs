//! Why the server does not listen.

use crate::config::ConfigError;

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A certificate or key file: names the key of the configuration, too.
    #[error(transparent)]
    Tls(#[from] ConfigError),
    /// The address.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// What was asked for.
        addr: String,
        /// gRPC's word.
        source: grpcio::Error,
    },
    /// gRPC itself.
    #[error("the gRPC server cannot be built: {0}")]
    Build(#[source] grpcio::Error),
}
