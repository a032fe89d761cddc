//! What a killed loadgen leaves behind: a process that outlives it, ends the server and the Redis it had
//! started, and removes their folder. After an orderly end there is nothing left for it to do.

use std::io::{BufRead, ErrorKind};
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::Process;
use crate::{AnyError, GUARD_COMMAND};

/// Most processes of one folder.
const MAX_PIDS: usize = 16;

/// The guard of one folder.
pub(crate) struct Guard(Process);

impl Guard {
    /// Starts it for `folder`.
    pub(crate) fn start(folder: &Path) -> Result<Self, AnyError> {
        let folder = folder.to_str().ok_or("the temporary folder's name is no text")?;
        Ok(Self(Process::again("guard", &[GUARD_COMMAND, folder])?))
    }

    /// Tells it of a process that has the folder's name in its command line.
    pub(crate) fn watch(&mut self, pid: u32) -> Result<(), AnyError> {
        self.0.tell(&pid.to_string())
    }
}

/// The body of the process: takes process ids, a line each, until stdin ends with the parent.
pub(crate) fn main(folder: &Path) -> Result<(), AnyError> {
    let mut pids = Vec::new();
    for line in std::io::stdin().lock().lines().take(MAX_PIDS) {
        pids.push(line?.parse::<u32>()?);
    }
    let name = folder.to_str().ok_or("the folder's name is no text")?;
    for pid in pids {
        // By now the number may be another process's.
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(name) {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL)?;
        }
    }
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
