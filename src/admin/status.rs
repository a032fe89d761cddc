//! Everything that the admin listener tells of the server, as it was at one time.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::health::Check;
use super::http::Counters;
use super::trail::Trail;
use crate::gate::Validity;
use crate::ids::AgentId;
use crate::quarantine::Quarantine;
use crate::shard::desk::meters::Meter;
use crate::shard::desk::troubles::Trouble;
use crate::store::overview::{InboxView, Redis};

/// Agents whose certificates end soon that are told of by name.
const MAX_ENDING: usize = 100;

/// Where the server is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) host: String,
    /// Where agents reach it.
    pub(super) listen_addr: String,
    /// Where the admin listener is.
    pub(super) admin_addr: String,
    /// When it started, Unix milliseconds.
    pub(super) started_ms: u64,
}

/// How the server is.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) server: String,
    pub(super) place: Place,
    pub(super) rules_digest: String,
    pub(super) now_ms: u64,
    pub(super) mono_ms: u64,
    pub(super) draining: bool,
    /// What Redis says of the trail, where that was asked for.
    pub(super) trail: Option<Arc<Trail>>,
    pub(super) policy_version: String,
    pub(super) reloads: (u64, u64),
    pub(super) loaded_ms: u64,
    pub(super) checks: Vec<Check>,
    pub(super) troubles: Vec<Trouble>,
    pub(super) meters: Vec<Arc<Meter>>,
    pub(super) busy: Vec<f64>,
    pub(super) sessions: BTreeMap<AgentId, usize>,
    pub(super) circuits: Vec<AgentId>,
    pub(super) quarantine: Arc<Quarantine>,
    /// When it was taken up here, Unix milliseconds.
    pub(super) quarantine_taken_ms: u64,
    pub(super) inboxes: Arc<Vec<InboxView>>,
    pub(super) sealed_ms: u64,
    pub(super) refusal: Option<&'static str>,
    pub(super) redis: Result<Redis, String>,
    pub(super) connections: usize,
    pub(super) turned_away: [(&'static str, u64); 3],
    /// By name, when they end, Unix seconds.
    pub(super) certificates: Vec<(&'static str, i64)>,
    /// The same of the certificates that agents are connected with.
    pub(super) agents_certificates: BTreeMap<AgentId, Validity>,
    /// Jobs that wait for each worker.
    pub(super) mailboxes: Vec<usize>,
    pub(super) http: Vec<Arc<Counters>>,
    /// Spans by what became of them; none where nothing is traced.
    pub(super) spans: Vec<(&'static str, u64)>,
}

impl Status {
    /// Whether the server is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.problem.is_none())
    }

    /// Agents whose certificates should have been renewed.
    pub(super) fn ending(&self) -> impl Iterator<Item = (&AgentId, &Validity)> {
        let now_s = i64::try_from(self.now_ms / 1000).unwrap_or(i64::MAX);
        self.agents_certificates.iter().filter(move |(_, validity)| validity.ends_soon(now_s))
    }

    /// It as JSON.
    pub(super) fn json(&self) -> Json {
        let checks = self.checks.iter().map(|check| json!({"name": check.name, "problem": check.problem}));
        let troubles = self.troubles.iter().map(|trouble| {
            json!({"code": trouble.code.as_str(), "since_unix_ms": trouble.since_ms, "why": trouble.why})
        });
        let redis = match &self.redis {
            Ok(redis) => json!({
                "up": true, "used_bytes": redis.used_bytes, "max_bytes": redis.max_bytes,
                "dead_letters": redis.dead_letters, "foreign_entries": redis.foreign, "servers": redis.servers,
            }),
            Err(why) => json!({"up": false, "why": why}),
        };
        let inboxes = self.inboxes.iter().filter(|inbox| inbox.queued > 0).map(|inbox| {
            json!({
                "agent": inbox.agent.as_str(), "waiting": inbox.queued.saturating_sub(inbox.pending),
                "delivered": inbox.pending, "bytes": inbox.bytes,
            })
        });
        let sessions: BTreeMap<&str, usize> =
            self.sessions.iter().map(|(agent, count)| (agent.as_str(), *count)).collect();
        let quarantine = self.quarantine.entries.iter().map(|(whom, entry)| {
            json!({"whom": whom.to_string(), "by": entry.by, "since_unix_ms": entry.since_ms})
        });
        let ending = self.ending().take(MAX_ENDING).map(|(agent, validity)| (agent.as_str(), validity.end_s));
        let certificates: BTreeMap<_, _> = self.certificates.iter().copied().collect();
        json!({
            "server": self.server,
            "version": env!("CARGO_PKG_VERSION"),
            "host": self.place.host,
            "listen_addr": self.place.listen_addr,
            "admin_addr": self.place.admin_addr,
            "time_unix_ms": self.now_ms,
            "started_unix_ms": self.place.started_ms,
            "policy_version": self.policy_version,
            "rules_digest": self.rules_digest,
            "loaded_unix_ms": self.loaded_ms,
            "ready": self.is_ready(),
            "draining": self.draining,
            "checks": checks.collect::<Vec<_>>(),
            "troubles": troubles.collect::<Vec<_>>(),
            "redis": redis,
            "checkpoint_unix_ms": (self.sealed_ms > 0).then_some(self.sealed_ms),
            "connections": self.connections,
            "sessions": sessions,
            "circuits_open": self.circuits.iter().map(AgentId::as_str).collect::<Vec<_>>(),
            "quarantine": quarantine.collect::<Vec<_>>(),
            "quarantine_version": self.quarantine.version,
            "quarantine_taken_unix_ms": self.quarantine_taken_ms,
            "inboxes": inboxes.collect::<Vec<_>>(),
            "workers_busy": self.busy,
            "certificates_end_unix_s": certificates,
            "agents_certificates_end_unix_s": ending.collect::<BTreeMap<_, _>>(),
            "cut": false,
        })
    }
}
