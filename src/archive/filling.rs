//! One segment of the archive: filled from Redis up to a checkpoint, written out, read back, and put under its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::error::ArchiveError;
use super::pace::Pace;
use crate::audit::checkpoint::{Checkpoint, CheckpointError, LaneHead};
use crate::audit::lane::Head;
use crate::audit::merkle::{Frontier, leaf_hash};
use crate::audit::segment::{End, Header, SegmentReader, SegmentWriter};
use crate::audit::{KeyHistory, LaneId, StoreKeys, lane, note};
use crate::store::answers::EntryId;
use crate::store::{Connection, checkpoints, trail};

/// Items of a segment that are read back before the thread may rest.
const READ_STEP: usize = 64;
/// Checkpoints read in one step.
const PAGE: usize = 64;

/// What one segment is to take out of Redis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    pub(super) records: u64,
    pub(super) checkpoints: u64,
}

/// By server run, the lanes that Redis holds and an earlier segment has a part of.
fn listed(
    connection: &mut Connection,
    trees: &BTreeMap<LaneId, Frontier>,
) -> Result<BTreeMap<String, BTreeSet<LaneId>>, ArchiveError> {
    let mut listed: BTreeMap<String, BTreeSet<LaneId>> = BTreeMap::new();
    for lane in trail::lanes(connection)?.existing.into_iter().filter(|lane| trees.contains_key(lane)) {
        let _ = listed.entry(lane.boot().to_owned()).or_default().insert(lane);
    }
    Ok(listed)
}

/// Ends a segment's file: written out, synced, read back, and under its name.
pub(super) fn put_in_place(
    writer: SegmentWriter<BufWriter<File>>,
    temporary: &Path,
    path: &Path,
    pace: &mut Pace,
) -> Result<End, ArchiveError> {
    let failed = |action| ArchiveError::io(action, temporary);
    let (out, end) = writer.finish().map_err(failed("write"))?;
    let file = out.into_inner().map_err(|error| failed("write")(error.into_error()))?;
    file.sync_all().map_err(failed("sync"))?;
    read_back(temporary, &end, pace)?;
    std::fs::rename(temporary, path).map_err(ArchiveError::io("write", path))?;
    let dir = path.parent().unwrap_or(path);
    let folder = File::open(dir).and_then(|folder| folder.sync_all());
    folder.map_err(ArchiveError::io("sync", dir))?;
    Ok(end)
}

/// A segment that is being written.
pub(super) struct Segment<'a> {
    connection: &'a mut Connection,
    pub(super) writer: SegmentWriter<BufWriter<File>>,
    path: &'a Path,
    /// How far each lane is archived, this segment included.
    pub(super) trees: BTreeMap<LaneId, Frontier>,
    /// The lanes that this segment holds records of.
    pub(super) touched: BTreeSet<LaneId>,
    /// A server's own lanes in its checkpoint before, by the server's run.
    listed: BTreeMap<String, BTreeSet<LaneId>>,
    pub(super) records: u64,
    /// The newest checkpoint in it.
    pub(super) newest: Option<EntryId>,
    /// For the tags.
    keys: Arc<StoreKeys>,
    /// Lanes of before the log's beginning, which have none.
    older: BTreeMap<LaneId, Head>,
    pace: &'a mut Pace,
}

impl<'a> Segment<'a> {
    /// An empty file. `trees`: how far each lane is archived before it.
    pub(super) fn begin(
        connection: &'a mut Connection,
        path: &'a Path,
        header: &Header,
        trees: BTreeMap<LaneId, Frontier>,
        keys: Arc<StoreKeys>,
        pace: &'a mut Pace,
    ) -> Result<Self, ArchiveError> {
        let writer = SegmentWriter::new(BufWriter::new(create(path)?), header)
            .map_err(ArchiveError::io("write", path))?;
        let listed = listed(connection, &trees)?;
        let older = trail::taken_over(connection, &keys)?;
        Ok(Self {
            connection,
            writer,
            path,
            trees,
            touched: BTreeSet::new(),
            listed,
            records: 0,
            newest: None,
            keys,
            older,
            pace,
        })
    }

    /// Takes checkpoint after checkpoint, each behind what it covers, until the goal is reached. The
    /// newest checkpoint of all stays in Redis.
    pub(super) fn fill(&mut self, history: &KeyHistory, goal: Goal) -> Result<(), ArchiveError> {
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
        // commit had an unknown outcome. Its successor's first record says so. What no server has written stays.
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
                if up_to.is_none() && block.check(&self.keys, lane).is_err() {
                    let _ = self.trees.insert(lane.clone(), tree);
                    return Ok(());
                }
                let seq = tree.size() + 1;
                let parts = lane::split_block(&block.bytes).filter(|parts| !parts.is_empty());
                let parts = parts.filter(|_| block.first_seq == seq).ok_or_else(|| failed(seq))?;
                if block.check(&self.keys, lane).is_err()
                    && self.older.get(lane).is_none_or(|head| seq > head.seq)
                {
                    // Whatever was signed over it, no server has written it.
                    return Err(failed(seq));
                }
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
