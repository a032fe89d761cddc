//! Takes what checkpoints cover out of Redis, and checks it on the way: what does not lead to the root that was signed, or has no
//! server's tag, is not archived.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::error::ArchiveError;
use super::frames::FrameWriter;
use super::pace::Pace;
use crate::audit::checkpoint::{Checkpoint, CheckpointError, LaneHead};
use crate::audit::lane::Head;
use crate::audit::merkle::{Frontier, leaf_hash};
use crate::audit::segment::SegmentWriter;
use crate::audit::{KeyHistory, LaneId, StoreKeys, lane, note};
use crate::store::answers::EntryId;
use crate::store::{Connection, checkpoints, trail};

/// Checkpoints read in one step.
const PAGE: usize = 64;

/// What one append is to take out of Redis.
#[derive(Debug, Clone, Copy)]
pub(super) struct Goal {
    pub(super) records: u64,
    pub(super) checkpoints: u64,
}

/// Where it is taken from, and how it is checked.
pub(super) struct Source<'a> {
    pub(super) connection: &'a mut Connection,
    /// The keys that signed the checkpoints.
    pub(super) history: &'a KeyHistory,
    /// For the tags.
    pub(super) keys: Arc<StoreKeys>,
    /// How far each lane is archived.
    pub(super) archived: &'a BTreeMap<LaneId, Frontier>,
    /// The newest checkpoint that is.
    pub(super) after: Option<EntryId>,
    pub(super) goal: Goal,
}

/// What was taken.
pub(super) struct Filled<'a> {
    pub(super) writer: SegmentWriter<FrameWriter<'a>>,
    /// The lanes that it holds records of, with their trees behind them.
    pub(super) trees: BTreeMap<LaneId, Frontier>,
    pub(super) records: u64,
    pub(super) checkpoints: u64,
    /// The newest checkpoint in it.
    pub(super) newest: EntryId,
}

/// By server run, the lanes that Redis holds and the archive has a part of.
fn listed(
    connection: &mut Connection,
    is_archived: impl Fn(&LaneId) -> bool,
) -> Result<BTreeMap<String, BTreeSet<LaneId>>, ArchiveError> {
    let mut listed: BTreeMap<String, BTreeSet<LaneId>> = BTreeMap::new();
    for lane in trail::registered(connection)?.into_iter().filter(is_archived) {
        let _ = listed.entry(lane.boot().to_owned()).or_default().insert(lane);
    }
    Ok(listed)
}

/// An append that is being made.
pub(super) struct Filling<'a> {
    source: Source<'a>,
    writer: SegmentWriter<FrameWriter<'a>>,
    path: &'a Path,
    /// The lanes that the segment has a part of already.
    known: &'a BTreeMap<LaneId, Frontier>,
    trees: BTreeMap<LaneId, Frontier>,
    listed: BTreeMap<String, BTreeSet<LaneId>>,
    records: u64,
    /// Lanes of before the log's beginning, which have no tags.
    older: BTreeMap<LaneId, Head>,
    pace: &'a mut Pace,
}

impl<'a> Filling<'a> {
    /// `known`: the lanes in the segment that `writer` goes on with.
    pub(super) fn new(
        source: Source<'a>,
        writer: SegmentWriter<FrameWriter<'a>>,
        path: &'a Path,
        known: &'a BTreeMap<LaneId, Frontier>,
        pace: &'a mut Pace,
    ) -> Result<Self, ArchiveError> {
        let archived = source.archived;
        let listed =
            listed(source.connection, |lane| archived.contains_key(lane) || known.contains_key(lane))?;
        let older = trail::taken_over(source.connection, &source.keys)?;
        Ok(Self { source, writer, path, known, trees: BTreeMap::new(), listed, records: 0, older, pace })
    }

    /// Takes checkpoint after checkpoint, each behind what it covers, until the goal is reached. The
    /// newest checkpoint of all stays in Redis. `None` where there is nothing to take.
    pub(super) fn fill(mut self) -> Result<Option<Filled<'a>>, ArchiveError> {
        let (mut taken, mut newest) = (0, None);
        let goal = self.source.goal;
        'goal: loop {
            let after = newest.or(self.source.after);
            let page = checkpoints::after(self.source.connection, after, PAGE + 1)?;
            let Some((_, takable)) = page.split_last().filter(|(_, takable)| !takable.is_empty()) else {
                break;
            };
            for (id, note) in takable {
                if self.records >= goal.records && taken >= goal.checkpoints {
                    break 'goal;
                }
                let checkpoint = open(note, self.source.history)
                    .map_err(|source| ArchiveError::Checkpoint { id: *id, source })?;
                self.cover(&checkpoint)?;
                let written = self.writer.stored_checkpoint(note, &id.to_string());
                written.map_err(ArchiveError::io("write", self.path))?;
                newest = Some(*id);
                taken += 1;
            }
        }
        let Self { writer, trees, records, .. } = self;
        Ok(newest.map(|newest| Filled { writer, trees, records, checkpoints: taken, newest }))
    }

    fn tree(&self, lane: &LaneId) -> Option<&Frontier> {
        self.trees.get(lane).or_else(|| self.known.get(lane)).or_else(|| self.source.archived.get(lane))
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
            let tree = self.tree(lane);
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
        let mut tree = self.tree(lane).cloned().unwrap_or_default();
        let failed = |seq| ArchiveError::Damaged { lane: lane.clone(), seq };
        'lane: while up_to.is_none_or(|up_to| tree.size() < up_to) {
            let blocks = trail::blocks(self.source.connection, lane, tree.size())?;
            if blocks.is_empty() {
                break;
            }
            for block in blocks {
                if up_to.is_some_and(|up_to| tree.size() >= up_to) {
                    break;
                }
                let is_ours = block.check(&self.source.keys, lane).is_ok();
                if up_to.is_none() && !is_ours {
                    break 'lane;
                }
                self.block(lane, &mut tree, &block, is_ours)?;
            }
            self.pace.step();
        }
        if let Some(up_to) = up_to
            && tree.size() < up_to
        {
            return Err(failed(tree.size() + 1));
        }
        Ok(())
    }

    fn block(
        &mut self,
        lane: &LaneId,
        tree: &mut Frontier,
        block: &trail::StoredBlock,
        is_ours: bool,
    ) -> Result<(), ArchiveError> {
        let seq = tree.size() + 1;
        let failed = || ArchiveError::Damaged { lane: lane.clone(), seq };
        let write = ArchiveError::io("write", self.path);
        let parts = lane::split_block(&block.bytes).filter(|parts| !parts.is_empty());
        let parts = parts.filter(|_| block.first_seq == seq).ok_or_else(failed)?;
        if !is_ours && self.older.get(lane).is_none_or(|head| seq > head.seq) {
            // Whatever was signed over it, no server has written it.
            return Err(failed());
        }
        let is_new = !self.trees.contains_key(lane) && !self.known.contains_key(lane);
        let before = is_new.then(|| tree.clone());
        parts.iter().for_each(|part| tree.push(leaf_hash(part)));
        if tree.root().as_slice() != block.hash {
            return Err(failed());
        }
        if let Some(before) = before {
            let registered = trail::registration(self.source.connection, lane)?;
            let written = self.writer.lane(lane, registered.as_deref(), &before);
            written.map_err(ArchiveError::io("write", self.path))?;
        }
        self.writer.out().contents.block(lane, tree.size(), &parts);
        self.writer.block(lane, block.first_seq, &block.bytes, &block.hash).map_err(write)?;
        self.records += parts.len() as u64;
        match self.trees.get_mut(lane) {
            Some(kept) => kept.copy_from(tree),
            None => drop(self.trees.insert(lane.clone(), tree.clone())),
        }
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
