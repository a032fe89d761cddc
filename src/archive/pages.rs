//! An archive a frame at a time, in either direction: for a reader that looks at a bounded part and goes on later where it
//! stopped. Frames that cannot have what is wanted are passed by their lists. Nothing is checked but each line.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Cursor;
use std::path::PathBuf;
use std::time::Instant;

use super::error::ArchiveError;
use super::folder::{self, SegmentFile};
use super::frames::{Frame, read_frame, read_list};
use super::index::Index;
use super::reading::Wanted;
use crate::audit::LaneId;
use crate::audit::merkle::Frontier;
use crate::audit::segment::{Header, Item, SegmentReader};

/// Segments whose lists of frames are kept while one reader goes through them.
const MAX_LISTS: usize = 4;
/// How far times on record may go back where a clock is set, in microseconds.
const CLOCK_SLACK_US: u64 = 3_600_000_000;

/// A place between two frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The segment, from 1.
    pub segment: u64,
    /// Where in its file.
    pub offset: u64,
}

/// The blocks of one frame, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where the frame begins.
    pub from: Place,
    /// Where it ends.
    pub to: Place,
    /// Lane and bytes of each block.
    pub blocks: Vec<(LaneId, Vec<u8>)>,
    /// The signed checkpoints among them.
    pub notes: Vec<String>,
}

/// Which frames are looked for.
#[derive(Debug, Clone, Copy)]
pub enum Look<'a> {
    /// Those that may have what is wanted.
    Wanted(Wanted<'a>),
    /// Those with records of this lane, from this one on.
    Lane(&'a str, u64),
    /// All of them.
    All,
}

impl Look<'_> {
    fn wants(&self, frame: &Frame) -> bool {
        match self {
            Self::Wanted(wanted) => wanted.wants(frame),
            Self::All => true,
            Self::Lane(lane, seq) => frame.lanes.get(*lane).is_some_and(|last| last >= seq),
        }
    }
}

/// How a look for the next page ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turned {
    /// Here it is.
    Page(Page),
    /// There is none that has what is wanted.
    End,
    /// It took too long; it goes on at this place.
    Stopped(Place),
}

/// The frames of the archives in some folders.
#[derive(Debug)]
pub struct Pages {
    dirs: Vec<PathBuf>,
    segments: Vec<SegmentFile>,
    lists: HashMap<u64, Vec<Frame>>,
    unlisted: bool,
}

impl Pages {
    /// Opens the archives. Of two segments of one number the second is another one's copy, and left out.
    pub fn open(dirs: &[PathBuf]) -> Result<Self, ArchiveError> {
        let mut pages =
            Self { dirs: dirs.to_vec(), segments: Vec::new(), lists: HashMap::new(), unlisted: false };
        pages.look()?;
        Ok(pages)
    }

    fn look(&mut self) -> Result<(), ArchiveError> {
        self.segments.clear();
        for dir in &self.dirs {
            self.segments.extend(folder::segments(dir)?);
        }
        self.segments.sort_by_key(|segment| segment.number);
        self.segments.dedup_by_key(|segment| segment.number);
        Ok(())
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether segments were passed that have no list of frames: those of earlier versions.
    pub fn has_unlisted(&self) -> bool {
        self.unlisted
    }

    /// The next page before a place (`None`: before the end), or behind one (`None`: behind the beginning), that may have what is
    /// wanted.
    pub fn turn(
        &mut self,
        backward: bool,
        at: Option<Place>,
        look: Look<'_>,
        give_up: Instant,
    ) -> Result<Turned, ArchiveError> {
        let mut segments: Vec<SegmentFile> = self.segments.clone();
        if backward {
            segments.reverse();
        }
        for segment in segments {
            let number = segment.number;
            let is_behind =
                at.is_some_and(|at| if backward { number > at.segment } else { number < at.segment });
            if is_behind {
                continue;
            }
            let offset = at.filter(|at| at.segment == number).map(|at| at.offset);
            if Instant::now() >= give_up {
                let from = offset.unwrap_or(if backward { u64::MAX } else { 0 });
                return Ok(Turned::Stopped(Place { segment: number, offset: from }));
            }
            if let Some((start, end)) = self.find(&segment, backward, offset, look)? {
                return read(&segment, start, end).map(Turned::Page);
            }
            if let Look::Wanted(wanted) = look
                && is_beyond(self.list(&segment)?, backward, wanted)
            {
                return Ok(Turned::End);
            }
        }
        Ok(Turned::End)
    }

    /// Where the next wanted frame of a segment begins and ends.
    fn find(
        &mut self,
        segment: &SegmentFile,
        backward: bool,
        offset: Option<u64>,
        look: Look<'_>,
    ) -> Result<Option<(u64, u64)>, ArchiveError> {
        let frames = self.list(segment)?;
        let starts = std::iter::once(0).chain(frames.iter().map(|frame| frame.end));
        let mut bounds: Vec<(u64, &Frame)> = starts.zip(frames).collect();
        match offset {
            Some(offset) if backward => bounds.retain(|(_, frame)| frame.end <= offset),
            Some(offset) => bounds.retain(|(start, _)| *start >= offset),
            None => {}
        }
        if backward {
            bounds.reverse();
        }
        Ok(bounds.into_iter().find(|(_, frame)| look.wants(frame)).map(|(start, frame)| (start, frame.end)))
    }

    fn list(&mut self, segment: &SegmentFile) -> Result<&[Frame], ArchiveError> {
        if !self.lists.contains_key(&segment.number) {
            let listed = if segment.is_compressed() { read_list(&segment.frames())? } else { None };
            self.unlisted |= listed.is_none();
            if self.lists.len() == MAX_LISTS {
                self.lists.clear();
            }
            let _ = self.lists.insert(segment.number, listed.unwrap_or_default());
        }
        Ok(self.lists.get(&segment.number).map_or(&[], Vec::as_slice))
    }

    /// The last archived record of each lane.
    pub fn ends(&mut self) -> Result<BTreeMap<LaneId, u64>, ArchiveError> {
        let mut ends: BTreeMap<LaneId, u64> = BTreeMap::new();
        let mut reach = |lane: LaneId, last: u64| {
            let known = ends.entry(lane).or_default();
            *known = last.max(*known);
        };
        let mut closed = 0;
        for dir in &self.dirs {
            let listed = Index::read(dir)?;
            closed = listed.newest.max(closed);
            listed.lanes.into_iter().for_each(|(lane, tree)| reach(lane, tree.size()));
        }
        self.look()?;
        for segment in &self.segments {
            if segment.number > closed && segment.is_compressed() {
                let frames = read_list(&segment.frames())?.unwrap_or_default();
                for (lane, seq) in frames.iter().flat_map(|frame| &frame.lanes) {
                    reach(LaneId::from_stored(lane), *seq);
                }
            }
        }
        Ok(ends)
    }

    /// The largest tree that is known of a lane before one of its records; only an index's word.
    pub fn tree_before(&self, lane: &LaneId, seq: u64) -> Result<Frontier, ArchiveError> {
        let mut largest = Frontier::default();
        for dir in &self.dirs {
            Index::each_tree(dir, lane, &mut |tree| {
                if tree.size() < seq && tree.size() > largest.size() {
                    largest = tree;
                }
            })?;
        }
        Ok(largest)
    }

    /// How many segments there are, and how many bytes they have.
    pub fn size(&self) -> (u64, u64) {
        let bytes = |segment: &SegmentFile| std::fs::metadata(&segment.path).map_or(0, |meta| meta.len());
        (self.segments.len() as u64, self.segments.iter().map(bytes).sum())
    }
}

/// Whether what comes next, in this direction, is out of the window of time.
fn is_beyond(frames: &[Frame], backward: bool, wanted: Wanted<'_>) -> bool {
    let mut with_records = frames.iter().filter(|frame| frame.records > 0).peekable();
    let is_beyond = |frame: &Frame| match backward {
        true => wanted.from_us.is_some_and(|from_us| frame.to_us.saturating_add(CLOCK_SLACK_US) < from_us),
        false => wanted.to_us.is_some_and(|to_us| frame.from_us > to_us.saturating_add(CLOCK_SLACK_US)),
    };
    with_records.peek().is_some() && with_records.all(is_beyond)
}

fn read(segment: &SegmentFile, start: u64, end: u64) -> Result<Page, ArchiveError> {
    let mut file = File::open(&segment.path).map_err(ArchiveError::io("read", &segment.path))?;
    let lines = read_frame(&mut file, start, end).ok_or_else(|| ArchiveError::Folder {
        path: segment.frames(),
        problem: "does not fit its segment".to_owned(),
    })?;
    let wrong = |source| ArchiveError::Segment { path: segment.path.clone(), source };
    let mut reader = SegmentReader::of_part(Cursor::new(lines), Header::archive(segment.number, 0));
    if start == 0 {
        // With the header.
        reader = SegmentReader::new(reader.into_input()).map_err(wrong)?.of_open();
    }
    let place = |offset| Place { segment: segment.number, offset };
    let mut page = Page { from: place(start), to: place(end), blocks: Vec::new(), notes: Vec::new() };
    while let Some(item) = reader.next_item().map_err(wrong)? {
        match item {
            Item::Block { lane, bytes, .. } => {
                page.blocks.push((LaneId::from_stored(&lane), bytes.into_owned()));
            }
            Item::Checkpoint { note } => page.notes.push(note.into_owned()),
            Item::Lane { .. } => {}
        }
    }
    Ok(page)
}
