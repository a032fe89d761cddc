//! Why the server does not listen.

use crate::config::ConfigError;
use crate::gate::GateError;

/// Why the server does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A certificate or key file: names the key of the configuration, too.
    #[error(transparent)]
    Tls(#[from] ConfigError),
    /// The address, threads, descriptors.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// gRPC itself.
    #[error("the gRPC server cannot be built: {0}")]
    Build(#[source] grpcio::Error),
}
