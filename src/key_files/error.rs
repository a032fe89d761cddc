//! Why there is no key.

use std::io;
use std::path::PathBuf;

use crate::audit::keys::HistoryError;
use crate::audit::note::NoteError;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
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
    /// Others may read the private key.
    #[error("{}: others may read or write it (mode {mode:o}); expected 600", path.display())]
    Exposed {
        /// The private key.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// The private key's content.
    #[error("{}: {source}", path.display())]
    Private {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: NoteError,
    },
    /// The history's content.
    #[error("{}: {source}", path.display())]
    History {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: HistoryError,
    },
    /// The history goes on without its key.
    #[error(
        "{}: is missing, and its history {} is there; restore it, or move the history and the anchor away to begin a new log",
        path.display(), history.display()
    )]
    Missing {
        /// The private key.
        path: PathBuf,
        /// The history.
        history: PathBuf,
    },
    /// The key is not the newest of its history.
    #[error("{}: is not the newest key of {}", path.display(), history.display())]
    NotNewest {
        /// The private key.
        path: PathBuf,
        /// The history.
        history: PathBuf,
    },
    /// The files were exchanged for those of another log.
    #[error("{}: belongs to another log than when the server started", path.display())]
    OtherLog {
        /// The history.
        path: PathBuf,
    },
    /// Another process holds the lock.
    #[error("{}: another process has held this lock for a second", path.display())]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// The history takes no further key.
    #[error("{}: takes no further key: the time is not after the last rotation's, or the history is full", path.display())]
    Refused {
        /// The history.
        path: PathBuf,
    },
    /// The content of the file of store keys.
    #[error("{}: {problem}", path.display())]
    StoreKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The system gives no random bytes.
    #[error("{}: the system gives no random bytes", path.display())]
    NoRandom {
        /// The file that they were for.
        path: PathBuf,
    },
}
