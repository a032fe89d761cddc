//! What an identity may still be refused. A refusal costs as much as an acceptance and stays on record, so each call
//! takes credit when it comes, and has it back unless it is refused. Who has none left is refused at once, unseen: counted
//! together, and on record once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Refusals of an identity that is allowed, at once: more than it may have under way on all its sessions.
const REFUSALS: i64 = 16_384;
/// The same for all together who are not allowed.
const STRANGERS_REFUSALS: i64 = 200;
const STRANGERS_REFUSALS_PER_S: i64 = 20;
const SECOND_US: u64 = 1_000_000;
/// Credit comes back in so many steps a second at most.
const STEPS_PER_S: i64 = 20;

/// The credit of one identity, or of all strangers.
#[derive(Debug)]
pub(super) struct Conduct {
    left: AtomicI64,
    most: i64,
    per_step: i64,
    step_us: u64,
    step_at_us: AtomicU64,
}

impl Conduct {
    fn with(most: i64, per_s: i64) -> Self {
        let steps_per_s = STEPS_PER_S.min(per_s.max(1));
        let (per_step, step_us) = (per_s / steps_per_s, SECOND_US / steps_per_s.unsigned_abs());
        Self { left: AtomicI64::new(most), most, per_step, step_us, step_at_us: AtomicU64::new(0) }
    }

    /// The one of an agent that is allowed.
    pub(super) fn of_agent(refusals_per_s: u32) -> Self {
        let per_s = i64::from(refusals_per_s);
        Self::with(REFUSALS.max(per_s), per_s)
    }

    /// The one that all strangers share.
    pub(super) fn of_strangers() -> Self {
        Self::with(STRANGERS_REFUSALS, STRANGERS_REFUSALS_PER_S)
    }

    fn refill(&self, now_us: u64) {
        let at_us = self.step_at_us.load(Ordering::Relaxed);
        let steps = now_us.saturating_sub(at_us) / self.step_us;
        let next_us = at_us + steps * self.step_us;
        let taken = self.step_at_us.compare_exchange(at_us, next_us, Ordering::Relaxed, Ordering::Relaxed);
        if steps == 0 || taken.is_err() {
            // Nothing to add, or somebody else adds it.
            return;
        }
        let room = self.most - self.left.load(Ordering::Relaxed);
        let steps = i64::try_from(steps).unwrap_or(i64::MAX);
        self.give_back(steps.saturating_mul(self.per_step).min(room).max(0));
    }

    /// Takes so much, where there is any.
    pub(super) fn take(&self, count: i64, now_us: u64) -> bool {
        self.refill(now_us);
        if self.left.fetch_sub(count, Ordering::Relaxed) > 0 {
            return true;
        }
        self.give_back(count);
        false
    }

    /// The same as credit that comes back.
    pub(super) fn credit(self: &Arc<Self>, count: i64, now_us: u64) -> Option<Credit> {
        self.take(count, now_us).then(|| Credit::new(self, count))
    }

    fn give_back(&self, count: i64) {
        let _ = self.left.fetch_add(count, Ordering::Relaxed);
    }
}

/// What a call has taken; given back when it is dropped.
pub struct Credit {
    conduct: Option<Arc<Conduct>>,
    count: i64,
}

impl Credit {
    fn new(conduct: &Arc<Conduct>, count: i64) -> Self {
        Self { conduct: Some(conduct.clone()), count }
    }

    /// The call was refused: it is not given back.
    pub fn spend(mut self) {
        self.conduct = None;
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        if let Some(conduct) = &self.conduct {
            conduct.give_back(self.count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    #[test]
    fn who_is_refused_too_often_has_none_left_and_gets_it_back_with_time() {
        let conduct = Conduct::of_agent(100);
        let refused = |seconds: u64| (0..30_000).filter(|_| conduct.take(1, seconds * S)).count();
        assert_eq!(refused(1), REFUSALS as usize);
        assert_eq!(refused(2), 100);
        assert_eq!(refused(12), 10 * 100);
        assert_eq!(refused(10_000), REFUSALS as usize);
    }

    #[test]
    fn who_is_never_refused_always_has_some() {
        let conduct = Conduct::of_agent(100);
        for n in 0..100_000 {
            assert!(conduct.take(1, S + n));
            conduct.give_back(1);
        }
        assert_eq!(conduct.left.load(Ordering::Relaxed), REFUSALS);
    }

    #[test]
    fn strangers_have_little_together() {
        let conduct = Conduct::of_strangers();
        assert_eq!((0..1000).filter(|_| conduct.take(1, S)).count(), STRANGERS_REFUSALS as usize);
    }
}
