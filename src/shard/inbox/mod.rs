//! One agent's inbox as its home worker knows it: who is connected, what each session holds, what waits
//! for another delivery. Pure state: no store, no clock, no session; what has to be told to a session is returned.
//!
//! Redis' pending entries list is the truth across restarts; this is the truth while the worker lives, and nobody
//! else writes it.
//!
//! * [`entry`]: one tracked entry and its states. * [`consumer`]: one connected instance and its credit.
//! * [`settle`]: acknowledgements, refusals, answers of reads and claims: the changes.
//! * [`handout`]: a plan of what may be handed on now, which changes nothing.
//! * `size`: the bytes that it holds.
//! * `recovery`: what Redis lists after a connection, a session or a server was lost.

pub mod consumer;
pub mod entry;
pub mod handout;
mod recovery;
pub mod settle;
mod size;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use crate::config::Delivery;
use crate::ids::{AgentId, InstanceId};
use crate::policy::Breaker;
use crate::shard::desk::delivery::DeliveryId;
use crate::shard::desk::meters::Handling;
use crate::shard::desk::session_key::SessionKey;
use crate::store::answers::EntryId;
use crate::store::keys;
use consumer::Consumer;
use entry::{DeadLetter, Entry, EntryKey, State};
use size::Size;

/// Pending entries that are tracked at once; a scan of Redis' list pauses above it.
pub const MAX_TRACKED_ENTRIES: usize = 50_000;
/// Why a message dies that was delivered as often as it may be.
pub const MAX_ATTEMPTS_REASON: &str = "max_attempts";
/// Why a delivery failed whose session ended before it was acknowledged.
const SESSION_LOST_REASON: &str = "session_lost";

/// What is known of undelivered entries in the shared inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// At most this many.
    AtMost(usize),
    /// There may be any number.
    Unknown,
}

/// An instance that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone {
    /// When it left, where that was seen or told (monotonic milliseconds).
    pub since_ms: Option<u64>,
    /// When the remains of it are cleared away (monotonic milliseconds).
    pub clear_at_ms: u64,
}

/// A delivery that a session holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its message.
    pub message_id: Uuid,
    /// The number of the delivery.
    pub attempt: u32,
    /// When it was handed on (monotonic milliseconds).
    pub handed_ms: u64,
}

/// An agent's inbox.
#[derive(Debug)]
pub struct Inbox {
    /// Whose.
    pub agent: AgentId,
    /// Key of the shared inbox.
    pub stream: String,
    /// Messages in the shared inbox, with those that are about to leave it.
    pub len: u64,
    /// How many bytes it holds.
    pub size: Size,
    /// Messages that somebody else seems to have removed.
    pub missing: u64,
    /// Since when that is so (monotonic milliseconds).
    pub missing_since_ms: Option<u64>,
    /// When Redis was last asked how many bytes it takes (monotonic milliseconds).
    pub weighed_ms: Option<u64>,
    /// Whether `len` has followed every change since Redis said it last: not after a connect.
    pub is_exact: bool,
    /// Undelivered entries in the shared inbox.
    pub backlog: Backlog,
    /// Acknowledged entries that Redis may still hold.
    pub leaving: Vec<EntryKey>,
    /// Entries on their way to the dead letters.
    pub dead: Vec<DeadLetter>,
    /// Entries whose deliveries Redis has counted wrongly.
    pub recounts: Vec<EntryKey>,
    /// Instances that left.
    pub gone: BTreeMap<InstanceId, Gone>,
    /// Whether the state that an earlier server left in Redis has been taken up.
    pub adopted: bool,
    /// Whether Redis' list of pending entries has been compared since the last connect: what a session holds is
    /// certain then.
    pub verified: bool,
    /// Whether its handlers fail.
    pub breaker: Breaker,
    /// How long they take.
    pub handling: Arc<Handling>,
    /// The earliest timer that the worker has set for this inbox (monotonic milliseconds).
    pub timer_ms: Option<u64>,
    consumers: Vec<Consumer>,
    entries: HashMap<EntryKey, Entry, foldhash::fast::RandomState>,
    /// Due times of waiting entries; an item that the entry's state contradicts is stale.
    waiting: BinaryHeap<Reverse<(u64, EntryKey)>>,
    /// Entries of the shared inbox that are due, and so too for each instance's own; stale items as above.
    due_shared: VecDeque<EntryId>,
    due_own: HashMap<InstanceId, VecDeque<EntryId>>,
    /// Whose turn it is.
    turn: usize,
    /// What an envelope here may well measure: rises at once, falls slowly. Sizes reads.
    typical_bytes: usize,
    /// The number of the scan that was begun last.
    scans: u32,
}

impl Inbox {
    /// An inbox nobody is connected to. `max_bytes`: the largest message it can hold.
    pub fn new(agent: AgentId, max_bytes: usize) -> Self {
        Self {
            stream: keys::inbox(&agent),
            agent,
            len: 0,
            size: Size::default(),
            missing: 0,
            missing_since_ms: None,
            weighed_ms: None,
            is_exact: false,
            backlog: Backlog::Unknown,
            leaving: Vec::new(),
            dead: Vec::new(),
            recounts: Vec::new(),
            gone: BTreeMap::new(),
            adopted: false,
            verified: false,
            breaker: Breaker::default(),
            handling: Arc::default(),
            timer_ms: None,
            consumers: Vec::new(),
            entries: HashMap::default(),
            waiting: BinaryHeap::new(),
            due_shared: VecDeque::new(),
            due_own: HashMap::new(),
            turn: 0,
            typical_bytes: max_bytes,
            scans: 0,
        }
    }

    /// The connected instances.
    pub fn consumers(&self) -> &[Consumer] {
        &self.consumers
    }

    /// The connected instance of that name.
    pub fn consumer(&self, instance: &InstanceId) -> Option<&Consumer> {
        self.consumers.iter().find(|consumer| consumer.instance == *instance)
    }

    fn consumer_mut(&mut self, instance: &InstanceId) -> Option<&mut Consumer> {
        self.consumers.iter_mut().find(|consumer| consumer.instance == *instance)
    }

    /// Key of the stream of the shared inbox (`None`) or of an instance's own.
    pub fn stream_of(&self, owner: Option<&InstanceId>) -> String {
        match owner {
            Some(instance) => keys::instance_inbox(&self.agent, instance),
            None => self.stream.clone(),
        }
    }

    /// Connects an instance. What it held before its session was lost is due to it at once.
    pub fn open(&mut self, instance: &InstanceId, session: SessionKey, config: &Delivery) {
        let _ = self.gone.remove(instance);
        self.consumers.push(Consumer::new(&self.agent, instance.clone(), session));
        self.backlog = Backlog::Unknown;
        let lost = |entry: &Entry| matches!(entry.state, State::Waiting { lost: true, .. });
        let mut due: Vec<EntryKey> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.holder == *instance && lost(entry))
            .map(|(key, _)| key.clone())
            .collect();
        // In the order in which they were sent.
        due.sort();
        for key in due {
            self.promote_one(key, config);
        }
    }

    /// Disconnects the instance of this session. What it held waits for its return until `reclaim_at_ms`, then goes
    /// to another instance. The instance, if the session was connected.
    pub fn close(&mut self, session: SessionKey, reclaim_at_ms: u64) -> Option<InstanceId> {
        let at = self.consumers.iter().position(|consumer| consumer.session == session)?;
        let instance = self.consumers.remove(at).instance;
        let mut lost = Vec::new();
        for (key, entry) in &mut self.entries {
            if entry.is_in_flight() && entry.holder == instance {
                entry.failed(SESSION_LOST_REASON);
                entry.state = State::Waiting { due_ms: reclaim_at_ms, lost: true };
                lost.push(Reverse((reclaim_at_ms, key.clone())));
            }
        }
        self.waiting.extend(lost);
        Some(instance)
    }

    /// Sessions that get no further messages, or get them again.
    pub fn retire(&mut self, session: SessionKey, is_retired: bool) {
        if let Some(consumer) = self.consumers.iter_mut().find(|consumer| consumer.session == session) {
            consumer.is_retired = is_retired;
        }
    }

    /// Sessions that still get messages; and those that get none and hold nothing.
    pub fn to_move(&self) -> (Vec<SessionKey>, Vec<SessionKey>) {
        let sessions = |which: fn(&Consumer) -> bool| -> Vec<SessionKey> {
            self.consumers
                .iter()
                .filter(|consumer| which(consumer))
                .map(|consumer| consumer.session)
                .collect()
        };
        let is_done = |consumer: &Consumer| consumer.is_retired && consumer.in_flight == 0;
        (sessions(|consumer| !consumer.is_retired), sessions(is_done))
    }

    /// Sessions that get no further messages.
    pub fn retired(&self) -> Vec<SessionKey> {
        let retired = self.consumers.iter().filter(|consumer| consumer.is_retired);
        retired.map(|consumer| consumer.session).collect()
    }

    /// The delivery, if the instance holds it.
    pub fn held(&self, instance: &InstanceId, id: DeliveryId) -> Option<Held> {
        let entry = self.entries.get(&EntryKey::of(instance, id.source, id.entry))?;
        let held = entry.state == State::InFlight { token: id.token } && entry.holder == *instance;
        held.then_some(Held {
            message_id: entry.message_id,
            attempt: entry.attempts,
            handed_ms: entry.handed_ms,
        })
    }

    /// When the next waiting entry is due (monotonic milliseconds).
    pub fn next_due_ms(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse((due_ms, _))| *due_ms)
    }

    /// Makes entries due whose time has come; those with `max_attempts` deliveries become dead letters.
    pub fn promote(&mut self, now_ms: u64, config: &Delivery) {
        while self.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            let Some(Reverse((due_ms, key))) = self.waiting.pop() else {
                return;
            };
            let waits =
                |entry: &Entry| matches!(entry.state, State::Waiting { due_ms: due, .. } if due == due_ms);
            if self.entries.get(&key).is_some_and(waits) {
                self.promote_one(key, config);
            }
        }
    }

    fn promote_one(&mut self, key: EntryKey, config: &Delivery) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if entry.attempts >= config.max_attempts {
            entry.state = State::Leaving;
            self.dead.push(DeadLetter {
                holder: entry.holder.clone(),
                attempts: entry.attempts,
                reason: MAX_ATTEMPTS_REASON.to_owned(),
                history: std::mem::take(&mut entry.failures),
                key,
            });
            return;
        }
        entry.state = State::Due;
        match key.owner {
            None => self.due_shared.push_back(key.entry),
            Some(owner) => self.due_own.entry(owner).or_default().push_back(key.entry),
        }
    }

    /// Whether anything could be delivered now: unread or due entries, and a session with credit.
    pub fn has_work(&self, now_ms: u64, config: &Delivery) -> bool {
        let ripe = self.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms);
        let for_anyone = ripe || self.has_shared();
        self.consumers.iter().any(|consumer| {
            let has_work = (for_anyone && !consumer.is_retired) || self.has_own(consumer);
            has_work && consumer.credit(config, self.typical_bytes, 0) > 0
        })
    }

    fn has_shared(&self) -> bool {
        self.backlog != Backlog::AtMost(0) || !self.due_shared.is_empty()
    }

    fn has_own(&self, consumer: &Consumer) -> bool {
        consumer.own_news || self.due_own.contains_key(&consumer.instance)
    }

    /// Each session, and whether something waits that its acknowledgements would make room for.
    pub fn hunger(&self) -> impl Iterator<Item = (SessionKey, bool)> {
        let for_anyone = self.has_shared();
        self.consumers.iter().map(move |consumer| (consumer.session, for_anyone || self.has_own(consumer)))
    }
}

#[cfg(test)]
mod tests;
