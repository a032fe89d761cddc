//! Reads a trail back and says whether it is what was written, and if not, where and how it differs.
//!
//! What a plain chain cannot show, whatever the code: a tail cut off the newest lane, or a lane rewritten
//! from its start by someone who can write to the store. That takes signed checkpoints outside it.

use std::collections::BTreeMap;
use std::fmt;

use super::lane::{self, LaneId, split_block};
use super::merkle::{Frontier, leaf_hash};
use super::record::{Action, Record};
use crate::ids::hex;

/// One finding that breaks the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The lane it is in.
    pub lane: LaneId,
    /// The record it shows at.
    pub seq: u64,
    /// What is wrong.
    pub kind: DamageKind,
}

/// The kinds of damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DamageKind {
    /// Records between the last good one and this one are gone.
    Gap {
        /// The sequence that should stand here.
        expected: u64,
    },
    /// Bytes that are no block or no record.
    Malformed,
    /// A record claims another sequence than its place.
    WrongSequence {
        /// What it claims.
        claimed: u64,
    },
    /// The chain's hash after this block is not the stored one.
    HashMismatch,
    /// The first record does not open the lane.
    NotOpened,
    /// The registry lists the lane, and it has no records.
    LaneMissing,
    /// The lane has records, and the registry does not list it.
    LaneUnlisted,
    /// The next lane of the same worker says that this lane ended elsewhere.
    TailDiffers {
        /// Where the successor says it ended.
        stated: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lane {} record {}: ", self.lane, self.seq)?;
        match &self.kind {
            DamageKind::Gap { expected } => write!(f, "records from {expected} on are missing"),
            DamageKind::Malformed => f.write_str("bytes that are no audit record"),
            DamageKind::WrongSequence { claimed } => write!(f, "claims to be record {claimed}"),
            DamageKind::HashMismatch => {
                f.write_str("hash does not match: a record in this block or before it was altered")
            }
            DamageKind::NotOpened => f.write_str("the lane does not begin with its opening record"),
            DamageKind::LaneMissing => f.write_str("the lane is registered, and has no records"),
            DamageKind::LaneUnlisted => f.write_str("the lane is not registered"),
            DamageKind::TailDiffers { stated } => {
                write!(f, "the lane ends here, and its successor says it ended at {stated}")
            }
        }
    }
}

/// Verifies one lane, block by block, in constant memory.
#[derive(Debug)]
pub struct LaneVerifier {
    lane: LaneId,
    tree: Frontier,
    predecessor: Option<String>,
}

impl LaneVerifier {
    /// Starts before the lane's first record.
    pub fn new(lane: LaneId) -> Self {
        Self { lane, tree: Frontier::default(), predecessor: None }
    }

    /// Checks the next block and returns its records.
    pub fn block(&mut self, first_seq: u64, bytes: &[u8], hash: &[u8]) -> Result<Vec<Record>, Damage> {
        let expected = self.tree.size() + 1;
        if first_seq != expected {
            return Err(self.damage(first_seq, DamageKind::Gap { expected }));
        }
        let Some(parts) = split_block(bytes).filter(|parts| !parts.is_empty()) else {
            return Err(self.damage(first_seq, DamageKind::Malformed));
        };
        let mut records = Vec::with_capacity(parts.len());
        for part in parts {
            let seq = self.tree.size() + 1;
            let Some(record) = Record::decode(part) else {
                return Err(self.damage(seq, DamageKind::Malformed));
            };
            if record.seq != seq {
                let claimed = record.seq;
                return Err(self.damage(seq, DamageKind::WrongSequence { claimed }));
            }
            if seq == 1 {
                if record.action != Action::LaneOpened || record.target != self.lane.as_str() {
                    return Err(self.damage(seq, DamageKind::NotOpened));
                }
                self.predecessor = Some(record.reason.clone());
            }
            self.tree.push(leaf_hash(part));
            records.push(record);
        }
        if self.tree.root() != *hash {
            return Err(self.damage(first_seq, DamageKind::HashMismatch));
        }
        Ok(records)
    }

    /// Where the lane ends.
    pub fn finish(self) -> LaneEnd {
        LaneEnd {
            lane: self.lane,
            seq: self.tree.size(),
            hash: hex(&self.tree.root()),
            predecessor: self.predecessor.as_deref().and_then(lane::parse_closing_note),
        }
    }

    fn damage(&self, seq: u64, kind: DamageKind) -> Damage {
        Damage { lane: self.lane.clone(), seq, kind }
    }
}

/// A lane whose chain is intact, and what it says of the lane before it.
#[derive(Debug, Clone)]
pub struct LaneEnd {
    /// The lane.
    pub lane: LaneId,
    /// Its last sequence.
    pub seq: u64,
    /// Hash after its last record, hexadecimal.
    pub hash: String,
    /// The lane that its worker wrote before, and the heads that one may end at.
    pub predecessor: Option<(LaneId, Vec<(u64, String)>)>,
}

/// Checks the lanes against each other and against the registry.
pub fn check_lanes(ends: &[LaneEnd], registry: &[LaneId]) -> Vec<Damage> {
    let by_id: BTreeMap<&LaneId, &LaneEnd> = ends.iter().map(|end| (&end.lane, end)).collect();
    let mut damages = Vec::new();
    for end in ends {
        if !registry.contains(&end.lane) {
            damages.push(Damage { lane: end.lane.clone(), seq: end.seq, kind: DamageKind::LaneUnlisted });
        }
        let Some((previous, stated)) = &end.predecessor else {
            continue;
        };
        let agrees = |(seq, hash): &(u64, String)| {
            by_id
                .get(previous)
                // A lane that never held a record has no stream.
                .map_or(*seq == 0, |found| found.seq == *seq && found.hash == *hash)
        };
        if !stated.iter().any(agrees) {
            let stated: Vec<String> = stated.iter().map(|(seq, _)| seq.to_string()).collect();
            damages.push(Damage {
                lane: previous.clone(),
                seq: by_id.get(previous).map_or(0, |found| found.seq),
                kind: DamageKind::TailDiffers { stated: stated.join(" or ") },
            });
        }
    }
    for lane in registry {
        if !by_id.contains_key(lane) {
            damages.push(Damage { lane: lane.clone(), seq: 0, kind: DamageKind::LaneMissing });
        }
    }
    damages
}

#[cfg(test)]
mod tests;
