//! What can go wrong when processes are started and kept running.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::ids::AgentId;

/// An error of the runner; the message names the program, path or process it is about, and the cause.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// An agent's entry in the configuration cannot be run.
    #[error("agent {agent}: {problem}")]
    Agent {
        /// The agent.
        agent: AgentId,
        /// What is wrong with the entry.
        problem: String,
    },
    /// A program could not be executed.
    #[error("{label}: {program} cannot be started: {source}", program = .program.display())]
    Spawn {
        /// The process that was to run it.
        label: String,
        /// The program.
        program: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A thread that watches or forwards could not be started.
    #[error("{label}: a thread cannot be started: {source}")]
    Thread {
        /// What it was for.
        label: String,
        /// What the system said.
        source: io::Error,
    },
    /// A process ended before it announced that it is ready.
    #[error("{label} ended before it was ready ({status}); its output says why")]
    EndedEarly {
        /// The process.
        label: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// A process did not announce that it is ready.
    #[error("{label} was not ready within {timeout:?}")]
    NotReady {
        /// The process.
        label: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The first line of a process is not the announcement that was expected.
    #[error("{label} did not announce itself as expected: {problem}")]
    Announcement {
        /// The process.
        label: String,
        /// What was wrong.
        problem: String,
    },
    /// The program of a managed Redis is not there.
    #[error(
        "redis-server cannot be found; install the Debian package `redis-server`, \
         or set gateway.redis.url to a Redis that runs already"
    )]
    NoRedisServer {
        /// What the system said.
        source: io::Error,
    },
    /// A managed Redis ended while it was starting.
    #[error("redis-server on {data_dir} ended while starting ({status}): {log}", data_dir = .data_dir.display())]
    RedisEnded {
        /// Its data directory.
        data_dir: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A managed Redis does not answer, or not as it should.
    #[error("redis-server on {data_dir}: {problem}", data_dir = .data_dir.display())]
    Redis {
        /// Its data directory.
        data_dir: PathBuf,
        /// What it did.
        problem: String,
    },
    /// Another runner uses the data directory.
    #[error("{data_dir} is in use by another `mas` that is still running", data_dir = .data_dir.display())]
    DataDirInUse {
        /// The directory.
        data_dir: PathBuf,
    },
    /// A file or directory cannot be used.
    #[error("{path}: {action}: {source}", path = .path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What failed, as in "cannot be created".
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// Signals cannot be received.
    #[error("signals cannot be received: {source}")]
    Signals {
        /// What the system said.
        source: io::Error,
    },
    /// Stopped on request before everything had been started.
    #[error("stopped before everything was started")]
    Stopped,
}

impl RunnerError {
    /// Whether the configuration or the installation must change before another try can succeed.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Agent { .. } | Self::NoRedisServer { .. } => true,
            // A missing or non-executable program, as opposed to exhausted processes or memory.
            Self::Spawn { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
            ),
            _ => false,
        }
    }
}
