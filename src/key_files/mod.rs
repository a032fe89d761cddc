//! The files of keys. Here: the key that signs checkpoints (`gateway.audit.signing_key_path`), its history beside it
//! (`{path}.pub`), and a lock (`{path}.lock`) that keeps rotation and signing apart, so that no checkpoint carries a time
//! at which its key was retired already.
//!
//! * [`store`]: the keys whose tags are on everything that servers store in Redis.
//! * `files`: files that are replaced whole, locks, modes.

mod error;
mod files;
pub mod store;

use std::path::{Path, PathBuf};

use crate::audit::KeyHistory;
use crate::audit::note::{NoteError, SigningKey};
pub use error::KeyError;
pub use files::{KeyLock, Stamp};
use files::{PRIVATE, PUBLIC, beside, io_error, lock, read, read_private, sync_folder, write_whole};
pub use store::{StoreKeyFile, host_name};

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
        beside(&self.private, suffix)
    }

    /// Makes the directory and takes the lock, for at most a second of waiting.
    pub fn lock(&self) -> Result<KeyLock, KeyError> {
        lock(&self.private)
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
        Stamp::of(&self.history_path())
    }

    fn read_private(&self, path: &Path) -> Result<Option<SigningKey>, KeyError> {
        let Some(text) = read_private(path)? else {
            return Ok(None);
        };
        let key = SigningKey::from_pem(&text);
        key.map(Some).map_err(|source| KeyError::Private { path: path.to_path_buf(), source })
    }

    fn unusable(&self, source: NoteError) -> KeyError {
        KeyError::Private { path: self.private.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
        assert_eq!(mode(&dir.path().join("keys")), 0o711);
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
