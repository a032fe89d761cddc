//! One handler's work, whole: acknowledgement, state and messages in one transaction.

use serde::Serialize;

use super::answers::Committed;
use super::calls::Calls;
use super::error::AgentError;
use super::payload::to_json;
use crate::protocol::submission::Call;
use crate::protocol::{Commit as Wire, ReplyRequest, SendRequest, Submission};

/// What a handler wants to happen together, or not at all. From [`Message::commit`](super::Message::commit).
pub struct Commit<'a> {
    calls: &'a Calls,
    wire: Wire,
    correlation_id: Option<String>,
    /// Who sent what is handled.
    sender: String,
}

impl<'a> Commit<'a> {
    pub(super) fn new(
        calls: &'a Calls,
        delivery_id: &str,
        correlation_id: Option<&str>,
        sender: &str,
    ) -> Self {
        let wire = Wire { delivery_id: delivery_id.to_owned(), ..Wire::default() };
        Self { calls, wire, correlation_id: correlation_id.map(str::to_owned), sender: sender.to_owned() }
    }

    /// Sets a field of this agent's state.
    #[must_use]
    pub fn set(mut self, field: &str, value: &str) -> Self {
        let _ = self.wire.updates.insert(field.to_owned(), value.to_owned());
        self
    }

    /// Only if the state has this version; otherwise the commit is refused as `version_mismatch`.
    #[must_use]
    pub fn expect_version(mut self, version: u64) -> Self {
        self.wire.expected_version = Some(version);
        self
    }

    /// Sends a message.
    pub fn send<T: Serialize>(
        mut self,
        target: &str,
        message_type: &str,
        data: &T,
    ) -> Result<Self, AgentError> {
        self.push(Call::Send(SendRequest {
            target_id: target.to_owned(),
            message_type: message_type.to_owned(),
            data_json: to_json(data)?,
            ..SendRequest::default()
        }));
        Ok(self)
    }

    /// Answers the request that is handled.
    pub fn reply<T: Serialize>(mut self, message_type: &str, data: &T) -> Result<Self, AgentError> {
        self.push(Call::Reply(ReplyRequest {
            correlation_id: self.correlation_id.clone().unwrap_or_default(),
            message_type: message_type.to_owned(),
            data_json: to_json(data)?,
            ..ReplyRequest::default()
        }));
        Ok(self)
    }

    /// Has it done. When this returns an error, nothing of it was done, except where the outcome is
    /// unknown; the message is then still to be handled.
    pub fn apply(self) -> Result<Committed, AgentError> {
        self.calls.commit(self.wire, &self.sender)
    }

    fn push(&mut self, call: Call) {
        self.wire.messages.push(Submission { call: Some(call), ..Submission::default() });
    }
}
