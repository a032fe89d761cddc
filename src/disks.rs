//! Room on the disks that the trail needs.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// A disk fills up when less than this share of it, and less than so many bytes, are free …
const LOW_PERCENT: u64 = 10;
const LOW_BYTES: u64 = 10 * 1024 * 1024 * 1024;
/// … and is full below these.
const FULL_PERCENT: u64 = 1;
const FULL_BYTES: u64 = 1024 * 1024 * 1024;

/// What is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of the whole.
    pub percent: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Room {
    /// On the disk of that folder, or of the one above it where it is still to be made; `None` where the system does not say.
    pub fn at(folder: &Path) -> Option<Self> {
        let there = folder.ancestors().find(|folder| folder.exists())?;
        let stat = statvfs(there).ok()?;
        let (free, all) = (stat.blocks_available(), stat.blocks());
        let percent = free.saturating_mul(100).checked_div(all)?;
        Some(Self { percent, bytes: free.saturating_mul(stat.fragment_size()) })
    }

    /// Whether it fills up.
    pub fn is_low(self) -> bool {
        self.percent < LOW_PERCENT && self.bytes < LOW_BYTES
    }

    /// Whether it is as good as full.
    pub fn is_full(self) -> bool {
        self.percent < FULL_PERCENT && self.bytes < FULL_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_disk_is_not_low_for_a_small_share() {
        const GIB: u64 = 1024 * 1024 * 1024;
        let room = |percent, bytes| Room { percent, bytes };
        assert!(!room(9, 100 * GIB).is_low() && !room(50, 1).is_low());
        assert!(room(9, GIB).is_low() && !room(9, GIB).is_full());
        assert!(room(0, 0).is_low() && room(0, 0).is_full() && !room(0, 2 * GIB).is_full());
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Room::at(folder.path()).is_some(), Room::at(&folder.path().join("a/b")).is_some());
    }
}
