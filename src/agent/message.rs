//! A received message.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::calls::Calls;
use super::commit::Commit;
use super::error::AgentError;
use super::payload::to_json;
use super::received::Received;

/// A received message, with the means to answer it.
pub struct Message {
    received: Received,
    calls: Arc<Calls>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.received.wire.fmt(f)
    }
}

impl Message {
    pub(super) fn new(received: Received, calls: &Arc<Calls>) -> Self {
        Self { received, calls: calls.clone() }
    }

    pub(super) fn received(&self) -> &Received {
        &self.received
    }

    /// Who sent it; proven by the sender's certificate.
    pub fn sender(&self) -> &str {
        &self.received.wire.sender_id
    }

    /// Which process of the sender.
    pub fn sender_instance(&self) -> Option<&str> {
        self.received.wire.meta.sender_instance_id.as_deref()
    }

    /// The sender's name for its kind.
    pub fn message_type(&self) -> &str {
        &self.received.wire.message_type
    }

    /// Unique id; a redelivery carries the same.
    pub fn message_id(&self) -> &str {
        &self.received.wire.message_id
    }

    /// When the server accepted it, Unix seconds.
    pub fn timestamp(&self) -> f64 {
        self.received.wire.timestamp
    }

    /// The payload, JSON text of an object.
    pub fn data(&self) -> &str {
        self.received.wire.data.get()
    }

    /// The payload as a type.
    pub fn parse_data<T: DeserializeOwned>(&self) -> Result<T, AgentError> {
        serde_json::from_str(self.data()).map_err(AgentError::Payload)
    }

    /// Whether the sender waits for a reply.
    pub fn expects_reply(&self) -> bool {
        self.received.wire.meta.expects_reply
    }

    /// The id that ties request and reply together.
    pub fn correlation_id(&self) -> Option<&str> {
        self.received.correlation_id()
    }

    /// Begins what this handler wants to happen as a whole: its acknowledgement, changes of the state,
    /// messages. A handler whose commit succeeded returns `Ok` as usual.
    pub fn commit(&self) -> Commit<'_> {
        Commit::new(&self.calls, &self.received.delivery.get(), self.correlation_id(), self.sender())
    }

    /// Answers a request; exactly one reply is accepted. Returns the reply's message id.
    pub fn reply<T: Serialize>(&self, message_type: &str, data: &T) -> Result<String, AgentError> {
        let correlation_id = self.correlation_id().unwrap_or_default();
        self.calls.reply(self.sender(), correlation_id, message_type, &to_json(data)?)
    }

    /// Sends another message from within a handler.
    pub fn send<T: Serialize>(
        &self,
        target: &str,
        message_type: &str,
        data: &T,
    ) -> Result<String, AgentError> {
        self.calls.send(target, message_type, &to_json(data)?)
    }
}
