//! How many bytes an inbox holds: counted message by message, put right by what Redis says.

use crate::shard::desk::stored::Stored;

/// What a message takes that nothing is known of, in bytes.
const TYPICAL_BYTES: u64 = 1024;

/// The bytes of an inbox.
#[derive(Debug)]
pub struct Size {
    /// In the shared stream.
    shared: u64,
    /// In the instances' own streams.
    own: u64,
    /// What a message of the shared stream took lately.
    typical: u64,
    /// Messages and bytes that other workers have added to the shared stream, and that its length does not show yet.
    unseen: (u64, u64),
    stored: Stored,
}

impl Default for Size {
    fn default() -> Self {
        Self { shared: 0, own: 0, typical: TYPICAL_BYTES, unseen: (0, 0), stored: Stored::default() }
    }
}

impl Size {
    /// Where others read it.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    fn publish(&self) {
        self.stored.set(self.shared.saturating_add(self.own));
    }

    /// This worker has added messages to the shared stream, and bytes to own ones.
    pub(super) fn added(&mut self, messages: u64, shared: u64, own: u64) {
        if let Some(each) = shared.checked_div(messages) {
            self.typical = each;
        }
        self.shared = self.shared.saturating_add(shared);
        self.own = self.own.saturating_add(own);
        self.publish();
    }

    /// Another worker has added a message, to the shared stream or to an own one.
    pub fn grown(&mut self, shared: bool, bytes: u64) {
        if shared {
            self.unseen = (self.unseen.0 + 1, self.unseen.1.saturating_add(bytes));
        } else {
            self.added(0, 0, bytes);
        }
    }

    /// A message has left. `bytes`: its size, where it is known; `len`: messages in the shared stream before.
    pub(super) fn left(&mut self, shared: bool, bytes: Option<u64>, len: u64) {
        if shared {
            let bytes = bytes.unwrap_or(self.shared / len.max(1));
            self.shared = if len <= 1 { 0 } else { self.shared.saturating_sub(bytes) };
            self.typical = bytes;
        } else {
            self.own = self.own.saturating_sub(bytes.unwrap_or(0));
        }
        self.publish();
    }

    /// The shared stream has `len` messages where `before` were expected.
    pub(super) fn measured(&mut self, before: u64, len: u64) {
        if len <= before {
            let gone = (self.shared / before.max(1)).saturating_mul(before - len);
            self.shared = if len == 0 { 0 } else { self.shared.saturating_sub(gone) };
        } else {
            let (told, bytes) = std::mem::take(&mut self.unseen);
            let (grown, per_told) = (len - before, bytes / told.max(1));
            let seen = grown.min(told);
            let new = seen.saturating_mul(per_told) + (grown - seen).saturating_mul(self.typical);
            self.shared = self.shared.saturating_add(new);
            self.unseen = (told - seen, (told - seen) * per_told);
        }
        self.publish();
    }

    /// Redis has said how many bytes the shared stream takes.
    pub fn weighed(&mut self, bytes: u64) {
        self.shared = bytes;
        self.publish();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_comes_and_goes() {
        let mut size = Size::default();
        size.added(3, 3_000, 500);
        assert_eq!(size.stored().get(), 3_500);
        size.left(true, Some(1_000), 3);
        size.left(true, None, 2);
        assert_eq!(size.stored().get(), 1_500);
        size.left(false, Some(500), 1);
        size.left(true, Some(10), 1);
        assert_eq!(size.stored().get(), 0, "the last one takes the rest along");
    }

    #[test]
    fn what_others_add_counts_once() {
        let mut size = Size::default();
        size.added(2, 200, 0);
        for _ in 0..10 {
            size.grown(true, 1_000_000);
        }
        size.measured(2, 7);
        assert_eq!(size.stored().get(), 200 + 5_000_000);
        // They were told of late, and one message more than that has come from another server.
        size.measured(7, 13);
        assert_eq!(size.stored().get(), 200 + 10_000_000 + 100);
        size.measured(13, 0);
        assert_eq!(size.stored().get(), 0);
        size.weighed(77);
        assert_eq!(size.stored().get(), 77);
    }

    #[test]
    fn what_other_servers_add_and_take_does_not_pile_up() {
        let mut size = Size::default();
        let mut len = 0;
        for n in 0..100_000_u64 {
            let now = n * 7919 % 50;
            size.measured(len, now);
            len = now;
            assert!(size.stored().get() <= 100 * TYPICAL_BYTES, "{n}: {}", size.stored().get());
        }
    }
}
