//! Makes a checkpoint of what stands on the board, and writes it: to the anchor, on disk, then to Redis.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::anchor::{Anchor, Refreshed};
use super::hands::{Hands, is_operators};
use super::seal::{Seal, SealError};
use super::start;
use super::uplink::Uplink;
use crate::audit::checkpoint::{Checkpoint, LaneHead, MAX_LANES, text_hash};
use crate::audit::lane::Head;
use crate::audit::merkle::Hash;
use crate::audit::{Action, LaneId, OperatorEvent};
use crate::clock::Now;
use crate::config;
use crate::key_files::{KeyError, KeyFiles, KeyLock, Keys, Stamp};
use crate::shard::Shards;
use crate::shard::desk::troubles::Code;
use crate::store::{archived, checkpoints, trail};

/// Checkpoints that may fail in a row before nothing is admitted any more.
const MAX_MISSED: u32 = 10;
/// A checkpoint that would say nothing new is made once in so many intervals.
pub const IDLE_INTERVALS: u64 = 60;
/// Lanes whose difference is put on record one by one; beyond it the log has them.
const MAX_EVENTS: usize = 64;

pub(super) struct Sealer {
    shards: Arc<Shards>,
    files: KeyFiles,
    keys: Keys,
    stamp: Option<Stamp>,
    anchor: Option<Anchor>,
    /// Size at which the anchor goes on in a new file.
    anchor_bytes: u64,
    uplink: Uplink,
    counter: u64,
    previous: Hash,
    last_time_ms: u64,
    /// Lanes that nobody writes any more and that no checkpoint of this boot has covered.
    uncovered: BTreeMap<LaneId, Head>,
    /// Lanes of operators' commands that end while this server runs.
    hands: Hands,
    /// Records in the lanes that stand in no further checkpoint.
    done: u64,
    missed: u32,
    redis_failing: bool,
    /// What the last checkpoint said that could be written.
    said: Option<Said>,
    /// How long one that says nothing new may be left out, in milliseconds.
    idle_ms: u64,
}

/// What a checkpoint has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    open: Vec<LaneHead>,
    policy: [u8; 32],
}

/// Why there is no checkpoint.
#[derive(Debug, thiserror::Error)]
enum Missed {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Anchor(#[from] super::anchor::AnchorError),
    #[error(transparent)]
    Uplink(#[from] super::uplink::UplinkError),
    #[error("the newest line of the anchor: {0}")]
    Foreign(#[from] crate::audit::checkpoint::CheckpointError),
    #[error("a field of the checkpoint cannot stand in a note")]
    Unsignable,
}

impl Sealer {
    /// Looks at what Redis holds.
    pub(super) fn new(seal: Seal, config: &config::Audit, shards: Arc<Shards>) -> Result<Self, SealError> {
        let Seal { files, keys, mut anchor, mut archived, newest, others } = seal;
        let shared = shards.shared();
        let mut connection = shared.redis.open()?;
        // Another host may have archived while this server was away.
        let elsewhere = archived::read(&mut connection, &shared.key_ring.keys())?;
        for (lane, tree) in &elsewhere.lanes {
            let last = archived.entry(lane.clone()).or_default();
            *last = tree.size().max(*last);
        }

        let stored = checkpoints::newest(&mut connection)?;
        let mut uplink = Uplink::new(&shared.redis, shards.boot(), config.archive().is_some());
        if let Some(anchor) = &mut anchor {
            let looked = uplink.look(&mut connection, anchor, !shared.has_peers());
            looked.map_err(|error| SealError::Uplink(error.to_string()))?;
        }
        let newest = match (newest, &stored) {
            // Where there is no anchor, Redis' newest is all there is to go on from.
            (None, Some(note)) => {
                let opened = Checkpoint::open(note, &keys.history);
                match &opened {
                    Ok(_) if anchor.is_none() => {}
                    Ok(_) if shared.has_peers() => {
                        log::info!(
                            code = "anchor_begun";
                            "an anchor is begun: the checkpoints before it are in those of other servers"
                        );
                    }
                    Ok(_) => log::error!(
                        code = "anchor_empty";
                        "the anchor is empty, and Redis holds checkpoints of this log: is it the right one?"
                    ),
                    Err(error) => log::warn!(
                        code = "checkpoint_of_another_log";
                        "the newest checkpoint in Redis is not of this log ({error}): another server's, or this log \
                         is a new one"
                    ),
                }
                opened.ok()
            }
            (newest, _) => newest,
        };
        let own = newest.as_ref().map(|(newest, _)| newest);
        let mut named: BTreeSet<String> = BTreeSet::new();
        for checkpoint in own.into_iter().chain(&others) {
            let mut missing = start::compare(&mut connection, checkpoint, &archived)?;
            if !missing.is_empty() {
                // Archived by another server meanwhile? That is noted before anything is trimmed.
                let again = archived::read(&mut connection, &shared.key_ring.keys())?;
                for (lane, tree) in again.lanes {
                    let last = archived.entry(lane).or_default();
                    *last = tree.size().max(*last);
                }
                missing = start::compare(&mut connection, checkpoint, &archived)?;
            }
            for missing in missing {
                let event = missing.event();
                // Two anchors may miss the same.
                if named.insert(event.target.clone()) {
                    log::error!(
                        code = "redis_rolled_back", lane = event.target.as_str();
                        "Redis was rolled back or altered: lane {}: {}", event.target, event.rule
                    );
                    let why = format!("lane {}: {}", event.target, event.rule);
                    shared.troubles.set(Code::RolledBack, Some(why));
                    if named.len() <= MAX_EVENTS {
                        shards.record(event);
                    }
                }
            }
        }
        let heads = shared.board.take();
        let keys_in_force = shared.key_ring.keys();
        let found = start::existing(&mut connection, &keys_in_force, shards.boot())?;
        for (index, (lane, blocks)) in found.foreign.iter().enumerate() {
            let event = start::foreign_event(lane, *blocks);
            if index < MAX_EVENTS {
                log::error!(
                    code = "lane_not_signed", lane:%;
                    "lane {lane}: {}; they are not signed", event.rule
                );
                shards.record(event);
            }
        }
        // What a command may still go on with is covered once it has ended.
        let mut open = BTreeSet::new();
        for lane in trail::operators_lanes(&mut connection)? {
            if found.open.contains(&lane) && is_operators(&mut connection, &keys_in_force, &lane)? {
                let _ = open.insert(lane);
            }
        }
        let hands = Hands::new(&shared.redis, shards.boot(), found.all, open.clone(), Now::read());
        let mut uncovered = found.heads;
        uncovered.retain(|lane, _| !open.contains(lane));
        uncovered.extend(heads.closed.into_iter().map(|closed| (closed.lane, closed.head)));

        Ok(Self {
            stamp: files.stamp(),
            files,
            keys,
            anchor,
            anchor_bytes: config.anchor_max_bytes,
            uplink,
            counter: 0,
            previous: newest.as_ref().map_or([0; 32], |(_, hash)| *hash),
            last_time_ms: newest.as_ref().map_or(0, |(newest, _)| newest.time_ms),
            uncovered,
            hands,
            done: 0,
            missed: 0,
            redis_failing: false,
            said: None,
            idle_ms: config.checkpoint_interval_ms.saturating_mul(IDLE_INTERVALS),
            shards,
        })
    }

    /// Makes and writes one checkpoint; what cannot be written is counted, and said once.
    pub(super) fn checkpoint(&mut self) {
        let sealed = self.seal();
        let shared = self.shards.shared();
        let (board, troubles) = (&shared.board, &shared.troubles);
        match sealed {
            Ok(()) => {
                board.note_sealed(self.last_time_ms);
                troubles.set(Code::Checkpoints, None);
                if std::mem::take(&mut self.missed) > 0 {
                    log::warn!(code = "checkpoints_resumed"; "checkpoints are written again");
                }
                board.set_unsealed(false);
            }
            Err(error) => {
                troubles.set(Code::Checkpoints, Some(error.to_string()));
                self.missed = self.missed.saturating_add(1);
                if self.missed == 1 {
                    log::error!(code = "checkpoint_missed"; "no checkpoint: {error}");
                }
                if self.missed == MAX_MISSED {
                    log::error!(
                        code = "audit_unavailable", missed = MAX_MISSED;
                        "{MAX_MISSED} checkpoints were missed: nothing is admitted ({error})"
                    );
                }
                board.set_unsealed(self.missed >= MAX_MISSED);
            }
        }
    }

    fn seal(&mut self) -> Result<(), Missed> {
        self.look_around();
        let heads = self.shards.shared().board.take();
        // One for each connection that a worker lost since the last checkpoint that could be written.
        self.uncovered.extend(heads.closed.into_iter().map(|closed| (closed.lane, closed.head)));
        let said = Said { open: heads.open, policy: *self.shards.shared().settings().policy.version() };
        if self.is_idle(&said) {
            return self.bring();
        }
        let checkpoint = {
            // From reading the clock to having it on disk: no key is replaced in between.
            let lock = self.files.lock()?;
            self.renew_keys(&lock)?;
            self.hear_others()?;
            let checkpoint = self.compose(&said);
            let note = checkpoint.sign(&self.keys.signing).ok_or(Missed::Unsignable)?;
            match &mut self.anchor {
                Some(anchor) => {
                    anchor.append(&note)?;
                }
                None => self.uplink.enqueue(note)?,
            }
            checkpoint
        };
        // It counts from here on, whatever Redis says.
        self.counter = checkpoint.counter;
        self.last_time_ms = checkpoint.time_ms;
        self.previous = text_hash(&checkpoint.encode());
        for LaneHead { lane, head } in &checkpoint.lanes {
            if self.uncovered.remove(lane).is_some() {
                self.done += head.seq;
            }
        }
        self.said = Some(said);
        self.bring()
    }

    /// Whether a checkpoint would say nothing new, and the last one is not old yet.
    fn is_idle(&self, said: &Said) -> bool {
        self.missed == 0
            && self.uncovered.is_empty()
            && self.said.as_ref() == Some(said)
            && self.files.stamp() == self.stamp
            && Now::read().unix_us / 1000 < self.last_time_ms.saturating_add(self.idle_ms)
    }

    fn bring(&mut self) -> Result<(), Missed> {
        let keys = self.shards.shared().key_ring.keys();
        match self.uplink.bring(self.anchor.as_mut(), &keys) {
            Ok(()) => {
                self.shards.shared().troubles.set(Code::CheckpointsInRedis, None);
                if std::mem::take(&mut self.redis_failing) {
                    log::warn!(code = "checkpoints_in_redis_again"; "Redis has the checkpoints again");
                }
                Ok(())
            }
            // The anchor has it, and Redis gets it later.
            Err(error) if self.anchor.is_some() => {
                self.shards.shared().troubles.set(Code::CheckpointsInRedis, Some(error.to_string()));
                if !std::mem::replace(&mut self.redis_failing, true) {
                    log::warn!(
                        code = "checkpoints_not_in_redis";
                        "checkpoints are in the anchor, and not in Redis: {error}"
                    );
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Takes up store keys that were added, and what operators' commands have written.
    fn look_around(&mut self) {
        let (shared, now) = (self.shards.shared(), Now::read());
        if let Some(key) = shared.key_ring.renew(now) {
            log::info!(code = "store_key_taken", key; "store key {key} makes tags now");
            self.shards.record(OperatorEvent {
                action: Action::StoreKeyChanged,
                target: key,
                rule: String::new(),
                reason: String::new(),
                pending: None,
            });
        }
        self.uncovered.extend(self.hands.look(&shared.key_ring.keys(), now));
    }

    fn compose(&self, said: &Said) -> Checkpoint {
        let open = said.open.clone();
        let room = MAX_LANES.saturating_sub(open.len());
        let is_open = |lane: &LaneId| open.iter().any(|head| head.lane == *lane);
        let uncovered = self.uncovered.iter().filter(|(lane, _)| !is_open(lane)).take(room);
        let uncovered: Vec<(&LaneId, &Head)> = uncovered.collect();
        let mut lanes = open;
        lanes.extend(uncovered.into_iter().map(|(lane, head)| LaneHead { lane: lane.clone(), head: *head }));
        lanes.sort_by(|a, b| a.lane.cmp(&b.lane));
        // Clocks step back; the times of a log do not.
        let now_ms = Now::read().unix_us / 1000;
        let time_ms = now_ms.max(self.last_time_ms + 1).max(self.keys.history.newest_from_ms());
        Checkpoint {
            origin: self.keys.history.origin().to_owned(),
            size: self.done + lanes.iter().map(|lane| lane.head.seq).sum::<u64>(),
            boot: self.shards.boot(),
            counter: self.counter + 1,
            previous: self.previous,
            time_ms,
            policy: said.policy,
            lanes,
        }
    }

    /// Takes up a key that was replaced, and puts it on record.
    fn renew_keys(&mut self, lock: &KeyLock) -> Result<(), KeyError> {
        let stamp = self.files.stamp();
        if stamp == self.stamp && stamp.is_some() {
            return Ok(());
        }
        let keys = self.files.load_or_create(lock)?;
        if keys.history.origin() != self.keys.history.origin() {
            return Err(KeyError::OtherLog { path: self.files.history_path() });
        }
        if keys.signing.public() != self.keys.signing.public() {
            let (old, new) = (self.keys.history.newest(), keys.history.newest());
            log::info!(
                code = "signing_key_taken", key = new.hash_text();
                "checkpoints are signed by key {} now", new.hash_text()
            );
            self.shards.record(OperatorEvent {
                action: Action::SigningKeyChanged,
                target: new.to_string(),
                rule: String::new(),
                reason: format!("from {} to {}", old.hash_text(), new.hash_text()),
                pending: None,
            });
        }
        self.keys = keys;
        self.stamp = stamp;
        Ok(())
    }

    /// The times of a log rise, whichever of its servers signs.
    fn hear_others(&mut self) -> Result<(), Missed> {
        let Some(anchor) = &mut self.anchor else {
            return Ok(());
        };
        let refreshed = anchor.refresh()?;
        if refreshed == Refreshed::Continued {
            self.uplink.continued();
        }
        if refreshed != Refreshed::Same
            && let Some(note) = anchor.last()?
        {
            let (newest, _) = Checkpoint::open(&note, &self.keys.history)?;
            self.last_time_ms = self.last_time_ms.max(newest.time_ms);
        }
        // What Redis lacks is brought first, but not for ever.
        let is_large = anchor.end() >= self.anchor_bytes;
        if is_large && (self.uplink.has_all(anchor) || anchor.end() >= 2 * self.anchor_bytes) {
            anchor.continue_in_new_file()?;
            self.uplink.continued();
        }
        Ok(())
    }

    /// After the last checkpoint.
    pub(super) fn close(self) {
        if self.missed > 0 {
            log::error!(code = "checkpoint_missed"; "the last checkpoint of this run could not be written");
        }
        if self.redis_failing {
            log::warn!(
                code = "checkpoints_not_in_redis";
                "the last checkpoints are in the anchor, and not in Redis; the next start brings them"
            );
        }
        if let Err(error) = self.uplink.close() {
            log::warn!(code = "lease_not_released"; "the turn of writing checkpoints could not be given up: {error}");
        }
    }
}
