//! What every handler of a call has.

use std::sync::Arc;

use super::caller::Callers;
use crate::shard::Shards;

/// Everything a handler needs; cloned per completion queue.
#[derive(Clone)]
pub(super) struct Gateway {
    pub shards: Arc<Shards>,
    pub callers: Arc<Callers>,
    /// Bytes of one message that the C core takes; a longer one ends its call.
    pub max_event_bytes: usize,
}
