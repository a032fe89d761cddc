//! Reads a file of the trail.

use std::borrow::Cow;
use std::fmt;
use std::io::BufRead;

use super::format::{
    Attested, BASE64_VERSION, End, HEX_VERSION, Header, Item, MAX_NOTE_BYTES, SegmentError, expected,
};
use super::lines::{Closing, Digits, END_PREFIX, Line, Running, frontier, read_block, read_line};

/// Reads a file, line by line, in memory for one line.
pub struct SegmentReader<R> {
    input: R,
    header: Header,
    digits: Digits,
    running: Running,
    /// The file is still being filled: it may end without a last line.
    open: bool,
    /// It is read from its middle on: its last line tells nothing.
    part: bool,
    line: Vec<u8>,
    block: Vec<u8>,
    root: Vec<u8>,
    /// The id in Redis of the newest checkpoint, where the file says it.
    stored_as: Option<String>,
    ended: Option<End>,
}

impl<R> fmt::Debug for SegmentReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentReader").field("header", &self.header).finish_non_exhaustive()
    }
}

impl<R: BufRead> SegmentReader<R> {
    /// Reads the header.
    pub fn new(mut input: R) -> Result<Self, SegmentError> {
        let mut line = Vec::new();
        if !read_line(&mut input, &mut line, 1)? {
            return Err(expected(1, "the header of an audit segment, found the end of the file"));
        }
        let header: Header = serde_json::from_slice(&line)
            .map_err(|error| expected(1, format!("the header of an audit segment ({error})")))?;
        let found = header.version;
        let digits = Digits::of_version(found).ok_or_else(|| {
            expected(1, format!("format version {BASE64_VERSION} or {HEX_VERSION}, found {found}"))
        })?;
        let mut running = Running::default();
        running.line(&line);
        Ok(Self {
            input,
            header,
            digits,
            running,
            open: false,
            part: false,
            line,
            block: Vec::new(),
            root: Vec::new(),
            stored_as: None,
            ended: None,
        })
    }

    /// Reads lines out of the middle of a file that begins with `header`: nothing is checked but each line.
    pub fn of_part(input: R, header: Header) -> Self {
        Self {
            input,
            digits: Digits::of_version(header.version).unwrap_or(Digits::Hex),
            header,
            running: Running::default(),
            open: true,
            part: true,
            line: Vec::new(),
            block: Vec::new(),
            root: Vec::new(),
            stored_as: None,
            ended: None,
        }
    }

    /// What it reads from.
    pub fn into_input(self) -> R {
        self.input
    }

    /// Takes a file that is still being filled: where it ends without a last line, [`Self::next_item`] returns `None`, and
    /// goes on there once there is more.
    pub fn of_open(mut self) -> Self {
        self.open = true;
        self
    }

    /// Where it is read from.
    pub fn input(&mut self) -> &mut R {
        &mut self.input
    }

    /// What was read so far.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The id in Redis of the checkpoint that was read last, where the file says it.
    pub fn stored_as(&self) -> Option<&str> {
        self.stored_as.as_deref()
    }

    /// What the file covers.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The line that was read last, from 1.
    pub fn line_number(&self) -> u64 {
        self.running.lines + u64::from(self.ended.is_some())
    }

    /// The last line, once [`Self::next_item`] has returned `None`.
    pub fn end(&self) -> Option<&End> {
        self.ended.as_ref()
    }

    /// The next item; `None` behind the last line, which has proved the file to be whole.
    pub fn next_item(&mut self) -> Result<Option<Item<'_>>, SegmentError> {
        if self.ended.is_some() {
            return Ok(None);
        }
        let number = self.running.lines + 1;
        if !read_line(&mut self.input, &mut self.line, number)? {
            if self.open {
                return Ok(None);
            }
            return Err(expected(number, "the closing line: the file was cut off"));
        }
        if self.part && self.line.starts_with(END_PREFIX) {
            return Ok(None);
        }
        if self.line.starts_with(END_PREFIX) {
            let Closing { end } = serde_json::from_slice(&self.line)
                .map_err(|error| expected(number, format!("the closing line ({error})")))?;
            self.close(end, number)?;
            return Ok(None);
        }
        self.running.line(&self.line);
        let line: Line<'_> = serde_json::from_slice(&self.line)
            .map_err(|error| expected(number, format!("a line of an audit segment ({error})")))?;
        match line {
            Line {
                lane: Some(lane),
                registered,
                size: Some(size),
                nodes: Some(nodes),
                first: None,
                records: None,
                root: None,
                note: None,
                id: None,
            } => {
                let before = frontier(size, &nodes, number)?;
                Ok(Some(Item::Lane { lane, registered, before }))
            }
            Line {
                lane: Some(lane),
                registered: None,
                size: None,
                nodes: None,
                first: Some(first),
                records: Some(records),
                root: Some(root),
                note: None,
                id: None,
            } => {
                self.running.records += records.len() as u64;
                read_block(self.digits, &mut self.block, &mut self.root, (&records, &root), number)?;
                let (bytes, root) = (Cow::Borrowed(&*self.block), Cow::Borrowed(&*self.root));
                Ok(Some(Item::Block { lane, first, bytes, root, attested: Attested::NotLooked }))
            }
            Line {
                lane: None,
                registered: None,
                size: None,
                nodes: None,
                first: None,
                records: None,
                root: None,
                note: Some(note),
                id,
            } => {
                if note.len() > MAX_NOTE_BYTES {
                    return Err(expected(number, format!("a note of at most {MAX_NOTE_BYTES} bytes")));
                }
                self.stored_as = id.map(Cow::into_owned);
                Ok(Some(Item::Checkpoint { note }))
            }
            _ => Err(expected(number, "a lane, a block, a note or the end, with exactly its members")),
        }
    }

    /// Checks the closing line against what was read.
    fn close(&mut self, end: End, number: u64) -> Result<(), SegmentError> {
        let read = self.running.end();
        if read.lines != end.lines || read.records != end.records {
            let (lines, records) = (read.lines, read.records);
            return Err(expected(
                number,
                format!(
                    "the count of what was read ({lines} lines, {records} records), found {} and {}",
                    end.lines, end.records
                ),
            ));
        }
        if read.sha256 != end.sha256 {
            return Err(expected(number, "the SHA-256 of the lines before: a line was altered"));
        }
        let mut further = Vec::new();
        if read_line(&mut self.input, &mut further, number + 1)? {
            return Err(expected(number + 1, "the end of the file"));
        }
        self.ended = Some(end);
        Ok(())
    }
}
