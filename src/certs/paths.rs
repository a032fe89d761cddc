//! Where the files are in a CA's folder.

use std::path::{Path, PathBuf};

use crate::ids::AgentId;

/// Where a certificate and its private key are, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedPaths {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key, mode 0600.
    pub key: PathBuf,
}

/// Where the certificate and key of an agent are.
pub type AgentFiles = IssuedPaths;

/// Where the CA in `dir` keeps its own certificate.
pub fn ca_file(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

/// Where the CA in `dir` puts the server's certificate and key.
pub fn server_files(dir: &Path) -> IssuedPaths {
    IssuedPaths { cert: dir.join("server.pem"), key: dir.join("server.key") }
}

/// Where the CA in `dir` puts the certificate and key of agent `id`.
pub fn agent_files(dir: &Path, id: &AgentId) -> AgentFiles {
    let folder = agents_folder(dir);
    AgentFiles { cert: folder.join(format!("{id}.pem")), key: folder.join(format!("{id}.key")) }
}

/// Where the CA in `dir` puts the certificate and key of an operator.
pub fn operator_files(dir: &Path, name: &str) -> IssuedPaths {
    let folder = operators_folder(dir);
    IssuedPaths { cert: folder.join(format!("{name}.pem")), key: folder.join(format!("{name}.key")) }
}

/// The folder of operators' certificates below `dir`.
pub fn operators_folder(dir: &Path) -> PathBuf {
    dir.join("operators")
}

/// The folder of agents' certificates below `dir`.
pub fn agents_folder(dir: &Path) -> PathBuf {
    dir.join("agents")
}

/// Where the list of revoked certificates and agents of the CA in `dir` is.
pub fn revoked_file(dir: &Path) -> PathBuf {
    dir.join("revoked.json")
}

pub(super) fn ca_key_file(dir: &Path) -> PathBuf {
    dir.join("ca.key")
}
