//! What the agents saw.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A message as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    pub message_id: String,
    pub sender: String,
    pub instance: String,
    pub target: String,
    /// For a request.
    pub correlation_id: Option<String>,
    /// Lane and sequence of the receipt.
    pub receipt: (String, u64),
}

/// A delivery as its receiver saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub message_id: String,
    pub agent: String,
    pub instance: String,
    pub attempt: u32,
    /// For a reply: the request it answers.
    pub reply_to: Option<String>,
    /// Who the envelope says it is for.
    pub target: String,
    /// When, in Unix microseconds.
    pub at_us: u64,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Seen {
    pub accepted: Vec<Accepted>,
    pub delivered: Vec<Delivered>,
    /// Replies that were accepted: message and correlation.
    pub replied: Vec<(String, String)>,
    /// Refused for good, by detail.
    pub refused: BTreeMap<String, usize>,
    /// Calls whose outcome stayed unknown to the end.
    pub unknown: usize,
    /// Calls that were tried again.
    pub retried: usize,
}

/// The time, by a clock that nobody steps, in Unix microseconds.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        self.delivered.extend(other.delivered);
        self.replied.extend(other.replied);
        for (detail, count) in other.refused {
            *self.refused.entry(detail).or_default() += count;
        }
        self.unknown += other.unknown;
        self.retried += other.retried;
    }
}

/// Starts a line on which an agent process tells what it saw.
const TOLD: &str = "@";

#[derive(Debug, Default)]
pub struct History {
    seen: Mutex<Seen>,
    /// Everything is told on stdout at once: this process may be killed.
    tell: bool,
}

impl History {
    pub fn told() -> Self {
        Self { tell: true, ..Self::default() }
    }

    /// Takes in a line of stdout of a process that tells; others are not meant for it.
    pub fn hear(&self, line: &str) {
        // The last line of a process that was killed may be half a line: what it tells of was not
        // acknowledged yet.
        if let Some(seen) = line.strip_prefix(TOLD).and_then(|told| serde_json::from_str(told).ok()) {
            self.seen.lock().unwrap().add(seen);
        }
    }

    pub fn note(&self, f: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.lock().unwrap();
        f(&mut seen);
        if self.tell {
            println!("{TOLD}{}", serde_json::to_string(&std::mem::take(&mut *seen)).unwrap());
        }
    }

    pub fn read<T>(&self, f: impl FnOnce(&Seen) -> T) -> T {
        f(&self.seen.lock().unwrap())
    }

    pub fn accepted_count(&self) -> usize {
        self.read(|seen| seen.accepted.len())
    }

    pub fn summary(&self) -> String {
        self.read(|seen| {
            format!(
                "{} accepted, {} deliveries, {} replies, {} calls tried again, {} unknown, refused {:?}",
                seen.accepted.len(),
                seen.delivered.len(),
                seen.replied.len(),
                seen.retried,
                seen.unknown,
                seen.refused
            )
        })
    }
}
