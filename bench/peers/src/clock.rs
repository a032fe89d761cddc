//! The clock of senders and receivers, which share this process: monotonic, counted from its first use.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

static ORIGIN: OnceLock<Instant> = OnceLock::new();

/// Microseconds since the first call.
pub(crate) fn now_us() -> u64 {
    ORIGIN.get_or_init(Instant::now).elapsed().as_micros() as u64
}

/// How long it is until `instant_us`; nothing when that is past.
pub(crate) fn until(instant_us: u64) -> Duration {
    Duration::from_micros(instant_us.saturating_sub(now_us()))
}
