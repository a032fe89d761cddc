//! A lane: an append-only chain of records with exactly one writer for its whole life (one server boot,
//! one worker, one store connection). So it needs no lock and cannot fork by accident.
//!
//! `h(0) = SHA-256(0x02 ‖ lane id)`, `h(n) = SHA-256(0x00 ‖ h(n-1) ‖ record bytes)`. A block is what one
//! transaction appends: records, each behind a `u32` length, and the chain's hash after the last.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::record::{self, Action, Decision, Fields};
use crate::clock::Now;

/// A link of the chain.
pub type Hash = [u8; 32];

/// Domain separation of a record's hash (RFC 6962 uses 0x00 for leaves and 0x01 for nodes).
const RECORD_PREFIX: u8 = 0x00;
/// Domain separation of a lane's first hash.
const GENESIS_PREFIX: u8 = 0x02;

/// Names a lane: `{boot}-w{worker}-c{connection}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(String);

impl LaneId {
    /// The lane of one worker's one store connection.
    pub fn new(boot: Uuid, worker: usize, connection: u64) -> Self {
        Self(format!("{}-w{worker}-c{connection}", boot.simple()))
    }

    /// A lane id as found in the store.
    pub fn from_stored(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash before the lane's first record: records of one lane fit into no other.
    pub fn genesis(&self) -> Hash {
        Sha256::new().chain_update([GENESIS_PREFIX]).chain_update(self.0.as_bytes()).finalize().into()
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The next hash of a chain.
pub fn link(previous: &Hash, record: &[u8]) -> Hash {
    Sha256::new().chain_update([RECORD_PREFIX]).chain_update(previous).chain_update(record).finalize().into()
}

/// A position in a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Sequence of the last record; 0 before the first.
    pub seq: u64,
    /// Hash after that record.
    pub hash: Hash,
}

/// The writer's side of a lane.
#[derive(Debug)]
pub struct Lane {
    id: LaneId,
    /// What the store has confirmed.
    confirmed: Head,
    /// `confirmed` plus the records that wait in `block`.
    pending: Head,
    block: Vec<u8>,
}

/// What one transaction appends.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// Sequence of the first record.
    pub first_seq: u64,
    /// The records, each behind a `u32` length.
    pub bytes: &'a [u8],
    /// The chain's hash after the last record.
    pub hash: &'a Hash,
}

impl Lane {
    /// An empty lane.
    pub fn new(id: LaneId) -> Self {
        let head = Head { seq: 0, hash: id.genesis() };
        Self { id, confirmed: head, pending: head, block: Vec::new() }
    }

    /// The lane's id.
    pub fn id(&self) -> &LaneId {
        &self.id
    }

    /// Adds one record to the waiting block and returns its sequence.
    pub fn append(&mut self, now: Now, action: Action, decision: Decision, fields: &Fields<'_>) -> u64 {
        let seq = self.pending.seq + 1;
        let start = self.block.len();
        self.block.extend_from_slice(&[0; 4]);
        record::encode(&mut self.block, seq, now.unix_us, action, decision, fields);
        let (head, bytes) = self.block.split_at_mut(start + 4);
        // A record is bounded far below u32::MAX by its fields' bounds.
        if let Some(length) = head.last_chunk_mut::<4>() {
            *length = (bytes.len() as u32).to_be_bytes();
        }
        self.pending = Head { seq, hash: link(&self.pending.hash, bytes) };
        seq
    }

    /// The waiting block, if any record waits.
    pub fn block(&self) -> Option<Block<'_>> {
        (self.pending.seq > self.confirmed.seq).then_some(Block {
            first_seq: self.confirmed.seq + 1,
            bytes: &self.block,
            hash: &self.pending.hash,
        })
    }

    /// The store has the waiting block.
    pub fn confirm(&mut self) {
        self.confirmed = self.pending;
        self.block.clear();
    }

    /// The store has refused the waiting block as a whole.
    pub fn discard(&mut self) {
        self.pending = self.confirmed;
        self.block.clear();
    }

    /// For the successor's first record: this lane ends at the first head, or, where the outcome of the
    /// last transaction is unknown, at the second.
    pub fn closing_note(&self) -> String {
        let mut note = format!("after {} at {}", self.id, head_text(&self.confirmed));
        if self.pending != self.confirmed {
            note.push_str(" or ");
            note.push_str(&head_text(&self.pending));
        }
        note
    }
}

fn head_text(head: &Head) -> String {
    format!("{}:{}", head.seq, crate::ids::hex(&head.hash))
}

/// The predecessor named by a closing note: its lane and the heads it may end at (sequence, hash in hex).
pub fn parse_closing_note(note: &str) -> Option<(LaneId, Vec<(u64, String)>)> {
    let (lane, heads) = note.strip_prefix("after ")?.split_once(" at ")?;
    let heads = heads
        .split(" or ")
        .map(|head| {
            let (seq, hash) = head.split_once(':')?;
            Some((seq.parse().ok()?, hash.to_owned()))
        })
        .collect::<Option<Vec<_>>>()?;
    Some((LaneId::from_stored(lane), heads))
}

/// Splits a stored block into its records' bytes; `None` where the lengths do not add up.
pub fn split_block(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (record, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        records.push(record);
        bytes = rest;
    }
    Some(records)
}
