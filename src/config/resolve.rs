//! From the document to a valid [`Config`]: paths, ranges and cross-checks. The first thing that is wrong
//! ends it, with file, key path and line.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::admin::{self, AdminListen, AdminSocket, AdminSocketAt};
use super::error::ConfigError;
use super::file::{self, Permission};
use super::model::{
    Agent, Config, MANAGED_SOCKET, MAX_AGENTS, MAX_INSTANCES, MAX_SPIN_US, Program, Redis, Tls,
};
use super::place::KeyPath;
use super::range::Problem;
use super::redis::{self, Durability, WAIT_MARGIN_MS};
use super::roles::{Pattern, Role, parse_pattern};
use super::same_files;
use crate::dlp::{Dlp, MAX_RULES_FILE_BYTES};
use crate::files;
use crate::ids::AgentId;

/// One round trip to Redis may take this long unless the file says otherwise, in milliseconds.
const DEFAULT_REDIS_TIMEOUT_MS: u64 = 5000;
/// Longest `init_kwargs` of one agent as JSON, in bytes: they go through the environment of its process.
const MAX_INIT_KWARGS_BYTES: usize = 96 * 1024;
/// Arguments of a Python agent's constructor that the runner gives.
const RESERVED_KWARGS: [&str; 3] = ["agent_id", "server_addr", "tls"];

pub(super) fn resolve(path: &Path, text: &str, file: file::File) -> Result<Config, ConfigError> {
    Resolver { path, text }.resolve(file)
}

struct Resolver<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Resolver<'_> {
    fn fail(&self, key: impl Into<KeyPath>, problem: impl fmt::Display) -> ConfigError {
        ConfigError::at(self.path, self.text, &key.into(), problem)
    }

    /// What a section's own check says, with the section's name.
    fn section(&self, section: &str, checked: Result<(), Problem>) -> Result<(), ConfigError> {
        checked.map_err(|(key, problem)| self.fail(KeyPath::from(section).key(key), problem))
    }

    /// Paths in the file are relative to the file's folder.
    fn absolute(&self, path: &Path) -> PathBuf {
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        folder.join(path)
    }

    /// The rules of one's own.
    fn rules_text(&self, path: &Path) -> Result<String, ConfigError> {
        let path = self.absolute(path);
        let fail =
            |problem: String| self.fail("gateway.dlp.rules_file", format!("{}: {problem}", path.display()));
        files::read_text(&path, MAX_RULES_FILE_BYTES)
            .map_err(|error| fail(format!("cannot be read: {error}")))
    }

    fn resolve(&self, file: file::File) -> Result<Config, ConfigError> {
        let mut warnings = file.warnings();
        admin::check(&file.operators)
            .map_err(|(at, (key, problem))| self.fail(format!("operators[{at}].{key}").as_str(), problem))?;
        self.section("limits", file.limits.check())?;
        self.section("delivery", file.delivery.check())?;
        self.section("gateway.audit", file.gateway.audit.check())?;
        self.section("gateway.telemetry", file.gateway.telemetry.check())?;
        self.section("gateway.circuit_breaker", file.gateway.circuit_breaker.check())?;
        self.section("gateway.redis.durability", file.gateway.redis.durability.check())?;
        if file.threads.is_some_and(|n| n == 0 || n > 1024) {
            return Err(self.fail("threads", "expected 1 to 1024"));
        }
        if file.spin_us > MAX_SPIN_US {
            return Err(self.fail("spin_us", format!("expected 0 to {MAX_SPIN_US}")));
        }
        self.address("server_listen_addr", &file.server_listen_addr)?;
        if let AdminListen::At(address) = &file.admin_listen_addr {
            self.address("admin_listen_addr", address)?;
        }
        let tls = Tls {
            ca: self.required_path("tls_ca_path", file.tls_ca_path)?,
            cert: self.required_path("tls_server_cert_path", file.tls_server_cert_path)?,
            key: self.required_path("tls_server_key_path", file.tls_server_key_path)?,
            revoked: file.tls_revoked_path.map(|path| self.absolute(&path)),
        };
        let redis = self.redis(file.gateway.redis)?;
        let roles = self.roles(file.roles)?;
        if file.gateway.features.rbac {
            warn_of_wide_roles(&roles, &mut warnings);
        }
        let agents = self.agents(file.agents, &roles, &mut warnings)?;
        self.permissions(&file.permissions, &agents, &mut warnings)?;
        if file.permissions.is_empty() && !agents.is_empty() && !file.gateway.features.rbac {
            warnings.push("permissions: no rule, so every message is refused".to_owned());
        }
        let mut rules_text = None;
        let dlp = match file.gateway.features.dlp {
            true => {
                let mut dlp = file.gateway.dlp;
                dlp.rules_text = dlp.rules_file.as_deref().map(|path| self.rules_text(path)).transpose()?;
                let compiled = Dlp::compile(&dlp).map_err(|error| {
                    self.fail(format!("gateway.dlp.{}", error.key).as_str(), error.problem)
                })?;
                warn_of_strangers(&compiled, &agents, &mut warnings);
                rules_text = dlp.rules_text;
                Some(Arc::new(compiled))
            }
            false => {
                warnings.push("gateway.features.dlp: off, so payloads are not searched".to_owned());
                None
            }
        };
        let config = Config {
            path: self.path.to_path_buf(),
            digest: digest(self.text, rules_text.as_deref()),
            file_digest: Sha256::digest(self.text.as_bytes()).into(),
            listen_addr: file.server_listen_addr,
            admin_listen_addr: file.admin_listen_addr,
            admin_socket: AdminSocketAt {
                path: file.admin_socket_path.path(|path| self.absolute(path)),
                asked: matches!(file.admin_socket_path, AdminSocket::At(_)),
            },
            operators: file.operators,
            threads: file.threads,
            spin_us: file.spin_us,
            tls,
            limits: file.limits,
            delivery: file.delivery,
            redis,
            audit: file.gateway.audit.resolved(|path| self.absolute(path)),
            telemetry: file.gateway.telemetry,
            features: file.gateway.features,
            rate_limit: file.gateway.rate_limit,
            breaker: file.gateway.circuit_breaker,
            dlp,
            roles,
            permissions: file.permissions,
            agents,
            warnings,
        };
        same_files::check(&config).map_err(|(key, problem)| self.fail(key, problem))?;
        Ok(config)
    }

    fn address(&self, key: &str, address: &str) -> Result<(), ConfigError> {
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
            _ => Err(self.fail(key, format!("is {address:?}; expected host:port"))),
        }
    }

    fn required_path(&self, key: &str, path: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        path.map(|p| self.absolute(&p)).ok_or_else(|| {
            self.fail(key, "is missing; mutual TLS is not optional (`mas certs init` makes the files)")
        })
    }

    fn redis(&self, redis: redis::Section) -> Result<Redis, ConfigError> {
        let key = "gateway.redis.url";
        let timeout_ms = redis.socket_timeout.map_or(DEFAULT_REDIS_TIMEOUT_MS, |s| (s * 1000.0) as u64);
        if !(100..=60_000).contains(&timeout_ms) {
            return Err(self.fail("gateway.redis.socket_timeout", "expected 0.1 to 60 seconds"));
        }
        self.section("gateway.redis.tls", redis.tls.check(&redis.url))?;
        if let Some(sentinel) = &redis.sentinel {
            self.section("gateway.redis.sentinel", sentinel.check(&redis.url))?;
        }
        let durability = redis.durability.resolved();
        if durability != Durability::Accepted
            && redis.durability.timeout_ms.saturating_add(WAIT_MARGIN_MS) > timeout_ms
        {
            return Err(self.fail(
                "gateway.redis.durability.timeout_ms",
                format!("expected {WAIT_MARGIN_MS} ms less than `socket_timeout`, or less than that"),
            ));
        }
        let tls = redis.tls.resolved(|path| self.absolute(path));
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
                durability,
                tls,
                sentinel: None,
            });
        }
        let known = ["redis://", "rediss://", "unix://"];
        if !known.iter().any(|scheme| redis.url.starts_with(scheme)) {
            return Err(self.fail(key, format!("expected `managed` or a URL with one of {known:?}")));
        }
        Ok(Redis { url: redis.url, managed: None, timeout_ms, durability, tls, sentinel: redis.sentinel })
    }

    fn roles(&self, listed: Vec<Role>) -> Result<BTreeMap<String, Role>, ConfigError> {
        let mut roles = BTreeMap::new();
        for (index, role) in listed.into_iter().enumerate() {
            for (at, pattern) in role.permissions.iter().enumerate() {
                if parse_pattern(pattern).is_none() {
                    return Err(self.fail(
                        KeyPath::from("roles").index(index).key("permissions").index(at),
                        format!("{pattern:?} is no pattern: expected send:AGENT, send:PREFIX* or send:*"),
                    ));
                }
            }
            if role.name.is_empty() {
                return Err(self.fail(KeyPath::from("roles").index(index).key("name"), "is empty"));
            }
            let name = role.name.clone();
            if roles.insert(name.clone(), role).is_some() {
                let key = KeyPath::from("roles").index(index).key("name");
                return Err(self.fail(key, format!("{name:?} is listed twice")));
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
            let key = || KeyPath::from("agents").index(index);
            if agent.instances > MAX_INSTANCES {
                return Err(self.fail(key().key("instances"), format!("expected 0 to {MAX_INSTANCES}")));
            }
            if let Some(place) = agent.roles.iter().position(|role| !roles.contains_key(role)) {
                let unknown = agent.roles.get(place).map(String::as_str).unwrap_or_default();
                let key = key().key("roles").index(place);
                return Err(self.fail(key, format!("{unknown:?} is not in `roles`")));
            }
            let program = match (agent.command, agent.class_path) {
                (Some(_), Some(_)) => {
                    return Err(self.fail(key(), "has both `command` and `class_path`; expected one"));
                }
                (Some(words), None) if words.is_empty() => {
                    return Err(self.fail(key().key("command"), "is empty"));
                }
                (Some(words), None) => Program::Command(words),
                (None, Some(path)) if !is_class_path(&path) => {
                    return Err(
                        self.fail(key().key("class_path"), format!("is {path:?}; expected module:Class"))
                    );
                }
                (None, Some(path)) => Program::ClassPath(path),
                (None, None) => Program::None,
            };
            self.init_kwargs(key().key("init_kwargs"), &agent.init_kwargs)?;
            let id = agent.agent_id;
            let resolved = Agent {
                id: id.clone(),
                capabilities: agent.capabilities,
                metadata: agent.metadata,
                init_kwargs: agent.init_kwargs,
                python: agent.python,
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
                return Err(self.fail(key().key("agent_id"), format!("{id} is listed twice")));
            }
        }
        Ok(agents)
    }

    fn init_kwargs(
        &self,
        key: KeyPath,
        init_kwargs: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<(), ConfigError> {
        if let Some(name) = RESERVED_KWARGS.iter().find(|name| init_kwargs.contains_key(**name)) {
            return Err(self.fail(key.key(name), "is given to the constructor by the runner; leave it out"));
        }
        let bytes = serde_json::to_vec(init_kwargs).map_or(0, |json| json.len());
        if bytes > MAX_INIT_KWARGS_BYTES {
            let problem = format!("are {bytes} bytes as JSON; expected at most {MAX_INIT_KWARGS_BYTES}");
            return Err(self.fail(key, problem));
        }
        Ok(())
    }

    fn permissions(
        &self,
        permissions: &[Permission],
        agents: &BTreeMap<AgentId, Agent>,
        warnings: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        for (index, permission) in permissions.iter().enumerate() {
            for (field, place, name) in permission.named() {
                if !agents.contains_key(name) {
                    let key = KeyPath::from("permissions").index(index).key(field);
                    let key = place.map_or_else(|| key.clone(), |place| key.clone().index(place));
                    return Err(self.fail(key, format!("{name:?} is not in `agents`")));
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

fn is_class_path(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(module, class)| !module.is_empty() && !class.is_empty() && !class.contains(':'))
}

/// The digest of a configuration: of its file, and of the rules that it names.
fn digest(text: &str, rules: Option<&str>) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(text.as_bytes());
    if let Some(rules) = rules {
        hash.update([0]);
        hash.update(rules.as_bytes());
    }
    hash.finalize().into()
}

/// An exception of an agent that the configuration does not have is never used.
fn warn_of_strangers(dlp: &Dlp, agents: &BTreeMap<AgentId, Agent>, warnings: &mut Vec<String>) {
    for (name, exception) in dlp.exceptions() {
        for (key, pattern) in [("from", &exception.from), ("to", &exception.to)] {
            let Some(pattern) = pattern else { continue };
            let fits = |id: &AgentId| match pattern.strip_suffix('*') {
                Some(prefix) => id.as_str().starts_with(prefix),
                None => id.as_str() == pattern,
            };
            if !agents.keys().any(fits) {
                warnings.push(format!(
                    "gateway.dlp.exceptions: {name}: {key}: {pattern:?} is no agent of this file"
                ));
            }
        }
    }
}

/// A role that lets its agents write to everybody is an allow-all by another name.
fn warn_of_wide_roles(roles: &BTreeMap<String, Role>, warnings: &mut Vec<String>) {
    for (name, role) in roles {
        if role.permissions.iter().any(|pattern| parse_pattern(pattern) == Some(Pattern::All)) {
            warnings.push(format!("roles: agents with {name:?} may send to every agent (send:*)"));
        }
    }
}
