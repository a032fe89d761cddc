//! What was cut, turned away, or refused without being decided: counted, on record once for each reason, identity and
//! second, and logged a few times a second.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::budget::Bucket;
use super::knock::{self, Cause, Shown, and_more};
use crate::audit::{Action, OperatorEvent};
use crate::identity::Identity;
use crate::refusal::Refusal;

/// Lines in a second.
const LINES_PER_S: u64 = 5;
/// Kinds of events that wait to be put on record; what is more is counted together.
const MAX_WAITING: usize = 256;
/// Agents whose ended certificates are remembered, and for how long after they were shown.
const MAX_ENDED: usize = 1_000;
const ENDED_US: u64 = 15 * 60 * 1_000_000;
/// How long events of a kind are gathered.
const GATHER_US: u64 = 1_000_000;

/// What was done, to whom, and why.
type Kind = (Done, String, &'static str);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Done {
    Cut,
    TurnedAway,
    Unseen,
}

impl Done {
    fn action(self) -> Action {
        match self {
            Self::Cut => Action::ConnectionCut,
            Self::TurnedAway => Action::ConnectionRefused,
            Self::Unseen => Action::CallsRefused,
        }
    }

    fn log(self, agent: &str, from: Option<SocketAddr>, reason: &str, left_out: u64) {
        let more = and_more(left_out);
        let left_out = (left_out > 0).then_some(left_out);
        let peer = from.map(|from| from.to_string());
        let peer = peer.as_deref();
        match self {
            Self::Cut => log::warn!(
                code = "connection_cut", agent, peer, left_out;
                "agent \"{agent}\": a connection was cut: {reason}{more}"
            ),
            Self::TurnedAway => log::warn!(
                code = "connection_refused", agent, peer, left_out;
                "agent \"{agent}\": a connection was turned away: {reason}{more}"
            ),
            Self::Unseen => log::warn!(
                code = "calls_refused", agent, left_out;
                "agent \"{agent}\": a call was refused without being decided: {reason}{more}"
            ),
        }
    }
}

impl std::fmt::Debug for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Report")
    }
}

/// Counts of what was cut, turned away, or refused without being decided.
pub struct Report {
    waiting: Mutex<Waiting>,
    totals: [AtomicU64; 3],
    /// The certificate over which the handshake fails that is looked at now: handshakes have one thread.
    shown: Mutex<Option<Shown>>,
    /// Held by each event that is not on record yet.
    pending: Arc<()>,
    /// Agents that have shown a certificate that had ended: when it did, Unix seconds, and when they showed it.
    ended: Mutex<BTreeMap<String, (i64, u64)>>,
}

struct Waiting {
    counts: BTreeMap<Kind, u64>,
    /// When the first of them was counted.
    since_us: u64,
    lines: Bucket,
    left_out: u64,
}

impl Default for Report {
    fn default() -> Self {
        let waiting = Waiting {
            counts: BTreeMap::new(),
            since_us: 0,
            lines: Bucket::new(LINES_PER_S, LINES_PER_S),
            left_out: 0,
        };
        Self {
            waiting: Mutex::new(waiting),
            totals: Default::default(),
            shown: Mutex::default(),
            pending: Arc::new(()),
            ended: Mutex::default(),
        }
    }
}

impl Report {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was cut for what it did.
    pub(super) fn cut(&self, agent: &str, from: SocketAddr, reason: &'static str, now_us: u64) {
        self.note(Done::Cut, agent, Some(from), reason, now_us);
    }

    /// A connection of that identity was turned away after its handshake.
    pub(super) fn turned_away(&self, agent: &str, from: SocketAddr, reason: &'static str, now_us: u64) {
        self.note(Done::TurnedAway, agent, Some(from), reason, now_us);
    }

    /// A handshake fails over the dates of a certificate of that identity: for the record. The log has it as a
    /// handshake that was refused.
    pub(super) fn outdated(&self, agent: &str, reason: &'static str, now_us: u64) {
        self.count(Done::TurnedAway, agent, reason, now_us);
    }

    /// Somebody has shown a certificate of this agent that has ended, and may not hold its key.
    pub(super) fn ended(&self, agent: &str, end_s: i64, now_us: u64) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if ended.len() < MAX_ENDED || ended.contains_key(agent) {
            let _ = ended.insert(agent.to_owned(), (end_s, now_us));
        }
    }

    /// This agent has connected with a certificate that is good.
    pub(super) fn is_renewed(&self, agent: &str) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if !ended.is_empty() {
            let _ = ended.remove(agent);
        }
    }

    /// Agents that have shown a certificate that has ended, not long ago, and when it ended, Unix seconds.
    pub(super) fn all_ended(&self, now_us: u64) -> Vec<(String, i64)> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.retain(|_, (_, shown_us)| now_us.saturating_sub(*shown_us) < ENDED_US);
        ended.iter().map(|(agent, (end_s, _))| (agent.clone(), *end_s)).collect()
    }

    /// A call was refused without being decided: too many of that agent were refused, or there was no room.
    pub fn unseen(&self, agent: &str, reason: &'static str, now_us: u64) {
        self.note(Done::Unseen, agent, None, reason, now_us);
    }

    /// A handshake fails over that certificate; `refused` is told next.
    pub(super) fn showed(&self, shown: Option<Shown>) {
        *self.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }

    /// A handshake failed: nobody is known who could be named on record.
    pub(super) fn refused(&self, from: SocketAddr, cause: &Cause, now_us: u64) {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner).take();
        let line = self.waiting().line(now_us);
        if let Some(left_out) = line {
            knock::handshake_refused(from, cause, shown.as_ref(), left_out);
        }
    }

    /// Somebody is connected who may call nothing; the calls go on record.
    pub(super) fn stranger(
        &self,
        from: SocketAddr,
        der: &[u8],
        identity: Option<&Identity>,
        refusal: Refusal,
        now_us: u64,
    ) {
        let line = self.waiting().line(now_us);
        if let Some(left_out) = line {
            knock::caller_refused(from, der, identity, refusal, left_out);
        }
    }

    /// Connections cannot be accepted.
    pub(super) fn not_accepted(&self, error: &std::io::Error, now_us: u64) {
        if let Some(left_out) = self.waiting().line(now_us) {
            log::warn!(
                code = "accept_failed", left_out = (left_out > 0).then_some(left_out);
                "connections of agents cannot be accepted: {error}{}", and_more(left_out)
            );
        }
    }

    /// How often each was done since the start, by name.
    pub fn totals(&self) -> [(&'static str, u64); 3] {
        let of = |done: Done| (done.action().as_str(), self.total(done).load(Ordering::Relaxed));
        [of(Done::Cut), of(Done::TurnedAway), of(Done::Unseen)]
    }

    fn total(&self, done: Done) -> &AtomicU64 {
        let [cut, turned_away, unseen] = &self.totals;
        match done {
            Done::Cut => cut,
            Done::TurnedAway => turned_away,
            Done::Unseen => unseen,
        }
    }

    fn note(&self, done: Done, agent: &str, from: Option<SocketAddr>, reason: &'static str, now_us: u64) {
        if let Some(left_out) = self.waiting().line(now_us) {
            done.log(agent, from, reason, left_out);
        }
        self.count(done, agent, reason, now_us);
    }

    fn count(&self, done: Done, agent: &str, reason: &'static str, now_us: u64) {
        let _ = self.total(done).fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting();
        let kind = (done, agent.to_owned(), reason);
        let kind = if waiting.counts.len() >= MAX_WAITING && !waiting.counts.contains_key(&kind) {
            (done, String::new(), reason)
        } else {
            kind
        };
        if waiting.counts.is_empty() {
            waiting.since_us = now_us;
        }
        *waiting.counts.entry(kind).or_default() += 1;
    }

    /// Has that recorded what was gathered, when it is time: once what was gathered before is on record, so that nothing
    /// piles up while the trail cannot be written. `all`: whatever the time.
    pub fn flush(&self, now_us: u64, all: bool, record: impl Fn(OperatorEvent)) {
        let (counts, since_us) = {
            let mut waiting = self.waiting();
            let ripe = now_us >= waiting.since_us + GATHER_US && Arc::strong_count(&self.pending) == 1;
            if waiting.counts.is_empty() || !(ripe || all) {
                return;
            }
            (std::mem::take(&mut waiting.counts), waiting.since_us)
        };
        let gathered = Duration::from_micros(now_us.saturating_sub(since_us)).as_secs().max(1);
        for ((done, agent, reason), count) in counts {
            record(OperatorEvent {
                action: done.action(),
                target: agent,
                rule: format!("{count} times in {gathered} s"),
                reason: reason.to_owned(),
                pending: Some(self.pending.clone()),
            });
        }
    }
}

impl Waiting {
    /// Whether a line may be logged; how many were not since the last one.
    fn line(&mut self, now_us: u64) -> Option<u64> {
        if self.lines.take(now_us).is_ok() {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }
}
