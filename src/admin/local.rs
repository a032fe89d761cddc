//! The unix socket for users of this host: whoever connects is named by the kernel.

use std::fs::{
    File, OpenOptions, Permissions, create_dir_all, remove_file, set_permissions, symlink_metadata,
};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Uid;

use crate::config::{AdminSocketAt, Operator};

/// Who may connect where no operator has a `user`: the server's own user, and root.
const OWN_MODE: u32 = 0o600;
/// Where one has: who connects is looked at then.
const OPEN_MODE: u32 = 0o666;

/// Behind the socket's name: the file that whoever listens has locked; its mode; and how often it is tried, where it goes meanwhile.
const LOCK_SUFFIX: &str = ".lock";
const LOCK_MODE: u32 = 0o600;
const LOCK_ATTEMPTS: usize = 8;

/// Bits of a folder's mode.
const OTHERS_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// A socket that is listened on; its file goes with it.
pub(super) struct Local {
    pub(super) listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket, and which one it is: device and inode.
pub(super) struct SocketFile {
    path: PathBuf,
    own: (u64, u64),
    /// Given back after the file is gone.
    _lock: Lock,
}

impl Local {
    /// Binds; `None` where that is off, or where nobody asked for it and the default cannot be had. The error names the file.
    pub(super) fn bind(
        at: &AdminSocketAt,
        operators: &[Operator],
    ) -> Result<Option<Self>, (PathBuf, io::Error)> {
        let Some(path) = &at.path else { return Ok(None) };
        match listen(path) {
            Ok((listener, lock)) => {
                let file = of(path).map(|own| SocketFile { path: path.clone(), own, _lock: lock });
                let file = file.and_then(|file| file.admit(operators).map(|()| file));
                Ok(Some(Self { listener, file: file.map_err(|error| (path.clone(), error))? }))
            }
            Err(error) if at.asked => Err((path.clone(), error)),
            Err(error) => {
                log::warn!(
                    code = "admin_socket_missing", path:% = path.display();
                    "no unix socket for operators: {}, the default of admin_socket_path, cannot be had: {error}",
                    path.display()
                );
                Ok(None)
            }
        }
    }

    /// Binds; `None` where somebody listens there.
    pub(super) fn take_over(path: &Path, operators: &[Operator]) -> io::Result<Option<Self>> {
        let (listener, lock) = match listen(path) {
            Ok(bound) => bound,
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Ok(None),
            Err(error) => return Err(error),
        };
        let file = SocketFile { path: path.to_path_buf(), own: of(path)?, _lock: lock };
        file.admit(operators)?;
        Ok(Some(Self { listener, file }))
    }

    /// The socket, and its file.
    pub(super) fn split(self) -> (UnixListener, SocketFile) {
        (self.listener, self.file)
    }
}

impl SocketFile {
    /// Lets connect whom the configuration names.
    pub(super) fn admit(&self, operators: &[Operator]) -> io::Result<()> {
        // Somebody may have put a link in its place: that is not followed.
        if of(&self.path)? != self.own {
            return Err(io::Error::other("another file is in its place"));
        }
        let any_user = operators.iter().any(|operator| operator.user.is_some());
        set_permissions(&self.path, Permissions::from_mode(if any_user { OPEN_MODE } else { OWN_MODE }))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have taken its place already; a file that is left is taken over by the next one.
        if of(&self.path).is_ok_and(|found| found == self.own) {
            let _ = remove_file(&self.path);
        }
    }
}

/// Which file that is: device and inode.
fn of(path: &Path) -> io::Result<(u64, u64)> {
    symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Listens there, and holds the lock beside it. A file whose server is gone is removed first.
fn listen(path: &Path) -> io::Result<(UnixListener, Lock)> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        create_dir_all(folder)?;
        let metadata = folder.metadata()?;
        // Whoever can write there can put another socket in its place, unless the folder is sticky.
        if metadata.mode() & OTHERS_WRITE != 0 && metadata.mode() & STICKY == 0 {
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                format!("others can write to {}: chmod o-w, or another folder", folder.display()),
            ));
        }
    }
    let lock = Lock::take(path)?;
    match UnixListener::bind(path) {
        // A file of another kind is somebody's, and not taken away.
        Err(error) if error.kind() == ErrorKind::AddrInUse && !is_socket(path)? => {
            let what = format!("{} is no socket: choose another path, or remove it", path.display());
            Err(io::Error::new(ErrorKind::AlreadyExists, what))
        }
        // Whoever has it from an earlier version holds no lock.
        Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path)? => {
            remove_file(path)?;
            Ok((UnixListener::bind(path)?, lock))
        }
        bound => Ok((bound?, lock)),
    }
}

/// The lock of whoever listens, and its file, which goes with it.
pub(super) struct Lock {
    path: PathBuf,
    file: Flock<File>,
}

impl Lock {
    /// Takes it; it is never waited for.
    fn take(socket: &Path) -> io::Result<Self> {
        let mut name = socket.as_os_str().to_owned();
        name.push(LOCK_SUFFIX);
        let path = PathBuf::from(name);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        for _ in 0..LOCK_ATTEMPTS {
            let file = match Self::open(&path) {
                Ok(file) => file,
                // Of a server of another user; whoever may remove it may have the socket, too.
                Err(error) if error.kind() == ErrorKind::PermissionDenied && remove_file(&path).is_ok() => {
                    continue;
                }
                Err(error) => return Err(named(error)),
            };
            let file =
                Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
                    Errno::EWOULDBLOCK => {
                        io::Error::new(ErrorKind::AddrInUse, "another server listens there")
                    }
                    errno => named(errno.into()),
                })?;
            // Whoever had it may have removed it just now.
            let own = file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))?;
            if of(&path).is_ok_and(|found| found == own) {
                return Ok(Self { path, file });
            }
        }
        Err(io::Error::new(ErrorKind::AddrInUse, "others take it at the same time"))
    }

    /// Opens the file, which nobody else may.
    fn open(path: &Path) -> io::Result<File> {
        let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(LOCK_MODE).custom_flags(flags);
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        let is_own = metadata.uid() == Uid::effective().as_raw() || metadata.uid() == 0;
        match metadata.is_file() && is_own {
            true => Ok(file),
            false => Err(io::Error::new(ErrorKind::PermissionDenied, "it belongs to somebody else")),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is held: whoever comes next finds its own.
        let own = self.file.metadata().map(|metadata| (metadata.dev(), metadata.ino()));
        if own.is_ok_and(|own| of(&self.path).is_ok_and(|found| found == own)) {
            let _ = remove_file(&self.path);
        }
    }
}

fn is_socket(path: &Path) -> io::Result<bool> {
    Ok(symlink_metadata(path)?.file_type().is_socket())
}

/// Whether nobody listens there any more. One whose queue is full does.
fn is_stale(path: &Path) -> io::Result<bool> {
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    match connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::ECONNREFUSED) => Ok(true),
        Ok(()) | Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_a_server_that_is_gone_is_taken_over_and_one_of_a_running_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sub/admin.sock");
        let at = |asked| AdminSocketAt { path: Some(path.clone()), asked };
        let first = Local::bind(&at(true), &[]).unwrap().unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, OWN_MODE);
        assert!(Local::bind(&at(false), &[]).unwrap().is_none());
        assert_eq!(Local::bind(&at(true), &[]).err().unwrap().1.kind(), ErrorKind::AddrInUse);
        // As a kill leaves it: the file is there, the lock is not.
        let (listener, file) = first.split();
        drop(listener);
        let mut file = file;
        file.path = folder.path().join("elsewhere");
        drop(file);
        assert!(path.exists());
        let again = Local::bind(&at(false), &[]).unwrap().unwrap();
        drop(again);
        assert!(!path.exists());
        // What is no socket belongs to somebody.
        std::fs::write(&path, "notes").unwrap();
        assert_eq!(Local::bind(&at(true), &[]).err().unwrap().1.kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "notes");
    }
}
