//! The way work reaches a worker: a bounded channel of jobs, a channel of control messages, and a doorbell. Knows
//! neither jobs nor control messages by type.
//!
//! Completion-queue threads only ever `try_send`: a full mailbox refuses at once. The doorbell is a
//! parked thread rather than a blocking `recv`, because crossbeam's `recv` spins before it parks and an
//! idle server must cost nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError};

use crate::clock::{Deadline, Now};
use crate::refusal::Refusal;

/// Jobs that may wait for one worker.
pub const MAX_QUEUED_JOBS: usize = 8192;
/// Payload bytes that may wait for one worker.
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// Control messages that may wait for one worker before news is missed rather than kept.
pub const MAX_NEWS: usize = 16_384;

/// The sending side for jobs `J` and control messages `C`; one per worker, shared by all threads.
pub struct Mailbox<J, C> {
    jobs: Sender<(J, usize)>,
    line: Line<C>,
}

/// The sending side for control messages alone.
pub struct Line<C> {
    control: Sender<C>,
    bell: Arc<Bell>,
}

/// The worker's side.
pub struct Inlet<J, C> {
    jobs: Receiver<(J, usize)>,
    control: Receiver<C>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    sleeping: AtomicBool,
    /// When the worker wakes by itself, while it sleeps (monotonic milliseconds).
    wakes_at_ms: AtomicU64,
    closed: AtomicBool,
    /// News found no room.
    missed: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
    queued_bytes: AtomicUsize,
}

/// A connected pair.
pub fn mailbox<J, C>() -> (Mailbox<J, C>, Inlet<J, C>) {
    let (job_sender, job_receiver) = crossbeam_channel::bounded(MAX_QUEUED_JOBS);
    let (control_sender, control_receiver) = crossbeam_channel::unbounded();
    let bell = Arc::new(Bell::default());
    (
        Mailbox { jobs: job_sender, line: Line { control: control_sender, bell: bell.clone() } },
        Inlet { jobs: job_receiver, control: control_receiver, bell },
    )
}

impl<J, C> std::fmt::Debug for Mailbox<J, C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mailbox")
    }
}

impl<J, C> Clone for Mailbox<J, C> {
    fn clone(&self) -> Self {
        Self { jobs: self.jobs.clone(), line: self.line.clone() }
    }
}

impl<C> Clone for Line<C> {
    fn clone(&self) -> Self {
        Self { control: self.control.clone(), bell: self.bell.clone() }
    }
}

impl<J, C> Mailbox<J, C> {
    /// Hands a job of `bytes` payload bytes to the worker, or gives it back, with the reason, when too many jobs or
    /// bytes wait already or the worker stops. A worker that sleeps hears of it with the next [`ring`](Self::ring).
    pub fn try_send(&self, job: J, bytes: usize) -> Result<(), (Box<J>, Refusal)> {
        let bell = &self.line.bell;
        if bell.closed.load(Ordering::Relaxed) {
            return Err((Box::new(job), Refusal::SERVER_STOPPING));
        }
        let before = bell.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        // One job always fits, however large: it was bounded on arrival.
        let fits = before == 0 || before + bytes <= MAX_QUEUED_BYTES;
        let refused = if fits {
            match self.jobs.try_send((job, bytes)) {
                Ok(()) => None,
                Err(TrySendError::Full((job, _)) | TrySendError::Disconnected((job, _))) => Some(job),
            }
        } else {
            Some(job)
        };
        match refused {
            None => Ok(()),
            Some(job) => {
                let _ = bell.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
                Err((Box::new(job), Refusal::OVERLOADED))
            }
        }
    }

    /// Wakes the worker if it sleeps and a job waits for it.
    pub fn ring(&self) {
        if !self.jobs.is_empty() {
            self.line.bell.ring();
        }
    }

    /// The way to this worker for control messages.
    pub fn line(&self) -> &Line<C> {
        &self.line
    }
}

impl<C> Line<C> {
    /// Sends the worker a control message and wakes it.
    pub fn tell(&self, control: C) {
        // A worker that is gone has ended its sessions itself.
        if self.control.send(control).is_ok() {
            self.bell.ring();
        }
    }

    /// Sends the worker news, which can be read from Redis again: where too much waits already, it is missed, and
    /// the worker hears that.
    pub fn tell_news(&self, control: C) {
        if self.control.len() < MAX_NEWS {
            self.tell(control);
        } else {
            self.bell.missed.store(true, Ordering::Relaxed);
        }
    }

    /// Sends the worker a control message that may be read `patience_ms` later: a worker that wakes by itself
    /// before that is left asleep.
    pub fn tell_in_time(&self, control: C, patience_ms: u64) {
        if self.control.send(control).is_ok()
            && self.bell.wakes_at_ms.load(Ordering::SeqCst) > Now::read().mono_ms + patience_ms
        {
            self.bell.ring();
        }
    }

    /// Wakes the worker.
    pub fn ring(&self) {
        self.bell.ring();
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

impl<J, C> Inlet<J, C> {
    /// Makes the calling thread the one that the doorbell wakes.
    pub fn attach(&self) {
        let _ = self.bell.thread.set(std::thread::current());
    }

    /// Takes no further jobs.
    pub fn close(&self) {
        self.bell.closed.store(true, Ordering::Relaxed);
    }

    /// The next job and its payload bytes.
    pub fn next_job(&self) -> Option<(J, usize)> {
        let (job, bytes) = self.jobs.try_recv().ok()?;
        let _ = self.bell.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        Some((job, bytes))
    }

    /// The next control message.
    pub fn next_control(&self) -> Option<C> {
        self.control.try_recv().ok()
    }

    /// Whether news was missed since this was asked last.
    pub fn has_missed_news(&self) -> bool {
        // A load first: it is asked in each turn of the loop.
        self.bell.missed.load(Ordering::Relaxed) && self.bell.missed.swap(false, Ordering::Relaxed)
    }

    /// Whether no job waits.
    pub fn has_no_job(&self) -> bool {
        self.jobs.is_empty()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.control.is_empty() && !self.bell.missed.load(Ordering::Relaxed)
    }

    /// Looks for work until the deadline; whether there is some.
    fn spin(&self, deadline: Deadline) -> bool {
        while !deadline.is_past() {
            if !self.is_empty() {
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
        if self.is_empty() {
            std::thread::park_timeout(timeout);
        }
        self.bell.sleeping.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_that_find_no_room_are_missed_aloud() {
        let (mailbox, inlet) = mailbox::<(), usize>();
        for n in 0..MAX_NEWS + 3 {
            mailbox.line().tell_news(n);
        }
        // What is no news is kept all the same.
        mailbox.line().tell(MAX_NEWS);
        assert!(inlet.has_missed_news());
        assert!(!inlet.has_missed_news());
        let told: Vec<usize> = std::iter::from_fn(|| inlet.next_control()).collect();
        assert_eq!(told, (0..=MAX_NEWS).collect::<Vec<_>>());
    }
}
