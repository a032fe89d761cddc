//! Where the lanes of a running server stand: workers put their confirmed heads up, once a round, and the
//! checkpointer takes them down. Also whether anything may be admitted: what could not be sealed must
//! not be accepted.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::checkpoint::LaneHead;
use super::lane::{Head, LaneId};
use crate::refusal::Refusal;

/// The heads of all lanes, and admission. Shared by all threads of a server.
#[derive(Debug, Default)]
pub struct Board {
    slots: Mutex<Vec<Arc<Slot>>>,
    unsealed: AtomicBool,
    full: AtomicBool,
    /// Time of the newest checkpoint, Unix milliseconds; 0: none yet.
    sealed_ms: AtomicU64,
}

/// One worker's place on the board. Its lock is taken by the worker once a round and by the checkpointer
/// once per checkpoint.
#[derive(Debug, Default)]
pub struct Slot(Mutex<Lanes>);

#[derive(Debug, Default)]
struct Lanes {
    open: Option<LaneHead>,
    closed: Vec<LaneHead>,
}

/// What stands on the board at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heads {
    /// The lanes that workers write.
    pub open: Vec<LaneHead>,
    /// Those that they gave up since the last look.
    pub closed: Vec<LaneHead>,
}

impl Slot {
    /// Puts up where the worker's lane stands. Hot path: nothing is allocated but for a new lane.
    pub fn publish(&self, lane: &LaneId, head: Head) {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut lanes.open {
            Some(open) if open.lane == *lane => open.head = head,
            open => {
                let before = open.replace(LaneHead { lane: lane.clone(), head });
                // One per connection that was lost, until the next checkpoint takes it down.
                lanes.closed.extend(before);
            }
        }
    }
}

impl Board {
    /// The place of worker `index`.
    pub fn slot(&self, index: usize) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        while slots.len() <= index {
            slots.push(Arc::default());
        }
        slots.get(index).cloned().unwrap_or_default()
    }

    /// Takes down the closed lanes, and copies the heads of the open ones.
    pub fn take(&self) -> Heads {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut heads = Heads::default();
        for slot in slots {
            let mut lanes = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
            heads.open.extend(lanes.open.clone());
            heads.closed.append(&mut lanes.closed);
        }
        heads
    }

    /// The lanes that workers write.
    pub fn open_lanes(&self) -> BTreeSet<LaneId> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let open = |slot: &Arc<Slot>| {
            let lanes = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.open.as_ref().map(|open| open.lane.clone())
        };
        slots.iter().filter_map(open).collect()
    }

    /// Everything up to the checkpoint of that time is sealed.
    pub fn note_sealed(&self, time_ms: u64) {
        self.sealed_ms.store(time_ms, Ordering::Relaxed);
    }

    /// Time of the newest checkpoint, Unix milliseconds; 0: none yet.
    pub fn sealed_ms(&self) -> u64 {
        self.sealed_ms.load(Ordering::Relaxed)
    }

    /// Whether checkpoints could not be written for too long; `true` shuts admission.
    pub fn set_unsealed(&self, unsealed: bool) {
        self.unsealed.store(unsealed, Ordering::Relaxed);
    }

    /// Whether the trail holds as many records as it may; `true` shuts admission.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Why nothing may be admitted, if so.
    pub fn refusal(&self) -> Option<Refusal> {
        if self.unsealed.load(Ordering::Relaxed) {
            return Some(Refusal::AUDIT_UNAVAILABLE);
        }
        self.full.load(Ordering::Relaxed).then_some(Refusal::AUDIT_FULL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_lane_that_gave_way_to_another_is_taken_down_once() {
        let board = Board::default();
        let slot = board.slot(1);
        let boot = Uuid::now_v7();
        let (first, second) = (LaneId::new(boot, 1, 1), LaneId::new(boot, 1, 2));
        slot.publish(&first, Head { seq: 1, hash: [1; 32] });
        slot.publish(&first, Head { seq: 5, hash: [5; 32] });
        slot.publish(&second, Head { seq: 1, hash: [2; 32] });
        let heads = board.take();
        assert_eq!(heads.open, [LaneHead { lane: second, head: Head { seq: 1, hash: [2; 32] } }]);
        assert_eq!(heads.closed, [LaneHead { lane: first, head: Head { seq: 5, hash: [5; 32] } }]);
        assert_eq!(board.take().closed, []);
        assert_eq!(board.take().open.len(), 1);
    }

    #[test]
    fn admission_says_why() {
        let board = Board::default();
        assert_eq!(board.refusal(), None);
        board.set_full(true);
        assert_eq!(board.refusal(), Some(Refusal::AUDIT_FULL));
        board.set_unsealed(true);
        assert_eq!(board.refusal(), Some(Refusal::AUDIT_UNAVAILABLE));
        board.set_unsealed(false);
        board.set_full(false);
        assert_eq!(board.refusal(), None);
    }
}
