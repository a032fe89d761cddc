//! What the frames of one identity may cost, over all its connections: held back first, cut where that goes on, and
//! turned away for a while afterwards. Pure: whoever asks brings the time, in microseconds of a clock that never steps.

use super::frames::{Charge, Unit};

/// Shortest time for which frames are held back: less would be a timer for each frame.
const SHORTEST_HOLD_US: u64 = 10_000;
/// How long an identity may be held back for what no honest client keeps doing, until it is cut.
const PATIENCE_US: u64 = 3_000_000;
/// One microsecond of that is forgotten in so many.
const FORGIVEN_IN: u64 = 5;
/// First time for which an identity that was cut is turned away.
const FIRST_PENALTY_US: u64 = 500_000;
/// It doubles with each cut, so many times.
const MAX_DOUBLINGS: u32 = 6;
/// One doubling is forgotten after so long without a cut.
const FORGOTTEN_US: u64 = 60_000_000;

/// Sessions that may be opened at once, as a multiple of those in a second: a fleet that comes back.
const OPENS_AT_ONCE: u64 = 100;

/// Tokens that come back with time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    burst: u64,
    per_s: u64,
    /// Millionths of a token.
    level: u64,
    at_us: u64,
}

const WHOLE: u64 = 1_000_000;

impl Bucket {
    pub(super) const fn new(burst: u64, per_s: u64) -> Self {
        Self { burst, per_s, level: burst * WHOLE, at_us: 0 }
    }

    fn refill(&mut self, now_us: u64) {
        let passed = now_us.saturating_sub(self.at_us);
        self.at_us = self.at_us.max(now_us);
        self.level = self.level.saturating_add(passed.saturating_mul(self.per_s)).min(self.burst * WHOLE);
    }

    /// Takes a token; otherwise the time until there is one.
    pub(super) fn take(&mut self, now_us: u64) -> Result<(), u64> {
        self.refill(now_us);
        match self.level.checked_sub(WHOLE) {
            Some(left) => {
                self.level = left;
                Ok(())
            }
            None => Err((WHOLE - self.level).div_ceil(self.per_s.max(1))),
        }
    }

    fn put_back(&mut self) {
        self.level = (self.level + WHOLE).min(self.burst * WHOLE);
    }

    /// Whether nothing is missing.
    pub(super) fn is_full(&mut self, now_us: u64) -> bool {
        self.refill(now_us);
        self.level == self.burst * WHOLE
    }
}

/// What all identities share: streams that are given up cost the C core most, and several identities that do it together
/// must not cost much more than one may.
#[derive(Debug)]
pub(super) struct Common {
    resets: Bucket,
}

impl Default for Common {
    fn default() -> Self {
        Self { resets: Bucket::new(1_000, 2_500) }
    }
}

/// The frames of one identity.
#[derive(Debug)]
pub(super) struct Budget {
    frames: Bucket,
    blocks: Bucket,
    fields: Bucket,
    /// Those that nobody else's can take away.
    free_resets: Bucket,
    resets: Bucket,
    /// Until then it pays for streams that the server was made to give up.
    owes_until_us: u64,
    windows: Bucket,
    pings: Bucket,
    /// Sessions that are opened.
    opens: Bucket,
    /// Discoveries: each walks all agents.
    discoveries: Bucket,
    /// For how long it was held back for what it should not keep doing.
    held_us: u64,
    /// Until when it is.
    held_until_us: u64,
    doublings: u32,
    penalty_until_us: u64,
}

impl Budget {
    /// Of an identity that may open so many sessions in a second.
    pub(super) fn new(session_opens_per_s: u32) -> Self {
        let opens = u64::from(session_opens_per_s);
        Self {
            frames: Bucket::new(200_000, 400_000),
            blocks: Bucket::new(2_000, 40_000),
            fields: Bucket::new(100_000, 1_000_000),
            free_resets: Bucket::new(500, 100),
            resets: Bucket::new(1_000, 1_500),
            owes_until_us: 0,
            windows: Bucket::new(10_000, 100_000),
            pings: Bucket::new(5_000, 10_000),
            opens: Bucket::new(opens * OPENS_AT_ONCE, opens),
            discoveries: Bucket::new(1_000, 100),
            held_us: 0,
            held_until_us: 0,
            doublings: 0,
            penalty_until_us: 0,
        }
    }
}

impl Budget {
    /// Of all together who are not allowed: enough to be told so.
    pub(super) fn of_strangers() -> Self {
        Self {
            frames: Bucket::new(20_000, 10_000),
            blocks: Bucket::new(200, 200),
            fields: Bucket::new(20_000, 10_000),
            free_resets: Bucket::new(20, 10),
            resets: Bucket::new(100, 50),
            windows: Bucket::new(1_000, 1_000),
            pings: Bucket::new(500, 200),
            ..Self::new(1)
        }
    }

    /// Asks for a unit.
    pub(super) fn charge(&mut self, unit: Unit, common: &mut Common, now_us: u64) -> Charge {
        let begins = matches!(unit, Unit::Call | Unit::EmptyCall | Unit::Block);
        if begins && now_us < self.owes_until_us {
            return Charge::Hold(self.owes_until_us.max(now_us + SHORTEST_HOLD_US));
        }
        let taken = match unit {
            Unit::Reset => return self.reset(common, now_us),
            // Bounded for each connection: `Own`.
            Unit::Frame | Unit::Settings | Unit::Empty => self.frames.take(now_us),
            Unit::Call | Unit::EmptyCall | Unit::Block => self.blocks.take(now_us),
            Unit::Field => self.fields.take(now_us),
            Unit::Window => self.windows.take(now_us),
            Unit::Ping => self.pings.take(now_us),
        };
        let Err(wait_us) = taken else { return Charge::Pass };
        Charge::Hold(now_us + wait_us.max(SHORTEST_HOLD_US))
    }

    /// Whether one more session may be opened.
    pub(super) fn open(&mut self, now_us: u64) -> bool {
        self.opens.take(now_us).is_ok()
    }

    /// Whether one more discovery may be made.
    pub(super) fn discover(&mut self, now_us: u64) -> bool {
        self.discoveries.take(now_us).is_ok()
    }

    fn reset(&mut self, common: &mut Common, now_us: u64) -> Charge {
        if self.free_resets.take(now_us).is_ok() {
            return Charge::Pass;
        }
        if let Err(wait_us) = self.resets.take(now_us) {
            let until_us = now_us + wait_us.max(SHORTEST_HOLD_US);
            if self.hold(now_us, until_us) {
                return Charge::Cut("too many streams given up");
            }
            return Charge::Hold(until_us);
        }
        if let Err(wait_us) = common.resets.take(now_us) {
            // For what others do nobody is cut.
            self.resets.put_back();
            return Charge::Hold(now_us + wait_us.max(SHORTEST_HOLD_US));
        }
        Charge::Pass
    }

    /// The server was made to give up so many streams. They have happened: what is over the budget is owed, and no call
    /// begins before it is paid.
    pub(super) fn owe(&mut self, count: usize, now_us: u64) -> Charge {
        let mut over = 0;
        for _ in 0..count {
            let paid = self.free_resets.take(now_us).is_ok() || self.resets.take(now_us).is_ok();
            over += u64::from(!paid);
        }
        if over > 0 {
            let wait_us = over * WHOLE / self.resets.per_s.max(1);
            self.owes_until_us = self.owes_until_us.max(now_us) + wait_us;
            if self.hold(now_us, self.owes_until_us) {
                return Charge::Cut("too many streams given up");
            }
        }
        Charge::Pass
    }

    /// Counts a time for which it is held back, once for all its connections. True where it is too much.
    fn hold(&mut self, now_us: u64, until_us: u64) -> bool {
        let free_us = now_us.saturating_sub(self.held_until_us);
        self.held_us = self.held_us.saturating_sub(free_us / FORGIVEN_IN);
        self.held_us += until_us.saturating_sub(self.held_until_us.max(now_us));
        self.held_until_us = self.held_until_us.max(until_us);
        if self.held_us > PATIENCE_US {
            self.held_us = 0;
            return true;
        }
        false
    }

    /// A connection was cut: new ones are turned away for a while, longer each time.
    pub(super) fn punish(&mut self, now_us: u64) {
        if now_us < self.penalty_until_us {
            // Several connections at once are one offence.
            return;
        }
        self.forget(now_us);
        self.penalty_until_us = now_us + (FIRST_PENALTY_US << self.doublings);
        self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
    }

    fn forget(&mut self, now_us: u64) {
        let quiet_us = now_us.saturating_sub(self.penalty_until_us);
        let forgotten = u32::try_from(quiet_us / FORGOTTEN_US).unwrap_or(u32::MAX);
        self.doublings = self.doublings.saturating_sub(forgotten);
    }

    /// Whether it is turned away.
    pub(super) fn is_punished(&self, now_us: u64) -> bool {
        now_us < self.penalty_until_us
    }

    /// Whether nothing is remembered that a new one would not know.
    pub(super) fn is_fresh(&mut self, now_us: u64) -> bool {
        self.forget(now_us);
        self.doublings == 0 && !self.is_punished(now_us) && self.free_resets.is_full(now_us)
    }
}

/// What a single connection may do of what honest clients do once or never.
#[derive(Debug)]
pub(super) struct Own {
    settings: Bucket,
    empty: Bucket,
}

impl Default for Own {
    fn default() -> Self {
        Self { settings: Bucket::new(20, 1), empty: Bucket::new(100, 50) }
    }
}

impl Own {
    /// Asks for a unit; more of these is a cut at once.
    pub(super) fn charge(&mut self, unit: Unit, now_us: u64) -> Charge {
        let (bucket, reason) = match unit {
            Unit::Settings => (&mut self.settings, "too many settings"),
            Unit::Empty => (&mut self.empty, "too many empty data frames"),
            _ => return Charge::Pass,
        };
        if bucket.take(now_us).is_ok() { Charge::Pass } else { Charge::Cut(reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000;

    /// Sends `per_s` of a unit for some seconds, as often as it is let: how many passed, and whether it was cut.
    fn send(budget: &mut Budget, unit: Unit, per_s: u64, seconds: u64, from_us: u64) -> (u64, bool) {
        let mut common = Common::default();
        let (mut passed, mut now) = (0, from_us);
        let end = from_us + seconds * S;
        while now < end {
            match budget.charge(unit, &mut common, now) {
                Charge::Pass => {
                    passed += 1;
                    now += S / per_s;
                }
                Charge::Hold(until) => now = until,
                Charge::Cut(_) => return (passed, true),
            }
        }
        (passed, false)
    }

    #[test]
    fn an_honest_canceller_is_never_cut() {
        let mut budget = Budget::new(20);
        assert_eq!(send(&mut budget, Unit::Reset, 1_000, 60, S), (60_000, false));
    }

    #[test]
    fn resets_are_held_back_and_then_cut() {
        let mut budget = Budget::new(20);
        let (passed, cut) = send(&mut budget, Unit::Reset, 70_000, 60, S);
        assert!(cut);
        assert!(passed < 1_500 + 4 * 1_600, "{passed}");
    }

    #[test]
    fn what_the_server_was_made_to_give_up_is_paid_for_before_calls_begin() {
        let (mut budget, mut common) = (Budget::new(20), Common::default());
        assert_eq!(budget.owe(1_500, S), Charge::Pass);
        assert_eq!(budget.charge(Unit::Call, &mut common, S), Charge::Pass);
        assert_eq!(budget.owe(1_500, S), Charge::Pass);
        assert_eq!(budget.charge(Unit::Call, &mut common, S), Charge::Hold(2 * S));
        assert_eq!(budget.charge(Unit::Frame, &mut common, S), Charge::Pass);
        assert_eq!(budget.charge(Unit::Call, &mut common, 2 * S), Charge::Pass);
        assert!(matches!(budget.owe(10_000, 2 * S), Charge::Cut(_)));
    }

    #[test]
    fn streams_are_held_back_and_not_cut() {
        let mut budget = Budget::new(20);
        let (passed, cut) = send(&mut budget, Unit::Block, 200_000, 10, S);
        assert!(!cut);
        assert!((390_000..=403_000).contains(&passed), "{passed}");
    }

    #[test]
    fn connections_that_are_held_back_together_count_once() {
        let mut budget = Budget::new(20);
        for n in 0..100 {
            assert!(!budget.hold(S + n, S + n + 20_000), "{n}");
        }
        assert!(budget.held_us <= 20_100, "{}", budget.held_us);
    }

    #[test]
    fn a_penalty_grows_with_each_cut_and_is_forgotten() {
        let mut budget = Budget::new(20);
        let mut now = S;
        for expected in
            [500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000, 16_000_000, 32_000_000, 32_000_000]
        {
            budget.punish(now);
            budget.punish(now);
            assert!(budget.is_punished(now + expected - 1));
            assert!(!budget.is_punished(now + expected));
            now += expected;
        }
        assert!(!budget.is_fresh(now + FORGOTTEN_US));
        let later = now + 10 * FORGOTTEN_US;
        assert!(budget.is_fresh(later));
        budget.punish(later);
        assert!(!budget.is_punished(later + FIRST_PENALTY_US));
    }

    #[test]
    fn identities_that_reset_together_share_what_one_may() {
        let mut common = Common::default();
        let mut budgets: Vec<Budget> = (0..20).map(|_| Budget::new(20)).collect();
        let mut passed = 0_u64;
        for tick in 0..10_000 {
            let now = S + tick * 100;
            for budget in &mut budgets {
                passed += u64::from(budget.charge(Unit::Reset, &mut common, now) == Charge::Pass);
            }
        }
        // In one second: what each has free, the common burst, and what comes back.
        assert!(passed <= 20 * 601 + 1_000 + 2_500, "{passed}");
    }
}
