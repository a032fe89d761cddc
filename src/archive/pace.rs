//! How hard the archiving thread works: half of the time, so that messages are not kept waiting for a core or for Redis.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Work after which it rests.
const STEP: Duration = Duration::from_millis(2);
/// Longest rest after a step, however long that took.
const MAX_REST: Duration = Duration::from_millis(100);

/// Rests between steps of work, and hears of the stop while it rests.
#[derive(Debug)]
pub(super) struct Pace {
    stop: Receiver<()>,
    stopped: bool,
    /// No rest: there is too much to do.
    pub(super) hurry: bool,
    began: Instant,
}

impl Pace {
    /// `stop` is heard, or its sender gone, when the thread is to end.
    pub(super) fn new(stop: Receiver<()>) -> Self {
        Self { stop, stopped: false, hurry: false, began: Instant::now() }
    }

    /// Called between parts of the work: rests for as long as the last step took.
    pub(super) fn step(&mut self) {
        let worked = self.began.elapsed();
        if worked < STEP || self.hurry {
            return;
        }
        let _ = self.rest(worked.min(MAX_REST));
    }

    /// Whether the thread is to end.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Waits; true once the thread is to end, and then at once.
    pub(super) fn rest(&mut self, rest: Duration) -> bool {
        self.stopped = self.stopped || self.stop.recv_timeout(rest) != Err(RecvTimeoutError::Timeout);
        self.began = Instant::now();
        self.stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn worked(pace: &mut Pace, for_ms: u64) {
        pace.began = Instant::now() - Duration::from_millis(for_ms);
    }

    #[test]
    fn it_rests_as_long_as_it_worked_unless_it_is_in_a_hurry_or_to_end() {
        let (stop, stopped) = channel();
        let mut pace = Pace::new(stopped);
        let timed = |pace: &mut Pace| {
            let began = Instant::now();
            pace.step();
            began.elapsed()
        };
        worked(&mut pace, 20);
        assert!(timed(&mut pace) >= Duration::from_millis(20));
        // Just begun, on however slow a machine: no rest, and what was worked counts on.
        pace.began = Instant::now() + Duration::from_secs(60);
        let before = pace.began;
        pace.step();
        assert_eq!(pace.began, before, "it went on");
        pace.hurry = true;
        worked(&mut pace, 20);
        let before = pace.began;
        pace.step();
        assert_eq!(pace.began, before, "it went on");
        pace.hurry = false;
        stop.send(()).unwrap();
        pace.step();
        assert!(pace.is_stopped());
        assert!(pace.rest(Duration::from_secs(600)), "at once");
    }
}
