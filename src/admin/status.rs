//! Everything that the admin listener tells of the server, gathered once for each question.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde_json::{Value as Json, json};

use super::health::{self, Check};
use super::http::Counters;
use super::watch::{Latest, Seen};
use crate::clock::Now;
use crate::gate::Peers;
use crate::ids::{AgentId, hex};
use crate::quarantine::Quarantine;
use crate::shard::Shards;
use crate::shard::desk::meters::Meter;
use crate::shard::desk::troubles::Trouble;
use crate::store::overview::{self, InboxView, Redis};
use crate::store::{Connection, StoreError};

/// What Redis said of the inboxes is asked again after so long, in milliseconds.
const INBOXES_MS: u64 = 5_000;
/// Longest that Redis may take for it.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// How the server is.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) server: String,
    pub(super) now_ms: u64,
    pub(super) mono_ms: u64,
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
    pub(super) inboxes: Arc<Vec<InboxView>>,
    pub(super) sealed_ms: u64,
    pub(super) refusal: Option<&'static str>,
    pub(super) redis: Result<Redis, String>,
    pub(super) connections: usize,
    pub(super) turned_away: [(&'static str, u64); 3],
    /// By name, when they end, Unix seconds.
    pub(super) certificates: Vec<(&'static str, i64)>,
    pub(super) http: Vec<Arc<Counters>>,
    /// Spans by what became of them; none where nothing is traced.
    pub(super) spans: Vec<(&'static str, u64)>,
}

/// Asks Redis for the inboxes, now and then: one asks, the others are told what is known.
#[derive(Default)]
pub(super) struct Inboxes {
    asker: Mutex<Asker>,
    views: RwLock<Arc<Vec<InboxView>>>,
}

#[derive(Default)]
struct Asker {
    connection: Option<Connection>,
    /// Monotonic milliseconds; 0: never.
    at_ms: u64,
}

impl Inboxes {
    /// As they were a few seconds ago at the most, or when Redis answered last; none before.
    fn read(&self, shards: &Shards, now: Now) -> Arc<Vec<InboxView>> {
        if let Ok(mut asker) = self.asker.try_lock()
            && (asker.at_ms == 0 || now.mono_ms.saturating_sub(asker.at_ms) >= INBOXES_MS)
        {
            // A connection that lay idle may be broken.
            let asked = asker.ask(shards).or_else(|_| asker.ask(shards));
            asker.at_ms = Now::read().mono_ms.max(1);
            if let Ok(views) = asked {
                *self.views.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(views);
            }
        }
        self.views.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Asker {
    fn ask(&mut self, shards: &Shards) -> Result<Vec<InboxView>, StoreError> {
        let shared = shards.shared();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => shared.redis.within(PATIENCE).open()?,
        };
        let settings = shared.settings();
        let views = overview::inboxes(&mut connection, settings.policy.agents().map(|card| &card.id))?;
        self.connection = Some(connection);
        Ok(views)
    }
}

/// Where it is gathered from.
pub(super) struct Sources {
    pub(super) shards: Arc<Shards>,
    pub(super) peers: Arc<Peers>,
    pub(super) latest: Latest,
    pub(super) inboxes: Inboxes,
}

impl Sources {
    /// What the thread that watches has seen.
    pub(super) fn seen(&self) -> Seen {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Gathers it.
    pub(super) fn gather(&self, certificates: Vec<(&'static str, i64)>, http: Vec<Arc<Counters>>) -> Status {
        let (shared, now) = (self.shards.shared(), Now::read());
        let (seen, inboxes) = (self.seen(), self.inboxes.read(&self.shards, now));
        Status {
            server: shared.server.to_string(),
            now_ms: now.unix_us / 1000,
            mono_ms: now.mono_ms,
            policy_version: hex(shared.settings().policy.version()),
            reloads: shared.reloads(),
            loaded_ms: shared.loaded_ms(),
            checks: health::ready(&self.shards, &seen),
            troubles: shared.troubles.all(),
            meters: shared.meters.all(),
            busy: seen.busy,
            sessions: shared.directory.local_counts(),
            circuits: shared.open_circuits(),
            quarantine: shared.quarantine(),
            inboxes,
            sealed_ms: shared.board.sealed_ms(),
            refusal: shared.board.refusal().map(|refusal| refusal.detail),
            redis: seen.redis.unwrap_or_else(|| Err("not looked at yet".to_owned())),
            connections: self.peers.connections(),
            turned_away: shared.report.totals(),
            certificates,
            http,
            spans: shared.tracer().map(|tracer| tracer.counts().to_vec()).unwrap_or_default(),
        }
    }
}

impl Status {
    /// Whether the server is ready.
    pub(super) fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.problem.is_none())
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
        let quarantine = self.quarantine.active().map(|(whom, entry)| {
            json!({"whom": whom.to_string(), "by": entry.by, "since_unix_ms": entry.since_ms})
        });
        let certificates: BTreeMap<_, _> = self.certificates.iter().copied().collect();
        json!({
            "server": self.server,
            "version": env!("CARGO_PKG_VERSION"),
            "time_unix_ms": self.now_ms,
            "policy_version": self.policy_version,
            "loaded_unix_ms": self.loaded_ms,
            "ready": self.is_ready(),
            "checks": checks.collect::<Vec<_>>(),
            "troubles": troubles.collect::<Vec<_>>(),
            "redis": redis,
            "checkpoint_unix_ms": (self.sealed_ms > 0).then_some(self.sealed_ms),
            "connections": self.connections,
            "sessions": sessions,
            "circuits_open": self.circuits.iter().map(AgentId::as_str).collect::<Vec<_>>(),
            "quarantine": quarantine.collect::<Vec<_>>(),
            "inboxes": inboxes.collect::<Vec<_>>(),
            "workers_busy": self.busy,
            "certificates_end_unix_s": certificates,
        })
    }
}
