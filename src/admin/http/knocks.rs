//! Which refused handshakes are logged: anybody can make them, so there is a line a second at most, and the next one says
//! how many there were besides.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines.
const LOG_EVERY: Duration = Duration::from_secs(1);

/// What was logged, and what was not.
#[derive(Default)]
pub(super) struct Knocks(Mutex<Known>);

#[derive(Default)]
struct Known {
    logged: Option<Instant>,
    left_out: u64,
}

impl Knocks {
    /// Counts one; where it is to be logged, how many were not since the last one that was.
    pub(super) fn count(&self, now: Instant) -> Option<u64> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.logged.is_some_and(|logged| now.saturating_duration_since(logged) < LOG_EVERY) {
            known.left_out += 1;
            return None;
        }
        known.logged = Some(now);
        Some(std::mem::take(&mut known.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_a_second_is_logged_and_the_others_are_counted() {
        let (knocks, start) = (Knocks::default(), Instant::now());
        assert_eq!(knocks.count(start), Some(0));
        assert_eq!(knocks.count(start + LOG_EVERY / 2), None);
        assert_eq!(knocks.count(start + LOG_EVERY), Some(1));
        assert_eq!(knocks.count(start + LOG_EVERY * 2), Some(0));
    }
}
