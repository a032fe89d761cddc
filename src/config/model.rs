//! The configuration that the rest of the program sees.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::admin::{AdminListen, AdminSocketAt, Operator};
use super::audit::Audit;
use super::breaker::BreakerConfig;
use super::error::ConfigError;
use super::file::{Delivery, Features, Limits, Permission, Restart};
use super::place::KeyPath;
use super::redis::{Durability, RedisTls, Sentinel};
use super::roles::Role;
use super::telemetry::Telemetry;
use super::text;
use crate::dlp::Dlp;
use crate::ids::AgentId;
use crate::policy::RateLimit;

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
    /// SHA-256 of the file alone.
    pub file_digest: [u8; 32],
    /// `host:port` to serve on; port 0 lets the system choose.
    pub listen_addr: String,
    /// Where health and metrics are told.
    pub admin_listen_addr: AdminListen,
    /// The same as a unix socket, for users of this host.
    pub admin_socket: AdminSocketAt,
    /// Who may do what there.
    pub operators: Vec<Operator>,
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

impl Config {
    /// An error about the value of `key` (`tls_ca_path`, `agents[2].tls_key_path`) that shows after
    /// loading, such as a file that cannot be read. The line is left out if the file has changed since.
    pub fn error_at(&self, key: &str, problem: impl fmt::Display) -> ConfigError {
        let text = text::read(&self.path).unwrap_or_default();
        let same = <[u8; 32]>::from(Sha256::digest(text.as_bytes())) == self.file_digest;
        ConfigError::at(&self.path, if same { text.as_str() } else { "" }, &KeyPath::from(key), problem)
    }

    /// Worker threads to start: as configured, else the cores this process may use.
    pub fn worker_threads(&self) -> usize {
        self.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from))
    }
}
