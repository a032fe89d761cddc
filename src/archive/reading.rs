//! An archive as commands read it, also while a server goes on filling it. Whole segments are checked by their own last lines;
//! parts of them are found by the lists of frames.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read, Seek, SeekFrom, Take};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use zstd::stream::read::Decoder;

use super::ahead;
use super::error::ArchiveError;
use super::folder::{self, SegmentFile};
use super::frames::{self, Frame, each_frame, read_list};
use crate::audit::segment::{Header, Item, SegmentError, SegmentReader};

/// Bytes read from a file in one step.
const READ_BYTES: usize = 256 * 1024;

/// What of an archive is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Records of this time or later, Unix microseconds.
    pub from_us: Option<u64>,
    /// Records before this time, Unix microseconds.
    pub to_us: Option<u64>,
    /// Records that name one of these messages ([`super::message_key`]); empty: whatever they name.
    pub messages: &'a [u32],
    /// Everything is read, whatever is wanted of it: to verify, or because lists of frames are not trusted.
    pub whole: bool,
}

impl Wanted<'_> {
    pub(super) fn wants(&self, frame: &Frame) -> bool {
        frame.records > 0
            && self.from_us.is_none_or(|from_us| frame.to_us >= from_us)
            && self.to_us.is_none_or(|to_us| frame.from_us < to_us)
            && (self.messages.is_empty() || frame.may_name(self.messages))
    }
}

/// What a reader is handed.
#[derive(Debug)]
pub enum Part<'a> {
    /// An item.
    Item(&'a Item<'a>),
    /// A part that is not wanted was left out: the lane stands behind it at this record.
    Passed(&'a str, u64),
}

type On<'a, E> = dyn FnMut(Part<'_>) -> Result<ControlFlow<()>, E> + 'a;

/// An archive that is being read.
#[derive(Debug)]
pub struct Reading {
    dirs: Vec<PathBuf>,
    segments: Vec<SegmentFile>,
    /// The last segment that was read, and how far.
    reached: (u64, u64),
}

impl Reading {
    /// Opens the archive in these folders, of one or of several hosts; `None` where it has no segments.
    pub fn open(dirs: &[PathBuf]) -> Result<Option<Self>, ArchiveError> {
        let reading = Self { dirs: dirs.to_vec(), segments: segments(dirs)?, reached: (0, 0) };
        Ok((!reading.segments.is_empty()).then_some(reading))
    }

    /// The number of its first segment; 1 where nothing was taken away.
    pub fn first(&self) -> u64 {
        self.segments.first().map_or(1, |segment| segment.number)
    }

    /// Whether it is that of several hosts.
    pub fn is_of_several(&self) -> bool {
        self.dirs.len() > 1
    }

    /// The numbers of its segments that hold anything. One that was begun and not filled is none: its number may be a segment's
    /// elsewhere.
    pub fn numbers(&self) -> Result<BTreeSet<u64>, ArchiveError> {
        let mut numbers = BTreeSet::new();
        let mut waiting = self.segments.iter();
        while let Some(segment) = waiting.next() {
            let may_be_empty = segment.is_compressed() && may_be_open(segment, waiting.as_slice());
            if !may_be_empty || committed(segment)? > 0 {
                let _ = numbers.insert(segment.number);
            }
        }
        Ok(numbers)
    }

    /// Whether more was archived since it was read.
    pub fn has_moved(&self) -> Result<bool, ArchiveError> {
        let Some(last) = segments(&self.dirs)?.pop() else {
            return Ok(false);
        };
        let end = if last.is_compressed() { committed(&last)? } else { length(&last.path)? };
        Ok((last.number, end) != self.reached)
    }

    /// Hands out everything that is wanted, in the order in which it is verified. `on` may end it.
    pub fn read<E: From<ArchiveError>>(
        &mut self,
        wanted: Wanted<'_>,
        on: &mut On<'_, E>,
    ) -> Result<ControlFlow<()>, E> {
        let mut waiting = self.segments.clone().into_iter();
        loop {
            while let Some(segment) = waiting.next() {
                let may_be_open = may_be_open(&segment, waiting.as_slice());
                if self.segment(&segment, may_be_open, wanted, on)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            // Closed, and gone on with in a new one, while it was read.
            let mut further = segments(&self.dirs)?;
            further.retain(|segment| segment.number > self.reached.0);
            if further.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            waiting = further.into_iter();
        }
    }

    fn segment<E: From<ArchiveError>>(
        &mut self,
        segment: &SegmentFile,
        may_be_open: bool,
        wanted: Wanted<'_>,
        on: &mut On<'_, E>,
    ) -> Result<ControlFlow<()>, E> {
        self.reached = (segment.number, 0);
        if !segment.is_compressed() {
            let file = File::open(&segment.path).map_err(ArchiveError::io("read", &segment.path))?;
            let file = BufReader::with_capacity(READ_BYTES, file);
            let mut reader = SegmentReader::new(file).map_err(|source| wrong(segment, source))?;
            self.reached.1 = length(&segment.path)?;
            return items(segment, &mut reader, on);
        }
        if !wanted.whole
            && let Some(frames) = read_list(&segment.frames())?
        {
            self.reached.1 = frames.last().map_or(0, |frame| frame.end);
            return parts(segment, &frames, wanted, on);
        }
        let mut end = if may_be_open { committed(segment)? } else { length(&segment.path)? };
        // It was begun, and nothing was appended yet.
        if may_be_open && end == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        if length(&segment.path)? < end {
            let problem = "is shorter than its list of frames says".to_owned();
            return Err(ArchiveError::Folder { path: segment.path.clone(), problem }.into());
        }
        let reader = SegmentReader::new(input(&segment.path, 0, end)?);
        let mut reader = reader.map_err(|source| wrong(segment, source))?;
        let stated = reader.header().number;
        if stated != segment.number {
            let problem = format!("is segment {stated}, and not {}", segment.number);
            return Err(ArchiveError::Folder { path: segment.path.clone(), problem }.into());
        }
        if may_be_open {
            reader = reader.of_open();
        }
        loop {
            self.reached.1 = end;
            let not_started = |error| ArchiveError::io("read", &segment.path)(error).into();
            let mut each = |item: &Item<'_>| on(Part::Item(item));
            let read =
                ahead::each_item(reader, &mut each, &not_started, &|error| wrong(segment, error).into())?;
            let ControlFlow::Continue(back) = read else {
                return Ok(ControlFlow::Break(()));
            };
            reader = back;
            let now = if may_be_open && reader.end().is_none() { committed(segment)? } else { end };
            if now <= end {
                return Ok(ControlFlow::Continue(()));
            }
            *reader.input() = input(&segment.path, end, now)?;
            end = now;
        }
    }
}

/// Whether this segment may be one that is being filled: each host has one, the last in its folder.
fn may_be_open(segment: &SegmentFile, later: &[SegmentFile]) -> bool {
    later.iter().all(|later| later.path.parent() != segment.path.parent())
}

/// The segments in these folders, in their order. Of two of one number the second is another one's copy, or another history:
/// the lanes in it tell.
fn segments(dirs: &[PathBuf]) -> Result<Vec<SegmentFile>, ArchiveError> {
    let mut all = Vec::new();
    for dir in dirs {
        all.extend(folder::segments(dir)?);
    }
    all.sort_by_key(|segment| segment.number);
    Ok(all)
}

/// Hands out what a reader still has.
fn items<R: BufRead, E: From<ArchiveError>>(
    segment: &SegmentFile,
    reader: &mut SegmentReader<R>,
    on: &mut On<'_, E>,
) -> Result<ControlFlow<()>, E> {
    while let Some(item) = reader.next_item().map_err(|source| wrong(segment, source))? {
        if on(Part::Item(&item))?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// Hands out the frames that are wanted.
fn parts<E: From<ArchiveError>>(
    segment: &SegmentFile,
    frames: &[Frame],
    wanted: Wanted<'_>,
    on: &mut On<'_, E>,
) -> Result<ControlFlow<()>, E> {
    let mut file = File::open(&segment.path).map_err(ArchiveError::io("read", &segment.path))?;
    let mut start = 0;
    for frame in frames {
        if wanted.wants(frame) {
            let lines =
                frames::read_frame(&mut file, start, frame.end).ok_or_else(|| ArchiveError::Folder {
                    path: segment.frames(),
                    problem: "does not fit its segment; read with --no-index".to_owned(),
                })?;
            let mut reader = SegmentReader::of_part(Cursor::new(lines), Header::archive(segment.number, 0));
            if start == 0 {
                // With the header.
                reader = SegmentReader::new(reader.into_input())
                    .map_err(|source| wrong(segment, source))?
                    .of_open();
            }
            if items(segment, &mut reader, on)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        for (lane, last) in &frame.lanes {
            if on(Part::Passed(lane, *last))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        start = frame.end;
    }
    Ok(ControlFlow::Continue(()))
}

fn wrong(segment: &SegmentFile, source: SegmentError) -> ArchiveError {
    ArchiveError::Segment { path: segment.path.clone(), source }
}

/// A part of a segment's file, from one frame's end to another's, decompressed.
type Input = BufReader<Decoder<'static, BufReader<Take<File>>>>;

fn input(path: &Path, from: u64, to: u64) -> Result<Input, ArchiveError> {
    let fail = || ArchiveError::io("read", path);
    let mut file = File::open(path).map_err(fail())?;
    let _ = file.seek(SeekFrom::Start(from)).map_err(fail())?;
    let part = BufReader::with_capacity(READ_BYTES, file.take(to - from));
    let decoder = Decoder::with_buffer(part).map_err(fail())?;
    Ok(BufReader::with_capacity(READ_BYTES, decoder))
}

/// How much of a segment that may still be filled is good.
fn committed(segment: &SegmentFile) -> Result<u64, ArchiveError> {
    if let Some(last) = read_list(&segment.frames())?.and_then(|mut frames| frames.pop()) {
        return Ok(last.end);
    }
    let bytes = match std::fs::read(&segment.path) {
        // It was begun, given up before anything was appended, and removed since it was found.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        bytes => bytes.map_err(ArchiveError::io("read", &segment.path))?,
    };
    let mut good = 0;
    each_frame(&bytes, &mut |end, _| {
        good = end;
        Ok(())
    })?;
    Ok(good)
}

fn length(path: &Path) -> Result<u64, ArchiveError> {
    let meta = std::fs::metadata(path).map_err(ArchiveError::io("read", path))?;
    Ok(meta.len())
}
