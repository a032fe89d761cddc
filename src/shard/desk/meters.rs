//! What workers measure of themselves: one meter each, written by its worker alone, read by any thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::audit::tally::Counters;
use crate::ids::AgentId;

/// Upper bounds of a histogram's buckets are powers of two: the first is this power of one microsecond, or of one …
const FIRST_POWER: u32 = 5;
/// … and there are so many of them; what is larger is in one more.
pub const BUCKETS: usize = 22;

/// A number that one thread writes.
#[derive(Debug, Default)]
pub struct Number(AtomicU64);

impl Number {
    /// Adds to it.
    pub fn add(&self, count: u64) {
        self.set(self.get().wrapping_add(count));
    }

    /// Replaces it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Values by size.
#[derive(Debug, Default)]
pub struct Histogram {
    /// How far the first bucket's bound is below the power of two that times have.
    shift: u32,
    buckets: [Number; BUCKETS + 1],
    sum: Number,
}

impl Histogram {
    /// Of durations in microseconds: 32 µs to 67 s.
    pub fn of_us() -> Self {
        Self { shift: FIRST_POWER, ..Self::default() }
    }

    /// Of counts: 1 to about two million.
    pub fn of_counts() -> Self {
        Self::default()
    }

    /// Counts a value.
    pub fn add(&self, value: u64) {
        // The first bucket whose bound is not below it.
        let power = u64::BITS - value.saturating_sub(1).leading_zeros();
        let at = (power.saturating_sub(self.shift) as usize).min(BUCKETS);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add(1);
        }
        self.sum.add(value);
    }

    /// How many values are in each bucket, with its bound; the last one has none. And their sum.
    pub fn read(&self) -> (Vec<(Option<u64>, u64)>, u64) {
        let bound = |at: usize, power: u32| (at < BUCKETS).then_some(1_u64 << power);
        let buckets = self.buckets.iter().enumerate().zip(self.shift..);
        let buckets = buckets.map(|((at, bucket), power)| (bound(at, power), bucket.get()));
        (buckets.collect(), self.sum.get())
    }
}

/// How long an agent's handlers had what they have settled.
#[derive(Debug, Default)]
pub struct Handling {
    /// In milliseconds.
    sum_ms: Number,
}

impl Handling {
    /// A delivery was settled after so long.
    pub fn add(&self, meter: &Meter, ms: u64) {
        self.sum_ms.add(ms);
        meter.handling_us.add(ms * 1000);
    }

    /// In milliseconds, all deliveries together.
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms.get()
    }
}

/// How a worker's way to Redis is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It commits.
    Open,
    /// There is no connection.
    Down,
    /// Redis refuses transactions.
    Refused,
    /// Commits are not as durable as configured.
    Unassured,
}

/// One worker's.
#[derive(Debug)]
pub struct Meter {
    /// What it has put on record.
    pub counters: Arc<Counters>,
    /// When it last began a turn of its loop, monotonic milliseconds.
    pub beat_ms: Number,
    way: Number,
    /// How long it slept, in microseconds.
    pub idle_us: Number,
    /// Decisions and records of a round, in microseconds.
    pub decide_us: Histogram,
    /// From a round's commands to Redis' answers, in microseconds.
    pub commit_us: Histogram,
    /// Jobs of a round.
    pub batch: Histogram,
    /// From a message's acceptance to its first delivery, in microseconds.
    pub queue_us: Histogram,
    /// From a delivery to its settlement, in microseconds.
    pub handling_us: Histogram,
    handling: Mutex<BTreeMap<AgentId, Arc<Handling>>>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            counters: Arc::default(),
            beat_ms: Number::default(),
            way: Number::default(),
            idle_us: Number::default(),
            decide_us: Histogram::of_us(),
            commit_us: Histogram::of_us(),
            batch: Histogram::of_counts(),
            queue_us: Histogram::of_us(),
            handling_us: Histogram::of_us(),
            handling: Mutex::default(),
        }
    }
}

impl Meter {
    /// An agent's handlers are measured from now on.
    pub fn enter(&self, agent: &AgentId, handling: Arc<Handling>) {
        let mut all = self.handling.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = all.insert(agent.clone(), handling);
    }

    /// How long each agent's handlers had what they have settled, in milliseconds.
    pub fn handling_ms(&self) -> Vec<(AgentId, u64)> {
        let all = self.handling.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(agent, handling)| (agent.clone(), handling.sum_ms())).collect()
    }

    /// How the worker's way to Redis is now.
    pub fn set_way(&self, way: Way) {
        self.way.set(match way {
            Way::Open => 0,
            Way::Down => 1,
            Way::Refused => 2,
            Way::Unassured => 3,
        });
    }

    /// How it was when the worker looked last.
    pub fn way(&self) -> Way {
        match self.way.get() {
            0 => Way::Open,
            1 => Way::Down,
            2 => Way::Refused,
            _ => Way::Unassured,
        }
    }
}

/// All workers'.
#[derive(Debug, Default)]
pub struct Meters(Mutex<Vec<Arc<Meter>>>);

impl Meters {
    /// That of worker `index`.
    pub fn of(&self, index: usize) -> Arc<Meter> {
        let mut meters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while meters.len() <= index {
            meters.push(Arc::default());
        }
        meters.get(index).cloned().unwrap_or_default()
    }

    /// All of them, in their order.
    pub fn all(&self) -> Vec<Arc<Meter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_value_is_in_the_first_bucket_that_holds_it(values in proptest::collection::vec(any::<u32>(), 0..50)) {
            for histogram in [Histogram::of_us(), Histogram::of_counts()] {
                values.iter().for_each(|value| histogram.add(u64::from(*value)));
                let (buckets, sum) = histogram.read();
                prop_assert_eq!(buckets.len(), BUCKETS + 1);
                prop_assert_eq!(sum, values.iter().map(|value| u64::from(*value)).sum::<u64>());
                let mut below = 0;
                for (bound, count) in buckets {
                    below += count;
                    let fits = |value: &&u32| bound.is_none_or(|bound| u64::from(**value) <= bound);
                    prop_assert_eq!(below, values.iter().filter(fits).count() as u64);
                }
            }
        }
    }
}
