//! How many messages an agent may send: sliding windows of a minute and of an hour, counted in buckets.
//!
//! A window of 60 buckets plus the running one never admits more than the limit in any span as long as
//! the window; it may refuse for up to one bucket (1 s, 60 s) longer than an exact log would.
//!
//! The windows go by the monotonic clock. The wall clock only names the minute under which a count is stored, for
//! other servers and for the next start: stepping it moves nothing in the windows.

use super::rate_limit::RateLimit;
use super::tally::Tally;
use crate::clock::Now;

/// Buckets of a window.
const BUCKETS: usize = 60;
/// Length of a bucket of the minute's window, in seconds.
const MINUTE_BUCKET_S: u64 = 1;
/// Length of a bucket of the hour's window, in seconds.
const HOUR_BUCKET_S: u64 = 60;

/// Places of a ring: the window's buckets and the running one.
const RING: u64 = BUCKETS as u64 + 1;
/// What the windows' clock shows when the monotonic clock shows 0, in seconds: nothing that is stored is older than two
/// hours, so what was sent before the start has a time, too.
const START_S: u64 = 2 * 3600;

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
    tally: Tally,
}

/// Where a message was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    minute_bucket: u64,
    hour_bucket: u64,
    wall_minute: u64,
}

impl Default for Sent {
    fn default() -> Self {
        Self {
            minute: Window::new(MINUTE_BUCKET_S),
            hour: Window::new(HOUR_BUCKET_S),
            tally: Tally::default(),
        }
    }
}

/// The windows' clock.
fn window_s(now: Now) -> u64 {
    START_S + now.mono_ms / 1000
}

impl Sent {
    /// Counts one message, or says why not; what is refused is not counted.
    pub(super) fn admit(&mut self, limit: RateLimit, now: Now) -> Result<Place, Limited> {
        let now_s = window_s(now);
        self.advance(now_s);
        for (window, limit, name) in
            [(&self.minute, limit.per_minute, "per_minute"), (&self.hour, limit.per_hour, "per_hour")]
        {
            if window.total >= u64::from(limit) {
                return Err(Limited { window: name, retry_after_ms: window.room_in_s(limit, now_s) * 1000 });
            }
        }
        self.tally.count(now.unix_minute(), now_s);
        Ok(Place {
            minute_bucket: self.minute.add(1),
            hour_bucket: self.hour.add(1),
            wall_minute: now.unix_minute(),
        })
    }

    /// Takes one counted message back: it did not happen.
    pub(super) fn take_back(&mut self, place: Place) {
        self.minute.take_back(place.minute_bucket);
        self.hour.take_back(place.hour_bucket);
        self.tally.take_back(place.wall_minute);
    }

    /// Takes up what all servers together have counted under the wall clock's minute: what others sent counts
    /// as sent now. A server learns of the others with its next message of the same sender, so all
    /// together admit at most one round's messages more than the limit, per further server.
    pub fn learn(&mut self, total: u32, now: Now) {
        let now_s = window_s(now);
        let others = self.tally.learn(now.unix_minute(), total, now_s);
        self.advance(now_s);
        let _ = self.minute.add(others);
        let _ = self.hour.add(others);
    }

    /// Takes up what was stored before a restart, once: minutes (Unix minutes) and counts. Each counts as sent in its
    /// minute's last second: rather too long than too short. What is stored under minutes to come does not
    /// count: the clock was ahead.
    pub fn restore(&mut self, stored: impl IntoIterator<Item = (u64, u32)>, now: Now) {
        let now_s = window_s(now);
        self.advance(now_s);
        let mut stored: Vec<(u64, u32)> = stored.into_iter().collect();
        stored.sort_unstable();
        for (minute, total) in stored {
            // Known from now on, so that nothing of it is taken for new when the clock comes to that minute.
            let others = self.tally.learn(minute, total, now_s);
            // Another server's clock, or this one's before a small correction, may be a little ahead.
            if minute <= now.unix_minute() + 1 {
                let age_s = now.unix_s().saturating_sub(minute.saturating_mul(60).saturating_add(59));
                let sent_s = now_s.saturating_sub(age_s);
                self.hour.add_at(sent_s, others);
                self.minute.add_at(sent_s, others);
            }
        }
    }

    /// What counts in the windows of a minute and of an hour now.
    pub fn used(&mut self, now: Now) -> (u64, u64) {
        self.advance(window_s(now));
        (self.minute.total, self.hour.total)
    }

    fn advance(&mut self, now_s: u64) {
        self.minute.advance(now_s);
        self.hour.advance(now_s);
    }
}

/// The last `BUCKETS` whole buckets and the running one. Times are those of the windows' clock.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Window {
    bucket_s: u64,
    /// Number of the running bucket: seconds divided by `bucket_s`.
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

    /// Drops what is too old. Another worker may have been here a moment later.
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

    /// Counts in the running bucket; its number.
    fn add(&mut self, count: u32) -> u64 {
        let current = self.current;
        self.add_bucket(current, count);
        current
    }

    fn add_at(&mut self, sent_s: u64, count: u32) {
        let bucket = sent_s / self.bucket_s;
        if self.holds(bucket) {
            self.add_bucket(bucket, count);
        }
    }

    fn holds(&self, bucket: u64) -> bool {
        bucket <= self.current && bucket + BUCKETS as u64 >= self.current
    }

    fn add_bucket(&mut self, bucket: u64, count: u32) {
        if let Some(slot) = self.slot(bucket) {
            let before = *slot;
            *slot = before.saturating_add(count);
            self.total += u64::from(*slot - before);
        }
    }

    fn take_back(&mut self, bucket: u64) {
        if self.holds(bucket)
            && let Some(slot) = self.slot(bucket)
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
mod tests;
