//! The join of decisions with what was done: nothing is handed on or finished that was not accepted.
//!
//! Kept are the messages that wait, those that are dead, and the last finished ones: as much as the server
//! itself had to hold, however long the trail is. What is said of a message before its acceptance is
//! read (the lanes of two workers are read side by side) is kept until then.

use std::collections::{HashMap, HashSet, VecDeque};

use uuid::Uuid;

use super::damage::{DamageKind, Damages, Place};
use crate::audit::lane::LaneId;
use crate::audit::record::{Action, Decision, LETTERS_MOVED, REPETITION_RULE, View};

/// Finished messages that are remembered: an acknowledgement may stand twice around a lost connection, and what a server
/// whose clock was stepped wrote is read far from its place. About 120 MB.
const MAX_FINISHED: usize = 1 << 21;

/// Messages handed on after they were done that are listed.
const MAX_REPLAYED: usize = 1000;

/// How far the clocks of two servers may be apart, in milliseconds, in what is concluded from the times of their records.
const MAX_SKEW_MS: u64 = 60_000;

/// An agent, by its place in [`Custody::names`].
type Agent = u32;

#[derive(Debug)]
enum Life {
    /// In the inbox of this agent.
    Waiting(Agent),
    /// A dead letter of this agent. `acked`: a copy of it was acknowledged nevertheless, or the record stands before
    /// that of its redrive, in the lane of another. `in_doubt`: it may be gone, for something is not here that would say so.
    Dead { agent: Agent, acked: bool, in_doubt: bool, died_ms: u64 },
    /// Done, by this record where that is known.
    Finished(Option<At>),
    /// It should wait, and does not.
    Missing,
    /// Something is on record of it, and not yet why.
    Unknown(Box<Unknown>),
}

/// A record, by its lane's place in [`Custody::lanes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    lane: u32,
    seq: u64,
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
    Dead { in_doubt: bool, died_ms: u64 },
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
    /// By how much lanes may begin one after the other.
    skew_ms: u64,
    names: Vec<Box<str>>,
    agents: HashMap<Box<str>, Agent>,
    /// When it was last recorded that messages of an agent had vanished, Unix milliseconds.
    vanished: HashMap<Agent, u64>,
    pub(super) accepted: u64,
    pub(super) done: u64,
    /// Messages of before the log's beginning.
    pub(super) taken_over: u64,
    /// Dead letters that were moved to files of archives.
    pub(super) moved_letters: u64,
    /// When the last of them was, Unix milliseconds.
    last_moved_ms: u64,
    /// Lanes of before the log's beginning: what had too many dead letters then removed some without a word.
    older_lanes: HashSet<LaneId>,
    /// The newest versions of agents' states that are on record.
    versions: HashMap<Box<str>, u64>,
    /// The lanes of records so far; the last one is mostly also the next.
    lanes: HashMap<LaneId, u32>,
    last_lane: Option<(LaneId, u32)>,
    /// Messages of which there were two letters, and both were put back: each copy may be handed on.
    copied: HashSet<u128>,
    /// Messages that were handed on after they were done, at most [`MAX_REPLAYED`], and where that is on record.
    replayed: Vec<(LaneId, u64, Uuid)>,
}

impl Custody {
    pub(super) fn record(&mut self, lane: &LaneId, record: &View<'_>) {
        let time_ms = record.time_us / 1000;
        self.start_ms = Some(self.start_ms.map_or(time_ms, |start| start.min(time_ms)));
        self.version(record);
        let next = match record.action {
            Action::Send | Action::Request | Action::Reply => {
                let sent = passes(record.decision) && record.rule != REPETITION_RULE;
                if let (true, Some(id)) = (sent, record.message_id) {
                    let target = self.agent(record.target);
                    self.accept(id, target);
                }
                return;
            }
            Action::Vanished => {
                let agent = self.agent(record.agent);
                let last_ms = self.vanished.entry(agent).or_default();
                *last_ms = time_ms.max(*last_ms);
                return;
            }
            Action::Archived => {
                let moved = moved_letters(record);
                self.moved_letters += moved;
                if moved > 0 {
                    self.last_moved_ms = self.last_moved_ms.max(time_ms);
                }
                return;
            }
            Action::Delivered | Action::Nack => Next::Same,
            Action::DeadLetter => Next::Dead { in_doubt: false, died_ms: time_ms },
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
            | Action::TrailDiffers
            | Action::ConnectionCut
            | Action::ConnectionRefused
            | Action::CallsRefused
            | Action::ForeignEntry
            | Action::StoreKeyChanged
            | Action::Acknowledged
            | Action::LetterRestored
            | Action::Quarantined
            | Action::Released
            | Action::Commanded => return,
            Action::TakenOver => {
                let target = self.agent(record.target);
                for (id, _) in record.messages.iter() {
                    self.taken_over += 1;
                    self.accept(id, target);
                }
                return;
            }
        };
        for id in record.message_id.into_iter().chain(record.messages.iter().map(|(id, _)| id)) {
            self.event(lane, record, id, next);
        }
    }

    fn at(&mut self, lane: &LaneId, seq: u64) -> At {
        if let Some((known, number)) = &self.last_lane
            && known == lane
        {
            return At { lane: *number, seq };
        }
        // There are fewer lanes than 2^32.
        let next = self.lanes.len() as u32;
        let number = *self.lanes.entry(lane.clone()).or_insert(next);
        self.last_lane = Some((lane.clone(), number));
        At { lane: number, seq }
    }

    /// Takes note of the version of a state that a change has led to.
    fn version(&mut self, record: &View<'_>) {
        let agent = match record.action {
            Action::StateUpdate | Action::StateReset if record.agent.is_empty() => record.target,
            Action::StateUpdate | Action::StateReset | Action::Commit => record.agent,
            Action::TakenOver => record.target,
            _ => return,
        };
        let version = record.rule.rsplit_once("version ").and_then(|(_, number)| number.parse::<u64>().ok());
        if let Some(version) = version {
            match self.versions.get_mut(agent) {
                Some(known) => *known = version.max(*known),
                None => drop(self.versions.insert(agent.into(), version)),
            }
        }
    }

    /// The newest versions of agents' states that are on record.
    pub(super) fn versions(&self) -> impl Iterator<Item = (&str, u64)> {
        self.versions.iter().map(|(agent, version)| (&**agent, *version))
    }

    fn agent(&mut self, name: &str) -> Agent {
        if let Some(agent) = self.agents.get(name) {
            return *agent;
        }
        // There are fewer agents than 2^32.
        let agent = self.names.len() as Agent;
        let _ = self.agents.insert(name.into(), agent);
        self.names.push(name.into());
        agent
    }

    fn accept(&mut self, id: Uuid, target: Agent) {
        self.accepted += 1;
        let key = id.as_u128();
        let next = match self.lives.get(&key) {
            None => Next::Waiting,
            Some(Life::Unknown(unknown)) => match unknown.next {
                Next::Same => Next::Waiting,
                next => next,
            },
            // Recorded as accepted twice: its life goes on.
            Some(Life::Waiting(_) | Life::Dead { .. } | Life::Finished(_) | Life::Missing) => return,
        };
        self.put(key, next, target, None);
    }

    fn event(&mut self, lane: &LaneId, record: &View<'_>, id: Uuid, next: Next) {
        let key = id.as_u128();
        let at = self.at(lane, record.seq);
        let next = match next {
            Next::Dead { died_ms, .. } => {
                // Of two letters of one message one may be gone.
                let in_doubt = self.older_lanes.contains(lane) || self.copied.contains(&key);
                Next::Dead { in_doubt, died_ms }
            }
            next => next,
        };
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
            Some(Life::Finished(done)) => {
                // Most are copies that were still under way when the message was finished. But what one lane says stands
                // in its order: nothing that is done is handed on by the same worker afterwards.
                let after = done.is_some_and(|done| done.lane == at.lane && done.seq < at.seq);
                if after && record.action == Action::Delivered && self.replayed.len() < MAX_REPLAYED {
                    self.replayed.push((lane.clone(), record.seq, id));
                }
                if matches!(next, Next::Waiting) {
                    // A second letter of it was put back: it may be handed on again.
                    let _ = self.copied.insert(key);
                    let _ = self.lives.insert(key, Life::Finished(None));
                    return;
                }
                // One that was refused is a dead letter all the same.
                if let Next::Dead { died_ms, .. } = next {
                    // What another lane says of it may be read before its letter, by a clock that is behind.
                    let next = Next::Dead { in_doubt: !after, died_ms };
                    let agent = self.agent(record.agent);
                    self.put(key, next, agent, None);
                }
            }
            Some(Life::Missing) => {}
            // A copy that was under way may be acknowledged yet; the letter stays.
            Some(Life::Dead { acked, .. }) if record.action == Action::Acked => *acked = true,
            // Its redrive is read behind what followed from it.
            Some(Life::Dead { agent, acked: true, .. }) if matches!(next, Next::Waiting) => {
                let agent = *agent;
                self.put(key, Next::Finished, agent, Some(at));
            }
            Some(Life::Waiting(_)) if record.action == Action::Redriven => drop(self.copied.insert(key)),
            Some(Life::Waiting(agent) | Life::Dead { agent, .. }) => {
                let agent = *agent;
                // What could not be stored may be there nevertheless.
                let certain = record.action != Action::EffectFailed && !self.copied.contains(&key);
                let at = certain.then_some(at);
                self.put(key, next, agent, at);
            }
        }
    }

    /// `at`: the record of it, where its order among the others is known.
    fn put(&mut self, key: u128, next: Next, agent: Agent, at: Option<At>) {
        let life = match next {
            Next::Same => return,
            Next::Dead { in_doubt, died_ms } => Life::Dead { agent, acked: false, in_doubt, died_ms },
            Next::Waiting => Life::Waiting(agent),
            Next::Finished => {
                self.done += 1;
                if self.finished.len() == MAX_FINISHED
                    && let Some(oldest) = self.finished.pop_front()
                    && matches!(self.lives.get(&oldest), Some(Life::Finished(_)))
                {
                    let _ = self.lives.remove(&oldest);
                }
                self.finished.push_back(key);
                Life::Finished(at)
            }
        };
        let _ = self.lives.insert(key, life);
    }

    /// Whether the message is on record as accepted, or older than what is on record.
    pub(super) fn standing(&self, id: Uuid) -> Standing {
        match self.lives.get(&id.as_u128()) {
            Some(Life::Waiting(_) | Life::Dead { .. } | Life::Finished(_) | Life::Missing) => {
                Standing::Accepted
            }
            _ if self.is_older(id) => Standing::Older,
            Some(Life::Unknown(_)) | None => Standing::Unknown,
        }
    }

    /// Ids of this server are time-ordered (UUID version 7); others come from a server before it.
    fn is_older(&self, id: Uuid) -> bool {
        id.get_version_num() != 7
            || self.start_ms.is_none_or(|start_ms| made_ms(id) < start_ms.saturating_add(self.skew_ms))
    }

    /// The trail begins in the middle: of two blocks of one time, one may be before it.
    pub(super) fn begins_in_the_middle(&mut self) {
        self.skew_ms = MAX_SKEW_MS;
    }

    /// What comes next stands behind a part that is elsewhere: what was accepted may be done there, and what is done next may
    /// have been accepted there.
    pub(super) fn interrupted(&mut self) {
        self.lives.retain(|_, life| !matches!(life, Life::Waiting(_) | Life::Unknown(_)));
        for life in self.lives.values_mut() {
            if let Life::Dead { in_doubt, .. } = life {
                *in_doubt = true;
            }
        }
        self.start_ms = None;
        self.skew_ms = MAX_SKEW_MS;
    }

    /// Messages that are accepted and neither finished nor dead.
    pub(super) fn waiting(&self) -> u64 {
        self.lives.values().filter(|life| matches!(life, Life::Waiting(_))).count() as u64
    }

    /// Those messages; in a part of a trail without the first, whose acknowledgements may stand before it.
    pub(super) fn waiting_ids(&self, partial: bool) -> HashSet<Uuid> {
        let certain_ms = self.certain_ms(partial);
        let waits = |(key, life): (&u128, &Life)| {
            let id = Uuid::from_u128(*key);
            (matches!(life, Life::Waiting(_)) && made_ms(id) >= certain_ms).then_some(id)
        };
        self.lives.iter().filter_map(waits).collect()
    }

    /// Messages that must be among the dead letters.
    pub(super) fn letter_ids(&self, partial: bool) -> HashSet<Uuid> {
        let certain_ms = self.certain_ms(partial);
        let is_letter = |(key, life): (&u128, &Life)| {
            let id = Uuid::from_u128(*key);
            let is_certain = matches!(life, Life::Dead { acked: false, in_doubt: false, .. });
            (is_certain && made_ms(id) >= certain_ms).then_some(id)
        };
        self.lives.iter().filter_map(is_letter).collect()
    }

    /// Whether a letter may have been moved to a file: it died before the last such move.
    pub(super) fn may_be_moved(&self, id: Uuid) -> bool {
        match self.lives.get(&id.as_u128()) {
            Some(Life::Dead { died_ms, .. }) => {
                self.moved_letters > 0 && *died_ms <= self.last_moved_ms.saturating_add(MAX_SKEW_MS)
            }
            _ => true,
        }
    }

    /// What was accepted before may be done before the part of the trail that is here.
    fn certain_ms(&self, partial: bool) -> u64 {
        if partial { self.start_ms.unwrap_or(0).saturating_add(MAX_SKEW_MS) } else { 0 }
    }

    /// Lanes of before the log's beginning.
    pub(super) fn older_lanes(&mut self, lanes: impl Iterator<Item = LaneId>) {
        self.older_lanes.extend(lanes);
    }

    /// Nothing of this message is in its inbox, or among the dead letters: whether that may be explained by what is on record. `None` where it need
    /// not be there.
    pub(super) fn missing(&mut self, id: Uuid) -> Option<Missing> {
        let life = self.lives.get_mut(&id.as_u128())?;
        let (agent, is_letter) = match *life {
            Life::Waiting(agent) => (agent, false),
            Life::Dead { agent, acked: false, in_doubt: false, .. } => (agent, true),
            _ => return None,
        };
        *life = Life::Missing;
        let name = self.names.get(agent as usize).map(ToString::to_string).unwrap_or_default();
        if is_letter {
            return Some(Missing::Letter { agent: name });
        }
        let noticed = |last_ms: &u64| made_ms(id) <= last_ms.saturating_add(MAX_SKEW_MS);
        if self.vanished.get(&agent).is_some_and(noticed) {
            return Some(Missing::Noticed);
        }
        Some(Missing::Unnoticed { agent: name })
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
        for (lane, seq, message) in &self.replayed {
            let place = Place::Record { lane: lane.clone(), seq: *seq };
            damages.add(place, DamageKind::Replayed { message: *message });
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

/// Dead letters that were moved to a file, as a record says; of a segment: none.
fn moved_letters(record: &View<'_>) -> u64 {
    let count = record.rule.strip_suffix(" dead letters").filter(|_| record.reason == LETTERS_MOVED);
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// What the trail says of a message that should be in Redis, and is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Missing {
    /// A server has noticed since that messages of its agent had vanished.
    Noticed,
    /// Nothing.
    Unnoticed {
        /// Whose inbox it should be in.
        agent: String,
    },
    /// It should be among the dead letters.
    Letter {
        /// Whose dead letter it is.
        agent: String,
    },
}

/// When an id of this server was made, Unix milliseconds.
fn made_ms(id: Uuid) -> u64 {
    (id.as_u128() >> 80) as u64
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
