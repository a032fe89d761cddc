//! What one client process has seen: latencies in the counted window, and how many messages of the whole run
//! went where. Written by the completion queues' threads.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use crate::AnyError;
use crate::latency::{Counts, Latencies};
use crate::plan::{MAX_SLICES, Schedule};

/// Parts that threads write to, so that they seldom meet.
const SHARDS: usize = 4;
/// Different reasons of failures that are kept apart; the rest is counted together.
const MAX_REASONS: usize = 16;
const OTHER_REASONS: &str = "others";
/// Longest reason that is kept, in bytes.
const MAX_REASON_BYTES: usize = 200;

/// What is counted, and when.
pub(crate) struct Recorder {
    schedule: OnceLock<Schedule>,
    /// An open loop: a message counts when it was due in the window, however late it is done.
    by_start: bool,
    shards: Vec<Mutex<Shard>>,
    over: AtomicBool,
    sent: AtomicU64,
    answered: AtomicU64,
    accepted: AtomicU64,
    delivered: AtomicU64,
    foreign: AtomicU64,
    failures: Mutex<BTreeMap<String, u64>>,
}

struct Shard {
    call: Latencies,
    end_to_end: Latencies,
    slices: Vec<Latencies>,
}

/// A client process's report.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Time until the sender knew.
    pub(crate) call: Counts,
    /// Time until the receiver's client had it; for a request, until the requester had the reply.
    pub(crate) end_to_end: Counts,
    /// End to end (state: call), in slices of the window.
    pub(crate) slices: Vec<Counts>,
    /// Of the whole run, warm-up included, when sending stopped.
    pub(crate) at_end: Totals,
    /// The same when what was under way had its time.
    pub(crate) totals: Totals,
    /// Deliveries of other runs, or of strangers.
    pub(crate) foreign: u64,
    /// Reasons and how often.
    pub(crate) failures: BTreeMap<String, u64>,
}

/// Messages of a whole run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Handed to gRPC.
    pub(crate) sent: u64,
    /// Of which the sender knows what came of them.
    pub(crate) answered: u64,
    /// Stored and on record.
    pub(crate) accepted: u64,
    /// That arrived; for requests, of which the reply did.
    pub(crate) delivered: u64,
}

impl Totals {
    /// Adds another process's.
    pub(crate) fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.answered += other.answered;
        self.accepted += other.accepted;
        self.delivered += other.delivered;
    }

    /// Sent, and neither refused nor, where messages arrive anywhere, delivered.
    pub(crate) fn under_way(self, arrive: bool) -> i64 {
        let refused = self.answered.saturating_sub(self.accepted);
        let done = if arrive { self.delivered + refused } else { self.answered };
        self.sent.cast_signed() - done.cast_signed()
    }
}

impl Recorder {
    pub(crate) fn new(by_start: bool) -> Result<Self, AnyError> {
        let shard = || -> Result<Mutex<Shard>, AnyError> {
            Ok(Mutex::new(Shard {
                call: Latencies::new()?,
                end_to_end: Latencies::new()?,
                slices: Vec::new(),
            }))
        };
        Ok(Self {
            schedule: OnceLock::new(),
            by_start,
            shards: (0..SHARDS).map(|_| shard()).collect::<Result<_, _>>()?,
            over: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            failures: Mutex::default(),
        })
    }

    /// From now on it is known what counts.
    pub(crate) fn begin(&self, schedule: Schedule) -> Result<(), AnyError> {
        self.schedule.set(schedule).map_err(|_| "a second schedule")?;
        for shard in &self.shards {
            let slices = (0..=MAX_SLICES).map(|_| Latencies::coarse()).collect::<Result<_, _>>()?;
            lock(shard).slices = slices;
        }
        Ok(())
    }

    /// Nothing more is sent.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// So far.
    pub(crate) fn totals(&self) -> Totals {
        let load = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Totals {
            sent: load(&self.sent),
            answered: load(&self.answered),
            accepted: load(&self.accepted),
            delivered: load(&self.delivered),
        }
    }

    /// A message was handed to gRPC.
    pub(crate) fn sent(&self) {
        let _ = self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// A message was accepted.
    pub(crate) fn accepted(&self, shard: usize, since_us: u64, now_us: u64, alone: bool) {
        let _ = self.accepted.fetch_add(1, Ordering::Relaxed);
        let _ = self.answered.fetch_add(1, Ordering::Relaxed);
        self.record(shard, since_us, now_us, |shard| &mut shard.call, alone);
    }

    /// A message was refused, or its outcome is unknown.
    pub(crate) fn failed(&self, reason: &str) {
        let _ = self.answered.fetch_add(1, Ordering::Relaxed);
        self.problem(reason);
    }

    /// Something went wrong, with no message of this client's.
    pub(crate) fn problem(&self, reason: &str) {
        let mut end = reason.len().min(MAX_REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        let reason = reason.get(..end).unwrap_or_default();
        let mut failures = lock(&self.failures);
        let known = failures.contains_key(reason) || failures.len() < MAX_REASONS;
        *failures.entry(if known { reason } else { OTHER_REASONS }.to_owned()).or_default() += 1;
    }

    /// A message arrived.
    pub(crate) fn delivered(&self, shard: usize, since_us: u64, now_us: u64) {
        if self.schedule.get().is_none_or(|schedule| since_us < schedule.start_us) {
            let _ = self.foreign.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let _ = self.delivered.fetch_add(1, Ordering::Relaxed);
        self.record(shard, since_us, now_us, |shard| &mut shard.end_to_end, true);
    }

    /// A delivery that has nothing to do with this run.
    pub(crate) fn strange(&self) {
        let _ = self.foreign.fetch_add(1, Ordering::Relaxed);
    }

    fn record(
        &self,
        shard: usize,
        since_us: u64,
        now_us: u64,
        which: fn(&mut Shard) -> &mut Latencies,
        in_slices: bool,
    ) {
        let Some(schedule) = self.schedule.get() else {
            return;
        };
        let at_us = if self.by_start { since_us } else { now_us };
        if at_us < schedule.from_us || at_us >= schedule.until_us {
            return;
        }
        let Some(shard) = self.shards.get(shard % SHARDS) else {
            return;
        };
        let us = now_us.saturating_sub(since_us);
        let mut shard = lock(shard);
        which(&mut shard).record(us);
        if in_slices
            && let Some(slice) =
                shard.slices.get_mut(((at_us - schedule.from_us) / schedule.slice_us) as usize)
        {
            slice.record(us);
        }
    }

    /// What went wrong so far.
    pub(crate) fn failures(&self) -> BTreeMap<String, u64> {
        lock(&self.failures).clone()
    }

    /// Everything so far.
    pub(crate) fn report(&self, at_end: Totals) -> Result<Report, AnyError> {
        let (mut call, mut end_to_end) = (Latencies::new()?, Latencies::new()?);
        let mut slices: Vec<Latencies> = Vec::new();
        for shard in &self.shards {
            let shard = lock(shard);
            call.add(&shard.call)?;
            end_to_end.add(&shard.end_to_end)?;
            if slices.is_empty() {
                slices.clone_from(&shard.slices);
            } else {
                for (sum, slice) in slices.iter_mut().zip(&shard.slices) {
                    sum.add(slice)?;
                }
            }
        }
        Ok(Report {
            call: call.counts(),
            end_to_end: end_to_end.counts(),
            slices: slices.iter().map(Latencies::counts).collect(),
            at_end,
            totals: self.totals(),
            foreign: self.foreign.load(Ordering::SeqCst),
            failures: self.failures(),
        })
    }
}

/// The data also after a thread that held the lock panicked: every change is complete in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
