//! Where the head of a request ends, found byte by byte. Pure. Each line must end with CR LF, and no byte may
//! stand where it has no meaning; the parser behind it would let some of that through.

use super::limits::MAX_HEAD_BYTES;
use super::refused::Refused;

/// How far a head has come.
#[derive(Debug, Default)]
pub(super) struct Scan {
    bytes: usize,
    at: At,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the first byte.
    #[default]
    Start,
    RequestLine,
    /// After the CR of the request line.
    RequestLineEnd,
    LineStart,
    Field,
    /// After the CR of a field.
    FieldEnd,
    /// After the CR of the empty line.
    End,
}

impl Scan {
    /// Takes the next byte, and tells whether it was the last one of the head.
    pub(super) fn step(&mut self, byte: u8) -> Result<bool, Refused> {
        self.bytes += 1;
        let next = match (self.at, byte) {
            // A TLS greeting, an empty line: whatever begins otherwise is no request.
            (At::Start, b'A'..=b'Z' | b'a'..=b'z') => At::RequestLine,
            (At::RequestLine, b' '..=b'~') => At::RequestLine,
            (At::RequestLine, b'\r') => At::RequestLineEnd,
            (At::RequestLineEnd | At::FieldEnd, b'\n') => At::LineStart,
            (At::LineStart, b'\r') => At::End,
            // What begins with a blank continues the line before, for some.
            (At::LineStart, b'!'..=b'~') => At::Field,
            (At::Field, b'\t' | b' '..=b'~' | 0x80..) => At::Field,
            (At::Field, b'\r') => At::FieldEnd,
            (At::End, b'\n') => return Ok(true),
            _ => return Err(Refused::Malformed),
        };
        if self.bytes >= MAX_HEAD_BYTES {
            return Err(match self.at {
                At::Start | At::RequestLine => Refused::TargetTooLong,
                _ => Refused::HeadTooLarge,
            });
        }
        self.at = next;
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many bytes the head has.
    fn end(bytes: &[u8]) -> Result<Option<usize>, Refused> {
        let mut scan = Scan::default();
        for (index, byte) in bytes.iter().enumerate() {
            if scan.step(*byte)? {
                return Ok(Some(index + 1));
            }
        }
        Ok(None)
    }

    #[test]
    fn a_head_ends_at_its_empty_line() {
        assert_eq!(end(b"GET / HTTP/1.1\r\n\r\nmore"), Ok(Some(18)));
        assert_eq!(end(b"GET / HTTP/1.1\r\nA: b\tc\xff\r\nB:\r\n\r\n"), Ok(Some(31)));
        assert_eq!(end(b"GET / HTTP/1.1\r\nA: b\r\n\r"), Ok(None));
        assert_eq!(end(b""), Ok(None));
    }

    #[test]
    fn bytes_that_have_no_meaning_there_are_refused_at_once() {
        let bad: [&[u8]; 14] = [
            b"\r",
            b"\n",
            b" ",
            b"\x16",
            b"GET /\n",
            b"GET /\rX",
            b"GET /\t",
            b"GET /\0",
            b"GET /\xc3",
            b"GET / HTTP/1.1\r\nA: b\n",
            b"GET / HTTP/1.1\r\nA: b\r\n ",
            b"GET / HTTP/1.1\r\nA: b\r\n\t",
            b"GET / HTTP/1.1\r\nA: \x7f",
            b"GET / HTTP/1.1\r\nA: b\r\n\rX",
        ];
        for bytes in bad {
            assert_eq!(end(bytes), Err(Refused::Malformed), "{:?}", bytes.escape_ascii().to_string());
            assert_eq!(end(&bytes[..bytes.len() - 1]), Ok(None));
        }
    }

    #[test]
    fn a_head_has_a_longest_size() {
        let mut head = b"GET / HTTP/1.1\r\nA: ".to_vec();
        head.resize(MAX_HEAD_BYTES - 4, b'a');
        head.extend_from_slice(b"\r\n\r\n");
        assert_eq!(end(&head), Ok(Some(MAX_HEAD_BYTES)));
        head.insert(20, b'a');
        assert_eq!(end(&head), Err(Refused::HeadTooLarge));
        assert_eq!(end(&b"G".repeat(MAX_HEAD_BYTES - 1)), Ok(None));
        assert_eq!(end(&b"G".repeat(MAX_HEAD_BYTES)), Err(Refused::TargetTooLong));
    }

    proptest! {
        #[test]
        fn no_bare_line_end_and_no_control_byte_is_in_a_head(
            bytes in proptest::collection::vec(prop_oneof![
                Just(b'\r'), Just(b'\n'), Just(b' '), Just(b'A'), Just(b':'), any::<u8>()
            ], 0..60)
        ) {
            let bytes = [b"GET / HTTP/1.1\r\n".to_vec(), bytes].concat();
            if let Ok(Some(end)) = end(&bytes) {
                let head = String::from_utf8_lossy(&bytes[..end]);
                let lines = head.strip_suffix("\r\n\r\n").unwrap();
                for line in lines.split("\r\n") {
                    prop_assert!(!line.is_empty() && !line.starts_with([' ', '\t']));
                    prop_assert!(!line.contains(|c: char| c.is_ascii_control() && c != '\t'));
                }
            }
        }
    }
}
