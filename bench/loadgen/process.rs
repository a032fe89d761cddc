//! Child processes that end with their owner, and what a process has used so far.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::{AnyError, interrupt};

/// Ticks a second in `/proc/PID/stat`: fixed on Linux, whatever the kernel's own clock does.
const USER_HZ: f64 = 100.0;
/// Lines of a child that may wait to be read; each kind of child writes three at most.
const MAX_LINES: usize = 16;
/// How often a wait for a child looks whether the user interrupted.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// A child process, killed when dropped.
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<std::io::Result<String>>,
    label: String,
}

impl Process {
    /// Starts `command` with pipes for stdin and stdout; its stderr is this process's.
    pub(crate) fn start(label: &str, command: &mut Command) -> Result<Self, AnyError> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{label}: {}: {error}", command.get_program().display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (sender, lines) = sync_channel(MAX_LINES);
        let process = Self { child, stdin, lines, label: label.to_owned() };
        let stdout = stdout.ok_or_else(|| format!("{label}: no stdout"))?;
        // Ends with the pipe, which ends with the child, or when nobody listens any more.
        let _reader = std::thread::Builder::new().name("lines".to_owned()).spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if sender.send(line).is_err() {
                    break;
                }
            }
        })?;
        Ok(process)
    }

    /// Another process of this program: a hidden subcommand.
    pub(crate) fn again(label: &str, args: &[&str]) -> Result<Self, AnyError> {
        Self::start(label, Command::new(std::env::current_exe()?).args(args))
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error when it has ended.
    pub(crate) fn check(&mut self) -> Result<(), AnyError> {
        match self.child.try_wait()? {
            Some(status) => Err(format!("{} ended: {status}", self.label).into()),
            None => Ok(()),
        }
    }

    /// Hands it one line.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), AnyError> {
        let stdin = self.stdin.as_mut().ok_or_else(|| format!("{}: no stdin", self.label))?;
        writeln!(stdin, "{line}")
            .and_then(|()| stdin.flush())
            .map_err(|error| format!("{}: it cannot be told anything: {error}", self.label).into())
    }

    /// The next line of its stdout.
    pub(crate) fn line(&mut self, patience: Duration) -> Result<String, AnyError> {
        let give_up = Instant::now() + patience;
        loop {
            match self.lines.recv_timeout(LOOK_INTERVAL) {
                Ok(line) => return Ok(line.map_err(|error| format!("{}: {error}", self.label))?),
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    return Err(format!("{} ended early: {status}", self.label).into());
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() >= give_up => {
                    return Err(format!("{} said nothing for {patience:?}", self.label).into());
                }
                Err(RecvTimeoutError::Timeout) => interrupt::pause(Duration::ZERO)?,
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // It keeps nothing that would have to be finished; one that has ended already is reaped here.
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("loadgen: {} (pid {}) cannot be ended: {error}", self.label, self.child.id());
        }
    }
}

/// Has the kernel end this process when its parent dies, however that dies.
pub(crate) fn end_with_parent() -> Result<(), AnyError> {
    set_pdeathsig(Signal::SIGKILL)?;
    Ok(())
}

/// CPU that process `pid` has used, in seconds, to 10 ms.
pub(crate) fn cpu_s(pid: u32) -> Result<f64, AnyError> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // The command's name may hold anything, parentheses too; utime and stime are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').ok_or_else(|| format!("{path}: no command"))?;
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>())
        .sum::<Result<u64, _>>()
        .map_err(|error| format!("{path}: {error}"))?;
    Ok(ticks as f64 / USER_HZ)
}

/// Memory of process `pid` that is resident, in KiB.
pub(crate) fn rss_kib(pid: u32) -> Result<u64, AnyError> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| format!("{path}: no VmRSS").into())
}

/// Raises the limit of open files to what `needed` asks for, for this process and its children.
///
/// # Errors
/// When the hard limit is lower and this user may not raise it.
pub(crate) fn raise_open_files(needed: u64) -> Result<(), AnyError> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft >= needed {
        return Ok(());
    }
    setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed)).map_err(|errno| {
        format!("{needed} open files are needed and {hard} are allowed here (ulimit -Hn): {errno}").into()
    })
}
