//! Outcomes of jobs, as callers are told them. Imports no other module of the desk.

use std::sync::Arc;

use uuid::Uuid;

use crate::audit::LaneId;
use crate::audit::lane::Place;
use crate::ids::{AgentId, CorrelationId};
use crate::refusal::Refusal;

/// A refusal, and where it is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// What the caller is told.
    pub refusal: Refusal,
    /// Absent where the store could not record.
    pub receipt: Option<Receipt>,
    /// Of the message that was refused, where it was one.
    pub told: Option<Box<Told>>,
}

/// What the sender of a refused message is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The id under which it is on record.
    pub message_id: Uuid,
    /// Where that is.
    pub receipt: Option<Receipt>,
    /// What was found in it.
    pub found: Vec<Found>,
}

/// Something that data-loss prevention found in a message, as its sender is told. Never the text itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its type.
    pub kind: Arc<str>,
    /// Where in the payload.
    pub pointer: String,
    /// What was done about it.
    pub action: &'static str,
}

impl From<Refusal> for Declined {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, receipt: None, told: None }
    }
}

/// Where a decision is on record: the caller's proof of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The lane.
    pub lane: LaneId,
    /// The record.
    pub place: Place,
    /// Digest of the configuration that decided.
    pub policy_version: [u8; 32],
}

/// An accepted Send, Request or Reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub message_id: Uuid,
    /// For a request, the id that its reply will carry.
    pub correlation_id: Option<CorrelationId>,
    /// Where the decision is on record.
    pub receipt: Option<Receipt>,
    /// What was found in it and redacted.
    pub found: Vec<Found>,
}

/// One agent that Discover shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// The agent.
    pub agent: AgentId,
    /// What it offers.
    pub capabilities: Vec<String>,
    /// JSON text of an object.
    pub metadata_json: String,
}

impl Discovered {
    /// Its bytes.
    pub fn bytes(&self) -> usize {
        let capabilities: usize = self.capabilities.iter().map(String::len).sum();
        self.agent.as_str().len() + capabilities + self.metadata_json.len()
    }
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitResult {
    /// Its messages, in their order.
    pub messages: Vec<Accepted>,
    /// Which of them are requests, replies or plain messages.
    pub kinds: Vec<MessageKind>,
    /// The version of the state afterwards; 0 where it was not touched.
    pub version: u64,
}

/// What sort of message an accepted one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    /// Send.
    Sent,
    /// Request.
    Requested,
    /// Reply.
    Replied,
}

/// The outcome of a submission.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A Send, Request or Reply was accepted.
    Accepted(MessageKind, Accepted),
    /// A commit happened.
    Committed(CommitResult),
    /// Refused.
    Declined(Declined),
}
