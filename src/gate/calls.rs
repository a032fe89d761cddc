//! The calls of one connection whose first message has not come. For each of them the C core keeps one of a bounded
//! number of places, so they are bounded, and none may wait for ever. So are all that are open: the C core bounds them for
//! those clients only that acknowledge its settings. Pure.

use std::collections::HashSet;

/// What stands before a message: a flag and its length.
const PREFIX_BYTES: u8 = 5;

/// A call whose message has not come whole.
#[derive(Debug, Clone, Copy)]
struct Awaited {
    stream: u32,
    /// Bytes of the prefix that have come.
    prefix: u8,
    /// Bytes of the message that have not, as far as the prefix says.
    left: u32,
    /// When something of it came last, in microseconds.
    since_us: u64,
}

/// The calls of one connection that wait for their first message.
#[derive(Debug, Default)]
pub struct Calls {
    // Mostly none, or one: a client sends a call and its message together.
    awaited: Vec<Awaited>,
    /// Those that neither side has given up and the server has not ended.
    open: HashSet<u32, foldhash::fast::RandomState>,
    /// Ended since it was asked last.
    closed: usize,
    /// The highest stream so far: streams begin in order.
    last: u32,
    /// Since it was asked last.
    settled: usize,
}

impl Calls {
    /// Whether a header block on that stream begins a call.
    pub fn begins(&self, stream: u32) -> bool {
        stream > self.last
    }

    /// A call begins; `ends`: no message will come.
    pub fn begin(&mut self, stream: u32, ends: bool, now_us: u64) {
        self.last = stream;
        let _ = self.open.insert(stream);
        if !ends {
            self.awaited.push(Awaited { stream, prefix: 0, left: 0, since_us: now_us });
        }
    }

    /// Whether the message of the call on that stream has not come whole.
    pub fn awaits(&self, stream: u32) -> bool {
        self.awaited.iter().any(|call| call.stream == stream)
    }

    /// Bytes of a call's messages.
    pub fn data(&mut self, stream: u32, bytes: &[u8], now_us: u64) {
        let Some(call) = self.awaited.iter_mut().find(|call| call.stream == stream) else { return };
        call.since_us = now_us;
        let mut rest = bytes;
        while call.prefix < PREFIX_BYTES
            && let Some((byte, later)) = rest.split_first()
        {
            // The flag comes first, and is no part of the length.
            if call.prefix > 0 {
                call.left = call.left << 8 | u32::from(*byte);
            }
            call.prefix += 1;
            rest = later;
        }
        call.left = call.left.saturating_sub(if call.prefix == PREFIX_BYTES { rest.len() as u32 } else { 0 });
        if call.prefix == PREFIX_BYTES && call.left == 0 {
            self.end(stream);
        }
    }

    /// The call is over.
    pub fn close(&mut self, stream: u32) {
        self.closed += usize::from(self.open.remove(&stream));
        self.end(stream);
    }

    /// Calls that are over since this was asked last.
    pub fn take_closed(&mut self) -> usize {
        std::mem::take(&mut self.closed)
    }

    /// Calls that are not over.
    pub fn open(&self) -> usize {
        self.open.len() + self.closed
    }

    /// Nothing more will come, or is waited for.
    pub fn end(&mut self, stream: u32) {
        if let Some(at) = self.awaited.iter().position(|call| call.stream == stream) {
            let _ = self.awaited.swap_remove(at);
            self.settled += 1;
            if self.awaited.is_empty() {
                // An idle connection holds nothing.
                self.awaited.shrink_to(1);
            }
        }
    }

    /// Calls that no longer wait since this was asked last.
    pub fn take_settled(&mut self) -> usize {
        std::mem::take(&mut self.settled)
    }

    /// Calls that wait.
    pub fn waiting(&self) -> usize {
        self.awaited.len() + self.settled
    }

    /// Whether one of them has waited since before that time.
    pub fn any_since_before(&self, us: u64) -> bool {
        self.awaited.iter().any(|call| call.since_us < us)
    }
}

/// The frames that the server sends, by their headers: which calls it has ended.
#[derive(Debug, Default)]
pub struct Answers {
    header: [u8; 9],
    have: usize,
    /// Bytes of the payload left.
    left: u32,
    /// Streams that were given up since it was asked last.
    resets: usize,
}

impl Answers {
    /// Streams that the server gave up since this was asked last.
    pub fn take_resets(&mut self) -> usize {
        std::mem::take(&mut self.resets)
    }

    /// Reads on.
    pub fn scan(&mut self, mut bytes: &[u8], calls: &mut Calls) {
        while !bytes.is_empty() {
            let payload = bytes.len().min(self.left as usize);
            self.left -= payload as u32;
            bytes = bytes.get(payload..).unwrap_or_default();
            let missing = self.header.get_mut(self.have..).unwrap_or_default();
            let taken = missing.len().min(bytes.len());
            for (place, byte) in missing.iter_mut().zip(bytes) {
                *place = *byte;
            }
            self.have += taken;
            bytes = bytes.get(taken..).unwrap_or_default();
            if self.have < self.header.len() {
                return;
            }
            self.have = 0;
            let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = self.header;
            self.left = u32::from_be_bytes([0, l0, l1, l2]);
            self.resets += usize::from(kind == 3);
            // DATA and HEADERS may end their stream; RST_STREAM does.
            if kind == 3 || (kind < 2 && flags & 1 != 0) {
                calls.close(u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(length: usize) -> Vec<u8> {
        [&[0][..], &(length as u32).to_be_bytes(), &vec![7; length]].concat()
    }

    proptest! {
        #[test]
        fn a_call_waits_until_its_message_has_come(length in 0..300_usize, size in 1..40_usize) {
            let mut calls = Calls::default();
            calls.begin(1, false, 10);
            let bytes = message(length);
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            for (n, piece) in pieces.iter().enumerate() {
                prop_assert!(calls.awaits(1));
                calls.data(1, piece, 11 + n as u64);
            }
            prop_assert!(!calls.awaits(1));
            prop_assert_eq!(calls.take_settled(), 1);
            // What comes behind it is of no interest.
            calls.data(1, &bytes, 99);
            prop_assert_eq!((calls.take_settled(), calls.waiting()), (0, 0));
        }

        #[test]
        fn what_the_server_ends_waits_no_more(size in 1..40_usize, padding in 0..100_usize) {
            let mut calls = Calls::default();
            for stream in [1, 3, 5, 7] {
                calls.begin(stream, false, 1);
            }
            let frame = |kind: u8, flags: u8, stream: u8, length: usize| {
                let head = [0, 0, length as u8, kind, flags, 0, 0, 0, stream];
                [&head[..], &vec![1; length]].concat()
            };
            let bytes = [
                frame(4, 1, 0, 0), frame(1, 4, 1, padding), frame(0, 0, 1, padding), frame(1, 5, 1, 3),
                frame(3, 0, 3, 4), frame(0, 1, 5, padding), frame(8, 1, 7, 4),
            ].concat();
            let mut answers = Answers::default();
            for piece in bytes.chunks(size) {
                answers.scan(piece, &mut calls);
            }
            prop_assert!(calls.awaits(7) && !calls.awaits(1) && !calls.awaits(3) && !calls.awaits(5));
            prop_assert_eq!(calls.take_settled(), 3);
        }
    }

    #[test]
    fn streams_begin_once_and_in_order() {
        let mut calls = Calls::default();
        assert!(calls.begins(1));
        calls.begin(1, false, 5);
        assert!(!calls.begins(1));
        calls.begin(3, true, 6);
        assert_eq!((calls.waiting(), calls.take_settled()), (1, 0));
        assert!(calls.any_since_before(6) && !calls.any_since_before(5));
    }
}
