//! One child process: its own process group, its output forwarded, its end noticed by a thread.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde::Deserialize;

use super::error::RunnerError;
use super::forward::{FirstLine, LineSink, Stream, forward};
use super::guard::Guard;
use super::lock::lock;
use crate::config::Restart;

/// How long a killed process may take to be gone.
pub(super) const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long processes that a child started itself may outlive it.
const LEFTOVER_TIMEOUT: Duration = Duration::from_secs(2);
/// The announcement of a server that accepts connections.
const READY_EVENT: &str = "mas.server.ready";

/// What is started.
#[derive(Debug, Clone)]
pub struct ChildSpec {
    /// Its name in logs and before each line of its output.
    pub label: String,
    /// The program; without a `/` it is looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Variables in addition to the runner's own environment.
    pub env: BTreeMap<String, OsString>,
    /// When a supervisor starts it again.
    pub restart: Restart,
    /// Whether the first line of its standard output announces that it is ready.
    pub announces_ready: bool,
}

/// What a server announces when it accepts connections.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReadyLine {
    event: String,
    /// Its process id.
    pub pid: u32,
    /// The `host:port` that it serves on.
    pub listen_addr: String,
}

/// A running, or just ended, child. Dropping it kills the process.
///
/// Signals go to the child's process group, as those of a terminal would, so that a wrapper script
/// does not shield the program that it starts.
pub struct Child {
    inner: Arc<Inner>,
}

impl Child {
    /// Starts the process. `on_exit` is called from another thread, once, after its end.
    pub fn start(
        spec: &ChildSpec,
        sink: &LineSink,
        guard: &Guard,
        on_exit: impl FnOnce(ExitStatus) + Send + 'static,
    ) -> Result<Self, RunnerError> {
        let mut process = Command::new(&spec.program)
            .args(&spec.args)
            .envs(&spec.env)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| RunnerError::Spawn {
                label: spec.label.clone(),
                program: spec.program.clone(),
                source,
            })?;
        let stdout = process.stdout.take();
        let stderr = process.stderr.take();
        let pid = process.id();
        // Before anything else: were the runner killed now, the process would run on.
        guard.watch(&spec.label, pid);
        let inner = Arc::new(Inner {
            label: spec.label.clone(),
            pid,
            state: Mutex::new(State {
                process,
                status: None,
                open_pipes: 0,
                ready: if spec.announces_ready { Ready::Awaited } else { Ready::NotAnnounced },
            }),
            changed: Condvar::new(),
        });
        // From here on an early return kills and reaps the process.
        let child = Self { inner };
        child.forward(Stream::Stdout, stdout, spec.announces_ready, sink)?;
        child.forward(Stream::Stderr, stderr, false, sink)?;
        let inner = child.inner.clone();
        child.thread("wait", move || on_exit(inner.wait_for_end()))?;
        log::info!(
            code = "process_started", process = spec.label.as_str(), pid;
            "{} started, pid {pid}", spec.label
        );
        Ok(child)
    }

    /// Its name.
    pub fn label(&self) -> &str {
        &self.inner.label
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// Sends a signal to its process group; nothing happens if it has ended.
    pub fn signal(&self, signal: Signal) {
        self.inner.signal(signal);
    }

    /// Waits for its end, at most `timeout`. `None` if it still runs.
    pub fn wait(&self, timeout: Duration) -> Option<ExitStatus> {
        self.inner.wait_while(timeout, |state| state.status.is_none()).status
    }

    /// Waits for its announcement, at most `timeout`.
    pub fn wait_ready(&self, timeout: Duration) -> Result<ReadyLine, RunnerError> {
        let label = || self.inner.label.clone();
        let state = self
            .inner
            .wait_while(timeout, |state| state.status.is_none() && matches!(state.ready, Ready::Awaited));
        if let Some(status) = state.status {
            return Err(RunnerError::EndedEarly { label: label(), status });
        }
        match &state.ready {
            Ready::Yes(line) => Ok(line.clone()),
            Ready::Awaited => Err(RunnerError::NotReady { label: label(), timeout }),
            Ready::Wrong(problem) => {
                Err(RunnerError::Announcement { label: label(), problem: problem.clone() })
            }
            Ready::NotAnnounced => Err(RunnerError::Announcement {
                label: label(),
                problem: "no announcement was asked for".to_owned(),
            }),
        }
    }

    /// Asks it to end, and kills it after `grace`. `None` if even that did not end it in time.
    pub fn stop(&self, grace: Duration) -> Option<ExitStatus> {
        self.signal(Signal::SIGTERM);
        if let Some(status) = self.wait(grace) {
            return Some(status);
        }
        log::warn!(
            code = "process_killed", process = self.label();
            "{} did not end within {grace:?}: killed", self.label()
        );
        self.signal(Signal::SIGKILL);
        self.wait(KILL_TIMEOUT)
    }

    fn forward(
        &self,
        stream: Stream,
        pipe: Option<impl Read + Send + 'static>,
        announces: bool,
        sink: &LineSink,
    ) -> Result<(), RunnerError> {
        let Some(pipe) = pipe else {
            return Ok(());
        };
        let first_line = announces.then(|| -> FirstLine {
            let inner = self.inner.clone();
            Box::new(move |line| inner.announced(line))
        });
        let sink = sink.clone();
        let open = OpenPipe::new(self.inner.clone());
        self.thread(
            match stream {
                Stream::Stdout => "out",
                Stream::Stderr => "err",
            },
            move || forward(&open.0.label, stream, pipe, first_line, &sink),
        )
    }

    fn thread(&self, purpose: &str, body: impl FnOnce() + Send + 'static) -> Result<(), RunnerError> {
        let label = &self.inner.label;
        let spawned = std::thread::Builder::new().name(format!("{label} {purpose}")).spawn(body);
        match spawned {
            Ok(_) => Ok(()),
            Err(source) => {
                // No thread will reap it, so that must be done here.
                self.inner.signal(Signal::SIGKILL);
                self.inner.reap();
                Err(RunnerError::Thread { label: label.clone(), source })
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

struct Inner {
    label: String,
    /// Also the id of the process group.
    pid: u32,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    process: std::process::Child,
    /// Set when the process has been reaped: from then on its id may belong to another process.
    status: Option<ExitStatus>,
    open_pipes: usize,
    ready: Ready,
}

enum Ready {
    NotAnnounced,
    Awaited,
    Yes(ReadyLine),
    Wrong(String),
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait_while(&self, timeout: Duration, condition: impl Fn(&State) -> bool) -> MutexGuard<'_, State> {
        let waiting = self.changed.wait_timeout_while(self.lock(), timeout, |state| condition(state));
        let (state, _) = waiting.unwrap_or_else(std::sync::PoisonError::into_inner);
        state
    }

    /// The lock is held while signalling, and the process reaped under it, so that the id is its own.
    fn signal(&self, signal: Signal) {
        let state = self.lock();
        if state.status.is_some() {
            return;
        }
        if let Err(errno) = killpg(self.group(), signal)
            && errno != Errno::ESRCH
        {
            log::error!(
                code = "signal_unsent", process = self.label.as_str(), pid:% = self.pid;
                "{}: {signal} to pid {} failed: {errno}", self.label, self.pid
            );
        }
    }

    fn group(&self) -> Pid {
        Pid::from_raw(self.pid.cast_signed())
    }

    /// Blocks until the process has ended, and what it has started and left behind too.
    fn wait_for_end(&self) -> ExitStatus {
        // WNOWAIT leaves it a zombie: its id stays taken while its group is cleared.
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
        while waitid(Id::Pid(self.group()), flags) == Err(Errno::EINTR) {}
        // What is left of its group must not run beside its successor. Whatever still has the pipes
        // open gets the time to end by itself.
        self.signal(Signal::SIGTERM);
        drop(self.wait_while(LEFTOVER_TIMEOUT, |state| state.open_pipes > 0));
        self.signal(Signal::SIGKILL);
        self.reap()
    }

    fn reap(&self) -> ExitStatus {
        let mut state = self.lock();
        let status = state.process.wait().unwrap_or_else(|error| {
            log::warn!(
                code = "process_status_unknown", process = self.label.as_str();
                "{}: its exit status is not known: {error}", self.label
            );
            // Exit code 1: what cannot be known must not pass for a success.
            ExitStatus::from_raw(1 << 8)
        });
        state.status = Some(status);
        drop(state);
        self.changed.notify_all();
        status
    }

    fn announced(&self, line: &[u8]) {
        self.lock().ready = match serde_json::from_slice::<ReadyLine>(line) {
            Ok(ready) if ready.event == READY_EVENT => {
                log::info!(
                    code = "process_ready", process = self.label.as_str(), addr = ready.listen_addr.as_str();
                    "{} ready on {}", self.label, ready.listen_addr
                );
                Ready::Yes(ready)
            }
            Ok(other) => Ready::Wrong(format!("event {:?}", other.event)),
            Err(error) => Ready::Wrong(format!("{error} in {:?}", String::from_utf8_lossy(line))),
        };
        self.changed.notify_all();
    }
}

/// Counts a pipe as open as long as it lives.
struct OpenPipe(Arc<Inner>);

impl OpenPipe {
    fn new(inner: Arc<Inner>) -> Self {
        inner.lock().open_pipes += 1;
        Self(inner)
    }
}

impl Drop for OpenPipe {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.open_pipes = state.open_pipes.saturating_sub(1);
        drop(state);
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
