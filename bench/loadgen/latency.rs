//! Latencies: one histogram, its text form between processes, its quantiles.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::AnyError;

/// Longest latency that is told apart, in microseconds.
pub(crate) const MAX_LATENCY_US: u64 = 120_000_000;

/// Latencies in microseconds, 1 to [`MAX_LATENCY_US`].
#[derive(Clone)]
pub(crate) struct Latencies(Histogram<u64>);

/// Value and count, for each value that was recorded: how a histogram travels.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Counts(Vec<(u64, u64)>);

impl Latencies {
    /// Empty; three significant digits.
    pub(crate) fn new() -> Result<Self, AnyError> {
        Ok(Self(Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?))
    }

    /// Empty; two significant digits, for the slices of a run.
    pub(crate) fn coarse() -> Result<Self, AnyError> {
        Ok(Self(Histogram::new_with_bounds(1, MAX_LATENCY_US, 2)?))
    }

    /// Takes one in; below 1 µs counts as 1.
    pub(crate) fn record(&mut self, us: u64) {
        self.0.saturating_record(us.max(1));
    }

    /// Takes the same one in `count` times.
    pub(crate) fn record_n(&mut self, us: u64, count: u64) {
        self.0.saturating_record_n(us.max(1), count);
    }

    /// Takes in all of another.
    pub(crate) fn add(&mut self, other: &Self) -> Result<(), AnyError> {
        self.0.add(&other.0).map_err(|error| format!("histograms do not add up: {error}").into())
    }

    /// Takes in what came from another process.
    pub(crate) fn add_counts(&mut self, counts: &Counts) {
        for (us, count) in &counts.0 {
            self.record_n(*us, *count);
        }
    }

    /// For another process.
    pub(crate) fn counts(&self) -> Counts {
        Counts(self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect())
    }

    /// How many.
    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    /// The value below which the part `quantile` (0 to 1) lies, in microseconds; 0 when empty.
    pub(crate) fn at(&self, quantile: f64) -> u64 {
        self.0.value_at_quantile(quantile)
    }

    /// The largest, in microseconds.
    pub(crate) fn max(&self) -> u64 {
        self.0.max()
    }

    /// As JSON, microseconds.
    pub(crate) fn json(&self) -> Value {
        json!({
            "count": self.len(), "mean": self.0.mean(), "p50": self.at(0.5), "p90": self.at(0.9),
            "p99": self.at(0.99), "p99.9": self.at(0.999), "p99.99": self.at(0.9999), "max": self.max(),
        })
    }

    /// As one line, milliseconds.
    pub(crate) fn line(&self) -> String {
        let ms = |us: u64| us as f64 / 1000.0;
        format!(
            "p50 {:.3} ms  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3}",
            ms(self.at(0.5)),
            ms(self.at(0.9)),
            ms(self.at(0.99)),
            ms(self.at(0.999)),
            ms(self.max())
        )
    }
}
