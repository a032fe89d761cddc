//! Where committed blocks are handed to the copy in a file. A worker never waits here: what there is no room
//! for is left out, and the copy reads it back from the store.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender};

use super::lane::LaneId;

/// Blocks that may wait.
const MAX_BLOCKS: usize = 4096;
/// Bytes in them.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// A block that is committed.
#[derive(Debug)]
pub struct CommittedBlock {
    /// Its lane.
    pub lane: LaneId,
    /// Sequence of its first record.
    pub first_seq: u64,
    /// The records, each behind a `u32` length.
    pub bytes: Vec<u8>,
}

/// The workers' side.
#[derive(Debug)]
pub struct Tap {
    blocks: Sender<CommittedBlock>,
    waiting_bytes: AtomicUsize,
    /// Lanes of which a block was left out.
    missed: Mutex<BTreeSet<LaneId>>,
}

impl Tap {
    /// A tap and what runs out of it.
    pub fn new() -> (Self, Receiver<CommittedBlock>) {
        let (blocks, feed) = crossbeam_channel::bounded(MAX_BLOCKS);
        (Self { blocks, waiting_bytes: AtomicUsize::new(0), missed: Mutex::default() }, feed)
    }

    fn missed(&self) -> MutexGuard<'_, BTreeSet<LaneId>> {
        self.missed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a block over, or notes that it was not. Hot path: one copy of its bytes.
    pub fn offer(&self, lane: &LaneId, first_seq: u64, bytes: &[u8]) {
        let before = self.waiting_bytes.fetch_add(bytes.len(), Ordering::Relaxed);
        let block = || CommittedBlock { lane: lane.clone(), first_seq, bytes: bytes.to_vec() };
        if before + bytes.len() > MAX_BYTES || self.blocks.try_send(block()).is_err() {
            let _ = self.waiting_bytes.fetch_sub(bytes.len(), Ordering::Relaxed);
            let _ = self.missed().insert(lane.clone());
        }
    }

    /// Accounts for a block that was taken.
    pub fn taken(&self, block: &CommittedBlock) {
        let _ = self.waiting_bytes.fetch_sub(block.bytes.len(), Ordering::Relaxed);
    }

    /// The lanes of which a block was left out since this was asked last.
    pub fn take_missed(&self) -> BTreeSet<LaneId> {
        std::mem::take(&mut *self.missed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_noted_and_nobody_waits() {
        let (tap, feed) = Tap::new();
        let lane = LaneId::from_stored("l");
        for seq in 0..MAX_BLOCKS as u64 + 1 {
            tap.offer(&lane, seq, b"record");
        }
        assert_eq!(tap.take_missed(), BTreeSet::from([lane.clone()]));
        assert!(tap.take_missed().is_empty());
        assert_eq!(feed.len(), MAX_BLOCKS);
        for block in feed.try_iter() {
            tap.taken(&block);
        }
        assert_eq!(tap.waiting_bytes.load(Ordering::Relaxed), 0);
        tap.offer(&lane, 1, &vec![0; MAX_BYTES + 1]);
        assert!(!tap.take_missed().is_empty() && feed.is_empty());
    }
}
