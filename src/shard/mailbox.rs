//! How work reaches a worker: a bounded channel of jobs, a control channel, and a doorbell.
//!
//! Completion-queue threads only ever `try_send`: a full mailbox refuses at once. The doorbell is a
//! parked thread rather than a blocking `recv`, because crossbeam's `recv` spins before it parks and an
//! idle server must cost nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use super::job::{Control, Job};
use crate::clock::{Deadline, Now};
use crate::refusal::Refusal;

/// Jobs that may wait for one worker.
pub const MAX_QUEUED_JOBS: usize = 8192;
/// Payload bytes that may wait for one worker.
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// The sending side; one per worker, shared by all threads.
#[derive(Clone)]
pub struct Mailbox {
    jobs: Sender<Job>,
    control: Sender<Control>,
    bell: Arc<Bell>,
}

/// The worker's side.
pub struct Inlet {
    /// Waiting jobs.
    pub jobs: Receiver<Job>,
    /// Session events and stop. Bounded by construction: a session has at most one event note and one
    /// close note queued, and sessions are bounded by the allowlist and `max_sessions_per_agent`.
    pub control: Receiver<Control>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    sleeping: AtomicBool,
    /// When the worker wakes by itself, while it sleeps (monotonic milliseconds).
    wakes_at_ms: AtomicU64,
    closed: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
    queued_bytes: AtomicUsize,
}

/// A connected pair.
pub fn mailbox() -> (Mailbox, Inlet) {
    let (job_sender, job_receiver) = crossbeam_channel::bounded(MAX_QUEUED_JOBS);
    let (control_sender, control_receiver) = crossbeam_channel::unbounded();
    let bell = Arc::new(Bell::default());
    (
        Mailbox { jobs: job_sender, control: control_sender, bell: bell.clone() },
        Inlet { jobs: job_receiver, control: control_receiver, bell },
    )
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailbox")
    }
}

impl Mailbox {
    /// Hands a job to the worker, or gives it back, with the reason, when too many jobs or bytes wait
    /// already or the worker stops. A worker that sleeps hears of it with the next [`ring`](Self::ring).
    pub fn try_send(&self, job: Job) -> Result<(), (Box<Job>, Refusal)> {
        if self.bell.closed.load(Ordering::Relaxed) {
            return Err((Box::new(job), Refusal::SERVER_STOPPING));
        }
        let bytes = job.payload_bytes();
        let before = self.bell.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // One job always fits, however large: it was bounded on arrival.
        let fits = before == 0 || before + bytes <= MAX_QUEUED_BYTES;
        let refused = if fits {
            match self.jobs.try_send(job) {
                Ok(()) => None,
                Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => Some(job),
            }
        } else {
            Some(job)
        };
        match refused {
            None => Ok(()),
            Some(job) => {
                let _ = self.bell.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err((Box::new(job), Refusal::OVERLOADED))
            }
        }
    }

    /// Wakes the worker if it sleeps and a job waits for it.
    pub fn ring(&self) {
        if !self.jobs.is_empty() {
            self.bell.ring();
        }
    }

    /// Tells the worker of a session's events or of the server's stop.
    pub fn control(&self, control: Control) {
        // A worker that is gone has ended its sessions itself.
        if self.control.send(control).is_ok() {
            self.bell.ring();
        }
    }

    /// Tells the worker of something that can wait for up to `patience_ms`: a worker that wakes by itself
    /// before that is left asleep.
    pub fn control_in_time(&self, control: Control, patience_ms: u64) {
        if self.control.send(control).is_ok()
            && self.bell.wakes_at_ms.load(Ordering::SeqCst) > Now::read().mono_ms + patience_ms
        {
            self.bell.ring();
        }
    }
}

impl Bell {
    fn ring(&self) {
        if self.sleeping.swap(false, Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

impl Inlet {
    /// Makes the calling thread the one that the doorbell wakes.
    pub fn attach(&self) {
        let _ = self.bell.thread.set(std::thread::current());
    }

    /// Takes no further jobs.
    pub fn close(&self) {
        self.bell.closed.store(true, Ordering::Relaxed);
    }

    /// Accounts for a job that was taken off the channel.
    pub fn taken(&self, job: &Job) {
        let _ = self.bell.queued_bytes.fetch_sub(job.payload_bytes(), Ordering::Relaxed);
    }

    /// Looks for work until the deadline; whether there is some.
    fn spin(&self, deadline: Deadline) -> bool {
        while !deadline.is_past() {
            if !self.jobs.is_empty() || !self.control.is_empty() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    /// Looks for work for `spin_us` microseconds, then parks until something arrives or it is `until_ms`
    /// (monotonic). May return early.
    pub fn wait(&self, until_ms: u64, spin_us: u64) {
        if spin_us > 0 && self.spin(Deadline::in_us(spin_us)) {
            return;
        }
        let timeout = Duration::from_millis(until_ms.saturating_sub(Now::read().mono_ms).max(1));
        self.bell.wakes_at_ms.store(until_ms, Ordering::SeqCst);
        self.bell.sleeping.store(true, Ordering::SeqCst);
        // Whoever sends after this check sees `sleeping` and unparks.
        if self.jobs.is_empty() && self.control.is_empty() {
            std::thread::park_timeout(timeout);
        }
        self.bell.sleeping.store(false, Ordering::SeqCst);
    }
}
