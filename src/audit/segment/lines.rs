//! The lines of a file: their members, their digits, and what is counted of them.

use std::borrow::Cow;
use std::io::{BufRead, Read};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::format::{BASE64_VERSION, End, HEX_VERSION, MAX_LINE_BYTES, SegmentError, expected};
use crate::audit::merkle::{Frontier, Hash};
use crate::ids::hex;

/// How the last line begins, and no other.
pub(super) const END_PREFIX: &[u8] = b"{\"end\":";
/// Most nodes of a lane's tree.
const MAX_NODES: usize = 64;

/// The lines as JSON. Borrowed text has no escapes: base64 and lane ids need none.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) lane: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) registered: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) nodes: Option<Vec<Cow<'a, str>>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<u64>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) records: Option<Vec<&'a str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) root: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) note: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Cow<'a, str>>,
}

/// The last line as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Closing {
    pub(super) end: End,
}

impl Line<'_> {
    pub(super) const EMPTY: Self = Self {
        lane: None,
        registered: None,
        size: None,
        nodes: None,
        first: None,
        records: None,
        root: None,
        note: None,
        id: None,
    };
}

/// A lane's tree before its first block in the file.
pub(super) fn frontier(size: u64, nodes: &[Cow<'_, str>], line: u64) -> Result<Frontier, SegmentError> {
    let nodes = nodes
        .iter()
        .take(MAX_NODES + 1)
        .map(|node| Hash::try_from(decode(node, line)?).map_err(|_| bad_hash(line)))
        .collect::<Result<Vec<Hash>, SegmentError>>()?;
    Frontier::from_parts(size, nodes)
        .ok_or_else(|| expected(line, "as many nodes as a tree of that size has"))
}

/// How records and roots are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digits {
    Base64,
    Hex,
}

impl Digits {
    /// Those of a version of the format.
    pub(super) fn of_version(version: u32) -> Option<Self> {
        match version {
            BASE64_VERSION => Some(Self::Base64),
            HEX_VERSION => Some(Self::Hex),
            _ => None,
        }
    }

    /// Appends what stands for `bytes`.
    pub(super) fn push(self, bytes: &[u8], text: &mut Vec<u8>) {
        let start = text.len();
        match self {
            Self::Base64 => {
                text.resize(start + bytes.len().div_ceil(3) * 4, 0);
                let written = BASE64.encode_slice(bytes, text.get_mut(start..).unwrap_or_default());
                text.truncate(start + written.unwrap_or_default());
            }
            Self::Hex => {
                text.resize(start + HEXLOWER.encode_len(bytes.len()), 0);
                HEXLOWER.encode_mut(bytes, text.get_mut(start..).unwrap_or_default());
            }
        }
    }

    /// Appends the bytes that `text` stands for.
    fn decode(self, text: &str, bytes: &mut Vec<u8>, line: u64) -> Result<(), SegmentError> {
        match self {
            Self::Base64 => BASE64
                .decode_vec(text, bytes)
                .map_err(|error| expected(line, format!("records in base64 ({error})"))),
            Self::Hex => {
                let wrong = |error| expected(line, format!("records in hexadecimal ({error})"));
                let start = bytes.len();
                bytes.resize(start + HEXLOWER.decode_len(text.len()).map_err(wrong)?, 0);
                let room = bytes.get_mut(start..).unwrap_or_default();
                HEXLOWER.decode_mut(text.as_bytes(), room).map_err(|partial| wrong(partial.error)).map(drop)
            }
        }
    }
}

/// What is known of the lines so far.
#[derive(Debug, Clone, Default)]
pub struct Running {
    hash: Sha256,
    pub(super) lines: u64,
    pub(super) records: u64,
}

impl Running {
    /// One more line, with its newline.
    pub fn line(&mut self, line: &[u8]) {
        self.hash.update(line);
        self.lines += 1;
    }

    /// Lines so far.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Records so far.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// What the last line would say now.
    pub fn end(&self) -> End {
        let digest: Hash = self.hash.clone().finalize().into();
        End { lines: self.lines, records: self.records, sha256: hex(&digest) }
    }
}

/// A block's records and its root, into buffers that are kept.
pub(super) fn read_block(
    digits: Digits,
    block: &mut Vec<u8>,
    root: &mut Vec<u8>,
    (records, root_text): (&[&str], &str),
    line: u64,
) -> Result<(), SegmentError> {
    block.clear();
    for record in records {
        push_record(digits, block, record, line)?;
    }
    root.clear();
    digits.decode(root_text, root, line)
}

fn push_record(digits: Digits, block: &mut Vec<u8>, text: &str, line: u64) -> Result<(), SegmentError> {
    let start = block.len();
    block.extend_from_slice(&[0; 4]);
    digits.decode(text, block, line)?;
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

/// Reads one line with its newline; false at the end of the file.
pub(super) fn read_line(
    input: &mut impl BufRead,
    line: &mut Vec<u8>,
    number: u64,
) -> Result<bool, SegmentError> {
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
