//! Why a certificate could not be made, read or revoked.

use std::io;
use std::path::{Path, PathBuf};

use time::OffsetDateTime;

/// Longest validity that can be asked for, in days.
pub const MAX_DAYS: u32 = 36_500;

/// Why a certificate could not be made, read or revoked.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// What it was tried on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is a CA, or a part of one, where a new one should go.
    #[error("{path} exists: a CA is never overwritten")]
    CaExists {
        /// The file that is in the way.
        path: PathBuf,
    },
    /// A file does not hold what it should.
    #[error("{path}: {problem}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A host name or address that cannot go into the server's certificate.
    #[error("{name:?} is neither a DNS name nor an IP address")]
    HostName {
        /// The name as given.
        name: String,
    },
    /// A name that no operator can have.
    #[error("{name:?} is no operator's name; expected 1 to 128 letters, digits, '-', '_' or '.'")]
    Operator {
        /// The name as given.
        name: String,
    },
    /// The server's certificate would name no host.
    #[error("a server certificate needs at least one host name or IP address")]
    NoHostName,
    /// A validity that ends before it starts, or lies outside the years 1950 to 9999.
    #[error("a certificate cannot be valid from {not_before} to {not_after}")]
    Validity {
        /// Start of the validity.
        not_before: OffsetDateTime,
        /// End of the validity.
        not_after: OffsetDateTime,
    },
    /// A number of days that is zero or more than [`MAX_DAYS`].
    #[error("a certificate cannot be valid for {days} days: expected 1 to {MAX_DAYS}")]
    Days {
        /// The number as given.
        days: u32,
    },
    /// Generating the key or signing failed.
    #[error("cannot issue the certificate of {subject}: {source}")]
    Issue {
        /// Whose certificate it would have been.
        subject: String,
        /// What the certificate library said.
        source: rcgen::Error,
    },
}

pub(super) fn unusable(path: &Path, problem: impl ToString) -> CertsError {
    CertsError::Unusable { path: path.to_path_buf(), problem: problem.to_string() }
}
