//! How many refusals of each identity go on record one by one. A refusal costs whoever asked nothing, and a record stays:
//! beyond its budget an identity's refusals are counted, and the counts go on record once a second.

use std::sync::{Mutex, PoisonError};

use crate::ids::{AgentId, AgentMap};

/// How many seconds' budget may be spent at once.
const BURST_S: u64 = 10;
/// Callers without an allowlisted agent share one budget: this part of an agent's.
const STRANGERS_SHARE: u64 = 10;
/// Tokens are counted in thousandths, so that a millisecond yields a whole number of them.
const WHOLE: u64 = 1000;

/// The budgets of all identities.
#[derive(Debug, Default)]
pub struct RefusalBudgets(Mutex<Budgets>);

#[derive(Debug, Default)]
struct Budgets {
    agents: AgentMap<Bucket>,
    strangers: Option<Bucket>,
}

/// What is left of one budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bucket {
    /// In thousandths.
    tokens: u64,
    /// When it was looked at last (monotonic milliseconds).
    seen_ms: u64,
}

impl Bucket {
    fn full(per_s: u64, now_ms: u64) -> Self {
        Self { tokens: per_s * BURST_S * WHOLE, seen_ms: now_ms }
    }

    /// Takes one token, if there is one.
    fn take(&mut self, per_s: u64, now_ms: u64) -> bool {
        let gained = now_ms.saturating_sub(self.seen_ms).saturating_mul(per_s);
        self.tokens = self.tokens.saturating_add(gained).min(per_s * BURST_S * WHOLE);
        self.seen_ms = self.seen_ms.max(now_ms);
        match self.tokens.checked_sub(WHOLE) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }
}

impl RefusalBudgets {
    /// Whether one more refusal goes on record by itself. `agent`: the allowlisted agent that is refused something;
    /// `None`: anybody else. `per_s`: an agent's budget.
    pub fn take(&self, agent: Option<&AgentId>, per_s: u32, now_ms: u64) -> bool {
        let per_s = u64::from(per_s);
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match agent {
            Some(agent) => {
                let full = || Bucket::full(per_s, now_ms);
                budgets.agents.entry(agent.clone()).or_insert_with(full).take(per_s, now_ms)
            }
            None => {
                let per_s = per_s.div_ceil(STRANGERS_SHARE);
                budgets.strangers.get_or_insert_with(|| Bucket::full(per_s, now_ms)).take(per_s, now_ms)
            }
        }
    }

    /// Forgets the budgets of agents that are not configured any more.
    pub fn retain(&self, is_configured: impl Fn(&AgentId) -> bool) {
        let mut budgets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        budgets.agents.retain(|agent, _| is_configured(agent));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In no span does an identity get more than what is saved up, and its rate.
        #[test]
        fn no_more_is_recorded_than_the_budget(
            per_s in 1u32..1000, waits in proptest::collection::vec(0u64..400, 1..400)
        ) {
            let budgets = RefusalBudgets::default();
            let agent = AgentId::parse("a").unwrap();
            let (mut now_ms, mut taken) = (1_000_000, 0u64);
            for wait in waits {
                now_ms += wait;
                taken += u64::from(budgets.take(Some(&agent), per_s, now_ms));
                let bound = u64::from(per_s) * BURST_S + (now_ms - 1_000_000) * u64::from(per_s) / WHOLE + 1;
                prop_assert!(taken <= bound);
            }
        }
    }

    #[test]
    fn a_spent_budget_comes_back_with_time_and_is_nobody_elses() {
        let budgets = RefusalBudgets::default();
        let (a, b) = (AgentId::parse("a").unwrap(), AgentId::parse("b").unwrap());
        assert_eq!((0..1000).filter(|_| budgets.take(Some(&a), 20, 5)).count(), 200);
        assert!(budgets.take(Some(&b), 20, 5) && budgets.take(None, 20, 5));
        assert_eq!((0..1000).filter(|_| budgets.take(Some(&a), 20, 1005)).count(), 20);
        // Strangers have one budget, a tenth of an agent's.
        assert_eq!((0..1000).filter(|_| budgets.take(None, 20, 5)).count(), 19);
        budgets.retain(|agent| *agent == b);
        assert!(budgets.take(Some(&a), 20, 1005), "configured again");
    }
}
