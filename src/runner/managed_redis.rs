//! A private `redis-server` child on a unix socket: no port, its own data directory, every write logged.

use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::Flock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::{Client, Connection, ConnectionAddr, RedisResult, ServerErrorKind};

use super::data_dir::{self, file_error, log_tail};
use super::error::RunnerError;
use super::memory;
use super::stop_signal::StopSignal;
use crate::config::{Durability, MANAGED_SOCKET};

/// How long it may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to read its data, some 100 MB of it a second.
const LOAD_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long it may take to write its data and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one question to it may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Pauses between looks at it.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(250);
const PROGRAM: &str = "redis-server";
const LOG_FILE: &str = "redis.log";
/// Its append-only file is not rewritten before it is this long. Nearly all that passes through leaves again, so
/// Redis' own 64 MB are rewritten every other second under load, which takes a core each time; the file is read
/// at a start, at some 100 MB a second.
const MIN_REWRITE_SIZE: &str = "512mb";

/// A running private Redis. Dropping it stops it.
pub struct ManagedRedis {
    data_dir: PathBuf,
    process: Process,
    /// Held to the end: a second runner would otherwise adopt this Redis, and stop it at its own end.
    _lock: Flock<File>,
}

/// When a managed Redis brings what it was given to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Once a second.
    EverySecond,
    /// Before it answers.
    Always,
}

impl Fsync {
    /// What the configured durability asks for.
    pub fn of(durability: Durability) -> Self {
        match durability {
            Durability::Fsynced { .. } => Self::Always,
            Durability::Accepted | Durability::Replicated { .. } => Self::EverySecond,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::EverySecond => "everysec",
            Self::Always => "always",
        }
    }
}

impl ManagedRedis {
    /// Starts one on `data_dir`, or adopts the one that an earlier, crashed runner left there, and
    /// returns when it answers.
    pub fn start(data_dir: &Path, fsync: Fsync) -> Result<Self, RunnerError> {
        Self::start_unless_stopped(data_dir, fsync, &StopSignal::new(), &|_| {})
    }

    /// The same, but gives up when `stop` is asked for. `spawned` is told the process id of one that it starts, at once.
    pub(super) fn start_unless_stopped(
        data_dir: &Path,
        fsync: Fsync,
        stop: &StopSignal,
        spawned: &dyn Fn(u32),
    ) -> Result<Self, RunnerError> {
        let data_dir = std::path::absolute(data_dir).map_err(file_error(data_dir, "is no path"))?;
        data_dir::prepare(&data_dir)?;
        let mut redis = Self { _lock: data_dir::lock(&data_dir)?, data_dir, process: Process::None };
        let began = Instant::now();
        if redis.adopt(began, stop)? {
            let pid = shown(redis.pid());
            log::warn!(code = "redis_adopted", pid; "redis left by an earlier run adopted, pid {pid}");
            return Ok(redis);
        }
        let log_start = redis.spawn(fsync)?;
        redis.pid().into_iter().for_each(spawned);
        redis.wait_until_it_answers(began, stop, log_start)?;
        log::info!(code = "redis_started"; "redis started, pid {}", shown(redis.pid()));
        Ok(redis)
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its process id; `None` when an adopted one did not tell.
    pub fn pid(&self) -> Option<u32> {
        match &self.process {
            Process::Child(child) => Some(child.id()),
            Process::Adopted(pid) => *pid,
            Process::None => None,
        }
    }

    /// Whether it has ended, without waiting.
    pub fn exited(&mut self) -> bool {
        match &mut self.process {
            Process::Child(child) => !matches!(child.try_wait(), Ok(None)),
            Process::Adopted(_) => matches!(self.probe(), Probe::Absent),
            Process::None => true,
        }
    }

    /// Ends it so that all data is on disk. Killed if that takes too long.
    pub fn stop(&mut self) {
        self.stop_unless_killed(&StopSignal::new());
    }

    /// The same, but kills it as soon as `stop` asks to kill.
    pub fn stop_unless_killed(&mut self, stop: &StopSignal) {
        if self.exited() {
            self.process = Process::None;
            return;
        }
        if let Err(problem) = self.ask_to_end() {
            log::warn!(code = "redis_not_stopped"; "redis cannot be asked to end: {problem}");
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut pause = FIRST_PAUSE;
        while !self.exited() {
            if stop.is_killing() || Instant::now() >= deadline {
                self.kill();
                break;
            }
            std::thread::sleep(pause);
            pause = longer(pause);
        }
        self.process = Process::None;
        log::info!(
            code = "redis_stopped", path:% = self.data_dir.display();
            "redis on {} stopped", self.data_dir.display()
        );
    }

    /// Lets it run on where it was adopted: somebody else may need it still.
    pub(super) fn leave_adopted(&mut self) {
        if let Process::Adopted(pid) = &self.process {
            let pid = shown(*pid);
            log::warn!(code = "redis_left", pid; "the adopted redis, pid {pid}, is left running: this start has failed");
            self.process = Process::None;
        }
    }

    fn socket(&self) -> PathBuf {
        self.data_dir.join(MANAGED_SOCKET)
    }

    fn error(&self, problem: impl Into<String>) -> RunnerError {
        RunnerError::Redis { data_dir: self.data_dir.clone(), problem: problem.into() }
    }

    /// Takes over the process that owns the socket, if there is one.
    fn adopt(&mut self, began: Instant, stop: &StopSignal) -> Result<bool, RunnerError> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.probe() {
                Probe::Absent => return Ok(false),
                Probe::Answers => {
                    self.process = Process::Adopted(self.ask_for_pid());
                    return Ok(true);
                }
                // It lives and owns the data: a second one beside it would destroy them.
                Probe::Busy(problem) if began.elapsed() >= START_TIMEOUT => {
                    return Err(self.error(format!("left by an earlier run; {problem}")));
                }
                Probe::Loading if began.elapsed() >= LOAD_TIMEOUT => {
                    return Err(self.error("left by an earlier run; still reads its data"));
                }
                Probe::Busy(_) | Probe::Loading => {}
                Probe::Unusable(problem) => return Err(self.error(problem)),
            }
            if stop.wait(pause) {
                return Err(RunnerError::Stopped);
            }
            pause = longer(pause);
        }
    }

    /// Starts the child. Returns the length that its log had before.
    fn spawn(&mut self, fsync: Fsync) -> Result<u64, RunnerError> {
        let socket = self.socket();
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(file_error(&socket, "a stale socket cannot be removed")(error));
            }
            _ => {}
        }
        let log_start = std::fs::metadata(self.log()).map_or(0, |log| log.len());
        let child = Command::new(PROGRAM)
            .args(["--port", "0"])
            .arg("--unixsocket")
            .arg(&socket)
            .args(["--unixsocketperm", "700"])
            .arg("--dir")
            .arg(&self.data_dir)
            .args(["--appendonly", "yes", "--appendfsync", fsync.as_str()])
            .args(["--auto-aof-rewrite-min-size", MIN_REWRITE_SIZE])
            .args(["--save", ""])
            .args(["--maxmemory-policy", "noeviction"])
            .args(["--maxmemory", &memory::redis_bytes().unwrap_or(0).to_string()])
            .args(["--daemonize", "no"])
            .arg("--logfile")
            .arg(self.log())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C in the terminal must not end it before the server has drained.
            .process_group(0)
            .spawn()
            .map_err(|source| match source.kind() {
                ErrorKind::NotFound => RunnerError::NoRedisServer { source },
                _ => {
                    RunnerError::Spawn { label: "redis".to_owned(), program: PathBuf::from(PROGRAM), source }
                }
            })?;
        self.process = Process::Child(child);
        Ok(log_start)
    }

    fn wait_until_it_answers(
        &mut self,
        began: Instant,
        stop: &StopSignal,
        log_start: u64,
    ) -> Result<(), RunnerError> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Process::Child(child) = &mut self.process
                && let Ok(Some(status)) = child.try_wait()
            {
                return Err(RunnerError::RedisEnded {
                    data_dir: self.data_dir.clone(),
                    status,
                    log: log_tail(&self.log(), log_start),
                });
            }
            let (problem, patience) = match self.probe() {
                Probe::Answers => return Ok(()),
                Probe::Absent => ("does not listen yet".to_owned(), START_TIMEOUT),
                Probe::Busy(problem) => (problem, START_TIMEOUT),
                Probe::Loading => ("still reads its data".to_owned(), LOAD_TIMEOUT),
                Probe::Unusable(problem) => return Err(self.error(problem)),
            };
            if began.elapsed() >= patience {
                return Err(self.error(format!("not ready within {patience:?}; {problem}")));
            }
            if stop.wait(pause) {
                return Err(RunnerError::Stopped);
            }
            pause = longer(pause);
        }
    }

    fn log(&self) -> PathBuf {
        self.data_dir.join(LOG_FILE)
    }

    fn connect(&self) -> RedisResult<Connection> {
        let client = Client::open(ConnectionAddr::Unix(self.socket()))?;
        let connection = client.get_connection_with_timeout(ANSWER_TIMEOUT)?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        connection.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(connection)
    }

    fn probe(&self) -> Probe {
        let answer =
            self.connect().and_then(|mut connection| redis::cmd("PING").query::<String>(&mut connection));
        match answer {
            Ok(pong) if pong == "PONG" => Probe::Answers,
            Ok(other) => Probe::Unusable(format!("answers PING with {other:?}")),
            Err(error) if error.is_connection_refusal() => Probe::Absent,
            Err(error) if error.kind() == ServerErrorKind::BusyLoading.into() => Probe::Loading,
            Err(error) if error.is_timeout() || error.is_connection_dropped() => {
                Probe::Busy(error.to_string())
            }
            Err(error) => Probe::Unusable(error.to_string()),
        }
    }

    fn ask_for_pid(&self) -> Option<u32> {
        let mut connection = self.connect().ok()?;
        let info: redis::InfoDict = redis::cmd("INFO").arg("server").query(&mut connection).ok()?;
        info.get("process_id")
    }

    fn ask_to_end(&mut self) -> Result<(), String> {
        match &mut self.process {
            // Not reaped yet, so the id is still its own.
            Process::Child(child) => kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM)
                .map_err(|errno| errno.to_string()),
            Process::Adopted(_) => {
                let mut connection = self.connect().map_err(|error| error.to_string())?;
                match redis::cmd("SHUTDOWN").query::<()>(&mut connection) {
                    // A successful SHUTDOWN has no answer: the connection ends, or it takes longer.
                    Err(error) if !error.is_connection_dropped() && !error.is_timeout() => {
                        Err(error.to_string())
                    }
                    _ => Ok(()),
                }
            }
            Process::None => Ok(()),
        }
    }

    fn kill(&mut self) {
        match &mut self.process {
            Process::Child(child) => {
                log::warn!(
                    code = "process_killed", process = "redis", pid = child.id();
                    "redis, pid {}: killed", child.id()
                );
                if let Err(error) = child.kill().and_then(|()| child.wait()) {
                    log::error!(code = "redis_not_stopped"; "redis cannot be killed: {error}");
                }
            }
            // Not a child of this process, so its id may be another's by now: never killed by id.
            Process::Adopted(pid) => {
                log::error!(
                    code = "redis_not_stopped";
                    "the adopted redis, pid {}, was not seen to end", shown(*pid)
                );
            }
            Process::None => {}
        }
    }
}

impl Drop for ManagedRedis {
    fn drop(&mut self) {
        if !matches!(self.process, Process::None) {
            self.stop();
        }
    }
}

enum Process {
    None,
    Child(Child),
    Adopted(Option<u32>),
}

enum Probe {
    /// Nobody listens on the socket.
    Absent,
    /// Ready.
    Answers,
    /// It reads its data.
    Loading,
    /// Somebody listens, but is not ready.
    Busy(String),
    /// Waiting does not help.
    Unusable(String),
}

fn shown(pid: Option<u32>) -> String {
    pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string())
}

fn longer(pause: Duration) -> Duration {
    pause.saturating_mul(2).min(MAX_PAUSE)
}

#[cfg(test)]
mod tests;
