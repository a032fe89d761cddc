//! One agent's inbox as its home worker knows it: who is connected, what each session holds, what waits
//! for another delivery. Pure state: no store, no clock. Redis' pending entries list is the truth across
//! restarts; this is the truth while the worker lives, and nobody else writes it.

mod handout;
mod recovery;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use uuid::Uuid;

use super::session::{DeliveryId, Place, Session};
use crate::config::Delivery;
use crate::ids::{AgentId, InstanceId};
use crate::policy::Breaker;
use crate::store::answers::EntryId;
use crate::store::dead_letters::{Failure, MAX_HISTORY};
use crate::store::keys;

/// Entries asked for in one read for each of several sessions, while it is not known how many there are.
const UNKNOWN_SHARE: usize = 32;
/// Entries asked for in one read.
const READ_BATCH: usize = 256;
/// Envelope bytes that one session may hold without acknowledging them; at least one message passes.
const SESSION_WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Pending entries that are tracked at once; a scan of Redis' list pauses above it.
pub const MAX_TRACKED_ENTRIES: usize = 50_000;

/// How much Redis' idle time of an entry and ours may differ, in milliseconds.
const CLOCK_SLACK_MS: u64 = 5;

/// Why a message dies that was delivered as often as it may be.
pub const MAX_ATTEMPTS_REASON: &str = "max_attempts";
/// Why a delivery failed whose session ended before it was acknowledged.
const SESSION_LOST_REASON: &str = "session_lost";
/// Bytes of each reason that an entry remembers.
const MAX_FAILURE_BYTES: usize = 256;

/// Where an entry lives: in the shared inbox, or in one instance's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey {
    /// The instance whose own inbox it is in; `None`: the shared one.
    pub owner: Option<InstanceId>,
    /// The entry.
    pub entry: EntryId,
}

impl EntryKey {
    /// The client's name for this entry.
    pub fn delivery_id(&self) -> DeliveryId {
        let place = match self.owner {
            Some(_) => Place::Own,
            None => Place::Shared,
        };
        DeliveryId { place, entry: self.entry }
    }
}

/// What is known of undelivered entries in the shared inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backlog {
    /// At most this many.
    AtMost(usize),
    /// There may be any number.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// With its holder, who has a session.
    InFlight,
    /// Being claimed for its holder in this round trip.
    Claiming,
    /// For another delivery, not before `due_ms`. `lost`: because its holder's session ended.
    Waiting { due_ms: u64, lost: bool },
    /// For another delivery as soon as somebody can take it.
    Due,
    /// Acknowledged or a dead letter, not yet removed from Redis.
    Leaving,
}

#[derive(Debug, Clone)]
struct Entry {
    state: State,
    /// Deliveries so far.
    attempts: u32,
    /// Who has, or had, it last.
    holder: InstanceId,
    bytes: usize,
    /// When it was delivered last, as far as is known (monotonic milliseconds).
    delivered_ms: u64,
    /// Which message it is; nil before this worker has seen it.
    message_id: Uuid,
    /// How its deliveries failed, as far as this worker has seen it; the last [`MAX_HISTORY`].
    failures: Vec<Failure>,
}

impl Entry {
    fn failed(&mut self, reason: &str) {
        let mut end = reason.len().min(MAX_FAILURE_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        if self.failures.len() == MAX_HISTORY {
            drop(self.failures.remove(0));
        }
        let reason = reason.get(..end).unwrap_or_default().to_owned();
        self.failures.push(Failure { attempt: self.attempts, reason });
    }
}

/// One connected instance.
#[derive(Debug)]
pub struct Slot {
    /// Its session.
    pub session: Arc<Session>,
    /// Its name in the consumer group.
    pub consumer: String,
    /// The key of its own inbox.
    pub own_stream: String,
    /// Whether its own inbox may hold undelivered entries.
    pub own_news: bool,
    in_flight: usize,
    bytes: usize,
}

/// A read to make: new entries for one session.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// For whom.
    pub instance: InstanceId,
    /// From which stream.
    pub place: Place,
    /// Entries at most.
    pub count: usize,
}

/// Entries to deliver again to one session.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    /// For whom.
    pub instance: InstanceId,
    /// From which stream.
    pub place: Place,
    /// Which.
    pub entries: Vec<EntryId>,
    /// Only if nobody else has claimed them for this long, in milliseconds: another server may have.
    pub min_idle_ms: u64,
}

/// An entry on its way to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which.
    pub key: EntryKey,
    /// Who held it last.
    pub holder: InstanceId,
    /// Deliveries it had.
    pub attempts: u32,
    /// Why.
    pub reason: String,
    /// How its last deliveries failed, as far as is known.
    pub history: Vec<Failure>,
}

/// What became of a nack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nacked {
    /// Will be delivered again; the delivery it was about.
    Retried(u32),
    /// Goes to the dead letters; the delivery it was about.
    Dead(u32),
    /// Not a delivery that this session holds.
    Unknown,
}

/// An agent's inbox.
#[derive(Debug)]
pub struct Inbox {
    /// Whose.
    pub agent: AgentId,
    /// Key of the shared inbox.
    pub stream: String,
    /// Messages in the shared inbox, acknowledged ones excluded.
    pub len: u64,
    /// Undelivered entries in the shared inbox.
    pub backlog: Backlog,
    /// Acknowledged entries that Redis may still hold.
    pub acked: Vec<EntryKey>,
    /// Entries on their way to the dead letters.
    pub dead: Vec<DeadLetter>,
    /// Instances that left, and when (monotonic milliseconds) what is theirs is cleared away.
    pub gone: BTreeMap<InstanceId, u64>,
    /// Whether what an earlier server left in Redis has been taken up.
    pub adopted: bool,
    /// Whether its handlers fail.
    pub breaker: Breaker,
    /// The earliest timer that the worker has set for this inbox (monotonic milliseconds).
    pub timer_ms: Option<u64>,
    slots: Vec<Slot>,
    entries: HashMap<EntryKey, Entry, foldhash::fast::RandomState>,
    /// Due times of waiting entries; an item that the entry's state contradicts is stale.
    waiting: BinaryHeap<Reverse<(u64, EntryKey)>>,
    /// Entries of the shared inbox that are due, and so too for each instance's own.
    due_shared: VecDeque<EntryId>,
    due_own: HashMap<InstanceId, VecDeque<EntryId>>,
    /// Whose turn it is.
    turn: usize,
    /// What an envelope here may well measure: rises at once, falls slowly. Sizes reads.
    typical_bytes: usize,
}

impl Inbox {
    /// An inbox nobody is connected to. `max_bytes`: the largest message it can hold.
    pub fn new(agent: AgentId, max_bytes: usize) -> Self {
        Self {
            stream: keys::inbox(&agent),
            agent,
            len: 0,
            backlog: Backlog::Unknown,
            acked: Vec::new(),
            dead: Vec::new(),
            gone: BTreeMap::new(),
            adopted: false,
            breaker: Breaker::default(),
            timer_ms: None,
            slots: Vec::new(),
            entries: HashMap::default(),
            waiting: BinaryHeap::new(),
            due_shared: VecDeque::new(),
            due_own: HashMap::new(),
            turn: 0,
            typical_bytes: max_bytes,
        }
    }

    /// The connected instances.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The connected instance of that name.
    pub fn slot(&self, instance: &InstanceId) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.session.instance == *instance)
    }

    fn slot_mut(&mut self, instance: &InstanceId) -> Option<&mut Slot> {
        self.slots.iter_mut().find(|slot| slot.session.instance == *instance)
    }

    /// Key of the stream an entry is in.
    pub fn stream_of(&self, key: &EntryKey) -> String {
        match &key.owner {
            Some(instance) => keys::instance_inbox(&self.agent, instance),
            None => self.stream.clone(),
        }
    }

    /// Connects an instance. What it held before its session was lost is due to it at once.
    pub fn open(&mut self, session: Arc<Session>) {
        let instance = session.instance.clone();
        let _ = self.gone.remove(&instance);
        self.slots.push(Slot {
            consumer: keys::consumer(&self.agent, &instance),
            own_stream: keys::instance_inbox(&self.agent, &instance),
            own_news: true,
            in_flight: 0,
            bytes: 0,
            session,
        });
        self.backlog = Backlog::Unknown;
        let mut due = Vec::new();
        for (key, entry) in &mut self.entries {
            if entry.holder == instance && matches!(entry.state, State::Waiting { lost: true, .. }) {
                entry.state = State::Due;
                due.push(key.clone());
            }
        }
        // In the order in which they were sent.
        due.sort();
        for key in due {
            self.push_due(key);
        }
    }

    fn push_due(&mut self, key: EntryKey) {
        match key.owner {
            None => self.due_shared.push_back(key.entry),
            Some(owner) => self.due_own.entry(owner).or_default().push_back(key.entry),
        }
    }

    /// Disconnects an instance, if `session` is its current one. What it held waits for its return until
    /// `reclaim_at_ms`, then goes to another instance.
    pub fn close(&mut self, session: &Arc<Session>, reclaim_at_ms: u64) -> bool {
        let Some(at) = self.slots.iter().position(|slot| Arc::ptr_eq(&slot.session, session)) else {
            return false;
        };
        drop(self.slots.remove(at));
        let mut lost = Vec::new();
        for (key, entry) in &mut self.entries {
            let held = matches!(entry.state, State::InFlight | State::Claiming);
            if held && entry.holder == session.instance {
                if entry.state == State::InFlight {
                    entry.failed(SESSION_LOST_REASON);
                }
                entry.state = State::Waiting { due_ms: reclaim_at_ms, lost: true };
                lost.push(key.clone());
            }
        }
        self.waiting.extend(lost.into_iter().map(|key| Reverse((reclaim_at_ms, key))));
        true
    }

    fn key(instance: &InstanceId, id: DeliveryId) -> EntryKey {
        EntryKey {
            owner: match id.place {
                Place::Shared => None,
                Place::Own => Some(instance.clone()),
            },
            entry: id.entry,
        }
    }

    /// Takes a delivery that `instance` holds off its hands.
    fn release(&mut self, instance: &InstanceId, id: DeliveryId, state: State) -> Option<(EntryKey, u32)> {
        let key = Self::key(instance, id);
        let entry = self.entries.get_mut(&key)?;
        if entry.state != State::InFlight || entry.holder != *instance {
            return None;
        }
        entry.state = state;
        let (attempts, bytes) = (entry.attempts, entry.bytes);
        if let Some(slot) = self.slot_mut(instance) {
            slot.in_flight = slot.in_flight.saturating_sub(1);
            slot.bytes = slot.bytes.saturating_sub(bytes);
        }
        Some((key, attempts))
    }

    /// The instance has handled a delivery: its message and the number of the delivery; `None` when it
    /// holds no such delivery.
    pub fn ack(&mut self, instance: &InstanceId, id: DeliveryId) -> Option<(Uuid, u32)> {
        let (key, attempts) = self.release(instance, id, State::Leaving)?;
        let message_id = self.entries.get(&key).map_or(Uuid::nil(), |entry| entry.message_id);
        self.acked.push(key);
        Some((message_id, attempts))
    }

    /// The message that an instance holds by a delivery, and the number of the delivery.
    pub fn held(&self, instance: &InstanceId, id: DeliveryId) -> Option<(Uuid, u32)> {
        let entry = self.entries.get(&Self::key(instance, id))?;
        let held = entry.state == State::InFlight && entry.holder == *instance;
        held.then_some((entry.message_id, entry.attempts))
    }

    /// A commit has acknowledged a delivery, and taken it out of Redis.
    pub fn committed(&mut self, instance: &InstanceId, id: DeliveryId) {
        if let Some((key, _)) = self.release(instance, id, State::Leaving) {
            if key.owner.is_none() {
                self.shrunk(1);
            }
            self.removed(&key);
        }
    }

    /// An entry was read that may not be delivered before `due_ms`: it is with nobody until then.
    pub fn postponed(&mut self, instance: &InstanceId, id: DeliveryId, due_ms: u64) {
        if let Some((key, _)) = self.release(instance, id, State::Waiting { due_ms, lost: false }) {
            if let Some(entry) = self.entries.get_mut(&key) {
                // That was no delivery.
                entry.attempts = entry.attempts.saturating_sub(1);
            }
            self.waiting.push(Reverse((due_ms, key)));
        }
    }

    /// Which message a delivery is of.
    pub fn message_of(&self, instance: &InstanceId, id: DeliveryId) -> Option<Uuid> {
        self.entries.get(&Self::key(instance, id)).map(|entry| entry.message_id)
    }

    /// The instance refuses a delivery.
    pub fn nack(
        &mut self,
        instance: &InstanceId,
        id: DeliveryId,
        reason: &str,
        retryable: bool,
        now_ms: u64,
        config: &Delivery,
    ) -> Nacked {
        let Some((key, attempts)) = self.release(instance, id, State::Leaving) else {
            return Nacked::Unknown;
        };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.failed(reason);
        }
        if retryable && attempts < config.max_attempts {
            let due_ms = now_ms + config.backoff_ms(attempts);
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.state = State::Waiting { due_ms, lost: false };
            }
            self.waiting.push(Reverse((due_ms, key)));
            return Nacked::Retried(attempts);
        }
        let history =
            self.entries.get_mut(&key).map(|entry| std::mem::take(&mut entry.failures)).unwrap_or_default();
        let (holder, reason) = (instance.clone(), reason.to_owned());
        self.dead.push(DeadLetter { key, holder, attempts, reason, history });
        Nacked::Dead(attempts)
    }

    /// One more message of `bytes` is in the shared inbox.
    pub fn added(&mut self, bytes: usize) {
        self.len += 1;
        self.typical_bytes = self.typical_bytes.max(bytes);
        if let Backlog::AtMost(n) = self.backlog {
            self.backlog = Backlog::AtMost(n + 1);
        }
    }

    /// A message counted by [`added`](Self::added) was not stored after all.
    pub fn not_added(&mut self) {
        self.len = self.len.saturating_sub(1);
    }

    /// The connection broke while entries were being claimed: they are due again.
    pub fn claims_lost(&mut self, now_ms: u64) {
        let claiming: Vec<(EntryKey, InstanceId)> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.state == State::Claiming)
            .map(|(key, entry)| (key.clone(), entry.holder.clone()))
            .collect();
        for (key, holder) in claiming {
            self.not_delivered(&holder, key.delivery_id().place, key.entry, false, now_ms);
        }
    }

    /// A read was answered: `asked` entries were wanted, `got` came.
    pub fn read_answered(&mut self, instance: &InstanceId, place: Place, asked: usize, got: usize) {
        match place {
            Place::Own => {
                if got < asked
                    && let Some(slot) = self.slot_mut(instance)
                {
                    slot.own_news = false;
                }
            }
            Place::Shared => {
                self.backlog = match self.backlog {
                    _ if got < asked => Backlog::AtMost(0),
                    Backlog::AtMost(n) => Backlog::AtMost(n.saturating_sub(got)),
                    Backlog::Unknown => Backlog::Unknown,
                };
            }
        }
    }

    /// A new entry was read for a connected instance and goes to it now.
    pub fn delivered_new(
        &mut self,
        instance: &InstanceId,
        place: Place,
        entry: EntryId,
        message_id: Uuid,
        bytes: usize,
        now_ms: u64,
    ) {
        let key = Self::key(instance, DeliveryId { place, entry });
        self.typical_bytes = bytes.max(self.typical_bytes - self.typical_bytes / 8);
        if let Some(slot) = self.slot_mut(instance) {
            slot.in_flight += 1;
            slot.bytes += bytes;
        }
        let _ = self.entries.insert(
            key,
            Entry {
                state: State::InFlight,
                attempts: 1,
                holder: instance.clone(),
                bytes,
                delivered_ms: now_ms,
                message_id,
                failures: Vec::new(),
            },
        );
    }

    /// A claimed entry came back and goes to its new holder now; which delivery it is.
    pub fn delivered_again(
        &mut self,
        instance: &InstanceId,
        place: Place,
        entry: EntryId,
        message_id: Uuid,
        bytes: usize,
        now_ms: u64,
    ) -> u32 {
        let key = Self::key(instance, DeliveryId { place, entry });
        let Some(found) = self.entries.get_mut(&key) else {
            return 0;
        };
        found.state = State::InFlight;
        found.bytes = bytes;
        found.message_id = message_id;
        found.delivered_ms = now_ms;
        let attempts = found.attempts;
        if let Some(slot) = self.slot_mut(instance) {
            slot.bytes += bytes;
        }
        attempts
    }

    /// A claim that Redis did not answer with the entry: it exists no more (`gone`), or the claim failed
    /// and is due again at `at_ms`.
    pub fn not_delivered(
        &mut self,
        instance: &InstanceId,
        place: Place,
        entry: EntryId,
        gone: bool,
        at_ms: u64,
    ) {
        let key = Self::key(instance, DeliveryId { place, entry });
        let Some(found) = self.entries.get_mut(&key) else {
            return;
        };
        found.attempts = found.attempts.saturating_sub(1);
        if gone {
            drop(self.entries.remove(&key));
        } else {
            found.state = State::Waiting { due_ms: at_ms, lost: true };
            self.waiting.push(Reverse((at_ms, key)));
        }
        if let Some(slot) = self.slot_mut(instance) {
            slot.in_flight = slot.in_flight.saturating_sub(1);
        }
    }

    /// An acknowledged or dead entry is out of Redis.
    pub fn removed(&mut self, key: &EntryKey) {
        drop(self.entries.remove(key));
    }

    /// `count` messages fewer are in the shared inbox.
    pub fn shrunk(&mut self, count: u64) {
        self.len = self.len.saturating_sub(count);
    }
}

impl Slot {
    /// Deliveries this session may get now.
    fn credit(&self, config: &Delivery, typical_bytes: usize) -> usize {
        let by_count = config.max_in_flight.saturating_sub(self.in_flight);
        let by_bytes = match SESSION_WINDOW_BYTES.checked_sub(self.bytes) {
            Some(0) | None => 0,
            Some(left) => (left / typical_bytes.max(1)).max(1),
        };
        by_count.min(by_bytes)
    }
}

#[cfg(test)]
mod tests;
