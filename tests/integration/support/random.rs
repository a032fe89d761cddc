//! A small generator: campaigns can be repeated by their seed.

use std::ops::Range;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// From 0, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound.max(1)
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// A span within these milliseconds.
    pub fn span(&mut self, ms: &Range<u64>) -> Duration {
        Duration::from_millis(ms.start + self.below(ms.end - ms.start))
    }
}
