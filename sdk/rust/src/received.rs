//! What arrived in a delivery, read once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::Delivery;

/// The envelope's fields, as they arrive.
#[derive(Debug, Deserialize)]
pub(crate) struct Wire {
    pub sender_id: String,
    pub message_type: String,
    pub data: Box<RawValue>,
    pub meta: Meta,
    pub timestamp: f64,
    pub message_id: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Meta {
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
pub(crate) struct CurrentDelivery(Arc<Mutex<String>>);

impl CurrentDelivery {
    pub(crate) fn new(id: String) -> Self {
        Self(Arc::new(Mutex::new(id)))
    }

    pub(crate) fn set(&self, id: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = id;
    }

    pub(crate) fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A delivery whose envelope could be read.
#[derive(Debug)]
pub(crate) struct Received {
    pub wire: Wire,
    pub delivery: CurrentDelivery,
    /// Which delivery of its message it is, from 1; 0 where the server does not count.
    pub attempt: u32,
    /// A commit has acknowledged it.
    committed: AtomicBool,
}

impl Received {
    pub(crate) fn read(delivery: Delivery) -> Result<Self, serde_json::Error> {
        let wire = serde_json::from_str(&delivery.envelope_json)?;
        Ok(Self {
            wire,
            delivery: CurrentDelivery::new(delivery.delivery_id),
            attempt: delivery.attempt,
            committed: AtomicBool::new(false),
        })
    }

    /// The id that ties request and reply together.
    pub(crate) fn correlation_id(&self) -> Option<&str> {
        self.wire.meta.correlation_id.as_deref()
    }

    /// Its handler has committed: whatever it says afterwards, the message is handled.
    pub(crate) fn set_committed(&self) {
        self.committed.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_committed(&self) -> bool {
        self.committed.load(Ordering::Relaxed)
    }

    pub(crate) fn is_reply(&self) -> bool {
        self.wire.meta.is_reply
    }
}
