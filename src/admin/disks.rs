//! A thread that looks at the disks of the trail, on its own: one that hangs holds up nothing else.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::sources::Sources;
use crate::disks::Room;
use crate::shard::desk::troubles::Code;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a stop waits for it: a disk that hangs has it.
const STOP_PATIENCE: Duration = Duration::from_secs(1);
/// How often that is looked at.
const STOP_LOOK: Duration = Duration::from_millis(5);

/// The looking thread; it ends when this is dropped.
pub(super) struct Disks {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Disks {
    pub(super) fn watch(sources: Arc<Sources>) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let run = move || {
            let mut was_low = false;
            loop {
                was_low = look(&sources, was_low);
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("admin-disks".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else { return };
        let mut left = STOP_PATIENCE;
        while !thread.is_finished() && !left.is_zero() {
            std::thread::sleep(STOP_LOOK);
            left = left.saturating_sub(STOP_LOOK);
        }
        if thread.is_finished() && thread.join().is_err() {
            log::error!(
                code = "thread_panicked", part = "disks";
                "the thread that looks at the disks had panicked"
            );
        }
    }
}

/// Whether one fills up.
fn look(sources: &Sources, was_low: bool) -> bool {
    let low: Vec<String> = sources
        .reloaded()
        .config
        .audit
        .places()
        .into_iter()
        .filter_map(|(key, folder)| {
            let room = Room::at(&folder).filter(|room| room.is_low())?;
            let Room { percent, bytes } = room;
            Some(format!("{key} ({}): {percent} % free, {bytes} bytes", folder.display()))
        })
        .collect();
    let why = (!low.is_empty()).then(|| low.join("; "));
    match (was_low, &why) {
        (false, Some(why)) => log::warn!(code = "disk_low"; "disk_low: {why}"),
        (true, None) => log::info!(code = "disk_low_cleared"; "disk_low: there is room again"),
        _ => {}
    }
    sources.shards.shared().troubles.set(Code::DiskLow, why);
    !low.is_empty()
}
