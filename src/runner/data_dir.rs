//! The directory of a managed Redis: private, used by one runner at a time, with a log to quote from.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::RunnerError;

const LOCK_FILE: &str = "mas.lock";
/// How much of its log an error shows.
const LOG_TAIL_BYTES: u64 = 2048;
const LOG_TAIL_LINES: usize = 3;

/// An error about `path`.
pub(super) fn file_error(path: &Path, action: &'static str) -> impl Fn(std::io::Error) -> RunnerError {
    let path = path.to_path_buf();
    move |source| RunnerError::File { path: path.clone(), action, source }
}

/// The directory exists and is closed to other users: messages are in its files.
pub(super) fn prepare(data_dir: &Path) -> Result<(), RunnerError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(file_error(data_dir, "cannot be created"))?;
    let unreadable = file_error(data_dir, "cannot be read");
    let metadata = std::fs::metadata(data_dir).map_err(&unreadable)?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    // One with other files in it may be shared on purpose: only its owner can decide to close it.
    if std::fs::read_dir(data_dir).map_err(unreadable)?.next().is_some() {
        return Err(RunnerError::Redis {
            data_dir: data_dir.to_path_buf(),
            problem: format!("the directory is open to other users (mode {mode:o}); expected 700"),
        });
    }
    std::fs::set_permissions(data_dir, Permissions::from_mode(0o700))
        .map_err(file_error(data_dir, "cannot be closed to other users"))
}

/// Keeps other runners out for as long as the lock lives; the system releases it if this process dies.
pub(super) fn lock(data_dir: &Path) -> Result<Flock<File>, RunnerError> {
    lock_named(data_dir, LOCK_FILE)
}

/// The same by another file of the directory.
pub(super) fn lock_named(data_dir: &Path, name: &str) -> Result<Flock<File>, RunnerError> {
    let path = data_dir.join(name);
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(file_error(&path, "cannot be opened"))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => RunnerError::DataDirInUse { data_dir: data_dir.to_path_buf() },
        _ => file_error(&path, "cannot be locked")(errno.into()),
    })
}

/// The end of what has been logged behind byte `start`.
pub(super) fn log_tail(path: &Path, start: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
        let mut tail = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(tail)
    };
    match read() {
        Ok(tail) if !tail.is_empty() => last_lines(&String::from_utf8_lossy(&tail)),
        Ok(_) => "it logged nothing".to_owned(),
        Err(error) => format!("its log {} cannot be read: {error}", path.display()),
    }
}

fn last_lines(text: &str) -> String {
    let mut lines: Vec<_> = text.trim_end().lines().rev().take(LOG_TAIL_LINES).collect();
    lines.reverse();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_others_can_read_is_closed_or_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("redis");
        std::fs::create_dir(&data_dir).unwrap();
        std::fs::set_permissions(&data_dir, Permissions::from_mode(0o755)).unwrap();
        std::fs::write(data_dir.join("other"), "").unwrap();
        let error = prepare(&data_dir).unwrap_err();
        assert!(error.to_string().contains("mode 755"), "{error}");

        std::fs::remove_file(data_dir.join("other")).unwrap();
        prepare(&data_dir).unwrap();
        let mode = std::fs::metadata(&data_dir).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn only_the_last_lines_are_shown() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        std::fs::write(&log, "old\none\ntwo\nthree\nfour\n").unwrap();
        assert_eq!(log_tail(&log, 4), "two\nthree\nfour");
        assert_eq!(log_tail(&log, 18), "four");
        assert_eq!(log_tail(&log, 23), "it logged nothing");
    }
}
