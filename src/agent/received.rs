//! What arrived in a delivery, read.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::value::RawValue;

/// The envelope's fields, as they arrive.
#[derive(Debug, Deserialize)]
pub(super) struct Wire {
    pub sender_id: String,
    pub message_type: String,
    pub data: Box<RawValue>,
    pub meta: Meta,
    pub timestamp: f64,
    pub message_id: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Meta {
    pub correlation_id: Option<String>,
    pub expects_reply: bool,
    is_reply: bool,
    pub sender_instance_id: Option<String>,
    #[serde(default)]
    pub traceparent: Option<String>,
    #[serde(default)]
    pub tracestate: Option<String>,
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

/// A delivery whose envelope could be read.
#[derive(Debug)]
pub(super) struct Received {
    pub wire: Wire,
    pub delivery: CurrentDelivery,
}

impl Received {
    pub(super) fn parse(delivery: CurrentDelivery, envelope_json: &str) -> Result<Self, serde_json::Error> {
        Ok(Self { wire: serde_json::from_str(envelope_json)?, delivery })
    }

    /// The id that ties request and reply together.
    pub(super) fn correlation_id(&self) -> Option<&str> {
        self.wire.meta.correlation_id.as_deref()
    }

    pub(super) fn is_reply(&self) -> bool {
        self.wire.meta.is_reply
    }
}
