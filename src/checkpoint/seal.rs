//! Key and anchor, opened before the server starts.

use std::collections::BTreeMap;

use super::anchor::{Anchor, AnchorError};
use crate::archive::{self, ArchiveError};
use crate::audit::KeyHistory;
use crate::audit::LaneId;
use crate::audit::checkpoint::{Checkpoint, CheckpointError};
use crate::config::{self, TrustedLog};
use crate::files::{self, MAX_MATERIAL_BYTES};
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
    /// The newest checkpoints of the anchors of `gateway.audit.logs`, as far as they could be read.
    pub(super) others: Vec<Checkpoint>,
}

impl Seal {
    /// Opens key and anchor; makes both on the first start.
    pub fn open(config: &config::Audit) -> Result<Self, SealError> {
        let files = KeyFiles::new(&config.signing_key_path);
        let lock = files.lock()?;
        let keys = files.load_or_create(&lock)?;
        let mut anchor = config.anchor_path.as_deref().map(Anchor::open).transpose()?;
        let mut archived = config.archive().map(archive::archived).transpose()?.unwrap_or_default();
        for dir in config.logs.iter().filter_map(|log| log.archive_dir.as_deref()) {
            match archive::archived(dir) {
                Ok(lanes) => lanes.into_iter().for_each(|(lane, last)| {
                    let known = archived.entry(lane).or_default();
                    *known = last.max(*known);
                }),
                Err(error) => log::warn!(code = "other_log_unread"; "gateway.audit.logs: {error}"),
            }
        }
        let last = anchor.as_mut().map(Anchor::last).transpose()?.flatten();
        let newest = last.map(|note| Checkpoint::open(&note, &keys.history)).transpose();
        drop(lock);
        let newest = newest.map_err(|source| SealError::Foreign {
            path: config.anchor_path.as_deref().unwrap_or(&config.signing_key_path).display().to_string(),
            source,
        })?;
        let others = config.logs.iter().filter_map(newest_of).collect();
        Ok(Self { files, keys, anchor, archived, newest, others })
    }
}

/// The newest checkpoint in a copy of another log's anchor. It is no reason not to start that there is none.
fn newest_of(log: &TrustedLog) -> Option<Checkpoint> {
    let path = log.anchor_path.as_deref()?;
    let read = || -> Result<Option<Checkpoint>, String> {
        let text = files::read_text(&log.public_key_path, MAX_MATERIAL_BYTES)
            .map_err(|error| format!("{}: {error}", log.public_key_path.display()))?;
        let history = KeyHistory::parse(&text)
            .map_err(|error| format!("{}: {error}", log.public_key_path.display()))?;
        let anchor = Anchor::open_read_only(path).map_err(|error| error.to_string())?;
        let note = anchor.map(|mut anchor| anchor.last()).transpose().map_err(|error| error.to_string())?;
        let opened = note.flatten().map(|note| Checkpoint::open(&note, &history)).transpose();
        opened.map(|opened| opened.map(|(checkpoint, _)| checkpoint)).map_err(|error| error.to_string())
    };
    match read() {
        Ok(None) => {
            log::warn!(
                code = "other_log_unread", path:% = path.display();
                "gateway.audit.logs: {}: has no checkpoint", path.display()
            );
            None
        }
        Ok(newest) => newest,
        Err(error) => {
            log::warn!(
                code = "other_log_unread", path:% = path.display();
                "gateway.audit.logs: {}: not compared with Redis: {error}", path.display()
            );
            None
        }
    }
}
