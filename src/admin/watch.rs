//! Looks once a second at what nobody else looks at: whether Redis answers, and whether the workers do.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Now;
use crate::shard::Shards;
use crate::store::overview::{self, Redis};
use crate::store::{Connection, StoreError};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest that Redis may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What it has seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// When it looked, monotonic milliseconds; 0: it has not yet.
    pub(super) at_ms: u64,
    /// How Redis is, or why that is not known.
    pub(super) redis: Option<Result<Redis, String>>,
    /// For each worker, which share of the last interval it worked, 0 to 1.
    pub(super) busy: Vec<f64>,
}

/// What was seen last, for all threads.
pub(super) type Latest = Arc<Mutex<Seen>>;

/// The running thread.
pub(super) struct Watch {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
    latest: Latest,
}

impl Watch {
    /// Starts it.
    pub(super) fn start(shards: &Arc<Shards>) -> std::io::Result<Self> {
        let latest = Latest::default();
        let (stop, stopped) = channel();
        let mut looker = Looker { shards: shards.clone(), connection: None, idle_us: Vec::new(), last_us: 0 };
        let seen = latest.clone();
        let run = move || {
            loop {
                let now = looker.look();
                *seen.lock().unwrap_or_else(PoisonError::into_inner) = now;
                if stopped.recv_timeout(INTERVAL) != Err(RecvTimeoutError::Timeout) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("admin-watch".to_owned()).spawn(run)?;
        Ok(Self { stop, thread: Some(thread), latest })
    }

    /// Looks no more.
    pub(super) fn end(&self) {
        // Either the thread hears it or it is gone.
        let _ = self.stop.send(());
    }

    /// Where it puts what it sees.
    pub(super) fn latest(&self) -> Latest {
        self.latest.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the thread that watches the server had panicked");
        }
    }
}

struct Looker {
    shards: Arc<Shards>,
    connection: Option<Connection>,
    /// How long each worker had slept at the last look.
    idle_us: Vec<u64>,
    last_us: u64,
}

impl Looker {
    fn look(&mut self) -> Seen {
        // A worker that sleeps shows a sign of life.
        self.shards.wake_all();
        let redis = self.redis().map_err(|error| error.to_string());
        let busy = self.busy();
        Seen { at_ms: Now::read().mono_ms, redis: Some(redis), busy }
    }

    fn redis(&mut self) -> Result<Redis, StoreError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.shards.shared().redis.within(PATIENCE).open()?,
        };
        let redis = overview::redis(&mut connection)?;
        self.connection = Some(connection);
        Ok(redis)
    }

    fn busy(&mut self) -> Vec<f64> {
        let now_us = Now::mono_us();
        let passed = now_us.saturating_sub(self.last_us);
        let idle_us: Vec<u64> =
            self.shards.shared().meters.all().iter().map(|meter| meter.idle_us.get()).collect();
        let before = std::mem::replace(&mut self.idle_us, idle_us);
        if std::mem::replace(&mut self.last_us, now_us) == 0 {
            return Vec::new();
        }
        let share = |(now, before): (&u64, u64)| {
            let idle = now.saturating_sub(before).min(passed);
            1.0 - idle as f64 / passed.max(1) as f64
        };
        let before = before.into_iter().chain(std::iter::repeat(0));
        self.idle_us.iter().zip(before).map(share).collect()
    }
}
