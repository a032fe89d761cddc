//! What may be handed on now, and to whom: claims of what is due, reads of what nobody has.

use super::{
    Backlog, CLOCK_SLACK_MS, Claim, DeadLetter, EntryKey, Inbox, MAX_ATTEMPTS_REASON, READ_BATCH, Read,
    State, UNKNOWN_SHARE,
};
use std::cmp::Reverse;

use super::super::session::Place;
use crate::config::Delivery;
use crate::ids::InstanceId;

impl Inbox {
    /// When the next waiting entry is due.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse((due_ms, _))| *due_ms)
    }

    /// Takes the entries that are due and can go to a connected instance with credit; what had
    /// `max_attempts` deliveries goes to the dead letters instead.
    /// `has_peers`: another server may have claimed them meanwhile; only what it has not is taken.
    pub fn due(&mut self, now_ms: u64, config: &Delivery, has_peers: bool) -> Vec<Claim> {
        self.ripen(now_ms);
        let mut claims = Vec::new();
        let mut budget = config.reclaim_batch_size;
        let owners: Vec<InstanceId> = self.slots.iter().map(|slot| slot.session.instance.clone()).collect();
        for owner in owners {
            let Some(mut queue) = self.due_own.remove(&owner) else {
                continue;
            };
            while budget > 0 && self.slot(&owner).is_some_and(|slot| slot.credit(config, 1) > 0) {
                let Some(entry) = queue.pop_front() else {
                    break;
                };
                let key = EntryKey { owner: Some(owner.clone()), entry };
                budget -= usize::from(self.claim(&key, &owner, config, (now_ms, has_peers), &mut claims));
            }
            if !queue.is_empty() {
                let _ = self.due_own.insert(owner, queue);
            }
        }
        while budget > 0 && !self.due_shared.is_empty() {
            let Some(receiver) = self.receiver(config) else {
                break;
            };
            let Some(entry) = self.due_shared.pop_front() else {
                break;
            };
            let key = EntryKey { owner: None, entry };
            budget -= usize::from(self.claim(&key, &receiver, config, (now_ms, has_peers), &mut claims));
        }
        claims
    }

    /// Moves what has waited long enough from the clock to the queues.
    pub fn ripen(&mut self, now_ms: u64) {
        while self.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            let Some(Reverse((due_ms, key))) = self.waiting.pop() else {
                return;
            };
            if let Some(entry) = self.entries.get_mut(&key)
                && matches!(entry.state, State::Waiting { due_ms: due, .. } if due == due_ms)
            {
                entry.state = State::Due;
                self.push_due(key);
            }
        }
    }

    /// Assigns a due entry to `receiver`, or to the dead letters; false when it is not due any more.
    fn claim(
        &mut self,
        key: &EntryKey,
        receiver: &InstanceId,
        config: &Delivery,
        (now_ms, has_peers): (u64, bool),
        claims: &mut Vec<Claim>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.state == State::Due) else {
            return false;
        };
        if entry.attempts >= config.max_attempts {
            entry.state = State::Leaving;
            self.dead.push(DeadLetter {
                key: key.clone(),
                holder: entry.holder.clone(),
                attempts: entry.attempts,
                reason: MAX_ATTEMPTS_REASON.to_owned(),
                history: std::mem::take(&mut entry.failures),
            });
            return true;
        }
        // Its holder comes back to it here: no other server touches what is its.
        let returns = entry.holder == *receiver;
        let idle_ms = now_ms.saturating_sub(entry.delivered_ms + CLOCK_SLACK_MS);
        let min_idle_ms = if has_peers && !returns { idle_ms } else { 0 };
        entry.state = State::Claiming;
        entry.attempts += 1;
        entry.holder = receiver.clone();
        if let Some(slot) = self.slot_mut(receiver) {
            slot.in_flight += 1;
        }
        let place = key.delivery_id().place;
        let alike = |claim: &&mut Claim| {
            claim.instance == *receiver && claim.place == place && claim.min_idle_ms == min_idle_ms
        };
        match claims.iter_mut().find(alike) {
            Some(claim) => claim.entries.push(key.entry),
            None => {
                let (instance, entries) = (receiver.clone(), vec![key.entry]);
                claims.push(Claim { instance, place, entries, min_idle_ms });
            }
        }
        true
    }

    /// Whose turn it is among the instances with credit.
    fn receiver(&mut self, config: &Delivery) -> Option<InstanceId> {
        let count = self.slots.len();
        for step in 0..count {
            let at = (self.turn + step) % count;
            if let Some(slot) = self.slots.get(at).filter(|slot| slot.credit(config, 1) > 0) {
                let instance = slot.session.instance.clone();
                self.turn = at + 1;
                return Some(instance);
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
            // Whatever there is, several share it.
            Backlog::Unknown if count > 1 => UNKNOWN_SHARE * count,
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
                reads.push(Read { instance: slot.session.instance.clone(), place: Place::Own, count: own });
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

    /// Whether anything could be delivered now: unread or due entries, and a session with credit.
    pub fn has_work(&self, now_ms: u64, config: &Delivery) -> bool {
        let ripe = self.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms);
        let for_anyone = ripe || self.backlog != Backlog::AtMost(0) || !self.due_shared.is_empty();
        self.slots.iter().any(|slot| {
            let own = slot.own_news || self.due_own.contains_key(&slot.session.instance);
            (for_anyone || own) && slot.credit(config, self.typical_bytes) > 0
        })
    }

    /// Tells the sessions whether something waits here that their acknowledgements would make room for.
    pub fn tell_hunger(&self) {
        let for_anyone = self.backlog != Backlog::AtMost(0) || !self.due_shared.is_empty();
        for slot in &self.slots {
            let own = slot.own_news || self.due_own.contains_key(&slot.session.instance);
            slot.session.set_hungry(for_anyone || own);
        }
    }
}
