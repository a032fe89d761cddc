//! Retention: when Redis holds more of the trail than `gateway.audit.max_records`, its oldest part, up to a
//! signed checkpoint, goes to a file that is never written again, and leaves Redis when that file is on disk and
//! was read back. A thread with a Redis connection of its own.
//!
//! Every block is hashed on its way: what does not lead to the root that a checkpoint signed is not
//! archived, and so not removed.

mod index;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::audit::checkpoint::{Checkpoint, CheckpointError, LaneHead};
use crate::audit::merkle::{Frontier, leaf_hash};
use crate::audit::segment::{End, Header, SegmentError, SegmentReader, SegmentWriter};
use crate::audit::{Action, KeyHistory, LaneId, lane};
use crate::checkpoint::key_files::{KeyError, KeyFiles};
use crate::clock::Now;
use crate::config;
use crate::shard::{OperatorEvent, Shards};
use crate::store::answers::EntryId;
use crate::store::{Batch, Connection, StoreError, checkpoints, trail};
use index::{Entry, Index, LaneTree};

/// How often the thread looks whether there is too much.
const LOOK: Duration = Duration::from_millis(500);
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

/// Why nothing could be archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The list of segments.
    #[error("{}: line {line}: no entry of an archive's list", path.display())]
    Index {
        /// The list.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys that signed the checkpoints.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A checkpoint in Redis is not one.
    #[error("checkpoint {id} in Redis: {source}")]
    Checkpoint {
        /// Its id.
        id: EntryId,
        /// Why not.
        source: CheckpointError,
    },
    /// The trail in Redis is not what was signed.
    #[error("lane {lane}: from record {seq} on Redis does not hold what was signed; nothing is removed")]
    Damaged {
        /// The lane.
        lane: LaneId,
        /// The first record in question.
        seq: u64,
    },
    /// The file that was written reads back as something else.
    #[error("{}: reads back wrong: {source}", path.display())]
    ReadBack {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: SegmentError,
    },
}

impl ArchiveError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

/// An archive's directory.
#[derive(Debug)]
pub struct Archive {
    dir: PathBuf,
    index: Index,
}

impl Archive {
    /// Opens the archive, or begins one.
    pub fn open(dir: &Path) -> Result<Self, ArchiveError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(ArchiveError::io("make the directory", dir))?;
        Ok(Self { dir: dir.to_path_buf(), index: Index::open(dir)? })
    }

    /// The lanes that were archived, each with its last record that was.
    pub fn lanes(&self) -> BTreeMap<LaneId, u64> {
        self.index.lanes.iter().map(|(lane, tree)| (lane.clone(), tree.size())).collect()
    }

    /// Removes from Redis what is archived, also what a crash left there; `open` are the lanes that
    /// are being written.
    pub fn trim(&self, connection: &mut Connection, open: &BTreeSet<LaneId>) -> Result<(), StoreError> {
        let in_redis: BTreeSet<LaneId> = trail::lanes(connection)?.existing.into_iter().collect();
        for (lane, tree) in self.index.lanes.iter().filter(|(lane, _)| in_redis.contains(*lane)) {
            trail::trim(connection, lane, tree.size(), !open.contains(lane))?;
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
pub struct Archiver {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Archiver {
    /// Starts it.
    pub fn start(archive: Archive, config: &config::Audit, shards: Arc<Shards>) -> io::Result<Self> {
        let mut worker = Worker {
            archive,
            files: KeyFiles::new(&config.signing_key_path),
            max_records: config.max_records,
            shards,
            connection: None,
        };
        let (stop, stopped) = channel();
        let run = move || {
            let mut failing = false;
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
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
            }
        };
        let thread = std::thread::Builder::new().name("archiver".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Archiver {
    fn drop(&mut self) {
        // Either the thread hears it or it is gone. A segment that is being written is finished first.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Worker {
    archive: Archive,
    files: KeyFiles,
    max_records: u64,
    shards: Arc<Shards>,
    connection: Option<Connection>,
}

/// What one segment is to take out of Redis.
#[derive(Debug, Clone, Copy)]
struct Goal {
    records: u64,
    checkpoints: u64,
}

impl Worker {
    /// Archives as long as there is too much.
    fn look(&mut self) -> Result<(), ArchiveError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let shared = self.shards.shared();
                Connection::open(&shared.redis_url, shared.redis_timeout)?
            }
        };
        loop {
            let live = self.shards.shared().board.live_records();
            let sealed = checkpoints::count(&mut connection)?;
            let many = self.max_records > 0 && live > self.max_records;
            if !many && sealed <= MAX_LIVE_CHECKPOINTS {
                break;
            }
            let kept = self.max_records / KEPT_SHARE;
            let goal = Goal {
                records: if many { live.saturating_sub(kept).min(SEGMENT_RECORDS) } else { 0 },
                checkpoints: sealed
                    .saturating_sub(MAX_LIVE_CHECKPOINTS / KEPT_SHARE)
                    .min(SEGMENT_CHECKPOINTS),
            };
            if !self.archive(&mut connection, goal)? {
                break;
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Makes one segment and trims Redis; `false` where no checkpoint covers anything more.
    fn archive(&mut self, connection: &mut Connection, goal: Goal) -> Result<bool, ArchiveError> {
        let Some(history) = self.files.read_history()? else {
            return Ok(false);
        };
        let number = self.archive.index.count + 1;
        let name = format!("segment-{number:08}.jsonl");
        let path = self.archive.dir.join(&name);
        let temporary = self.archive.dir.join(format!(".{name}.tmp"));
        let file = create(&temporary)?;
        let header = Header::archive(number, Now::read().unix_us);
        let writer = SegmentWriter::new(BufWriter::new(file), &header)
            .map_err(ArchiveError::io("write", &temporary))?;
        let trees = self.archive.index.lanes.clone();
        // Those that Redis holds and the segment before this one has a part of.
        let mut listed: BTreeSet<LaneId> = trail::lanes(connection)?.existing.into_iter().collect();
        listed.retain(|lane| trees.contains_key(lane));
        let mut segment = Segment {
            connection,
            writer,
            path: &temporary,
            trees,
            touched: BTreeSet::new(),
            listed,
            records: 0,
            newest: None,
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
        read_back(&temporary, &end)?;
        std::fs::rename(&temporary, &path).map_err(ArchiveError::io("write", &path))?;
        let folder = File::open(&self.archive.dir).and_then(|folder| folder.sync_all());
        folder.map_err(ArchiveError::io("sync", &self.archive.dir))?;
        let lanes = touched.iter().filter_map(|lane| Some(LaneTree::of(lane, trees.get(lane)?))).collect();
        self.archive.index.append(&Entry {
            number,
            file: name.clone(),
            sha256: end.sha256.clone(),
            records,
            checkpoint: newest.to_string(),
            lanes,
        })?;

        let shared = self.shards.shared();
        self.archive.trim(connection, &shared.board.open_lanes())?;
        shared.board.add_trimmed(records);
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
    /// The lanes of the checkpoint before, as far as Redis holds them.
    listed: BTreeSet<LaneId>,
    records: u64,
    /// The newest checkpoint in it.
    newest: Option<EntryId>,
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
                let (checkpoint, _) = Checkpoint::open(note, history)
                    .map_err(|source| ArchiveError::Checkpoint { id: *id, source })?;
                self.cover(&checkpoint)?;
                self.writer.checkpoint(note).map_err(ArchiveError::io("write", self.path))?;
                self.newest = Some(*id);
                taken += 1;
            }
        }
    }

    fn cover(&mut self, checkpoint: &Checkpoint) -> Result<(), ArchiveError> {
        let listed: BTreeSet<LaneId> = checkpoint.lanes.iter().map(|head| head.lane.clone()).collect();
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
        for gone in std::mem::take(&mut self.listed).difference(&listed) {
            self.blocks(gone, None)?;
        }
        self.listed = listed;
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
fn read_back(path: &Path, end: &End) -> Result<(), ArchiveError> {
    let wrong = |source| ArchiveError::ReadBack { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(ArchiveError::io("read", path))?;
    let mut reader = SegmentReader::new(BufReader::new(file)).map_err(wrong)?;
    while reader.next_item().map_err(wrong)?.is_some() {}
    if reader.end() == Some(end) {
        return Ok(());
    }
    Err(ArchiveError::io("read back", path)(io::Error::from(io::ErrorKind::InvalidData)))
}
