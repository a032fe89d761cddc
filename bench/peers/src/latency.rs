//! Latencies in microseconds.

use hdrhistogram::Histogram;

use crate::AnyError;

/// Longest latency that is told apart: loadgen's.
const MAX_LATENCY_US: u64 = 120_000_000;
/// Loadgen's too.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies.
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    /// Empty.
    pub(crate) fn new() -> Result<Self, AnyError> {
        Ok(Self(Histogram::new_with_bounds(1, MAX_LATENCY_US, SIGNIFICANT_DIGITS)?))
    }

    /// Takes one in; below 1 µs counts as 1.
    pub(crate) fn record(&mut self, us: u64) {
        self.0.saturating_record(us.max(1));
    }

    /// Takes in all of another.
    pub(crate) fn add(&mut self, other: &Self) -> Result<(), AnyError> {
        self.0.add(&other.0).map_err(|error| format!("histograms do not add up: {error}").into())
    }

    /// How many.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// The value below which the part `quantile` (0 to 1) lies; 0 when empty.
    pub(crate) fn at(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64
    }
}
