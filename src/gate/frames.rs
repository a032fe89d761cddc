//! The frames that an HTTP/2 client sends, by their headers: what each costs is asked for before its last header byte
//! is passed on, so that a frame which has to wait has not begun for whoever reads behind. Payloads pass unread, but for
//! the settings' window and the boundaries of header fields. Pure.

use super::calls::Calls;
use super::fields::Fields;

pub use super::fields::{Charge, MAX_FIELDS};

/// What a client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, type, flags and stream.
const HEADER_BYTES: usize = 9;
/// Bytes of one header block.
pub const MAX_BLOCK_BYTES: u32 = 16 * 1024;
/// Payload of a frame that carries neither data nor headers, in bytes.
const MAX_CONTROL_BYTES: u32 = 16 * 1024;
/// Smallest initial window that a client may ask for, in bytes: less makes a frame of each few bytes.
pub const MIN_WINDOW_BYTES: u32 = 1024;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Of DATA and HEADERS: the stream's last.
const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING: an answer.
const ACK: u8 = 0x1;
/// Of HEADERS and CONTINUATION: the block's last.
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITIZED: u8 = 0x20;
const SETTING_WINDOW: u16 = 4;

/// What a client spends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A frame of any kind that is not named below.
    Frame,
    /// A header block that begins a call whose message is to come.
    Call,
    /// A header block that begins a call without one.
    EmptyCall,
    /// Another header block.
    Block,
    /// A field of a header block.
    Field,
    /// A stream that is given up.
    Reset,
    /// Room for more answers.
    Window,
    /// A ping.
    Ping,
    /// Settings.
    Settings,
    /// Data without a byte that does not end its stream.
    Empty,
}

/// How far some bytes may be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scanned {
    /// Bytes that pass.
    pub pass: usize,
    /// What holds or cuts the rest; `Pass` where there is none.
    pub then: Charge,
}

/// Where the next byte belongs.
#[derive(Debug, Clone, Copy)]
enum At {
    /// In the preface, so far.
    Preface(usize),
    /// In a frame's header, so far.
    Header(usize),
    /// In a payload that passes unread; bytes left.
    Opaque(u32),
    /// In data that a call waits for: bytes left.
    Data(u32),
    /// In settings: bytes left, of the current entry so far.
    Settings(u32, [u8; 6], usize),
    /// In what stands before the block: bytes left.
    Prefix(u32),
    /// In a header block's fragment.
    Fragment,
}

/// The state of one connection's incoming side.
#[derive(Debug)]
pub struct Frames {
    at: At,
    header: [u8; HEADER_BYTES],
    /// Of the fragment: bytes left.
    fragment: u32,
    /// A block has begun and not ended; its stream.
    open: Option<u32>,
    fields: Fields,
    block_bytes: u32,
    /// Settings have come: the connection is up.
    greeted: bool,
    /// Those that wait for their message.
    pub calls: Calls,
}

impl Default for Frames {
    fn default() -> Self {
        Self {
            at: At::Preface(0),
            header: [0; HEADER_BYTES],
            fragment: 0,
            open: None,
            fields: Fields::default(),
            block_bytes: 0,
            greeted: false,
            calls: Calls::default(),
        }
    }
}

type Step = Result<(), &'static str>;

impl Frames {
    /// Whether preface and settings have come.
    pub fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// Reads on, as far as `charge` allows. What did not pass must come again, first.
    pub fn scan(&mut self, bytes: &[u8], now_us: u64, charge: &mut impl FnMut(Unit) -> Charge) -> Scanned {
        let mut pass = 0;
        while let Some(rest) = bytes.get(pass..).filter(|rest| !rest.is_empty()) {
            match self.step(rest, now_us, charge) {
                Ok(taken) => pass += taken,
                Err(then) => return Scanned { pass, then },
            }
        }
        Scanned { pass, then: Charge::Pass }
    }

    /// Takes at least one byte of `rest`, which has one.
    fn step(
        &mut self,
        rest: &[u8],
        now_us: u64,
        charge: &mut impl FnMut(Unit) -> Charge,
    ) -> Result<usize, Charge> {
        let Some(first) = rest.first().copied() else { return Ok(0) };
        let cut = |taken: Step| taken.map(|()| 1).map_err(Charge::Cut);
        match self.at {
            At::Preface(have) => cut(self.preface(have, first)),
            At::Header(have) => self.header(have, rest, now_us, charge),
            At::Opaque(left) => {
                let taken = rest.len().min(left as usize);
                self.opaque(left - taken as u32);
                Ok(taken)
            }
            At::Data(left) => {
                let taken = rest.len().min(left as usize);
                let stream = self.stream();
                self.calls.data(stream, rest.get(..taken).unwrap_or_default(), now_us);
                self.data(left - taken as u32);
                Ok(taken)
            }
            At::Settings(left, entry, have) => cut(self.settings(left, entry, have, first)),
            At::Prefix(left) => {
                let taken = rest.len().min(left as usize);
                self.prefix(left - taken as u32);
                Ok(taken)
            }
            At::Fragment => self.fragment(rest, charge),
        }
    }

    fn preface(&mut self, have: usize, byte: u8) -> Step {
        if PREFACE.get(have) != Some(&byte) {
            return Err("not HTTP/2");
        }
        self.at = if have + 1 == PREFACE.len() { At::Header(0) } else { At::Preface(have + 1) };
        Ok(())
    }

    fn header(
        &mut self,
        have: usize,
        rest: &[u8],
        now_us: u64,
        charge: &mut impl FnMut(Unit) -> Charge,
    ) -> Result<usize, Charge> {
        let missing = self.header.get_mut(have..).unwrap_or_default();
        let taken = missing.len().min(rest.len());
        let complete = taken == missing.len();
        for (place, byte) in missing.iter_mut().zip(rest) {
            *place = *byte;
        }
        if !complete {
            self.at = At::Header(have + taken);
            return Ok(taken);
        }
        let [l0, l1, l2, kind, flags, ..] = self.header;
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        match self.unit(kind, flags, length).map_or_else(Charge::Cut, charge) {
            Charge::Pass => {
                self.begin(kind, flags, length, now_us).map_err(Charge::Cut)?;
                Ok(taken)
            }
            // All but the last byte pass: the frame has not begun then.
            Charge::Hold(_) if taken > 1 => {
                self.at = At::Header(HEADER_BYTES - 1);
                Ok(taken - 1)
            }
            other => Err(other),
        }
    }

    /// Of the frame that has begun.
    fn stream(&self) -> u32 {
        let [.., s0, s1, s2, s3] = self.header;
        u32::from_be_bytes([s0 & 0x7f, s1, s2, s3])
    }

    /// What a frame costs, where it may stand here at all.
    fn unit(&self, kind: u8, flags: u8, length: u32) -> Result<Unit, &'static str> {
        let stream = self.stream();
        if !self.greeted && kind != SETTINGS {
            return Err("a frame before the settings");
        }
        match (self.open, kind) {
            (Some(open), CONTINUATION) if open == stream => {}
            (Some(_), _) => return Err("a header block that another frame interrupts"),
            (None, CONTINUATION) => return Err("a continuation of no header block"),
            (None, _) => {}
        }
        if !matches!(kind, DATA | HEADERS | CONTINUATION) && length > MAX_CONTROL_BYTES {
            return Err("a long control frame");
        }
        // What the C core ignores or reads otherwise would leave the two of us with different streams.
        if kind == HEADERS && stream.is_multiple_of(2) {
            return Err("a stream that is not a client's");
        }
        if matches!(kind, DATA | HEADERS) && flags & PADDED != 0 {
            return Err("padding");
        }
        if kind == DATA && flags & !END_STREAM != 0 {
            return Err("unknown flags");
        }
        Ok(match kind {
            DATA if length == 0 && flags & END_STREAM == 0 => Unit::Empty,
            HEADERS if self.calls.begins(stream) => {
                if flags & END_STREAM == 0 {
                    Unit::Call
                } else {
                    Unit::EmptyCall
                }
            }
            HEADERS => Unit::Block,
            CONTINUATION if length == 0 => return Err("an empty continuation"),
            RST_STREAM => Unit::Reset,
            SETTINGS if flags & ACK == 0 => Unit::Settings,
            PING if flags & ACK == 0 => Unit::Ping,
            WINDOW_UPDATE => Unit::Window,
            _ => Unit::Frame,
        })
    }

    fn begin(&mut self, kind: u8, flags: u8, length: u32, now_us: u64) -> Step {
        let stream = self.stream();
        if kind == RST_STREAM {
            self.calls.close(stream);
        } else if kind == DATA && flags & END_STREAM != 0 {
            self.calls.end(stream);
        }
        match kind {
            HEADERS => {
                self.open = Some(stream);
                if self.calls.begins(stream) {
                    self.calls.begin(stream, flags & END_STREAM != 0, now_us);
                } else if flags & END_STREAM != 0 {
                    self.calls.end(stream);
                }
                (self.fields, self.block_bytes) = (Fields::default(), 0);
                let before = if flags & PRIORITIZED != 0 { 5 } else { 0 };
                self.fragment = length.checked_sub(before).ok_or("a header frame that is too short")?;
                self.prefix(before);
                self.grow()
            }
            CONTINUATION => {
                self.fragment = length;
                self.prefix(0);
                self.grow()
            }
            SETTINGS => {
                self.greeted = true;
                self.at = if length == 0 { At::Header(0) } else { At::Settings(length, [0; 6], 0) };
                Ok(())
            }
            DATA if self.calls.awaits(stream) => {
                self.data(length);
                Ok(())
            }
            _ => {
                self.opaque(length);
                Ok(())
            }
        }
    }

    fn data(&mut self, left: u32) {
        self.at = if left == 0 { At::Header(0) } else { At::Data(left) };
    }

    /// The fragment's bytes count for the block.
    fn grow(&mut self) -> Step {
        self.block_bytes = self.block_bytes.saturating_add(self.fragment);
        if self.block_bytes > MAX_BLOCK_BYTES { Err("a long header block") } else { Ok(()) }
    }

    fn opaque(&mut self, left: u32) {
        self.at = if left == 0 { At::Header(0) } else { At::Opaque(left) };
    }

    fn prefix(&mut self, left: u32) {
        if left > 0 {
            self.at = At::Prefix(left);
        } else if self.fragment > 0 {
            self.at = At::Fragment;
        } else {
            self.end_fragment();
        }
    }

    fn end_fragment(&mut self) {
        if self.header[4] & END_HEADERS != 0 {
            self.open = None;
        }
        self.at = At::Header(0);
    }

    fn settings(&mut self, left: u32, mut entry: [u8; 6], have: usize, byte: u8) -> Step {
        if let Some(place) = entry.get_mut(have) {
            *place = byte;
        }
        let [i0, i1, v0, v1, v2, v3] = entry;
        let complete = have + 1 == entry.len();
        if complete
            && u16::from_be_bytes([i0, i1]) == SETTING_WINDOW
            && u32::from_be_bytes([v0, v1, v2, v3]) < MIN_WINDOW_BYTES
        {
            return Err("a tiny window");
        }
        self.at = match (left - 1, complete) {
            (0, _) => At::Header(0),
            (left, true) => At::Settings(left, entry, 0),
            (left, false) => At::Settings(left, entry, have + 1),
        };
        Ok(())
    }

    fn fragment(&mut self, rest: &[u8], charge: &mut impl FnMut(Unit) -> Charge) -> Result<usize, Charge> {
        let most = rest.len().min(self.fragment as usize);
        let taken = self.fields.scan(rest.get(..most).unwrap_or_default(), || charge(Unit::Field))?;
        self.fragment -= taken as u32;
        if self.fragment == 0 {
            if self.header[4] & END_HEADERS != 0 && !self.fields.is_between() {
                return Err(Charge::Cut("a header field that does not end"));
            }
            self.end_fragment();
        }
        Ok(taken)
    }
}

#[cfg(test)]
mod tests;
