//! What the agents saw.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// A message as its sender knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    pub message_id: String,
    pub agent: String,
    pub instance: String,
    pub attempt: u32,
    /// For a reply: the request it answers.
    pub reply_to: Option<String>,
    /// Who the envelope says it is for.
    pub target: String,
}

#[derive(Debug, Default)]
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

#[derive(Debug, Default)]
pub struct History(Mutex<Seen>);

impl History {
    pub fn note(&self, f: impl FnOnce(&mut Seen)) {
        f(&mut self.0.lock().unwrap());
    }

    pub fn read<T>(&self, f: impl FnOnce(&Seen) -> T) -> T {
        f(&self.0.lock().unwrap())
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
