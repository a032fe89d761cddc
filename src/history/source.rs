//! Where a trail is read from.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::error::{HistoryError, ReadError};
use crate::archive::{self, Reading, Wanted, message_key};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::lane::split_block;
use crate::audit::record::View;
use crate::audit::segment::{Header, Item, SegmentKind, SegmentReader};
use crate::audit::{LaneId, StoreKeys, lane, note};
use crate::store::Connection;
use crate::store::archived::{self, Archived, Numbers};
use crate::store::walk::{Start, Walk};

/// A file that is standard input.
const STDIN: &str = "-";
/// Bytes read from a file in one step.
const READ_BYTES: usize = 256 * 1024;

/// Which files, beside what is in Redis.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Read these, made by `mas audit export`, and not Redis.
    pub export: Vec<PathBuf>,
    /// The folders of archives: read before what is in Redis or in files.
    pub archive: Vec<PathBuf>,
    /// Read archived segments whole, and do not trust the lists of what is in them.
    pub no_index: bool,
}

/// A trail: what is archived, then what is in files, then what is in Redis.
pub struct Source {
    archive: Option<Reading>,
    /// Oldest first.
    files: Vec<Part>,
    live: Option<Live>,
    no_index: bool,
    /// The folders of archives.
    folders: Vec<PathBuf>,
    /// Archives of other hosts that have segments which are not here.
    elsewhere: Vec<String>,
}

/// What is in Redis.
pub struct Live {
    /// The way there.
    pub connection: Connection,
    /// For a look at the tags.
    pub keys: Option<StoreKeys>,
    /// What lies between files and Redis may be in an archive elsewhere.
    pub gaps: bool,
    /// The folders of archives: dead letters that left Redis are in files there.
    pub folders: Vec<PathBuf>,
}

impl Live {
    /// Without archives.
    pub fn new(connection: Connection, keys: Option<StoreKeys>) -> Self {
        Self { connection, keys, gaps: false, folders: Vec::new() }
    }
}

/// One file of a trail.
#[derive(Debug, Clone)]
pub struct Part {
    /// Where.
    pub path: PathBuf,
    /// What it covers; `None`: standard input, which is read once.
    pub header: Option<Header>,
}

/// What is wanted of a trail.
#[derive(Debug, Clone, Copy, Default)]
pub struct Range<'a> {
    /// Records of this time or later, Unix microseconds.
    pub from_us: Option<u64>,
    /// Records before this time, Unix microseconds.
    pub to_us: Option<u64>,
    /// Records that name one of these messages or correlations, by their ids; empty: all. Others may come, too.
    pub messages: &'a [[u8; 16]],
    /// What comes before `from_us` is needed, too: to verify.
    pub whole: bool,
}

impl Range<'_> {
    /// Everything.
    pub const ALL: Self = Self { from_us: None, to_us: None, messages: &[], whole: true };

    /// Whether a record of that time is wanted.
    pub fn holds(&self, time_us: u64) -> bool {
        self.from_us.is_none_or(|from_us| time_us >= from_us)
            && self.to_us.is_none_or(|to_us| time_us < to_us)
    }
}

/// What has been read so far, so that the live trail goes on behind it.
#[derive(Debug, Default)]
pub struct Progress {
    /// Records of each lane.
    pub lanes: HashMap<LaneId, u64>,
    /// The newest checkpoint.
    pub last_note: Option<String>,
    /// Files of several hosts are read, and two may have archived the same for a moment: what is known already is left out.
    overlaps: bool,
    /// The newest checkpoint of each server run, where that matters.
    counters: HashMap<Uuid, u64>,
}

impl Progress {
    /// Goes on behind an item; whether it is wanted.
    fn take(&mut self, item: &Item<'_>, range: Range<'_>) -> bool {
        match item {
            Item::Lane { lane, before, .. } => {
                let is_known = self.lanes.get(lane.as_ref()).is_some_and(|known| before.size() < *known);
                if self.overlaps && is_known {
                    return false;
                }
                let _ = self.lanes.insert(LaneId::from_stored(lane), before.size());
            }
            Item::Block { lane, first, bytes, .. } => {
                let time_us = lane::first_record(bytes).and_then(View::time_of).unwrap_or(0);
                if range.to_us.is_some_and(|to_us| time_us >= to_us) {
                    return false;
                }
                let count = split_block(bytes).map_or(0, |parts| parts.len() as u64);
                let last = (first + count).saturating_sub(1);
                let is_known = self.lanes.get(lane.as_ref()).is_some_and(|known| last <= *known);
                if self.overlaps && count > 0 && is_known {
                    return false;
                }
                self.reach(lane, last);
            }
            Item::Checkpoint { note } => {
                let checkpoint = note::text_of(note).ok().and_then(|text| Checkpoint::parse(text).ok());
                if self.overlaps
                    && let Some(Checkpoint { boot, counter, .. }) = checkpoint
                {
                    let newest = self.counters.entry(boot).or_default();
                    if counter <= *newest {
                        return false;
                    }
                    *newest = counter;
                }
                self.last_note = Some(note.clone().into_owned());
            }
        }
        true
    }

    fn reach(&mut self, lane: &str, last: u64) {
        match self.lanes.get_mut(lane) {
            Some(known) => *known = last.max(*known),
            None => drop(self.lanes.insert(LaneId::from_stored(lane), last)),
        }
    }
}

/// Takes an item of the trail; it may end the reading.
pub type OnItem<'a, E> = dyn FnMut(&Item<'_>) -> Result<ControlFlow<()>, E> + 'a;

impl Source {
    /// The trail in these files, and in Redis where that is to be read. `own`: the archive of this host, as `host:folder`.
    pub fn open(files: Files, live: Option<Live>, own: &str) -> Result<Self, HistoryError> {
        let Files { export, archive: folders, no_index } = files;
        let archive = Reading::open(&folders)?;
        let files = export.iter().map(|path| part(path)).collect::<Result<Vec<_>, _>>()?;
        let live = live.map(|live| Live { folders: folders.clone(), ..live });
        let mut source = Self { archive, files, live, no_index, folders, elsewhere: Vec::new() };
        if let Some(Live { connection, keys: Some(keys), .. }) = &mut source.live {
            let known = archived::read(connection, keys)?;
            source.elsewhere = elsewhere(source.archive.as_ref(), &known, own)?;
        }
        Ok(source)
    }

    /// Archives of other hosts that have segments which are not here: what is in them is not shown.
    pub fn elsewhere(&self) -> &[String] {
        &self.elsewhere
    }

    /// What a connection leads to, and nothing else.
    pub fn of_live(live: Live) -> Self {
        Self {
            archive: None,
            files: Vec::new(),
            live: Some(live),
            no_index: false,
            folders: Vec::new(),
            elsewhere: Vec::new(),
        }
    }

    /// Whether a server has archived more since the trail was read: what left Redis meanwhile is in files that
    /// this reading does not know of.
    pub fn has_moved(&self) -> Result<bool, HistoryError> {
        match (&self.live, &self.archive) {
            (None, _) => Ok(false),
            (_, Some(archive)) => Ok(archive.has_moved()?),
            (_, None) => Ok(Reading::open(&self.folders)?.is_some()),
        }
    }

    /// Whether the trail begins in the middle.
    pub fn is_partial(&self) -> bool {
        if !self.elsewhere.is_empty() {
            return true;
        }
        if let Some(archive) = &self.archive {
            return archive.first() > 1;
        }
        self.files.first().and_then(|part| part.header.as_ref()).is_some_and(|header| {
            header.from_us.is_some() || (header.kind == SegmentKind::Archive && header.number > 1)
        })
    }

    /// The connection, where some of it is in Redis.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        self.live().map(|live| &mut live.connection)
    }

    /// What of it is in Redis.
    pub fn live(&mut self) -> Option<&mut Live> {
        self.live.as_mut()
    }

    /// Reads the trail, in the order in which it is verified. `on` may end it.
    pub fn read<E: ReadError>(&mut self, range: Range<'_>, on: &mut OnItem<'_, E>) -> Result<Progress, E> {
        let overlaps = self.archive.as_ref().is_some_and(Reading::is_of_several);
        let mut progress = Progress { overlaps, ..Progress::default() };
        let Self { archive, files, live, no_index, elsewhere, .. } = self;
        if let Some(live) = live {
            live.gaps = !elsewhere.is_empty();
        }
        if let Some(archive) = archive
            && read_archive(archive, range, *no_index, &mut progress, on)?.is_break()
        {
            return Ok(progress);
        }
        for part in files {
            if read_part(part, range, &mut progress, on)?.is_break() {
                return Ok(progress);
            }
        }
        if let Some(live) = live {
            return read_live(live, progress, range, on);
        }
        Ok(progress)
    }
}

/// Archives of other hosts that have segments which are not in these folders. `own`: the archive of this host, as `host:folder`.
pub fn elsewhere_of(
    connection: &mut Connection,
    keys: &StoreKeys,
    folders: &[PathBuf],
    own: &str,
) -> Result<Vec<String>, HistoryError> {
    let known = archived::read(connection, keys)?;
    elsewhere(Reading::open(folders)?.as_ref(), &known, own)
}

/// Archives of other hosts that have segments which are not here. None, where one is missing that no other host has: then it is
/// damage. What was before the first segment here may have been moved away.
fn elsewhere(here: Option<&Reading>, known: &Archived, own: &str) -> Result<Vec<String>, HistoryError> {
    let numbers = here.map(Reading::numbers).transpose()?.unwrap_or_default();
    let others = || known.places.iter().filter(|(place, _)| *place != own);
    let missing: Vec<u64> = (1..=known.segment).filter(|number| !numbers.contains(number)).collect();
    let is_before = |number: &u64| numbers.first().is_some_and(|first| number < first);
    let is_there = |number: &u64| others().any(|(_, there)| there.contains(*number));
    if !missing.iter().all(|number| is_before(number) || is_there(number)) {
        return Ok(Vec::new());
    }
    let has_some = |there: &Numbers| missing.iter().any(|number| there.contains(*number));
    Ok(others().filter(|(_, there)| has_some(there)).map(|(place, _)| place.clone()).collect())
}

/// Reads what is in Redis behind `progress`.
pub fn read_live<E: ReadError>(
    Live { connection, keys, gaps, .. }: &mut Live,
    progress: Progress,
    range: Range<'_>,
    on: &mut OnItem<'_, E>,
) -> Result<Progress, E> {
    let mut last_note = progress.last_note.clone();
    let elsewhere = match keys {
        Some(keys) if *gaps => archived::read(connection, keys)?.lanes,
        _ => BTreeMap::new(),
    };
    let start = Start {
        archived: elsewhere,
        known: progress.lanes,
        last_note: progress.last_note,
        seek_us: if range.whole { None } else { range.from_us },
        to_us: range.to_us,
        keys: keys.clone(),
    };
    let ends = Walk::new(connection, start)?.run::<E>(&mut |item| {
        if let Item::Checkpoint { note } = item {
            last_note = Some(note.clone().into_owned());
        }
        on(item)
    })?;
    Ok(Progress { lanes: ends.lanes, last_note, ..Progress::default() })
}

/// Reads what is archived.
fn read_archive<E: ReadError>(
    archive: &mut Reading,
    range: Range<'_>,
    no_index: bool,
    progress: &mut Progress,
    on: &mut OnItem<'_, E>,
) -> Result<ControlFlow<()>, E> {
    let messages: Vec<u32> = range.messages.iter().map(|id| message_key(id)).collect();
    let wanted = Wanted {
        from_us: range.from_us,
        to_us: range.to_us,
        messages: &messages,
        whole: range.whole || no_index,
    };
    archive.read(wanted, &mut |read| match read {
        archive::Part::Item(item) => {
            if progress.take(item, range) {
                on(item)
            } else {
                Ok(ControlFlow::Continue(()))
            }
        }
        archive::Part::Passed(lane, last) => {
            progress.reach(lane, last);
            Ok(ControlFlow::Continue(()))
        }
    })
}

fn read_part<E: ReadError>(
    part: &Part,
    range: Range<'_>,
    progress: &mut Progress,
    on: &mut OnItem<'_, E>,
) -> Result<ControlFlow<()>, E> {
    let wrap = |source| HistoryError::Segment { path: part.path.clone(), source };
    let mut reader = SegmentReader::new(open(&part.path)?).map_err(wrap)?;
    while let Some(item) = reader.next_item().map_err(wrap)? {
        if progress.take(&item, range) && on(&item)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, HistoryError> {
    if path.as_os_str() == STDIN {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(path).map_err(|source| HistoryError::File { path: path.to_path_buf(), source })?;
    Ok(Box::new(BufReader::with_capacity(READ_BYTES, file)))
}

fn part(path: &Path) -> Result<Part, HistoryError> {
    if path.as_os_str() == STDIN {
        return Ok(Part { path: path.to_path_buf(), header: None });
    }
    let reader = SegmentReader::new(open(path)?)
        .map_err(|source| HistoryError::Segment { path: path.to_path_buf(), source })?;
    Ok(Part { path: path.to_path_buf(), header: Some(reader.header().clone()) })
}
