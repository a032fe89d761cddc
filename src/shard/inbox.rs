//! One agent's inbox as its home worker knows it: who is connected, what each session holds, what waits
//! for another delivery. Pure state: no store, no clock. Redis' pending entries list is the truth across
//! restarts; this is the truth while the worker lives, and nobody else writes it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use super::session::{DeliveryId, Place, Session};
use crate::config::Delivery;
use crate::ids::{AgentId, InstanceId};
use crate::store::answers::{EntryId, PendingEntry};
use crate::store::keys;

/// Entries asked for in one read.
const READ_BATCH: usize = 128;
/// Envelope bytes that one session may hold without acknowledging them; at least one message passes.
const SESSION_WINDOW_BYTES: usize = 16 * 1024 * 1024;
/// Pending entries that are tracked at once; a scan of Redis' list pauses above it.
pub const MAX_TRACKED_ENTRIES: usize = 50_000;

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
        DeliveryId {
            place,
            entry: self.entry,
        }
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
    /// The earliest timer that the worker has set for this inbox (monotonic milliseconds).
    pub timer_ms: Option<u64>,
    slots: Vec<Slot>,
    entries: HashMap<EntryKey, Entry>,
    /// Due times of waiting entries; an item that the entry's state contradicts is stale.
    waiting: BinaryHeap<Reverse<(u64, EntryKey)>>,
    /// Whose turn it is.
    turn: usize,
    /// Recent size of an envelope, for sizing reads.
    typical_bytes: usize,
}

impl Inbox {
    /// An inbox nobody is connected to, holding `len` messages in Redis.
    pub fn new(agent: AgentId, len: u64) -> Self {
        Self {
            stream: keys::inbox(&agent),
            agent,
            len,
            backlog: Backlog::Unknown,
            acked: Vec::new(),
            dead: Vec::new(),
            gone: BTreeMap::new(),
            timer_ms: None,
            slots: Vec::new(),
            entries: HashMap::new(),
            waiting: BinaryHeap::new(),
            turn: 0,
            typical_bytes: 1024,
        }
    }

    /// The connected instances.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The connected instance of that name.
    pub fn slot(&self, instance: &InstanceId) -> Option<&Slot> {
        self.slots
            .iter()
            .find(|slot| slot.session.instance == *instance)
    }

    fn slot_mut(&mut self, instance: &InstanceId) -> Option<&mut Slot> {
        self.slots
            .iter_mut()
            .find(|slot| slot.session.instance == *instance)
    }

    /// Key of the stream an entry is in.
    pub fn stream_of(&self, key: &EntryKey) -> String {
        match &key.owner {
            Some(instance) => keys::instance_inbox(&self.agent, instance),
            None => self.stream.clone(),
        }
    }

    /// Connects an instance. What it held before its session was lost is due to it at once.
    pub fn open(&mut self, session: Arc<Session>, now_ms: u64) {
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
            if entry.holder == instance && matches!(entry.state, State::Waiting { lost: true, .. })
            {
                entry.state = State::Waiting {
                    due_ms: now_ms,
                    lost: true,
                };
                due.push(key.clone());
            }
        }
        self.waiting
            .extend(due.into_iter().map(|key| Reverse((now_ms, key))));
    }

    /// Disconnects an instance, if `session` is its current one. What it held waits for its return until
    /// `reclaim_at_ms`, then goes to another instance.
    pub fn close(&mut self, session: &Arc<Session>, reclaim_at_ms: u64) -> bool {
        let Some(at) = self
            .slots
            .iter()
            .position(|slot| Arc::ptr_eq(&slot.session, session))
        else {
            return false;
        };
        drop(self.slots.remove(at));
        let mut lost = Vec::new();
        for (key, entry) in &mut self.entries {
            let held = matches!(entry.state, State::InFlight | State::Claiming);
            if held && entry.holder == session.instance {
                entry.state = State::Waiting {
                    due_ms: reclaim_at_ms,
                    lost: true,
                };
                lost.push(key.clone());
            }
        }
        self.waiting
            .extend(lost.into_iter().map(|key| Reverse((reclaim_at_ms, key))));
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
    fn release(
        &mut self,
        instance: &InstanceId,
        id: DeliveryId,
        state: State,
    ) -> Option<(EntryKey, u32)> {
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

    /// The instance has handled a delivery; false when it holds no such delivery.
    pub fn ack(&mut self, instance: &InstanceId, id: DeliveryId) -> bool {
        match self.release(instance, id, State::Leaving) {
            Some((key, _)) => {
                self.acked.push(key);
                true
            }
            None => false,
        }
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
        if retryable && attempts < config.max_attempts {
            let due_ms = now_ms + config.backoff_ms(attempts);
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.state = State::Waiting {
                    due_ms,
                    lost: false,
                };
            }
            self.waiting.push(Reverse((due_ms, key)));
            return Nacked::Retried(attempts);
        }
        self.dead.push(DeadLetter {
            key,
            holder: instance.clone(),
            attempts,
            reason: reason.to_owned(),
        });
        Nacked::Dead(attempts)
    }

    /// When the next waiting entry is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse((due_ms, _))| *due_ms)
    }

    /// Takes the entries that are due and can go to a connected instance with credit; what had
    /// `max_attempts` deliveries goes to the dead letters instead.
    pub fn due(&mut self, now_ms: u64, config: &Delivery) -> Vec<Claim> {
        let mut claims: Vec<Claim> = Vec::new();
        let mut later = Vec::new();
        let mut taken = 0;
        while taken < config.reclaim_batch_size {
            match self.waiting.peek() {
                Some(Reverse((due_ms, _))) if *due_ms <= now_ms => {}
                Some(_) | None => break,
            }
            let Some(Reverse((due_ms, key))) = self.waiting.pop() else {
                break;
            };
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            if !matches!(entry.state, State::Waiting { due_ms: due, .. } if due == due_ms) {
                continue;
            }
            if entry.attempts >= config.max_attempts {
                entry.state = State::Leaving;
                self.dead.push(DeadLetter {
                    key,
                    holder: entry.holder.clone(),
                    attempts: entry.attempts,
                    reason: "max_attempts".to_owned(),
                });
                taken += 1;
                continue;
            }
            match self.receiver(&key, config) {
                Some(instance) => {
                    taken += 1;
                    self.assign(&key, &instance);
                    let place = key.delivery_id().place;
                    match claims
                        .iter_mut()
                        .find(|c| c.instance == instance && c.place == place)
                    {
                        Some(claim) => claim.entries.push(key.entry),
                        None => claims.push(Claim {
                            instance,
                            place,
                            entries: vec![key.entry],
                        }),
                    }
                }
                // Nobody for it now: it stays due, behind what can move.
                None if self.slots.is_empty() => {
                    later.push((due_ms, key));
                    break;
                }
                None => {
                    later.push((due_ms, key));
                    if later.len() >= config.reclaim_batch_size {
                        break;
                    }
                }
            }
        }
        self.waiting.extend(later.into_iter().map(Reverse));
        claims
    }

    fn assign(&mut self, key: &EntryKey, instance: &InstanceId) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        entry.state = State::Claiming;
        entry.attempts += 1;
        entry.holder = instance.clone();
        if let Some(slot) = self.slot_mut(instance) {
            slot.in_flight += 1;
        }
    }

    /// The instance that can take this entry now: its owner, or whose turn it is.
    fn receiver(&mut self, key: &EntryKey, config: &Delivery) -> Option<InstanceId> {
        let open = |slot: &Slot| slot.credit(config, 1) > 0;
        if let Some(owner) = &key.owner {
            return self
                .slot(owner)
                .filter(|slot| open(slot))
                .map(|_| owner.clone());
        }
        let count = self.slots.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            if let Some(slot) = self.slots.get(at).filter(|slot| open(slot)) {
                self.turn = at + 1;
                return Some(slot.session.instance.clone());
            }
        }
        None
    }

    /// Reads that would bring new entries to sessions with credit, shared fairly.
    pub fn reads(&mut self, config: &Delivery) -> Vec<Read> {
        let mut reads = Vec::new();
        let count = self.slots.len();
        let mut left = match self.backlog {
            Backlog::AtMost(n) => n,
            Backlog::Unknown => usize::MAX,
        };
        let start = self.turn;
        let mut served = 0;
        for step in 0..count {
            let typical_bytes = self.typical_bytes;
            let at = (start + step) % count;
            let Some(slot) = self.slots.get_mut(at) else {
                break;
            };
            let mut credit = slot.credit(config, typical_bytes);
            if slot.own_news && credit > 0 {
                let own = credit.min(READ_BATCH);
                credit -= own;
                reads.push(Read {
                    instance: slot.session.instance.clone(),
                    place: Place::Own,
                    count: own,
                });
            }
            let share = left.div_ceil(count - step).min(READ_BATCH).min(credit);
            if share > 0 {
                left -= share;
                served = step + 1;
                reads.push(Read {
                    instance: slot.session.instance.clone(),
                    place: Place::Shared,
                    count: share,
                });
            }
        }
        if count > 0 {
            self.turn = (start + served) % count;
        }
        reads
    }

    /// Whether anything could move now: due or unread entries with a session that has credit.
    pub fn has_work(&self, now_ms: u64, config: &Delivery) -> bool {
        let open = |slot: &Slot| slot.credit(config, self.typical_bytes) > 0;
        let unread = self.backlog != Backlog::AtMost(0);
        !self.acked.is_empty()
            || !self.dead.is_empty()
            || self
                .slots
                .iter()
                .any(|slot| open(slot) && (unread || slot.own_news))
            || (self.next_due_ms().is_some_and(|due| due <= now_ms) && self.slots.iter().any(open))
    }

    /// One more message is in the shared inbox.
    pub fn added(&mut self) {
        self.len += 1;
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
        bytes: usize,
    ) {
        let key = Self::key(instance, DeliveryId { place, entry });
        self.typical_bytes = (self.typical_bytes * 7 + bytes) / 8;
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
            },
        );
    }

    /// A claimed entry came back and goes to its new holder now.
    pub fn delivered_again(
        &mut self,
        instance: &InstanceId,
        place: Place,
        entry: EntryId,
        bytes: usize,
    ) {
        let key = Self::key(instance, DeliveryId { place, entry });
        let Some(found) = self.entries.get_mut(&key) else {
            return;
        };
        found.state = State::InFlight;
        found.bytes = bytes;
        if let Some(slot) = self.slot_mut(instance) {
            slot.bytes += bytes;
        }
    }

    /// A claim that Redis did not answer with the entry: it exists no more (`gone`), or the claim failed
    /// and is due again.
    pub fn not_delivered(
        &mut self,
        instance: &InstanceId,
        place: Place,
        entry: EntryId,
        gone: bool,
        now_ms: u64,
    ) {
        let key = Self::key(instance, DeliveryId { place, entry });
        let Some(found) = self.entries.get_mut(&key) else {
            return;
        };
        found.attempts = found.attempts.saturating_sub(1);
        found.state = State::Waiting {
            due_ms: now_ms,
            lost: true,
        };
        if gone {
            drop(self.entries.remove(&key));
        } else {
            self.waiting.push(Reverse((now_ms, key)));
        }
        if let Some(slot) = self.slot_mut(instance) {
            slot.in_flight = slot.in_flight.saturating_sub(1);
        }
    }

    /// An acknowledged or dead entry is out of Redis.
    pub fn removed(&mut self, key: &EntryKey) {
        if self.entries.remove(key).is_some() && key.owner.is_none() {
            self.len = self.len.saturating_sub(1);
        }
    }

    /// Entries that are tracked.
    pub fn tracked(&self) -> usize {
        self.entries.len()
    }

    /// Takes up a line of Redis' pending entries list that is not tracked yet: an entry that a lost
    /// session, or an earlier server, left behind.
    pub fn adopt(
        &mut self,
        owner: Option<&InstanceId>,
        line: &PendingEntry,
        now_ms: u64,
        config: &Delivery,
    ) {
        let key = EntryKey {
            owner: owner.cloned(),
            entry: line.id,
        };
        if self.entries.contains_key(&key) {
            return;
        }
        let name = line
            .consumer
            .strip_prefix(self.agent.as_str())
            .and_then(|n| n.strip_prefix('-'));
        let Some(holder) = name.and_then(InstanceId::parse) else {
            log::warn!(
                "{}: pending entry {} of foreign consumer {:?} left alone",
                self.stream,
                line.id,
                line.consumer
            );
            return;
        };
        let (due_ms, attempts) = if self.slot(&holder).is_some() {
            // Read for a connected instance, but the answer never arrived: not delivered yet.
            (now_ms, line.deliveries.saturating_sub(1))
        } else {
            (
                now_ms + config.reclaim_idle_ms.saturating_sub(line.idle_ms),
                line.deliveries,
            )
        };
        let state = State::Waiting { due_ms, lost: true };
        let _ = self.entries.insert(
            key.clone(),
            Entry {
                state,
                attempts,
                holder,
                bytes: 0,
            },
        );
        self.waiting.push(Reverse((due_ms, key)));
    }

    /// Redis lost the group or the stream: nothing that was tracked can be acknowledged or claimed.
    pub fn forget(&mut self) {
        self.entries.clear();
        self.waiting.clear();
        self.acked.clear();
        self.dead.clear();
        self.len = 0;
        self.backlog = Backlog::Unknown;
        for slot in &mut self.slots {
            slot.in_flight = 0;
            slot.bytes = 0;
            slot.own_news = true;
        }
    }

    /// After a reconnect: answers may have been lost, so everything may hold news.
    pub fn suspect(&mut self) {
        self.backlog = Backlog::Unknown;
        for slot in &mut self.slots {
            slot.own_news = true;
        }
    }

    /// Replies for this instance may be unread.
    pub fn own_news(&mut self, instance: &InstanceId) {
        if let Some(slot) = self.slot_mut(instance) {
            slot.own_news = true;
        }
    }

    /// Whether anything of that instance is still tracked in the shared inbox.
    pub fn holds_of(&self, instance: &InstanceId) -> bool {
        self.entries.values().any(|entry| entry.holder == *instance)
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
