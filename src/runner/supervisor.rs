//! Keeps processes running: one thread that learns of every end and starts again what has to run.

use std::process::ExitStatus;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::child::{Child, ChildSpec, KILL_TIMEOUT, ReadyLine};
use super::error::RunnerError;
use super::forward::LineSink;
use super::guard::Guard;
use super::lock::lock;
use crate::config::Restart;

/// Wait before the first restart.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(200);
/// Longest wait before a restart.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A process that has lived this long counts as healthy: the waits start over.
pub(super) const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// The waits before restarts: they double while a process keeps ending soon.
#[derive(Debug, Clone)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    /// The sequence from its start.
    pub fn new() -> Self {
        Self { next: FIRST_BACKOFF }
    }

    /// The wait before the next start of a process that has lived for `lived`.
    pub fn after(&mut self, lived: Duration) -> Duration {
        if lived >= HEALTHY_AFTER {
            self.next = FIRST_BACKOFF;
        }
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(MAX_BACKOFF);
        wait
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

/// One place for a process in a supervisor; the processes that take it follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotId(usize);

/// Runs processes and restarts them as their specifications say. Dropping it kills them.
pub struct Supervisor {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Supervisor {
    /// A supervisor without processes. `name` is for its thread and its messages.
    pub fn start(name: &str, sink: LineSink, guard: Guard) -> Result<Self, RunnerError> {
        let (sender, events) = mpsc::channel();
        let shared = Arc::new(Shared {
            sink,
            guard,
            events: sender,
            state: Mutex::new(State { slots: Vec::new(), phase: Phase::Running }),
        });
        let supervised = shared.clone();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || supervised.run(&events))
            .map_err(|source| RunnerError::Thread { label: name.to_owned(), source })?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Starts a process now and supervises it.
    pub fn supervise(&self, spec: ChildSpec) -> Result<SlotId, RunnerError> {
        let mut state = self.shared.lock();
        if !matches!(state.phase, Phase::Running) {
            return Err(RunnerError::Stopped);
        }
        let slot = SlotId(state.slots.len());
        let child = self.shared.spawn(slot, &spec)?;
        state.slots.push(Slot {
            spec,
            child: Some(child),
            started: Instant::now(),
            backoff: Backoff::new(),
            restart_at: None,
            last_status: None,
        });
        Ok(slot)
    }

    /// From now on `spec` is what is started in the slot. If its process has ended already, the new
    /// `restart` decides whether it is started again.
    pub fn set_spec(&self, slot: SlotId, spec: ChildSpec) {
        let mut state = self.shared.lock();
        let running = matches!(state.phase, Phase::Running);
        if let Some(slot) = state.slots.get_mut(slot.0) {
            slot.spec = spec;
            if let (None, None, Some(status)) = (&slot.child, slot.restart_at, slot.last_status) {
                slot.plan_restart(status, running);
            }
        }
        drop(state);
        // The thread has to look at its deadlines anew.
        self.shared.send(Event::Changed);
    }

    /// The process in the slot, if one runs.
    pub fn child(&self, slot: SlotId) -> Option<Arc<Child>> {
        self.shared.lock().slots.get(slot.0)?.child.clone()
    }

    /// Waits for the announcement of the process in the slot, at most `timeout`.
    pub fn wait_ready(&self, slot: SlotId, timeout: Duration) -> Result<ReadyLine, RunnerError> {
        let state = self.shared.lock();
        let slot = state.slots.get(slot.0);
        if let Some(child) = slot.and_then(|slot| slot.child.clone()) {
            drop(state);
            return child.wait_ready(timeout);
        }
        let label = slot.map_or_else(String::new, |slot| slot.spec.label.clone());
        Err(match slot.and_then(|slot| slot.last_status) {
            Some(status) => RunnerError::EndedEarly { label, status },
            None => RunnerError::NotReady { label, timeout },
        })
    }

    /// Slots with a process that runs or will be started again.
    pub fn active(&self) -> usize {
        let state = self.shared.lock();
        let active = |slot: &&Slot| slot.child.is_some() || slot.restart_at.is_some();
        state.slots.iter().filter(active).count()
    }

    /// Asks all processes to end, kills after `grace` what has not, and returns when all have ended.
    /// Nothing is started any more.
    pub fn stop(&self, grace: Duration) {
        self.shared.send(Event::Stop(grace));
        let mut thread = lock(&self.thread);
        if thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!(
                code = "thread_panicked", part = "supervisor";
                "a supervisor ended by a panic"
            );
        }
    }

    /// A function that kills all processes at once, without waiting for their end. Nothing is started
    /// any more.
    pub fn killer(&self) -> impl FnOnce() + Send + 'static {
        let events = self.shared.events.clone();
        // Without a receiver there are no processes left to kill.
        move || drop(events.send(Event::Kill))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

enum Event {
    Exited(SlotId, ExitStatus),
    Changed,
    Stop(Duration),
    Kill,
}

struct Shared {
    sink: LineSink,
    /// Is told of each process.
    guard: Guard,
    events: Sender<Event>,
    state: Mutex<State>,
}

struct State {
    slots: Vec<Slot>,
    phase: Phase,
}

#[derive(Clone, Copy)]
enum Phase {
    Running,
    /// Asked to end; those that are left are killed at the given time.
    Stopping(Instant),
    /// Killed; those that are left are given up at the given time.
    Killed(Instant),
}

struct Slot {
    spec: ChildSpec,
    child: Option<Arc<Child>>,
    started: Instant,
    backoff: Backoff,
    restart_at: Option<Instant>,
    last_status: Option<ExitStatus>,
}

impl Slot {
    fn plan_restart(&mut self, status: ExitStatus, running: bool) {
        let label = &self.spec.label;
        if running && restarts(self.spec.restart, status) {
            let wait = self.backoff.after(self.started.elapsed());
            log::warn!(
                code = "process_ended", process = label;
                "{label} ended ({status}), starts again in {wait:?}"
            );
            self.restart_at = Some(Instant::now() + wait);
        } else {
            log::info!(code = "process_ended", process = label; "{label} ended ({status})");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn send(&self, event: Event) {
        // The receiver is gone when the thread has ended: nothing is left to be done then.
        let _ = self.events.send(event);
    }

    fn spawn(&self, slot: SlotId, spec: &ChildSpec) -> Result<Arc<Child>, RunnerError> {
        let events = self.events.clone();
        let on_exit = move |status| drop(events.send(Event::Exited(slot, status)));
        Child::start(spec, &self.sink, &self.guard, on_exit).map(Arc::new)
    }

    fn run(&self, events: &Receiver<Event>) {
        loop {
            let wake_at = self.lock().wake_at();
            let event = match wake_at {
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => events.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            let mut state = self.lock();
            match event {
                Ok(Event::Exited(slot, status)) => state.exited(slot, status),
                Ok(Event::Stop(grace)) => state.stop(grace),
                Ok(Event::Kill) => state.kill(),
                Ok(Event::Changed) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            match state.phase {
                Phase::Running => self.start_due(&mut state),
                Phase::Stopping(_) | Phase::Killed(_) if state.running().next().is_none() => return,
                Phase::Stopping(kill_at) if kill_at <= Instant::now() => {
                    for child in state.running() {
                        log::warn!(
                            code = "process_killed", process = child.label();
                            "{} did not end in time: killed", child.label()
                        );
                    }
                    state.kill();
                }
                Phase::Killed(give_up_at) if give_up_at <= Instant::now() => {
                    for child in state.running() {
                        log::error!(
                            code = "process_survives", process = child.label(), pid:% = child.pid();
                            "{}, pid {}, survives SIGKILL", child.label(), child.pid()
                        );
                    }
                    return;
                }
                Phase::Stopping(_) | Phase::Killed(_) => {}
            }
        }
    }

    fn start_due(&self, state: &mut State) {
        let now = Instant::now();
        for (index, slot) in state.slots.iter_mut().enumerate() {
            if slot.restart_at.is_none_or(|at| at > now) {
                continue;
            }
            slot.started = now;
            match self.spawn(SlotId(index), &slot.spec) {
                Ok(child) => {
                    slot.child = Some(child);
                    slot.restart_at = None;
                }
                Err(error) => {
                    let wait = slot.backoff.after(Duration::ZERO);
                    log::error!(code = "process_not_started"; "{error}; next try in {wait:?}");
                    slot.restart_at = Some(now + wait);
                }
            }
        }
    }
}

impl State {
    fn wake_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Running => self.slots.iter().filter_map(|slot| slot.restart_at).min(),
            Phase::Stopping(at) | Phase::Killed(at) => Some(at),
        }
    }

    fn running(&self) -> impl Iterator<Item = &Arc<Child>> {
        self.slots.iter().filter_map(|slot| slot.child.as_ref())
    }

    fn exited(&mut self, slot: SlotId, status: ExitStatus) {
        let running = matches!(self.phase, Phase::Running);
        if let Some(slot) = self.slots.get_mut(slot.0) {
            slot.child = None;
            slot.last_status = Some(status);
            slot.plan_restart(status, running);
        }
    }

    fn stop(&mut self, grace: Duration) {
        if matches!(self.phase, Phase::Running) {
            self.start_nothing();
            self.signal_all(Signal::SIGTERM);
            self.phase = Phase::Stopping(Instant::now() + grace);
        }
    }

    fn kill(&mut self) {
        if !matches!(self.phase, Phase::Killed(_)) {
            self.start_nothing();
            self.signal_all(Signal::SIGKILL);
            self.phase = Phase::Killed(Instant::now() + KILL_TIMEOUT);
        }
    }

    fn start_nothing(&mut self) {
        for slot in &mut self.slots {
            slot.restart_at = None;
        }
    }

    fn signal_all(&self, signal: Signal) {
        for child in self.running() {
            child.signal(signal);
        }
    }
}

fn restarts(restart: Restart, status: ExitStatus) -> bool {
    match restart {
        Restart::Always => true,
        Restart::OnFailure => !status.success(),
        Restart::Never => false,
    }
}

#[cfg(test)]
mod tests;
