//! A small file system in memory, and a clock that can be stepped: what a server and Redis take for
//! granted.

use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// More than a campaign writes.
const ROOM: &str = "size=4g";

/// A file system of its own, that can be full. Needs root.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts it over the folder.
    pub fn mount(path: &Path) -> nix::Result<Self> {
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(ROOM))?;
        Ok(Self(path.to_path_buf()))
    }

    /// From now on no write fits.
    pub fn fill(&self) {
        crate::support::until("the file system is full", || {
            let stat = nix::sys::statvfs::statvfs(&self.0).unwrap();
            let used = (stat.blocks() - stat.blocks_free()) * stat.fragment_size();
            // Refused where it has grown meanwhile.
            self.remount(&format!("size={}", used.max(4096)))
        });
    }

    fn remount(&self, size: &str) -> bool {
        mount(None::<&str>, &self.0, None::<&str>, MsFlags::MS_REMOUNT, Some(size)).is_ok()
    }

    pub fn free(&self) {
        assert!(self.remount(ROOM));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still writes there keeps it until it ends.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// The wall clock of one process: steps by whole [`Clock::STEP_S`] (libfaketime).
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
}

impl Clock {
    /// Longer than any campaign, so that a time on record tells both the step and the true time.
    pub const STEP_S: u64 = 6 * 3600;

    /// A clock that is right; `None` where libfaketime is not installed.
    pub fn new(dir: &Path) -> Option<Self> {
        let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path());
        let library =
            folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|path| path.exists())?;
        let clock = Self { library, file: dir.join("clock") };
        clock.set(0);
        Some(clock)
    }

    /// Steps it to that many steps ahead of the true time.
    pub fn set(&self, steps: u64) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, format!("+{}\n", steps * Self::STEP_S)).unwrap();
        std::fs::rename(new, &self.file).unwrap();
    }

    /// Lets a process see this clock.
    pub fn give(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}
