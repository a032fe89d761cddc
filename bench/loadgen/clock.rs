//! The clock that every process of a measurement reads: monotonic, and the same one machine-wide, so that a
//! message stamped by one process can be timed by another.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::AnyError;

/// Microseconds of the machine's monotonic clock.
pub(crate) fn now_us() -> u64 {
    // The call fails only for a clock that does not exist, and every Linux has this one; zero would show
    // as absurd latencies at once.
    clock_gettime(ClockId::CLOCK_MONOTONIC)
        .map_or(0, |time| time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_nsec().unsigned_abs() / 1000)
}

/// Sleeps until `instant_us` of [`now_us`]; returns at once when that is past. Ends early, with an error,
/// when the user interrupts.
pub(crate) fn sleep_until(instant_us: u64) -> Result<(), AnyError> {
    crate::interrupt::pause(Duration::from_micros(instant_us.saturating_sub(now_us())))
}
