//! The files of the key that signs checkpoints: the private key (`gateway.audit.signing_key_path`), its
//! history beside it (`{path}.pub`), and a lock (`{path}.lock`) that keeps rotation and signing apart, so that
//! no checkpoint carries a time at which its key was retired already.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::audit::KeyHistory;
use crate::audit::keys::HistoryError;
use crate::audit::note::{NoteError, SigningKey};

/// How often a lock that is held is tried again, and with which wait: one second in all.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_WAIT: Duration = Duration::from_millis(10);
/// Mode of what only the server may read.
const PRIVATE: u32 = 0o600;
/// Mode of what everybody may read.
const PUBLIC: u32 = 0o644;

/// Why there is no key to sign with.
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
}

/// A key and the history that it is the newest of.
#[derive(Debug)]
pub struct Keys {
    /// Signs.
    pub signing: SigningKey,
    /// Says who signed when.
    pub history: KeyHistory,
}

/// Where the files are.
#[derive(Debug, Clone)]
pub struct KeyFiles {
    private: PathBuf,
}

/// Held while a checkpoint is signed or a key replaced.
pub struct KeyLock {
    _lock: Flock<File>,
}

/// What tells one state of the history's file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
}

impl KeyFiles {
    /// The files of the private key at `private`.
    pub fn new(private: &Path) -> Self {
        Self { private: private.to_path_buf() }
    }

    /// The private key's file.
    pub fn private_path(&self) -> &Path {
        &self.private
    }

    /// The history's file.
    pub fn history_path(&self) -> PathBuf {
        self.beside(".pub")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.private.clone().into_os_string();
        name.push(suffix);
        name.into()
    }

    /// Makes the directory and takes the lock, for at most a second of waiting.
    pub fn lock(&self) -> Result<KeyLock, KeyError> {
        let folder = folder_of(&self.private);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(io_error("make the directory", folder))?;
        let path = self.beside(".lock");
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(&path)
            .map_err(io_error("open", &path))?;
        for _ in 0..LOCK_ATTEMPTS {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(KeyLock { _lock: lock }),
                Err((same, Errno::EWOULDBLOCK)) => file = same,
                Err((_, errno)) => return Err(io_error("lock", &path)(errno.into())),
            }
            std::thread::sleep(LOCK_WAIT);
        }
        Err(KeyError::Locked { path })
    }

    /// The key and its history; both are made where neither is there yet.
    pub fn load_or_create(&self, _lock: &KeyLock) -> Result<Keys, KeyError> {
        let history_path = self.history_path();
        let history = self.read_history()?;
        if let Some(history) = &history {
            self.finish_rotation(history)?;
        }
        let signing = match (self.read_private(&self.private)?, &history) {
            (Some(signing), _) => signing,
            (None, Some(_)) => {
                return Err(KeyError::Missing { path: self.private.clone(), history: history_path });
            }
            (None, None) => {
                let pem = SigningKey::generate_pem().map_err(|source| self.unusable(source))?;
                write_whole(&self.private, &pem, PRIVATE)?;
                SigningKey::from_pem(&pem).map_err(|source| self.unusable(source))?
            }
        };
        let history = match history {
            Some(history) => history,
            None => {
                let history = KeyHistory::new(&signing);
                write_whole(&history_path, &history.encode(), PUBLIC)?;
                history
            }
        };
        if history.newest().public() != signing.public() {
            return Err(KeyError::NotNewest { path: self.private.clone(), history: history_path });
        }
        Ok(Keys { signing, history })
    }

    /// Replaces the key. The new one is in force from `from_ms` (Unix milliseconds) on.
    pub fn rotate(&self, lock: &KeyLock, from_ms: u64) -> Result<Keys, KeyError> {
        let Keys { signing, mut history } = self.load_or_create(lock)?;
        let pem = SigningKey::generate_pem().map_err(|source| self.unusable(source))?;
        let next = SigningKey::from_pem(&pem).map_err(|source| self.unusable(source))?;
        history
            .rotate(&signing, &next, from_ms)
            .ok_or_else(|| KeyError::Refused { path: self.history_path() })?;
        // The history is what counts: a crash before it changes nothing, one after it is finished by whoever
        // comes next.
        let staged = self.beside(".next");
        write_whole(&staged, &pem, PRIVATE)?;
        write_whole(&self.history_path(), &history.encode(), PUBLIC)?;
        self.finish_rotation(&history)?;
        Ok(Keys { signing: next, history })
    }

    /// Moves a key into place that the history knows already.
    fn finish_rotation(&self, history: &KeyHistory) -> Result<(), KeyError> {
        let staged = self.beside(".next");
        match self.read_private(&staged)? {
            Some(next) if next.public() == history.newest().public() => {
                std::fs::rename(&staged, &self.private).map_err(io_error("replace", &self.private))?;
                sync_folder(&self.private)
            }
            // Left over from a rotation that did not happen; the next one replaces it.
            Some(_) | None => Ok(()),
        }
    }

    /// The history alone; `None` where there is none.
    pub fn read_history(&self) -> Result<Option<KeyHistory>, KeyError> {
        let path = self.history_path();
        let Some(text) = read(&path)? else {
            return Ok(None);
        };
        KeyHistory::parse(&text).map(Some).map_err(|source| KeyError::History { path, source })
    }

    /// Which state the history's file is in; `None` where there is none.
    pub fn stamp(&self) -> Option<Stamp> {
        let metadata = std::fs::metadata(self.history_path()).ok()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(Stamp { inode: metadata.ino(), modified, bytes: metadata.len() })
    }

    fn read_private(&self, path: &Path) -> Result<Option<SigningKey>, KeyError> {
        let Some(text) = read(path)? else {
            return Ok(None);
        };
        let metadata = std::fs::metadata(path).map_err(io_error("read", path))?;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { path: path.to_path_buf(), mode });
        }
        let key = SigningKey::from_pem(&text);
        key.map(Some).map_err(|source| KeyError::Private { path: path.to_path_buf(), source })
    }

    fn unusable(&self, source: NoteError) -> KeyError {
        KeyError::Private { path: self.private.clone(), source }
    }
}

fn read(path: &Path) -> Result<Option<String>, KeyError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Replaces a file whole; it is on disk when this returns.
fn write_whole(path: &Path, text: &str, mode: u32) -> Result<(), KeyError> {
    let mut name = path.to_path_buf().into_os_string();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    // Left over from a crash; the lock keeps others from writing it now.
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &temporary)(error));
        }
        _ => {}
    }
    // The mode is given when the file is made: nobody can open it in between.
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(io_error("write", path))?;
    sync_folder(path)
}

/// Without this a new name may be lost in a crash.
fn sync_folder(path: &Path) -> Result<(), KeyError> {
    let folder = folder_of(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError + use<> {
    let path = path.to_path_buf();
    move |source| KeyError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, KeyFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = KeyFiles::new(&dir.path().join("keys/audit.ed25519"));
        (dir, files)
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_a_key_that_nobody_else_reads() {
        let (dir, files) = files();
        let lock = files.lock().unwrap();
        let keys = files.load_or_create(&lock).unwrap();
        assert_eq!(mode(&files.private), 0o600);
        assert_eq!(mode(&dir.path().join("keys")), 0o700);
        assert_eq!(files.read_history().unwrap().unwrap(), keys.history);
        let again = files.load_or_create(&lock).unwrap();
        assert_eq!(again.signing.public(), keys.signing.public());
    }

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let (_dir, files) = files();
        let lock = files.lock().unwrap();
        drop(files.load_or_create(&lock).unwrap());
        for bad in [0o640, 0o604, 0o620] {
            std::fs::set_permissions(&files.private, PermissionsExt::from_mode(bad)).unwrap();
            assert!(matches!(files.load_or_create(&lock), Err(KeyError::Exposed { .. })), "{bad:o}");
        }
    }

    #[test]
    fn a_rotation_is_whole_or_not_at_all() {
        let (_dir, files) = files();
        let lock = files.lock().unwrap();
        let first = files.load_or_create(&lock).unwrap();
        let second = files.rotate(&lock, 1000).unwrap();
        assert_ne!(first.signing.public(), second.signing.public());
        assert_eq!(files.load_or_create(&lock).unwrap().history, second.history);
        assert!(matches!(files.rotate(&lock, 1000), Err(KeyError::Refused { .. })));

        // Stopped behind the history: the key is found beside it.
        let third = files.rotate(&lock, 2000).unwrap();
        std::fs::rename(&files.private, files.beside(".next")).unwrap();
        assert_eq!(files.load_or_create(&lock).unwrap().signing.public(), third.signing.public());

        // Stopped before the history: what was staged is of no account.
        std::fs::write(files.beside(".next"), SigningKey::generate_pem().unwrap()).unwrap();
        std::fs::set_permissions(files.beside(".next"), PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!(files.load_or_create(&lock).unwrap().signing.public(), third.signing.public());
    }

    #[test]
    fn a_history_without_its_key_and_another_key_are_refused() {
        let (_dir, files) = files();
        let lock = files.lock().unwrap();
        drop(files.load_or_create(&lock).unwrap());
        std::fs::remove_file(&files.private).unwrap();
        assert!(matches!(files.load_or_create(&lock), Err(KeyError::Missing { .. })));
        write_whole(&files.private, &SigningKey::generate_pem().unwrap(), PRIVATE).unwrap();
        assert!(matches!(files.load_or_create(&lock), Err(KeyError::NotNewest { .. })));
    }

    #[test]
    fn one_holds_the_lock() {
        let (_dir, files) = files();
        let lock = files.lock().unwrap();
        assert!(matches!(files.lock(), Err(KeyError::Locked { .. })));
        drop(lock);
        assert!(files.lock().is_ok());
    }
}
