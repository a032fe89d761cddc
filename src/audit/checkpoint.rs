//! A checkpoint: where every lane of a server stood at one time, under one signature. Pure.
//!
//! The form is C2SP's tlog-checkpoint (<https://c2sp.org/tlog-checkpoint>) in a signed note. Its size is the
//! number of records, its root the RFC 6962 tree hash over the lanes' heads. What only this log has stands in
//! extension lines, which other readers pass over:
//!
//! ```text
//! mas.audit/{log id}
//! {records in all lanes of this boot}
//! {root over the lanes' heads, base64}
//! boot {uuid}
//! counter {from 1 in each boot, without gaps}
//! previous {SHA-256 of the text of the checkpoint before, base64}
//! time {Unix milliseconds}
//! policy {digest of the configuration in force, hexadecimal}
//! lane {lane id} {records} {root of the lane, base64}
//! ```
//!
//! The leaf of a lane is the text `{lane id}\n{records}\n{root, base64}`. Each field has one encoding, so
//! a checkpoint has one text.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::keys::{KeyHistory, ORIGIN_PREFIX};
use super::lane::{Head, LaneId};
use super::merkle::{Hash, leaf_hash, root_of};
use super::note::{self, NoteError, SigningKey};

/// Lanes in one checkpoint: all that are open, and of those that closed as many as there is room for; the
/// rest stands in the next one.
pub const MAX_LANES: usize = 16_384;
/// Longest lane id that is read.
const MAX_LANE_ID_BYTES: usize = 128;
/// Lines before the lanes.
const HEAD_LINES: usize = 8;

/// Where one lane stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneHead {
    /// The lane.
    pub lane: LaneId,
    /// Records in it, and the root over them.
    pub head: Head,
}

/// Where all lanes of one server stood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The log: [`KeyHistory::origin`].
    pub origin: String,
    /// Records in all lanes of this boot; never falls.
    pub size: u64,
    /// The server's run.
    pub boot: Uuid,
    /// From 1 in each boot, without gaps.
    pub counter: u64,
    /// [`text_hash`] of the checkpoint before; in a boot's first that of the newest in the anchor, or zeros.
    pub previous: Hash,
    /// When it was made, in Unix milliseconds; never falls within a log.
    pub time_ms: u64,
    /// Digest of the configuration in force.
    pub policy: [u8; 32],
    /// The lanes that are open, and those that closed since the checkpoint before, by id.
    pub lanes: Vec<LaneHead>,
}

/// Why bytes are no checkpoint of a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The signature, or the form of the note.
    #[error("the checkpoint {0}")]
    Note(#[from] NoteError),
    /// The text of the note.
    #[error("the checkpoint's line {line} is not what stands there")]
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// Its root is not that of its lanes.
    #[error("the checkpoint's root is not that of the lanes it lists")]
    WrongRoot,
    /// It belongs to another log.
    #[error("the checkpoint is one of {found}, and not of {expected}")]
    WrongLog {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
}

impl LaneHead {
    /// The hash of the lane's leaf in the checkpoint's tree.
    pub fn leaf(&self) -> Hash {
        leaf_hash(format!("{}\n{}\n{}", self.lane, self.head.seq, STANDARD.encode(self.head.hash)).as_bytes())
    }
}

/// The hash by which the next checkpoint names one: SHA-256 of its signed text.
pub fn text_hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

impl Checkpoint {
    /// The RFC 6962 root over the lanes.
    pub fn root(&self) -> Hash {
        root_of(self.lanes.iter().map(LaneHead::leaf))
    }

    /// What this checkpoint says of a lane.
    pub fn lane(&self, lane: &LaneId) -> Option<&LaneHead> {
        let at = self.lanes.binary_search_by(|head| head.lane.cmp(lane)).ok()?;
        self.lanes.get(at)
    }

    /// The text that is signed.
    pub fn encode(&self) -> String {
        let mut text = format!(
            "{}\n{}\n{}\nboot {}\ncounter {}\nprevious {}\ntime {}\npolicy {}\n",
            self.origin,
            self.size,
            STANDARD.encode(self.root()),
            self.boot,
            self.counter,
            STANDARD.encode(self.previous),
            self.time_ms,
            crate::ids::hex(&self.policy),
        );
        for LaneHead { lane, head } in &self.lanes {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "lane {lane} {} {}", head.seq, STANDARD.encode(head.hash));
        }
        text
    }

    /// Signs it; `None` where a field of it cannot stand in a note.
    pub fn sign(&self, key: &SigningKey) -> Option<String> {
        key.sign(&self.origin, &self.encode())
    }

    /// Reads the text of a note; nothing but what [`encode`](Self::encode) writes is taken.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut lines = Lines { lines: text.split('\n'), line: 0 };
        let origin = lines.next(|line| line.starts_with(ORIGIN_PREFIX).then(|| line.to_owned()))?;
        let size = lines.next(number)?;
        let root = lines.next(hash)?;
        let boot = lines.next(|line| line.strip_prefix("boot ").and_then(|id| Uuid::try_parse(id).ok()))?;
        let counter = lines.next(|line| line.strip_prefix("counter ").and_then(number))?;
        let previous = lines.next(|line| line.strip_prefix("previous ").and_then(hash))?;
        let time_ms = lines.next(|line| line.strip_prefix("time ").and_then(number))?;
        let policy = lines.next(|line| line.strip_prefix("policy ").and_then(hex_digest))?;
        let mut lanes: Vec<LaneHead> = Vec::new();
        loop {
            let lane = lines.next(|line| match line {
                "" => Some(None),
                line => lane_head(line).map(Some),
            })?;
            let Some(lane) = lane else {
                break;
            };
            let in_order = lanes.last().is_none_or(|last| last.lane < lane.lane);
            if !in_order || lanes.len() == MAX_LANES {
                return Err(CheckpointError::Malformed { line: lines.line });
            }
            lanes.push(lane);
        }
        let checkpoint = Self { origin, size, boot, counter, previous, time_ms, policy, lanes };
        if checkpoint.root() != root {
            return Err(CheckpointError::WrongRoot);
        }
        let listed = checkpoint.lanes.iter().try_fold(0u64, |sum, lane| sum.checked_add(lane.head.seq));
        if listed.is_none_or(|listed| listed > size) {
            return Err(CheckpointError::Malformed { line: 2 });
        }
        // What is left are other spellings of the same: digits, upper case, lines after the last.
        let encoded = checkpoint.encode();
        if encoded != text {
            let same = encoded.split('\n').zip(text.split('\n')).take_while(|(a, b)| a == b).count();
            return Err(CheckpointError::Malformed { line: same + 1 });
        }
        Ok(checkpoint)
    }

    /// Reads a signed checkpoint of this log: the key in force at its time must have signed it. With it
    /// comes its [`text_hash`].
    pub fn open(note: &str, history: &KeyHistory) -> Result<(Self, Hash), CheckpointError> {
        // The time, which says whose signature it must carry, stands in the text; nothing of it is
        // believed before the signature is checked.
        let unverified = note::text_of(note)?;
        let time_ms = unverified
            .split('\n')
            .take(HEAD_LINES)
            .find_map(|line| line.strip_prefix("time ").and_then(number))
            .unwrap_or(0);
        let text = history.key_for(time_ms).open(note)?;
        let checkpoint = Self::parse(text)?;
        if checkpoint.origin != history.origin() {
            return Err(CheckpointError::WrongLog {
                found: checkpoint.origin,
                expected: history.origin().to_owned(),
            });
        }
        Ok((checkpoint, text_hash(text)))
    }
}

struct Lines<'a> {
    lines: std::str::Split<'a, char>,
    line: usize,
}

impl<'a> Lines<'a> {
    fn next<T>(&mut self, read: impl FnOnce(&'a str) -> Option<T>) -> Result<T, CheckpointError> {
        self.line += 1;
        self.lines.next().and_then(read).ok_or(CheckpointError::Malformed { line: self.line })
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn hex_digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(digest)
}

fn lane_head(line: &str) -> Option<LaneHead> {
    let mut words = line.strip_prefix("lane ")?.split(' ');
    let id = words.next()?;
    let fits = !id.is_empty() && id.len() <= MAX_LANE_ID_BYTES;
    let head = Head { seq: number(words.next()?)?, hash: hash(words.next()?)? };
    (fits && words.next().is_none()).then(|| LaneHead { lane: LaneId::from_stored(id), head })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
    }

    fn checkpoint(history: &KeyHistory, lanes: u64, time_ms: u64) -> Checkpoint {
        let boot = Uuid::now_v7();
        let lanes: Vec<LaneHead> = (0..lanes)
            .map(|n| LaneHead {
                lane: LaneId::new(boot, n as usize % 10, n),
                head: Head { seq: n, hash: leaf_hash(&n.to_be_bytes()) },
            })
            .collect();
        let mut checkpoint = Checkpoint {
            origin: history.origin().to_owned(),
            size: lanes.iter().map(|lane| lane.head.seq).sum(),
            boot,
            counter: 7,
            previous: leaf_hash(b"previous"),
            time_ms,
            policy: leaf_hash(b"policy"),
            lanes,
        };
        checkpoint.lanes.sort_by(|a, b| a.lane.cmp(&b.lane));
        checkpoint
    }

    #[test]
    fn a_checkpoint_reads_back() {
        let key = key();
        let history = KeyHistory::new(&key);
        for lanes in [0, 1, 2, 9] {
            let made = checkpoint(&history, lanes, 5);
            let note = made.sign(&key).unwrap();
            let (read, hash) = Checkpoint::open(&note, &history).unwrap();
            assert_eq!(read, made);
            assert_eq!(hash, text_hash(&made.encode()));
            for lane in &made.lanes {
                assert_eq!(read.lane(&lane.lane), Some(lane));
            }
        }
    }

    #[test]
    fn only_the_key_of_its_time_may_sign() {
        let (old, new) = (key(), key());
        let mut history = KeyHistory::new(&old);
        history.rotate(&old, &new, 1000).unwrap();
        for (time_ms, key, good) in
            [(999, &old, true), (999, &new, false), (1000, &old, false), (1000, &new, true)]
        {
            let note = checkpoint(&history, 1, time_ms).sign(key).unwrap();
            assert_eq!(Checkpoint::open(&note, &history).is_ok(), good, "{time_ms}");
        }
    }

    #[test]
    fn another_spelling_of_the_same_is_refused() {
        let history = KeyHistory::new(&key());
        let text = checkpoint(&history, 3, 5).encode();
        assert!(Checkpoint::parse(&text).is_ok());
        for (from, to) in [
            ("counter 7", "counter 07"),
            ("counter 7", "counter +7"),
            ("time 5", "time 5 "),
            ("time 5\n", "time 5\r\n"),
            ("policy ", "policy  "),
            ("lane ", "line "),
        ] {
            let altered = text.replacen(from, to, 1);
            assert!(matches!(Checkpoint::parse(&altered), Err(CheckpointError::Malformed { .. })), "{to}");
        }
        assert!(Checkpoint::parse(&format!("{text}more\n")).is_err());
        let lines: Vec<&str> = text.lines().collect();
        for cut in 0..lines.len() {
            assert!(Checkpoint::parse(&lines[..cut].join("\n")).is_err(), "{cut}");
        }
    }

    #[test]
    fn a_size_below_that_of_its_lanes_and_a_foreign_root_are_refused() {
        let history = KeyHistory::new(&key());
        let mut small = checkpoint(&history, 4, 5);
        small.size = 5;
        assert_eq!(Checkpoint::parse(&small.encode()), Err(CheckpointError::Malformed { line: 2 }));
        let text = checkpoint(&history, 4, 5).encode();
        let root = text.lines().nth(2).unwrap();
        let other = text.replace(root, &STANDARD.encode([1; 32]));
        assert_eq!(Checkpoint::parse(&other), Err(CheckpointError::WrongRoot));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(lanes in 0u64..4, at in any::<usize>(), bit in 0u8..8) {
            let key = key();
            let history = KeyHistory::new(&key);
            let mut bytes = checkpoint(&history, lanes, 5).sign(&key).unwrap().into_bytes();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(note) = String::from_utf8(bytes) {
                prop_assert!(Checkpoint::open(&note, &history).is_err());
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[a-z0-9 \n=+/-]{0,200}") {
            let _ = Checkpoint::parse(&text);
        }
    }
}
