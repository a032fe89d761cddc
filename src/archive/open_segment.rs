//! The segment that is being filled. Each time something leaves Redis it is appended, synced and read back; a crash in between
//! leaves lines that are cut off again, for what they hold is still in Redis then.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::error::ArchiveError;
use super::filling::{Filled, Filling, Source};
use super::folder::{SegmentFile, sync_folder_of};
use super::frames::{Contents, Frame, FrameWriter, each_frame, lines_of, read_list};
use super::index::{Entry, LaneTree};
use super::pace::Pace;
use crate::audit::LaneId;
use crate::audit::lane::split_block;
use crate::audit::merkle::{Frontier, leaf_hash};
use crate::audit::segment::{End, Header, Item, Running, SegmentReader, SegmentWriter};
use crate::clock::Now;
use crate::store::answers::EntryId;

/// Bytes of a segment's file at which it is closed.
const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Checkpoints at which a segment is closed.
const MAX_CHECKPOINTS: u64 = 100_000;
/// A segment that is older than this is closed, in microseconds: a day.
const MAX_AGE_US: u64 = 86_400_000_000;

/// What is known of a segment that is not closed.
#[derive(Debug)]
struct State {
    running: Running,
    header: Header,
    /// The lanes of which it holds records, with their trees behind them.
    trees: BTreeMap<LaneId, Frontier>,
    checkpoints: u64,
    /// Id in Redis of its newest checkpoint.
    newest: EntryId,
}

/// What an append has moved.
#[derive(Debug)]
pub(super) struct Appended {
    pub(super) records: u64,
    pub(super) checkpoints: u64,
    /// The trees of the lanes that are archived further than before.
    pub(super) lanes: BTreeMap<LaneId, Frontier>,
    /// The newest checkpoint that is archived now.
    pub(super) newest: Option<EntryId>,
}

/// A segment that is not closed.
#[derive(Debug)]
pub(super) struct OpenSegment {
    place: SegmentFile,
    file: File,
    /// Bytes of the file that are good.
    end: u64,
    list: File,
    list_end: u64,
    /// `None`: nothing was appended yet.
    state: Option<State>,
}

/// A segment as a crash, or a stop, has left it.
#[derive(Debug)]
pub(super) enum Recovered {
    /// It goes on.
    Open(Box<OpenSegment>),
    /// It has its last line, and is not in the index.
    Closed(Box<Entry>),
}

fn open_file(path: &Path) -> Result<File, ArchiveError> {
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    file.map_err(ArchiveError::io("open", path))
}

impl OpenSegment {
    /// Opens a segment, or begins it. `archived`: how far lanes are archived before it, as far as that is known.
    pub(super) fn open(
        place: SegmentFile,
        archived: &BTreeMap<LaneId, Frontier>,
    ) -> Result<Recovered, ArchiveError> {
        let listed = read_list(&place.frames())?;
        let mut bytes = Vec::new();
        let is_closed = std::fs::metadata(&place.path).is_ok_and(|meta| meta.permissions().readonly());
        let mut file = match is_closed {
            true => File::open(&place.path).map_err(ArchiveError::io("open", &place.path))?,
            false => open_file(&place.path)?,
        };
        let _ = file.read_to_end(&mut bytes).map_err(ArchiveError::io("read", &place.path))?;
        let found = Found::read(&place, &bytes, archived)?;
        if is_closed && found.closed.is_none() {
            // It was to be closed, and the disk did not have its last line.
            let writable = std::fs::set_permissions(&place.path, Permissions::from_mode(0o600));
            writable.map_err(ArchiveError::io("unprotect", &place.path))?;
            file = open_file(&place.path)?;
        }
        let committed = listed.as_ref().and_then(|frames| frames.last()).map_or(0, |frame| frame.end);
        if found.end < committed {
            return Err(ArchiveError::OpenSegment { path: place.path, good: found.end, committed });
        }
        // What was read may be in the system's memory alone, and Redis is trimmed for it.
        file.sync_all().map_err(ArchiveError::io("sync", &place.path))?;
        let lines = lines_of(&found.frames).map_err(ArchiveError::io("write", &place.frames()))?;
        if listed.as_deref() != Some(&found.frames) {
            write_list(&place.frames(), &lines)?;
        }
        let list = open_file(&place.frames())?;
        sync_folder_of(&place.path)?;
        let list_end = lines.len() as u64;
        let mut open = Self { place, file, end: found.end, list, list_end, state: found.state };
        if let (Some(end), Some(state)) = (found.closed, &open.state) {
            open.protect()?;
            return Ok(Recovered::Closed(Box::new(open.entry(state, &end))));
        }
        open.cut_back()?;
        Ok(Recovered::Open(Box::new(open)))
    }

    /// Its number.
    pub(super) fn number(&self) -> u64 {
        self.place.number
    }

    /// Up to which record each lane is in this segment.
    pub(super) fn trees(&self) -> impl Iterator<Item = (&LaneId, &Frontier)> {
        self.state.iter().flat_map(|state| &state.trees)
    }

    /// Id in Redis of the newest checkpoint in it.
    pub(super) fn newest(&self) -> Option<EntryId> {
        self.state.as_ref().map(|state| state.newest)
    }

    /// Whether it is to be closed: it is large, or old.
    pub(super) fn is_full(&self, max_records: u64, now_us: u64) -> bool {
        self.state.as_ref().is_some_and(|state| {
            self.end >= MAX_BYTES
                || state.running.records() >= max_records
                || state.checkpoints >= MAX_CHECKPOINTS
                || now_us.saturating_sub(state.header.made_us) >= MAX_AGE_US
        })
    }

    /// Appends what `source` finds in Redis up to a checkpoint; `None` where there is nothing that could be. When it fails, the
    /// file is as before.
    pub(super) fn append(
        &mut self,
        source: Source<'_>,
        pace: &mut Pace,
    ) -> Result<Option<Appended>, ArchiveError> {
        let appended = self.try_append(source, pace);
        if !matches!(appended, Ok(Some(_))) {
            self.cut_back()?;
        }
        appended
    }

    fn try_append(&mut self, source: Source<'_>, pace: &mut Pace) -> Result<Option<Appended>, ArchiveError> {
        let path = self.place.path.clone();
        let write = || ArchiveError::io("write", &path);
        let frames = FrameWriter::new(&self.file, self.end).map_err(write())?;
        let (header, writer, known) = match &self.state {
            Some(state) => {
                let writer = SegmentWriter::resume(frames, &state.header, state.running.clone());
                (state.header.clone(), writer, &state.trees)
            }
            None => {
                let header = Header::archive(self.place.number, Now::read().unix_us);
                let writer = SegmentWriter::new(frames, &header).map_err(write())?;
                (header, writer, &BTreeMap::new())
            }
        };
        let Some(filled) = Filling::new(source, writer, &path, known, pace)?.fill()? else {
            return Ok(None);
        };
        let Filled { mut writer, trees, records, checkpoints, newest } = filled;
        let running = writer.running().clone();
        writer.out().end_frame().map_err(write())?;
        let frames = std::mem::take(&mut writer.out().frames);
        drop(writer);
        let end = frames.last().map_or(self.end, |frame| frame.end);
        self.file.sync_data().map_err(ArchiveError::io("sync", &path))?;
        read_back(&path, (self.end, end))?;
        self.list(&frames)?;
        self.end = end;
        let lanes = trees.clone();
        let state = self.state.get_or_insert_with(|| State {
            running: Running::default(),
            header,
            trees: BTreeMap::new(),
            checkpoints: 0,
            newest,
        });
        state.running = running;
        state.trees.extend(trees);
        state.checkpoints += checkpoints;
        state.newest = newest;
        Ok(Some(Appended { records, checkpoints, lanes, newest: Some(newest) }))
    }

    /// Writes the last line. The file is not written again.
    pub(super) fn close(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let closed = self.try_close();
        if closed.is_err() {
            self.cut_back()?;
        }
        closed
    }

    fn try_close(&mut self) -> Result<Option<Entry>, ArchiveError> {
        let path = self.place.path.clone();
        let write = || ArchiveError::io("write", &path);
        let Some(state) = &self.state else {
            // Nothing was appended: it never was a segment.
            for file in [&path, &self.place.frames()] {
                std::fs::remove_file(file).map_err(ArchiveError::io("remove", file))?;
            }
            return Ok(None);
        };
        let frames = FrameWriter::new(&self.file, self.end).map_err(write())?;
        let mut writer = SegmentWriter::resume(frames, &state.header, state.running.clone());
        let end = writer.close().map_err(write())?;
        writer.out().end_frame().map_err(write())?;
        let frames = std::mem::take(&mut writer.out().frames);
        drop(writer);
        let entry = self.entry(state, &end);
        self.file.sync_all().map_err(ArchiveError::io("sync", &path))?;
        self.list(&frames)?;
        self.protect()?;
        Ok(Some(entry))
    }

    /// Nobody opens it to write a second time.
    fn protect(&self) -> Result<(), ArchiveError> {
        let protected = self.file.set_permissions(Permissions::from_mode(0o400));
        protected.map_err(ArchiveError::io("protect", &self.place.path))
    }

    fn entry(&self, state: &State, end: &End) -> Entry {
        Entry {
            number: self.place.number,
            file: self.place.name(),
            sha256: end.sha256.clone(),
            records: end.records,
            checkpoint: state.newest.to_string(),
            lanes: state.trees.iter().map(|(lane, tree)| LaneTree::of(lane, tree)).collect(),
        }
    }

    /// Enters frames that are on disk into the list.
    fn list(&mut self, frames: &[Frame]) -> Result<(), ArchiveError> {
        let path = self.place.frames();
        let lines = lines_of(frames).map_err(ArchiveError::io("write", &path))?;
        self.list
            .write_all(&lines)
            .and_then(|()| self.list.sync_data())
            .map_err(ArchiveError::io("write", &path))?;
        self.list_end += lines.len() as u64;
        Ok(())
    }

    /// Removes what was written in vain.
    fn cut_back(&mut self) -> Result<(), ArchiveError> {
        let cut = |file: &mut File, end: u64, path: PathBuf| {
            let cut = file.set_len(end).and_then(|()| file.seek(SeekFrom::Start(end)));
            cut.map(drop).map_err(ArchiveError::io("cut back", &path))
        };
        cut(&mut self.file, self.end, self.place.path.clone())?;
        cut(&mut self.list, self.list_end, self.place.frames())
    }
}

/// Puts a list of frames in the place of one that is missing or wrong.
fn write_list(path: &Path, lines: &[u8]) -> Result<(), ArchiveError> {
    let temporary = path.with_extension("frames.tmp");
    let written = File::create(&temporary).and_then(|mut file| {
        file.set_permissions(Permissions::from_mode(0o600))?;
        file.write_all(lines)?;
        file.sync_all()
    });
    written.map_err(ArchiveError::io("write", &temporary))?;
    std::fs::rename(&temporary, path).map_err(ArchiveError::io("write", path))
}

/// What was appended must be on disk as it was written, before anything is removed for it: decompressing compares the lines
/// with the checksum that was made of them when they were compressed.
fn read_back(path: &Path, (from, to): (u64, u64)) -> Result<(), ArchiveError> {
    let fail = || ArchiveError::io("read back", path);
    let mut file = File::open(path).map_err(fail())?;
    let _ = file.seek(SeekFrom::Start(from)).map_err(fail())?;
    let mut bytes = Vec::new();
    let _ = file.take(to - from).read_to_end(&mut bytes).map_err(fail())?;
    let mut good = from;
    each_frame(&bytes, &mut |end, _| {
        good = from + end;
        Ok(())
    })?;
    if good == to {
        return Ok(());
    }
    Err(fail()(io::Error::from(io::ErrorKind::InvalidData)))
}

/// What a segment's file holds, up to its last whole append.
struct Found {
    end: u64,
    frames: Vec<Frame>,
    state: Option<State>,
    closed: Option<End>,
}

impl Found {
    fn read(
        place: &SegmentFile,
        bytes: &[u8],
        archived: &BTreeMap<LaneId, Frontier>,
    ) -> Result<Self, ArchiveError> {
        let mut found = Self { end: 0, frames: Vec::new(), state: None, closed: None };
        let wrong = |source| ArchiveError::ReadBack { path: place.path.clone(), source };
        // A line does not cross frames, so the reader is fed one frame after the other.
        let mut reader: Option<SegmentReader<Cursor<Vec<u8>>>> = None;
        let mut trees = BTreeMap::new();
        let (mut checkpoints, mut newest) = (0, None);
        let mut pending = Vec::new();
        each_frame(bytes, &mut |end, lines| {
            let mut contents = Contents::default();
            let mut is_whole = false;
            let reader = match &mut reader {
                Some(reader) => {
                    *reader.input() = Cursor::new(lines.to_vec());
                    reader
                }
                none => {
                    let begun = SegmentReader::new(Cursor::new(lines.to_vec())).map_err(wrong)?;
                    none.insert(begun.of_open())
                }
            };
            loop {
                let item = reader.next_item().map_err(wrong)?;
                is_whole = matches!(item, Some(Item::Checkpoint { .. })) || item.is_none() && is_whole;
                match item {
                    None => break,
                    Some(Item::Lane { lane, before, .. }) => {
                        let lane = LaneId::from_stored(&lane);
                        if archived
                            .get(&lane)
                            .is_some_and(|tree| tree.size() == before.size() && *tree != before)
                        {
                            return Err(ArchiveError::Damaged { lane, seq: before.size() + 1 });
                        }
                        let _ = trees.insert(lane, before);
                    }
                    Some(Item::Block { lane, first, bytes, .. }) => {
                        let lane = LaneId::from_stored(&lane);
                        let parts = split_block(&bytes).unwrap_or_default();
                        let tree: &mut Frontier = trees.entry(lane.clone()).or_default();
                        parts.iter().for_each(|part| tree.push(leaf_hash(part)));
                        contents.block(&lane, first + (parts.len() as u64).saturating_sub(1), &parts);
                    }
                    Some(Item::Checkpoint { .. }) => checkpoints += 1,
                }
            }
            newest = reader.stored_as().and_then(EntryId::parse).or(newest);
            pending.push(contents.take(end));
            if is_whole || reader.end().is_some() {
                found.end = end;
                found.frames.append(&mut pending);
                found.closed = reader.end().cloned();
                found.state = newest.map(|newest| State {
                    running: reader.running().clone(),
                    header: reader.header().clone(),
                    trees: trees.clone(),
                    checkpoints,
                    newest,
                });
            }
            Ok(())
        })?;
        Ok(found)
    }
}
