//! A plain socket to Redis, and its answers read off it (RESP 2). Hot path: the `redis` crate's parser costs more
//! instructions per message than the whole search for sensitive data, so the crate is left to what needs no
//! speed: URLs, TLS and subscriptions.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use redis::{ConnectionAddr, Value};

/// First size of the read buffer; it grows for answers that are longer.
const BUFFER_BYTES: usize = 64 * 1024;
/// Longest line: of an error; what has no length before it.
const MAX_LINE_BYTES: usize = 1024 * 1024;
/// Deepest nesting of an answer; ours have five levels.
const MAX_DEPTH: usize = 16;
/// Longest string that Redis can hold.
const MAX_BULK_BYTES: usize = 512 * 1024 * 1024;

trait Socket: Read + Write + Send {}
impl Socket for TcpStream {}
impl Socket for UnixStream {}

/// A socket with what was read from it and not yet taken.
pub(super) struct Wire {
    socket: Box<dyn Socket>,
    buffer: Vec<u8>,
    /// What was read and not taken: `buffer[start..end]`.
    start: usize,
    end: usize,
}

impl Wire {
    /// Connects; no step takes longer than `timeout`. `None` for an address that takes more than a socket.
    pub(super) fn connect(addr: &ConnectionAddr, timeout: Duration) -> Result<Option<Self>> {
        match addr {
            ConnectionAddr::Tcp(host, port) => {
                let mut failed = Error::new(ErrorKind::NotFound, "the host has no address");
                for addr in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&addr, timeout) {
                        Ok(socket) => {
                            socket.set_nodelay(true)?;
                            socket.set_read_timeout(Some(timeout))?;
                            socket.set_write_timeout(Some(timeout))?;
                            return Ok(Some(Self::new(Box::new(socket))));
                        }
                        Err(error) => failed = error,
                    }
                }
                Err(failed)
            }
            ConnectionAddr::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_read_timeout(Some(timeout))?;
                socket.set_write_timeout(Some(timeout))?;
                Ok(Some(Self::new(Box::new(socket))))
            }
            _ => Ok(None),
        }
    }

    fn new(socket: Box<dyn Socket>) -> Self {
        Self { socket, buffer: vec![0; BUFFER_BYTES], start: 0, end: 0 }
    }

    /// Writes all of it.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.socket.write_all(bytes)
    }

    /// Reads one answer. A refusal is an answer.
    pub(super) fn receive(&mut self) -> Result<Value> {
        self.value(MAX_DEPTH)
    }

    fn value(&mut self, depth_left: usize) -> Result<Value> {
        let (from, to) = self.line()?;
        let Some((kind, rest)) = self.buffer.get(from..to).and_then(<[u8]>::split_first) else {
            return Err(malformed());
        };
        match kind {
            // Each command of a transaction is answered by QUEUED first: no string for each of them.
            b'+' if rest == b"OK" || rest == b"QUEUED" => Ok(Value::Okay),
            b'+' => Ok(Value::SimpleString(String::from_utf8_lossy(rest).into_owned())),
            b':' => number(rest).map(Value::Int),
            b'$' => match number(rest)? {
                -1 => Ok(Value::Nil),
                length => self.bulk(length).map(Value::BulkString),
            },
            b'*' => match number(rest)? {
                -1 => Ok(Value::Nil),
                count => {
                    let depth_left = depth_left.checked_sub(1).ok_or_else(malformed)?;
                    let count = usize::try_from(count).map_err(|_| malformed())?;
                    // What an answer claims to hold is not trusted with memory before it comes.
                    let mut values = Vec::with_capacity(count.min(4096));
                    for _ in 0..count {
                        values.push(self.value(depth_left)?);
                    }
                    Ok(Value::Array(values))
                }
            },
            b'-' => {
                // Seldom: the crate knows the error codes.
                let line = [b"-".as_slice(), rest, b"\r\n"].concat();
                redis::parse_redis_value(&line).map_err(Error::other)
            }
            _ => Err(malformed()),
        }
    }

    /// Takes the next line: where it stands in the buffer, its end (CR LF) excluded.
    fn line(&mut self) -> Result<(usize, usize)> {
        let mut looked = 0;
        loop {
            let waiting = self.buffer.get(self.start + looked..self.end).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', waiting) {
                let (from, to) = (self.start, self.start + looked + at);
                self.start = to + 1;
                return Ok((from, to.saturating_sub(1).max(from)));
            }
            looked = self.end - self.start;
            if looked > MAX_LINE_BYTES {
                return Err(malformed());
            }
            self.fill()?;
        }
    }

    fn bulk(&mut self, length: i64) -> Result<Vec<u8>> {
        let length = usize::try_from(length).ok().filter(|length| *length <= MAX_BULK_BYTES);
        let length = length.ok_or_else(malformed)?;
        let here = length.min(self.end - self.start);
        let mut bytes = Vec::with_capacity(length);
        bytes.extend_from_slice(self.buffer.get(self.start..self.start + here).unwrap_or_default());
        self.start += here;
        if let Some(missing) = length.checked_sub(here).filter(|missing| *missing > 0) {
            // The rest of a long string goes where it belongs, not through the buffer.
            let read = Read::by_ref(&mut self.socket).take(missing as u64).read_to_end(&mut bytes)?;
            if read < missing {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        while self.end - self.start < 2 {
            self.fill()?;
        }
        self.start += 2;
        Ok(bytes)
    }

    /// Reads more behind what waits.
    fn fill(&mut self) -> Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            if self.end == self.buffer.len() {
                self.buffer.resize(self.end * 2, 0);
            }
        }
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        match self.socket.read(room) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.end += read;
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn number(digits: &[u8]) -> Result<i64> {
    std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok()).ok_or_else(malformed)
}

fn malformed() -> Error {
    Error::new(ErrorKind::InvalidData, "an answer that is no RESP")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Hands out its bytes in pieces.
    struct Pieces(Vec<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, into: &mut [u8]) -> Result<usize> {
            let Some(piece) = self.0.first_mut() else { return Ok(0) };
            let count = piece.len().min(into.len());
            into[..count].copy_from_slice(&piece[..count]);
            drop(piece.drain(..count));
            if piece.is_empty() {
                drop(self.0.remove(0));
            }
            Ok(count)
        }
    }

    impl Write for Pieces {
        fn write(&mut self, bytes: &[u8]) -> Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> Result<()> {
            Ok(())
        }
    }

    impl Socket for Pieces {}

    fn wire(bytes: &[u8], piece: usize) -> Wire {
        Wire::new(Box::new(Pieces(bytes.chunks(piece.max(1)).map(<[u8]>::to_vec).collect())))
    }

    fn encode(value: &Value, out: &mut Vec<u8>) {
        match value {
            Value::Nil => out.extend_from_slice(b"$-1\r\n"),
            Value::Okay => out.extend_from_slice(b"+OK\r\n"),
            Value::Int(n) => out.extend_from_slice(format!(":{n}\r\n").as_bytes()),
            Value::SimpleString(text) => out.extend_from_slice(format!("+{text}\r\n").as_bytes()),
            Value::BulkString(bytes) => {
                out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
            Value::Array(values) => {
                out.extend_from_slice(format!("*{}\r\n", values.len()).as_bytes());
                values.iter().for_each(|value| encode(value, out));
            }
            other => panic!("{other:?}"),
        }
    }

    fn answer() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            Just(Value::Okay),
            any::<i64>().prop_map(Value::Int),
            "[A-Z]{0,9}".prop_filter("is another value", |t| t != "OK").prop_map(Value::SimpleString),
            proptest::collection::vec(any::<u8>(), 0..300).prop_map(Value::BulkString),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| proptest::collection::vec(inner, 0..8).prop_map(Value::Array))
    }

    proptest! {
        #[test]
        fn any_answer_is_read_as_it_was_written_however_it_comes(
            values in proptest::collection::vec(answer(), 1..6), piece in 1usize..200
        ) {
            let mut bytes = Vec::new();
            values.iter().for_each(|value| encode(value, &mut bytes));
            let mut wire = wire(&bytes, piece);
            for value in values {
                prop_assert_eq!(wire.receive().unwrap(), value);
            }
            prop_assert_eq!(wire.receive().unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = wire(&bytes, 50).receive();
        }
    }

    #[test]
    fn a_long_string_and_a_refusal() {
        let long = vec![b'x'; 3 * BUFFER_BYTES];
        let mut bytes = Vec::new();
        encode(&Value::Array(vec![Value::BulkString(long.clone()), Value::Int(7)]), &mut bytes);
        bytes.extend_from_slice(b"-NOGROUP No such key\r\n");
        let mut wire = wire(&bytes, 5000);
        assert_eq!(wire.receive().unwrap(), Value::Array(vec![Value::BulkString(long), Value::Int(7)]));
        assert!(matches!(wire.receive().unwrap(), Value::ServerError(error) if error.code() == "NOGROUP"));
    }

    #[test]
    fn lengths_that_nothing_can_have_are_refused() {
        for bad in ["$-2\r\n", "*-2\r\n", "$99999999999\r\n", ":x\r\n", "?\r\n", "\r\n", "\n"] {
            assert_eq!(
                wire(bad.as_bytes(), 9).receive().unwrap_err().kind(),
                ErrorKind::InvalidData,
                "{bad:?}"
            );
        }
        let deep = "*1\r\n".repeat(100_000);
        assert_eq!(wire(deep.as_bytes(), 4096).receive().unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
