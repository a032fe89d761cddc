//! Writing into the CA's folder: whole files, never readable by others for an instant, one writer at
//! a time.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::error::CertsError;
use super::paths::IssuedPaths;

/// Mode of certificates and lists.
pub(super) const PUBLIC: u32 = 0o644;
/// Mode of private keys.
pub(super) const PRIVATE: u32 = 0o600;

/// A certificate and its private key as PEM text. Has no `Debug`, so that no key gets into a log.
pub(super) struct SignedPem {
    pub(super) cert: String,
    pub(super) key: String,
}

/// Keeps other processes and threads from writing into a folder until dropped. Readers need none:
/// files are replaced whole.
pub(super) struct FolderLock {
    _lock: Flock<File>,
}

impl FolderLock {
    /// Waits for the folder's lock. It is a file of its own because a folder cannot be opened for
    /// writing, which network file systems want for an exclusive lock.
    pub(super) fn take(dir: &Path) -> Result<Self, CertsError> {
        let path = dir.join(".lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .open(&path)
            .map_err(io_error("lock", &path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| io_error("lock", &path)(errno.into()))?;
        Ok(Self { _lock: lock })
    }
}

/// Makes `dir` and what is missing above it, mode 0700. One that is there stays as it is.
pub(super) fn create_folder(dir: &Path) -> Result<(), CertsError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))
}

/// Whether there is anything at `path`, a dangling link included.
pub(super) fn exists(path: &Path) -> Result<bool, CertsError> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("read", path)(error)),
    }
}

/// The text of a file.
pub(super) fn read(path: &Path) -> Result<String, CertsError> {
    crate::files::read_text(path, crate::files::MAX_MATERIAL_BYTES).map_err(io_error("read", path))
}

/// Replaces `path` whole.
pub(super) fn write(path: &Path, contents: &str, mode: u32) -> Result<(), CertsError> {
    StagedFile::new(path, contents, mode)?.commit()
}

/// Replaces a certificate and its key. Both are on disk before the first is moved into place, so
/// that the time in which they do not match is as short as it can be.
pub(super) fn write_pair(paths: &IssuedPaths, signed: &SignedPem) -> Result<(), CertsError> {
    let key = StagedFile::new(&paths.key, &signed.key, PRIVATE)?;
    let cert = StagedFile::new(&paths.cert, &signed.cert, PUBLIC)?;
    key.commit()?;
    cert.commit()
}

/// Wraps what the system said about `path`.
pub(super) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CertsError + use<> {
    let path = path.to_path_buf();
    move |source| CertsError::Io { action, path, source }
}

/// A file that is written under another name and then moved into place; dropped before that, it
/// leaves nothing behind.
struct StagedFile {
    temporary: PathBuf,
    target: PathBuf,
}

impl StagedFile {
    fn new(target: &Path, contents: &str, mode: u32) -> Result<Self, CertsError> {
        let staged = Self {
            temporary: folder_of(target).join(format!(".{}.tmp", uuid::Uuid::new_v4())),
            target: target.to_path_buf(),
        };
        // The mode is given when the file is made, not afterwards: nobody can open it in between.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&staged.temporary)
            .and_then(|mut file| {
                file.write_all(contents.as_bytes())?;
                file.sync_all()
            })
            .map_err(io_error("write", target))?;
        Ok(staged)
    }

    fn commit(self) -> Result<(), CertsError> {
        std::fs::rename(&self.temporary, &self.target).map_err(io_error("write", &self.target))?;
        // Without this the new name may be lost in a crash.
        let folder = folder_of(&self.target);
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        // After the rename there is nothing by this name any more; that it fails is all right.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let error = write(&taken, "text", PUBLIC).unwrap_err().to_string();
        assert!(error.contains("taken"), "{error}");
        assert_eq!(dir.path().read_dir().unwrap().count(), 1);
    }

    #[test]
    fn the_lock_is_exclusive_between_threads() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("count");
        write(&file, "0", PUBLIC).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10 {
                        let _lock = FolderLock::take(dir.path()).unwrap();
                        let count: u32 = read(&file).unwrap().parse().unwrap();
                        write(&file, &(count + 1).to_string(), PUBLIC).unwrap();
                    }
                });
            }
        });
        assert_eq!(read(&file).unwrap(), "40");
    }
}
