//! Receipts and proofs: that a decision is on record, and that its record is under a signed checkpoint. Both
//! are checked offline; a proof needs the log's public key and nothing else. Pure.
//!
//! A proof is one JSON object:
//!
//! ```text
//! {"mas_audit_proof": 1,
//!  "lane": "…", "sequence": 17,            where the record stands, from 1
//!  "record": "base64",                     its bytes; its leaf hash is SHA-256(0x00 ‖ bytes)
//!  "lane_size": 120,                       records in the lane when the checkpoint was signed
//!  "path": ["base64", …],                  RFC 6962 audit path, from the leaf upwards
//!  "checkpoint": "mas.audit/…\n…\n"}       the signed note, which lists the lane with size and root
//! ```

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::checkpoint::{Checkpoint, CheckpointError};
use super::keys::KeyHistory;
use super::lane::LaneId;
use super::merkle::{Hash, leaf_hash, root_from_proof};
use super::note;
use super::record::Record;
use crate::ids::hex;

/// Version of the proof's form.
pub const PROOF_VERSION: u32 = 1;
/// Longest proof that is read, in bytes.
pub const MAX_PROOF_BYTES: u64 = 64 * 1024 * 1024;
/// Longest path: a lane has fewer than 2^64 records.
const MAX_PATH: usize = 64;

/// Where the server says that a decision is on record. As JSON, hashes are hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The lane that holds the record.
    pub lane: String,
    /// The record's position in it, from 1.
    pub sequence: u64,
    /// The record's leaf hash, 64 hexadecimal digits.
    pub record_hash: String,
    /// Digest of the configuration that decided, 64 hexadecimal digits.
    pub policy_version: String,
    /// The number of this decision among its sender's in the lane, from 1 without gaps.
    #[serde(default)]
    pub sender_sequence: u64,
    /// The message it is about, where the call yielded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
}

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not the form of a proof.
    #[error("{0}")]
    Malformed(&'static str),
    /// The checkpoint is not signed by a key of these logs.
    #[error(transparent)]
    NotSigned(#[from] CheckpointError),
    /// The checkpoint is of a log whose key was not given.
    #[error("the checkpoint is of log {0:?}, whose key was not given")]
    OtherLog(String),
    /// The checkpoint does not list the lane with this size.
    #[error("the checkpoint does not say that lane {lane} holds {size} records")]
    NotListed {
        /// The lane.
        lane: String,
        /// The size in the proof.
        size: u64,
    },
    /// The path does not lead from the record to the lane's root in the checkpoint.
    #[error("record {sequence} is not in the lane that was signed")]
    NotIncluded {
        /// The record's position.
        sequence: u64,
    },
    /// The record is not the one that the receipt names.
    #[error("the record is not the one that the receipt names: {0} differs")]
    OtherRecord(&'static str),
}

/// Proves that a record is in a lane that a checkpoint was signed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    #[serde(rename = "mas_audit_proof")]
    version: u32,
    lane: String,
    sequence: u64,
    record: String,
    lane_size: u64,
    path: Vec<String>,
    checkpoint: String,
}

/// What a proof has proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The record.
    pub record: Record,
    /// Its leaf hash.
    pub leaf: Hash,
    /// The checkpoint above it.
    pub checkpoint: Checkpoint,
}

impl Proof {
    /// Puts a proof together.
    pub fn new(
        lane: &LaneId,
        sequence: u64,
        record: &[u8],
        lane_size: u64,
        path: &[Hash],
        note: &str,
    ) -> Self {
        Self {
            version: PROOF_VERSION,
            lane: lane.to_string(),
            sequence,
            record: STANDARD.encode(record),
            lane_size,
            path: path.iter().map(|hash| STANDARD.encode(hash)).collect(),
            checkpoint: note.to_owned(),
        }
    }

    /// Where the record stands.
    pub fn place(&self) -> (&str, u64) {
        (&self.lane, self.sequence)
    }

    /// Checks everything: the signature by the key in force at its time, the lane in the checkpoint, the path,
    /// the record's form and place.
    pub fn check(&self, keys: &[KeyHistory]) -> Result<Proven, ProofError> {
        if self.version != PROOF_VERSION {
            return Err(ProofError::Malformed("a proof of another version"));
        }
        let text = note::text_of(&self.checkpoint).map_err(CheckpointError::from)?;
        let origin = text.split('\n').next().unwrap_or_default();
        let history = keys.iter().find(|history| history.origin() == origin);
        let history = history.ok_or_else(|| ProofError::OtherLog(origin.to_owned()))?;
        let (checkpoint, _) = Checkpoint::open(&self.checkpoint, history)?;
        let lane = LaneId::from_stored(&self.lane);
        let head = checkpoint.lane(&lane).map(|listed| listed.head);
        let not_listed = || ProofError::NotListed { lane: self.lane.clone(), size: self.lane_size };
        let head = head.filter(|head| head.seq == self.lane_size).ok_or_else(not_listed)?;

        let bytes = self.record_bytes()?;
        let leaf = leaf_hash(&bytes);
        let not_included = || ProofError::NotIncluded { sequence: self.sequence };
        let index = self.sequence.checked_sub(1).ok_or_else(not_included)?;
        let root = root_from_proof(&leaf, index, self.lane_size, &self.path_hashes()?);
        if root != Some(head.hash) {
            return Err(not_included());
        }
        let record = Record::decode(&bytes).ok_or(ProofError::Malformed("bytes that are no audit record"))?;
        if record.seq != self.sequence {
            return Err(not_included());
        }
        Ok(Proven { record, leaf, checkpoint })
    }

    fn record_bytes(&self) -> Result<Vec<u8>, ProofError> {
        STANDARD.decode(&self.record).map_err(|_| ProofError::Malformed("a record that is no base64"))
    }

    fn path_hashes(&self) -> Result<Vec<Hash>, ProofError> {
        let hash = |text: &String| {
            let bytes = STANDARD.decode(text).ok()?;
            Hash::try_from(bytes).ok()
        };
        let hashes: Option<Vec<Hash>> = self.path.iter().take(MAX_PATH + 1).map(hash).collect();
        hashes.filter(|hashes| hashes.len() <= MAX_PATH).ok_or(ProofError::Malformed("a path that is none"))
    }
}

impl Receipt {
    /// Whether these bytes are the record that the server named.
    pub fn check_record(&self, record: &[u8]) -> Result<Record, ProofError> {
        if hex(&leaf_hash(record)) != self.record_hash {
            return Err(ProofError::OtherRecord("its hash"));
        }
        let record = Record::decode(record).ok_or(ProofError::Malformed("bytes that are no audit record"))?;
        if record.seq != self.sequence {
            return Err(ProofError::OtherRecord("its sequence"));
        }
        if hex(&record.policy_version) != self.policy_version {
            return Err(ProofError::OtherRecord("its policy version"));
        }
        if self.sender_sequence != 0 && record.sender_seq != self.sender_sequence {
            return Err(ProofError::OtherRecord("its sender's sequence"));
        }
        let message = record.message_id.map(|id| id.to_string());
        // A repeated request is answered with the first one's message.
        if self.message_id.is_some() && message.is_some() && self.message_id != message {
            return Err(ProofError::OtherRecord("its message"));
        }
        Ok(record)
    }

    /// Whether the proof shows the record of this receipt to be under a signed checkpoint.
    pub fn check(&self, proof: &Proof, keys: &[KeyHistory]) -> Result<Proven, ProofError> {
        let proven = proof.check(keys)?;
        if proof.lane != self.lane {
            return Err(ProofError::OtherRecord("its lane"));
        }
        let _ = self.check_record(&proof.record_bytes()?)?;
        Ok(proven)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::checkpoint::LaneHead;
    use crate::audit::lane::{Lane, split_block};
    use crate::audit::merkle::ProofBuilder;
    use crate::audit::note::SigningKey;
    use crate::audit::record::{Action, Decision, Fields};
    use crate::clock::Now;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn key() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
    }

    /// A proof of record `sequence` of `size`, the keys that sign for it, and the record's receipt.
    fn made(sequence: u64, size: u64) -> (Proof, KeyHistory, Receipt) {
        let (key, boot) = (key(), Uuid::now_v7());
        let keys = KeyHistory::new(&key);
        let now = Now { unix_us: 1, mono_ms: 0 };
        let mut lane = Lane::new(LaneId::new(boot, 0, 1));
        let mut receipt = None;
        for seq in 1..=size {
            let id = Uuid::now_v7();
            let fields =
                Fields { agent: "a", message_id: Some(id), policy_version: &[9; 32], ..Fields::default() };
            let place = lane.append_counted(now, Action::Send, Decision::Allowed, &fields);
            if seq == sequence {
                receipt = Some(Receipt {
                    lane: lane.id().to_string(),
                    sequence: seq,
                    record_hash: hex(&place.leaf),
                    policy_version: hex(&[9; 32]),
                    sender_sequence: place.sender_seq,
                    message_id: Some(id.to_string()),
                });
            }
        }
        let block = lane.block().unwrap().bytes.to_vec();
        lane.confirm();
        let parts = split_block(&block).unwrap();
        let mut builder = ProofBuilder::new(sequence - 1, size).unwrap();
        for part in &parts {
            builder.push(leaf_hash(part));
        }
        let checkpoint = Checkpoint {
            origin: keys.origin().to_owned(),
            size,
            boot,
            counter: 1,
            previous: [0; 32],
            time_ms: 5,
            policy: [9; 32],
            lanes: vec![LaneHead { lane: lane.id().clone(), head: lane.confirmed() }],
        };
        let note = checkpoint.sign(&key).unwrap();
        let record = parts[sequence as usize - 1];
        let proof = Proof::new(lane.id(), sequence, record, size, &builder.finish().unwrap(), &note);
        (proof, keys, receipt.unwrap())
    }

    proptest! {
        #[test]
        fn every_record_is_proved_and_its_receipt_kept(size in 1u64..40, at in 0u64..40) {
            let (proof, keys, receipt) = made(at % size + 1, size);
            let text = serde_json::to_string(&proof).unwrap();
            let read: Proof = serde_json::from_str(&text).unwrap();
            let proven = receipt.check(&read, &[keys]).unwrap();
            prop_assert_eq!(proven.record.seq, at % size + 1);
        }

        #[test]
        fn no_altered_proof_is_taken(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let (proof, keys, receipt) = made(5, 9);
            let mut bytes = serde_json::to_vec(&proof).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(read) = serde_json::from_slice::<Proof>(&bytes) {
                prop_assert!(receipt.check(&read, &[keys]).is_err());
            }
        }
    }

    #[test]
    fn another_key_another_record_and_another_receipt_are_refused() {
        let (proof, keys, receipt) = made(3, 7);
        let (other, other_keys, other_receipt) = made(3, 7);
        assert!(matches!(proof.check(std::slice::from_ref(&other_keys)), Err(ProofError::OtherLog(_))));
        assert!(matches!(proof.check(&[]), Err(ProofError::OtherLog(_))));
        assert_eq!(
            other_receipt.check(&proof, std::slice::from_ref(&keys)),
            Err(ProofError::OtherRecord("its lane"))
        );
        let spliced = Proof { record: other.record, ..proof.clone() };
        assert_eq!(spliced.check(std::slice::from_ref(&keys)), Err(ProofError::NotIncluded { sequence: 3 }));
        let moved = Proof { sequence: 4, ..proof.clone() };
        assert!(matches!(moved.check(std::slice::from_ref(&keys)), Err(ProofError::NotIncluded { .. })));
        let shrunk = Proof { lane_size: 6, ..proof.clone() };
        assert!(matches!(shrunk.check(std::slice::from_ref(&keys)), Err(ProofError::NotListed { .. })));
        let long = Proof { path: vec![STANDARD.encode([0; 32]); 65], ..proof.clone() };
        assert!(matches!(long.check(std::slice::from_ref(&keys)), Err(ProofError::Malformed(_))));
        let later = Receipt { sender_sequence: 4, ..receipt };
        assert_eq!(later.check(&proof, &[keys]), Err(ProofError::OtherRecord("its sender's sequence")));
    }
}
