//! The join of decisions with what was done: nothing is handed on or finished that was not accepted.
//!
//! Kept are the messages that wait, those that are dead, and the last finished ones: as much as the server
//! itself had to hold, however long the trail is. What is said of a message before its acceptance is
//! read (the lanes of two workers are read side by side) is kept until then.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use super::damage::{DamageKind, Damages, Place};
use crate::audit::lane::LaneId;
use crate::audit::record::{Action, Decision, REPETITION_RULE, View};

/// Finished messages that are remembered: an acknowledgement may stand twice around a lost connection, and what a server
/// whose clock was stepped wrote is read far from its place. About 120 MB.
const MAX_FINISHED: usize = 1 << 21;

#[derive(Debug)]
enum Life {
    Waiting,
    Dead,
    Finished,
    /// Something is on record of it, and not yet why.
    Unknown(Box<Unknown>),
}

#[derive(Debug)]
struct Unknown {
    lane: LaneId,
    seq: u64,
    action: Action,
    next: Next,
}

/// What an event makes of a message.
#[derive(Debug, Clone, Copy)]
enum Next {
    Same,
    Dead,
    Waiting,
    Finished,
}

/// Every message's state, as far as it matters.
#[derive(Debug, Default)]
pub(super) struct Custody {
    lives: HashMap<u128, Life>,
    finished: VecDeque<u128>,
    /// Time of the first record seen, Unix milliseconds.
    start_ms: Option<u64>,
    pub(super) accepted: u64,
    pub(super) done: u64,
}

impl Custody {
    pub(super) fn record(&mut self, lane: &LaneId, record: &View<'_>) {
        let time_ms = record.time_us / 1000;
        self.start_ms = Some(self.start_ms.map_or(time_ms, |start| start.min(time_ms)));
        let next = match record.action {
            Action::Send | Action::Request | Action::Reply => {
                let sent = passes(record.decision) && record.rule != REPETITION_RULE;
                if let (true, Some(id)) = (sent, record.message_id) {
                    self.accept(id);
                }
                return;
            }
            Action::Delivered | Action::Nack => Next::Same,
            Action::DeadLetter => Next::Dead,
            Action::Redriven => Next::Waiting,
            Action::Acked | Action::Dropped | Action::Expired | Action::EffectFailed => Next::Finished,
            Action::LaneOpened
            | Action::LaneClosed
            | Action::SessionOpen
            | Action::SessionClose
            | Action::Discover
            | Action::StateGet
            | Action::StateUpdate
            | Action::StateReset
            | Action::CircuitOpened
            | Action::CircuitClosed
            | Action::ConfigChanged
            | Action::ServerStarted
            | Action::ServerStopped
            | Action::CertificateChanged
            | Action::SigningKeyChanged
            | Action::RevocationsChanged
            | Action::Commit
            | Action::Archived
            | Action::TrailDiffers
            | Action::Vanished => return,
        };
        for id in record.message_id.into_iter().chain(record.messages.iter().map(|(id, _)| id)) {
            self.event(lane, record, id, next);
        }
    }

    fn accept(&mut self, id: Uuid) {
        self.accepted += 1;
        let key = id.as_u128();
        let next = match self.lives.get(&key) {
            None => Next::Waiting,
            Some(Life::Unknown(unknown)) => match unknown.next {
                Next::Same => Next::Waiting,
                next => next,
            },
            // Recorded as accepted twice: its life goes on.
            Some(Life::Waiting | Life::Dead | Life::Finished) => return,
        };
        self.put(key, next);
    }

    fn event(&mut self, lane: &LaneId, record: &View<'_>, id: Uuid, next: Next) {
        let key = id.as_u128();
        match self.lives.get_mut(&key) {
            None => {
                let unknown = Unknown { lane: lane.clone(), seq: record.seq, action: record.action, next };
                let _ = self.lives.insert(key, Life::Unknown(Box::new(unknown)));
            }
            Some(Life::Unknown(unknown)) => {
                if !matches!(next, Next::Same) {
                    unknown.next = next;
                }
            }
            Some(Life::Finished) => {
                // Most are copies that were still under way when the message was finished. One that was refused
                // is a dead letter all the same.
                if matches!(next, Next::Dead) {
                    self.put(key, next);
                }
            }
            // A copy that was under way may be acknowledged yet; the letter stays.
            Some(Life::Dead) if record.action == Action::Acked => {}
            Some(Life::Waiting | Life::Dead) => self.put(key, next),
        }
    }

    fn put(&mut self, key: u128, next: Next) {
        let life = match next {
            Next::Same => return,
            Next::Dead => Life::Dead,
            Next::Waiting => Life::Waiting,
            Next::Finished => {
                self.done += 1;
                if self.finished.len() == MAX_FINISHED
                    && let Some(oldest) = self.finished.pop_front()
                    && matches!(self.lives.get(&oldest), Some(Life::Finished))
                {
                    let _ = self.lives.remove(&oldest);
                }
                self.finished.push_back(key);
                Life::Finished
            }
        };
        let _ = self.lives.insert(key, life);
    }

    /// Whether the message is on record as accepted, or older than what is on record.
    pub(super) fn standing(&self, id: Uuid) -> Standing {
        match self.lives.get(&id.as_u128()) {
            Some(Life::Waiting | Life::Dead | Life::Finished) => Standing::Accepted,
            _ if self.is_older(id) => Standing::Older,
            Some(Life::Unknown(_)) | None => Standing::Unknown,
        }
    }

    /// Ids of this server are time-ordered (UUID version 7); others come from a server before it.
    fn is_older(&self, id: Uuid) -> bool {
        let made_ms = (id.as_u128() >> 80) as u64;
        id.get_version_num() != 7 || self.start_ms.is_none_or(|start_ms| made_ms < start_ms)
    }

    /// Messages that are accepted and neither finished nor dead.
    pub(super) fn waiting(&self) -> u64 {
        self.lives.values().filter(|life| matches!(life, Life::Waiting)).count() as u64
    }

    /// Reports what was never accepted; returns how many events were about messages of before the trail.
    pub(super) fn finish(&self, damages: &mut Damages) -> u64 {
        let mut older = 0;
        let mut unknown: Vec<(&Unknown, Uuid)> = Vec::new();
        for (key, life) in &self.lives {
            let Life::Unknown(found) = life else {
                continue;
            };
            let id = Uuid::from_u128(*key);
            if self.is_older(id) {
                older += 1;
            } else {
                unknown.push((found, id));
            }
        }
        unknown.sort_by(|(a, _), (b, _)| (&a.lane, a.seq).cmp(&(&b.lane, b.seq)));
        for (found, message) in unknown {
            damages.add(
                Place::Record { lane: found.lane.clone(), seq: found.seq },
                DamageKind::Unaccepted { action: found.action, message },
            );
        }
        older
    }
}

/// What the trail says of a message that waits in Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It was accepted.
    Accepted,
    /// It is older than the trail, or not a message of this server.
    Older,
    /// Nothing.
    Unknown,
}

fn passes(decision: Decision) -> bool {
    match decision {
        Decision::Allowed | Decision::Alert | Decision::DlpRedacted => true,
        Decision::DlpBlocked
        | Decision::RateLimited
        | Decision::CircuitOpen
        | Decision::AuthzDenied
        | Decision::Unauthenticated
        | Decision::Refused
        | Decision::Event => false,
    }
}
