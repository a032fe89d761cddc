//! Where what an agent says goes: to its stream, if there is one.

use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::mpsc::UnboundedSender;

use crate::protocol::client_event::Event as ClientEventKind;
use crate::protocol::{Ack, ClientEvent, Nack};

/// To the current stream, if there is one. What is lost with a stream is delivered again. Holds at most an answer for each
/// delivery that the server's credit allows, and the submissions that it allows.
#[derive(Clone, Default)]
pub(crate) struct Outbox {
    current: Arc<Mutex<Option<UnboundedSender<ClientEvent>>>>,
}

impl Outbox {
    pub(crate) fn set(&self, sender: Option<UnboundedSender<ClientEvent>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = sender;
    }

    /// False where there is no stream.
    pub(crate) fn send(&self, event: ClientEventKind) -> bool {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let event = ClientEvent { event: Some(event), ..ClientEvent::default() };
        current.as_ref().is_some_and(|sender| sender.unbounded_send(event).is_ok())
    }

    pub(crate) fn ack(&self, delivery_id: String) {
        let _ = self.send(ClientEventKind::Ack(Ack { delivery_id, ..Ack::default() }));
    }

    pub(crate) fn nack(&self, delivery_id: String, reason: String, retryable: bool, retry_after_ms: u64) {
        let nack = Nack { delivery_id, reason, retryable, retry_after_ms, ..Nack::default() };
        let _ = self.send(ClientEventKind::Nack(nack));
    }
}
