//! Looks once a second at what nobody else looks at: whether Redis answers, and whether the workers do. It tells the other
//! servers on this Redis how this one is, and finds out whether they have the same rules.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::counts::Counts;
use super::fleet::{self, Member};
use super::performance::Beside;
use super::seen::Seen;
use super::sources::Sources;
use crate::clock::Now;
use crate::shard::desk::troubles::Code;
use crate::store::overview::{self, Redis};
use crate::store::reports::{self, Kind};
use crate::store::{Batch, Connection, StoreError};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest that Redis may take. With the interval: how soon it shows that it does not answer.
const PATIENCE: Duration = Duration::from_millis(1500);
/// At every so many looks the other servers' reports are compared with this one's.
const COMPARE_LOOKS: u64 = 2;
/// At every so many looks what was counted is told anew, where it has changed.
const COUNT_LOOKS: u64 = 5;
/// How long workers that were woken may take to show it, and how often that is looked at.
const WAKE_PATIENCE: Duration = Duration::from_millis(50);
const WAKE_LOOK: Duration = Duration::from_millis(1);
/// Servers that are named where they differ.
const MAX_NAMED: usize = 5;

/// The running thread.
pub(super) struct Watch {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it.
    pub(super) fn start(sources: Arc<Sources>) -> std::io::Result<Self> {
        let (stop, stopped) = channel();
        let mut looker = Looker {
            sources,
            connection: None,
            idle_us: Vec::new(),
            last_us: 0,
            looks: 0,
            counts: String::new(),
            differ: [false; 2],
            is_gone: false,
        };
        let run = move || {
            loop {
                looker.look();
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    // The others hear that it is about to stop. Where Redis is away, its report runs out.
                    let _ = looker.tell();
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("admin-watch".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Looks no more.
    pub(super) fn end(&self) {
        // Either the thread hears it or it is gone.
        let _ = self.stop.send(());
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(
                code = "thread_panicked", part = "watch";
                "the thread that watches the server had panicked"
            );
        }
    }
}

struct Looker {
    sources: Arc<Sources>,
    connection: Option<Connection>,
    /// How long each worker had slept at the last look.
    idle_us: Vec<u64>,
    last_us: u64,
    looks: u64,
    /// What was told of what was counted.
    counts: String,
    /// Whether other servers have other rules, and another version.
    differ: [bool; 2],
    /// Whether one has ended without a stop in order.
    is_gone: bool,
}

impl Looker {
    fn look(&mut self) {
        self.looks += 1;
        let shards = &self.sources.shards;
        // A worker that sleeps shows a sign of life.
        shards.wake_all();
        let woken_ms = Now::read().mono_ms;
        let redis = self.redis().map_err(|error| error.to_string());
        // At once: it is what readiness waits for.
        let is_up = redis.is_ok();
        let seen = Seen { at_ms: Now::read().mono_ms, redis: Some(redis.clone()), ..self.sources.seen() };
        self.sources.set_seen(seen);
        self.await_beats(woken_ms);
        let busy = self.busy();
        let (shared, now) = (self.sources.shards.shared(), Now::read());
        let beside = Beside {
            busy: busy.clone(),
            depths: self.sources.shards.depths(),
            redis_bytes: redis.as_ref().ok().map(|redis| (redis.used_bytes, redis.max_bytes)),
            connections: self.sources.peers.connections(),
            sessions: shared.directory.local_counts().values().sum(),
        };
        self.sources.history.sample(&shared.meters.all(), beside, now);
        self.sources.set_seen(Seen { at_ms: now.mono_ms, redis: Some(redis), busy });
        // Redis that is away is seen by the look at it; the next one tells again.
        if is_up && let Err(error) = self.tell().and_then(|()| self.compare()) {
            log::debug!(code = "report_unsent"; "the other servers were not told how this one is: {error}");
        }
    }

    fn connection(&mut self) -> Result<Connection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.sources.shards.shared().redis.within(PATIENCE).open(),
        }
    }

    fn redis(&mut self) -> Result<Redis, StoreError> {
        let mut connection = self.connection()?;
        let redis = overview::redis(&mut connection)?;
        self.connection = Some(connection);
        Ok(redis)
    }

    /// Tells the other servers how this one is.
    fn tell(&mut self) -> Result<(), StoreError> {
        let shared = self.sources.shards.shared();
        let (keys, server) = (shared.key_ring.keys(), &shared.server);
        let mut batch = Batch::new();
        let report = fleet::report(self.looks, &mut self.sources.gather_known().json());
        if !reports::publish(&mut batch, &keys, server, Kind::Status, &report) {
            log::warn!(
                code = "report_too_long", bytes = report.len();
                "the report for the other servers is too long: {} bytes", report.len()
            );
        }
        if self.looks % COUNT_LOOKS == 1 {
            let counts = Counts::own(&shared.meters.all()).report();
            if counts == self.counts {
                reports::keep(&mut batch, server, Kind::Counts);
            } else if !reports::publish(&mut batch, &keys, server, Kind::Counts, &counts) {
                log::warn!(
                    code = "report_too_long", bytes = counts.len();
                    "the counts for the other servers are too long: {} bytes", counts.len()
                );
            } else {
                self.counts = counts;
            }
        }
        let mut connection = self.connection()?;
        let answers = connection.run(&mut batch)?;
        if answers.iter().any(|answer| matches!(answer, crate::store::Value::ServerError(_))) {
            // It may have lost what was told.
            self.counts.clear();
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Whether the other servers have the same rules, and are of the same version.
    fn compare(&mut self) -> Result<(), StoreError> {
        if self.looks % COMPARE_LOOKS != 1 {
            return Ok(());
        }
        let mut connection = self.connection()?;
        let shared = self.sources.shards.shared();
        let members = self.sources.fleet.read(&mut connection, &shared.key_ring.keys(), &shared.server)?;
        self.connection = Some(connection);
        let own_rules = self.sources.reloaded().rules_digest.clone();
        self.differs(0, Code::RulesDiffer, &members, ("rules_digest", &own_rules), "rules");
        self.differs(1, Code::VersionsDiffer, &members, ("version", env!("CARGO_PKG_VERSION")), "version");
        self.gone(&members);
        Ok(())
    }

    /// Servers that have ended without a stop in order.
    fn gone(&mut self, members: &[Member]) {
        let gone: BTreeSet<String> = members
            .iter()
            .filter(|member| member.is_gone)
            .take(MAX_NAMED)
            .filter_map(Member::named)
            .collect();
        let why = (!gone.is_empty()).then(|| gone.into_iter().collect::<Vec<_>>().join("; "));
        match (std::mem::replace(&mut self.is_gone, why.is_some()), &why) {
            (false, Some(why)) => log::warn!(code = "server_gone"; "server_gone: {why}"),
            (true, None) => log::info!(code = "server_gone_cleared"; "server_gone: no longer"),
            _ => {}
        }
        self.sources.shards.shared().troubles.set(Code::ServerGone, why);
    }

    fn differs(&mut self, at: usize, code: Code, members: &[Member], (name, own): (&str, &str), what: &str) {
        let known = members.iter().filter(|member| member.status.is_some());
        let others: BTreeSet<String> = known
            .filter(|member| member.text(name) != own)
            .take(MAX_NAMED)
            .map(|member| format!("server {} on {}", member.server, member.text("host").escape_default()))
            .collect();
        let why = (!others.is_empty()).then(|| {
            let who = others.into_iter().collect::<Vec<_>>().join(", ");
            match code {
                Code::VersionsDiffer => format!("another {what} than this server's {own}: {who}"),
                _ => format!("other {what} than this server's {}: {who}", own.get(..12).unwrap_or(own)),
            }
        });
        if let Some(before) = self.differ.get_mut(at) {
            let after = why.is_some();
            match (std::mem::replace(before, after), &why) {
                (false, Some(why)) if code == Code::VersionsDiffer => {
                    log::warn!(code = "versions_differ"; "versions_differ: {why}");
                }
                (false, Some(why)) => log::warn!(code = "rules_differ"; "rules_differ: {why}"),
                (true, None) => log::info!(
                    code = "servers_agree", trouble = code.as_str();
                    "{}: no longer, all servers have the same {what}", code.as_str()
                ),
                _ => {}
            }
        }
        self.sources.shards.shared().troubles.set(code, why);
    }

    /// A worker counts how long it has slept once it is awake.
    fn await_beats(&self, woken_ms: u64) {
        let give_up = Instant::now() + WAKE_PATIENCE;
        let meters = self.sources.shards.shared().meters.all();
        while Instant::now() < give_up && meters.iter().any(|meter| meter.beat_ms.get() < woken_ms) {
            std::thread::sleep(WAKE_LOOK);
        }
    }

    fn busy(&mut self) -> Vec<f64> {
        let now_us = Now::mono_us();
        let passed = now_us.saturating_sub(self.last_us);
        let idle_us: Vec<u64> =
            self.sources.shards.shared().meters.all().iter().map(|meter| meter.idle_us.get()).collect();
        let before = std::mem::replace(&mut self.idle_us, idle_us);
        if std::mem::replace(&mut self.last_us, now_us) == 0 {
            return Vec::new();
        }
        let share = |(now, before): (&u64, u64)| {
            let idle = now.saturating_sub(before).min(passed);
            1.0 - idle as f64 / passed.max(1) as f64
        };
        let before = before.into_iter().chain(std::iter::repeat(0));
        self.idle_us.iter().zip(before).map(share).collect()
    }
}
