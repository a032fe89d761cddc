//! Where a trail is read from.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;

use super::trouble::Trouble;
use crate::audit::lane::split_block;
use crate::audit::record::View;
use crate::audit::segment::{Header, Item, SegmentKind, SegmentReader};
use crate::audit::{LaneId, StoreKeys, lane};
use crate::clock::Now;
use crate::config::Config;
use crate::key_files::StoreKeyFile;
use crate::store::walk::{Start, Walk};
use crate::store::{Connection, Endpoint};

/// Most files of one trail.
const MAX_FILES: usize = 100_000;
/// How archived segments' files begin and end; other files of an archive are none.
const ARCHIVE_NAME: (&str, &str) = ("segment-", ".jsonl");
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
    /// the configuration.
    #[arg(long, value_name = "DIR")]
    pub archive: Option<PathBuf>,
    /// Do not look at the tags of what is in Redis: as somebody sees it who has no store key.
    #[arg(long)]
    pub no_store_key: bool,
}

/// The configuration that a command is about.
pub(super) fn config(args: &SourceArgs) -> Result<Config, Trouble> {
    Config::locate_and_load(args.config.as_deref()).map_err(|error| Trouble::Usage(error.to_string()))
}

/// A trail.
pub(crate) enum Source {
    /// In Redis.
    Live(Live),
    /// In files, oldest first.
    Files(Vec<Part>),
    /// In files, oldest first, and then in Redis.
    Joined(Vec<Part>, Live),
}

/// What is in Redis.
pub(crate) struct Live {
    pub(crate) connection: Connection,
    /// For a look at the tags.
    pub(crate) keys: Option<StoreKeys>,
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
pub(crate) struct Range {
    /// Records of this time or later, Unix microseconds.
    pub(crate) from_us: Option<u64>,
    /// Records before this time, Unix microseconds.
    pub(crate) to_us: Option<u64>,
    /// What comes before `from_us` is needed, too: to verify.
    pub(crate) whole: bool,
}

impl Range {
    /// Everything.
    pub(crate) const ALL: Self = Self { from_us: None, to_us: None, whole: true };

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
}

type OnItem<'a> = dyn FnMut(&Item<'_>) -> Result<ControlFlow<()>, Trouble> + 'a;

impl Source {
    /// The trail that the arguments name. A configuration is read only where Redis is.
    pub(crate) fn open(args: &SourceArgs, config: Option<&Config>) -> Result<Self, Trouble> {
        let mut parts = Vec::new();
        if let Some(folder) = archive_folder(args, config) {
            parts.extend(archives(folder)?);
        }
        for path in &args.export {
            parts.push(part(path)?);
        }
        if !args.export.is_empty() {
            return Ok(Self::Files(parts));
        }
        let Some(config) = config else {
            return Err(Trouble::Usage("no configuration, and no --export FILE".to_owned()));
        };
        let live = Live {
            connection: Endpoint::new(&config.redis).open()?,
            keys: if args.no_store_key { None } else { store_keys(config) },
        };
        Ok(if parts.is_empty() { Self::Live(live) } else { Self::Joined(parts, live) })
    }

    /// Whether a server has archived more since the trail was opened: what left Redis meanwhile is in files that
    /// this trail does not know of.
    pub(crate) fn has_moved(&self, args: &SourceArgs, config: Option<&Config>) -> Result<bool, Trouble> {
        let parts = match self {
            Self::Files(_) => return Ok(false),
            Self::Live(_) => 0,
            Self::Joined(parts, _) => parts.len(),
        };
        let now = match archive_folder(args, config) {
            Some(folder) => segment_files(folder)?.len(),
            None => 0,
        };
        Ok(now != parts)
    }

    /// Whether the trail begins in the middle.
    pub(crate) fn is_partial(&self) -> bool {
        let first = match self {
            Self::Live(_) => None,
            Self::Files(parts) | Self::Joined(parts, _) => parts.first(),
        };
        first.and_then(|part| part.header.as_ref()).is_some_and(|header| {
            header.from_us.is_some() || (header.kind == SegmentKind::Archive && header.number > 1)
        })
    }

    /// The connection, where some of it is in Redis.
    pub(crate) fn connection(&mut self) -> Option<&mut Connection> {
        self.live().map(|live| &mut live.connection)
    }

    /// What of it is in Redis.
    pub(crate) fn live(&mut self) -> Option<&mut Live> {
        match self {
            Self::Live(live) | Self::Joined(_, live) => Some(live),
            Self::Files(_) => None,
        }
    }

    /// Reads the trail, in the order in which it is verified. `on` may end it.
    pub(crate) fn read(&mut self, range: Range, on: &mut OnItem<'_>) -> Result<Progress, Trouble> {
        let mut progress = Progress::default();
        let (parts, live) = match self {
            Self::Live(live) => (&[][..], Some(live)),
            Self::Files(parts) => (parts.as_slice(), None),
            Self::Joined(parts, live) => (parts.as_slice(), Some(live)),
        };
        for part in parts {
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
fn archive_folder<'a>(args: &'a SourceArgs, config: Option<&'a Config>) -> Option<&'a Path> {
    match &args.archive {
        Some(folder) => Some(folder),
        None if args.export.is_empty() => {
            config.and_then(|config| config.audit.archive_dir.as_deref()).filter(|folder| folder.is_dir())
        }
        None => None,
    }
}

/// Reads what is in Redis behind `progress`.
pub(crate) fn read_live(
    Live { connection, keys }: &mut Live,
    progress: Progress,
    range: Range,
    on: &mut OnItem<'_>,
) -> Result<Progress, Trouble> {
    let mut last_note = progress.last_note.clone();
    let start = Start {
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
    Ok(Progress { lanes: ends.lanes, last_note })
}

fn read_part(
    part: &Part,
    range: Range,
    progress: &mut Progress,
    on: &mut OnItem<'_>,
) -> Result<ControlFlow<()>, Trouble> {
    let wrap = |source| Trouble::Segment { path: part.path.clone(), source };
    let mut reader = SegmentReader::new(open(&part.path)?).map_err(wrap)?;
    while let Some(item) = reader.next_item().map_err(wrap)? {
        match &item {
            Item::Lane { lane, before, .. } => {
                let _ = progress.lanes.insert(LaneId::from_stored(lane), before.size());
            }
            Item::Block { lane, first, bytes, .. } => {
                let time_us = lane::first_record(bytes).and_then(View::time_of).unwrap_or(0);
                if range.to_us.is_some_and(|to_us| time_us >= to_us) {
                    continue;
                }
                let count = split_block(bytes).map_or(0, |parts| parts.len() as u64);
                let end = (first + count).saturating_sub(1);
                match progress.lanes.get_mut(lane.as_ref()) {
                    Some(known) => *known = end.max(*known),
                    None => {
                        let _ = progress.lanes.insert(LaneId::from_stored(lane), end);
                    }
                }
            }
            Item::Checkpoint { note } => progress.last_note = Some(note.clone().into_owned()),
        }
        if on(&item)?.is_break() {
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

/// The archived segments of a folder, in their order.
fn archives(folder: &Path) -> Result<Vec<Part>, Trouble> {
    let mut parts = segment_files(folder)?.iter().map(|path| part(path)).collect::<Result<Vec<_>, _>>()?;
    parts.sort_by_key(|part| part.header.as_ref().map_or(0, |header| header.number));
    Ok(parts)
}

fn segment_files(folder: &Path) -> Result<Vec<PathBuf>, Trouble> {
    let wrap = |source| Trouble::File { path: folder.to_path_buf(), source };
    let (begin, end) = ARCHIVE_NAME;
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(wrap)? {
        let entry = entry.map_err(wrap)?;
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with(begin) && name.ends_with(end)) {
            continue;
        }
        if paths.len() == MAX_FILES {
            return Err(Trouble::Usage(format!("{}: more than {MAX_FILES} segments", folder.display())));
        }
        paths.push(entry.path());
    }
    Ok(paths)
}
