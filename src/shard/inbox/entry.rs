//! One entry of an inbox's stream, as its home worker tracks it.

use uuid::Uuid;

use crate::ids::InstanceId;
use crate::shard::desk::delivery::Source;
use crate::store::answers::EntryId;
use crate::store::dead_letters::{Failure, MAX_HISTORY};

/// Bytes of each reason that an entry remembers.
const MAX_FAILURE_BYTES: usize = 256;

/// Shortest wait of a message that cannot be handled now; it doubles each time, up to the last, and up to a fourth is added.
const PUT_OFF_FIRST_MS: u64 = 250;
const PUT_OFF_LAST_MS: u64 = 60_000;
const PUT_OFF_SPREAD: u64 = 4;
const MAX_DOUBLINGS: u8 = 8;
/// Longest wait that a client can ask for: an hourly rate limit has room again by then.
const MAX_AFTER_MS: u64 = 3_600_000;

/// Claims of an entry whose answers were lost, and that are remembered until it is known who holds it.
const MAX_CLAIMS_IN_DOUBT: usize = 4;

/// Where an entry lives: in the shared inbox, or in one instance's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryKey {
    /// The instance whose own inbox it is in; `None`: the shared one.
    pub owner: Option<InstanceId>,
    /// The entry.
    pub entry: EntryId,
}

impl EntryKey {
    /// The entry that an instance names.
    pub fn of(instance: &InstanceId, source: Source, entry: EntryId) -> Self {
        let owner = match source {
            Source::Shared => None,
            Source::Own => Some(instance.clone()),
        };
        Self { owner, entry }
    }

    /// The inbox it is in, as its holder sees it.
    pub fn source(&self) -> Source {
        if self.owner.is_some() { Source::Own } else { Source::Shared }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// With its holder, who has a session, by the delivery of this token.
    InFlight { token: u64 },
    /// For another delivery, not before `due_ms`. `lost`: because its holder's session ended.
    Waiting { due_ms: u64, lost: bool },
    /// For another delivery as soon as somebody can take it.
    Due,
    /// Acknowledged or a dead letter, not yet removed from Redis.
    Leaving,
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub state: State,
    /// Deliveries so far, counted by the servers.
    pub attempts: u32,
    /// Redis' count of deliveries, as it was seen last.
    pub stored: u32,
    /// The instance that holds it in Redis' pending entries list.
    pub holder: InstanceId,
    /// The instances for which it was claimed and the answer was lost: one of them may hold it by now. The last
    /// [`MAX_CLAIMS_IN_DOUBT`].
    pub claimed_for: Vec<InstanceId>,
    pub bytes: usize,
    /// When it went to its holder (monotonic milliseconds); 0: not by this worker.
    pub handed_ms: u64,
    /// Which message it is; nil before this worker has seen it.
    pub message_id: Uuid,
    /// How its deliveries failed, as far as this worker has seen it; the last [`MAX_HISTORY`].
    pub failures: Vec<Failure>,
    /// How often it could not be handled now, since this worker has it.
    pub put_off: u8,
    /// The last scan of the pending entries list that showed it, or that was under way when it was delivered.
    pub seen: u32,
}

impl Entry {
    pub(super) fn failed(&mut self, reason: &str) {
        let mut end = reason.len().min(MAX_FAILURE_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        if self.failures.len() == MAX_HISTORY {
            drop(self.failures.remove(0));
        }
        let reason = reason.get(..end).unwrap_or_default().to_owned();
        self.failures.push(Failure { attempt: self.attempts, reason });
    }

    /// It cannot be handled now: how long it waits, in milliseconds. No sooner than `after_ms`, twice as long each time, and
    /// spread by `random`, so that what was put off at once does not come back at once.
    pub(super) fn put_off(&mut self, after_ms: u64, random: u64) -> u64 {
        let growing_ms = (PUT_OFF_FIRST_MS << self.put_off.min(MAX_DOUBLINGS)).min(PUT_OFF_LAST_MS);
        self.put_off = self.put_off.saturating_add(1);
        let wait_ms = after_ms.clamp(growing_ms, MAX_AFTER_MS);
        wait_ms + random % (wait_ms / PUT_OFF_SPREAD + 1)
    }

    /// The answer to a claim for `instance` was lost.
    pub(super) fn claim_in_doubt(&mut self, instance: &InstanceId) {
        if *instance == self.holder || self.claimed_for.contains(instance) {
            return;
        }
        if self.claimed_for.len() == MAX_CLAIMS_IN_DOUBT {
            drop(self.claimed_for.remove(0));
        }
        self.claimed_for.push(instance.clone());
    }

    pub(super) fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight { .. })
    }
}

/// An entry on its way to the dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Which.
    pub key: EntryKey,
    /// Who held it last.
    pub holder: InstanceId,
    /// Deliveries it had.
    pub attempts: u32,
    /// Why.
    pub reason: String,
    /// How its last deliveries failed, as far as is known.
    pub history: Vec<Failure>,
}
