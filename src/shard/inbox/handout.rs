//! A plan of what may be handed on now, and to whom: claims of what is due, reads of what nobody has. Planning changes
//! nothing: Redis' answers do, in `settle`.

use super::entry::{EntryKey, State};
use super::{Backlog, Inbox};
use crate::config::Delivery;
use crate::ids::InstanceId;
use crate::shard::desk::delivery::Source;
use crate::store::claims::Wanted;

/// Entries asked for in one read for each of several sessions, while it is not known how many there are.
const UNKNOWN_SHARE: usize = 32;
/// Entries asked for in one read.
const READ_BATCH: usize = 256;

/// A read to make: new entries for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// For whom.
    pub instance: InstanceId,
    /// From which inbox.
    pub source: Source,
    /// Entries at most.
    pub count: usize,
}

/// Entries to take from one holder and to deliver again to one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// For whom.
    pub instance: InstanceId,
    /// From which inbox.
    pub source: Source,
    /// The instance that has them in Redis' pending entries list.
    pub holder: InstanceId,
    /// The entries.
    pub entries: Vec<Wanted>,
}

/// What the running transaction adds to an inbox: it is read back in the same pipeline.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// Messages to the shared inbox.
    pub messages: usize,
    /// The largest of them, in bytes.
    pub max_bytes: usize,
    /// Instances whose own inboxes get replies, and what each takes.
    pub replies: &'a [(InstanceId, u64)],
}

/// What may be handed on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Handout {
    /// What is taken from its holders.
    pub claims: Vec<Claim>,
    /// What is read.
    pub reads: Vec<Read>,
    /// Whose turn it is afterwards.
    pub turn: usize,
}

/// Deliveries planned for each consumer; empty until there is one.
#[derive(Default)]
struct Planned(Vec<usize>);

impl Planned {
    fn of(&self, at: usize) -> usize {
        self.0.get(at).copied().unwrap_or(0)
    }

    fn add(&mut self, at: usize) {
        if self.0.len() <= at {
            self.0.resize(at + 1, 0);
        }
        if let Some(planned) = self.0.get_mut(at) {
            *planned += 1;
        }
    }
}

impl Inbox {
    /// What may be handed on now. `reads`: whether anything new may be read.
    pub fn handout(&self, config: &Delivery, expected: Expected<'_>, reads: bool) -> Handout {
        let mut handout = Handout { turn: self.turn, ..Handout::default() };
        let mut planned = Planned::default();
        if !self.due_own.is_empty() || !self.due_shared.is_empty() {
            self.plan_claims(config, &mut planned, &mut handout);
        }
        if reads {
            self.plan_reads(config, expected, &planned, &mut handout);
        }
        handout
    }

    fn plan_claims(&self, config: &Delivery, planned: &mut Planned, handout: &mut Handout) {
        let mut budget = config.reclaim_batch_size;
        for (at, consumer) in self.consumers.iter().enumerate() {
            for entry in self.due_own.get(&consumer.instance).into_iter().flatten() {
                if budget == 0 || consumer.credit(config, 1, planned.of(at)) == 0 {
                    break;
                }
                let key = EntryKey::of(&consumer.instance, Source::Own, *entry);
                if self.plan_claim(&key, &consumer.instance, &mut handout.claims) {
                    planned.add(at);
                    budget -= 1;
                }
            }
        }
        for entry in &self.due_shared {
            if budget == 0 {
                return;
            }
            let count = self.consumers.len();
            let turns = (0..count).map(|step| (handout.turn + step) % count);
            let with_credit = |at: &usize| {
                self.consumers.get(*at).is_some_and(|consumer| {
                    !consumer.is_retired && consumer.credit(config, 1, planned.of(*at)) > 0
                })
            };
            let Some(at) = turns.into_iter().find(with_credit) else {
                return;
            };
            let Some(consumer) = self.consumers.get(at) else {
                return;
            };
            let key = EntryKey { owner: None, entry: *entry };
            if self.plan_claim(&key, &consumer.instance, &mut handout.claims) {
                planned.add(at);
                handout.turn = at + 1;
                budget -= 1;
            }
        }
    }

    /// Adds a due entry to the claims for `receiver`; false for one that is not due any more.
    fn plan_claim(&self, key: &EntryKey, receiver: &InstanceId, claims: &mut Vec<Claim>) -> bool {
        let Some(entry) = self.entries.get(key).filter(|entry| entry.state == State::Due) else {
            return false;
        };
        let source = key.source();
        let item = Wanted { entry: key.entry, delivery: entry.attempts + 1, stored: entry.stored };
        let alike = |claim: &&mut Claim| {
            claim.instance == *receiver && claim.source == source && claim.holder == entry.holder
        };
        match claims.iter_mut().find(alike) {
            Some(claim) if claim.entries.contains(&item) => return false,
            Some(claim) => claim.entries.push(item),
            None => claims.push(Claim {
                instance: receiver.clone(),
                source,
                holder: entry.holder.clone(),
                entries: vec![item],
            }),
        }
        true
    }

    /// Reads that would bring new entries to sessions with credit, shared fairly.
    fn plan_reads(
        &self,
        config: &Delivery,
        expected: Expected<'_>,
        planned: &Planned,
        handout: &mut Handout,
    ) {
        let count = self.consumers.len();
        let typical_bytes = self.typical_bytes.max(expected.max_bytes);
        let mut left = match self.backlog {
            Backlog::AtMost(n) => n + expected.messages,
            // Whatever there is, several share it.
            Backlog::Unknown if count > 1 => UNKNOWN_SHARE * count,
            Backlog::Unknown => usize::MAX,
        };
        let start = handout.turn;
        let mut served = 0;
        for step in 0..count {
            let at = (start + step) % count;
            let Some(consumer) = self.consumers.get(at) else {
                break;
            };
            let mut credit = consumer.credit(config, typical_bytes, planned.of(at));
            let own_news =
                consumer.own_news || expected.replies.iter().any(|(to, _)| *to == consumer.instance);
            if own_news && credit > 0 {
                let own = credit.min(READ_BATCH);
                credit -= own;
                let instance = consumer.instance.clone();
                handout.reads.push(Read { instance, source: Source::Own, count: own });
            }
            let credit = if consumer.is_retired { 0 } else { credit };
            let share = left.div_ceil(count - step).min(READ_BATCH).min(credit);
            if share > 0 {
                left -= share;
                served = step + 1;
                let instance = consumer.instance.clone();
                handout.reads.push(Read { instance, source: Source::Shared, count: share });
            }
        }
        if count > 0 {
            handout.turn = (start + served) % count;
        }
    }
}
