//! Files of keys: replaced whole, read only where nobody else may read them, locked while they change.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::KeyError;

/// How often a lock that is held is tried again, and with which wait: one second in all.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_WAIT: Duration = Duration::from_millis(10);
/// Mode of what only the server may read.
pub(super) const PRIVATE: u32 = 0o600;
/// Mode of what everybody may read.
pub(super) const PUBLIC: u32 = 0o644;

/// Mode of a folder of keys: whoever knows a file's name may open it, as far as the file's own mode lets him.
const FOLDER: u32 = 0o711;

/// Held while a checkpoint is signed or a key replaced.
pub struct KeyLock {
    _lock: Flock<File>,
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    modified: (i64, i64),
    bytes: u64,
}

impl Stamp {
    /// That of a file; `None` where there is none.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        Some(Self { inode: metadata.ino(), modified, bytes: metadata.len() })
    }
}

/// The path with something behind its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.to_path_buf().into_os_string();
    name.push(suffix);
    name.into()
}

/// Makes the directory of a key and takes the lock beside it, for at most a second of waiting.
pub(super) fn lock(key: &Path) -> Result<KeyLock, KeyError> {
    let folder = folder_of(key);
    DirBuilder::new()
        .recursive(true)
        .mode(FOLDER)
        .create(folder)
        .map_err(io_error("make the directory", folder))?;
    let path = beside(key, ".lock");
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

/// Reads what nobody else may read; `None` where there is no such file.
pub(super) fn read_private(path: &Path) -> Result<Option<String>, KeyError> {
    let Some(text) = read(path)? else {
        return Ok(None);
    };
    let metadata = std::fs::metadata(path).map_err(io_error("read", path))?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_path_buf(), mode });
    }
    Ok(Some(text))
}

pub(super) fn read(path: &Path) -> Result<Option<String>, KeyError> {
    match crate::files::read_text(path, crate::files::MAX_MATERIAL_BYTES) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// Replaces a file whole; it is on disk when this returns.
pub(super) fn write_whole(path: &Path, text: &str, mode: u32) -> Result<(), KeyError> {
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
    // A command of root's leaves the server its files.
    let owner = std::fs::metadata(path).or_else(|_| std::fs::metadata(folder_of(path)));
    let owner = owner.ok().map(|owner| (owner.uid(), owner.gid()));
    let give = |file: &File| match owner {
        Some((uid, gid)) if file.metadata()?.uid() != uid => {
            std::os::unix::fs::fchown(file, Some(uid), Some(gid))
        }
        _ => Ok(()),
    };
    // The mode is given when the file is made: nobody can open it in between.
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| {
            give(&file)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&temporary, path));
    written.map_err(io_error("write", path))?;
    sync_folder(path)
}

/// Without this a new name may be lost in a crash.
pub(super) fn sync_folder(path: &Path) -> Result<(), KeyError> {
    let folder = folder_of(path);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KeyError + use<> {
    let path = path.to_path_buf();
    move |source| KeyError::Io { action, path, source }
}
