//! Who watches decisions as they are committed. Without anybody a worker looks at one number; with somebody it copies each block
//! once. Nobody is waited for: who is too slow misses blocks, and is told how many.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::lane::LaneId;

/// Blocks that may wait for one watcher.
const MAX_BLOCKS: usize = 1024;
/// Bytes in them.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A block that is committed.
#[derive(Debug, Clone)]
pub struct Block {
    /// Its lane.
    pub lane: LaneId,
    /// The records, each behind a `u32` length.
    pub bytes: Arc<[u8]>,
}

#[derive(Debug, Default)]
struct Backlog {
    bytes: AtomicUsize,
    /// Blocks that there was no room for since the watcher was told.
    missed: AtomicU64,
}

#[derive(Debug)]
struct Line {
    blocks: Sender<Block>,
    backlog: Arc<Backlog>,
}

/// Everybody who watches.
#[derive(Debug, Default)]
pub struct Watchers {
    count: AtomicUsize,
    lines: Mutex<Vec<Line>>,
}

/// One that watches, until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    watchers: Arc<Watchers>,
    blocks: Receiver<Block>,
    backlog: Arc<Backlog>,
}

impl Watchers {
    fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more, from now on.
    pub fn watch(self: &Arc<Self>) -> Watcher {
        let (blocks, received) = crossbeam_channel::bounded(MAX_BLOCKS);
        let backlog = Arc::<Backlog>::default();
        let mut lines = self.lines();
        lines.push(Line { blocks, backlog: backlog.clone() });
        self.count.store(lines.len(), Ordering::Relaxed);
        Watcher { watchers: self.clone(), blocks: received, backlog }
    }

    /// A block was committed. Hot path.
    pub fn offer(&self, lane: &LaneId, bytes: &[u8]) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let block = Block { lane: lane.clone(), bytes: bytes.into() };
        self.lines().iter().for_each(|line| line.offer(&block));
    }
}

impl Line {
    fn offer(&self, block: &Block) {
        let length = block.bytes.len();
        let before = self.backlog.bytes.fetch_add(length, Ordering::Relaxed);
        if before + length > MAX_BYTES || self.blocks.try_send(block.clone()).is_err() {
            let _ = self.backlog.bytes.fetch_sub(length, Ordering::Relaxed);
            let _ = self.backlog.missed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Watcher {
    /// The next block, if one comes in time.
    pub fn next(&self, within: Duration) -> Option<Block> {
        match self.blocks.recv_timeout(within) {
            Ok(block) => {
                let _ = self.backlog.bytes.fetch_sub(block.bytes.len(), Ordering::Relaxed);
                Some(block)
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Blocks that it missed since this was asked last.
    pub fn take_missed(&self) -> u64 {
        self.backlog.missed.swap(0, Ordering::Relaxed)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut lines = self.watchers.lines();
        lines.retain(|line| !Arc::ptr_eq(&line.backlog, &self.backlog));
        self.watchers.count.store(lines.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    #[test]
    fn who_watches_gets_what_comes_and_who_is_slow_hears_what_it_missed() {
        let (watchers, lane) = (Arc::new(Watchers::default()), LaneId::from_stored("l"));
        watchers.offer(&lane, b"before");
        let (quick, slow) = (watchers.watch(), watchers.watch());
        for n in 0..MAX_BLOCKS + 3 {
            watchers.offer(&lane, b"record");
            assert_eq!(quick.next(AT_ONCE).map(|block| block.bytes.len()), Some(6), "{n}");
        }
        assert_eq!((quick.take_missed(), slow.take_missed()), (0, 3));
        assert_eq!(slow.take_missed(), 0);
        drop(quick);
        assert!(slow.next(AT_ONCE).is_some());
        watchers.offer(&lane, &vec![0; MAX_BYTES + 1]);
        assert_eq!(slow.take_missed(), 1);
        assert_eq!(watchers.count.load(Ordering::Relaxed), 1);
        while slow.next(AT_ONCE).is_some() {}
        assert_eq!(slow.backlog.bytes.load(Ordering::Relaxed), 0);
        drop(slow);
        assert_eq!(watchers.count.load(Ordering::Relaxed), 0);
    }
}
