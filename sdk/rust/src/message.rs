//! A received message.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::AgentError;
use crate::handle::Handle;
use crate::receipts::Sent;
use crate::received::Received;
use crate::reply::reply;
use crate::wire::to_json;

/// A received message, with the means to answer it.
#[derive(Clone)]
pub struct Message {
    pub(crate) received: Arc<Received>,
    agent: Handle,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.received.wire.fmt(f)
    }
}

impl Message {
    pub(crate) fn new(received: Arc<Received>, agent: &Handle) -> Self {
        Self { received, agent: agent.clone() }
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

    /// Which attempt to handle it this is, from 1; 0 where the server does not count. What could not be handled *now* was
    /// no attempt.
    pub fn attempt(&self) -> u32 {
        self.received.attempt
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

    /// The agent that got it: everything that it can do can be done inside a handler.
    pub fn agent(&self) -> &Handle {
        &self.agent
    }

    /// Answers a request; exactly one reply is accepted. `None`: nobody waits for it any more, which is logged and no
    /// failure.
    pub fn reply<T: Serialize + ?Sized>(
        &self,
        message_type: &str,
        data: &T,
    ) -> Result<Option<Sent>, AgentError> {
        let correlation_id = self.reply_to()?;
        reply(&self.agent.calls, self.sender(), correlation_id, message_type, to_json(data)?)
    }

    /// What a reply to it names.
    pub(crate) fn reply_to(&self) -> Result<&str, AgentError> {
        match self.correlation_id() {
            Some(id) if self.expects_reply() => Ok(id),
            _ => Err(AgentError::Setup(format!(
                "{:?} from {} asked for no reply: it was sent, and is no request",
                self.message_type(),
                self.sender()
            ))),
        }
    }
}
