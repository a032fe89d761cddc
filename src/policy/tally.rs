//! What was counted under each minute of the wall clock: by this server, and by others as far as it knows.
//!
//! Redis holds one total per minute, of all servers. What others have added is that total less what this server has
//! counted under the same minute, whenever it did so: a clock that is set back comes to a minute twice.

/// Minutes whose counts are remembered beside the current one's.
const MAX_EARLIER: usize = 8;
/// Hours of which it is remembered under which minutes something was counted. Without steps of the clock there are
/// four.
const MAX_HOURS: usize = 8;
/// How long Redis may hold what was counted in an hour, in monotonic seconds: two hours after it was written last, and
/// others may write it for as long as the hour lasts.
const STORED_S: u64 = 3 * 3600;

/// The counts of one sender, by minutes (Unix minutes). Times are monotonic seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    current: Minute,
    /// Minutes before it, in the order in which they were left.
    earlier: Vec<Minute>,
    /// In the order in which they were entered; the current minute's is the last.
    hours: Vec<Hour>,
    /// Until then Redis may hold counts of hours that are not remembered.
    hours_lost_until_s: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Minute {
    minute: u64,
    /// Messages that this server has counted.
    own: u32,
    /// Messages of others that this server knows of; `None`: unknown until Redis says a total.
    others: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Hour {
    hour: u64,
    /// A bit for each minute under which something was counted.
    entered: u64,
    until_s: u64,
}

impl Default for Minute {
    fn default() -> Self {
        Self { minute: 0, own: 0, others: Some(0) }
    }
}

impl Tally {
    /// This server has counted a message.
    pub(super) fn count(&mut self, minute: u64, now_s: u64) {
        self.enter(minute, now_s);
        self.current.own = self.current.own.saturating_add(1);
    }

    /// A message that was counted under that minute did not happen.
    pub(super) fn take_back(&mut self, minute: u64) {
        let mut minutes = std::iter::once(&mut self.current).chain(&mut self.earlier);
        if let Some(found) = minutes.find(|known| known.minute == minute) {
            found.own = found.own.saturating_sub(1);
        }
    }

    /// Of `total` messages under that minute on all servers: those of others that were not known.
    pub(super) fn learn(&mut self, minute: u64, total: u32, now_s: u64) -> u32 {
        self.enter(minute, now_s);
        let Minute { own, others, .. } = &mut self.current;
        let Some(known) = others else {
            // This server has counted some of these, it does not remember how many. Rather none of them twice.
            *others = Some(total);
            return 0;
        };
        let new = total.saturating_sub(own.saturating_add(*known));
        *known += new;
        new
    }

    /// Makes `minute` the current one.
    fn enter(&mut self, minute: u64, now_s: u64) {
        let was_entered = self.enter_hour(minute, now_s);
        if self.current.minute == minute {
            return;
        }
        let next = match self.earlier.iter().position(|earlier| earlier.minute == minute) {
            Some(at) => self.earlier.remove(at),
            None => Minute { minute, own: 0, others: (!was_entered).then_some(0) },
        };
        let left = std::mem::replace(&mut self.current, next);
        if self.earlier.len() == MAX_EARLIER {
            let _ = self.earlier.remove(0);
        }
        self.earlier.push(left);
    }

    /// Something is counted under `minute` now; whether Redis may hold some that was counted there before.
    fn enter_hour(&mut self, minute: u64, now_s: u64) -> bool {
        let (hour, bit, until_s) = (minute / 60, 1 << (minute % 60), now_s + STORED_S);
        if let Some(last) = self.hours.last_mut()
            && last.hour == hour
            && last.until_s > now_s
        {
            last.until_s = until_s;
            let was_entered = last.entered & bit != 0;
            last.entered |= bit;
            return was_entered;
        }
        let (hours, earlier) = (&mut self.hours, &mut self.earlier);
        hours.retain(|known| known.until_s > now_s);
        earlier.retain(|earlier| hours.iter().any(|known| known.hour == earlier.minute / 60));
        let known = hours.iter().position(|known| known.hour == hour).map(|at| hours.remove(at));
        let entered = match &known {
            Some(known) => known.entered,
            // Any of its minutes may have been.
            None if now_s < self.hours_lost_until_s => u64::MAX,
            None => 0,
        };
        if hours.len() == MAX_HOURS {
            let oldest = hours.remove(0);
            self.hours_lost_until_s = self.hours_lost_until_s.max(oldest.until_s);
        }
        hours.push(Hour { hour, entered: entered | bit, until_s });
        entered & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_added_is_new() {
        let mut tally = Tally::default();
        tally.count(100, 0);
        tally.count(100, 0);
        assert_eq!(tally.learn(100, 5, 1), 3);
        assert_eq!(tally.learn(100, 5, 2), 0);
        tally.count(100, 3);
        assert_eq!(tally.learn(100, 8, 3), 2);
        // Not in the total yet: another worker's.
        tally.count(100, 4);
        assert_eq!(tally.learn(100, 8, 4), 0);
        tally.take_back(100);
        assert_eq!(tally.learn(100, 9, 5), 1);
    }

    #[test]
    fn a_minute_that_comes_again_holds_what_was_counted_then() {
        let mut tally = Tally::default();
        for minute in [500, 501, 100, 101, 102] {
            tally.count(minute, 0);
        }
        assert_eq!(tally.learn(501, 1, 300), 0);
        assert_eq!(tally.learn(500, 4, 300), 3);
    }

    #[test]
    fn of_a_minute_that_is_not_remembered_nothing_counts_twice() {
        let mut tally = Tally::default();
        for minute in 100..200 {
            tally.count(minute, minute * 60);
        }
        // The clock is set back by an hour.
        let now_s = 200 * 60;
        tally.count(140, now_s);
        assert_eq!(tally.learn(140, 2, now_s), 0);
        // The total was 2 with the own one, which is taken for known, too.
        assert_eq!(tally.learn(140, 5, now_s), 2);
        // A minute that is new is known at once.
        assert_eq!(tally.learn(200, 5, now_s), 5);
        // Redis holds nothing of then by now.
        assert_eq!(tally.learn(141, 5, now_s + 2 * STORED_S), 5);
    }

    #[test]
    fn its_size_has_a_bound() {
        let mut tally = Tally::default();
        for n in 0..10_000_u64 {
            tally.count(n * 7919 % 1000, n);
        }
        assert!(tally.earlier.len() <= MAX_EARLIER && tally.hours.len() <= MAX_HOURS);
        assert!(tally.earlier.capacity() <= MAX_EARLIER && tally.hours.capacity() <= MAX_HOURS);
    }
}
