//! The document: every key of `mas.yaml` with its default. Unknown keys are errors that name the key.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::admin::{AdminListen, AdminSocket, Operator};
use super::audit::Audit;
use super::breaker::BreakerConfig;
use super::range::{Problem, within};
use super::redis;
use super::roles::Role;
use super::telemetry::Telemetry;
use super::unique::Unique;
use crate::dlp::DlpConfig;
use crate::ids::AgentId;
use crate::policy::RateLimit;

/// Reads the document. The error names key path, line and what was expected.
pub(super) fn parse(text: &str) -> Result<File, String> {
    let _: Unique = serde_yaml::from_str(text).map_err(|e| without_value(&e.to_string()))?;
    serde_yaml::from_str(text).map_err(|e| without_value(&e.to_string()))
}

/// What stood where something else was expected may be a secret: a URL with a password in the place of a mapping.
fn without_value(error: &str) -> String {
    const QUOTED: &str = "invalid type: string \"";
    let Some((before, rest)) = error.split_once(QUOTED) else {
        return error.to_owned();
    };
    match rest.rsplit_once("\", expected ") {
        Some((_, expected)) => format!("{before}invalid type: a string, expected {expected}"),
        None => format!("{before}invalid type: a string"),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub server_listen_addr: String,
    pub admin_listen_addr: AdminListen,
    pub admin_socket_path: AdminSocket,
    pub operators: Vec<Operator>,
    pub threads: Option<usize>,
    pub spin_us: u64,
    pub tls_ca_path: Option<PathBuf>,
    pub tls_server_cert_path: Option<PathBuf>,
    pub tls_server_key_path: Option<PathBuf>,
    pub tls_revoked_path: Option<PathBuf>,
    pub limits: Limits,
    pub delivery: Delivery,
    pub gateway: Gateway,
    pub roles: Vec<Role>,
    pub permissions: Vec<Permission>,
    pub agents: Vec<Agent>,
}

impl Default for File {
    fn default() -> Self {
        Self {
            server_listen_addr: "127.0.0.1:50051".to_owned(),
            admin_listen_addr: AdminListen::Default,
            admin_socket_path: AdminSocket::Default,
            operators: Vec::new(),
            threads: None,
            spin_us: 0,
            tls_ca_path: None,
            tls_server_cert_path: None,
            tls_server_key_path: None,
            tls_revoked_path: None,
            limits: Limits::default(),
            delivery: Delivery::default(),
            gateway: Gateway::default(),
            roles: Vec::new(),
            permissions: Vec::new(),
            agents: Vec::new(),
        }
    }
}

impl File {
    /// Keys that are checked but change nothing, and what would surprise later: an operator must not believe otherwise.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut silent = Vec::new();
        let telemetry = &self.gateway.telemetry;
        if telemetry.enabled && telemetry.otlp_endpoint.is_none() {
            silent.push("gateway.telemetry.otlp_endpoint: none, so nothing is exported".to_owned());
        }
        if self.gateway.redis.decode_responses.is_some() {
            silent.push("gateway.redis.decode_responses: has no effect here".to_owned());
        }
        silent.extend(self.gateway.audit.warnings());
        silent
    }
}

/// Bounds per request, agent and connection (`limits`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Longest `data_json`, in bytes. Bounded so that a Delivery stays under a client's 4 MiB default.
    pub max_message_bytes: usize,
    /// Deepest nesting of arrays and objects in `data_json`.
    pub max_json_depth: usize,
    /// Messages that may wait (undelivered or unacknowledged) for one agent.
    pub max_queue_len: u64,
    /// What they may take in Redis, in bytes; never more than Redis has room left for.
    pub max_queue_bytes: u64,
    /// Keys and values of one agent's state together, in bytes.
    pub max_state_bytes: usize,
    /// Fields of one agent's state.
    pub max_state_fields: usize,
    /// Instances of one agent that may be connected at once.
    pub max_sessions_per_agent: usize,
    /// Concurrent RPCs on one connection.
    pub max_streams_per_connection: u32,
    /// Connections of one agent at once. Read at start.
    pub max_connections_per_agent: usize,
    /// Sessions that one agent may open in a second, after a hundred times as many at once. Read at start.
    pub session_opens_per_second: u32,
    /// Refusals of one agent in a second that are looked at and go on record one by one. Read at start.
    pub refusals_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 1024 * 1024,
            max_json_depth: 64,
            max_queue_len: 100_000,
            max_queue_bytes: 1024 * 1024 * 1024,
            max_state_bytes: 1024 * 1024,
            max_state_fields: 1024,
            max_sessions_per_agent: 64,
            max_streams_per_connection: 100,
            max_connections_per_agent: 1024,
            session_opens_per_second: 20,
            refusals_per_second: 100,
        }
    }
}

impl Limits {
    pub(super) fn check(&self) -> Result<(), Problem> {
        // A client's default receive limit is 4 MiB; ids, type and meta take up to 16 KiB beside the data.
        within("max_message_bytes", self.max_message_bytes, 1, 4 * 1024 * 1024 - 64 * 1024)?;
        within("max_json_depth", self.max_json_depth, 1, 120)?;
        within("max_queue_len", self.max_queue_len, 1, 100_000_000)?;
        // A message and what it takes beside its data must fit.
        let least = self.max_message_bytes as u64 + 64 * 1024;
        within("max_queue_bytes", self.max_queue_bytes, least, 1 << 50)?;
        within("max_state_bytes", self.max_state_bytes, 1, 64 * 1024 * 1024)?;
        within("max_state_fields", self.max_state_fields, 1, 1_000_000)?;
        within("max_sessions_per_agent", self.max_sessions_per_agent, 1, 10_000)?;
        within("max_streams_per_connection", self.max_streams_per_connection, 1, 100_000)?;
        within("max_connections_per_agent", self.max_connections_per_agent, 1, 100_000)?;
        within("session_opens_per_second", self.session_opens_per_second, 1, 10_000)?;
        within("refusals_per_second", self.refusals_per_second, 1, 1_000_000)
    }
}

/// Credit and redelivery (`delivery`).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// Deliveries that one session may hold without acknowledging them.
    pub max_in_flight: usize,
    /// How long a lost session's deliveries wait for its return before another instance gets them.
    pub reclaim_idle_ms: u64,
    /// Pending entries that are taken over in one step.
    pub reclaim_batch_size: usize,
    /// Deliveries of one message before it goes to the dead letters.
    pub max_attempts: u32,
    /// Wait before the second, third, … delivery after a retryable nack; the last one repeats.
    pub retry_backoff_ms: Vec<u64>,
    /// Whether a message to a permitted agent without a session waits for it.
    pub queue_offline: bool,
    /// How long a message's idempotency key is remembered, in seconds.
    pub idempotency_window_s: u64,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            max_in_flight: 200,
            reclaim_idle_ms: 30_000,
            reclaim_batch_size: 50,
            max_attempts: 5,
            retry_backoff_ms: vec![100, 1000, 10_000],
            queue_offline: true,
            idempotency_window_s: 600,
        }
    }
}

impl Delivery {
    pub(super) fn check(&self) -> Result<(), Problem> {
        within("max_in_flight", self.max_in_flight, 1, 10_000)?;
        within("reclaim_idle_ms", self.reclaim_idle_ms, 10, 86_400_000)?;
        within("reclaim_batch_size", self.reclaim_batch_size, 1, 1000)?;
        within("max_attempts", self.max_attempts, 1, 1000)?;
        within("idempotency_window_s", self.idempotency_window_s, 1, 604_800)?;
        if self.retry_backoff_ms.is_empty() || self.retry_backoff_ms.len() > 32 {
            return Err(("retry_backoff_ms", "expected 1 to 32 waits".to_owned()));
        }
        for wait_ms in &self.retry_backoff_ms {
            within("retry_backoff_ms", *wait_ms, 1, 86_400_000)?;
        }
        Ok(())
    }

    /// The wait after delivery number `attempt` (from 1) was refused, in milliseconds.
    pub fn backoff_ms(&self, attempt: u32) -> u64 {
        let last = self.retry_backoff_ms.len().saturating_sub(1);
        let index = (attempt.saturating_sub(1) as usize).min(last);
        self.retry_backoff_ms.get(index).copied().unwrap_or(1000)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Gateway {
    pub redis: redis::Section,
    pub rate_limit: RateLimit,
    pub features: Features,
    pub dlp: DlpConfig,
    pub audit: Audit,
    pub circuit_breaker: BreakerConfig,
    pub telemetry: Telemetry,
}

/// Policy stages that can be switched (`gateway.features`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Features {
    /// Data-loss prevention.
    pub dlp: bool,
    /// Roles beside `permissions`.
    pub rbac: bool,
    /// Circuit breakers per target.
    pub circuit_breaker: bool,
}

impl Default for Features {
    fn default() -> Self {
        Self { dlp: true, rbac: false, circuit_breaker: true }
    }
}

/// One rule of `permissions`. What no rule allows is refused; `deny` wins over every other rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Permission {
    /// Both agents may send to each other.
    AllowBidirectional {
        /// Exactly the two.
        agents: [AgentId; 2],
    },
    /// A full mesh, or, when not `bidirectional`, a chain in the given order.
    AllowNetwork {
        /// The members.
        agents: Vec<AgentId>,
        /// Mesh (`true`) or chain (`false`).
        #[serde(default = "yes")]
        bidirectional: bool,
    },
    /// One sender to many receivers.
    AllowBroadcast {
        /// Who may send.
        sender: AgentId,
        /// To whom.
        receivers: Vec<AgentId>,
    },
    /// One agent may send to every allowlisted agent.
    AllowWildcard {
        /// Who may send.
        agent_id: AgentId,
    },
    /// One sender to the named targets.
    Allow {
        /// Who may send.
        sender: AgentId,
        /// To whom.
        targets: Vec<AgentId>,
    },
    /// One sender never to the named targets, whatever else allows it.
    Deny {
        /// Who may not send.
        sender: AgentId,
        /// To whom.
        targets: Vec<AgentId>,
    },
}

fn yes() -> bool {
    true
}

impl Permission {
    /// Every agent that the rule names, with the field that names it and its place there, where that is
    /// a list.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, Option<usize>, &AgentId)> {
        let (single, field, list): (_, _, &[AgentId]) = match self {
            Self::AllowBidirectional { agents } => (None, "agents", agents),
            Self::AllowNetwork { agents, .. } => (None, "agents", agents),
            Self::AllowBroadcast { sender, receivers } => (Some(("sender", sender)), "receivers", receivers),
            Self::AllowWildcard { agent_id } => (Some(("agent_id", agent_id)), "", &[]),
            Self::Allow { sender, targets } | Self::Deny { sender, targets } => {
                (Some(("sender", sender)), "targets", targets)
            }
        };
        let single = single.map(|(field, id)| (field, None, id));
        let listed = list.iter().enumerate().map(move |(place, id)| (field, Some(place), id));
        single.into_iter().chain(listed)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Agent {
    pub agent_id: AgentId,
    pub class_path: Option<String>,
    pub python: Option<String>,
    pub command: Option<Vec<String>>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub restart: Restart,
    #[serde(default = "one")]
    pub instances: u32,
    #[serde(default)]
    pub capabilities: Vec<String>,
    #[serde(default)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    pub tls_cert_path: Option<PathBuf>,
    pub tls_key_path: Option<PathBuf>,
    #[serde(default)]
    pub init_kwargs: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    pub roles: Vec<String>,
    pub rate_limit: Option<RateLimit>,
}

fn one() -> u32 {
    1
}

/// When the runner starts an agent's process again.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// After any exit.
    Always,
    /// After an exit with a failure or by a signal.
    #[default]
    OnFailure,
    /// Never.
    Never,
}
