//! What must go on record with the next transaction: events, and who got and acknowledged which message.

use super::custody::Custody;
use crate::audit::Lane;
use crate::clock::Now;
use crate::shard::txn::event::Event;

/// What is not on record yet.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    events: Vec<Event>,
    /// Deliveries and acknowledgements.
    pub custody: Custody,
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
        self.events.is_empty() && self.custody.is_empty()
    }

    /// Adds the records of deliveries and acknowledgements to the lane's waiting block.
    pub(super) fn record_custody(&self, lane: &mut Lane, now: Now) {
        self.custody.record(lane, now);
    }

    /// The first `events` events have been carried out, with their records if they have any.
    pub(super) fn carried_out(&mut self, events: usize) {
        drop(self.events.drain(..events.min(self.events.len())));
    }
}
