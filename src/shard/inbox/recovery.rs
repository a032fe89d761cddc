//! Redis' list of pending entries, compared after a connection, a session or a server was lost, and now and then.

use std::cmp::Reverse;

use uuid::Uuid;

use super::consumer::{Consumer, ReadsLost};
use super::entry::{Entry, EntryKey, State};
use super::{Backlog, Inbox};
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

    /// Begins a scan of Redis' list; its number.
    pub fn begin_scan(&mut self) -> u32 {
        self.scans = self.scans.wrapping_add(1);
        self.scans
    }

    /// Compares a line of Redis' list, whose holder has no session on another server: an entry that nobody tracks was
    /// left behind by a lost session, or by an earlier server, and is adopted.
    pub fn adopt(
        &mut self,
        owner: Option<&InstanceId>,
        line: &PendingEntry,
        scan: u32,
        now_ms: u64,
        config: &Delivery,
    ) {
        let Some(holder) = self.holder_of(line) else {
            log::warn!(
                code = "foreign_consumer", stream = self.stream.as_str();
                "{}: pending entry {} of foreign consumer {:?} left alone",
                self.stream,
                line.id,
                line.consumer
            );
            return;
        };
        let key = EntryKey { owner: owner.cloned(), entry: line.id };
        if self.is_known(&key, &holder, line, scan) {
            return;
        }
        let reads_lost = |consumer: &Consumer| match owner {
            Some(_) => consumer.reads_lost.own,
            None => consumer.reads_lost.shared,
        };
        let (due_ms, attempts) = match self.consumer(&holder) {
            // The answer of the read was lost with a connection: not delivered yet.
            Some(consumer) if line.deliveries <= 1 && reads_lost(consumer) => (now_ms, 0),
            // It had it in an earlier session.
            Some(_) => (now_ms, line.deliveries),
            None => (self.reclaim_at_ms(&holder, line, now_ms, config), line.deliveries),
        };
        let entry = Entry {
            state: State::Waiting { due_ms, lost: true },
            attempts,
            stored: line.deliveries,
            holder,
            claimed_for: Vec::new(),
            handed_ms: 0,
            bytes: 0,
            message_id: Uuid::nil(),
            failures: Vec::new(),
            put_off: 0,
            seen: scan,
        };
        let _ = self.entries.insert(key.clone(), entry);
        self.waiting.push(Reverse((due_ms, key)));
    }

    /// Whether the entry is tracked with this holder; counts the deliveries that it had on another server. One that
    /// another server has handed on since is forgotten.
    fn is_known(&mut self, key: &EntryKey, holder: &InstanceId, line: &PendingEntry, scan: u32) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        entry.seen = scan;
        if entry.claimed_for.contains(holder) {
            // The claim was carried out.
            entry.holder = holder.clone();
            entry.claimed_for.clear();
        }
        if entry.holder != *holder && entry.state != State::Leaving {
            self.drop_entry(key);
            return false;
        }
        if !entry.is_in_flight() {
            entry.attempts += line.deliveries.saturating_sub(entry.stored);
            entry.stored = line.deliveries;
        }
        true
    }

    /// When an entry of an absent instance may go to another one: `reclaim_idle_ms` after the instance left, where
    /// that was seen or told; else after it got the entry, as Redis says. Never later than that time from now.
    fn reclaim_at_ms(&self, holder: &InstanceId, line: &PendingEntry, now_ms: u64, config: &Delivery) -> u64 {
        match self.gone.get(holder).and_then(|gone| gone.since_ms) {
            Some(since_ms) => since_ms.min(now_ms) + config.reclaim_idle_ms,
            None => now_ms + config.reclaim_idle_ms.saturating_sub(line.idle_ms),
        }
    }

    /// Ends a scan of one stream (`owner`: an instance's own): what it did not show is not pending any more. How many
    /// of those entries a session here held.
    pub fn end_scan(&mut self, owner: Option<&InstanceId>, scan: u32) -> usize {
        let settled: Vec<EntryKey> = self
            .entries
            .iter()
            .filter(|(key, entry)| {
                key.owner.as_ref() == owner
                    && entry.state != State::Leaving
                    && entry.seen.wrapping_sub(scan) > u32::MAX / 2
            })
            .map(|(key, _)| key.clone())
            .collect();
        let held =
            settled.iter().filter(|key| self.entries.get(*key).is_some_and(Entry::is_in_flight)).count();
        for key in settled {
            self.drop_entry(&key);
        }
        self.drop_stale_due();
        match owner {
            None => {
                self.verified = true;
                self.consumers.iter_mut().for_each(|consumer| consumer.reads_lost.shared = false);
            }
            Some(instance) => {
                if let Some(consumer) = self.consumer_mut(instance) {
                    consumer.reads_lost.own = false;
                }
            }
        }
        held
    }

    /// Forgets an entry, and gives its holder the credit back.
    fn drop_entry(&mut self, key: &EntryKey) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        if entry.is_in_flight()
            && let Some(consumer) = self.consumer_mut(&entry.holder)
        {
            consumer.give_back(entry.bytes);
        }
    }

    /// Redis lost the group of one stream (`owner`: an instance's own): nothing of it that was tracked can
    /// be acknowledged or claimed, and all of it will be read again.
    pub fn forget(&mut self, owner: Option<&InstanceId>) {
        let lost: Vec<EntryKey> =
            self.entries.keys().filter(|key| key.owner.as_ref() == owner).cloned().collect();
        for key in lost {
            self.drop_entry(&key);
        }
        self.leaving.retain(|key| key.owner.as_ref() != owner);
        self.recounts.retain(|key| key.owner.as_ref() != owner);
        self.dead.retain(|letter| letter.key.owner.as_ref() != owner);
        self.drop_stale_due();
        match owner {
            None => self.backlog = Backlog::Unknown,
            Some(instance) => {
                self.own_news(instance);
                self.size.own_is(instance, 0);
            }
        }
    }

    /// Forgets entries that wait for a session while nobody is connected here: other servers may hand them on, and
    /// the next session's scan finds those that are left. Acknowledged and dead entries stay.
    pub fn forget_waiting(&mut self) {
        if !self.consumers.is_empty() {
            return;
        }
        self.entries.retain(|_, entry| entry.state == State::Leaving);
        self.waiting.clear();
        self.recounts.clear();
        self.drop_stale_due();
    }

    /// Marks everything stale: there may be more to read than is known.
    pub fn mark_stale(&mut self) {
        self.backlog = Backlog::Unknown;
        for consumer in &mut self.consumers {
            consumer.own_news = true;
        }
    }

    /// The connection to Redis was lost: answers may have been lost with it.
    pub fn mark_unverified(&mut self) {
        self.verified = false;
        self.is_exact = false;
        for consumer in &mut self.consumers {
            consumer.reads_lost = ReadsLost { shared: true, own: true };
        }
    }

    /// Nothing of a gone instance is left in Redis.
    pub fn cleared(&mut self, instance: &InstanceId) {
        self.entries.retain(|key, _| key.owner.as_ref() != Some(instance));
        drop(self.due_own.remove(instance));
        self.size.own_is(instance, 0);
    }

    /// Replies for this instance may be unread.
    pub fn own_news(&mut self, instance: &InstanceId) {
        if let Some(consumer) = self.consumer_mut(instance) {
            consumer.own_news = true;
        }
    }
}
