//! Where a trail is read from.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;
use uuid::Uuid;

use super::trouble::Trouble;
use crate::archive::{self, Reading, Wanted, message_key};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::lane::split_block;
use crate::audit::record::View;
use crate::audit::segment::{Header, Item, SegmentKind, SegmentReader};
use crate::audit::{LaneId, StoreKeys, lane, note};
use crate::clock::Now;
use crate::config::Config;
use crate::key_files::{StoreKeyFile, host_name};
use crate::store::archived::{self, Archived, Numbers};
use crate::store::walk::{Start, Walk};
use crate::store::{Connection, Endpoint};

/// A file that is standard input.
const STDIN: &str = "-";
/// Bytes read from a file in one step.
const READ_BYTES: usize = 256 * 1024;

/// Which trail.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// The configuration whose Redis holds the trail; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read this file, made by `mas audit export`, and not Redis; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub export: Vec<PathBuf>,
    /// Read the archived segments in this folder, too, before what is in Redis or in the files; else those of
    /// the configuration. Once for each folder, where several hosts have archived.
    #[arg(long, value_name = "DIR")]
    pub archive: Vec<PathBuf>,
    /// Read archived segments whole, and do not trust the lists of what is in them.
    #[arg(long)]
    pub no_index: bool,
    /// Do not look at the tags of what is in Redis: as somebody sees it who has no store key.
    #[arg(long)]
    pub no_store_key: bool,
}

/// The configuration that a command is about.
pub(super) fn config(args: &SourceArgs) -> Result<Config, Trouble> {
    Config::locate_and_load(args.config.as_deref()).map_err(|error| Trouble::Usage(error.to_string()))
}

/// A trail: what is archived, then what is in files, then what is in Redis.
pub(crate) struct Source {
    archive: Option<Reading>,
    /// Oldest first.
    files: Vec<Part>,
    live: Option<Live>,
    no_index: bool,
    /// Archives of other hosts that have segments which are not here.
    elsewhere: Vec<String>,
}

/// What is in Redis.
pub(crate) struct Live {
    pub(crate) connection: Connection,
    /// For a look at the tags.
    pub(crate) keys: Option<StoreKeys>,
    /// What lies between files and Redis may be in an archive elsewhere.
    pub(crate) gaps: bool,
    /// The folders of archives: dead letters that left Redis are in files there.
    pub(crate) folders: Vec<PathBuf>,
}

impl Live {
    pub(crate) fn new(connection: Connection, keys: Option<StoreKeys>) -> Self {
        Self { connection, keys, gaps: false, folders: Vec::new() }
    }
}

/// One file of a trail.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Where.
    pub(crate) path: PathBuf,
    /// What it covers; `None`: standard input, which is read once.
    pub(crate) header: Option<Header>,
}

/// What is wanted of a trail.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Range<'a> {
    /// Records of this time or later, Unix microseconds.
    pub(crate) from_us: Option<u64>,
    /// Records before this time, Unix microseconds.
    pub(crate) to_us: Option<u64>,
    /// Records that name one of these messages or correlations, by their ids; empty: all. Others may come, too.
    pub(crate) messages: &'a [[u8; 16]],
    /// What comes before `from_us` is needed, too: to verify.
    pub(crate) whole: bool,
}

impl Range<'_> {
    /// Everything.
    pub(crate) const ALL: Self = Self { from_us: None, to_us: None, messages: &[], whole: true };

    /// Whether a record of that time is wanted.
    pub(crate) fn holds(&self, time_us: u64) -> bool {
        self.from_us.is_none_or(|from_us| time_us >= from_us)
            && self.to_us.is_none_or(|to_us| time_us < to_us)
    }
}

/// What has been read so far, so that the live trail goes on behind it.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Records of each lane.
    pub(crate) lanes: HashMap<LaneId, u64>,
    /// The newest checkpoint.
    pub(crate) last_note: Option<String>,
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

type OnItem<'a> = dyn FnMut(&Item<'_>) -> Result<ControlFlow<()>, Trouble> + 'a;

impl Source {
    /// The trail that the arguments name. A configuration is read only where Redis is.
    pub(crate) fn open(args: &SourceArgs, config: Option<&Config>) -> Result<Self, Trouble> {
        let archive = Reading::open(&archive_folders(args, config))?;
        let files = args.export.iter().map(|path| part(path)).collect::<Result<Vec<_>, _>>()?;
        let live = match (args.export.is_empty(), config) {
            (false, _) => None,
            (true, None) => return Err(Trouble::Usage("no configuration, and no --export FILE".to_owned())),
            (true, Some(config)) => {
                let keys = if args.no_store_key { None } else { store_keys(config) };
                let live = Live::new(Endpoint::new(&config.redis).open()?, keys);
                Some(Live { folders: archive_folders(args, Some(config)), ..live })
            }
        };
        let mut source = Self { archive, files, live, no_index: args.no_index, elsewhere: Vec::new() };
        if let (Some(Live { connection, keys: Some(keys), .. }), Some(config)) = (&mut source.live, config) {
            let known = archived::read(connection, keys)?;
            let dir = config.audit.archive().map(|dir| dir.display().to_string()).unwrap_or_default();
            let own = format!("{}:{dir}", host_name());
            source.elsewhere = elsewhere(source.archive.as_ref(), &known, &own);
        }
        Ok(source)
    }

    /// Archives of other hosts that have segments which are not here: what is in them is not shown.
    pub(crate) fn elsewhere(&self) -> &[String] {
        &self.elsewhere
    }

    /// What a connection leads to, and nothing else.
    pub(crate) fn of_live(live: Live) -> Self {
        Self { archive: None, files: Vec::new(), live: Some(live), no_index: false, elsewhere: Vec::new() }
    }

    /// Whether a server has archived more since the trail was read: what left Redis meanwhile is in files that
    /// this reading does not know of.
    pub(crate) fn has_moved(&self, args: &SourceArgs, config: Option<&Config>) -> Result<bool, Trouble> {
        match (&self.live, &self.archive) {
            (None, _) => Ok(false),
            (_, Some(archive)) => Ok(archive.has_moved()?),
            (_, None) => Ok(Reading::open(&archive_folders(args, config))?.is_some()),
        }
    }

    /// Whether the trail begins in the middle.
    pub(crate) fn is_partial(&self) -> bool {
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
    pub(crate) fn connection(&mut self) -> Option<&mut Connection> {
        self.live().map(|live| &mut live.connection)
    }

    /// What of it is in Redis.
    pub(crate) fn live(&mut self) -> Option<&mut Live> {
        self.live.as_mut()
    }

    /// Reads the trail, in the order in which it is verified. `on` may end it.
    pub(crate) fn read(&mut self, range: Range<'_>, on: &mut OnItem<'_>) -> Result<Progress, Trouble> {
        let overlaps = self.archive.as_ref().is_some_and(Reading::is_of_several);
        let mut progress = Progress { overlaps, ..Progress::default() };
        let Self { archive, files, live, no_index, elsewhere } = self;
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

/// Archives of other hosts that have segments which are not here. None, where one is missing that no other host has: then it is
/// damage. What was before the first segment here may have been moved away.
fn elsewhere(here: Option<&Reading>, known: &Archived, own: &str) -> Vec<String> {
    let numbers = here.map(Reading::numbers).unwrap_or_default();
    let others = || known.places.iter().filter(|(place, _)| *place != own);
    let missing: Vec<u64> = (1..=known.segment).filter(|number| !numbers.contains(number)).collect();
    let is_before = |number: &u64| numbers.first().is_some_and(|first| number < first);
    let is_there = |number: &u64| others().any(|(_, there)| there.contains(*number));
    if !missing.iter().all(|number| is_before(number) || is_there(number)) {
        return Vec::new();
    }
    let has_some = |there: &Numbers| missing.iter().any(|number| there.contains(*number));
    others().filter(|(_, there)| has_some(there)).map(|(place, _)| place.clone()).collect()
}

/// The store keys of the configuration, where this user may read them.
fn store_keys(config: &Config) -> Option<StoreKeys> {
    match StoreKeyFile::new(&config.audit.store_key_path).load(Now::read().unix_us / 1000) {
        Ok(loaded) => loaded.map(|loaded| loaded.keys),
        Err(error) => {
            eprintln!("mas audit: {error}");
            None
        }
    }
}

/// Where archived segments are: as the arguments say, else, with what is in Redis, as the configuration does.
fn archive_folders(args: &SourceArgs, config: Option<&Config>) -> Vec<PathBuf> {
    if !args.archive.is_empty() || !args.export.is_empty() {
        return args.archive.clone();
    }
    config.map(|config| config.audit.archive_folders()).unwrap_or_default()
}

/// Reads what is in Redis behind `progress`.
pub(crate) fn read_live(
    Live { connection, keys, gaps, .. }: &mut Live,
    progress: Progress,
    range: Range<'_>,
    on: &mut OnItem<'_>,
) -> Result<Progress, Trouble> {
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
    let ends = Walk::new(connection, start)?.run::<Trouble>(&mut |item| {
        if let Item::Checkpoint { note } = item {
            last_note = Some(note.clone().into_owned());
        }
        on(item)
    })?;
    Ok(Progress { lanes: ends.lanes, last_note, ..Progress::default() })
}

/// Reads what is archived.
fn read_archive(
    archive: &mut Reading,
    range: Range<'_>,
    no_index: bool,
    progress: &mut Progress,
    on: &mut OnItem<'_>,
) -> Result<ControlFlow<()>, Trouble> {
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

fn read_part(
    part: &Part,
    range: Range<'_>,
    progress: &mut Progress,
    on: &mut OnItem<'_>,
) -> Result<ControlFlow<()>, Trouble> {
    let wrap = |source| Trouble::Segment { path: part.path.clone(), source };
    let mut reader = SegmentReader::new(open(&part.path)?).map_err(wrap)?;
    while let Some(item) = reader.next_item().map_err(wrap)? {
        if progress.take(&item, range) && on(&item)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, Trouble> {
    if path.as_os_str() == STDIN {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(path).map_err(|source| Trouble::File { path: path.to_path_buf(), source })?;
    Ok(Box::new(BufReader::with_capacity(READ_BYTES, file)))
}

fn part(path: &Path) -> Result<Part, Trouble> {
    if path.as_os_str() == STDIN {
        return Ok(Part { path: path.to_path_buf(), header: None });
    }
    let reader = SegmentReader::new(open(path)?)
        .map_err(|source| Trouble::Segment { path: path.to_path_buf(), source })?;
    Ok(Part { path: path.to_path_buf(), header: Some(reader.header().clone()) })
}
