//! The stand-in's end of one connection: it records what arrives, which must be what the client said, and says what a
//! script has it say.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use super::script::{LeaveBehind, Reads, frame};

/// Bytes that are read at a time.
const CHUNK: usize = 64 * 1024;
const HEADERS: u8 = 1;
/// Ends a stream, and its block.
const LAST: u8 = 5;
/// `:status: 200`.
const STATUS: u8 = 0x88;
const PREFACE_BYTES: usize = 24;
const HEADER_BYTES: usize = 9;

/// Finds the calls among the frames that arrive.
#[derive(Default)]
struct Ends {
    /// Where the next frame begins, in what arrived.
    next: usize,
}

pub struct Behind {
    pair: Option<UnixStream>,
    /// It has been handed over.
    pub is_taken: bool,
    /// So many bytes of what the client said have arrived.
    pub arrived: usize,
    /// All that it says, also what was not sent yet.
    pub said: Vec<u8>,
    pub sent: usize,
    /// Whole frames alone.
    pub is_clean: bool,
    pub reads: Reads,
    pub left: Option<LeaveBehind>,
    /// It has left indeed.
    pub has_left: bool,
    pub deaf: bool,
    /// The gate has closed: that was seen in writing, in reading.
    mute: bool,
    pub gone: bool,
    ends: Option<Ends>,
    pub blocked: bool,
}

impl Behind {
    pub fn new() -> Self {
        Self {
            pair: None,
            is_taken: false,
            arrived: 0,
            said: Vec::new(),
            sent: 0,
            is_clean: true,
            reads: Reads::All,
            left: None,
            has_left: false,
            deaf: false,
            mute: false,
            gone: false,
            ends: None,
            blocked: false,
        }
    }

    pub fn socket(&self) -> Option<&UnixStream> {
        self.pair.as_ref().filter(|_| !self.gone)
    }

    pub fn wants_read(&self) -> bool {
        self.reads != Reads::Nothing && !self.deaf
    }

    pub fn take(&mut self, pair: UnixStream) {
        assert!(!self.is_taken, "a connection is handed over twice");
        self.is_taken = true;
        self.pair = Some(pair);
        if self.deaf {
            self.shut(Shutdown::Read);
        }
    }

    pub fn say(&mut self, bytes: &[u8]) {
        if self.left.is_none() {
            self.said.extend_from_slice(bytes);
        }
    }

    /// Each call that arrives is ended from now on. From its beginning on only: what came before is not looked at.
    pub fn end_calls(&mut self) {
        if self.arrived == 0 && self.ends.is_none() {
            self.ends = Some(Ends { next: PREFACE_BYTES });
        }
    }

    /// Whether no call stays open because of what is said here.
    pub fn ends_all(&self) -> bool {
        self.ends.is_some() && self.is_clean && !self.deaf && self.left.is_none()
    }

    /// Whether nothing more is heard of it.
    pub fn is_over(&self) -> bool {
        self.gone || self.has_left || self.deaf
    }

    pub fn close(&mut self) {
        self.pair = None;
    }

    fn shut(&self, side: Shutdown) {
        if let Some(pair) = &self.pair {
            // It may be gone.
            let _ = pair.shutdown(side);
        }
    }

    pub fn leave(&mut self, how: LeaveBehind) {
        match how {
            LeaveBehind::Deaf => {
                self.deaf = true;
                self.shut(Shutdown::Read);
            }
            _ if self.left.is_none() => self.left = Some(how),
            _ => {}
        }
    }

    /// Goes on; whether it could.
    pub fn pump(&mut self, expected: &[u8]) -> bool {
        if self.pair.is_none() || self.gone || self.has_left {
            return false;
        }
        let heard = self.hear(expected);
        self.speak() || heard
    }

    fn speak(&mut self) -> bool {
        let Some(pair) = self.pair.as_mut() else { return false };
        let rest = self.said.get(self.sent..).unwrap_or_default();
        let over = rest.is_empty() || self.mute || self.left == Some(LeaveBehind::CloseNow);
        if !over {
            return match pair.write(rest) {
                Ok(written) => {
                    self.blocked = false;
                    self.sent += written;
                    true
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked = true;
                    false
                }
                // What the gate said before it went can still be read.
                Err(_) => {
                    self.mute = true;
                    self.gone |= self.deaf;
                    true
                }
            };
        }
        self.blocked = false;
        match self.left {
            None => return false,
            Some(LeaveBehind::Shut) => self.shut(Shutdown::Write),
            Some(_) => self.pair = None,
        }
        self.has_left = true;
        true
    }

    fn hear(&mut self, expected: &[u8]) -> bool {
        let Some(pair) = self.pair.as_mut().filter(|_| !self.deaf) else { return false };
        let mut buffer = vec![
            0;
            match self.reads {
                Reads::All => CHUNK,
                Reads::Few(few) => few,
                Reads::Nothing => return false,
            }
        ];
        match pair.read(&mut buffer) {
            Ok(0) => {
                self.gone = true;
                true
            }
            Ok(count) => {
                let here = expected.get(self.arrived..self.arrived + count);
                assert!(here == buffer.get(..count), "what arrives is not what the client said");
                self.arrived += count;
                self.end_those(expected);
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(_) => {
                self.gone = true;
                true
            }
        }
    }

    /// Ends the calls whose headers have arrived.
    fn end_those(&mut self, expected: &[u8]) {
        let Some(ends) = self.ends.as_mut() else { return };
        while ends.next + HEADER_BYTES <= self.arrived
            && let Some([l0, l1, l2, kind, _, s0, s1, s2, s3]) =
                expected.get(ends.next..ends.next + HEADER_BYTES)
        {
            ends.next += HEADER_BYTES + u32::from_be_bytes([0, *l0, *l1, *l2]) as usize;
            if *kind == HEADERS && self.left.is_none() {
                let stream = u32::from_be_bytes([s0 & 0x7f, *s1, *s2, *s3]);
                self.said.extend(frame(HEADERS, LAST, stream, &[STATUS]));
            }
        }
    }
}
