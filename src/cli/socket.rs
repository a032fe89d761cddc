//! HTTP over the unix socket of a server on this host. One request a connection.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};
use nix::unistd::Uid;
use ureq::Body;
use ureq::http::{Response, StatusCode};

/// Longest that the server may say nothing: a command waits for the checkpoint that covers it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest head of an answer, in bytes, and most fields in it.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;

/// How long a server may take to say that it lives: one that is stopped takes connections all the same.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// What is at the socket.
pub(super) enum Found {
    /// A server that lives.
    Server(UnixStream),
    /// Nobody listens there, or no server has made it.
    Nobody,
    /// A server that says nothing, or not to this user: why.
    Unusable(String),
}

/// Connects, if there is a server that lives.
pub(super) fn find(path: &Path, trusted: &[Uid]) -> Found {
    let alive = open(path, SIGN_OF_LIFE, trusted).and_then(|stream| {
        let sign = ask(stream, "/healthz", None)?;
        match sign.status() {
            StatusCode::OK => open(path, PATIENCE, trusted),
            status => Err(Error::other(format!("the server says {status}"))),
        }
    });
    match alive {
        Ok(stream) => Found::Server(stream),
        Err(error) => match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => Found::Nobody,
            _ => Found::Unusable(format!("{}: {error}", path.display())),
        },
    }
}

/// `trusted`: whose servers may be talked to.
fn open(path: &Path, patience: Duration, trusted: &[Uid]) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // A server that is stopped takes connections until there is no more room: that is not waited for.
    match connect(socket.as_raw_fd(), &UnixAddr::new(path)?) {
        Err(Errno::EAGAIN) => return Err(Error::new(ErrorKind::TimedOut, "the server takes no connections")),
        connected => connected?,
    }
    let stream = UnixStream::from(socket);
    let listener = Uid::from_raw(getsockopt(&stream, sockopt::PeerCredentials)?.uid());
    // Where others can write to the folder, anybody may have put his own socket there.
    if !trusted.contains(&listener) && others_can_write(path) {
        let why = format!("uid {listener} listens there, who is neither root nor owner of the configuration");
        return Err(Error::new(ErrorKind::PermissionDenied, why));
    }
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
}

/// Whether others can put something else in the place of that file.
fn others_can_write(path: &Path) -> bool {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    folder.metadata().map_or(true, |metadata| metadata.mode() & 0o022 != 0)
}

/// Asks; the answer's body is read by the caller. `body`: what is posted; else it is a GET.
pub(super) fn ask(mut stream: UnixStream, target: &str, body: Option<&[u8]>) -> io::Result<Response<Body>> {
    let method = if body.is_some() { "POST" } else { "GET" };
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    if let Some(body) = body {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes())?;
    // A server that refuses a body answers before it was read.
    let sent = stream.write_all(body.unwrap_or_default());
    match answer(stream) {
        Ok(answer) => Ok(answer),
        Err(error) => Err(sent.err().unwrap_or(error)),
    }
}

fn answer(mut stream: UnixStream) -> io::Result<Response<Body>> {
    let mut head = Vec::new();
    let mut byte = [0; 1024];
    let (status, length) = loop {
        let count = stream.read(&mut byte)?;
        if count == 0 || head.len() > MAX_HEAD_BYTES {
            return Err(Error::new(ErrorKind::InvalidData, "the server's answer is not whole"));
        }
        head.extend_from_slice(byte.get(..count).unwrap_or_default());
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Response::new(&mut fields);
        match parsed.parse(&head).map_err(Error::other)? {
            httparse::Status::Complete(length) => break (parsed.code.unwrap_or(0), length),
            httparse::Status::Partial => {}
        }
    };
    let begun = head.split_off(length);
    // Each connection ends behind its answer, so the body is what comes until then.
    let body = Body::builder().reader(io::Cursor::new(begun).chain(stream));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).map_err(Error::other)?;
    Ok(response)
}
