//! What must go on record with the next transaction: events, who got and acknowledged which message, and once a second
//! how many refusals were not recorded one by one.

use std::collections::BTreeMap;

use super::custody::Custody;
use crate::audit::Lane;
use crate::clock::Now;
use crate::shard::txn::event::Event;
use crate::shard::txn::transaction::RefusalKind;

/// How long refusals are counted before the count goes on record, in milliseconds.
const COUNTED_FOR_MS: u64 = 1000;
/// Kinds of refusals that are counted at once; with more their counts go on record earlier.
const MAX_KINDS: usize = 4096;

/// What is not on record yet.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    events: Vec<Event>,
    /// Deliveries and acknowledgements.
    pub custody: Custody,
    /// Refusals that are not recorded one by one.
    refusals: BTreeMap<RefusalKind, u32>,
    /// When their counts go on record (monotonic milliseconds).
    refusals_due_ms: Option<u64>,
}

impl Ledger {
    /// Something happened.
    pub(super) fn push(&mut self, event: Event) {
        self.events.push(event);
    }

    /// The events that wait, oldest first.
    pub(super) fn events(&self) -> &[Event] {
        &self.events
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.custody.is_empty() && self.refusals.is_empty()
    }

    /// Refusals that are not recorded one by one.
    pub(super) fn count_refusals(&mut self, many: Vec<RefusalKind>, now: Now) {
        for kind in many {
            let count = self.refusals.entry(kind).or_default();
            *count = count.saturating_add(1);
            let due_ms =
                if self.refusals.len() >= MAX_KINDS { now.mono_ms } else { now.mono_ms + COUNTED_FOR_MS };
            self.refusals_due_ms = Some(self.refusals_due_ms.map_or(due_ms, |set_ms| set_ms.min(due_ms)));
        }
    }

    /// Makes events of the counts that are due.
    pub(super) fn close_counts(&mut self, now: Now) {
        if self.refusals_due_ms.is_some_and(|due_ms| due_ms <= now.mono_ms) {
            self.close_all_counts();
        }
    }

    /// Makes events of all counts.
    pub(super) fn close_all_counts(&mut self) {
        self.refusals_due_ms = None;
        let counted = std::mem::take(&mut self.refusals).into_iter();
        self.events.extend(counted.map(|(kind, count)| Event::Refusals { kind, count }));
    }

    /// When something that waits must be on record (monotonic milliseconds).
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.custody.due_ms().into_iter().chain(self.refusals_due_ms).min()
    }

    /// Adds the records of deliveries and acknowledgements to the lane's waiting block.
    pub(super) fn record_custody(&self, lane: &mut Lane, now: Now) {
        self.custody.record(lane, now);
    }

    /// The first `events` events, deliveries and acknowledgements are on record.
    pub(super) fn recorded(&mut self, events: usize) {
        drop(self.events.drain(..events.min(self.events.len())));
        self.custody.clear();
    }
}
