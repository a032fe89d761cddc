//! What the clients have seen: latencies in the counted window, and how many messages of the whole run went
//! where. The same rules as loadgen's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::AnyError;
use crate::clock::now_us;
use crate::latency::Latencies;
use crate::payload::{Seen, Stamp};

/// Different reasons of failures that are kept apart; the rest is counted together.
const MAX_REASONS: usize = 16;
const OTHER_REASONS: &str = "others";

/// When what happens, on the clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) start_us: u64,
    /// Counting starts.
    pub(crate) from_us: u64,
    /// Counting ends, and so does sending.
    pub(crate) until_us: u64,
}

impl Schedule {
    /// Starting now.
    pub(crate) fn now(warm_up: Duration, counted: Duration) -> Self {
        let start_us = now_us();
        let from_us = start_us + warm_up.as_micros() as u64;
        Self { start_us, from_us, until_us: from_us + counted.as_micros() as u64 }
    }

    /// Length of the counted window.
    pub(crate) fn counted_s(self) -> f64 {
        (self.until_us - self.from_us) as f64 / 1e6
    }
}

/// Everything that is counted.
pub(crate) struct Recorder {
    pub(crate) schedule: Schedule,
    /// A message counts when it was due in the window, however late it is done; else when it is done in it.
    open: bool,
    pairs: Vec<Mutex<Pair>>,
    over: AtomicBool,
    sent: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    delivered: AtomicU64,
    repeated: AtomicU64,
    foreign: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

/// One sender and its receiver.
struct Pair {
    call: Latencies,
    end_to_end: Latencies,
    seen: Seen,
}

/// Messages of a whole run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    /// Acknowledged to the sender.
    pub(crate) accepted: u64,
    /// Sent, and an error came back.
    pub(crate) refused: u64,
    /// Arrived, each counted once.
    pub(crate) delivered: u64,
    pub(crate) repeated: u64,
    /// Arrived, and nobody's.
    pub(crate) foreign: u64,
}

impl Totals {
    /// Sent, and neither refused nor delivered.
    pub(crate) fn under_way(self) -> u64 {
        self.sent.saturating_sub(self.delivered + self.refused)
    }
}

impl Recorder {
    pub(crate) fn new(schedule: Schedule, open: bool, pairs: usize) -> Result<Self, AnyError> {
        let pair = || -> Result<Mutex<Pair>, AnyError> {
            Ok(Mutex::new(Pair {
                call: Latencies::new()?,
                end_to_end: Latencies::new()?,
                seen: Seen::default(),
            }))
        };
        Ok(Self {
            schedule,
            open,
            pairs: (0..pairs).map(|_| pair()).collect::<Result<_, _>>()?,
            over: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            failures: Mutex::default(),
        })
    }

    fn pair(&self, index: usize) -> Option<MutexGuard<'_, Pair>> {
        self.pairs.get(index).map(|pair| pair.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn counts(&self, since_us: u64, now_us: u64) -> bool {
        let instant = if self.open { since_us } else { now_us };
        (self.schedule.from_us..self.schedule.until_us).contains(&instant)
    }

    pub(crate) fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// The sender knows that its message is stored.
    pub(crate) fn accepted(&self, pair: usize, since_us: u64) {
        let now_us = now_us();
        self.accepted.fetch_add(1, Ordering::Relaxed);
        if self.counts(since_us, now_us)
            && let Some(mut pair) = self.pair(pair)
        {
            pair.call.record(now_us.saturating_sub(since_us));
        }
    }

    /// The receiver has a message.
    pub(crate) fn delivered(&self, pair: usize, payload: &[u8]) {
        let now_us = now_us();
        let (Some(stamp), Some(mut pair)) = (Stamp::of(payload), self.pair(pair)) else {
            self.foreign.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if !pair.seen.first(stamp.number) {
            self.repeated.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.delivered.fetch_add(1, Ordering::Relaxed);
        if self.counts(stamp.since_us, now_us) {
            pair.end_to_end.record(now_us.saturating_sub(stamp.since_us));
        }
    }

    /// A message that was sent and not taken.
    pub(crate) fn refused(&self, reason: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.failed(reason);
    }

    /// A message that was not sent, or not taken.
    pub(crate) fn failed(&self, reason: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let known = failures.contains_key(reason) || failures.len() < MAX_REASONS;
        *failures.entry(if known { reason } else { OTHER_REASONS }.to_owned()).or_default() += 1;
    }

    /// Nothing more is sent.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn totals(&self) -> Totals {
        // In this order nothing that is sent meanwhile looks delivered and not sent.
        let delivered = self.delivered.load(Ordering::SeqCst);
        Totals {
            delivered,
            refused: self.refused.load(Ordering::SeqCst),
            repeated: self.repeated.load(Ordering::SeqCst),
            foreign: self.foreign.load(Ordering::SeqCst),
            accepted: self.accepted.load(Ordering::SeqCst),
            sent: self.sent.load(Ordering::SeqCst),
        }
    }

    /// All calls, all deliveries, and the reasons of failures.
    pub(crate) fn sums(&self) -> Result<(Latencies, Latencies, BTreeMap<String, u64>), AnyError> {
        let (mut call, mut end_to_end) = (Latencies::new()?, Latencies::new()?);
        for index in 0..self.pairs.len() {
            if let Some(pair) = self.pair(index) {
                call.add(&pair.call)?;
                end_to_end.add(&pair.end_to_end)?;
            }
        }
        Ok((call, end_to_end, self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()))
    }
}
