//! The checkpoints, one by one: who signed them, whether one is missing or stands twice, and whether each
//! follows from the one before it.
//!
//! Each run of a server is a chain of its own, and its first checkpoint names the newest of its log at that
//! time. Servers that share a log stand in one anchor in the order of their times, and in Redis in the order in
//! which they came.

use std::collections::{HashMap, HashSet, VecDeque};

use uuid::Uuid;

use super::damage::{DamageKind, Damages, Place, Stream};
use crate::audit::checkpoint::{Checkpoint, CheckpointError, LaneHead, MAX_LANES, text_hash};
use crate::audit::keys::KeyHistory;
use crate::audit::merkle::Hash;
use crate::audit::note::{self, NoteError};

/// What the first checkpoint of a log names as the one before it.
const NOTHING_BEFORE: Hash = [0; 32];
/// Checkpoints that a run's first one may name: the newest ones, of all runs.
const RECENT: usize = 4096;

/// The checkpoints of one stream so far.
#[derive(Debug)]
pub(super) struct Seals {
    stream: Stream,
    boots: HashMap<Uuid, Boot>,
    /// Text hashes of the newest, of any run.
    recent: VecDeque<Hash>,
    known: HashSet<Hash>,
    /// What runs named as the one before their first, and was not seen yet.
    sought: HashMap<Hash, Place>,
    newest_ms: u64,
    notes: u64,
    /// Checkpoints read.
    pub(super) count: u64,
    /// The stream does not begin with the first checkpoint of a log.
    pub(super) headless: bool,
    /// Runs that began without knowing of the checkpoints before them.
    pub(super) fresh_starts: u64,
    /// Parts of the stream are elsewhere.
    gaps: bool,
}

#[derive(Debug)]
struct Boot {
    counter: u64,
    hash: Hash,
    time_ms: u64,
    size: u64,
    /// The lanes that its newest checkpoint lists.
    lanes: Vec<LaneHead>,
    /// Whether its size can be followed up.
    summed: bool,
}

/// Where a checkpoint stands in its stream.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) checkpoint: Checkpoint,
    pub(super) hash: Hash,
    /// It is not one that stands there again.
    pub(super) is_new: bool,
}

impl Seals {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            boots: HashMap::new(),
            recent: VecDeque::new(),
            known: HashSet::new(),
            sought: HashMap::new(),
            newest_ms: 0,
            notes: 0,
            count: 0,
            headless: false,
            fresh_starts: 0,
            gaps: false,
        }
    }

    pub(super) fn newest_ms(&self) -> u64 {
        self.newest_ms
    }

    pub(super) fn place(&self, checkpoint: &Checkpoint) -> Place {
        Place::Checkpoint { stream: self.stream, boot: checkpoint.boot, counter: checkpoint.counter }
    }

    /// Reads the next one; `None` where it is none. `keys`: one history per log; without any no signature is
    /// checked.
    pub(super) fn open(&mut self, note: &str, keys: &[KeyHistory], damages: &mut Damages) -> Option<Opened> {
        self.notes += 1;
        let (checkpoint, hash) = match read(note, keys) {
            Ok(opened) => opened,
            Err(kind) => {
                damages.add(Place::Note { stream: self.stream, number: self.notes }, kind);
                return None;
            }
        };
        self.count += 1;
        if let Err(kind) = self.follows(&checkpoint, &hash) {
            let repeated = kind == DamageKind::CheckpointRepeated;
            damages.add(self.place(&checkpoint), kind);
            if repeated {
                return Some(Opened { checkpoint, hash, is_new: false });
            }
            // One gap is one finding: what follows is compared with this one.
        }
        self.note_hash(hash);
        self.newest_ms = checkpoint.time_ms.max(self.newest_ms);
        let before = self.boots.get(&checkpoint.boot);
        let summed = !self.gaps
            && checkpoint.lanes.len() < MAX_LANES
            && before.map_or(checkpoint.counter == 1, |before| before.summed);
        let state = Boot {
            counter: checkpoint.counter,
            hash,
            time_ms: checkpoint.time_ms,
            size: checkpoint.size,
            lanes: checkpoint.lanes.clone(),
            summed,
        };
        let _ = self.boots.insert(checkpoint.boot, state);
        Some(Opened { checkpoint, hash, is_new: true })
    }

    fn note_hash(&mut self, hash: Hash) {
        drop(self.sought.remove(&hash));
        if self.recent.len() == RECENT
            && let Some(oldest) = self.recent.pop_front()
        {
            let _ = self.known.remove(&oldest);
        }
        self.recent.push_back(hash);
        let _ = self.known.insert(hash);
    }

    fn follows(&mut self, checkpoint: &Checkpoint, hash: &Hash) -> Result<(), DamageKind> {
        // In an anchor the times of all runs rise; in Redis those of each.
        let too_early = self.stream == Stream::Anchor && checkpoint.time_ms <= self.newest_ms;
        let Some(last) = self.boots.get(&checkpoint.boot) else {
            return self.begins(checkpoint, too_early);
        };
        if checkpoint.counter <= last.counter || *hash == last.hash {
            return Err(DamageKind::CheckpointRepeated);
        }
        if self.gaps && checkpoint.counter != last.counter + 1 {
            return Ok(());
        }
        if checkpoint.counter != last.counter + 1 {
            return Err(DamageKind::CheckpointMissing { expected: last.counter + 1 });
        }
        if checkpoint.previous != last.hash {
            return Err(DamageKind::CheckpointUnlinked);
        }
        if too_early || checkpoint.time_ms <= last.time_ms || checkpoint.size < last.size {
            return Err(DamageKind::CheckpointBackwards);
        }
        let grown = grown(&checkpoint.lanes, &last.lanes);
        let counted = last.size.saturating_add(grown);
        if last.summed && checkpoint.lanes.len() < MAX_LANES && counted != checkpoint.size {
            return Err(DamageKind::SizeDiffers { counted, stated: checkpoint.size });
        }
        Ok(())
    }

    /// The first of a run: it names the newest of its log, of whichever run.
    fn begins(&mut self, checkpoint: &Checkpoint, too_early: bool) -> Result<(), DamageKind> {
        let names_nothing = checkpoint.previous == NOTHING_BEFORE;
        if self.count == 1 {
            // Redis keeps the newest ones only, and an anchor may have been begun anew.
            self.headless = checkpoint.counter != 1 || !names_nothing;
        }
        if checkpoint.counter != 1 {
            // Where the beginning was let go of, it was that of all runs.
            return if self.headless || self.gaps {
                Ok(())
            } else {
                Err(DamageKind::CheckpointMissing { expected: 1 })
            };
        }
        if names_nothing {
            // A log of its own; or one whose anchor was taken away: that is for the reader to judge.
            self.fresh_starts += u64::from(self.count > 1);
        } else if self.count > 1 && !self.known.contains(&checkpoint.previous) {
            // Another server's, which may still come.
            let place = self.place(checkpoint);
            let _ = self.sought.insert(checkpoint.previous, place);
        }
        if too_early {
            return Err(DamageKind::CheckpointBackwards);
        }
        let counted = grown(&checkpoint.lanes, &[]);
        if checkpoint.lanes.len() < MAX_LANES && counted != checkpoint.size {
            return Err(DamageKind::SizeDiffers { counted, stated: checkpoint.size });
        }
        Ok(())
    }

    /// Whether a run's newest one is of this number and another than this.
    pub(super) fn differs(&self, boot: &Uuid, counter: u64, hash: &Hash) -> bool {
        self.boots.get(boot).is_some_and(|state| state.counter == counter && state.hash != *hash)
    }

    /// What a run went on from stands in the other stream.
    pub(super) fn found_elsewhere(&mut self, hash: &Hash) {
        drop(self.sought.remove(hash));
    }

    /// Whether this one is among the newest.
    pub(super) fn knows(&self, hash: &Hash) -> bool {
        self.known.contains(hash)
    }

    /// Parts of the stream are elsewhere: numbers that are missing are there.
    pub(super) fn allow_gaps(&mut self) {
        self.gaps = true;
    }

    /// At the end: what runs went on from, and is not there.
    pub(super) fn finish(&mut self, damages: &mut Damages) {
        let mut sought: Vec<Place> = self.sought.drain().map(|(_, place)| place).collect();
        sought.sort_by_key(ToString::to_string);
        for place in sought.into_iter().filter(|_| !self.gaps) {
            damages.add(place, DamageKind::CheckpointUnlinked);
        }
    }

    /// Whether the stream has this run's checkpoint of that number, or a later one.
    pub(super) fn reaches(&self, boot: &Uuid, counter: u64) -> bool {
        self.boots.get(boot).is_some_and(|state| state.counter >= counter)
    }
}

/// Records in `lanes` beyond what `before` says of the same ones. Those that are not listed again have
/// ended.
fn grown(lanes: &[LaneHead], before: &[LaneHead]) -> u64 {
    let known = |head: &LaneHead| {
        let at = before.binary_search_by(|other| other.lane.cmp(&head.lane)).ok()?;
        before.get(at).map(|other| other.head.seq)
    };
    lanes
        .iter()
        .fold(0, |sum: u64, head| sum.saturating_add(head.head.seq.saturating_sub(known(head).unwrap_or(0))))
}

/// A checkpoint and the hash of its text, signed by the key in force at its time, of one of these logs.
fn read(note: &str, keys: &[KeyHistory]) -> Result<(Checkpoint, Hash), DamageKind> {
    let not_signed = |why: String| DamageKind::NotSigned { why };
    let unverified = note::text_of(note).map_err(|error| not_signed(format!("the checkpoint {error}")))?;
    if keys.is_empty() {
        let checkpoint = Checkpoint::parse(unverified).map_err(|error| not_signed(error.to_string()))?;
        return Ok((checkpoint, text_hash(unverified)));
    }
    let origin = unverified.split('\n').next().unwrap_or_default();
    let Some(history) = keys.iter().find(|history| history.origin() == origin) else {
        return Err(DamageKind::OtherLog { origin: origin.to_owned() });
    };
    Checkpoint::open(note, history).map_err(|error| match error {
        // By a key that nobody here knows, behind the last rotation that is known: another one may have followed.
        CheckpointError::Note(NoteError::WrongKey { found, .. })
            if Checkpoint::parse(unverified).is_ok_and(|at| at.time_ms >= history.newest_from_ms()) =>
        {
            DamageKind::NewerKey { found }
        }
        error => not_signed(error.to_string()),
    })
}
