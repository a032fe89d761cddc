//! Key and anchor, opened before the server starts.

use std::collections::BTreeMap;

use super::anchor::{Anchor, AnchorError};
use crate::archive::{self, ArchiveError};
use crate::audit::LaneId;
use crate::audit::checkpoint::{Checkpoint, CheckpointError};
use crate::config;
use crate::key_files::{KeyError, KeyFiles, Keys};
use crate::store::StoreError;

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
    /// There is no log here that could be gone on with.
    #[error("there is no log here that a command could go on with")]
    NoLog,
    /// A field of the checkpoint cannot stand in a note.
    #[error("a field of the checkpoint cannot stand in a note")]
    Unsignable,
    /// The system gave no thread.
    #[error("the checkpointer's thread: {0}")]
    Thread(#[source] std::io::Error),
}

impl SealError {
    /// Whether the configuration, or a file that it names, must change first.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Key(_) | Self::Anchor(_) | Self::Foreign { .. } | Self::Archive(_) => true,
            Self::NoLog | Self::Store(_) | Self::Uplink(_) | Self::Unsignable | Self::Thread(_) => false,
        }
    }
}

/// Key and anchor, opened and found to fit each other.
#[derive(Debug)]
pub struct Seal {
    pub(super) files: KeyFiles,
    pub(super) keys: Keys,
    pub(super) anchor: Option<Anchor>,
    /// How far each lane was archived.
    pub(super) archived: BTreeMap<LaneId, u64>,
    /// The anchor's newest checkpoint, with the hash of its text.
    pub(super) newest: Option<(Checkpoint, [u8; 32])>,
}

impl Seal {
    /// Opens key and anchor; makes both on the first start.
    pub fn open(config: &config::Audit) -> Result<Self, SealError> {
        let files = KeyFiles::new(&config.signing_key_path);
        let lock = files.lock()?;
        let keys = files.load_or_create(&lock)?;
        let mut anchor = config.anchor_path.as_deref().map(Anchor::open).transpose()?;
        let archived = config.archive().map(archive::archived).transpose()?.unwrap_or_default();
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
