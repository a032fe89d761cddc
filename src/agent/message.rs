//! A received message.

use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::calls::Calls;
use super::commit::Commit;
use super::error::AgentError;

/// The envelope's fields, as they arrive.
#[derive(Debug, Deserialize)]
pub(super) struct Wire {
    sender_id: String,
    message_type: String,
    data: Box<RawValue>,
    meta: Meta,
    timestamp: f64,
    message_id: String,
}

#[derive(Debug, Deserialize)]
struct Meta {
    correlation_id: Option<String>,
    expects_reply: bool,
    is_reply: bool,
    sender_instance_id: Option<String>,
}

/// The delivery by which a message is acknowledged. While its handler runs, a lost session may bring another one.
#[derive(Debug, Clone)]
pub(super) struct CurrentDelivery(Arc<Mutex<String>>);

impl CurrentDelivery {
    pub(super) fn new(id: String) -> Self {
        Self(Arc::new(Mutex::new(id)))
    }

    pub(super) fn set(&self, id: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }

    pub(super) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A received message, with the means to answer it.
pub struct Message {
    wire: Wire,
    delivery: CurrentDelivery,
    calls: Arc<Calls>,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.wire.fmt(f)
    }
}

impl Message {
    pub(super) fn parse(
        delivery: CurrentDelivery,
        envelope_json: &str,
        calls: &Arc<Calls>,
    ) -> Result<Self, serde_json::Error> {
        let wire = serde_json::from_str(envelope_json)?;
        Ok(Self { wire, delivery, calls: calls.clone() })
    }

    /// Who sent it; proven by the sender's certificate.
    pub fn sender(&self) -> &str {
        &self.wire.sender_id
    }

    /// Which process of the sender.
    pub fn sender_instance(&self) -> Option<&str> {
        self.wire.meta.sender_instance_id.as_deref()
    }

    /// The sender's name for its kind.
    pub fn message_type(&self) -> &str {
        &self.wire.message_type
    }

    /// Unique id; a redelivery carries the same.
    pub fn message_id(&self) -> &str {
        &self.wire.message_id
    }

    /// When the server accepted it, Unix seconds.
    pub fn timestamp(&self) -> f64 {
        self.wire.timestamp
    }

    /// The payload, JSON text of an object.
    pub fn data(&self) -> &str {
        self.wire.data.get()
    }

    /// The payload as a type.
    pub fn parse_data<T: DeserializeOwned>(&self) -> Result<T, AgentError> {
        serde_json::from_str(self.data()).map_err(AgentError::Payload)
    }

    /// Whether the sender waits for a reply.
    pub fn expects_reply(&self) -> bool {
        self.wire.meta.expects_reply
    }

    /// The id that ties request and reply together.
    pub fn correlation_id(&self) -> Option<&str> {
        self.wire.meta.correlation_id.as_deref()
    }

    pub(super) fn is_reply(&self) -> bool {
        self.wire.meta.is_reply
    }

    /// Begins what this handler wants to happen as a whole: its acknowledgement, changes of the state,
    /// messages. A handler whose commit succeeded returns `Ok` as usual.
    pub fn commit(&self) -> Commit<'_> {
        Commit::new(&self.calls, &self.delivery.get(), self.correlation_id())
    }

    /// Answers a request; exactly one reply is accepted. Returns the reply's message id.
    pub fn reply<T: Serialize>(&self, message_type: &str, data: &T) -> Result<String, AgentError> {
        let correlation_id = self.correlation_id().unwrap_or_default();
        self.calls.reply(correlation_id, message_type, &super::to_json(data)?)
    }

    /// Sends another message from within a handler.
    pub fn send<T: Serialize>(
        &self,
        target: &str,
        message_type: &str,
        data: &T,
    ) -> Result<String, AgentError> {
        self.calls.send(target, message_type, &super::to_json(data)?)
    }
}
