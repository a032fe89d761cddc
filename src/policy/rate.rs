//! How many messages an agent may send: sliding windows of a minute and of an hour, counted in buckets.
//!
//! A window of 60 buckets plus the running one never admits more than the limit in any span as long as
//! the window; it may refuse for up to one bucket (1 s, 60 s) longer than an exact log would.

/// Buckets of a window.
const BUCKETS: usize = 60;
/// Length of a bucket of the minute's window, in seconds.
const MINUTE_BUCKET_S: u64 = 1;
/// Length of a bucket of the hour's window, in seconds.
const HOUR_BUCKET_S: u64 = 60;

/// Places of a ring: the window's buckets and the running one.
const RING: u64 = BUCKETS as u64 + 1;

/// Messages per sending agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// In any 60 seconds.
    pub per_minute: u32,
    /// In any 60 minutes.
    pub per_hour: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { per_minute: 100, per_hour: 1000 }
    }
}

/// A refusal: which window is full, and when it will have room again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    /// `per_minute` or `per_hour`.
    pub window: &'static str,
    /// Milliseconds until another message may pass, if nobody else sends.
    pub retry_after_ms: u64,
}

/// What one agent has sent lately.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    minute: Window,
    hour: Window,
}

impl Default for Sent {
    fn default() -> Self {
        Self { minute: Window::new(MINUTE_BUCKET_S), hour: Window::new(HOUR_BUCKET_S) }
    }
}

impl Sent {
    /// Counts one message at `now_s` (Unix seconds), or says why not; what is refused is not counted.
    pub fn admit(&mut self, limit: RateLimit, now_s: u64) -> Result<(), Limited> {
        self.minute.advance(now_s);
        self.hour.advance(now_s);
        for (window, limit, name) in
            [(&self.minute, limit.per_minute, "per_minute"), (&self.hour, limit.per_hour, "per_hour")]
        {
            if window.total >= u64::from(limit) {
                return Err(Limited { window: name, retry_after_ms: window.room_in_s(limit, now_s) * 1000 });
            }
        }
        self.minute.add(1);
        self.hour.add(1);
        Ok(())
    }

    /// Takes one counted message back: its transaction did not happen.
    pub fn take_back(&mut self) {
        self.minute.take_back();
        self.hour.take_back();
    }

    /// Takes up what all servers together have counted in the minute of `now_s`: what others sent counts
    /// as sent now. A server learns of the others with its next message of the same sender, so all
    /// together admit at most one round's messages more than the limit, per further server.
    pub fn learn(&mut self, total: u32, now_s: u64) {
        self.minute.advance(now_s);
        self.hour.advance(now_s);
        let known = self.hour.count_at(now_s);
        let others = total.saturating_sub(known);
        self.hour.add_at(now_s, others);
        self.minute.add_at(now_s, others);
    }

    /// The hour's buckets that hold anything, as start (Unix seconds) and count.
    #[cfg(test)]
    fn stored(&self) -> impl Iterator<Item = (u64, u32)> {
        self.hour.filled()
    }

    /// Takes up what was stored before a restart, once. The last bucket's messages count as sent just
    /// before `now_s` in the minute's window too: rather too many than too few.
    pub fn restore(&mut self, buckets: impl IntoIterator<Item = (u64, u32)>, now_s: u64) {
        self.hour.advance(now_s);
        self.minute.advance(now_s);
        for (start_s, count) in buckets {
            self.hour.add_at(start_s, count);
            if start_s + HOUR_BUCKET_S + 60 > now_s {
                self.minute.add(count);
            }
        }
    }
}

/// The last `BUCKETS` whole buckets and the running one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    bucket_s: u64,
    /// Number of the running bucket: Unix seconds divided by `bucket_s`.
    current: u64,
    /// Ring over bucket numbers.
    counts: [u32; BUCKETS + 1],
    total: u64,
}

impl Window {
    const fn new(bucket_s: u64) -> Self {
        Self { bucket_s, current: 0, counts: [0; BUCKETS + 1], total: 0 }
    }

    fn slot(&mut self, bucket: u64) -> Option<&mut u32> {
        self.counts.get_mut((bucket % RING) as usize)
    }

    /// Drops what is too old. A clock that steps back finds everything as it was.
    fn advance(&mut self, now_s: u64) {
        let now = now_s / self.bucket_s;
        if now <= self.current {
            return;
        }
        let steps = (now - self.current).min(RING);
        for step in 0..steps {
            let old = self.slot(now - step).map_or(0, std::mem::take);
            self.total -= u64::from(old);
        }
        self.current = now;
    }

    fn add(&mut self, count: u32) {
        let current = self.current;
        self.add_bucket(current, count);
    }

    fn add_at(&mut self, start_s: u64, count: u32) {
        let bucket = start_s / self.bucket_s;
        if bucket <= self.current && bucket + BUCKETS as u64 >= self.current {
            self.add_bucket(bucket, count);
        }
    }

    /// Messages in the bucket of a time, if it is in the window.
    fn count_at(&self, now_s: u64) -> u32 {
        let bucket = now_s / self.bucket_s;
        let within = bucket <= self.current && bucket + BUCKETS as u64 >= self.current;
        let count = self.counts.get((bucket % RING) as usize).copied();
        count.filter(|_| within).unwrap_or(0)
    }

    fn add_bucket(&mut self, bucket: u64, count: u32) {
        if let Some(slot) = self.slot(bucket) {
            let before = *slot;
            *slot = before.saturating_add(count);
            self.total += u64::from(*slot - before);
        }
    }

    fn take_back(&mut self) {
        let current = self.current;
        if let Some(slot) = self.slot(current)
            && *slot > 0
        {
            *slot -= 1;
            self.total -= 1;
        }
    }

    fn filled(&self) -> impl Iterator<Item = (u64, u32)> {
        let oldest = self.current.saturating_sub(BUCKETS as u64);
        (oldest..=self.current).filter_map(|bucket| {
            let count = *self.counts.get((bucket % RING) as usize)?;
            (count > 0).then_some((bucket * self.bucket_s, count))
        })
    }

    /// Seconds until the total is under `limit`.
    fn room_in_s(&self, limit: u32, now_s: u64) -> u64 {
        let mut left = self.total;
        for (start_s, count) in self.filled() {
            left -= u64::from(count);
            if left < u64::from(limit) {
                // A bucket is dropped when as many have passed after it as the window has.
                return (start_s + RING * self.bucket_s).saturating_sub(now_s).max(1);
            }
        }
        RING * self.bucket_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_limit_is_the_limit() {
        let mut sent = Sent::default();
        let limit = RateLimit::default();
        for _ in 0..100 {
            assert_eq!(sent.admit(limit, 1_000_000), Ok(()));
        }
        let limited = sent.admit(limit, 1_000_000).unwrap_err();
        assert_eq!(limited, Limited { window: "per_minute", retry_after_ms: 61_000 });
        assert!(sent.admit(limit, 1_000_060).is_err());
        assert_eq!(sent.admit(limit, 1_000_061), Ok(()));
    }

    #[test]
    fn the_hour_counts_too() {
        let mut sent = Sent::default();
        let limit = RateLimit { per_minute: 1000, per_hour: 5 };
        for n in 0..5 {
            assert_eq!(sent.admit(limit, 100_000 + n), Ok(()));
        }
        assert_eq!(sent.admit(limit, 103_000).unwrap_err().window, "per_hour");
        assert_eq!(sent.admit(limit, 103_720), Ok(()));
    }

    #[test]
    fn what_others_sent_counts_once() {
        let mut sent = Sent::default();
        let limit = RateLimit { per_minute: 10, per_hour: 100 };
        for _ in 0..3 {
            sent.admit(limit, 1_000_000).unwrap();
        }
        // Six in all: three of them elsewhere.
        sent.learn(6, 1_000_000);
        sent.learn(6, 1_000_000);
        for _ in 0..4 {
            sent.admit(limit, 1_000_001).unwrap();
        }
        assert!(sent.admit(limit, 1_000_001).is_err());
    }

    #[test]
    fn what_was_sent_before_a_restart_still_counts() {
        let mut before = Sent::default();
        let limit = RateLimit { per_minute: 10, per_hour: 20 };
        for n in 0..10 {
            before.admit(limit, 1_000_000 + n).unwrap();
        }
        let mut after = Sent::default();
        after.restore(before.stored(), 1_000_012);
        assert_eq!(after.admit(limit, 1_000_012).unwrap_err().window, "per_minute");
        let mut later = Sent::default();
        later.restore(before.stored(), 1_000_300);
        for _ in 0..10 {
            later.admit(limit, 1_000_300).unwrap();
        }
        assert_eq!(later.admit(limit, 1_000_361).unwrap_err().window, "per_hour");
    }

    proptest! {
        #[test]
        fn no_minute_and_no_hour_holds_more_than_allowed(
            gaps in proptest::collection::vec(0u64..40, 1..400), per_minute in 1u32..20, per_hour in 1u32..60
        ) {
            let limit = RateLimit { per_minute, per_hour };
            let mut sent = Sent::default();
            let mut passed: Vec<u64> = Vec::new();
            let mut now_s = 1_000_000;
            for gap in gaps {
                now_s += gap;
                match sent.admit(limit, now_s) {
                    Ok(()) => passed.push(now_s),
                    Err(limited) => {
                        // Waiting as long as told is enough for this window.
                        let mut later = sent.clone();
                        let at = now_s + limited.retry_after_ms.div_ceil(1000);
                        let again = later.admit(limit, at);
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
    }
}
