//! A circuit breaker for one target: handlers that fail open it, a slow or absent one does not.
//!
//! Closed → open after `failure_threshold` failures within `window_seconds`; open → half-open after
//! `timeout_seconds`; half-open admits one trial at a time; `success_threshold` successes close it, one
//! failure opens it again.

use std::collections::VecDeque;

use crate::config::BreakerConfig;

/// The state that operators see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// Messages pass.
    Closed,
    /// Nothing passes.
    Open,
    /// One trial at a time passes.
    HalfOpen,
}

impl Circuit {
    /// As stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Open => "OPEN",
            Self::HalfOpen => "HALF_OPEN",
        }
    }
}

/// The breaker of one target. Time is monotonic milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breaker {
    /// When the handlers failed, oldest first; at most `failure_threshold`.
    failures: VecDeque<u64>,
    /// When it opened, while it is not closed.
    opened_ms: Option<u64>,
    successes: u32,
    /// When the trial under way was admitted.
    trial_ms: Option<u64>,
}

impl Breaker {
    /// A breaker that was open when an earlier server last said so: it goes on being open from now.
    pub fn reopened(now_ms: u64) -> Self {
        Self { opened_ms: Some(now_ms), ..Self::default() }
    }

    /// The state at `now_ms`.
    pub fn circuit(&self, config: &BreakerConfig, now_ms: u64) -> Circuit {
        match self.opened_ms {
            None => Circuit::Closed,
            Some(opened_ms) if now_ms < opened_ms + config.timeout_seconds * 1000 => Circuit::Open,
            Some(_) => Circuit::HalfOpen,
        }
    }

    /// Whether a message may pass now.
    pub fn admits(&self, config: &BreakerConfig, now_ms: u64) -> bool {
        match self.circuit(config, now_ms) {
            Circuit::Closed => true,
            Circuit::Open => false,
            // A trial that nobody answers does not block the next one for ever.
            Circuit::HalfOpen => {
                self.trial_ms.is_none_or(|trial_ms| now_ms >= trial_ms + config.timeout_seconds * 1000)
            }
        }
    }

    /// A message that was admitted is on its way.
    pub fn admitted(&mut self, config: &BreakerConfig, now_ms: u64) {
        if self.circuit(config, now_ms) == Circuit::HalfOpen {
            self.trial_ms = Some(now_ms);
        }
    }

    /// A handler succeeded; true when that closed the circuit.
    pub fn succeeded(&mut self, config: &BreakerConfig, now_ms: u64) -> bool {
        if self.circuit(config, now_ms) != Circuit::HalfOpen {
            return false;
        }
        self.trial_ms = None;
        self.successes += 1;
        if self.successes < config.success_threshold {
            return false;
        }
        *self = Self::default();
        true
    }

    /// A handler failed; true when that opened the circuit.
    pub fn failed(&mut self, config: &BreakerConfig, now_ms: u64) -> bool {
        match self.circuit(config, now_ms) {
            Circuit::Open => false,
            Circuit::HalfOpen => {
                *self = Self::reopened(now_ms);
                true
            }
            Circuit::Closed => {
                let window_ms = config.window_seconds * 1000;
                self.failures.push_back(now_ms);
                while self.failures.front().is_some_and(|at_ms| at_ms + window_ms <= now_ms) {
                    let _ = self.failures.pop_front();
                }
                if self.failures.len() < config.failure_threshold as usize {
                    return false;
                }
                *self = Self::reopened(now_ms);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CONFIG: BreakerConfig =
        BreakerConfig { failure_threshold: 3, success_threshold: 2, timeout_seconds: 10, window_seconds: 30 };

    #[test]
    fn failures_within_the_window_open_it() {
        let mut breaker = Breaker::default();
        assert!(!breaker.failed(&CONFIG, 0));
        assert!(!breaker.failed(&CONFIG, 1000));
        assert!(breaker.admits(&CONFIG, 1000));
        // The first one is too old by now.
        assert!(!breaker.failed(&CONFIG, 30_000));
        assert!(breaker.failed(&CONFIG, 30_500));
        assert_eq!(breaker.circuit(&CONFIG, 30_500), Circuit::Open);
        assert!(!breaker.admits(&CONFIG, 40_499));
    }

    #[test]
    fn half_open_admits_one_trial_at_a_time_and_closes_after_enough_successes() {
        let mut breaker = Breaker::reopened(0);
        assert!(breaker.admits(&CONFIG, 10_000));
        breaker.admitted(&CONFIG, 10_000);
        assert!(!breaker.admits(&CONFIG, 10_001), "one at a time");
        assert!(!breaker.succeeded(&CONFIG, 10_002));
        assert!(breaker.admits(&CONFIG, 10_003));
        breaker.admitted(&CONFIG, 10_003);
        assert!(breaker.succeeded(&CONFIG, 10_004));
        assert_eq!(breaker.circuit(&CONFIG, 10_004), Circuit::Closed);
    }

    #[test]
    fn a_failed_trial_opens_it_again() {
        let mut breaker = Breaker::reopened(0);
        breaker.admitted(&CONFIG, 10_000);
        assert!(breaker.failed(&CONFIG, 10_001));
        assert!(!breaker.admits(&CONFIG, 20_000));
        assert!(breaker.admits(&CONFIG, 20_001));
    }

    #[test]
    fn a_trial_that_nobody_answers_does_not_block_for_ever() {
        let mut breaker = Breaker::reopened(0);
        breaker.admitted(&CONFIG, 10_000);
        assert!(!breaker.admits(&CONFIG, 19_999));
        assert!(breaker.admits(&CONFIG, 20_000));
    }

    proptest! {
        #[test]
        fn it_never_remembers_more_than_it_needs(steps in proptest::collection::vec((0u64..5000, 0u8..3), 0..300)) {
            let mut breaker = Breaker::default();
            let mut now_ms = 0;
            for (gap, step) in steps {
                now_ms += gap;
                match step {
                    0 => { let _ = breaker.failed(&CONFIG, now_ms); }
                    1 => { let _ = breaker.succeeded(&CONFIG, now_ms); }
                    _ => if breaker.admits(&CONFIG, now_ms) { breaker.admitted(&CONFIG, now_ms) },
                }
                prop_assert!(breaker.failures.len() < CONFIG.failure_threshold as usize);
            }
        }
    }
}
