//! What Redis says of an inbox after a connection, a session or a server was lost.

use super::{Backlog, Entry, EntryKey, Inbox, State};
use std::cmp::Reverse;

use uuid::Uuid;

use crate::config::Delivery;
use crate::ids::InstanceId;
use crate::store::answers::PendingEntry;

impl Inbox {
    /// Entries that are tracked.
    pub fn tracked(&self) -> usize {
        self.entries.len()
    }

    /// The instance that holds a line of Redis' pending entries list, if its consumer is one of ours.
    pub fn holder_of(&self, line: &PendingEntry) -> Option<InstanceId> {
        let name = line.consumer.strip_prefix(self.agent.as_str())?.strip_prefix('-')?;
        InstanceId::parse(name)
    }

    /// Takes up a line of Redis' pending entries list that is not tracked yet: an entry that a lost
    /// session, or an earlier server, left behind.
    pub fn adopt(&mut self, owner: Option<&InstanceId>, line: &PendingEntry, now_ms: u64, config: &Delivery) {
        let key = EntryKey { owner: owner.cloned(), entry: line.id };
        if self.entries.contains_key(&key) {
            return;
        }
        let Some(holder) = self.holder_of(line) else {
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
            (now_ms + config.reclaim_idle_ms.saturating_sub(line.idle_ms), line.deliveries)
        };
        let state = State::Waiting { due_ms, lost: true };
        let delivered_ms = now_ms.saturating_sub(line.idle_ms);
        let (message_id, failures) = (Uuid::nil(), Vec::new());
        let _ = self.entries.insert(
            key.clone(),
            Entry { state, attempts, holder, bytes: 0, delivered_ms, message_id, failures },
        );
        self.waiting.push(Reverse((due_ms, key)));
    }

    /// Redis lost the group of one stream (`owner`: an instance's own): nothing of it that was tracked can
    /// be acknowledged or claimed, and all of it will be read again.
    pub fn forget(&mut self, owner: Option<&InstanceId>) {
        let lost: Vec<EntryKey> =
            self.entries.keys().filter(|key| key.owner.as_ref() == owner).cloned().collect();
        for key in lost {
            let Some(entry) = self.entries.remove(&key) else {
                continue;
            };
            if matches!(entry.state, State::InFlight | State::Claiming)
                && let Some(slot) = self.slot_mut(&entry.holder)
            {
                slot.in_flight = slot.in_flight.saturating_sub(1);
                slot.bytes = slot.bytes.saturating_sub(entry.bytes);
            }
        }
        self.acked.retain(|key| key.owner.as_ref() != owner);
        self.dead.retain(|letter| letter.key.owner.as_ref() != owner);
        match owner {
            None => self.backlog = Backlog::Unknown,
            Some(instance) => self.own_news(instance),
        }
    }

    /// After a reconnect answers may have been lost, and another server may have put something here:
    /// everything may hold news.
    pub fn suspect(&mut self) {
        self.backlog = Backlog::Unknown;
        for slot in &mut self.slots {
            slot.own_news = true;
        }
    }

    /// Nothing of a gone instance is left in Redis.
    pub fn cleared(&mut self, instance: &InstanceId) {
        drop(self.due_own.remove(instance));
    }

    /// Replies for this instance may be unread.
    pub fn own_news(&mut self, instance: &InstanceId) {
        if let Some(slot) = self.slot_mut(instance) {
            slot.own_news = true;
        }
    }
}
