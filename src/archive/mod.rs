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
mod index;
mod pace;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::audit::OperatorEvent;
use crate::audit::checkpoint::{Checkpoint, CheckpointError, LaneHead};
use crate::audit::merkle::{Frontier, leaf_hash};
use crate::audit::segment::{End, Header, SegmentReader, SegmentWriter};
use crate::audit::{Action, KeyHistory, LaneId, lane, note};
use crate::clock::Now;
use crate::config;
use crate::key_files::KeyFiles;
use crate::shard::Shards;
use crate::store::answers::EntryId;
use crate::store::{Batch, Connection, StoreError, checkpoints, trail};
pub use error::ArchiveError;
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
/// Items of a segment that are read back before the thread may rest.
const READ_STEP: usize = 64;
/// Records at which a segment is closed with the next checkpoint.
const SEGMENT_RECORDS: u64 = 250_000;
/// Checkpoints at which a segment is closed.
const SEGMENT_CHECKPOINTS: u64 = 100_000;
/// Checkpoints in Redis at which they are archived, however few records there are: a day's, and some.
const MAX_LIVE_CHECKPOINTS: u64 = 100_000;
/// Checkpoints read in one step.
const PAGE: usize = 64;
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

/// What one segment is to take out of Redis.
#[derive(Debug, Clone, Copy)]
struct Goal {
    records: u64,
    checkpoints: u64,
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
        let file = create(&temporary)?;
        let header = Header::archive(number, Now::read().unix_us);
        let writer = SegmentWriter::new(BufWriter::new(file), &header)
            .map_err(ArchiveError::io("write", &temporary))?;
        let trees = archive.index.lanes.clone();
        // Those that Redis holds and a segment before this one has a part of.
        let mut listed: BTreeMap<String, BTreeSet<LaneId>> = BTreeMap::new();
        for lane in trail::lanes(connection)?.existing.into_iter().filter(|lane| trees.contains_key(lane)) {
            let _ = listed.entry(lane.boot().to_owned()).or_default().insert(lane);
        }
        let mut segment = Segment {
            connection,
            writer,
            path: &temporary,
            trees,
            touched: BTreeSet::new(),
            listed,
            records: 0,
            newest: None,
            pace: &mut self.pace,
        };
        segment.fill(&history, goal)?;
        let Segment { writer, trees, touched, records, newest, .. } = segment;
        let Some(newest) = newest else {
            return std::fs::remove_file(&temporary)
                .map(|()| false)
                .map_err(ArchiveError::io("remove", &temporary));
        };
        let failed = |action| ArchiveError::io(action, &temporary);
        let (out, end) = writer.finish().map_err(failed("write"))?;
        let file = out.into_inner().map_err(|error| failed("write")(error.into_error()))?;
        file.sync_all().map_err(failed("sync"))?;
        read_back(&temporary, &end, &mut self.pace)?;
        std::fs::rename(&temporary, &path).map_err(ArchiveError::io("write", &path))?;
        let folder = File::open(&archive.dir).and_then(|folder| folder.sync_all());
        folder.map_err(ArchiveError::io("sync", &archive.dir))?;
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
        });
        Ok(true)
    }
}

/// A segment that is being written.
struct Segment<'a> {
    connection: &'a mut Connection,
    writer: SegmentWriter<BufWriter<File>>,
    path: &'a Path,
    /// How far each lane is archived, this segment included.
    trees: BTreeMap<LaneId, Frontier>,
    /// The lanes that this segment holds records of.
    touched: BTreeSet<LaneId>,
    /// A server's own lanes in its checkpoint before, by the server's run.
    listed: BTreeMap<String, BTreeSet<LaneId>>,
    records: u64,
    /// The newest checkpoint in it.
    newest: Option<EntryId>,
    pace: &'a mut Pace,
}

impl Segment<'_> {
    /// Takes checkpoint after checkpoint, each behind what it covers, until the goal is reached. The
    /// newest checkpoint of all stays in Redis.
    fn fill(&mut self, history: &KeyHistory, goal: Goal) -> Result<(), ArchiveError> {
        let mut taken = 0;
        loop {
            let page = checkpoints::after(self.connection, self.newest, PAGE + 1)?;
            let Some((_, takable)) = page.split_last() else {
                return Ok(());
            };
            if takable.is_empty() {
                return Ok(());
            }
            for (id, note) in takable {
                if self.records >= goal.records && taken >= goal.checkpoints {
                    return Ok(());
                }
                let checkpoint =
                    open(note, history).map_err(|source| ArchiveError::Checkpoint { id: *id, source })?;
                self.cover(&checkpoint)?;
                self.writer.checkpoint(note).map_err(ArchiveError::io("write", self.path))?;
                self.newest = Some(*id);
                taken += 1;
            }
        }
    }

    fn cover(&mut self, checkpoint: &Checkpoint) -> Result<(), ArchiveError> {
        let boot = checkpoint.boot.simple().to_string();
        let listed: BTreeSet<LaneId> = checkpoint
            .lanes
            .iter()
            .map(|head| &head.lane)
            .filter(|lane| lane.boot() == boot)
            .cloned()
            .collect();
        for LaneHead { lane, head } in &checkpoint.lanes {
            self.blocks(lane, Some(head.seq))?;
            let tree = self.trees.get(lane);
            // A lane may be archived beyond this head already, where the checkpoint was brought late.
            if tree.is_none_or(|tree| tree.size() == head.seq && tree.root() != head.hash) && head.seq > 0 {
                return Err(ArchiveError::Damaged { lane: lane.clone(), seq: head.seq });
            }
        }
        // A lane that no checkpoint lists any more may hold one block more than it was known to: the one whose
        // commit had an unknown outcome. Its successor's first record says so.
        let before = self.listed.insert(boot, listed.clone()).unwrap_or_default();
        for gone in before.difference(&listed) {
            self.blocks(gone, None)?;
        }
        Ok(())
    }

    /// Writes a lane's next blocks up to a record, or to its end.
    fn blocks(&mut self, lane: &LaneId, up_to: Option<u64>) -> Result<(), ArchiveError> {
        let mut tree = self.trees.get(lane).cloned().unwrap_or_default();
        let failed = |seq| ArchiveError::Damaged { lane: lane.clone(), seq };
        while up_to.is_none_or(|up_to| tree.size() < up_to) {
            let blocks = trail::blocks(self.connection, lane, tree.size())?;
            if blocks.is_empty() {
                break;
            }
            if self.touched.insert(lane.clone()) {
                let registered = trail::registration(self.connection, lane)?;
                self.writer
                    .lane(lane, registered.as_deref(), &tree)
                    .map_err(ArchiveError::io("write", self.path))?;
            }
            for block in blocks {
                if up_to.is_some_and(|up_to| tree.size() >= up_to) {
                    break;
                }
                let seq = tree.size() + 1;
                let parts = lane::split_block(&block.bytes).filter(|parts| !parts.is_empty());
                let parts = parts.filter(|_| block.first_seq == seq).ok_or_else(|| failed(seq))?;
                for part in &parts {
                    tree.push(leaf_hash(part));
                }
                if tree.root().as_slice() != block.hash {
                    return Err(failed(seq));
                }
                self.writer
                    .block(lane, block.first_seq, &block.bytes, &block.hash)
                    .map_err(ArchiveError::io("write", self.path))?;
                self.records += parts.len() as u64;
            }
            self.pace.step();
        }
        if let Some(up_to) = up_to
            && tree.size() < up_to
        {
            return Err(failed(tree.size() + 1));
        }
        let _ = self.trees.insert(lane.clone(), tree);
        Ok(())
    }
}

/// A checkpoint of this log must be signed. One of another server with a log of its own is taken at its word:
/// its key is not known here, whoever verifies the archive needs it.
fn open(note: &str, history: &KeyHistory) -> Result<Checkpoint, CheckpointError> {
    let checkpoint = Checkpoint::parse(note::text_of(note)?)?;
    if checkpoint.origin == history.origin() {
        return Checkpoint::open(note, history).map(|(checkpoint, _)| checkpoint);
    }
    Ok(checkpoint)
}

fn live_records(connection: &mut Connection) -> Result<u64, StoreError> {
    let lanes = trail::lanes(connection)?.existing;
    trail::live_records(connection, &lanes)
}

fn create(path: &Path) -> Result<File, ArchiveError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(ArchiveError::io("remove", path)(error));
        }
        _ => {}
    }
    // Read-only from the start: nobody opens it to write a second time.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o400)
        .open(path)
        .map_err(ArchiveError::io("write", path))
}

/// The file must be whole, and the one that was written, before anything is removed for it.
fn read_back(path: &Path, end: &End, pace: &mut Pace) -> Result<(), ArchiveError> {
    let wrong = |source| ArchiveError::ReadBack { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(ArchiveError::io("read", path))?;
    let mut reader = SegmentReader::new(BufReader::new(file)).map_err(wrong)?;
    let mut read = 0_usize;
    while reader.next_item().map_err(wrong)?.is_some() {
        read += 1;
        if read.is_multiple_of(READ_STEP) {
            pace.step();
        }
    }
    if reader.end() == Some(end) {
        return Ok(());
    }
    Err(ArchiveError::io("read back", path)(io::Error::from(io::ErrorKind::InvalidData)))
}
