//! A segment's frames: each is a zstd frame of whole lines, so that one can be read without those before it, and a file that is
//! being filled is cut back to a frame's end after a crash.
//!
//! The list of frames beside a segment (`segment-00000007.frames`, lines of JSON) says where each frame ends and what is in
//! it: times, lanes, and the keys of its messages. Commands use it to read what they need. It is derived from the segment, and
//! vouches for nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zstd::bulk::Compressor;

use super::error::ArchiveError;
use crate::audit::segment::MAX_LINE_BYTES;
use crate::audit::{LaneId, View};

/// Bytes of lines at which a frame ends.
pub(super) const FRAME_BYTES: usize = 1024 * 1024;
/// Most bytes of lines that a frame can have: one line more than it was to have.
const MAX_FRAME_BYTES: usize = FRAME_BYTES + MAX_LINE_BYTES;
/// Effort of compression. Level 3 took 0.8 µs of CPU a message more at full speed, and made files no smaller.
pub(super) const LEVEL: i32 = 1;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Frame {
    /// Where it ends in the segment's file.
    pub(super) end: u64,
    /// Records in it.
    pub(super) records: u64,
    /// Time of its oldest record, Unix microseconds; 0 where it has none.
    pub(super) from_us: u64,
    /// Time of its newest record.
    pub(super) to_us: u64,
    /// By lane, its last record in the frame.
    pub(super) lanes: BTreeMap<String, u64>,
    /// Keys of the messages and correlations that its records name, sorted, four bytes each, in base64.
    messages: String,
}

impl Frame {
    /// Whether a record in it may name one of these.
    pub(super) fn may_name(&self, keys: &[u32]) -> bool {
        let Ok(bytes) = BASE64.decode(&self.messages) else {
            return true;
        };
        let (stored, _) = bytes.as_chunks::<4>();
        keys.iter().any(|key| stored.binary_search_by_key(key, |bytes| u32::from_be_bytes(*bytes)).is_ok())
    }
}

/// The key of a message's id, or of a correlation, in lists of frames.
pub fn message_key(id: &[u8]) -> u32 {
    let digest = Sha256::digest(id);
    digest.first_chunk::<4>().copied().map_or(0, u32::from_be_bytes)
}

/// What the lines of a frame hold.
#[derive(Debug, Default)]
pub(super) struct Contents {
    records: u64,
    times_us: Option<(u64, u64)>,
    lanes: BTreeMap<String, u64>,
    messages: Vec<u32>,
}

impl Contents {
    /// Adds a block of a lane.
    pub(super) fn block(&mut self, lane: &LaneId, last_seq: u64, records: &[&[u8]]) {
        self.records += records.len() as u64;
        match self.lanes.get_mut(lane.as_str()) {
            Some(last) => *last = last_seq,
            None => drop(self.lanes.insert(lane.to_string(), last_seq)),
        }
        for record in records.iter().copied().filter_map(View::decode) {
            let (from_us, to_us) = self.times_us.unwrap_or((record.time_us, record.time_us));
            self.times_us = Some((from_us.min(record.time_us), to_us.max(record.time_us)));
            self.messages.extend(record.message_id.map(|id| message_key(id.as_bytes())));
            self.messages.extend(record.correlation_id.map(|id| message_key(id.as_ref())));
            self.messages.extend(record.messages.iter().map(|(id, _)| message_key(id.as_bytes())));
        }
    }

    /// The frame that ends at `end`, and begins anew.
    pub(super) fn take(&mut self, end: u64) -> Frame {
        let Self { records, times_us, lanes, mut messages } = std::mem::take(self);
        messages.sort_unstable();
        messages.dedup();
        let bytes: Vec<u8> = messages.iter().flat_map(|key| key.to_be_bytes()).collect();
        let (from_us, to_us) = times_us.unwrap_or((0, 0));
        Frame { end, records, from_us, to_us, lanes, messages: BASE64.encode(bytes) }
    }
}

/// Writes frames behind those that are in a file.
pub(super) struct FrameWriter<'a> {
    file: &'a File,
    compressor: Compressor<'static>,
    end: u64,
    lines: Vec<u8>,
    /// What the lines of the frame in the making hold.
    pub(super) contents: Contents,
    /// The frames that are written.
    pub(super) frames: Vec<Frame>,
}

impl<'a> FrameWriter<'a> {
    /// `file` is `end` bytes long, and its position is there.
    pub(super) fn new(file: &'a File, end: u64) -> io::Result<Self> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        compressor.include_contentsize(true)?;
        let (lines, contents, frames) = (Vec::new(), Contents::default(), Vec::new());
        Ok(Self { file, compressor, end, lines, contents, frames })
    }

    /// Ends the frame in the making, where it has lines.
    pub(super) fn end_frame(&mut self) -> io::Result<()> {
        if self.lines.is_empty() {
            return Ok(());
        }
        let frame = self.compressor.compress(&self.lines)?;
        self.file.write_all(&frame)?;
        self.end += frame.len() as u64;
        self.lines.clear();
        let ended = self.contents.take(self.end);
        self.frames.push(ended);
        Ok(())
    }
}

impl Write for FrameWriter<'_> {
    /// One call for each line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.lines.extend_from_slice(line);
        if self.lines.len() >= FRAME_BYTES {
            self.end_frame()?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines of a list of frames.
pub(super) fn lines_of(frames: &[Frame]) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for frame in frames {
        serde_json::to_writer(&mut lines, frame)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// Reads a list of frames. A last line that is not whole is left out; `None` where there is no list, or it is no such list.
pub(super) fn read_list(path: &Path) -> Result<Option<Vec<Frame>>, ArchiveError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(ArchiveError::io("read", path))?,
    };
    let mut input = BufReader::with_capacity(FRAME_BYTES, file);
    let (mut frames, mut line, mut end) = (Vec::new(), Vec::new(), 0);
    loop {
        line.clear();
        let _ = input.read_until(b'\n', &mut line).map_err(ArchiveError::io("read", path))?;
        if line.last() != Some(&b'\n') {
            return Ok(Some(frames));
        }
        match serde_json::from_slice::<Frame>(&line) {
            Ok(frame) if frame.end > end => {
                end = frame.end;
                frames.push(frame);
            }
            _ => return Ok(None),
        }
    }
}

/// Takes the lines of a frame, and where it ends.
pub(super) type OnFrame<'a> = dyn FnMut(u64, &[u8]) -> Result<(), ArchiveError> + 'a;

/// The whole frames at the beginning of `bytes`: where each ends, and its lines. What is no whole frame ends it.
pub(super) fn each_frame(bytes: &[u8], on: &mut OnFrame<'_>) -> Result<(), ArchiveError> {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let Ok(size) = zstd::zstd_safe::find_frame_compressed_size(rest) else {
            return Ok(());
        };
        let Some(frame) = rest.get(..size) else {
            return Ok(());
        };
        let Ok(lines) = zstd::bulk::decompress(frame, MAX_FRAME_BYTES) else {
            return Ok(());
        };
        at += size;
        on(at as u64, &lines)?;
    }
    Ok(())
}

/// The lines of one frame; `None` where the file has no frame there.
pub(super) fn read_frame(file: &mut File, from: u64, to: u64) -> Option<Vec<u8>> {
    let _ = file.seek(SeekFrom::Start(from)).ok()?;
    let mut bytes = Vec::new();
    let _ = file.take(to - from).read_to_end(&mut bytes).ok()?;
    zstd::bulk::decompress(&bytes, MAX_FRAME_BYTES).ok()
}
