//! The checkpointer: a thread with a Redis connection of its own that signs where the lanes stand, every
//! `gateway.audit.checkpoint_interval_ms`, when nothing happens once in 60 of them, and at the stop. To the anchor
//! first, then to Redis.
//!
//! * `alone`: a checkpoint of an operator's command, when no server runs.
//! * [`anchor`]: the copy outside Redis.
//! * `hands`: the lanes of operators' commands, which the next checkpoint covers.
//! * `seal`: key and anchor, opened.
//! * `sealer`: makes a checkpoint and writes it.
//! * `start`: what a start finds in Redis, against what the anchor says.

mod alone;
pub mod anchor;
mod hands;
mod seal;
mod sealer;
mod start;
mod uplink;

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::archive::Retention;
use crate::config;
use crate::shard::Shards;
pub use alone::seal_alone;
pub use seal::{Seal, SealError};
pub use sealer::IDLE_INTERVALS;
use sealer::Sealer;

enum Order {
    /// Now, and not only when it is time.
    Now,
    /// Once more, then end.
    Stop,
}

/// The running checkpointer.
pub struct Checkpointer {
    orders: Sender<Order>,
    /// Ends before the thread, which covers its last record.
    retention: Option<Retention>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    /// Compares Redis with the anchor, writes the boot's first checkpoint, over every lane that Redis holds,
    /// and goes on in a thread. A Redis that holds less than the anchor says is recorded, and served.
    pub fn start(seal: Seal, config: &config::Audit, shards: Arc<Shards>) -> Result<Self, SealError> {
        let mut sealer = Sealer::new(seal, config, shards.clone())?;
        sealer.checkpoint();
        let retention = Retention::start(config, shards).map_err(SealError::Thread)?;
        let interval = Duration::from_millis(config.checkpoint_interval_ms);
        let (orders, received) = channel();
        let run = move || {
            let mut due = Instant::now() + interval;
            loop {
                let order = received.recv_timeout(due.saturating_duration_since(Instant::now()));
                sealer.checkpoint();
                if matches!(order, Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected)) {
                    sealer.close();
                    return;
                }
                // What is late is not made up for.
                due = (due + interval).max(Instant::now());
            }
        };
        let thread = std::thread::Builder::new().name("checkpointer".to_owned()).spawn(run);
        Ok(Self { orders, retention, thread: Some(thread.map_err(SealError::Thread)?) })
    }

    /// Writes a checkpoint now; a key that was replaced is taken up with it.
    pub fn now(&self) {
        // A thread that is gone has said so by its panic, which ends the process.
        let _ = self.orders.send(Order::Now);
    }

    /// Archives nothing more; before the workers stop, so that they can record what was archived.
    pub fn stop_archiving(&mut self) {
        drop(self.retention.take());
    }

    /// Writes the last checkpoint. The workers must have stopped.
    pub fn stop(mut self) {
        self.stop_archiving();
        let _ = self.orders.send(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(
                code = "thread_panicked", part = "checkpoint";
                "the checkpointer ended by a panic"
            );
        }
    }
}
