//! Why a trail cannot be read.

use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::audit::segment::SegmentError;
use crate::store::StoreError;

/// Why a trail cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file that is no segment, or is damaged as a file.
    #[error("{path}: {source}", path = path.display())]
    Segment {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SegmentError,
    },
    /// A file that cannot be read.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was asked for cannot be.
    #[error("{0}")]
    Asked(String),
}

/// What a reader's own error must be able to hold.
pub trait ReadError: From<HistoryError> + From<StoreError> + From<ArchiveError> {}

impl<E: From<HistoryError> + From<StoreError> + From<ArchiveError>> ReadError for E {}
