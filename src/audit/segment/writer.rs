//! Writes a file of the trail.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use super::format::{End, Header, MAX_LINE_BYTES};
use super::lines::{Closing, Digits, Line, Running};
use crate::audit::lane::{LaneId, split_block};
use crate::audit::merkle::Frontier;

/// Writes a file, line by line; nothing is kept but the running hash.
pub struct SegmentWriter<W> {
    out: W,
    digits: Digits,
    running: Running,
    line: Vec<u8>,
}

impl<W> fmt::Debug for SegmentWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentWriter").field("running", &self.running).finish_non_exhaustive()
    }
}

impl<W: Write> SegmentWriter<W> {
    /// Writes the header.
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self::resume(out, header, Running::default());
        writer.put(header)?;
        Ok(writer)
    }

    /// Goes on behind lines that were written before.
    pub fn resume(out: W, header: &Header, running: Running) -> Self {
        let digits = Digits::of_version(header.version).unwrap_or(Digits::Hex);
        Self { out, digits, running, line: Vec::new() }
    }

    /// What was written so far.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Where it is written to.
    pub fn out(&mut self) -> &mut W {
        &mut self.out
    }

    /// A lane of which blocks follow: what the registry says of it, and its tree before these blocks.
    pub fn lane(&mut self, lane: &LaneId, registered: Option<&str>, before: &Frontier) -> io::Result<()> {
        self.put(&Line {
            lane: Some(lane.as_str().into()),
            registered: registered.map(Cow::from),
            size: Some(before.size()),
            nodes: Some(before.node_texts().map(Cow::from).collect()),
            ..Line::EMPTY
        })
    }

    /// A block as stored: `bytes` are records, each behind a `u32` length. Bytes that are no such thing are an
    /// error: they cannot be told from other bytes that are none.
    pub fn block(&mut self, lane: &LaneId, first: u64, bytes: &[u8], root: &[u8]) -> io::Result<()> {
        let Some(parts) = split_block(bytes) else {
            let problem = format!("lane {lane} block {first}: its bytes are no block");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        };
        self.running.records += parts.len() as u64;
        // By hand: most of a file is this, and nothing in it needs to be escaped.
        self.line.clear();
        self.line.extend_from_slice(b"{\"lane\":");
        serde_json::to_writer(&mut self.line, lane.as_str())?;
        write!(self.line, ",\"first\":{first},\"records\":[")?;
        for (n, part) in parts.iter().enumerate() {
            self.line.extend_from_slice(if n == 0 { b"\"" } else { b",\"" });
            self.digits.push(part, &mut self.line);
            self.line.push(b'"');
        }
        self.line.extend_from_slice(b"],\"root\":\"");
        self.digits.push(root, &mut self.line);
        self.line.extend_from_slice(b"\"}");
        self.end_line()
    }

    /// A signed checkpoint. All blocks that it covers were written, and none beyond.
    pub fn checkpoint(&mut self, note: &str) -> io::Result<()> {
        self.put(&Line { note: Some(note.into()), ..Line::EMPTY })
    }

    /// The same, with its id in Redis.
    pub fn stored_checkpoint(&mut self, note: &str, id: &str) -> io::Result<()> {
        self.put(&Line { note: Some(note.into()), id: Some(id.into()), ..Line::EMPTY })
    }

    /// Writes the last line and hands the stream back; it is not flushed.
    pub fn finish(mut self) -> io::Result<(W, End)> {
        let end = self.close()?;
        Ok((self.out, end))
    }

    /// Writes the last line.
    pub fn close(&mut self) -> io::Result<End> {
        let end = self.running.end();
        self.put(&Closing { end: end.clone() })?;
        Ok(end)
    }

    fn put<T: Serialize>(&mut self, line: &T) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.end_line()
    }

    fn end_line(&mut self) -> io::Result<()> {
        self.line.push(b'\n');
        if self.line.len() > MAX_LINE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line is longer than the format allows",
            ));
        }
        self.running.line(&self.line);
        self.out.write_all(&self.line)
    }
}
