//! `mas.yaml`: found, read, parsed and checked once; what leaves this module is valid.
//!
//! [`file`] holds the document's shape (every key, unknown ones refused). [`Config`] is what the rest
//! of the program sees: paths resolved against the file's folder, ids parsed, rules cross-checked.

mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::dlp::Dlp;
use crate::ids::AgentId;

pub use file::{Delivery, Features, Limits, Permission, Restart, Role};

use crate::policy::{BreakerConfig, RateLimit, parse_pattern};

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
/// One round trip to Redis may take this long unless the file says otherwise, in milliseconds.
const DEFAULT_REDIS_TIMEOUT_MS: u64 = 5000;
/// Longest `init_kwargs` of one agent as JSON, in bytes: they go through the environment of its process.
const MAX_INIT_KWARGS_BYTES: usize = 96 * 1024;
/// Arguments of a Python agent's constructor that the runner gives.
const RESERVED_KWARGS: [&str; 3] = ["agent_id", "server_addr", "tls"];
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
    /// Worker threads; `None`: as many as the cores this process may use.
    pub threads: Option<usize>,
    /// Certificates of the server and the CA that agents' certificates come from.
    pub tls: Tls,
    /// Bounds per request, agent and connection.
    pub limits: Limits,
    /// Redelivery and credit.
    pub delivery: Delivery,
    /// Where the store is.
    pub redis: Redis,
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
}

/// One allowlisted agent.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// What it offers; Discover filters by these.
    pub capabilities: Vec<String>,
    /// Free-form JSON object for Discover.
    pub metadata: serde_json::Value,
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
    /// An agent written for the Python framework.
    Python(PythonAgent),
    /// Nothing: the agent is only allowed to connect.
    None,
}

/// A class that the Python launcher makes an agent of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonAgent {
    /// `module:Class`.
    pub class_path: String,
    /// The interpreter; `None`: what `MAS_PYTHON` names, else `python3`.
    pub python: Option<String>,
    /// Further arguments of the constructor, a JSON object.
    pub init_kwargs: String,
}

/// A configuration that cannot be used: names the file, the key and what was expected.
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
        Resolver { path, text }.resolve(file)
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

struct Resolver<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Resolver<'_> {
    fn fail(&self, key: &str, problem: impl fmt::Display) -> ConfigError {
        ConfigError::new(self.path, format!("{key}: {problem}"))
    }

    /// Paths in the file are relative to the file's folder.
    fn absolute(&self, path: &Path) -> PathBuf {
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        folder.join(path)
    }

    fn resolve(&self, file: file::File) -> Result<Config, ConfigError> {
        let mut warnings = file.warnings();
        file.limits.check().map_err(|(key, problem)| self.fail(&format!("limits.{key}"), problem))?;
        file.delivery.check().map_err(|(key, problem)| self.fail(&format!("delivery.{key}"), problem))?;
        if file.threads.is_some_and(|n| n == 0 || n > 1024) {
            return Err(self.fail("threads", "expected 1 to 1024"));
        }
        if file
            .server_listen_addr
            .rsplit_once(':')
            .is_none_or(|(host, port)| host.is_empty() || port.parse::<u16>().is_err())
        {
            return Err(self.fail("server_listen_addr", "expected host:port"));
        }
        let tls = Tls {
            ca: self.required_path("tls_ca_path", file.tls_ca_path)?,
            cert: self.required_path("tls_server_cert_path", file.tls_server_cert_path)?,
            key: self.required_path("tls_server_key_path", file.tls_server_key_path)?,
            revoked: file.tls_revoked_path.map(|path| self.absolute(&path)),
        };
        let redis = self.redis(&file.gateway.redis)?;
        file::check_breaker(&file.gateway.circuit_breaker)
            .map_err(|(key, problem)| self.fail(&format!("gateway.circuit_breaker.{key}"), problem))?;
        let roles = self.roles(file.roles)?;
        let agents = self.agents(file.agents, &roles, &mut warnings)?;
        self.permissions(&file.permissions, &agents, &mut warnings)?;
        if file.permissions.is_empty() && !agents.is_empty() && !file.gateway.features.rbac {
            warnings.push("permissions: no rule, so every message is refused".to_owned());
        }
        let dlp = match file.gateway.features.dlp {
            true => {
                let compiled = Dlp::compile(&file.gateway.dlp).map_err(|e| self.fail("gateway", e))?;
                Some(Arc::new(compiled))
            }
            false => {
                warnings.push("gateway.features.dlp: off, so payloads are not searched".to_owned());
                None
            }
        };
        Ok(Config {
            path: self.path.to_path_buf(),
            digest: Sha256::digest(self.text.as_bytes()).into(),
            listen_addr: file.server_listen_addr,
            threads: file.threads,
            tls,
            limits: file.limits,
            delivery: file.delivery,
            redis,
            features: file.gateway.features,
            rate_limit: file.gateway.rate_limit,
            breaker: file.gateway.circuit_breaker,
            dlp,
            roles,
            permissions: file.permissions,
            agents,
            warnings,
        })
    }

    fn required_path(&self, key: &str, path: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        path.map(|p| self.absolute(&p)).ok_or_else(|| {
            self.fail(key, "is missing; mutual TLS is not optional (`mas certs init` makes the files)")
        })
    }

    fn redis(&self, redis: &file::Redis) -> Result<Redis, ConfigError> {
        let key = "gateway.redis.url";
        let timeout_ms = redis.socket_timeout.map_or(DEFAULT_REDIS_TIMEOUT_MS, |s| (s * 1000.0) as u64);
        if !(100..=60_000).contains(&timeout_ms) {
            return Err(self.fail("gateway.redis.socket_timeout", "expected 0.1 to 60 seconds"));
        }
        if redis.durability.mode != file::DurabilityMode::Accepted {
            return Err(
                self.fail("gateway.redis.durability.mode", "only `accepted` can be given by this version")
            );
        }
        if redis.url == "managed" {
            let data_dir = self.absolute(&redis.data_dir);
            let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
            let socket = data_dir.join(MANAGED_SOCKET);
            // sockaddr_un holds 108 bytes with the closing NUL.
            if socket.as_os_str().len() > 107 {
                return Err(self.fail(
                    "gateway.redis.data_dir",
                    format!("{} is too long for a unix socket (107 bytes)", socket.display()),
                ));
            }
            return Ok(Redis {
                url: format!("unix://{}", socket.display()),
                managed: Some(data_dir),
                timeout_ms,
            });
        }
        let known = ["redis://", "rediss://", "unix://"];
        if !known.iter().any(|scheme| redis.url.starts_with(scheme)) {
            return Err(self.fail(key, format!("expected `managed` or a URL with one of {known:?}")));
        }
        Ok(Redis { url: redis.url.clone(), managed: None, timeout_ms })
    }

    fn roles(&self, listed: Vec<Role>) -> Result<BTreeMap<String, Role>, ConfigError> {
        let mut roles = BTreeMap::new();
        for (index, role) in listed.into_iter().enumerate() {
            for (at, pattern) in role.permissions.iter().enumerate() {
                if parse_pattern(pattern).is_none() {
                    return Err(self.fail(
                        &format!("roles[{index}].permissions[{at}]"),
                        format!("{pattern:?} is no pattern: expected send:AGENT, send:PREFIX* or send:*"),
                    ));
                }
            }
            if role.name.is_empty() {
                return Err(self.fail(&format!("roles[{index}].name"), "is empty"));
            }
            let name = role.name.clone();
            if roles.insert(name.clone(), role).is_some() {
                return Err(self.fail(&format!("roles[{index}].name"), format!("{name:?} is listed twice")));
            }
        }
        Ok(roles)
    }

    fn agents(
        &self,
        listed: Vec<file::Agent>,
        roles: &BTreeMap<String, Role>,
        warnings: &mut Vec<String>,
    ) -> Result<BTreeMap<AgentId, Agent>, ConfigError> {
        if listed.len() > MAX_AGENTS {
            return Err(self.fail("agents", format!("at most {MAX_AGENTS} agents")));
        }
        if listed.is_empty() {
            warnings.push("agents: the allowlist is empty, so nobody can connect".to_owned());
        }
        let mut agents = BTreeMap::new();
        for (index, agent) in listed.into_iter().enumerate() {
            let key = format!("agents[{index}]");
            if !agent.metadata.is_object() {
                return Err(self.fail(&format!("{key}.metadata"), "expected a mapping"));
            }
            if agent.instances > MAX_INSTANCES {
                return Err(self.fail(&format!("{key}.instances"), format!("expected 0 to {MAX_INSTANCES}")));
            }
            if let Some(unknown) = agent.roles.iter().find(|role| !roles.contains_key(*role)) {
                return Err(self.fail(&format!("{key}.roles"), format!("{unknown:?} is not in `roles`")));
            }
            let program = self.program(&key, &agent)?;
            let id = agent.agent_id;
            let resolved = Agent {
                id: id.clone(),
                capabilities: agent.capabilities,
                metadata: agent.metadata,
                program,
                cert: agent.tls_cert_path.map(|p| self.absolute(&p)),
                key: agent.tls_key_path.map(|p| self.absolute(&p)),
                instances: agent.instances,
                env: agent.env,
                restart: agent.restart,
                roles: agent.roles,
                rate_limit: agent.rate_limit,
            };
            if agents.insert(id.clone(), resolved).is_some() {
                return Err(self.fail(&format!("{key}.agent_id"), format!("{id} is listed twice")));
            }
        }
        Ok(agents)
    }

    fn program(&self, key: &str, agent: &file::Agent) -> Result<Program, ConfigError> {
        let class_path = match (&agent.command, &agent.class_path) {
            (Some(_), Some(_)) => {
                return Err(self.fail(key, "has both `command` and `class_path`; expected one"));
            }
            (Some(words), None) if words.is_empty() => {
                return Err(self.fail(&format!("{key}.command"), "is empty"));
            }
            (Some(words), None) => return Ok(Program::Command(words.clone())),
            (None, Some(path)) => path,
            (None, None) => return Ok(Program::None),
        };
        if class_path.split_once(':').is_none_or(|(module, class)| module.is_empty() || class.is_empty()) {
            return Err(self.fail(&format!("{key}.class_path"), "expected module:Class"));
        }
        let init_kwargs = agent.init_kwargs.clone().unwrap_or_default();
        if let Some(name) = RESERVED_KWARGS.iter().find(|name| init_kwargs.contains_key(**name)) {
            return Err(self.fail(
                &format!("{key}.init_kwargs.{name}"),
                "is given to the constructor by the runner; leave it out",
            ));
        }
        let init_kwargs = serde_json::Value::Object(init_kwargs).to_string();
        if init_kwargs.len() > MAX_INIT_KWARGS_BYTES {
            return Err(self.fail(
                &format!("{key}.init_kwargs"),
                format!("are {} bytes as JSON; at most {MAX_INIT_KWARGS_BYTES}", init_kwargs.len()),
            ));
        }
        let python = agent.python.clone();
        Ok(Program::Python(PythonAgent { class_path: class_path.clone(), python, init_kwargs }))
    }

    fn permissions(
        &self,
        permissions: &[Permission],
        agents: &BTreeMap<AgentId, Agent>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        for (index, permission) in permissions.iter().enumerate() {
            for (field, name) in permission.named() {
                if !agents.contains_key(name) {
                    return Err(self.fail(
                        &format!("permissions[{index}].{field}"),
                        format!("{name:?} is not in `agents`"),
                    ));
                }
            }
            if let Permission::AllowWildcard { agent_id } = permission {
                warnings.push(format!(
                    "permissions[{index}]: {agent_id} may send to every agent (allow_wildcard)"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
