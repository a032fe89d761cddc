//! The checkpoints, one by one: who signed them, whether one is missing or stands twice, and whether each
//! follows from the one before it.

use std::collections::HashMap;

use uuid::Uuid;

use super::damage::{DamageKind, Damages, Place, Stream};
use crate::audit::checkpoint::{Checkpoint, text_hash};
use crate::audit::keys::KeyHistory;
use crate::audit::merkle::Hash;
use crate::audit::note;

/// What the first checkpoint of a log names as the one before it.
const NOTHING_BEFORE: Hash = [0; 32];

/// The checkpoints of one stream so far.
#[derive(Debug)]
pub(super) struct Seals {
    stream: Stream,
    boots: HashMap<Uuid, Boot>,
    /// Text hash of the newest, of any boot.
    newest: Option<Hash>,
    newest_ms: u64,
    notes: u64,
    /// Checkpoints read.
    pub(super) count: u64,
    /// The first one is not the first of its log.
    pub(super) headless: bool,
    /// Runs that began without knowing of the checkpoints before it.
    pub(super) fresh_starts: u64,
}

#[derive(Debug)]
struct Boot {
    counter: u64,
    hash: Hash,
    size: u64,
}

/// Where a checkpoint stands in its stream.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) checkpoint: Checkpoint,
    pub(super) hash: Hash,
    /// It follows from what came before.
    pub(super) in_order: bool,
}

impl Seals {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            boots: HashMap::new(),
            newest: None,
            newest_ms: 0,
            notes: 0,
            headless: false,
            count: 0,
            fresh_starts: 0,
        }
    }

    pub(super) fn newest_ms(&self) -> u64 {
        self.newest_ms
    }

    pub(super) fn place(&self, checkpoint: &Checkpoint) -> Place {
        Place::Checkpoint { stream: self.stream, boot: checkpoint.boot, counter: checkpoint.counter }
    }

    /// Reads the next one; `None` where it is none. `history`: the keys; without them no signature is checked.
    pub(super) fn open(
        &mut self,
        note: &str,
        history: Option<&KeyHistory>,
        damages: &mut Damages,
    ) -> Option<Opened> {
        self.notes += 1;
        let opened = match history {
            Some(history) => Checkpoint::open(note, history),
            None => note::text_of(note)
                .map_err(Into::into)
                .and_then(|text| Ok((Checkpoint::parse(text)?, text_hash(text)))),
        };
        let (checkpoint, hash) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                let place = Place::Note { stream: self.stream, number: self.notes };
                damages.add(place, DamageKind::NotSigned { why: error.to_string() });
                return None;
            }
        };
        self.count += 1;
        let in_order = match self.follows(&checkpoint, &hash) {
            Ok(()) => true,
            Err(kind) => {
                let repeated = kind == DamageKind::CheckpointRepeated;
                damages.add(self.place(&checkpoint), kind);
                if repeated {
                    return Some(Opened { checkpoint, hash, in_order: false });
                }
                // One gap is one finding: what follows is compared with this one.
                true
            }
        };
        self.newest = Some(hash);
        self.newest_ms = checkpoint.time_ms.max(self.newest_ms);
        let state = Boot { counter: checkpoint.counter, hash, size: checkpoint.size };
        let _ = self.boots.insert(checkpoint.boot, state);
        Some(Opened { checkpoint, hash, in_order })
    }

    fn follows(&mut self, checkpoint: &Checkpoint, hash: &Hash) -> Result<(), DamageKind> {
        let Some(last) = self.boots.get(&checkpoint.boot) else {
            return self.begins(checkpoint);
        };
        if checkpoint.counter <= last.counter || *hash == last.hash {
            return Err(DamageKind::CheckpointRepeated);
        }
        if checkpoint.counter != last.counter + 1 {
            return Err(DamageKind::CheckpointMissing { expected: last.counter + 1 });
        }
        if checkpoint.previous != last.hash {
            return Err(DamageKind::CheckpointUnlinked);
        }
        if checkpoint.time_ms <= self.newest_ms || checkpoint.size < last.size {
            return Err(DamageKind::CheckpointBackwards);
        }
        Ok(())
    }

    /// The first of a run: it names the newest before it, of whichever run.
    fn begins(&mut self, checkpoint: &Checkpoint) -> Result<(), DamageKind> {
        let Some(newest) = self.newest else {
            // Redis keeps the newest ones only, and an anchor may have been begun anew.
            self.headless = checkpoint.counter != 1 || checkpoint.previous != NOTHING_BEFORE;
            return Ok(());
        };
        if checkpoint.counter != 1 {
            return Err(DamageKind::CheckpointMissing { expected: 1 });
        }
        if checkpoint.previous != newest {
            if checkpoint.previous != NOTHING_BEFORE {
                return Err(DamageKind::CheckpointUnlinked);
            }
            // Its anchor was taken away, or it is a stranger: that is for the reader to judge.
            self.fresh_starts += 1;
        }
        if checkpoint.time_ms <= self.newest_ms {
            return Err(DamageKind::CheckpointBackwards);
        }
        Ok(())
    }

    /// Whether the stream has this checkpoint's boot at its counter or beyond.
    pub(super) fn reaches(&self, boot: &Uuid, counter: u64) -> bool {
        self.boots.get(boot).is_some_and(|state| state.counter >= counter)
    }
}
