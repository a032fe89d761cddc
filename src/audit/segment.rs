//! The file format of exports and of archived segments: what is in Redis, as lines of JSON that any tool
//! can read and that prove as much as the original does. Pure: reads and writes streams that it is given.
//!
//! ```text
//! {"mas_audit_segment":1,"kind":"archive","number":7,"made_us":…,"from_us":null,"to_us":null}
//! {"lane":"…","registered":"…","size":512,"nodes":["base64",…]}
//! {"lane":"…","first":513,"records":["base64",…],"root":"base64"}
//! {"note":"a signed checkpoint"}
//! {"end":{"lines":4,"records":16,"sha256":"hex of all lines before this one"}}
//! ```
//!
//! Order is part of the format, so that it is verified in one pass and in constant memory: a lane's line
//! stands before its blocks; its blocks stand in their order; **a checkpoint stands behind the blocks that it
//! covers and before those that it does not.** A file that does not begin at a lane's first record says
//! what the tree was before (`size`, `nodes`: the roots of its complete subtrees, largest first).
//! Records are bytes in base64, never fields: what is hashed is what is stored.

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::attest::NotOurs;
use super::lane::LaneId;
use super::merkle::{Frontier, Hash};
use crate::ids::hex;

/// Version of the format.
pub const SEGMENT_VERSION: u32 = 1;
/// Longest line, in bytes, with its newline. A block is one transaction's records: at most some hundred,
/// each of some kilobytes.
pub const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;
/// Longest signed checkpoint, in bytes.
pub const MAX_NOTE_BYTES: usize = 16 * 1024 * 1024;
/// How the last line begins, and no other.
const END_PREFIX: &[u8] = b"{\"end\":";
/// Most nodes of a lane's tree.
const MAX_NODES: usize = 64;

/// Why a file was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SegmentKind {
    /// By an operator, to be looked at elsewhere.
    Export,
    /// By the server, before Redis is trimmed.
    Archive,
}

/// The first line: what the file covers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`SEGMENT_VERSION`].
    #[serde(rename = "mas_audit_segment")]
    pub version: u32,
    /// Why it was made.
    pub kind: SegmentKind,
    /// Archives are numbered from 1, without gaps; 0: an export.
    pub number: u64,
    /// When it was made, Unix microseconds.
    pub made_us: u64,
    /// Blocks that end before this time were left out, Unix microseconds; `None`: from the start.
    pub from_us: Option<u64>,
    /// Blocks that begin at or after this time were left out, Unix microseconds; `None`: to the end.
    pub to_us: Option<u64>,
}

impl Header {
    /// The header of archive number `number`.
    pub fn archive(number: u64, made_us: u64) -> Self {
        Self {
            version: SEGMENT_VERSION,
            kind: SegmentKind::Archive,
            number,
            made_us,
            from_us: None,
            to_us: None,
        }
    }

    /// The header of an export of everything between two times.
    pub fn export(made_us: u64, from_us: Option<u64>, to_us: Option<u64>) -> Self {
        Self { version: SEGMENT_VERSION, kind: SegmentKind::Export, number: 0, made_us, from_us, to_us }
    }
}

/// What a block's tag says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attested {
    /// It was not looked at: files have no tags, or there is no store key at hand.
    NotLooked,
    /// A server, or an operator's command, has written the block.
    Ours,
    /// Nobody of these has.
    Foreign,
    /// It names a store key that is not at hand.
    OtherKey,
}

impl From<Result<(), NotOurs>> for Attested {
    fn from(checked: Result<(), NotOurs>) -> Self {
        match checked {
            Ok(()) => Self::Ours,
            Err(NotOurs::Foreign) => Self::Foreign,
            Err(NotOurs::UnknownKey) => Self::OtherKey,
        }
    }
}

/// What stands between the first and the last line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    /// A lane of which blocks may follow.
    Lane {
        /// Its id.
        lane: Cow<'a, str>,
        /// What the registry says of it; `None`: it is not registered.
        registered: Option<Cow<'a, str>>,
        /// The tree before its first block in this file.
        before: Frontier,
    },
    /// What one transaction appended to a lane.
    Block {
        /// The lane.
        lane: Cow<'a, str>,
        /// Sequence of the first record.
        first: u64,
        /// The records, each behind a `u32` length, as stored.
        bytes: Cow<'a, [u8]>,
        /// The stored root of the lane after the last record.
        root: Cow<'a, [u8]>,
        /// Whether it has a server's tag.
        attested: Attested,
    },
    /// A signed checkpoint, as text.
    Checkpoint {
        /// The note.
        note: Cow<'a, str>,
    },
}

/// The lines as JSON. Borrowed text has no escapes: base64 and lane ids need none.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    lane: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    registered: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    nodes: Option<Vec<Cow<'a, str>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    records: Option<Vec<&'a str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    root: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    note: Option<Cow<'a, str>>,
}

/// The last line as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Closing {
    end: End,
}

impl Line<'_> {
    const EMPTY: Self = Self {
        lane: None,
        registered: None,
        size: None,
        nodes: None,
        first: None,
        records: None,
        root: None,
        note: None,
    };
}

/// The last line: what must have been before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct End {
    /// Lines before this one.
    pub lines: u64,
    /// Records in them.
    pub records: u64,
    /// SHA-256 of these lines with their newlines, lower-case hexadecimal.
    pub sha256: String,
}

/// Writes a file, line by line; nothing is kept but the running hash.
pub struct SegmentWriter<W> {
    out: W,
    hash: Sha256,
    line: Vec<u8>,
    lines: u64,
    records: u64,
}

impl<W> fmt::Debug for SegmentWriter<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SegmentWriter").field("lines", &self.lines).finish_non_exhaustive()
    }
}

impl<W: Write> SegmentWriter<W> {
    /// Writes the header.
    pub fn new(out: W, header: &Header) -> io::Result<Self> {
        let mut writer = Self { out, hash: Sha256::new(), line: Vec::new(), lines: 0, records: 0 };
        writer.put(header)?;
        Ok(writer)
    }

    /// A lane of which blocks follow: what the registry says of it, and its tree before these blocks.
    pub fn lane(&mut self, lane: &LaneId, registered: Option<&str>, before: &Frontier) -> io::Result<()> {
        let nodes = before.nodes().iter().map(|node| BASE64.encode(node).into()).collect();
        self.put(&Line {
            lane: Some(lane.as_str().into()),
            registered: registered.map(Cow::from),
            size: Some(before.size()),
            nodes: Some(nodes),
            ..Line::EMPTY
        })
    }

    /// A block as stored: `bytes` are records, each behind a `u32` length. Bytes that are no such thing are an
    /// error: they cannot be told from other bytes that are none.
    pub fn block(&mut self, lane: &LaneId, first: u64, bytes: &[u8], root: &[u8]) -> io::Result<()> {
        let Some(parts) = super::lane::split_block(bytes) else {
            let problem = format!("lane {lane} block {first}: its bytes are no block");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
        };
        self.records += parts.len() as u64;
        let texts: Vec<String> = parts.iter().map(|part| BASE64.encode(part)).collect();
        self.put(&Line {
            lane: Some(lane.as_str().into()),
            first: Some(first),
            records: Some(texts.iter().map(String::as_str).collect()),
            root: Some(BASE64.encode(root).into()),
            ..Line::EMPTY
        })
    }

    /// A signed checkpoint. All blocks that it covers were written, and none beyond.
    pub fn checkpoint(&mut self, note: &str) -> io::Result<()> {
        self.put(&Line { note: Some(note.into()), ..Line::EMPTY })
    }

    /// Writes the last line and hands the stream back; it is not flushed.
    pub fn finish(mut self) -> io::Result<(W, End)> {
        let digest: Hash = self.hash.clone().finalize().into();
        let end = End { lines: self.lines, records: self.records, sha256: hex(&digest) };
        self.put(&Closing { end: end.clone() })?;
        Ok((self.out, end))
    }

    fn put<T: Serialize>(&mut self, line: &T) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        if self.line.len() > MAX_LINE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line is longer than the format allows",
            ));
        }
        self.hash.update(&self.line);
        self.lines += 1;
        self.out.write_all(&self.line)
    }
}

/// Why a file cannot be read as a segment.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The stream failed.
    #[error("line {line}: {source}")]
    Io {
        /// The line that was to be read, from 1.
        line: u64,
        /// Why.
        source: io::Error,
    },
    /// The line is not what the format demands.
    #[error("line {line}: expected {expected}")]
    Expected {
        /// The line, from 1.
        line: u64,
        /// What should stand there.
        expected: String,
    },
}

/// Reads a file, line by line, in memory for one line.
pub struct SegmentReader<R> {
    input: R,
    header: Header,
    hash: Sha256,
    line: Vec<u8>,
    block: Vec<u8>,
    root: Vec<u8>,
    lines: u64,
    records: u64,
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
        if header.version != SEGMENT_VERSION {
            let found = header.version;
            return Err(expected(1, format!("format version {SEGMENT_VERSION}, found {found}")));
        }
        let mut hash = Sha256::new();
        hash.update(&line);
        Ok(Self {
            input,
            header,
            hash,
            line,
            block: Vec::new(),
            root: Vec::new(),
            lines: 1,
            records: 0,
            ended: None,
        })
    }

    /// What the file covers.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The line that was read last, from 1.
    pub fn line_number(&self) -> u64 {
        self.lines
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
        let number = self.lines + 1;
        if !read_line(&mut self.input, &mut self.line, number)? {
            return Err(expected(number, "the closing line: the file was cut off"));
        }
        self.lines = number;
        if self.line.starts_with(END_PREFIX) {
            let Closing { end } = serde_json::from_slice(&self.line)
                .map_err(|error| expected(number, format!("the closing line ({error})")))?;
            self.close(end)?;
            return Ok(None);
        }
        self.hash.update(&self.line);
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
            } => {
                self.records += records.len() as u64;
                read_block(&mut self.block, &mut self.root, &records, &root, number)?;
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
            } => {
                if note.len() > MAX_NOTE_BYTES {
                    return Err(expected(number, format!("a note of at most {MAX_NOTE_BYTES} bytes")));
                }
                Ok(Some(Item::Checkpoint { note }))
            }
            _ => Err(expected(number, "a lane, a block, a note or the end, with exactly its members")),
        }
    }

    /// Checks the closing line against what was read.
    fn close(&mut self, end: End) -> Result<(), SegmentError> {
        let number = self.lines;
        let digest: Hash = self.hash.clone().finalize().into();
        let read = End { lines: number - 1, records: self.records, sha256: hex(&digest) };
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

/// A lane's tree before its first block in the file.
fn frontier(size: u64, nodes: &[Cow<'_, str>], line: u64) -> Result<Frontier, SegmentError> {
    let nodes = nodes
        .iter()
        .take(MAX_NODES + 1)
        .map(|node| Hash::try_from(decode(node, line)?).map_err(|_| bad_hash(line)))
        .collect::<Result<Vec<Hash>, SegmentError>>()?;
    Frontier::from_parts(size, nodes)
        .ok_or_else(|| expected(line, "as many nodes as a tree of that size has"))
}

/// A block's records and its root, into buffers that are kept.
fn read_block(
    block: &mut Vec<u8>,
    root: &mut Vec<u8>,
    records: &[&str],
    root_text: &str,
    line: u64,
) -> Result<(), SegmentError> {
    block.clear();
    for record in records {
        push_record(block, record, line)?;
    }
    root.clear();
    BASE64.decode_vec(root_text.as_bytes(), root).map_err(|error| expected(line, format!("base64 ({error})")))
}

fn push_record(block: &mut Vec<u8>, text: &str, line: u64) -> Result<(), SegmentError> {
    let start = block.len();
    block.extend_from_slice(&[0; 4]);
    BASE64.decode_vec(text, block).map_err(|error| expected(line, format!("records in base64 ({error})")))?;
    // A line is bounded far below u32::MAX.
    let length = (block.len() - start - 4) as u32;
    if let Some(prefix) = block.get_mut(start..start + 4) {
        prefix.copy_from_slice(&length.to_be_bytes());
    }
    Ok(())
}

fn decode(text: &str, line: u64) -> Result<Vec<u8>, SegmentError> {
    BASE64.decode(text).map_err(|error| expected(line, format!("base64 ({error})")))
}

fn bad_hash(line: u64) -> SegmentError {
    expected(line, "nodes of 32 bytes")
}

fn expected(line: u64, what: impl Into<String>) -> SegmentError {
    SegmentError::Expected { line, expected: what.into() }
}

/// Reads one line with its newline; false at the end of the file.
fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>, number: u64) -> Result<bool, SegmentError> {
    line.clear();
    let read = input
        .by_ref()
        .take(MAX_LINE_BYTES as u64)
        .read_until(b'\n', line)
        .map_err(|source| SegmentError::Io { line: number, source })?;
    if read == 0 {
        return Ok(false);
    }
    if line.last() != Some(&b'\n') {
        let what = if read == MAX_LINE_BYTES {
            format!("a line of at most {MAX_LINE_BYTES} bytes")
        } else {
            "a newline: the file was cut off".to_owned()
        };
        return Err(expected(number, what));
    }
    Ok(true)
}

#[cfg(test)]
mod tests;
