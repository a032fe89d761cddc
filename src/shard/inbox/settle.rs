//! Changes of an inbox: what clients say of deliveries, and what Redis has answered.

use std::cmp::Reverse;

use uuid::Uuid;

use super::entry::{DeadLetter, Entry, EntryKey, State};
use super::handout::Claim;
use super::{Backlog, Held, Inbox};
use crate::config::Delivery;
use crate::ids::InstanceId;
use crate::shard::desk::delivery::{DeliveryId, Source};
use crate::shard::desk::session::Then;
use crate::shard::desk::stored::Stored;
use crate::store::dead_letters::Failure;

/// The result of a nack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nacked {
    /// Will be delivered again.
    Retried(Held),
    /// Goes to the dead letters.
    Dead(Held),
    /// Not a delivery that this session holds.
    Unknown,
}

/// Why a claim did not bring an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotClaimed {
    /// It is not pending any more, or pending for another consumer: another server handed it on.
    Settled,
    /// Its message is not in the stream any more.
    Vanished,
    /// Redis refused; it is due again at this time (monotonic milliseconds).
    Refused {
        /// When.
        retry_at_ms: u64,
    },
}

/// Bytes of an instance's replies from which on it is worth looking what is tracked of them.
const OWN_WORTH_A_LOOK: u64 = 1024 * 1024;

impl Inbox {
    /// Takes a delivery that `instance` holds off its hands.
    fn release(&mut self, instance: &InstanceId, id: DeliveryId, state: State) -> Option<(EntryKey, Held)> {
        let key = EntryKey::of(instance, id.source, id.entry);
        let entry = self.entries.get_mut(&key)?;
        if entry.state != (State::InFlight { token: id.token }) || entry.holder != *instance {
            return None;
        }
        entry.state = state;
        let held = Held { message_id: entry.message_id, attempt: entry.attempts, handed_ms: entry.handed_ms };
        let bytes = entry.bytes;
        if let Some(consumer) = self.consumer_mut(instance) {
            consumer.give_back(bytes);
        }
        Some((key, held))
    }

    /// The instance has handled a delivery; `None` when it holds no such delivery.
    pub fn ack(&mut self, instance: &InstanceId, id: DeliveryId) -> Option<Held> {
        let (key, held) = self.release(instance, id, State::Leaving)?;
        self.leaving.push(key);
        Some(held)
    }

    /// A commit has acknowledged a delivery, and taken it out of Redis; `None` when the instance holds no such
    /// delivery.
    pub fn committed(&mut self, instance: &InstanceId, id: DeliveryId) -> Option<Held> {
        let (key, held) = self.release(instance, id, State::Leaving)?;
        self.left(std::slice::from_ref(&key));
        Some(held)
    }

    /// An entry was read that may not be delivered before `due_ms`: it is with nobody until then, and that was no
    /// delivery.
    pub fn postponed(&mut self, instance: &InstanceId, id: DeliveryId, due_ms: u64) {
        let Some((key, _)) = self.release(instance, id, State::Waiting { due_ms, lost: false }) else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.attempts = entry.attempts.saturating_sub(1);
        }
        self.recounts.push(key.clone());
        self.waiting.push(Reverse((due_ms, key)));
    }

    /// The holder of an entry and the deliveries it had: what Redis' own count must say.
    pub fn count_of(&self, key: &EntryKey) -> Option<(&InstanceId, u32)> {
        let entry = self.entries.get(key).filter(|entry| entry.state != State::Leaving)?;
        Some((&entry.holder, entry.attempts))
    }

    /// The instance refuses a delivery.
    pub fn nack(
        &mut self,
        instance: &InstanceId,
        id: DeliveryId,
        (reason, then): (&str, Then),
        now_ms: u64,
        config: &Delivery,
    ) -> Nacked {
        let Some((key, held)) = self.release(instance, id, State::Leaving) else {
            return Nacked::Unknown;
        };
        let Some(entry) = self.entries.get_mut(&key) else {
            return Nacked::Unknown;
        };
        let wait_ms = match then {
            Then::Later(after_ms) => {
                entry.attempts = entry.attempts.saturating_sub(1);
                self.recounts.push(key.clone());
                Some(entry.put_off(after_ms, id.token))
            }
            Then::Retry if held.attempt < config.max_attempts => Some(config.backoff_ms(held.attempt)),
            Then::Retry | Then::Bury => None,
        };
        if !matches!(then, Then::Later(_)) {
            entry.failed(reason);
        }
        if let Some(wait_ms) = wait_ms {
            let due_ms = now_ms + wait_ms;
            entry.state = State::Waiting { due_ms, lost: false };
            self.waiting.push(Reverse((due_ms, key)));
            return Nacked::Retried(held);
        }
        let history: Vec<Failure> = std::mem::take(&mut entry.failures);
        let (holder, reason, attempts) = (instance.clone(), reason.to_owned(), held.attempt);
        self.dead.push(DeadLetter { key, holder, attempts, reason, history });
        Nacked::Dead(held)
    }

    /// So many more messages are in the shared inbox, the largest of them of `max_bytes`.
    pub fn added(&mut self, messages: usize, max_bytes: usize, bytes: u64) {
        self.len += messages as u64;
        self.size.added(messages as u64, bytes);
        self.typical_bytes = self.typical_bytes.max(max_bytes);
        if let Backlog::AtMost(n) = self.backlog {
            self.backlog = Backlog::AtMost(n + messages);
        }
    }

    /// Whose turn it is next.
    pub fn turn(&self) -> usize {
        self.turn
    }

    /// It is this instance's turn next; see [`Handout`](super::handout::Handout).
    pub fn set_turn(&mut self, turn: usize) {
        self.turn = turn;
    }

    /// A read was answered: `asked` entries were wanted, `got` came.
    pub fn read_answered(&mut self, instance: &InstanceId, source: Source, asked: usize, got: usize) {
        match source {
            Source::Own => {
                if got < asked
                    && let Some(consumer) = self.consumer_mut(instance)
                {
                    consumer.own_news = false;
                }
            }
            Source::Shared => {
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
        id: DeliveryId,
        (message_id, bytes): (Uuid, usize),
        now_ms: u64,
    ) {
        self.typical_bytes = bytes.max(self.typical_bytes - self.typical_bytes / 8);
        if let Some(consumer) = self.consumer_mut(instance) {
            consumer.take(bytes);
        }
        let _ = self.entries.insert(
            EntryKey::of(instance, id.source, id.entry),
            Entry {
                state: State::InFlight { token: id.token },
                attempts: 1,
                stored: 1,
                holder: instance.clone(),
                claimed_for: Vec::new(),
                bytes,
                handed_ms: now_ms,
                message_id,
                failures: Vec::new(),
                put_off: 0,
                seen: self.scans,
            },
        );
    }

    /// A claimed entry came back and goes to its new holder now, as delivery number `attempt`.
    pub fn delivered_again(
        &mut self,
        instance: &InstanceId,
        id: DeliveryId,
        (message_id, bytes): (Uuid, usize),
        attempt: u32,
        now_ms: u64,
    ) {
        let key = EntryKey::of(instance, id.source, id.entry);
        let seen = self.scans;
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.state = State::InFlight { token: id.token };
        (entry.attempts, entry.stored) = (attempt, attempt);
        entry.holder = instance.clone();
        entry.claimed_for.clear();
        entry.bytes = bytes;
        entry.handed_ms = now_ms;
        entry.message_id = message_id;
        entry.seen = seen;
        if let Some(consumer) = self.consumer_mut(instance) {
            consumer.take(bytes);
        }
        self.drop_stale_due();
    }

    /// The answer to a claim was lost: Redis may have counted a delivery that nobody got, and given it to another
    /// holder. The next claim, or the next scan, finds out.
    pub fn claim_unknown(&mut self, claim: &Claim) {
        for wanted in &claim.entries {
            let key = EntryKey::of(&claim.instance, claim.source, wanted.entry);
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.stored = wanted.delivery;
                entry.claim_in_doubt(&claim.instance);
            }
        }
    }

    /// Redis has this worker's counts of deliveries.
    pub fn recounted(&mut self) {
        for key in std::mem::take(&mut self.recounts) {
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.stored = entry.attempts;
            }
        }
    }

    /// A claim did not bring an entry from `holder`.
    pub fn not_claimed(&mut self, key: &EntryKey, holder: &InstanceId, why: NotClaimed) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.state == State::Due) else {
            return;
        };
        match why {
            // A scan has found another holder since the claim was planned.
            NotClaimed::Settled if entry.holder != *holder => {}
            NotClaimed::Settled => match entry.claimed_for.pop() {
                // An earlier claim whose answer was lost may have given it to that one.
                Some(receiver) => entry.holder = receiver,
                None => drop(self.entries.remove(key)),
            },
            NotClaimed::Vanished => self.left(std::slice::from_ref(key)),
            NotClaimed::Refused { retry_at_ms } => {
                entry.state = State::Waiting { due_ms: retry_at_ms, lost: true };
                self.waiting.push(Reverse((retry_at_ms, key.clone())));
            }
        }
        self.drop_stale_due();
    }

    /// Takes items off the heads of the due queues that are not due any more.
    pub(super) fn drop_stale_due(&mut self) {
        let entries = &self.entries;
        let is_due = |key: &EntryKey| entries.get(key).is_some_and(|entry| entry.state == State::Due);
        while let Some(entry) = self.due_shared.front() {
            if is_due(&EntryKey { owner: None, entry: *entry }) {
                break;
            }
            let _ = self.due_shared.pop_front();
        }
        self.due_own.retain(|owner, queue| {
            while let Some(entry) = queue.front() {
                if is_due(&EntryKey { owner: Some(owner.clone()), entry: *entry }) {
                    break;
                }
                let _ = queue.pop_front();
            }
            !queue.is_empty()
        });
    }

    /// Entries that were acknowledged, or are stored as dead letters, are out of Redis.
    pub fn left(&mut self, keys: &[EntryKey]) {
        for key in keys {
            // What another session or server was given is not known here.
            let bytes = self.entries.remove(key).map(|entry| entry.bytes).filter(|bytes| *bytes > 0);
            let bytes = bytes.map(Stored::of_entry);
            match &key.owner {
                Some(instance) => self.size.reply_left(instance, bytes.unwrap_or(0)),
                None => {
                    self.size.left(bytes, self.len);
                    self.len = self.len.saturating_sub(1);
                }
            }
        }
    }

    /// Redis has said how many bytes the shared stream takes, if it has.
    pub fn weighed(&mut self, bytes: Option<u64>) {
        match bytes {
            Some(_) if self.len == 0 => self.size.weighed(0),
            Some(bytes) => self.size.weighed(bytes),
            None => {}
        }
    }

    /// Nothing in an instance's own stream is unread: it holds what is tracked of it.
    pub fn own_is_read(&mut self, instance: &InstanceId) {
        if self.size.own(instance) < OWN_WORTH_A_LOOK {
            return;
        }
        let own = self.entries.iter().filter(|(key, _)| key.owner.as_ref() == Some(instance));
        let bytes = own.map(|(_, entry)| Stored::of_entry(entry.bytes)).sum();
        self.size.own_is(instance, bytes);
    }

    /// An operator has taken messages out: those that were missed are explained, the others are gone.
    pub fn taken(&mut self, count: u64) {
        let explained = count.min(self.missing);
        self.missing -= explained;
        for _ in 0..(count - explained).min(self.len) {
            self.not_added();
        }
    }

    /// A message that was counted as added is not there.
    pub fn not_added(&mut self) {
        self.size.left(None, self.len);
        self.len = self.len.saturating_sub(1);
    }

    /// Redis' own number of messages in the shared inbox.
    pub fn measured(&mut self, len: u64) {
        self.size.measured(self.len, len);
        self.len = len;
    }

    /// A dead letter is stored: its entry leaves the inbox like an acknowledged one.
    pub fn buried(&mut self, key: &EntryKey) {
        self.dead.retain(|letter| letter.key != *key);
        self.leaving.push(key.clone());
    }

    /// A dead letter is none after all: it is for another delivery.
    pub fn spared(&mut self, key: &EntryKey, now_ms: u64) {
        self.dead.retain(|letter| letter.key != *key);
        if let Some(entry) = self.entries.get_mut(key) {
            entry.state = State::Waiting { due_ms: now_ms, lost: true };
            self.waiting.push(Reverse((now_ms, key.clone())));
        }
    }

    /// Another server has undertaken to bury an entry.
    pub fn buried_elsewhere(&mut self, key: &EntryKey) {
        self.dead.retain(|letter| letter.key != *key);
        drop(self.entries.remove(key));
    }
}
