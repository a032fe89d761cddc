//! Where what an agent says goes: to its stream, if there is one.

use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::mpsc::UnboundedSender;

use crate::protocol::client_event::Event as ClientEventKind;
use crate::protocol::{Ack, ClientEvent, Nack};

/// Where acknowledgements go: to the current stream, if there is one. What is lost with a stream is
/// delivered again.
#[derive(Clone, Default)]
pub(super) struct Outbox {
    current: Arc<Mutex<Option<UnboundedSender<ClientEvent>>>>,
}

impl Outbox {
    pub(super) fn set(&self, sender: Option<UnboundedSender<ClientEvent>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = sender;
    }

    /// False where there is no stream.
    pub(super) fn send(&self, event: ClientEventKind) -> bool {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let event = ClientEvent { event: Some(event), ..ClientEvent::default() };
        current.as_ref().is_some_and(|sender| sender.unbounded_send(event).is_ok())
    }

    pub(super) fn ack(&self, delivery_id: String) {
        let _ = self.send(ClientEventKind::Ack(Ack { delivery_id, ..Ack::default() }));
    }

    pub(super) fn nack(&self, delivery_id: String, reason: String, retryable: bool) {
        let _ = self.send(ClientEventKind::Nack(Nack { delivery_id, reason, retryable, ..Nack::default() }));
    }
}
