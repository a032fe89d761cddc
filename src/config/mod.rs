//! `mas.yaml`: found, read, parsed and checked once; what leaves this module is valid.
//!
//! `file` holds the document's shape (every key, unknown ones refused). `resolve` makes it the
//! [`Config`] that the rest of the program sees: paths resolved against the file's folder, ids parsed,
//! rules cross-checked. `place` finds the line of what is wrong.

mod audit;
mod file;
mod place;
mod redis;
mod resolve;
mod telemetry;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::dlp::Dlp;
use crate::ids::AgentId;
use crate::policy::{BreakerConfig, RateLimit};
pub(crate) use place::KeyPath;

pub use self::redis::{Durability, RedisTls, Sentinel};
pub use audit::Audit;
pub use file::{Delivery, Features, Limits, Permission, Restart, Role};
pub use telemetry::Telemetry;

/// Name of the configuration file that is searched upward from the working directory.
pub const FILE_NAME: &str = "mas.yaml";
/// Environment variable that names the configuration file.
pub const FILE_VARIABLE: &str = "MAS_CONFIG_FILE";
/// Largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Most agents in one configuration.
pub const MAX_AGENTS: usize = 100_000;
/// Most processes of one agent that the runner starts.
pub const MAX_INSTANCES: u32 = 64;
/// Longest time for which an idle worker may look for work, in microseconds.
pub const MAX_SPIN_US: u64 = 10_000;
/// Name of the socket of a managed Redis inside its data directory.
pub const MANAGED_SOCKET: &str = "redis.sock";

/// A valid configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// SHA-256 of the file's bytes: the policy version of audit records.
    pub digest: [u8; 32],
    /// `host:port` to serve on; port 0 lets the system choose.
    pub listen_addr: String,
    /// `host:port` of health, metrics and dashboard; `None`: off.
    pub admin_listen_addr: Option<String>,
    /// Worker threads; `None`: as many as the cores this process may use.
    pub threads: Option<usize>,
    /// How long a worker that has nothing to do looks for work before it sleeps, in microseconds; 0: not at all.
    pub spin_us: u64,
    /// Certificates of the server and the CA that agents' certificates come from.
    pub tls: Tls,
    /// Bounds per request, agent and connection.
    pub limits: Limits,
    /// Redelivery and credit.
    pub delivery: Delivery,
    /// Where the store is.
    pub redis: Redis,
    /// The audit trail beside Redis.
    pub audit: Audit,
    /// Traces and metrics to a collector.
    pub telemetry: Telemetry,
    /// Which policy stages are on.
    pub features: Features,
    /// Messages per agent that has no limit of its own.
    pub rate_limit: RateLimit,
    /// When circuits open.
    pub breaker: BreakerConfig,
    /// What payloads are searched for; `None`: the stage is off.
    pub dlp: Option<Arc<Dlp>>,
    /// Roles, by name.
    pub roles: BTreeMap<String, Role>,
    /// The rules, in the order of the file, over known agents only.
    pub permissions: Vec<Permission>,
    /// The allowlist, by id.
    pub agents: BTreeMap<AgentId, Agent>,
    /// What an operator should be told at start: settings that have no effect, or are dangerous.
    pub warnings: Vec<String>,
}

/// Files of the server's side of mutual TLS, PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// CA that must have issued every agent's certificate.
    pub ca: PathBuf,
    /// The server's certificate chain.
    pub cert: PathBuf,
    /// The server's private key.
    pub key: PathBuf,
    /// The deny-list of certificates.
    pub revoked: Option<PathBuf>,
}

/// Where Redis is.
#[derive(Debug, Clone)]
pub struct Redis {
    /// `redis://`, `rediss://` or `unix://` URL; for a managed one, its socket.
    pub url: String,
    /// The data directory of a private `redis-server` child, when `url: managed`.
    pub managed: Option<PathBuf>,
    /// How long one round trip may take before the connection is given up, in milliseconds.
    pub timeout_ms: u64,
    /// What must hold of a commit before it is answered.
    pub durability: Durability,
    /// Files for `rediss://`.
    pub tls: RedisTls,
    /// Who knows which Redis is the primary, if it may change.
    pub sentinel: Option<Sentinel>,
}

/// One allowlisted agent.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// What it offers; Discover filters by these.
    pub capabilities: Vec<String>,
    /// Free-form JSON object for Discover.
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Arguments for the constructor of a [`Program::ClassPath`].
    pub init_kwargs: serde_json::Map<String, serde_json::Value>,
    /// The interpreter of a [`Program::ClassPath`]; `None`: what `MAS_PYTHON` names, else `python3`.
    pub python: Option<String>,
    /// How the runner starts it, if at all.
    pub program: Program,
    /// Its certificate, for the runner.
    pub cert: Option<PathBuf>,
    /// Its private key, for the runner.
    pub key: Option<PathBuf>,
    /// Processes that the runner starts.
    pub instances: u32,
    /// Further environment of its processes.
    pub env: BTreeMap<String, String>,
    /// When the runner starts a process again.
    pub restart: Restart,
    /// Its roles; each is in [`Config::roles`].
    pub roles: Vec<String>,
    /// Its own limit.
    pub rate_limit: Option<RateLimit>,
}

/// What the runner starts for an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A program and its arguments.
    Command(Vec<String>),
    /// A Python agent, `module:Class`.
    ClassPath(String),
    /// Nothing: the agent is only allowed to connect.
    None,
}

/// A configuration that cannot be used: names the file, the key, what was expected and the line.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {problem}", path = path.display())]
pub struct ConfigError {
    path: PathBuf,
    problem: String,
}

impl ConfigError {
    fn new(path: &Path, problem: impl fmt::Display) -> Self {
        Self { path: path.to_path_buf(), problem: problem.to_string() }
    }

    /// About the value of one key in a document that could be read.
    fn at(path: &Path, text: &str, key: &KeyPath, problem: impl fmt::Display) -> Self {
        match key.line(text) {
            Some(line) => Self::new(path, format!("{key}: {problem} at line {line}")),
            None => Self::new(path, format!("{key}: {problem}")),
        }
    }
}

impl Config {
    /// Reads the file named by `explicit`, else by `MAS_CONFIG_FILE`, else the nearest `mas.yaml` upward
    /// from the working directory.
    pub fn locate_and_load(explicit: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load(&locate(explicit)?)
    }

    /// Reads and checks one file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let fail = |problem: String| ConfigError::new(path, problem);
        let size = std::fs::metadata(path).map_err(|e| fail(format!("cannot be read: {e}")))?.len();
        if size > MAX_FILE_BYTES {
            return Err(fail(format!("is {size} bytes long; at most {MAX_FILE_BYTES} are read")));
        }
        let text =
            std::fs::read_to_string(path).map_err(|e| fail(format!("cannot be read as UTF-8 text: {e}")))?;
        Self::parse(path, &text)
    }

    /// Checks `text` as the content of the file at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let file = file::parse(text).map_err(|problem| ConfigError::new(path, problem))?;
        resolve::resolve(path, text, file)
    }

    /// An error about the value of `key` (`tls_ca_path`, `agents[2].tls_key_path`) that shows after
    /// loading, such as a file that cannot be read. The line is left out if the file has changed since.
    pub fn error_at(&self, key: &str, problem: impl fmt::Display) -> ConfigError {
        let same = |text: &String| <[u8; 32]>::from(Sha256::digest(text.as_bytes())) == self.digest;
        let text = std::fs::read_to_string(&self.path).ok().filter(same).unwrap_or_default();
        ConfigError::at(&self.path, &text, &KeyPath::from(key), problem)
    }

    /// Worker threads to start: as configured, else the cores this process may use.
    pub fn worker_threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}

/// Finds the configuration file without reading it.
pub fn locate(explicit: Option<&Path>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = explicit {
        return Ok(path.to_path_buf());
    }
    if let Some(path) = std::env::var_os(FILE_VARIABLE).filter(|p| !p.is_empty()) {
        return Ok(PathBuf::from(path));
    }
    let here = std::env::current_dir()
        .map_err(|e| ConfigError::new(Path::new("."), format!("no working directory: {e}")))?;
    here.ancestors().map(|folder| folder.join(FILE_NAME)).find(|path| path.is_file()).ok_or_else(|| {
        ConfigError::new(&here, format!("no {FILE_NAME} here or in any folder above; name one with --config"))
    })
}

#[cfg(test)]
mod tests;
