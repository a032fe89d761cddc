//! What the agents saw and said, and when something was broken on purpose.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// When its sender knew, in Unix microseconds.
    pub at_us: u64,
}

/// A delivery as its receiver saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    pub message_id: String,
    pub agent: String,
    pub instance: String,
    /// The session it came on.
    pub session: u64,
    pub attempt: u32,
    /// For a reply: the request it answers.
    pub reply_to: Option<String>,
    /// For the effect of a commit: the key it was sent with.
    pub key: Option<String>,
    /// Who the envelope says it is for.
    pub target: String,
    /// When, in Unix microseconds.
    pub at_us: u64,
}

/// One delivery, as its receiver speaks of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    pub message_id: String,
    pub delivery_id: String,
    pub attempt: u32,
    /// The session it came on.
    pub session: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    Ack,
    /// A nack that has the message delivered again.
    Nack,
    /// A nack that makes a dead letter.
    Bury,
    Commit,
}

/// What a receiver says of a delivery. It is noted before it is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    pub held: Held,
    pub word: Word,
    /// The session of the delivery had ended before.
    pub late: bool,
    pub at_us: u64,
}

/// A commit of a delivery that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    pub held: Held,
    /// The session of the delivery had ended when the commit was first asked for.
    pub late: bool,
    /// The messages it sent.
    pub results: Vec<String>,
    /// When it was asked for.
    pub asked_us: u64,
}

/// A session that was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    pub session: u64,
    pub agent: String,
    pub instance: String,
    /// Which of the two servers it is on.
    pub server: usize,
    /// The process it is in.
    pub pid: u32,
    pub at_us: u64,
}

/// A time in which something was broken on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disturbed {
    pub by: String,
    pub from_us: u64,
    pub to_us: u64,
}

/// Lists that are mostly empty are left out when a process tells of one event.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Accepted>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delivered: Vec<Delivered>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub said: Vec<Said>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub committed: Vec<Committed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opened: Vec<Opened>,
    /// Sessions that ended, and when.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<(u64, u64)>,
    /// Processes that were killed, and when.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub died: Vec<(u32, u64)>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disturbed: Vec<Disturbed>,
    /// When the limits were low on purpose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub low_limits: Vec<Disturbed>,
    /// When a sender was told that its rate is limited.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub limited: Vec<(String, u64)>,
    /// Replies that were accepted: message and correlation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub replied: Vec<(String, String)>,
    /// Refused for good, by detail.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, usize>,
    /// Calls whose outcome stayed unknown to the end.
    pub unknown: usize,
    /// Calls that were tried again.
    pub retried: usize,
    /// When nothing was left to deliver, or was waited for any longer; 0 before.
    pub ended_us: u64,
}

/// The time, by a clock that nobody steps, in Unix microseconds.
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// A number that no other session of a campaign has.
pub fn session_number() -> u64 {
    static OPENED: AtomicU64 = AtomicU64::new(0);
    u64::from(std::process::id()) << 32 | OPENED.fetch_add(1, Ordering::SeqCst)
}

impl Seen {
    fn add(&mut self, other: Self) {
        self.accepted.extend(other.accepted);
        self.delivered.extend(other.delivered);
        self.said.extend(other.said);
        self.committed.extend(other.committed);
        self.opened.extend(other.opened);
        self.closed.extend(other.closed);
        self.died.extend(other.died);
        self.disturbed.extend(other.disturbed);
        self.low_limits.extend(other.low_limits);
        self.limited.extend(other.limited);
        self.replied.extend(other.replied);
        for (detail, count) in other.refused {
            *self.refused.entry(detail).or_default() += count;
        }
        self.unknown += other.unknown;
        self.retried += other.retried;
        self.ended_us = self.ended_us.max(other.ended_us);
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

    /// Something was broken from then until now.
    pub fn disturbed(&self, by: &str, from_us: u64) {
        self.note(|seen| seen.disturbed.push(Disturbed { by: by.to_owned(), from_us, to_us: now_us() }));
    }

    pub fn accepted_count(&self) -> usize {
        self.read(|seen| seen.accepted.len())
    }

    pub fn summary(&self) -> String {
        self.read(|seen| {
            format!(
                "{} accepted, {} deliveries, {} replies, {} commits, {} words about ended sessions' deliveries, {} \
                 sessions, {} calls tried again, {} unknown, refused {:?}",
                seen.accepted.len(),
                seen.delivered.len(),
                seen.replied.len(),
                seen.committed.len(),
                seen.said.iter().filter(|said| said.late).count(),
                seen.opened.len(),
                seen.retried,
                seen.unknown,
                seen.refused
            )
        })
    }
}
