//! Which key signs the trail's checkpoints, and which one did at any time: the key history. Pure.
//!
//! The history is a text: the log's first key, and a signed note for each key that came after it, signed
//! by the one before it. Whoever has the first key (or its hash, the log id) can follow it to any other.
//! A checkpoint must be signed by the key in force at its own time, so neither a retired key nor one of
//! later can sign for a time that is not its own.
//!
//! ```text
//! mas.audit/{log id}+{hash}+{base64}
//!
//! mas.audit key rotation
//! time {Unix milliseconds}
//! key mas.audit/{log id}+{hash}+{base64}
//!
//! — mas.audit/{log id} {signature by the key before}
//! ```

use sha2::{Digest, Sha256};

use super::note::{NoteError, SigningKey, VerifierKey};
use crate::ids::hex;

/// What the origins of all logs begin with.
pub const ORIGIN_PREFIX: &str = "mas.audit/";
/// First line of a rotation's note: no checkpoint begins like it.
const ROTATION: &str = "mas.audit key rotation";
/// Lines of a rotation in the history, the empty line before it included.
const ROTATION_LINES: usize = 6;
/// Keys that one log may have had.
pub const MAX_KEYS: usize = 10_000;

/// Why a text is no key history.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The first line is no key, or not one that names its own log.
    #[error("line 1 is no key of an audit log")]
    FirstKey,
    /// A rotation that is cut off or not in its one form.
    #[error("line {line}: no rotation of a key")]
    Malformed {
        /// Where it begins.
        line: usize,
    },
    /// A rotation that the key before it did not sign.
    #[error("line {line}: the rotation {source}")]
    Unsigned {
        /// Where it begins.
        line: usize,
        /// Why not.
        source: NoteError,
    },
    /// Times must rise.
    #[error("line {line}: the rotation is not after the one before it")]
    OutOfOrder {
        /// Where it begins.
        line: usize,
    },
    /// More than [`MAX_KEYS`].
    #[error("holds more than {MAX_KEYS} keys")]
    TooMany,
}

/// The keys of one log, each with the time from which it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHistory {
    first: VerifierKey,
    rotated: Vec<Rotation>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rotation {
    from_ms: u64,
    key: VerifierKey,
    note: String,
}

/// The id of the log that begins with this key: half of the key's SHA-256, 16 hexadecimal digits.
pub fn log_id(first_key: &[u8; 32]) -> String {
    let mut id = hex(&Sha256::digest(first_key));
    id.truncate(16);
    id
}

impl KeyHistory {
    /// The history of a new log.
    pub fn new(first: &SigningKey) -> Self {
        let name = format!("{ORIGIN_PREFIX}{}", log_id(first.public()));
        let first = VerifierKey { name, public: *first.public() };
        Self { first, rotated: Vec::new() }
    }

    /// Reads a history and checks every signature in it.
    pub fn parse(text: &str) -> Result<Self, HistoryError> {
        let lines: Vec<&str> = text.strip_suffix('\n').unwrap_or(text).split('\n').collect();
        let (head, rest) = lines.split_first().ok_or(HistoryError::FirstKey)?;
        let first = VerifierKey::parse(head)
            .filter(|key| key.name.strip_prefix(ORIGIN_PREFIX) == Some(log_id(&key.public).as_str()))
            .ok_or(HistoryError::FirstKey)?;
        let mut history = Self { first, rotated: Vec::new() };
        for (index, lines) in rest.chunks(ROTATION_LINES).enumerate() {
            // Lines count from 1, and an empty one comes before each rotation.
            let line = 2 + index * ROTATION_LINES + 1;
            let Some(("", lines)) = lines.split_first().map(|(first, lines)| (*first, lines)) else {
                return Err(HistoryError::Malformed { line });
            };
            let note = format!("{}\n", lines.join("\n"));
            let text = history.newest().open(&note).map_err(|source| match source {
                NoteError::Malformed(_) => HistoryError::Malformed { line },
                source => HistoryError::Unsigned { line, source },
            })?;
            let (from_ms, key) = history.parse_rotation(text).ok_or(HistoryError::Malformed { line })?;
            if from_ms <= history.newest_from_ms() {
                return Err(HistoryError::OutOfOrder { line });
            }
            if history.rotated.len() + 1 >= MAX_KEYS {
                return Err(HistoryError::TooMany);
            }
            history.rotated.push(Rotation { from_ms, key, note });
        }
        Ok(history)
    }

    fn parse_rotation(&self, text: &str) -> Option<(u64, VerifierKey)> {
        let mut lines = text.split('\n').skip(1);
        let from_ms = lines.next()?.strip_prefix("time ")?.parse().ok()?;
        let key = VerifierKey::parse(lines.next()?.strip_prefix("key ")?)?;
        (key.name == self.first.name && rotation_text(from_ms, &key) == text).then_some((from_ms, key))
    }

    /// The text of the history.
    pub fn encode(&self) -> String {
        let mut text = format!("{}\n", self.first);
        for rotation in &self.rotated {
            text.push('\n');
            text.push_str(&rotation.note);
        }
        text
    }

    /// Adds `next`, in force from `from_ms` (Unix milliseconds) on; `current` must be the newest key's private
    /// half, and the time after the last rotation's. `None` otherwise.
    pub fn rotate(&mut self, current: &SigningKey, next: &SigningKey, from_ms: u64) -> Option<()> {
        let known = self.keys().any(|(_, key)| key.public == *next.public());
        if known || *current.public() != self.newest().public || from_ms <= self.newest_from_ms() {
            return None;
        }
        if self.rotated.len() + 1 >= MAX_KEYS {
            return None;
        }
        let key = VerifierKey { name: self.first.name.clone(), public: *next.public() };
        let note = current.sign(self.origin(), &rotation_text(from_ms, &key))?;
        self.rotated.push(Rotation { from_ms, key, note });
        Some(())
    }

    /// The log's name: first line of its checkpoints, name of all its keys.
    pub fn origin(&self) -> &str {
        &self.first.name
    }

    /// The log's id.
    pub fn log_id(&self) -> &str {
        self.first.name.strip_prefix(ORIGIN_PREFIX).unwrap_or_default()
    }

    /// The key in force at a time (Unix milliseconds).
    pub fn key_for(&self, time_ms: u64) -> &VerifierKey {
        let rotation = self.rotated.iter().rev().find(|rotation| rotation.from_ms <= time_ms);
        rotation.map_or(&self.first, |rotation| &rotation.key)
    }

    /// The newest key.
    pub fn newest(&self) -> &VerifierKey {
        self.rotated.last().map_or(&self.first, |rotation| &rotation.key)
    }

    /// From when on the newest key is in force, in Unix milliseconds; 0 for the first key.
    pub fn newest_from_ms(&self) -> u64 {
        self.rotated.last().map_or(0, |rotation| rotation.from_ms)
    }

    /// Every key with the time (Unix milliseconds) from which it is in force, oldest first.
    pub fn keys(&self) -> impl Iterator<Item = (u64, &VerifierKey)> {
        std::iter::once((0, &self.first)).chain(self.rotated.iter().map(|r| (r.from_ms, &r.key)))
    }
}

fn rotation_text(from_ms: u64, key: &VerifierKey) -> String {
    format!("{ROTATION}\ntime {from_ms}\nkey {key}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
    }

    fn rotated() -> (KeyHistory, [SigningKey; 3]) {
        let keys = [key(), key(), key()];
        let mut history = KeyHistory::new(&keys[0]);
        history.rotate(&keys[0], &keys[1], 1000).unwrap();
        history.rotate(&keys[1], &keys[2], 2000).unwrap();
        (history, keys)
    }

    #[test]
    fn a_key_is_in_force_from_its_rotation_to_the_next() {
        let (history, keys) = rotated();
        assert_eq!(KeyHistory::parse(&history.encode()).unwrap(), history);
        for (time_ms, index) in [(0, 0), (999, 0), (1000, 1), (1999, 1), (2000, 2), (u64::MAX, 2)] {
            assert_eq!(history.key_for(time_ms).public(), keys[index].public(), "{time_ms}");
        }
        assert_eq!(history.keys().count(), 3);
        assert_eq!(history.log_id(), log_id(keys[0].public()));
    }

    #[test]
    fn only_the_newest_key_rotates_and_only_forward() {
        let (mut history, keys) = rotated();
        assert_eq!(history.rotate(&keys[1], &key(), 3000), None);
        assert_eq!(history.rotate(&keys[2], &key(), 2000), None);
        assert_eq!(history.rotate(&keys[2], &keys[0], 3000), None);
        assert_eq!(history.rotate(&keys[2], &key(), 3000), Some(()));
    }

    #[test]
    fn a_key_that_nobody_introduced_is_refused() {
        let (mut history, keys) = rotated();
        let stranger = key();
        let name = history.origin().to_owned();
        let public = VerifierKey::new(&name, *stranger.public()).unwrap();
        let note = stranger.sign(&name, &rotation_text(3000, &public)).unwrap();
        history.rotated.push(Rotation { from_ms: 3000, key: public, note });
        assert!(matches!(KeyHistory::parse(&history.encode()), Err(HistoryError::Unsigned { line: 15, .. })));

        // A retired key signs nothing any more.
        let text = rotation_text(3000, &VerifierKey::new(&name, *stranger.public()).unwrap());
        history.rotated.last_mut().unwrap().note = keys[0].sign(&name, &text).unwrap();
        assert!(matches!(KeyHistory::parse(&history.encode()), Err(HistoryError::Unsigned { .. })));
    }

    #[test]
    fn a_first_key_of_another_log_is_refused() {
        let other = VerifierKey::new("mas.audit/0000000000000000", *key().public()).unwrap();
        assert_eq!(KeyHistory::parse(&format!("{other}\n")), Err(HistoryError::FirstKey));
        assert_eq!(KeyHistory::parse(""), Err(HistoryError::FirstKey));
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(at in any::<usize>(), bit in 0u8..8) {
            let (history, _) = rotated();
            let mut bytes = history.encode().into_bytes();
            // Its last newline is not part of what it says.
            let at = at % (bytes.len() - 1);
            bytes[at] ^= 1 << bit;
            if let Ok(text) = String::from_utf8(bytes) {
                prop_assert!(KeyHistory::parse(&text).is_err());
            }
        }
    }
}
