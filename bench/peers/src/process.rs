//! Programs that are started here, ended by their process ids, and what they have used so far.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::AnyError;
use crate::folder::Folder;

/// Ticks a second in `/proc/PID/stat`: fixed on Linux, whatever the kernel's own clock does.
const USER_HZ: f64 = 100.0;
/// How long a program that was asked to end may take; then it is killed.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked at meanwhile.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a program may take to say its version.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How much of a program's log is shown when it fails, in bytes.
const SHOWN_LOG_BYTES: usize = 2000;

/// How a program is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// At once: what it keeps is thrown away.
    Kill,
    /// Asked first: it has started programs of its own.
    Ask,
}

/// A running program, ended when dropped.
pub(crate) struct Process {
    child: Child,
    label: &'static str,
    log: PathBuf,
    end: End,
}

/// What is to be started.
pub(crate) struct Program<'a> {
    pub(crate) label: &'static str,
    pub(crate) command: &'a mut Command,
    /// Where its log goes.
    pub(crate) dir: &'a Path,
    /// Something that its command line holds.
    pub(crate) marker: &'a Path,
    pub(crate) end: End,
    /// Where its stdout goes; `None`: to the log.
    pub(crate) stdout: Option<File>,
}

impl Process {
    /// Starts a program.
    ///
    /// It gets a process group of its own: the terminal's Ctrl-C reaches only this program, which then ends it.
    pub(crate) fn start(program: Program<'_>, folder: &mut Folder) -> Result<Self, AnyError> {
        let Program { label, command, dir, marker, end, stdout } = program;
        let log = dir.join(format!("{label}.log"));
        let output = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let stdout = match stdout {
            Some(file) => file,
            None => output.try_clone()?,
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(output)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{label}: {}: {error}", command.get_program().display()))?;
        let process = Self { child, label, log, end };
        folder.watch(process.pid(), marker)?;
        Ok(process)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How it ended; `None`: it has not.
    pub(crate) fn ended(&mut self) -> Result<Option<std::process::ExitStatus>, AnyError> {
        Ok(self.child.try_wait()?)
    }

    /// An error when it has ended.
    pub(crate) fn check(&mut self) -> Result<(), AnyError> {
        match self.ended()? {
            Some(status) => Err(self.failure(&format!("ended: {status}"))),
            None => Ok(()),
        }
    }

    /// What went wrong, with the end of its log.
    pub(crate) fn failure(&self, problem: &str) -> AnyError {
        let log = match std::fs::read(&self.log) {
            Ok(log) => {
                String::from_utf8_lossy(log.get(log.len().saturating_sub(SHOWN_LOG_BYTES)..).unwrap_or(&log))
                    .trim()
                    .to_owned()
            }
            Err(error) => format!("its log cannot be read: {error}"),
        };
        format!("{} {problem}\n{log}", self.label).into()
    }

    fn end(&mut self) -> Result<(), AnyError> {
        if self.child.try_wait()?.is_some() {
            return Ok(());
        }
        if self.end == End::Ask {
            // Not reaped yet, so the number is still this child's.
            kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM)?;
            let give_up = Instant::now() + END_PATIENCE;
            while Instant::now() < give_up {
                if self.child.try_wait()?.is_some() {
                    return Ok(());
                }
                std::thread::sleep(LOOK_INTERVAL);
            }
        }
        self.child.kill()?;
        let _ = self.child.wait()?;
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("peers: {} (pid {}) cannot be ended: {error}", self.label, self.child.id());
        }
    }
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

/// What `program ARG` says in its first line.
pub(crate) async fn first_line(program: &Path, arg: &str) -> Result<String, AnyError> {
    let output = tokio::process::Command::new(program)
        .arg(arg)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(ANSWER_PATIENCE, output)
        .await
        .map_err(|_| format!("{} {arg} says nothing for {ANSWER_PATIENCE:?}", program.display()))?
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next() {
        Some(line) if output.status.success() => Ok(line.trim().to_owned()),
        _ => Err(format!("{} {arg}: {}, and no version", program.display(), output.status).into()),
    }
}
