//! One connected instance: a consumer of its agent's group, and the credit of its session.

use crate::config::Delivery;
use crate::ids::{AgentId, InstanceId};
use crate::shard::desk::session_key::SessionKey;
use crate::store::keys;

/// Envelope bytes that one session may hold without acknowledging them; at least one message passes.
const SESSION_WINDOW_BYTES: usize = 16 * 1024 * 1024;

/// For which inboxes of a consumer reads were lost.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct ReadsLost {
    pub shared: bool,
    pub own: bool,
}

/// One connected instance.
#[derive(Debug)]
pub struct Consumer {
    /// The instance.
    pub instance: InstanceId,
    /// Its session.
    pub session: SessionKey,
    /// Its name in the consumer group.
    pub name: String,
    /// The key of its own inbox.
    pub own_stream: String,
    /// Whether its own inbox may hold undelivered entries.
    pub own_news: bool,
    /// Whether answers of reads for it were lost with a connection: an entry of that inbox that Redis lists for it,
    /// and nobody tracks, was never delivered.
    pub(super) reads_lost: ReadsLost,
    /// Whether it gets no further messages: it is to move to another server. Replies to its requests still come.
    pub(super) is_retired: bool,
    pub(super) in_flight: usize,
    pub(super) bytes: usize,
}

impl Consumer {
    pub(super) fn new(agent: &AgentId, instance: InstanceId, session: SessionKey) -> Self {
        Self {
            name: keys::consumer(agent, &instance),
            own_stream: keys::instance_inbox(agent, &instance),
            own_news: true,
            reads_lost: ReadsLost::default(),
            is_retired: false,
            in_flight: 0,
            bytes: 0,
            session,
            instance,
        }
    }

    /// Deliveries this session may get now, where `planned` are on their way to it.
    pub(super) fn credit(&self, config: &Delivery, typical_bytes: usize, planned: usize) -> usize {
        let by_count = config.max_in_flight.saturating_sub(self.in_flight + planned);
        let by_bytes = match SESSION_WINDOW_BYTES.checked_sub(self.bytes) {
            Some(0) | None => 0,
            Some(left) => (left / typical_bytes.max(1)).max(1),
        };
        by_count.min(by_bytes)
    }

    /// A delivery of so many bytes is with it.
    pub(super) fn take(&mut self, bytes: usize) {
        self.in_flight += 1;
        self.bytes += bytes;
    }

    /// A delivery of so many bytes is off its hands.
    pub(super) fn give_back(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
