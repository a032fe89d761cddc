//! How many bytes an inbox holds: counted message by message, put right by what Redis says.

use std::collections::BTreeMap;

use crate::ids::InstanceId;
use crate::shard::desk::stored::Stored;

/// What a message takes that nothing is known of, in bytes.
const TYPICAL_BYTES: u64 = 1024;
/// Messages over which the typical one is averaged.
const AVERAGED: u64 = 8;

/// The bytes of an inbox.
#[derive(Debug)]
pub struct Size {
    /// In the shared stream.
    shared: u64,
    /// In the own streams of instances that are connected here, or gone.
    own: BTreeMap<InstanceId, u64>,
    /// What a message of the shared stream took lately.
    typical: u64,
    /// Messages and bytes that other workers have added to the shared stream since its length was read.
    told: (u64, u64),
    stored: Stored,
    replies: Stored,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            shared: 0,
            own: BTreeMap::new(),
            typical: TYPICAL_BYTES,
            told: (0, 0),
            stored: Stored::default(),
            replies: Stored::default(),
        }
    }
}

impl Size {
    /// Where others read the shared stream's bytes.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Where others read the bytes of all replies.
    pub fn replies(&self) -> &Stored {
        &self.replies
    }

    /// The bytes of one instance's replies.
    pub fn own(&self, instance: &InstanceId) -> u64 {
        self.own.get(instance).copied().unwrap_or(0)
    }

    fn set_shared(&mut self, bytes: u64) {
        self.shared = bytes;
        self.stored.set(bytes);
    }

    fn publish_replies(&self) {
        self.replies.set(self.own.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)));
    }

    fn seen(&mut self, bytes: u64) {
        self.typical = (self.typical * (AVERAGED - 1) + bytes) / AVERAGED;
    }

    /// This worker has added messages to the shared stream.
    pub(super) fn added(&mut self, messages: u64, bytes: u64) {
        if let Some(each) = bytes.checked_div(messages) {
            self.seen(each);
        }
        self.set_shared(self.shared.saturating_add(bytes));
    }

    /// A reply was added to an instance's own stream.
    pub fn replied(&mut self, instance: &InstanceId, bytes: u64) {
        let own = self.own.entry(instance.clone()).or_default();
        *own = own.saturating_add(bytes);
        self.publish_replies();
    }

    /// Another worker has added messages to the shared stream.
    pub fn told(&mut self, messages: u64, bytes: u64) {
        self.told = (self.told.0 + messages, self.told.1.saturating_add(bytes));
    }

    /// A message has left the shared stream, which had `len`. `bytes`: its size, where it is known.
    pub(super) fn left(&mut self, bytes: Option<u64>, len: u64) {
        if let Some(bytes) = bytes {
            self.seen(bytes);
        }
        let bytes = bytes.unwrap_or(self.shared / len.max(1));
        self.set_shared(if len <= 1 { 0 } else { self.shared.saturating_sub(bytes) });
    }

    /// A reply has left an instance's own stream.
    pub(super) fn reply_left(&mut self, instance: &InstanceId, bytes: u64) {
        if let Some(own) = self.own.get_mut(instance) {
            *own = own.saturating_sub(bytes);
            self.publish_replies();
        }
    }

    /// An instance's own stream holds so many bytes.
    pub(super) fn own_is(&mut self, instance: &InstanceId, bytes: u64) {
        if bytes == 0 {
            let _ = self.own.remove(instance);
        } else {
            let _ = self.own.insert(instance.clone(), bytes);
        }
        self.publish_replies();
    }

    /// Forgets the replies of all other instances.
    pub fn keep_own(&mut self, keep: impl Fn(&InstanceId) -> bool) {
        self.own.retain(|instance, _| keep(instance));
        self.publish_replies();
    }

    /// The shared stream has `len` messages where `before` were expected, without those that others told of.
    pub(super) fn measured(&mut self, before: u64, len: u64) {
        let (told, bytes) = std::mem::take(&mut self.told);
        let expected = before + told;
        let shared = self.shared.saturating_add(bytes);
        let shared = match len.checked_sub(expected) {
            _ if len == 0 => 0,
            Some(grown) => shared.saturating_add(grown.saturating_mul(self.typical)),
            None => shared.saturating_sub((shared / expected.max(1)).saturating_mul(expected - len)),
        };
        self.set_shared(shared);
    }

    /// Redis has said how many bytes the shared stream takes: with what others told of.
    pub(super) fn weighed(&mut self, bytes: u64) {
        self.told.1 = 0;
        self.set_shared(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_comes_and_goes() {
        let mut size = Size::default();
        size.added(3, 3_000);
        assert_eq!(size.stored().get(), 3_000);
        size.left(Some(1_000), 3);
        size.left(None, 2);
        assert_eq!(size.stored().get(), 1_000);
        size.left(Some(10), 1);
        assert_eq!(size.stored().get(), 0, "the last one takes the rest along");
    }

    #[test]
    fn replies_are_counted_by_instance() {
        let mut size = Size::default();
        let (one, two) = (InstanceId::parse("i1").unwrap(), InstanceId::parse("i2").unwrap());
        size.replied(&one, 500);
        size.replied(&two, 100);
        size.reply_left(&one, 200);
        assert_eq!((size.own(&one), size.own(&two), size.replies().get()), (300, 100, 400));
        size.own_is(&one, 0);
        assert_eq!((size.own(&one), size.replies().get(), size.stored().get()), (0, 100, 0));
        // What was not counted takes nothing away.
        size.reply_left(&one, 200);
        assert_eq!(size.replies().get(), 100);
    }

    #[test]
    fn what_others_add_counts_once() {
        let mut size = Size::default();
        size.added(2, 200);
        size.told(10, 10_000_000);
        size.measured(2, 12);
        assert_eq!(size.stored().get(), 200 + 10_000_000);
        // Told of late: it was seen, as something typical, before.
        size.measured(12, 13);
        let before = size.stored().get();
        size.told(1, 1_000_000);
        size.measured(13, 13);
        assert!(size.stored().get() < before + 1_000_000, "{} {before}", size.stored().get());
        // It was told of, and has left again.
        size.told(5, 5_000);
        size.weighed(77);
        size.measured(13, 18);
        assert_eq!(size.stored().get(), 77);
        size.measured(18, 0);
        assert_eq!(size.stored().get(), 0);
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
