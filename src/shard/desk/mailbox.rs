//! The way work reaches a worker: a channel of jobs whose number and bytes are bounded, a channel of control messages,
//! and a doorbell. Knows neither jobs nor control messages by type.
//!
//! A full mailbox refuses at once. No agent may have more waiting than there is room left, and some room is kept for
//! those that have little waiting: who floods hears of it, the others do not. What waits is taken in its order, unless
//! that is more than one round takes: then in turns. The doorbell is a parked thread: crossbeam's `recv` spins first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, SendError, Sender};

use super::turns::Turns;
use crate::clock::{Deadline, Now};
use crate::refusal::Refusal;

/// Jobs that may wait for one worker.
pub const MAX_QUEUED_JOBS: usize = 16_384;
/// Payload bytes that may wait for one worker.
pub const MAX_QUEUED_BYTES: usize = 64 * 1024 * 1024;

/// What is kept for agents that have little waiting, beside that: jobs, and payload bytes.
const KEPT_JOBS: usize = 8192;
const KEPT_BYTES: usize = 32 * 1024 * 1024;
/// Little: so many jobs with so many payload bytes of one agent.
const LITTLE_JOBS: usize = 64;
const LITTLE_BYTES: usize = 256 * 1024;

/// Control messages that may wait for one worker before news is missed rather than kept.
pub const MAX_NEWS: usize = 16_384;
/// Counts of what agents have waiting, one for each route hash.
const SHARES: usize = 65_536;

/// A job on its way: who asks, and its payload's bytes.
struct Item<J> {
    job: J,
    from: u16,
    bytes: usize,
}

/// How many jobs wait, and how many bytes they have, in one number: one operation counts both.
#[derive(Default)]
struct Count(AtomicU64);

/// One job in a [`Count`]; its bytes stand below.
const ONE_JOB: u64 = 1 << 40;

#[derive(Clone, Copy)]
struct Counted {
    jobs: usize,
    bytes: usize,
}

impl Counted {
    fn of(count: u64) -> Self {
        Self { jobs: (count / ONE_JOB) as usize, bytes: (count % ONE_JOB) as usize }
    }
}

impl Count {
    /// Counts a job in; what was there before.
    fn add(&self, bytes: usize) -> Counted {
        Counted::of(self.0.fetch_add(ONE_JOB + bytes as u64, Ordering::Relaxed))
    }

    fn remove(&self, bytes: usize) {
        let _ = self.0.fetch_sub(ONE_JOB + bytes as u64, Ordering::Relaxed);
    }

    fn read(&self) -> Counted {
        Counted::of(self.0.load(Ordering::Relaxed))
    }
}

/// The sending side for jobs `J` and control messages `C`; one per worker, shared by all threads.
pub struct Mailbox<J, C> {
    jobs: Sender<Item<J>>,
    line: Line<C>,
}

/// The sending side for control messages alone.
pub struct Line<C> {
    control: Sender<C>,
    bell: Arc<Bell>,
}

/// The worker's side.
pub struct Inlet<J, C> {
    jobs: Receiver<Item<J>>,
    control: Receiver<C>,
    bell: Arc<Bell>,
    /// Taken out of the channel, and waiting still.
    turns: Turns<J>,
}

struct Bell {
    sleeping: AtomicBool,
    /// When the worker wakes by itself, while it sleeps (monotonic milliseconds).
    wakes_at_ms: AtomicU64,
    closed: AtomicBool,
    /// News found no room.
    missed: AtomicBool,
    thread: std::sync::OnceLock<Thread>,
    /// All that waits, and each agent's part.
    waiting: Count,
    shares: Box<[Count]>,
}

impl Default for Bell {
    fn default() -> Self {
        Self {
            sleeping: AtomicBool::default(),
            wakes_at_ms: AtomicU64::default(),
            closed: AtomicBool::default(),
            missed: AtomicBool::default(),
            thread: std::sync::OnceLock::new(),
            waiting: Count::default(),
            shares: std::iter::repeat_with(Count::default).take(SHARES).collect(),
        }
    }
}

/// A connected pair.
pub fn mailbox<J, C>() -> (Mailbox<J, C>, Inlet<J, C>) {
    // Bounded by what `try_send` counts: a channel with a bound of its own would hold room for all of it.
    let (job_sender, job_receiver) = crossbeam_channel::unbounded();
    let (control_sender, control_receiver) = crossbeam_channel::unbounded();
    let bell = Arc::new(Bell::default());
    (
        Mailbox { jobs: job_sender, line: Line { control: control_sender, bell: bell.clone() } },
        Inlet { jobs: job_receiver, control: control_receiver, bell, turns: Turns::default() },
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
    /// Hands a job of `bytes` payload bytes to the worker, or gives it back, with the reason, when too much waits
    /// already, of all or of `from` alone, or the worker stops. A worker that sleeps hears of it with the next
    /// [`ring`](Self::ring).
    pub fn try_send(&self, job: J, from: u16, bytes: usize) -> Result<(), (Box<J>, Refusal)> {
        let bell = &self.line.bell;
        if bell.closed.load(Ordering::Relaxed) {
            return Err((Box::new(job), Refusal::SERVER_STOPPING));
        }
        let all = bell.waiting.add(bytes);
        let own = bell.share(from).map_or(all, |share| share.add(bytes));
        let refused = if fits(all, own, bytes) {
            match self.jobs.send(Item { job, from, bytes }) {
                Ok(()) => None,
                Err(SendError(item)) => Some(item.job),
            }
        } else {
            Some(job)
        };
        match refused {
            None => Ok(()),
            Some(job) => {
                bell.taken(from, bytes);
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

    /// How many jobs wait for this worker.
    pub fn depth(&self) -> usize {
        self.line.bell.waiting.read().jobs
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

/// Whether a job of so many bytes may wait, where `all` waits, `own` of it the same agent's. One always may, however
/// large: it was bounded on arrival.
fn fits(all: Counted, own: Counted, bytes: usize) -> bool {
    if own.jobs < LITTLE_JOBS && own.bytes + bytes <= LITTLE_BYTES {
        return all.jobs < MAX_QUEUED_JOBS + KEPT_JOBS && all.bytes + bytes <= MAX_QUEUED_BYTES + KEPT_BYTES;
    }
    let jobs_left = MAX_QUEUED_JOBS.saturating_sub(all.jobs);
    let bytes_left = MAX_QUEUED_BYTES.saturating_sub(all.bytes);
    let most = if own.bytes == 0 { bytes_left } else { bytes_left.saturating_sub(own.bytes) };
    own.jobs < jobs_left && (all.bytes == 0 || bytes <= most)
}

impl Bell {
    fn share(&self, from: u16) -> Option<&Count> {
        self.shares.get(usize::from(from) % SHARES)
    }

    /// A job does not wait any more.
    fn taken(&self, from: u16, bytes: usize) {
        self.waiting.remove(bytes);
        if let Some(share) = self.share(from) {
            share.remove(bytes);
        }
    }

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

    /// The next jobs, at most `most`, and no more once they have `most_bytes`; one always.
    pub fn take(&mut self, most: usize, most_bytes: usize) -> Vec<J> {
        let bell = &self.bell;
        let waiting = bell.waiting.read();
        if self.turns.is_empty() && waiting.jobs <= most && waiting.bytes <= most_bytes {
            // All of it: nobody's has to wait for somebody else's.
            let mut jobs = Vec::new();
            let mut bytes = 0;
            while jobs.len() < most && bytes < most_bytes {
                let Ok(item) = self.jobs.try_recv() else { break };
                bell.taken(item.from, item.bytes);
                bytes += item.bytes;
                jobs.push(item.job);
            }
            return jobs;
        }
        while let Ok(item) = self.jobs.try_recv() {
            self.turns.add(item.from, item.job, item.bytes);
        }
        self.turns.take(most, most_bytes, |from, bytes| bell.taken(from, bytes))
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
        self.jobs.is_empty() && self.turns.is_empty()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.has_no_job() && self.control.is_empty() && !self.bell.missed.load(Ordering::Relaxed)
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

    /// Sends jobs of so many bytes until one is refused; how many were not.
    fn fill(mailbox: &Mailbox<u16, ()>, from: u16, bytes: usize) -> usize {
        let refused = |_: &usize| mailbox.try_send(from, from, bytes).is_err();
        (0..=MAX_QUEUED_JOBS + KEPT_JOBS).find(refused).unwrap_or(usize::MAX)
    }

    #[test]
    fn who_floods_hears_of_it_and_the_others_do_not() {
        let (mailbox, mut inlet) = mailbox::<u16, ()>();
        let first = fill(&mailbox, 1, 10);
        assert_eq!(first, MAX_QUEUED_JOBS / 2);
        // However many flood, there is room for one that does not.
        (2..100).for_each(|from| assert!(fill(&mailbox, from, 10) >= LITTLE_JOBS, "{from}"));
        assert!(mailbox.try_send(200, 200, 10).is_ok());
        // Nobody waits behind them all.
        let taken: Vec<u16> = (0..2).flat_map(|_| inlet.take(256, 1 << 20)).collect();
        assert!(taken.contains(&200));
        while !inlet.has_no_job() {
            assert!(!inlet.take(256, 1 << 20).is_empty());
        }
        assert_eq!(fill(&mailbox, 1, 10), first, "what was taken is counted out");
    }

    #[test]
    fn bytes_are_shared_as_jobs_are() {
        let (mailbox, _inlet) = mailbox::<u16, ()>();
        assert_eq!(fill(&mailbox, 1, 1 << 20), MAX_QUEUED_BYTES / (2 << 20));
        assert!(fill(&mailbox, 2, 1 << 20) > 0);
        assert!(mailbox.try_send(3, 3, 1 << 20).is_ok());
        let (empty, _inlet) = super::mailbox::<u16, ()>();
        assert!(empty.try_send(1, 1, 2 * MAX_QUEUED_BYTES).is_ok(), "one always fits");
        assert!(empty.try_send(2, 2, 1).is_err());
    }

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
