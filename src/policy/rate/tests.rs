use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// A wall clock that is right at the start.
const WALL_S: u64 = 1_700_000_000;

fn at(mono_s: u64) -> Now {
    stepped(mono_s, 0)
}

/// The wall clock is so many seconds ahead.
fn stepped(mono_s: u64, ahead_s: i64) -> Now {
    let unix_s = (WALL_S + mono_s).strict_add_signed(ahead_s);
    Now { unix_us: unix_s * 1_000_000, mono_ms: mono_s * 1000 }
}

/// What Redis holds of one sender: minutes and counts, in a key per hour that ends two hours after it was last written.
#[derive(Default)]
struct Stored {
    hours: HashMap<u64, (HashMap<u64, u32>, u64)>,
}

impl Stored {
    fn add(&mut self, now: Now) -> u32 {
        let mono_s = now.mono_ms / 1000;
        self.hours.retain(|_, (_, until_s)| *until_s > mono_s);
        let (minutes, until_s) = self.hours.entry(now.unix_minute() / 60).or_default();
        *until_s = mono_s + 7200;
        let total = minutes.entry(now.unix_minute()).or_default();
        *total += 1;
        *total
    }

    fn read(&self, now: Now) -> Vec<(u64, u32)> {
        let hour = now.unix_minute() / 60;
        let read = [hour - 1, hour].into_iter().filter_map(|hour| self.hours.get(&hour));
        read.flat_map(|(minutes, _)| minutes.iter().map(|(minute, count)| (*minute, *count))).collect()
    }
}

#[test]
fn the_limit_is_the_limit() {
    let mut sent = Sent::default();
    let limit = RateLimit::default();
    for _ in 0..100 {
        sent.admit(limit, at(0)).unwrap();
    }
    let limited = sent.admit(limit, at(0)).unwrap_err();
    assert_eq!(limited, Limited { window: "per_minute", retry_after_ms: 61_000 });
    assert!(sent.admit(limit, at(60)).is_err());
    assert!(sent.admit(limit, at(61)).is_ok());
}

#[test]
fn the_hour_counts_too() {
    let mut sent = Sent::default();
    let limit = RateLimit { per_minute: 1000, per_hour: 5 };
    for n in 0..5 {
        sent.admit(limit, at(n)).unwrap();
    }
    assert_eq!(sent.admit(limit, at(3600)).unwrap_err().window, "per_hour");
    assert!(sent.admit(limit, at(3660)).is_ok());
}

#[test]
fn a_clock_that_was_ahead_limits_nobody_for_longer() {
    let mut sent = Sent::default();
    let limit = RateLimit { per_minute: 5, per_hour: 1000 };
    sent.admit(limit, stepped(0, 7200)).unwrap();
    for _ in 0..4 {
        sent.admit(limit, at(0)).unwrap();
    }
    assert!(sent.admit(limit, at(0)).is_err());
    for _ in 0..5 {
        sent.admit(limit, at(61)).unwrap();
    }
    assert!(sent.admit(limit, at(61)).is_err());
}

#[test]
fn a_clock_that_steps_forward_lets_nothing_more_through() {
    let mut sent = Sent::default();
    let limit = RateLimit { per_minute: 1, per_hour: 10 };
    sent.admit(limit, at(0)).unwrap();
    assert!(sent.admit(limit, stepped(1, 7200)).is_err());
}

#[test]
fn a_message_is_taken_back_from_where_it_was_counted() {
    let mut sent = Sent::default();
    let limit = RateLimit { per_minute: 2, per_hour: 100 };
    let first = sent.admit(limit, at(0)).unwrap();
    sent.admit(limit, at(30)).unwrap();
    sent.take_back(first);
    sent.admit(limit, at(61)).unwrap();
    assert!(sent.admit(limit, at(61)).is_err());
    // Too old to count anywhere.
    let before = sent.clone();
    sent.take_back(first);
    assert_eq!(sent.minute, before.minute);
}

#[test]
fn what_others_sent_counts_once() {
    let mut sent = Sent::default();
    let limit = RateLimit { per_minute: 10, per_hour: 100 };
    for _ in 0..3 {
        sent.admit(limit, at(0)).unwrap();
    }
    // Six in all: three of them elsewhere.
    sent.learn(6, at(0));
    sent.learn(6, at(0));
    for _ in 0..4 {
        sent.admit(limit, at(1)).unwrap();
    }
    assert!(sent.admit(limit, at(1)).is_err());
}

#[test]
fn what_was_sent_before_a_restart_still_counts() {
    let limit = RateLimit { per_minute: 10, per_hour: 20 };
    let (mut before, mut stored) = (Sent::default(), Stored::default());
    for n in 0..10 {
        before.admit(limit, at(n)).unwrap();
        let _ = stored.add(at(n));
    }
    let restarted = |mono_s| {
        let mut after = Sent::default();
        // The monotonic clock begins anew.
        after.restore(stored.read(at(mono_s)), stepped(0, mono_s as i64));
        after
    };
    assert_eq!(restarted(12).admit(limit, stepped(0, 12)).unwrap_err().window, "per_minute");
    let mut later = restarted(300);
    for _ in 0..10 {
        later.admit(limit, stepped(0, 300)).unwrap();
    }
    assert_eq!(later.admit(limit, stepped(61, 300)).unwrap_err().window, "per_hour");
    let mut much_later = restarted(3700);
    for _ in 0..10 {
        much_later.admit(limit, stepped(0, 3700)).unwrap();
    }
    assert_eq!(much_later.admit(limit, stepped(0, 3700)).unwrap_err().window, "per_minute");
    assert!(much_later.admit(limit, stepped(61, 3700)).is_ok());
}

#[test]
fn what_is_stored_is_counted_once_after_a_restart() {
    let limit = RateLimit { per_minute: 5, per_hour: 20 };
    let mut stored = Stored::default();
    for _ in 0..3 {
        let _ = stored.add(at(0));
    }
    let mut sent = Sent::default();
    sent.restore(stored.read(at(0)), at(0));
    for _ in 0..2 {
        sent.admit(limit, at(0)).unwrap();
        sent.learn(stored.add(at(0)), at(0));
    }
    assert!(sent.admit(limit, at(0)).is_err());
    assert_eq!((sent.minute.total, sent.hour.total), (5, 5));
}

#[test]
fn minutes_to_come_do_not_count_when_they_come() {
    let limit = RateLimit { per_minute: 2, per_hour: 3 };
    let mut stored = Stored::default();
    for _ in 0..3 {
        let _ = stored.add(stepped(0, 600));
    }
    // One minute ahead is no more than another server's clock may be.
    let _ = stored.add(stepped(0, 60));
    let mut sent = Sent::default();
    sent.restore(stored.read(at(0)), at(0));
    assert_eq!(sent.hour.total, 1);
    sent.admit(limit, at(600)).unwrap();
    sent.learn(stored.add(at(600)), at(600));
    assert_eq!(sent.hour.total, 2);
}

#[test]
fn a_message_that_did_not_happen_is_dropped_and_one_that_did_is_kept() {
    use std::sync::{Arc, Mutex};

    use crate::policy::Counted;

    let sent = Arc::new(Mutex::new(Sent::default()));
    let limit = RateLimit { per_minute: 1, per_hour: 10 };
    let count = |mono_s| {
        let place = sent.lock().unwrap().admit(limit, at(mono_s))?;
        Ok::<_, Limited>(Counted::new(sent.clone(), place))
    };
    drop(count(0).unwrap());
    let counted = count(1).unwrap();
    assert!(count(1).is_err());
    counted.keep();
    assert!(count(2).is_err());
    assert_eq!(sent.lock().unwrap().hour.total, 1);
}

/// Seconds until the next message, and a step of the wall clock.
fn history() -> impl Strategy<Value = Vec<(u64, i64)>> {
    let step =
        prop_oneof![6 => Just(0), 1 => -90i64..90, 1 => -7200i64..7200, 1 => Just(-3600), 1 => Just(3600)];
    proptest::collection::vec((prop_oneof![9 => 0u64..40, 1 => 0u64..4000], step), 1..400)
}

proptest! {
    #[test]
    fn no_minute_and_no_hour_holds_more_than_allowed(
        history in history(), per_minute in 1u32..20, per_hour in 1u32..60
    ) {
        let limit = RateLimit { per_minute, per_hour };
        let mut sent = Sent::default();
        let mut passed: Vec<u64> = Vec::new();
        let (mut mono_s, mut ahead_s) = (0, 0);
        for (gap, step) in history {
            mono_s += gap;
            ahead_s += step;
            match sent.admit(limit, stepped(mono_s, ahead_s)) {
                Ok(_) => passed.push(mono_s),
                Err(limited) => {
                    // Waiting as long as told is enough for this window.
                    let mut later = sent.clone();
                    let again = later.admit(limit, at(mono_s + limited.retry_after_ms.div_ceil(1000)));
                    prop_assert!(again.is_ok() || again.unwrap_err().window != limited.window);
                }
            }
        }
        for (at, start) in passed.iter().enumerate() {
            let within = |span: u64| passed[at..].iter().take_while(|t| **t < start + span).count();
            prop_assert!(within(60) <= per_minute as usize);
            prop_assert!(within(3600) <= per_hour as usize);
        }
    }

    /// Whatever the wall clock does, a server that is alone decides as if nothing were stored.
    #[test]
    fn nothing_of_ones_own_is_learned(
        history in history(), per_minute in 1u32..20, per_hour in 1u32..60
    ) {
        let limit = RateLimit { per_minute, per_hour };
        let (mut sent, mut alone, mut stored) = (Sent::default(), Sent::default(), Stored::default());
        let (mut mono_s, mut ahead_s) = (0, 0);
        for (gap, step) in history {
            mono_s += gap;
            ahead_s += step;
            let now = stepped(mono_s, ahead_s);
            let place = sent.admit(limit, now);
            prop_assert_eq!(place.map(|_| ()), alone.admit(limit, at(mono_s)).map(|_| ()));
            if place.is_ok() {
                sent.learn(stored.add(now), now);
            }
        }
    }

    /// Each server knows, of each minute in which it sent, all that was sent until its last message there.
    #[test]
    fn what_others_send_is_learned_with_the_next_message(
        messages in proptest::collection::vec((0u64..15, 0usize..3), 1..200)
    ) {
        let limit = RateLimit { per_minute: 1_000_000, per_hour: 1_000_000 };
        let mut sent = vec![Sent::default(); 3];
        let mut known = vec![HashMap::new(); 3];
        let mut stored = Stored::default();
        let mut mono_s = 0;
        for (gap, server) in messages {
            mono_s += gap;
            let now = at(mono_s);
            prop_assert!(sent[server].admit(limit, now).is_ok());
            let total = stored.add(now);
            sent[server].learn(total, now);
            let _ = known[server].insert(now.unix_minute(), total);
            prop_assert_eq!(sent[server].hour.total, u64::from(known[server].values().sum::<u32>()));
        }
    }
}
