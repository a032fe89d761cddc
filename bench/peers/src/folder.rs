//! The temporary folder of a run, and a process that outlives a killed run: it ends the programs that were
//! started and removes the folder. After an orderly end there is nothing left for it to do.

use std::io::{BufRead, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::AnyError;

/// Most programs of one run that the guard is told of: more than 100 rounds of all rows.
const MAX_PIDS: usize = 100_000;
/// How long the guard may take to see that there is nothing to do.
const GUARD_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// Names that are tried before it gives up: one is free unless somebody takes them on purpose.
const MAX_NAMES: u32 = 1000;

/// A temporary folder, removed when dropped.
pub(crate) struct Folder {
    path: PathBuf,
    guard: Child,
    told: Option<ChildStdin>,
    parts: usize,
}

impl Folder {
    /// Makes it, and starts its guard.
    pub(crate) fn new() -> Result<Self, AnyError> {
        let path = make(&std::env::temp_dir())?;
        let guard = Command::new(std::env::current_exe()?)
            .arg("guard")
            .arg(&path)
            // Not reached by the terminal's Ctrl-C: it has to be there when that fails to end this process.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let mut guard = match guard {
            Ok(guard) => guard,
            Err(error) => {
                std::fs::remove_dir_all(&path)?;
                return Err(format!("the guard cannot be started: {error}").into());
            }
        };
        let told = guard.stdin.take();
        Ok(Self { path, guard, told, parts: 0 })
    }

    /// A new folder in it, for one measurement.
    pub(crate) fn part(&mut self) -> Result<PathBuf, AnyError> {
        self.parts += 1;
        let path = self.path.join(self.parts.to_string());
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Removes the folders of measurements that are over: what they keep is of no use, and may be large.
    pub(crate) fn clear(&self) -> Result<(), AnyError> {
        for entry in std::fs::read_dir(&self.path)? {
            std::fs::remove_dir_all(entry?.path())?;
        }
        Ok(())
    }

    /// Tells the guard of a process that has `marker` in its command line.
    pub(crate) fn watch(&mut self, pid: u32, marker: &Path) -> Result<(), AnyError> {
        let told = self.told.as_mut().ok_or("the guard has no stdin")?;
        writeln!(told, "{pid} {}", marker.display())
            .and_then(|()| told.flush())
            .map_err(|error| format!("the guard cannot be told anything: {error}").into())
    }

    fn remove(&mut self) -> Result<(), AnyError> {
        // Its end of stdin is the guard's sign.
        drop(self.told.take());
        let give_up = Instant::now() + GUARD_PATIENCE;
        while self.guard.try_wait()?.is_none() {
            if Instant::now() >= give_up {
                self.guard.kill()?;
                let _ = self.guard.wait()?;
                break;
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        gone(std::fs::remove_dir_all(&self.path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            eprintln!("peers: {} cannot be removed: {error}", self.path.display());
        }
    }
}

fn make(dir: &Path) -> Result<PathBuf, AnyError> {
    for number in 0..MAX_NAMES {
        let path = dir.join(format!("mas-peers-{}-{number}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        }
    }
    Err(format!("{}: no name for a folder is free", dir.display()).into())
}

/// Removing what is not there is no failure.
fn gone(removed: std::io::Result<()>) -> Result<(), AnyError> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The body of the guard: takes process ids and markers, a line each, until stdin ends with the parent.
pub(crate) fn guard(folder: &Path) -> Result<(), AnyError> {
    let mut watched = Vec::new();
    for line in std::io::stdin().lock().lines().take(MAX_PIDS) {
        let line = line?;
        let (pid, marker) = line.split_once(' ').ok_or("a line without a marker")?;
        watched.push((pid.parse::<i32>()?, marker.to_owned()));
    }
    for (pid, marker) in watched {
        // By now the number may be another process's, or nobody's.
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if String::from_utf8_lossy(&command).contains(&marker) {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
    }
    gone(std::fs::remove_dir_all(folder))
}
