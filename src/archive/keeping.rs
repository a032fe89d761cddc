//! An archive that is being written: its folder, the segment that is open, and what of it is in Redis still.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::ArchiveError;
use super::folder::{self, SegmentFile};
use super::frames;
use super::index::{Index, Listed};
use super::open_segment::{Appended, OpenSegment, Recovered};
use super::pace::Pace;
use crate::audit::LaneId;
use crate::audit::merkle::Frontier;
use crate::store::answers::EntryId;
use crate::store::archived::{Archived, Numbers};
use crate::store::{Batch, Connection, StoreError, checkpoints, trail};

/// Records that one command removes: Redis does nothing else meanwhile.
const TRIM_STEP: u64 = 10_000;
/// Appends that are not yet trimmed, at most.
pub(super) const MAX_KEPT: usize = 64;

/// An archive's directory, and the right to write there.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) dir: PathBuf,
    pub(super) index: Index,
    /// The segment that is being filled, where one is.
    pub(super) open: Option<OpenSegment>,
    /// How far everything is archived, here or elsewhere.
    pub(super) archived: Archived,
    /// What is archived and still in Redis, oldest first.
    pub(super) kept: VecDeque<Appended>,
    /// The segments in this folder that hold anything.
    pub(super) numbers: Numbers,
    _lock: Flock<File>,
}

/// How far each lane was archived, as the lists in `dir` say; empty where there is none.
pub fn archived(dir: &Path) -> Result<BTreeMap<LaneId, u64>, ArchiveError> {
    let listed = Index::read(dir)?;
    let mut lanes: BTreeMap<LaneId, u64> =
        listed.lanes.iter().map(|(lane, tree)| (lane.clone(), tree.size())).collect();
    for segment in open_segments(dir, &listed)? {
        let frames = frames::read_list(&segment.frames())?.unwrap_or_default();
        for (lane, last) in frames.iter().flat_map(|frame| &frame.lanes) {
            let _ = lanes.insert(LaneId::from_stored(lane), *last);
        }
    }
    Ok(lanes)
}

/// The segments that are not in the list of closed ones: the one that is being filled.
fn open_segments(dir: &Path, listed: &Listed) -> Result<Vec<SegmentFile>, ArchiveError> {
    let mut found = folder::segments(dir)?;
    found.retain(|segment| segment.number > listed.newest && segment.is_compressed());
    Ok(found)
}

/// Makes an archive's directory.
fn make(dir: &Path) -> Result<(), ArchiveError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(ArchiveError::io("make the directory", dir))?;
    folder::sync_folder_of(dir)
}

impl Archive {
    /// Opens the archive, or begins one; `None` while another server writes it.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, ArchiveError> {
        make(dir)?;
        let path = dir.join(".lock");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600);
        let file = file.open(&path).map_err(ArchiveError::io("open", &path))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(ArchiveError::io("lock", &path)(errno.into())),
        };
        let mut archive = Self {
            dir: dir.to_path_buf(),
            index: Index::open(dir)?,
            open: None,
            archived: Archived::default(),
            kept: VecDeque::new(),
            numbers: Numbers::default(),
            _lock: lock,
        };
        let mut numbers: BTreeSet<u64> =
            folder::segments(dir)?.iter().map(|segment| segment.number).collect();
        for segment in open_segments(dir, &archive.index)? {
            match OpenSegment::open(segment, &archive.index.lanes)? {
                Recovered::Open(open) => {
                    if open.newest().is_none() {
                        // Nothing was appended to it: its number may be a segment's elsewhere.
                        let _ = numbers.remove(&open.number());
                    }
                    archive.open = Some(*open);
                }
                // It was closed, and the crash came before that was listed.
                Recovered::Closed(entry) => archive.index.append(&entry)?,
            }
        }
        numbers.into_iter().for_each(|number| archive.numbers.push(number));
        let Self { index, open, archived, .. } = &mut archive;
        archived.lanes.clone_from(&index.lanes);
        archived.newest = index.checkpoint.as_deref().and_then(EntryId::parse);
        archived.segment = index.newest;
        if let Some(open) = open {
            archived.lanes.extend(open.trees().map(|(lane, tree)| (lane.clone(), tree.clone())));
            if let Some(newest) = open.newest() {
                archived.newest = Some(newest);
                archived.segment = open.number();
            }
        }
        Ok(Some(archive))
    }

    /// Takes up what was archived elsewhere. Whether there is anything that is not in this folder.
    pub(super) fn take_up(&mut self, elsewhere: Archived) -> bool {
        let mut is_news = false;
        let own = &mut self.archived;
        for (lane, tree) in elsewhere.lanes {
            if own.lanes.get(&lane).is_none_or(|known| known.size() < tree.size()) {
                is_news = true;
                let _ = own.lanes.insert(lane, tree);
            }
        }
        own.newest = own.newest.max(elsewhere.newest);
        own.segment = own.segment.max(elsewhere.segment);
        is_news
    }

    /// Records that are archived and still in Redis.
    pub(super) fn kept_records(&self) -> u64 {
        self.kept.iter().map(|appended| appended.records).sum()
    }

    /// Checkpoints that are archived and still in Redis.
    pub(super) fn kept_checkpoints(&self) -> u64 {
        self.kept.iter().map(|appended| appended.checkpoints).sum()
    }

    /// Removes from Redis what is archived, and lanes that are done.
    pub(super) fn trim(
        &self,
        connection: &mut Connection,
        lanes: &BTreeMap<LaneId, Frontier>,
        newest: Option<EntryId>,
        pace: &mut Pace,
    ) -> Result<(), StoreError> {
        // In this order: a lane that begins in between is not taken for one that nobody writes.
        let registered = trail::registered(connection)?;
        let written = trail::written(connection)?;
        for lane in &registered {
            let last = lanes.get(lane).map(Frontier::size);
            let is_done = self.archived.lanes.contains_key(lane) && !written.contains(lane);
            let Some(last) = last.or(is_done.then_some(0)) else { continue };
            let mut up_to = trail::oldest_block(connection, lane)?.map_or(last, |block| block.first_seq);
            while up_to + TRIM_STEP < last {
                up_to += TRIM_STEP;
                trail::trim(connection, lane, up_to, false)?;
                pace.step();
            }
            trail::trim(connection, lane, last, is_done)?;
        }
        if let Some(newest) = newest {
            let mut batch = Batch::new();
            checkpoints::trim(&mut batch, newest);
            drop(connection.run(&mut batch)?);
        }
        Ok(())
    }
}
