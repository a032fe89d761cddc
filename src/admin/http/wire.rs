//! A connection with its deadlines, plain or TLS: reader and writer are one thread. Every system call waits for what
//! is left of a deadline and no longer, so a peer that sends a byte now and then gains nothing.

use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, recv};
use rustls::pki_types::CertificateDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::limits::from_now;
use super::socket::Stream;

/// What one write hands to the kernel, in bytes: progress is seen in steps of it.
const WRITE_BYTES: usize = 16 * 1024;
/// The slowest that an answer may be taken on the whole, in bytes per second.
const MIN_WRITE_BYTES_PER_S: usize = 16 * 1024;
/// How long a look at what the peer sends may take: TLS records without content could make it endless.
const GLANCE: Duration = Duration::from_secs(1);
/// How long a closed connection is read on, so that the peer gets to see its answer, and how many bytes.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// A connection.
pub(super) enum Wire {
    Plain(Timed),
    Tls(Box<StreamOwned<ServerConnection, Timed>>),
}

/// What a peer did since it was last looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    Bytes,
    /// It sends no more.
    End,
}

/// A socket that keeps a deadline.
pub(super) struct Timed {
    socket: Arc<Stream>,
    deadline: Instant,
    /// How long the peer may take no bytes.
    stall: Duration,
    /// When it last took some.
    progress: Instant,
    /// Whether a read waits.
    waits: bool,
}

impl Wire {
    /// A connection without TLS.
    pub(super) fn plain(socket: Arc<Stream>, stall: Duration) -> Self {
        Self::Plain(Timed::new(socket, stall))
    }

    /// Shakes hands.
    pub(super) fn shake(
        socket: Arc<Stream>,
        stall: Duration,
        config: Arc<ServerConfig>,
        deadline: Instant,
    ) -> Result<Self> {
        let mut timed = Timed::new(socket, stall);
        timed.until(deadline);
        let mut tls = ServerConnection::new(config).map_err(Error::other)?;
        while tls.is_handshaking() {
            if tls.complete_io(&mut timed)? == (0, 0) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(tls, timed))))
    }

    /// The certificate that the peer has shown.
    pub(super) fn certificate(&self) -> Option<CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.conn.peer_certificates()?.first().map(|leaf| leaf.clone().into_owned()),
        }
    }

    /// Sets the deadline of what is read from now on, and of what has to be written for that.
    pub(super) fn until(&mut self, deadline: Instant) {
        self.timed().until(deadline);
    }

    /// Reads what is there, or waits for it. 0: the peer sends no more.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Self::Plain(timed) => timed.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }

    /// Looks whether the peer has sent something, without waiting. What it has sent is dropped.
    pub(super) fn heard(&mut self) -> Heard {
        self.until(from_now(GLANCE));
        self.timed().waits = false;
        let heard = match self.read(&mut [0; 512]) {
            Ok(0) => Heard::End,
            Ok(_) => Heard::Bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Heard::Nothing,
            Err(_) => Heard::End,
        };
        self.timed().waits = true;
        heard
    }

    /// Writes all of it, within a time that grows with its length.
    pub(super) fn write(&mut self, parts: &[&[u8]]) -> Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let stall = self.timed().stall;
        let slowest_s = u64::try_from(length / MIN_WRITE_BYTES_PER_S).unwrap_or(u64::MAX);
        self.until(from_now(stall.saturating_add(Duration::from_secs(slowest_s))));
        // What is small goes out as one piece.
        let whole = if length <= WRITE_BYTES { parts.concat() } else { Vec::new() };
        let parts = if length <= WRITE_BYTES { &[&whole[..]] } else { parts };
        for part in parts {
            match self {
                Self::Plain(timed) => timed.write_all(part)?,
                Self::Tls(tls) => tls.write_all(part)?,
            }
        }
        match self {
            Self::Plain(timed) => timed.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// Tells the peer that nothing more comes. Unless `at_once`, what it still sends is read for a moment: a socket
    /// closed before its bytes are read resets the connection, and the answer may be lost with it.
    pub(super) fn close(&mut self, at_once: bool) {
        self.until(from_now(LINGER));
        if let Self::Tls(tls) = self {
            tls.conn.send_close_notify();
            // As far as it goes.
            let _ = tls.flush();
        }
        let timed = self.timed();
        let ended = timed.socket.shutdown(Shutdown::Write);
        if ended.is_err() || at_once {
            return;
        }
        let mut buffer = [0; 4096];
        let mut left = LINGER_BYTES;
        while let Ok(count) = timed.read(&mut buffer) {
            left = left.saturating_sub(count);
            if count == 0 || left == 0 {
                return;
            }
        }
    }

    fn timed(&mut self) -> &mut Timed {
        match self {
            Self::Plain(timed) => timed,
            Self::Tls(tls) => &mut tls.sock,
        }
    }
}

impl Timed {
    fn new(socket: Arc<Stream>, stall: Duration) -> Self {
        let now = Instant::now();
        Self { socket, deadline: now, stall, progress: now, waits: true }
    }

    fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
        self.progress = Instant::now();
    }
}

/// What is left of a deadline.
fn left(deadline: Instant) -> Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// A system call that has waited as long as it was told has met the deadline.
fn expired(error: Error) -> Error {
    if error.kind() == ErrorKind::WouldBlock { ErrorKind::TimedOut.into() } else { error }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            let left = left(self.deadline)?;
            let read = if self.waits {
                self.socket.set_read_timeout(left)?;
                (&*self.socket).read(buffer).map_err(expired)
            } else {
                recv(self.socket.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT).map_err(Error::from)
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let bytes = bytes.get(..WRITE_BYTES).unwrap_or(bytes);
        loop {
            let stalled = self.progress.checked_add(self.stall).unwrap_or(self.deadline);
            self.socket.set_write_timeout(left(self.deadline.min(stalled))?)?;
            match (&*self.socket).write(bytes).map_err(expired) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(count) => {
                    self.progress = Instant::now();
                    return Ok(count);
                }
                failed => return failed,
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const SHORT: Duration = Duration::from_millis(300);
    const LONG: Duration = Duration::from_secs(20);

    fn pair(stall: Duration) -> (Timed, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Timed::new(Arc::new(Stream::Tcp(listener.accept().unwrap().0)), stall), far)
    }

    /// Reads a little now and then until the other end closes. Returns how much it read.
    fn sip(mut far: TcpStream) -> std::thread::JoinHandle<usize> {
        std::thread::spawn(move || {
            let mut read = 0;
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(count) = far.read(&mut buffer) {
                read += count;
                if count == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            read
        })
    }

    #[test]
    fn progress_does_not_prolong_the_deadline_of_the_whole() {
        let (mut timed, far) = pair(LONG);
        let reader = sip(far);
        timed.until(from_now(SHORT));
        let begun = Instant::now();
        let bytes = vec![0; 512 * 1024];
        let error = loop {
            if let Err(error) = timed.write_all(&bytes) {
                break error;
            }
            assert!(begun.elapsed() < LONG, "it is written on and on");
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() >= SHORT);
        drop(timed);
        assert!(reader.join().unwrap() > 0);
    }

    #[test]
    fn a_look_does_not_wait() {
        let (timed, mut far) = pair(LONG);
        let mut wire = Wire::Plain(timed);
        assert_eq!(wire.heard(), Heard::Nothing);
        far.write_all(b"a").unwrap();
        while wire.heard() == Heard::Nothing {}
        far.write_all(b"b").unwrap();
        // What was looked at is gone, and the next read waits again.
        wire.until(from_now(LONG));
        assert_eq!(wire.read(&mut [0; 9]).unwrap(), 1);
        wire.until(from_now(SHORT));
        let begun = Instant::now();
        assert_eq!(wire.read(&mut [0; 9]).unwrap_err().kind(), ErrorKind::TimedOut);
        assert!(begun.elapsed() >= SHORT);
        drop(far);
        while wire.heard() == Heard::Nothing {}
        assert_eq!(wire.heard(), Heard::End);
    }
}
