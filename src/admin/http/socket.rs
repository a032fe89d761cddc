//! What connections come in on, and what they are: TCP, or a unix socket, whose other end the kernel names.

use std::fmt;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use nix::unistd::Uid;

/// How long unacknowledged bytes keep a connection, in milliseconds: a peer that has vanished says nothing.
const TCP_USER_TIMEOUT_MS: u32 = 30_000;

/// Where connections come in.
#[derive(Debug)]
pub enum Socket {
    /// An address.
    Tcp(TcpListener),
    /// A file.
    Unix(UnixListener),
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remote {
    /// An address.
    Addr(SocketAddr),
    /// A process of that user on this machine, as the kernel says.
    User(Uid),
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addr(addr) => addr.fmt(f),
            Self::User(uid) => write!(f, "uid {uid}"),
        }
    }
}

impl From<TcpListener> for Socket {
    fn from(listener: TcpListener) -> Self {
        Self::Tcp(listener)
    }
}

impl From<UnixListener> for Socket {
    fn from(listener: UnixListener) -> Self {
        Self::Unix(listener)
    }
}

impl Socket {
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.set_nonblocking(true),
            Self::Unix(listener) => listener.set_nonblocking(true),
        }
    }

    /// Takes the next connection; its reads and writes wait.
    pub(super) fn accept(&self) -> io::Result<(Stream, Remote)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, addr) = listener.accept()?;
                Ok((Stream::Tcp(stream), Remote::Addr(addr)))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                let credentials = getsockopt(&stream, sockopt::PeerCredentials);
                let user = credentials.map_err(|_| Error::from(ErrorKind::ConnectionAborted))?.uid();
                Ok((Stream::Unix(stream), Remote::User(Uid::from_raw(user))))
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Sets what a connection needs. An error: it is gone already.
    pub(super) fn prepare(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_nodelay(true)?;
                Ok(setsockopt(stream, sockopt::TcpUserTimeout, &TCP_USER_TIMEOUT_MS)?)
            }
            Self::Unix(_) => Ok(()),
        }
    }

    /// The address that the peer has called.
    pub(super) fn local_ip(&self) -> io::Result<IpAddr> {
        match self {
            Self::Tcp(stream) => Ok(stream.local_addr()?.ip()),
            Self::Unix(_) => Ok(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }

    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nonblocking(true),
            Self::Unix(stream) => stream.set_nonblocking(true),
        }
    }

    pub(super) fn set_read_timeout(&self, wait: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(wait)),
            Self::Unix(stream) => stream.set_read_timeout(Some(wait)),
        }
    }

    pub(super) fn set_write_timeout(&self, wait: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(Some(wait)),
            Self::Unix(stream) => stream.set_write_timeout(Some(wait)),
        }
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Read for &Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).read(buffer),
            Stream::Unix(stream) => (&mut &*stream).read(buffer),
        }
    }
}

impl Write for &Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => (&mut &*stream).write(bytes),
            Stream::Unix(stream) => (&mut &*stream).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
