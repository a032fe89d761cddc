//! What an identity may still be refused. A refusal costs as much as an acceptance and stays on record, so each spends
//! credit, which comes back with time. Who has none left is refused at once, unseen: counted together, and on record once
//! a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// Refusals of an identity that is allowed, at once: what has piled up is refused, and a fleet's mistake is still seen.
const REFUSALS: i64 = 16_384;
/// The same for all together who are not allowed.
const STRANGERS_REFUSALS: i64 = 200;
const STRANGERS_REFUSALS_PER_S: i64 = 20;
/// What calls under way may spend beyond the credit.
const OVERDRAFT: i64 = 500;
const SECOND_US: u64 = 1_000_000;
/// Credit comes back in so many steps a second at most.
const STEPS_PER_S: i64 = 20;

/// Bytes of large answers that may be on their way to an identity at once; one always may.
const MAX_ANSWERING: u64 = 32 * 1024 * 1024;

/// The credit of one identity, or of all strangers.
#[derive(Debug)]
pub(super) struct Conduct {
    /// Bytes of large answers that are on their way.
    answering: AtomicU64,
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
        Self {
            answering: AtomicU64::new(0),
            left: AtomicI64::new(most),
            most,
            per_step,
            step_us,
            step_at_us: AtomicU64::new(0),
        }
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
        let back = steps.saturating_mul(self.per_step).min(room).max(0);
        let _ = self.left.fetch_add(back, Ordering::Relaxed);
    }

    /// What a call may spend that comes now; `None` where nothing is left. It is taken only when it is spent: what is under
    /// way may overdraw it a little.
    pub(super) fn credit(self: &Arc<Self>, cost: i64, now_us: u64) -> Option<Credit> {
        self.refill(now_us);
        (self.left.load(Ordering::Relaxed) > 0).then(|| Credit { conduct: self.clone(), cost })
    }

    fn spend(&self, cost: i64) {
        let _ = self.left.fetch_sub(cost, Ordering::Relaxed);
        let _ = self.left.fetch_max(-OVERDRAFT, Ordering::Relaxed);
    }
}

/// What a call spends where it is refused.
pub struct Credit {
    conduct: Arc<Conduct>,
    cost: i64,
}

impl Credit {
    /// The call was refused, and all that came of it is on record.
    pub fn spend(self) {
        self.conduct.spend(self.cost);
    }

    /// The call was refused because somebody else was faster.
    pub fn spend_one(self) {
        self.conduct.spend(1);
    }
}

impl Credit {
    /// Room for an answer of so many bytes; `None` where too much is on its way that the client does not read.
    pub fn answering(&self, bytes: u64) -> Option<Answering> {
        let conduct = self.conduct.clone();
        let before = conduct.answering.fetch_add(bytes, Ordering::Relaxed);
        let answering = Answering { conduct, bytes };
        (before == 0 || before + bytes <= MAX_ANSWERING).then_some(answering)
    }
}

/// A large answer that is on its way.
pub struct Answering {
    conduct: Arc<Conduct>,
    bytes: u64,
}

impl Drop for Answering {
    fn drop(&mut self) {
        let _ = self.conduct.answering.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    /// How many of 30,000 calls that are all refused are looked at.
    fn refused(conduct: &Arc<Conduct>, second: u64) -> usize {
        let seen = |_: &u32| conduct.credit(1, second * S).map(Credit::spend).is_some();
        (0..30_000).filter(seen).count()
    }

    #[test]
    fn who_is_refused_too_often_has_none_left_and_gets_it_back_with_time() {
        let conduct = Arc::new(Conduct::of_agent(100));
        assert_eq!(refused(&conduct, 1), REFUSALS as usize);
        assert_eq!(refused(&conduct, 2), 100);
        assert_eq!(refused(&conduct, 12), 1000);
        assert_eq!(refused(&conduct, 10_000), REFUSALS as usize);
    }

    #[test]
    fn who_is_never_refused_always_has_some() {
        let conduct = Arc::new(Conduct::of_agent(1));
        let credits: Vec<_> = (0..100_000).map(|n| conduct.credit(65, S + n)).collect();
        assert!(credits.iter().all(Option::is_some));
    }

    #[test]
    fn what_was_under_way_is_paid_back_within_seconds() {
        let conduct = Arc::new(Conduct::of_agent(100));
        let credits: Vec<_> = (0..60_000).filter_map(|_| conduct.credit(1, S)).collect();
        credits.into_iter().for_each(Credit::spend);
        assert_eq!(refused(&conduct, 5), 0);
        assert!(refused(&conduct, 7) > 0);
    }

    #[test]
    fn answers_that_are_not_read_are_bounded() {
        let conduct = Arc::new(Conduct::of_agent(100));
        let credit = conduct.credit(1, S).unwrap();
        let mib = 1024 * 1024;
        let sent: Vec<_> = (0..100).map_while(|_| credit.answering(mib)).collect();
        assert_eq!(sent.len() as u64, MAX_ANSWERING / mib);
        drop(sent);
        let large = credit.answering(10 * MAX_ANSWERING);
        assert!(large.is_some() && credit.answering(1).is_none());
        drop(large);
        assert!(credit.answering(1).is_some(), "what was not answered does not count");
    }

    #[test]
    fn strangers_have_little_together() {
        let conduct = Arc::new(Conduct::of_strangers());
        assert_eq!(refused(&conduct, 1), STRANGERS_REFUSALS as usize);
    }
}
