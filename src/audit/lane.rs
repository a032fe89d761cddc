//! A lane: an append-only chain of records with exactly one writer for its whole life (one server boot,
//! one worker, one store connection). So it needs no lock and cannot fork by accident.
//!
//! A lane is a Merkle tree over its records, hashed as RFC 6962 says: the leaf of record `n` is
//! `SHA-256(0x00 ‖ record bytes)`, so its head commits to every record in its place, and a record is
//! proved to be in a lane of `n` records by `log2(n)` hashes. The first record names the lane, so records
//! of one lane fit into no other. A block is what one transaction appends: records, each behind a `u32`
//! length, and the root after the last.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

pub use super::merkle::Hash;
use super::merkle::{Frontier, leaf_hash};
use super::record::{self, Action, Decision, Fields};
use super::tally::Tally;
use crate::clock::Now;

/// Ends of lanes that an opening record states: more than one where several connections in a row broke with their first
/// block, so that it is not certain which of the lanes exists.
const MAX_STATED: usize = 8;

/// What stands between two stated ends.
const STATED_BREAK: &str = "; ";

/// Names a lane: `{boot}-w{worker}-c{connection}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(Arc<str>);

impl LaneId {
    /// The lane of one worker's one store connection.
    pub fn new(boot: Uuid, worker: usize, connection: u64) -> Self {
        Self(format!("{}-w{worker}-c{connection}", boot.simple()).into())
    }

    /// A lane id as found in the store.
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The run of a server that writes it, as its id begins.
    pub fn boot(&self) -> &str {
        self.0.split_once('-').map_or(&self.0, |(boot, _)| boot)
    }

    /// The worker that writes it, with its run.
    pub fn writer(&self) -> &str {
        self.0.rsplit_once("-c").map_or(&self.0, |(writer, _)| writer)
    }

    /// Which of that worker's connections; 0 where the id does not say.
    pub fn connection(&self) -> u64 {
        self.0.rsplit_once("-c").and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for LaneId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LaneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A position in a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Records so far.
    pub seq: u64,
    /// Root of the tree over them.
    pub hash: Hash,
}

/// Where one record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its sequence in the lane, from 1.
    pub seq: u64,
    /// Its leaf hash.
    pub leaf: Hash,
    /// The number of this decision among its agent's in the lane; 0: not counted.
    pub sender_seq: u64,
}

/// The writer's side of a lane.
#[derive(Debug)]
pub struct Lane {
    id: LaneId,
    /// What the store has confirmed.
    confirmed: Head,
    /// What it will not lose, as far as the durability asked for goes; never more than `confirmed`.
    assured: Head,
    tree: Frontier,
    /// `tree` plus the records that wait in `block`.
    pending: Frontier,
    /// Root over `pending`, once the block was asked for.
    root: Hash,
    block: Vec<u8>,
    /// Which of `counts` is an agent's.
    senders: HashMap<String, usize>,
    /// Decisions so far.
    counts: Vec<u64>,
    /// Which counts the waiting block has raised, once per record.
    counted: Vec<usize>,
    /// What its first record says, where that is written together with the first other one.
    opening: Option<Opening>,
    /// Counts what is confirmed.
    tally: Option<Box<Tally>>,
}

/// What the record says that opens a lane.
#[derive(Debug)]
struct Opening {
    before: String,
    policy_version: Vec<u8>,
}

/// What one transaction appends.
#[derive(Debug, Clone, Copy)]
pub struct Block<'a> {
    /// To this lane.
    pub lane: &'a LaneId,
    /// Sequence of the first record.
    pub first_seq: u64,
    /// Sequence of the last record.
    pub last_seq: u64,
    /// The records, each behind a `u32` length.
    pub bytes: &'a [u8],
    /// Root of the lane after the last record.
    pub hash: &'a Hash,
}

impl Lane {
    /// An empty lane.
    pub fn new(id: LaneId) -> Self {
        let tree = Frontier::default();
        let root = tree.root();
        Self {
            id,
            confirmed: Head { seq: 0, hash: root },
            assured: Head { seq: 0, hash: root },
            pending: tree.clone(),
            tree,
            root,
            block: Vec::new(),
            senders: HashMap::new(),
            counts: Vec::new(),
            counted: Vec::new(),
            opening: None,
            tally: None,
        }
    }

    /// Counts what is confirmed from now on.
    pub fn count_with(&mut self, tally: Box<Tally>) {
        self.tally = Some(tally);
    }

    /// What counts.
    pub fn tally(&mut self) -> Option<&mut Box<Tally>> {
        self.tally.as_mut()
    }

    /// What counts, for the next lane; what waits here is not counted.
    pub fn take_tally(&mut self) -> Option<Box<Tally>> {
        let mut tally = self.tally.take()?;
        tally.discard();
        Some(tally)
    }

    /// An empty lane that opens itself with its first record, as [`Self::open`] does: one that nothing is written to
    /// leaves no trace.
    pub fn opening(id: LaneId, before: &str, policy_version: &[u8]) -> Self {
        let opening = Opening { before: before.to_owned(), policy_version: policy_version.to_vec() };
        Self { opening: Some(opening), ..Self::new(id) }
    }

    /// Whether nothing was ever written to it, nor waits for that.
    pub fn is_unused(&self) -> bool {
        self.pending.size() == 0
    }

    /// The lane's id.
    pub fn id(&self) -> &LaneId {
        &self.id
    }

    /// What the store has confirmed.
    pub fn confirmed(&self) -> Head {
        self.confirmed
    }

    /// Adds the record that opens the lane: it names the lane and says what was before it.
    pub fn open(&mut self, now: Now, before: &str, policy_version: &[u8]) {
        let id = self.id.clone();
        let fields = Fields { target: id.as_str(), reason: before, policy_version, ..Fields::default() };
        let _ = self.append(now, Action::LaneOpened, Decision::Event, &fields);
    }

    /// Adds one record to the waiting block.
    pub fn append(&mut self, now: Now, action: Action, decision: Decision, fields: &Fields<'_>) -> Place {
        if self.pending.size() == 0
            && let Some(opening) = self.opening.take()
        {
            self.open(now, &opening.before, &opening.policy_version);
            // Once more where the store refuses it.
            self.opening = Some(opening);
        }
        let seq = self.pending.size() + 1;
        let start = self.block.len();
        self.block.extend_from_slice(&[0; 4]);
        record::encode(&mut self.block, seq, now.unix_us, action, decision, fields);
        let (head, bytes) = self.block.split_at_mut(start + 4);
        // A record is bounded far below u32::MAX by its fields' bounds.
        if let Some(length) = head.last_chunk_mut::<4>() {
            *length = (bytes.len() as u32).to_be_bytes();
        }
        let leaf = leaf_hash(bytes);
        self.pending.push(leaf);
        if let Some(tally) = &mut self.tally {
            tally.note(action, decision, fields);
        }
        Place { seq, leaf, sender_seq: fields.sender_seq }
    }

    /// Adds the record of a decision on what `fields.agent` asked for, numbered among that agent's.
    pub fn append_counted(
        &mut self,
        now: Now,
        action: Action,
        decision: Decision,
        fields: &Fields<'_>,
    ) -> Place {
        let at = match self.senders.get(fields.agent) {
            Some(at) => *at,
            None => {
                let at = self.counts.len();
                self.counts.push(0);
                let _ = self.senders.insert(fields.agent.to_owned(), at);
                at
            }
        };
        let sender_seq = self.counts.get(at).copied().unwrap_or(0) + 1;
        if let Some(count) = self.counts.get_mut(at) {
            *count = sender_seq;
        }
        self.counted.push(at);
        self.append(now, action, decision, &Fields { sender_seq, ..*fields })
    }

    /// The waiting block, if any record waits.
    pub fn block(&mut self) -> Option<Block<'_>> {
        if self.pending.size() == self.confirmed.seq {
            return None;
        }
        self.root = self.pending.root();
        Some(Block {
            lane: &self.id,
            first_seq: self.confirmed.seq + 1,
            last_seq: self.pending.size(),
            bytes: &self.block,
            hash: &self.root,
        })
    }

    /// The bytes of the waiting block and the sequence of its first record, as [`Self::block`] gave them out.
    pub fn waiting(&self) -> (u64, &[u8]) {
        (self.confirmed.seq + 1, &self.block)
    }

    /// What the store has confirmed and will not lose: what may be signed.
    pub fn assured(&self) -> Head {
        self.assured
    }

    /// The store has the waiting block, as durably as was asked for.
    pub fn confirm(&mut self) {
        self.confirm_unassured();
        self.assured = self.confirmed;
    }

    /// The store has the waiting block, and may lose it yet.
    pub fn confirm_unassured(&mut self) {
        if self.pending.size() == self.confirmed.seq {
            return;
        }
        self.confirmed = Head { seq: self.pending.size(), hash: self.pending.root() };
        self.tree.copy_from(&self.pending);
        self.block.clear();
        self.counted.clear();
        if let Some(tally) = &mut self.tally {
            tally.confirm();
        }
    }

    /// The store has refused the waiting block as a whole.
    pub fn discard(&mut self) {
        self.pending.copy_from(&self.tree);
        self.block.clear();
        if let Some(tally) = &mut self.tally {
            tally.discard();
        }
        for at in self.counted.drain(..) {
            if let Some(count) = self.counts.get_mut(at) {
                *count -= 1;
            }
        }
    }

    /// For the successor's first record: this lane ends at the first head, or, where the outcome of the
    /// last transaction is unknown or the store may lose some, at a later one up to the last. As long as it is not
    /// certain that the store has any of it, the note says of the lanes before it what this one's first record says.
    pub fn closing_note(&self) -> String {
        let own = self.own_note();
        let before = self.opening.as_ref().filter(|_| self.assured.seq == 0).map(|opening| &*opening.before);
        let mut notes = vec![own.as_str()];
        notes.extend(before.into_iter().flat_map(|before| before.split(STATED_BREAK)));
        while notes.len() > MAX_STATED {
            // Never the last: that lane is certain.
            let _ = notes.remove(notes.len() - 2);
        }
        notes.join(STATED_BREAK)
    }

    fn own_note(&self) -> String {
        let pending = Head { seq: self.pending.size(), hash: self.pending.root() };
        let mut heads = vec![self.assured, self.confirmed, pending];
        heads.dedup_by_key(|head| head.seq);
        let heads: Vec<String> = heads.iter().map(head_text).collect();
        format!("after {} at {}", self.id, heads.join(" or "))
    }
}

fn head_text(head: &Head) -> String {
    format!("{}:{}", head.seq, crate::ids::hex(&head.hash))
}

/// A lane and the heads that it may end at: sequence, hash in hex.
pub type StatedEnd = (LaneId, Vec<(u64, String)>);

/// The predecessors that a closing note names.
pub fn parse_closing_note(note: &str) -> Vec<StatedEnd> {
    note.split(STATED_BREAK).take(MAX_STATED).filter_map(parse_stated_end).collect()
}

fn parse_stated_end(note: &str) -> Option<StatedEnd> {
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

/// The bytes of a stored block's first record.
pub fn first_record(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.get(..u32::from_be_bytes(*length) as usize)
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
