//! The request to stop, from a signal or from code, in two steps: stop in order, then kill.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::error::RunnerError;
use super::lock::lock;

/// A request to stop that several threads can wait for. Clones share the request.
///
/// The first request means "stop in order", the second one "kill at once".
#[derive(Clone, Default)]
pub struct StopSignal {
    shared: Arc<Shared>,
}

impl StopSignal {
    /// A request that nobody has made yet, and that only code can make.
    pub fn new() -> Self {
        Self::default()
    }

    /// A request that SIGINT, SIGTERM and SIGHUP make too.
    pub fn from_signals() -> Result<Self, RunnerError> {
        let stop = Self::new();
        stop.listen_to_signals()?;
        Ok(stop)
    }

    /// From now on SIGINT, SIGTERM and SIGHUP make the request too: the first asks to stop, the next
    /// one to kill. SIGHUP counts because a closed terminal would otherwise end the runner alone and
    /// leave its children; it does not count when it was ignored from the start (`nohup`).
    pub fn listen_to_signals(&self) -> Result<(), RunnerError> {
        let mut state = self.shared.lock();
        if state.signals.is_some() {
            return Ok(());
        }
        let mut wanted = vec![SIGINT, SIGTERM];
        if !hangup_is_ignored() {
            wanted.push(SIGHUP);
        }
        let failed = |source: io::Error| RunnerError::Signals { source };
        let mut signals = Signals::new(wanted).map_err(failed)?;
        state.signals = Some(signals.handle());
        drop(state);
        // Weak: the last clone's end must end the thread, not wait for it.
        let shared = Arc::downgrade(&self.shared);
        let listen = move || {
            for signal in signals.forever() {
                let Some(shared) = shared.upgrade() else {
                    return;
                };
                log::info!(
                    code = "signal_received", signal = signal_name(signal);
                    "{} received", signal_name(signal)
                );
                Self { shared }.escalate();
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(listen).map_err(failed)?;
        Ok(())
    }

    /// Asks to stop in order.
    pub fn stop(&self) {
        self.raise(Level::Stop);
    }

    /// Asks to kill everything at once.
    pub fn kill(&self) {
        self.raise(Level::Kill);
    }

    /// Asks to stop in order, or, when that has been asked for already, to kill: what a signal does.
    pub fn escalate(&self) {
        let level = if self.is_stopping() { Level::Kill } else { Level::Stop };
        self.raise(level);
    }

    /// Whether a stop (or kill) has been asked for.
    pub fn is_stopping(&self) -> bool {
        self.shared.lock().level >= Level::Stop
    }

    /// Whether a kill has been asked for.
    pub fn is_killing(&self) -> bool {
        self.shared.lock().level == Level::Kill
    }

    /// Waits until a stop is asked for, at most `timeout`. Returns whether it has been.
    pub fn wait(&self, timeout: Duration) -> bool {
        let state = self.shared.lock();
        let waiting =
            self.shared.changed.wait_timeout_while(state, timeout, |state| state.level < Level::Stop);
        let (state, _) = waiting.unwrap_or_else(std::sync::PoisonError::into_inner);
        state.level >= Level::Stop
    }

    /// Runs `action` once when a kill is asked for; at once if it has been already.
    pub fn on_kill(&self, action: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        if state.level == Level::Kill {
            drop(state);
            action();
        } else {
            state.on_kill.push(Box::new(action));
        }
    }

    fn raise(&self, level: Level) {
        let mut state = self.shared.lock();
        if state.level >= level {
            return;
        }
        state.level = level;
        let actions = if level == Level::Kill { std::mem::take(&mut state.on_kill) } else { Vec::new() };
        drop(state);
        self.shared.changed.notify_all();
        // Without the lock: an action may ask for the level.
        for action in actions {
            action();
        }
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    #[default]
    Run,
    Stop,
    Kill,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    level: Level,
    on_kill: Vec<Box<dyn FnOnce() + Send>>,
    /// Set while signals are listened to.
    signals: Option<Handle>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(signals) = self.lock().signals.take() {
            signals.close();
        }
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        SIGHUP => "SIGHUP",
        _ => "signal",
    }
}

/// Whether whoever started this process had it ignore SIGHUP.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_signals(&status).is_some_and(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}

/// The mask of ignored signals in the text of `/proc/PID/status`.
fn ignored_signals(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn the_second_request_kills() {
        let stop = StopSignal::new();
        assert!(!stop.wait(Duration::ZERO));
        stop.escalate();
        assert!(stop.is_stopping() && !stop.is_killing());
        stop.escalate();
        assert!(stop.is_killing());
    }

    #[test]
    fn a_waiting_thread_is_woken() {
        let stop = StopSignal::new();
        let waiting = stop.clone();
        let thread = std::thread::spawn(move || waiting.wait(SOON));
        stop.stop();
        assert!(thread.join().unwrap());
    }

    #[test]
    fn kill_actions_run_once_and_late_ones_at_once() {
        let (ran, actions) = mpsc::channel();
        let stop = StopSignal::new();
        let early = ran.clone();
        stop.on_kill(move || early.send("early").unwrap());
        stop.stop();
        assert!(actions.try_recv().is_err());
        stop.kill();
        stop.kill();
        stop.on_kill(move || ran.send("late").unwrap());
        assert_eq!(actions.iter().collect::<Vec<_>>(), ["early", "late"]);
    }

    #[test]
    fn ignored_signals_are_read_from_the_status() {
        let status = "Name:\tmas\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n";
        assert_eq!(ignored_signals(status), Some(0x1001));
        assert_eq!(ignored_signals("Name:\tmas\n"), None);
    }
}
