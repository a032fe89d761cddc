//! The one layer of encoding that is taken off: base64, hex, percent-encoding, escapes.

use super::hits::{Sink, run_end};

/// Shortest run of base64 that is decoded: nine digits make twelve characters.
pub(super) const RUN_MIN: usize = 12;
/// Shortest run of hex that is decoded.
const HEX_MIN: usize = 18;
/// Price of an attempt to decode, and of a byte that came out.
const TRY_STEPS: usize = 4;
const DECODE_STEPS: usize = 2;
/// Most places in one run where decoding is tried again, behind a separator.
const RETRIES: usize = 8;

/// The value of a base64 or base64url character.
fn sextet(byte: u8) -> Option<u8> {
    match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' | b'-' => Some(62),
        b'/' | b'_' => Some(63),
        _ => None,
    }
}

/// Decodes base64 of either alphabet, padded or not; blanks and line ends are skipped. Stops as soon as
/// `accept` refuses a byte.
fn decode(source: &[u8], out: &mut Vec<u8>, mut accept: impl FnMut(u8) -> bool) -> bool {
    let (mut bits, mut have) = (0_u32, 0_u32);
    for byte in source {
        let Some(value) = sextet(*byte) else {
            if matches!(byte, b'=' | b'\n' | b'\r' | b' ') {
                continue;
            }
            return false;
        };
        bits = (bits << 6) | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            let decoded = (bits >> have) as u8;
            bits &= (1 << have) - 1;
            if !accept(decoded) {
                return false;
            }
            out.push(decoded);
        }
    }
    have < 6
}

/// Decodes base64 whatever it holds.
pub(super) fn base64(source: &[u8], out: &mut Vec<u8>) -> bool {
    decode(source, out, |_| true)
}

/// Decodes base64 that holds text; gives up at the first byte that no text has there.
pub(super) fn base64_text(source: &[u8], out: &mut Vec<u8>) -> bool {
    let mut text = Utf8::default();
    decode(source, out, |byte| text.accept(byte)) && text.expected == 0
}

/// Follows UTF-8 byte by byte, closely enough to drop binary data early.
#[derive(Debug, Default)]
struct Utf8 {
    expected: u8,
}

impl Utf8 {
    fn accept(&mut self, byte: u8) -> bool {
        if self.expected > 0 {
            self.expected -= 1;
            return (0x80..0xC0).contains(&byte);
        }
        match byte {
            b'\t' | b'\n' | b'\r' | 0x20..=0x7E => true,
            0xC2..=0xDF => {
                self.expected = 1;
                true
            }
            0xE0..=0xEF => {
                self.expected = 2;
                true
            }
            0xF0..=0xF4 => {
                self.expected = 3;
                true
            }
            _ => false,
        }
    }
}

fn nibble(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

fn hex_text(source: &[u8], out: &mut Vec<u8>) -> bool {
    for pair in source.chunks(2) {
        let [high, low] = pair else { return false };
        let (Some(high), Some(low)) = (nibble(*high), nibble(*low)) else { return false };
        let byte = high << 4 | low;
        if !matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7E) {
            return false;
        }
        out.push(byte);
    }
    true
}

/// Looks at a run of base64 characters as an encoding. Returns the part of it that `out` is the decoded text of.
pub(super) fn run(
    text: &[u8],
    span: (usize, usize),
    out: &mut Vec<u8>,
    sink: &mut Sink<'_>,
) -> Option<(usize, usize)> {
    let (start, end) = span;
    let padded = run_end(text, end, 2, |b| b == b'=');
    let source = text.get(start..padded)?;
    let body = text.get(start..end)?;
    if body.len() >= HEX_MIN {
        let (from, hex) = match body {
            [b'0', b'x' | b'X', hex @ ..] => (start + 2, hex),
            _ => (start, body),
        };
        out.clear();
        let decoded = hex.len() >= HEX_MIN && hex_text(hex, out);
        sink.spend(out.len() * DECODE_STEPS + TRY_STEPS);
        if decoded {
            return Some((from, end));
        }
    }
    let mut from = 0;
    for _ in 0..RETRIES {
        let rest = source.get(from..)?;
        if rest.len() < RUN_MIN || sink.is_spent() {
            return None;
        }
        out.clear();
        let decoded = base64_text(rest, out);
        sink.spend(out.len() * DECODE_STEPS + TRY_STEPS);
        if decoded && out.len() >= 8 {
            return Some((start + from, padded));
        }
        // What stands before a separator may be no part of the encoding: "v1/MTIzLTQ1…".
        from += rest.iter().position(|b| matches!(b, b'/' | b'-' | b'_' | b'+'))? + 1;
    }
    None
}

/// One percent-encoded byte, or an escape of one (`\x31`) or two bytes (`\u0031`), at `from`: the
/// character and the escape's length.
pub(super) fn escape(text: &[u8], from: usize) -> Option<(char, usize)> {
    let hex = |digits: usize, skip: usize| -> Option<u32> {
        let source = text.get(from + skip..from + skip + digits)?;
        source.iter().try_fold(0_u32, |value, byte| Some(value << 4 | u32::from(nibble(*byte)?)))
    };
    let byte = |value: u32| u8::try_from(value).ok().filter(u8::is_ascii).map(char::from);
    match text.get(from..from + 2)? {
        [b'%', _] => Some((byte(hex(2, 1)?)?, 3)),
        [b'\\', b'x'] => Some((byte(hex(2, 2)?)?, 4)),
        [b'\\', b'u'] => Some((char::from_u32(hex(4, 2)?)?, 6)),
        [b'&', b'#'] => {
            let digits = run_end(text, from + 2, 6, |b| b.is_ascii_digit()) - from - 2;
            let number = std::str::from_utf8(text.get(from + 2..from + 2 + digits)?).ok()?;
            let end = text.get(from + 2 + digits).is_some_and(|b| *b == b';');
            end.then_some(())?;
            Some((char::from_u32(number.parse().ok()?)?, digits + 3))
        }
        _ => None,
    }
}

/// Decodes the escapes of a text. False when there are none.
pub(super) fn unescape(source: &str, out: &mut String) -> bool {
    let bytes = source.as_bytes();
    let mut any = false;
    let mut copied = 0;
    for sign in memchr::memchr3_iter(b'%', b'\\', b'&', bytes) {
        if sign < copied {
            continue;
        }
        if let Some((c, len)) = escape(bytes, sign) {
            out.push_str(source.get(copied..sign).unwrap_or_default());
            out.push(c);
            copied = sign + len;
            any = true;
        }
    }
    out.push_str(source.get(copied..).unwrap_or_default());
    any
}

/// A walk over escaped texts, each from its beginning once for all matches in it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct EscapedWalk {
    /// Which text, and how far: bytes of it, and of its unescaped and folded form.
    text: usize,
    at: usize,
    unescaped: usize,
    /// Where the last match ended: the next one often begins behind it.
    end: (usize, usize),
}

impl EscapedWalk {
    /// The bytes of escaped text number `text` that bytes `start..end` of its unescaped and folded form came from. Texts and
    /// matches come in their order.
    pub(super) fn span(&mut self, text: usize, source: &str, start: usize, end: usize) -> (usize, usize) {
        if text != self.text || start < self.unescaped {
            *self = Self { text, ..Self::default() };
        }
        if self.end.1 > self.unescaped && self.end.1 <= start {
            (self.at, self.unescaped) = self.end;
        }
        self.advance(source, start, |_, behind| behind <= start);
        // A later match may start inside this one: only a copy walks on.
        let mut last = *self;
        last.advance(source, end, |before, _| before < end);
        self.end = (last.at, last.unescaped);
        (self.at, last.at)
    }

    /// Passes characters as long as `on` says so of the bytes before and behind the next one, which it does up to `limit`.
    fn advance(&mut self, source: &str, limit: usize, on: impl Fn(usize, usize) -> bool) {
        let bytes = source.as_bytes();
        let itself = |b: u8| b.is_ascii() && !matches!(b, 0 | b'%' | b'\\' | b'&');
        loop {
            let plain = run_end(bytes, self.at, limit.saturating_sub(self.unescaped), itself) - self.at;
            (self.at, self.unescaped) = (self.at + plain, self.unescaped + plain);
            let Some(first) = source.get(self.at..).and_then(|rest| rest.chars().next()) else { return };
            let (c, len) = match first {
                '%' | '\\' | '&' => escape(bytes, self.at).unwrap_or((first, 1)),
                _ => (first, first.len_utf8()),
            };
            let behind = self.unescaped + super::fold::fold(c).utf8_len();
            if !on(self.unescaped, behind) {
                return;
            }
            (self.at, self.unescaped) = (self.at + len, behind);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_text_is_decoded_and_binary_is_not() {
        let mut out = Vec::new();
        assert!(base64_text(b"MTIzLTQ1LTY3ODk=", &mut out));
        assert_eq!(out, b"123-45-6789");
        out.clear();
        assert!(!base64_text(b"z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwv", &mut out));
        assert!(out.len() < 8);
    }

    #[test]
    fn escapes_map_back_to_their_source() {
        let source = "a%31%32&#51;\\u0034\\x35%zz";
        let mut out = String::new();
        assert!(unescape(source, &mut out));
        assert_eq!(out, "a12345%zz");
        let mut walk = EscapedWalk::default();
        assert_eq!(walk.span(1, source, 0, 1), (0, 1));
        assert_eq!(walk.span(1, source, 1, 6), (1, 22));
        assert_eq!(walk.span(1, source, 1, 6), (1, 22));
        assert_eq!(walk.span(1, source, 0, 1), (0, 1));
    }
}
