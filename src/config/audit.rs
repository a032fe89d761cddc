//! The section `gateway.audit`: what is kept of the trail, where, and who vouches for it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::range::{Problem, within};

/// Shortest and longest time between two checkpoints, in milliseconds.
const CHECKPOINT_INTERVAL_MS: (u64, u64) = (50, 3_600_000);
/// Smallest and largest file of the copy and of the anchor, in bytes.
const FILE_BYTES: (u64, u64) = (4 * 1024, 1024 * 1024 * 1024 * 1024);
/// Records that Redis is to hold at most, where they are archived and nothing else is said: some 30 MB.
const MAX_RECORDS: u64 = 250_000;
/// Most further logs.
const MAX_LOGS: usize = 64;
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
    /// Size at which the anchor is continued in a new file, in bytes.
    pub anchor_max_bytes: u64,
    /// Whether what is sealed leaves Redis for files.
    archive: Archive,
    /// Where these are; `None`: nothing leaves Redis.
    archive_dir: Option<PathBuf>,
    /// Records that Redis is to hold at most; 0: no bound.
    max_records: Option<u64>,
    /// Dead letters that Redis is to hold at most, where there is an archive to move the oldest to; 0: no bound but that of their
    /// bytes.
    pub max_dead_letters: u64,
    /// Further logs that commands trust.
    pub logs: Vec<TrustedLog>,
}

/// Another log of the same Redis, whose checkpoints are trusted (`gateway.audit.logs`): that of servers with a signing key of
/// their own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustedLog {
    /// Its public key, with its history.
    pub public_key_path: PathBuf,
    /// A copy of its anchor.
    #[serde(default)]
    pub anchor_path: Option<PathBuf>,
    /// A copy of its archive.
    #[serde(default)]
    pub archive_dir: Option<PathBuf>,
}

impl TrustedLog {
    fn resolved(self, absolute: &impl Fn(&Path) -> PathBuf) -> Self {
        Self {
            public_key_path: absolute(&self.public_key_path),
            anchor_path: self.anchor_path.map(|path| absolute(&path)),
            archive_dir: self.archive_dir.map(|path| absolute(&path)),
        }
    }
}

/// `gateway.audit.archive`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Archive {
    On,
    Off,
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
            anchor_max_bytes: 64 * 1024 * 1024,
            archive: Archive::On,
            archive_dir: Some(PathBuf::from("audit-archive")),
            max_records: None,
            max_dead_letters: 100_000,
            logs: Vec::new(),
        }
    }
}

impl Audit {
    /// Where what is sealed goes, beyond `max_records`; `None`: nothing leaves Redis.
    pub fn archive(&self) -> Option<&Path> {
        self.archive_dir.as_deref().filter(|_| self.archive == Archive::On)
    }

    /// The archives that commands read: this host's, and the copies of others.
    pub fn archive_folders(&self) -> Vec<PathBuf> {
        let own = self.archive().map(Path::to_path_buf);
        own.into_iter().chain(self.logs.iter().filter_map(|log| log.archive_dir.clone())).collect()
    }

    /// The folders on whose disks it is written, each with the key that names it.
    pub fn places(&self) -> Vec<(&'static str, PathBuf)> {
        let archive = self.archive().map(|dir| ("gateway.audit.archive_dir", dir.to_path_buf()));
        let files =
            [("gateway.audit.anchor_path", &self.anchor_path), ("gateway.audit.file_path", &self.file_path)];
        let folders =
            files.into_iter().filter_map(|(key, path)| Some((key, path.as_deref()?.parent()?.to_path_buf())));
        archive.into_iter().chain(folders).collect()
    }

    /// Records that Redis is to hold at most; 0: no bound. Beyond it what is sealed is archived; where nothing is, nothing more
    /// is admitted when it is reached.
    pub fn max_records(&self) -> u64 {
        self.max_records.unwrap_or(if self.archive().is_some() { MAX_RECORDS } else { 0 })
    }

    /// What an operator is told at start.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.archive().is_none() {
            warnings.push(match self.max_records() {
                0 => "gateway.audit.archive: off: the trail stays in Redis' memory and grows without a bound".to_owned(),
                most => format!(
                    "gateway.audit.archive: off: the trail stays in Redis' memory, and nothing is admitted once it has {most} \
                     records (gateway.audit.max_records)"
                ),
            });
        } else if self.max_records() == 0 {
            warnings.push(
                "gateway.audit.max_records: 0: the trail leaves Redis' memory only after 100000 checkpoints"
                    .to_owned(),
            );
        }
        warnings
    }

    pub(super) fn check(&self) -> Result<(), Problem> {
        let (low, high) = FILE_BYTES;
        within("max_bytes", self.max_bytes, low, high)?;
        within("anchor_max_bytes", self.anchor_max_bytes, low, high)?;
        within("backup_count", self.backup_count, 0, MAX_BACKUPS)?;
        let (low, high) = CHECKPOINT_INTERVAL_MS;
        within("checkpoint_interval_ms", self.checkpoint_interval_ms, low, high)?;
        if self.logs.len() > MAX_LOGS {
            return Err(("logs", format!("has {} logs; expected at most {MAX_LOGS}", self.logs.len())));
        }
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
            max_records: Some(self.max_records()),
            file_path: self.file_path.map(|path| absolute(&path)),
            signing_key_path: absolute(&self.signing_key_path),
            store_key_path: absolute(&self.store_key_path),
            anchor_path: self.anchor_path.map(|path| absolute(&path)),
            archive_dir: self.archive_dir.map(|path| absolute(&path)),
            logs: self.logs.into_iter().map(|log| log.resolved(&absolute)).collect(),
            ..self
        }
    }
}
