//! Why nothing could be archived.

use std::io;
use std::path::{Path, PathBuf};

use crate::audit::LaneId;
use crate::audit::checkpoint::CheckpointError;
use crate::audit::segment::SegmentError;
use crate::key_files::KeyError;
use crate::store::StoreError;
use crate::store::answers::EntryId;

/// Why nothing could be archived.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The system.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The list of segments.
    #[error("{}: line {line}: no entry of an archive's list", path.display())]
    Index {
        /// The list.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys that signed the checkpoints.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A checkpoint in Redis is not one.
    #[error("checkpoint {id} in Redis: {source}")]
    Checkpoint {
        /// Its id.
        id: EntryId,
        /// Why not.
        source: CheckpointError,
    },
    /// The trail in Redis is not what was signed.
    #[error("lane {lane}: from record {seq} on Redis does not hold what was signed; nothing is removed")]
    Damaged {
        /// The lane.
        lane: LaneId,
        /// The first record in question.
        seq: u64,
    },
    /// The folder.
    #[error("{}: {problem}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The segment that is being filled is not as it was left.
    #[error(
        "{}: is whole up to byte {good}, and {committed} bytes were archived; put back what was there, or move the folder away: \
         what it held is not in Redis any more",
        path.display()
    )]
    OpenSegment {
        /// The segment.
        path: PathBuf,
        /// Bytes that are whole.
        good: u64,
        /// Bytes that were written and listed.
        committed: u64,
    },
    /// A segment is not what it should be.
    #[error("{}: {source}", path.display())]
    Segment {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: SegmentError,
    },
    /// The file that was written reads back as something else.
    #[error("{}: reads back wrong: {source}", path.display())]
    ReadBack {
        /// The segment.
        path: PathBuf,
        /// Why.
        source: SegmentError,
    },
}

impl ArchiveError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
