//! What the thread that watches has seen.

use crate::store::overview::Redis;

/// What it has seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// When it looked, monotonic milliseconds; 0: it has not yet.
    pub(super) at_ms: u64,
    /// How Redis is, or why that is not known.
    pub(super) redis: Option<Result<Redis, String>>,
    /// For each worker, which share of the last interval it worked, 0 to 1.
    pub(super) busy: Vec<f64>,
}
