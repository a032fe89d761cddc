//! What the gate turned away or cut: counted, on record once for each reason, identity and second, and logged a few
//! times a second.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::budget::Bucket;
use super::peers::Peer;
use crate::audit::{Action, OperatorEvent};

/// Lines in a second.
const LINES_PER_S: u64 = 5;
/// Kinds of events that wait to be put on record; what is more is counted together.
const MAX_WAITING: usize = 256;
/// How long events of a kind are gathered.
const GATHER_US: u64 = 1_000_000;

/// Where events go on record.
pub type Recorder = Box<dyn Fn(OperatorEvent) + Send + Sync>;

/// Who, why, and what was done.
type Kind = (String, &'static str, bool);

pub(super) struct Report {
    recorder: Recorder,
    waiting: Mutex<Waiting>,
}

struct Waiting {
    counts: BTreeMap<Kind, u64>,
    since_us: u64,
    lines: Bucket,
    left_out: u64,
}

impl Report {
    pub(super) fn new(recorder: Recorder) -> Self {
        let waiting = Waiting {
            counts: BTreeMap::new(),
            since_us: 0,
            lines: Bucket::new(LINES_PER_S, LINES_PER_S),
            left_out: 0,
        };
        Self { recorder, waiting: Mutex::new(waiting) }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was cut for what it did.
    pub(super) fn cut(&self, peer: &Peer, reason: &'static str, now_us: u64) {
        self.note(peer.agent(), reason, true, now_us);
    }

    /// A connection of that identity was turned away after its handshake.
    pub(super) fn turned_away(&self, agent: &str, reason: &'static str, now_us: u64) {
        self.note(agent, reason, false, now_us);
    }

    /// A handshake failed: nobody is known who could be named on record.
    pub(super) fn refused(&self, from: &str, why: &dyn std::fmt::Display, now_us: u64) {
        let mut waiting = self.waiting();
        if let Some(left_out) = waiting.line(now_us) {
            log::warn!("a handshake from {from} was refused: {why}{}", and_more(left_out));
        }
    }

    fn note(&self, agent: &str, reason: &'static str, cut: bool, now_us: u64) {
        let mut waiting = self.waiting();
        if let Some(left_out) = waiting.line(now_us) {
            let (what, more) = (if cut { "cut" } else { "turned away" }, and_more(left_out));
            log::warn!("a connection of agent \"{agent}\" was {what}: {reason}{more}");
        }
        let kind = (agent.to_owned(), reason, cut);
        let kind = if waiting.counts.len() >= MAX_WAITING && !waiting.counts.contains_key(&kind) {
            (String::new(), reason, cut)
        } else {
            kind
        };
        *waiting.counts.entry(kind).or_default() += 1;
    }

    /// Whether something waits to be put on record.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting().counts.is_empty()
    }

    /// Puts on record what was gathered, when it is time.
    pub(super) fn flush(&self, now_us: u64) {
        let counts = {
            let mut waiting = self.waiting();
            if now_us < waiting.since_us + GATHER_US || waiting.counts.is_empty() {
                return;
            }
            waiting.since_us = now_us;
            std::mem::take(&mut waiting.counts)
        };
        for ((agent, reason, cut), count) in counts {
            (self.recorder)(OperatorEvent {
                action: if cut { Action::ConnectionCut } else { Action::ConnectionRefused },
                target: agent,
                rule: format!("{count} times"),
                reason: reason.to_owned(),
            });
        }
    }
}

fn and_more(left_out: u64) -> String {
    if left_out == 0 { String::new() } else { format!(" ({left_out} more were not logged)") }
}

impl Waiting {
    /// Whether a line may be logged; how many were not since the last one.
    fn line(&mut self, now_us: u64) -> Option<u64> {
        if self.lines.take(now_us).is_ok() {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out += 1;
        None
    }
}
