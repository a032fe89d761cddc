//! The section `gateway.audit`: what is kept of the trail, where, and who vouches for it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::range::{Problem, within};

/// Shortest and longest time between two checkpoints, in milliseconds.
const CHECKPOINT_INTERVAL_MS: (u64, u64) = (50, 3_600_000);
/// Smallest and largest file of the copy, in bytes.
const FILE_BYTES: (u64, u64) = (4 * 1024, 1024 * 1024 * 1024 * 1024);
/// Most older files of the copy.
const MAX_BACKUPS: u32 = 1000;

/// The audit trail beside Redis (`gateway.audit`). Paths are absolute or relative to the working
/// directory in a [`super::Config`], and as written in the document before.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// A copy of the records as JSON lines; `None`: no copy.
    pub file_path: Option<PathBuf>,
    /// Size at which the copy is continued in a new file, in bytes.
    pub max_bytes: u64,
    /// Older files of the copy that are kept.
    pub backup_count: u32,
    /// The Ed25519 key that signs checkpoints; made on the first start.
    pub signing_key_path: PathBuf,
    /// The keys whose tags are on everything that servers store in Redis; made on the first start, the same for all
    /// servers on one Redis.
    pub store_key_path: PathBuf,
    /// Time between two checkpoints, in milliseconds.
    pub checkpoint_interval_ms: u64,
    /// An append-only copy of the signed checkpoints outside Redis; `None`: no copy.
    pub anchor_path: Option<PathBuf>,
    /// Where sealed segments beyond `max_records` go; `None`: nothing leaves Redis.
    pub archive_dir: Option<PathBuf>,
    /// Records that Redis may hold; 0: no bound. With an `archive_dir` whole sealed segments beyond it are
    /// archived; without one nothing more is admitted when it is reached.
    pub max_records: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self {
            file_path: None,
            max_bytes: 10 * 1024 * 1024,
            backup_count: 5,
            signing_key_path: PathBuf::from("keys/audit.ed25519"),
            store_key_path: PathBuf::from("keys/store.key"),
            checkpoint_interval_ms: 1000,
            anchor_path: Some(PathBuf::from("audit-anchor.jsonl")),
            archive_dir: None,
            max_records: 0,
        }
    }
}

impl Audit {
    pub(super) fn check(&self) -> Result<(), Problem> {
        let (low, high) = FILE_BYTES;
        within("max_bytes", self.max_bytes, low, high)?;
        within("backup_count", self.backup_count, 0, MAX_BACKUPS)?;
        let (low, high) = CHECKPOINT_INTERVAL_MS;
        within("checkpoint_interval_ms", self.checkpoint_interval_ms, low, high)?;
        let paths = [
            ("file_path", self.file_path.as_deref()),
            ("signing_key_path", Some(self.signing_key_path.as_path())),
            ("store_key_path", Some(self.store_key_path.as_path())),
            ("anchor_path", self.anchor_path.as_deref()),
            ("archive_dir", self.archive_dir.as_deref()),
        ];
        for (place, (key, path)) in paths.iter().enumerate() {
            let Some(path) = path else { continue };
            if path.as_os_str().is_empty() {
                return Err((key, "is empty; expected a path".to_owned()));
            }
            // One would overwrite the other.
            if let Some((other, _)) = paths.iter().take(place).find(|(_, other)| *other == Some(*path)) {
                return Err((key, format!("is the same as {other}; expected a path of its own")));
            }
        }
        Ok(())
    }

    /// With the paths resolved by `absolute`.
    pub(super) fn resolved(self, absolute: impl Fn(&Path) -> PathBuf) -> Self {
        Self {
            file_path: self.file_path.map(|path| absolute(&path)),
            signing_key_path: absolute(&self.signing_key_path),
            store_key_path: absolute(&self.store_key_path),
            anchor_path: self.anchor_path.map(|path| absolute(&path)),
            archive_dir: self.archive_dir.map(|path| absolute(&path)),
            ..self
        }
    }
}
