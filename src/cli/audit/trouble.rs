//! Why a command has failed.

use std::path::PathBuf;

use crate::archive::ArchiveError;
use crate::audit::segment::SegmentError;
use crate::cli::exit::Exit;
use crate::cli::operator;
use crate::history::HistoryError;
use crate::store::StoreError;

/// Why a command has failed.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file that is no segment, or is damaged as a file.
    #[error("{path}: {source}", path = path.display())]
    Segment {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SegmentError,
    },
    /// The archive.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What an operator changes by hand.
    #[error(transparent)]
    Operator(#[from] operator::Trouble),
    /// Somebody else has changed it meanwhile.
    #[error("Redis has changed meanwhile; try again")]
    Conflict,
    /// A file or an argument that is not what it should be.
    #[error("{0}")]
    Usage(String),
    /// Nobody reads on: `mas audit tail | head`.
    #[error("the output is closed")]
    Output(#[source] std::io::Error),
}

impl Trouble {
    /// Standard output cannot be written.
    pub fn output(error: std::io::Error) -> Self {
        Self::Output(error)
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Store(_) | Self::File { .. } => Exit::Failed,
            Self::Segment { source: SegmentError::Expected { .. }, .. } => Exit::NotVerified,
            Self::Segment { source: SegmentError::Io { .. }, .. } => Exit::Failed,
            Self::Archive(
                ArchiveError::Segment { source: SegmentError::Expected { .. }, .. }
                | ArchiveError::Folder { .. }
                | ArchiveError::Index { .. },
            ) => Exit::NotVerified,
            // Not the system's failure: what is compressed is damaged.
            Self::Archive(ArchiveError::Segment { source: SegmentError::Io { source, .. }, .. })
                if source.raw_os_error().is_none() =>
            {
                Exit::NotVerified
            }
            Self::Archive(_) => Exit::Failed,
            Self::Operator(trouble) => trouble.exit(),
            Self::Conflict => Exit::Failed,
            Self::Usage(_) => Exit::Usage,
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Failed,
        }
    }
}

impl From<HistoryError> for Trouble {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Store(error) => Self::Store(error),
            HistoryError::Archive(error) => Self::Archive(error),
            HistoryError::Segment { path, source } => Self::Segment { path, source },
            HistoryError::File { path, source } => Self::File { path, source },
            HistoryError::Asked(why) => Self::Usage(why),
        }
    }
}
