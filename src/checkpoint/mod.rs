//! The checkpointer: a thread with a Redis connection of its own that signs where the lanes stand, every
//! `gateway.audit.checkpoint_interval_ms`, also when nothing happens, and at the stop. To the anchor
//! first, then to Redis.
//!
//! * [`key_files`]: the key that signs.
//! * [`anchor`]: the copy outside Redis.
//! * `sealer`: makes a checkpoint and writes it.
//! * `start`: what a start finds in Redis, against what the anchor says.

pub mod anchor;
pub mod key_files;
mod sealer;
mod start;
mod uplink;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::archive::{self, ArchiveError, Retention};
use crate::audit::LaneId;
use crate::audit::checkpoint::{Checkpoint, CheckpointError};
use crate::config;
use crate::shard::Shards;
use crate::store::StoreError;
use anchor::{Anchor, AnchorError};
use key_files::{KeyError, KeyFiles, Keys};
use sealer::Sealer;

/// Why a server cannot seal its trail, and does not start.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The key.
    #[error("gateway.audit.signing_key_path: {0}")]
    Key(#[from] KeyError),
    /// The anchor.
    #[error("gateway.audit.anchor_path: {0}")]
    Anchor(#[from] AnchorError),
    /// The anchor holds something else.
    #[error("gateway.audit.anchor_path: {path}: the newest line: {source}")]
    Foreign {
        /// The anchor.
        path: String,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// The archive.
    #[error("gateway.audit.archive_dir: {0}")]
    Archive(#[from] ArchiveError),
    /// Bringing checkpoints to Redis.
    #[error("checkpoints in Redis: {0}")]
    Uplink(String),
    /// Redis, which was there a moment ago.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gave no thread.
    #[error("the checkpointer's thread: {0}")]
    Thread(#[source] std::io::Error),
}

impl SealError {
    /// Whether the configuration, or a file that it names, must change first.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Key(_) | Self::Anchor(_) | Self::Foreign { .. } | Self::Archive(_) => true,
            Self::Store(_) | Self::Uplink(_) | Self::Thread(_) => false,
        }
    }
}

/// Key and anchor, opened and found to fit each other.
#[derive(Debug)]
pub struct Seal {
    files: KeyFiles,
    keys: Keys,
    anchor: Option<Anchor>,
    /// How far each lane was archived.
    archived: BTreeMap<LaneId, u64>,
    /// The anchor's newest checkpoint, with the hash of its text.
    newest: Option<(Checkpoint, [u8; 32])>,
}

impl Seal {
    /// Opens key and anchor; makes both on the first start.
    pub fn open(config: &config::Audit) -> Result<Self, SealError> {
        let files = KeyFiles::new(&config.signing_key_path);
        let lock = files.lock()?;
        let keys = files.load_or_create(&lock)?;
        let mut anchor = config.anchor_path.as_deref().map(Anchor::open).transpose()?;
        let archived = config.archive_dir.as_deref().map(archive::archived).transpose()?.unwrap_or_default();
        let last = anchor.as_mut().map(Anchor::last).transpose()?.flatten();
        let newest = last.map(|note| Checkpoint::open(&note, &keys.history)).transpose();
        drop(lock);
        let newest = newest.map_err(|source| SealError::Foreign {
            path: config.anchor_path.as_deref().unwrap_or(&config.signing_key_path).display().to_string(),
            source,
        })?;
        Ok(Self { files, keys, anchor, archived, newest })
    }
}

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
            log::error!("the checkpointer ended by a panic");
        }
    }
}
