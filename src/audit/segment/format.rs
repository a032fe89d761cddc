//! What a file of the trail consists of.

use std::borrow::Cow;
use std::io;

use serde::{Deserialize, Serialize};

use crate::audit::attest::NotOurs;
use crate::audit::merkle::Frontier;

/// Version of the format with records in base64.
pub(super) const BASE64_VERSION: u32 = 1;
/// Version of the format with records in hexadecimal.
pub(super) const HEX_VERSION: u32 = 2;
/// Longest line, in bytes, with its newline. A block is one transaction's records: at most some hundred,
/// each of some kilobytes.
pub const MAX_LINE_BYTES: usize = 64 * 1024 * 1024;
/// Longest signed checkpoint, in bytes.
pub const MAX_NOTE_BYTES: usize = 16 * 1024 * 1024;

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
    /// Of the format: 1 or 2.
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
        Self { version: HEX_VERSION, kind: SegmentKind::Archive, number, made_us, from_us: None, to_us: None }
    }

    /// The header of an export of everything between two times.
    pub fn export(made_us: u64, from_us: Option<u64>, to_us: Option<u64>) -> Self {
        Self { version: BASE64_VERSION, kind: SegmentKind::Export, number: 0, made_us, from_us, to_us }
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

impl Item<'_> {
    /// The same, apart from what it was read from.
    pub fn into_owned(self) -> Item<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Self::Lane { lane, registered, before } => {
                Item::Lane { lane: owned(lane), registered: registered.map(owned), before }
            }
            Self::Block { lane, first, bytes, root, attested } => Item::Block {
                lane: owned(lane),
                first,
                bytes: Cow::Owned(bytes.into_owned()),
                root: Cow::Owned(root.into_owned()),
                attested,
            },
            Self::Checkpoint { note } => Item::Checkpoint { note: owned(note) },
        }
    }
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

pub(super) fn expected(line: u64, what: impl Into<String>) -> SegmentError {
    SegmentError::Expected { line, expected: what.into() }
}
