//! One lane, block by block, in constant memory: contiguity, hashes, its opening, its senders' numbers,
//! and what it held when a checkpoint was signed.

use std::collections::{HashMap, VecDeque};

use super::damage::DamageKind;
use crate::audit::lane::{self, LaneId, StatedEnd};
use crate::audit::merkle::{Frontier, Hash, leaf_hash};
use crate::audit::record::{Action, View};
use crate::ids::hex;

/// Blocks behind a lane's end at which its root is always known: how far a checkpoint may come behind
/// blocks that it does not cover.
pub(super) const REMEMBERED_ROOTS: usize = 4096;

/// What is known of one lane.
#[derive(Debug)]
pub(super) struct LaneState {
    pub(super) id: LaneId,
    tree: Frontier,
    /// Size of the tree when this trail begins.
    start: u64,
    /// The lanes that its worker wrote before, and the heads that they may end at.
    pub(super) predecessors: Vec<StatedEnd>,
    senders: HashMap<Box<str>, u64>,
    roots: VecDeque<(u64, Hash)>,
    /// The last record that some checkpoint covers.
    pub(super) sealed: u64,
    pub(super) registered: bool,
    /// It is damaged; what follows proves nothing.
    pub(super) broken: bool,
}

impl LaneState {
    pub(super) fn new(id: LaneId, registered: bool, before: Frontier) -> Self {
        // A checkpoint may be over what was before.
        let root = (before.size() > 0).then(|| (before.size(), before.root()));
        Self {
            id,
            start: before.size(),
            tree: before,
            predecessors: Vec::new(),
            senders: HashMap::new(),
            roots: root.into_iter().collect(),
            sealed: 0,
            registered,
            broken: false,
        }
    }

    pub(super) fn size(&self) -> u64 {
        self.tree.size()
    }

    /// Records of before this trail.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    pub(super) fn tree(&self) -> &Frontier {
        &self.tree
    }

    /// Where it ends: last sequence and root in hexadecimal.
    pub(super) fn end(&self) -> (u64, String) {
        (self.tree.size(), hex(&self.tree.root()))
    }

    /// The root after record `size`, where a block ended there not long ago.
    pub(super) fn root_at(&self, size: u64) -> Option<Hash> {
        if size == self.tree.size() {
            return Some(self.tree.root());
        }
        let at = self.roots.binary_search_by_key(&size, |(end, _)| *end).ok()?;
        self.roots.get(at).map(|(_, root)| *root)
    }

    /// Checks the next block and hands on its records; an error is where and how it is damaged.
    pub(super) fn block(
        &mut self,
        first: u64,
        bytes: &[u8],
        root: &[u8],
        each: &mut dyn FnMut(&View<'_>),
    ) -> Result<(), (u64, DamageKind)> {
        let expected = self.tree.size() + 1;
        if first != expected {
            return Err((first, DamageKind::Gap { expected }));
        }
        if bytes.is_empty() {
            return Err((first, DamageKind::Malformed));
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let seq = self.tree.size() + 1;
            let (part, behind) = split(rest).ok_or((seq, DamageKind::Malformed))?;
            rest = behind;
            let record = View::decode(part).ok_or((seq, DamageKind::Malformed))?;
            if record.seq != seq {
                return Err((seq, DamageKind::WrongSequence { claimed: record.seq }));
            }
            if seq == 1 {
                if record.action != Action::LaneOpened || record.target != self.id.as_str() {
                    return Err((seq, DamageKind::NotOpened));
                }
                self.predecessors = lane::parse_closing_note(record.reason);
            }
            self.count(&record)?;
            self.tree.push(leaf_hash(part));
            each(&record);
        }
        let computed = self.tree.root();
        if computed != *root {
            return Err((first, DamageKind::HashMismatch));
        }
        self.roots.push_back((self.tree.size(), computed));
        Ok(())
    }

    /// Blocks at which its root is known.
    pub(super) fn remembered(&self) -> usize {
        self.roots.len()
    }

    /// Forgets all but the newest `keep` roots.
    pub(super) fn forget_roots(&mut self, keep: usize) {
        let over = self.roots.len().saturating_sub(keep);
        drop(self.roots.drain(..over));
        self.roots.shrink_to(keep);
    }

    /// An agent's decisions are numbered without gaps.
    fn count(&mut self, record: &View<'_>) -> Result<(), (u64, DamageKind)> {
        if record.sender_seq == 0 {
            return Ok(());
        }
        let found = record.sender_seq;
        match self.senders.get_mut(record.agent) {
            Some(last) if *last + 1 == found => *last = found,
            None if found == 1 || self.start > 0 => {
                let _ = self.senders.insert(record.agent.into(), found);
            }
            last => {
                let expected = last.map_or(1, |last| *last + 1);
                let agent = record.agent.to_owned();
                return Err((record.seq, DamageKind::SenderGap { agent, expected, found }));
            }
        }
        Ok(())
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_be_bytes(*length) as usize)
}
