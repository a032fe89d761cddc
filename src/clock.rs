//! The only module that reads a clock. Everything else takes [`Now`] as an argument.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One reading of both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Wall clock, microseconds since the Unix epoch: for records and envelopes. May step.
    pub unix_us: u64,
    /// Monotonic milliseconds since the process's first reading: for timers. Never steps.
    pub mono_ms: u64,
}

/// A point in time that is near.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// So many microseconds from now.
    pub fn in_us(us: u64) -> Self {
        Self(Instant::now() + Duration::from_micros(us))
    }

    /// Whether it has come.
    pub fn is_past(&self) -> bool {
        Instant::now() >= self.0
    }
}

fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

impl Now {
    /// Monotonic microseconds since the process's first reading.
    pub fn mono_us() -> u64 {
        since_start().as_micros() as u64
    }

    /// Reads both clocks.
    pub fn read() -> Self {
        Self {
            // Before 1970 is no time this program can run at; 0 is as good an answer as any.
            unix_us: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64),
            mono_ms: since_start().as_millis() as u64,
        }
    }

    /// Wall clock in whole seconds since the Unix epoch.
    pub fn unix_s(&self) -> u64 {
        self.unix_us / 1_000_000
    }

    /// Wall clock in whole minutes since the Unix epoch.
    pub fn unix_minute(&self) -> u64 {
        self.unix_s() / 60
    }
}
