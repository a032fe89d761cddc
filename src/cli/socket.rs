//! HTTP over the unix socket of a server on this host. One request a connection.

use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use ureq::Body;
use ureq::http::{Response, StatusCode};

/// Longest that the server may say nothing: a command waits for the checkpoint that covers it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest head of an answer, in bytes, and most fields in it.
const MAX_HEAD_BYTES: usize = 16 * 1024;
const MAX_FIELDS: usize = 64;

/// How long a server may take to say that it lives: one that is stopped takes connections all the same.
const SIGN_OF_LIFE: Duration = Duration::from_secs(3);

/// Connects, if there is a server that lives.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let sign = open(path, SIGN_OF_LIFE).and_then(|stream| ask(stream, "/healthz", None))?;
    if sign.status() != StatusCode::OK {
        return Err(Error::other(format!("the server says {}", sign.status())));
    }
    open(path, PATIENCE)
}

fn open(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    Ok(stream)
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
