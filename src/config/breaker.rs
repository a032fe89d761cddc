//! The section `gateway.circuit_breaker`.

use serde::{Deserialize, Deserializer};

use super::range::{Problem, within};

/// Largest `failure_threshold`: bounds what a breaker remembers.
const MAX_FAILURE_THRESHOLD: u32 = 10_000;

/// When circuits open and close.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BreakerConfig {
    /// Failures that open the circuit.
    pub failure_threshold: u32,
    /// Successful trials that close it.
    pub success_threshold: u32,
    /// How long it stays open, in seconds; a fraction counts as a whole one.
    #[serde(deserialize_with = "whole_seconds")]
    pub timeout_seconds: u64,
    /// Failures count together within this many seconds; a fraction counts as a whole one.
    #[serde(deserialize_with = "whole_seconds")]
    pub window_seconds: u64,
}

/// Older files have floats here.
fn whole_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let seconds = <f64 as Deserialize>::deserialize(deserializer)?;
    if !(0.0..=1e9).contains(&seconds) {
        return Err(serde::de::Error::custom(format!("{seconds} is no number of seconds")));
    }
    Ok(seconds.ceil() as u64)
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self { failure_threshold: 5, success_threshold: 2, timeout_seconds: 60, window_seconds: 300 }
    }
}

impl BreakerConfig {
    pub(super) fn check(&self) -> Result<(), Problem> {
        within("failure_threshold", self.failure_threshold, 1, MAX_FAILURE_THRESHOLD)?;
        within("success_threshold", self.success_threshold, 1, 10_000)?;
        within("timeout_seconds", self.timeout_seconds, 1, 86_400)?;
        within("window_seconds", self.window_seconds, 1, 86_400)
    }
}
