//! Ends what a runner has started when the runner itself is killed. The guard is a process of its own that reads a pipe of the runner's:
//! the system closes that pipe with the runner, however it ends.

use std::fs::File;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::data_dir;
use super::error::RunnerError;
use super::lock::lock;
use super::processes::{Process, of_group, one};

/// Name of the server's processes in logs; no agent's process has it, because those have an instance.
pub(super) const SERVER_LABEL: &str = "mas-server";
/// Name of Redis.
pub(super) const REDIS_LABEL: &str = "redis";
/// The hidden command of `mas` that [`run`] is behind.
pub const COMMAND: &str = "guard";
/// Held by a guard while it ends processes.
const LOCK_FILE: &str = "guard.lock";
/// How long processes may take to end by themselves: the agents', the server's, Redis'.
const GRACES: [Duration; 3] = [Duration::from_secs(2), Duration::from_secs(3), Duration::from_secs(3)];
/// How long killed ones may take to be gone.
const KILLED: Duration = Duration::from_secs(1);
/// How long a start waits for the guard of an earlier run.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);
/// Process groups that are remembered before those that have ended are forgotten.
const MANY: usize = 256;

/// The runner's end of it.
#[derive(Clone, Default)]
pub struct Guard {
    pipe: Option<Arc<Mutex<ChildStdin>>>,
}

impl Guard {
    /// Starts the guard: `program` is this one. `data_dir`: of a managed Redis.
    pub fn start(program: &Path, data_dir: Option<&Path>) -> Result<Self, RunnerError> {
        let mut command = Command::new(program);
        command.arg(COMMAND);
        if let Some(data_dir) = data_dir {
            command.arg("--data-dir").arg(data_dir);
        }
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A signal of the terminal is for the runner, which ends everything in order.
            .process_group(0)
            .spawn();
        let mut process = spawned.map_err(|source| RunnerError::Spawn {
            label: COMMAND.to_owned(),
            program: program.to_path_buf(),
            source,
        })?;
        Ok(Self { pipe: process.stdin.take().map(|pipe| Arc::new(Mutex::new(pipe))) })
    }

    /// Tells it of a process that leads a group of its own.
    pub(super) fn watch(&self, label: &str, pid: u32) {
        let Some(pipe) = &self.pipe else { return };
        if let Err(error) = writeln!(lock(pipe), "{pid} {label}") {
            log::error!(
                code = "guard_lost";
                "the guard has ended ({error}): were this runner killed, {label} would run on"
            );
        }
    }
}

/// Waits until the guard of an earlier run on that directory has ended what was left of it.
pub(super) fn wait_for_earlier(data_dir: &Path) -> Result<(), RunnerError> {
    let path = data_dir.join(LOCK_FILE);
    let began = Instant::now();
    while let Ok(file) = File::open(&path) {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_) => return Ok(()),
            Err((_, Errno::EWOULDBLOCK)) if began.elapsed() < PATIENCE => std::thread::sleep(PAUSE),
            Err(_) => return Err(RunnerError::DataDirInUse { data_dir: data_dir.to_path_buf() }),
        }
    }
    Ok(())
}

/// The guard's process: learns of process groups from standard input, and ends them when that does.
pub fn run(data_dir: Option<&Path>) {
    // It lives as long as the runner, whatever others send to it.
    for ignored in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        ignore(ignored);
    }
    let mut groups: Vec<Watched> = Vec::new();
    let mut bound = MANY;
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Some((pid, label)) = line.split_once(' ') else { continue };
        let Some(process) = pid.parse().ok().and_then(one) else { continue };
        groups.push(Watched { label: label.to_owned(), leader: process });
        if groups.len() > bound {
            groups.retain(|group| !group.members().is_empty());
            bound = (2 * groups.len()).max(MANY);
        }
    }
    let ending: Vec<&Watched> = groups.iter().filter(|group| !group.members().is_empty()).collect();
    if ending.is_empty() {
        return;
    }
    // The next start waits for the first; whoever has the second already has adopted this Redis.
    let guarding = data_dir.map(|data_dir| data_dir::lock_named(data_dir, LOCK_FILE));
    let locked = data_dir.map(data_dir::lock);
    let keeps_redis = matches!(locked, Some(Err(_)));
    let class = |group: &&&Watched| match group.label.as_str() {
        REDIS_LABEL => 2,
        SERVER_LABEL => 1,
        _ => 0,
    };
    for (number, grace) in GRACES.into_iter().enumerate() {
        if number == 2 && keeps_redis {
            break;
        }
        let these: Vec<&Watched> = ending.iter().filter(|group| class(group) == number).copied().collect();
        end(&these, grace);
    }
    drop((locked, guarding));
}

fn ignore(ignored: Signal) {
    // A flag that nobody reads.
    let flag = Arc::new(AtomicBool::new(false));
    if let Err(error) = signal_hook::flag::register(ignored as i32, flag) {
        log::error!(code = "guard_lost"; "{ignored} cannot be ignored: {error}");
    }
}

/// A process group, known by its first process.
struct Watched {
    label: String,
    leader: Process,
}

impl Watched {
    /// Its processes that run; none where its id is another group's by now.
    fn members(&self) -> Vec<Process> {
        let members = of_group(self.leader.pid);
        let other =
            members.iter().any(|one| one.pid == self.leader.pid && one.started != self.leader.started);
        if other { Vec::new() } else { members }
    }

    fn signal(&self, signal: Signal) {
        if !self.members().is_empty() {
            let _ = killpg(Pid::from_raw(self.leader.pid), signal);
        }
    }
}

fn end(groups: &[&Watched], grace: Duration) {
    if groups.is_empty() {
        return;
    }
    for group in groups {
        log::warn!(
            code = "left_over_ended", process = group.label.as_str(), pid = group.leader.pid;
            "the runner was killed: {}, pid {}, is ended", group.label, group.leader.pid
        );
        group.signal(Signal::SIGTERM);
    }
    for (signal, wait) in [(None, grace), (Some(Signal::SIGKILL), KILLED)] {
        if let Some(signal) = signal {
            groups.iter().for_each(|group| group.signal(signal));
        }
        let deadline = Instant::now() + wait;
        while groups.iter().any(|group| !group.members().is_empty()) {
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
}
