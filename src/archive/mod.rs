//! Retention: when Redis holds more of the trail than `gateway.audit.max_records`, its oldest part, up to a
//! signed checkpoint, goes to a file that is never written again, and leaves Redis when that file is on disk and
//! was read back. Without an archive, or when it cannot keep up, nothing more is admitted. A thread with a
//! Redis connection of its own.
//!
//! Of the servers that share an archive's directory, the one that holds its lock archives, for all of them.
//!
//! Every block is hashed on its way: what does not lead to the root that a checkpoint signed is not
//! archived, and so not removed.

mod error;
mod filling;
mod index;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::audit::OperatorEvent;
use crate::audit::segment::Header;
use crate::audit::{Action, LaneId};
use crate::clock::Now;
use crate::config;
use crate::key_files::KeyFiles;
use crate::shard::Shards;
use crate::store::answers::EntryId;
use crate::store::{Batch, Connection, StoreError, checkpoints, trail};
pub use error::ArchiveError;
use filling::{Goal, Segment, put_in_place};
use index::{Entry, Index, LaneTree};
use pace::Pace;

/// How often the thread looks whether there is too much …
const LOOK: Duration = Duration::from_millis(500);
/// … and for how many times the time that looking took, archiving apart, it rests, at least.
const REST_FACTOR: u32 = 20;
/// With an archive, Redis may hold this many times `max_records` before nothing is admitted any more.
const ARCHIVE_SLACK: u64 = 2;
/// Records that one command removes: Redis does nothing else meanwhile.
const TRIM_STEP: u64 = 10_000;
/// Records at which a segment is closed with the next checkpoint.
const SEGMENT_RECORDS: u64 = 250_000;
/// Checkpoints at which a segment is closed.
const SEGMENT_CHECKPOINTS: u64 = 100_000;
/// Checkpoints in Redis at which they are archived, however few records there are: a day's, and some.
const MAX_LIVE_CHECKPOINTS: u64 = 100_000;
/// After archiving, Redis holds this share of `max_records`, so that it is not done for a few records.
const KEPT_SHARE: u64 = 2;

/// An archive's directory, and the right to write there.
#[derive(Debug)]
struct Archive {
    dir: PathBuf,
    index: Index,
    _lock: Flock<File>,
}

/// How far each lane was archived, as the list in `dir` says; empty where there is none.
pub fn archived(dir: &Path) -> Result<BTreeMap<LaneId, u64>, ArchiveError> {
    let lanes = Index::read(dir)?.lanes;
    Ok(lanes.into_iter().map(|(lane, tree)| (lane, tree.size())).collect())
}

impl Archive {
    /// Opens the archive, or begins one; `None` while another server writes it.
    fn open(dir: &Path) -> Result<Option<Self>, ArchiveError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(ArchiveError::io("make the directory", dir))?;
        let path = dir.join(".lock");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600);
        let file = file.open(&path).map_err(ArchiveError::io("open", &path))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(ArchiveError::io("lock", &path)(errno.into())),
        };
        Ok(Some(Self { dir: dir.to_path_buf(), index: Index::open(dir)?, _lock: lock }))
    }

    /// Removes from Redis what is archived, also what a crash left there.
    fn trim(&self, connection: &mut Connection, pace: &mut Pace) -> Result<(), StoreError> {
        // In this order: a lane that begins in between is not taken for one that nobody writes.
        let existing = trail::lanes(connection)?.existing;
        let written: BTreeSet<LaneId> = trail::written(connection)?.into_iter().collect();
        for lane in &existing {
            if let Some(tree) = self.index.lanes.get(lane) {
                let oldest = trail::oldest_block(connection, lane)?.map(|block| block.first_seq);
                let mut up_to = oldest.unwrap_or(tree.size());
                while up_to + TRIM_STEP < tree.size() {
                    up_to += TRIM_STEP;
                    trail::trim(connection, lane, up_to, false)?;
                    pace.step();
                }
                trail::trim(connection, lane, tree.size(), !written.contains(lane))?;
            }
        }
        if let Some(last) = self.index.checkpoint.as_deref().and_then(EntryId::parse) {
            let mut batch = Batch::new();
            checkpoints::trim(&mut batch, last);
            drop(connection.run(&mut batch)?);
        }
        Ok(())
    }
}

/// The running thread.
pub struct Retention {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Retention {
    /// Starts it; `None` where neither an archive nor a bound is configured.
    pub fn start(config: &config::Audit, shards: Arc<Shards>) -> io::Result<Option<Self>> {
        if config.archive_dir.is_none() && config.max_records == 0 {
            return Ok(None);
        }
        let (stop, stopped) = channel();
        let mut worker = Worker {
            dir: config.archive_dir.clone(),
            archive: None,
            files: KeyFiles::new(&config.signing_key_path),
            max_records: config.max_records,
            shards,
            connection: None,
            full: false,
            looking: Duration::ZERO,
            pace: Pace::new(stopped),
        };
        let run = move || {
            let mut failing = false;
            let mut rest = LOOK;
            while !worker.pace.rest(rest) {
                match worker.look() {
                    Ok(()) if std::mem::take(&mut failing) => log::warn!("the trail is archived again"),
                    Ok(()) => {}
                    Err(error) => {
                        worker.connection = None;
                        if !std::mem::replace(&mut failing, true) {
                            log::error!("the trail cannot be archived: {error}");
                        }
                    }
                }
                rest = LOOK.max(worker.looking * REST_FACTOR);
            }
        };
        let thread = std::thread::Builder::new().name("retention".to_owned()).spawn(run)?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        // Either the thread hears it or it is gone. A segment that is being written is finished first.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Worker {
    dir: Option<PathBuf>,
    /// While this server holds it.
    archive: Option<Archive>,
    files: KeyFiles,
    max_records: u64,
    shards: Arc<Shards>,
    connection: Option<Connection>,
    full: bool,
    /// How long it took to see what there is.
    looking: Duration,
    pace: Pace,
}

impl Worker {
    /// Archives as long as there is too much, and shuts admission where that is of no avail.
    fn look(&mut self) -> Result<(), ArchiveError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.shards.shared().redis.open()?,
        };
        let began = Instant::now();
        let mut live = live_records(&mut connection)?;
        self.looking = began.elapsed();
        let archived = self.archive_what_is_too_much(&mut connection, &mut live);
        self.admit(live);
        archived?;
        self.connection = Some(connection);
        Ok(())
    }

    fn archive_what_is_too_much(
        &mut self,
        connection: &mut Connection,
        live: &mut u64,
    ) -> Result<(), ArchiveError> {
        let Some(dir) = &self.dir else {
            return Ok(());
        };
        if self.archive.is_none() {
            self.archive = Archive::open(dir)?;
            let Some(archive) = &self.archive else {
                return Ok(());
            };
            archive.trim(connection, &mut self.pace)?;
            *live = live_records(connection)?;
        }
        loop {
            let sealed = checkpoints::count(connection)?;
            let many = self.max_records > 0 && *live > self.max_records;
            if self.pace.is_stopped() || !many && sealed <= MAX_LIVE_CHECKPOINTS {
                return Ok(());
            }
            let kept = self.max_records / KEPT_SHARE;
            let goal = Goal {
                records: if many { live.saturating_sub(kept).min(SEGMENT_RECORDS) } else { 0 },
                checkpoints: sealed
                    .saturating_sub(MAX_LIVE_CHECKPOINTS / KEPT_SHARE)
                    .min(SEGMENT_CHECKPOINTS),
            };
            // Halfway to where nothing is admitted.
            self.pace.hurry = many && *live > (self.max_records / 2).saturating_mul(1 + ARCHIVE_SLACK);
            if !self.archive_segment(connection, goal)? {
                return Ok(());
            }
            *live = live_records(connection)?;
            // Between two segments, too, for a long way may lie before it.
            self.admit(*live);
        }
    }

    fn admit(&mut self, live: u64) {
        let slack = if self.dir.is_some() { ARCHIVE_SLACK } else { 1 };
        let full = self.max_records > 0 && live >= self.max_records.saturating_mul(slack);
        if full != std::mem::replace(&mut self.full, full) {
            match full {
                true => log::error!(
                    "the audit trail holds {live} records, and gateway.audit.max_records is {}: nothing is admitted",
                    self.max_records
                ),
                false => log::warn!("the audit trail has room again: {live} records"),
            }
        }
        self.shards.shared().board.set_full(full);
    }

    /// Makes one segment and trims Redis; `false` where no checkpoint covers anything more.
    fn archive_segment(&mut self, connection: &mut Connection, goal: Goal) -> Result<bool, ArchiveError> {
        let Some(history) = self.files.read_history()? else {
            return Ok(false);
        };
        let Some(archive) = &mut self.archive else {
            return Ok(false);
        };
        let number = archive.index.count + 1;
        let name = format!("segment-{number:08}.jsonl");
        let path = archive.dir.join(&name);
        let temporary = archive.dir.join(format!(".{name}.tmp"));
        let header = Header::archive(number, Now::read().unix_us);
        let trees = archive.index.lanes.clone();
        let keys = self.shards.shared().key_ring.keys();
        let mut segment = Segment::begin(connection, &temporary, &header, trees, keys, &mut self.pace)?;
        segment.fill(&history, goal)?;
        let Segment { writer, trees, touched, records, newest, .. } = segment;
        let Some(newest) = newest else {
            return std::fs::remove_file(&temporary)
                .map(|()| false)
                .map_err(ArchiveError::io("remove", &temporary));
        };
        let end = put_in_place(writer, &temporary, &path, &mut self.pace)?;
        let lanes = touched.iter().filter_map(|lane| Some(LaneTree::of(lane, trees.get(lane)?))).collect();
        archive.index.append(&Entry {
            number,
            file: name.clone(),
            sha256: end.sha256.clone(),
            records,
            checkpoint: newest.to_string(),
            lanes,
        })?;

        archive.trim(connection, &mut self.pace)?;
        log::info!("{}: {records} records were archived", path.display());
        self.shards.record(OperatorEvent {
            action: Action::Archived,
            target: name,
            rule: format!("{records} records of {} lanes", touched.len()),
            reason: format!("sha256 {}", end.sha256),
            pending: None,
        });
        Ok(true)
    }
}

fn live_records(connection: &mut Connection) -> Result<u64, StoreError> {
    let lanes = trail::lanes(connection)?.existing;
    trail::live_records(connection, &lanes)
}
