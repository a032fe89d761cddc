//! A server with a service for tests, and a client that sends what it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use mas::admin::http::{
    Answer, Content, Counters, ETag, EventSource, HttpServer, Limits, Method, Next, Request, Service, Tls,
};

/// How long anything may take that is expected to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// A deadline of the server in tests that wait for it.
pub(crate) const SHORT: Duration = Duration::from_millis(400);
/// Larger than what the buffers of two sockets take.
pub(crate) const LARGE_BYTES: usize = 32 * 1024 * 1024;

/// How many servers of tests run that may run side by side; `None` while one test has the process for itself.
static TURNS: Mutex<Option<usize>> = Mutex::new(Some(0));
static TURN_OVER: Condvar = Condvar::new();

/// The right to run a server. A test may have several; one that runs alone waits until there are none.
pub(crate) struct Turn {
    is_alone: bool,
}

impl Turn {
    pub(crate) fn alone() -> Self {
        let turns = TURNS.lock().unwrap();
        *TURN_OVER.wait_while(turns, |turns| *turns != Some(0)).unwrap() = None;
        Self { is_alone: true }
    }

    fn side_by_side() -> Self {
        let turns = TURNS.lock().unwrap();
        let mut turns = TURN_OVER.wait_while(turns, |turns| turns.is_none()).unwrap();
        *turns = turns.map(|count| count + 1);
        Self { is_alone: false }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = TURNS.lock().unwrap();
        *turns = if self.is_alone { Some(0) } else { turns.map(|count| count - 1) };
        TURN_OVER.notify_all();
    }
}

/// Waits until it holds.
pub(crate) fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come to this: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// What requests are answered with, by path.
pub(crate) struct Responder {
    /// The paths that it was asked for.
    pub asked: Mutex<Vec<String>>,
    /// `/hold` waits for this.
    is_released: Mutex<bool>,
    released: Condvar,
    large: Arc<[u8]>,
}

impl Responder {
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// Lets whatever `/hold` keeps go on.
    pub(crate) fn release(&self) {
        *self.is_released.lock().unwrap() = true;
        self.released.notify_all();
    }
}

impl Service for Responder {
    fn answer(&self, request: &Request) -> Answer {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(request.path().to_owned());
        match request.path() {
            "/" => Content::text(StatusCode::OK, "hello").into(),
            "/echo" => {
                assert_eq!(request.method(), Method::Post);
                Content::text(StatusCode::OK, request.body().to_vec()).into()
            }
            "/static" => {
                let etag = ETag::new("v1").unwrap();
                Content::text(StatusCode::OK, &b"a page"[..]).with_etag(etag).into()
            }
            "/large" => Content::text(StatusCode::OK, self.large.clone()).into(),
            "/panic" => panic!("the service panics, as it was asked to"),
            "/hold" => {
                let is_released = self.is_released.lock().unwrap();
                drop(self.released.wait_while(is_released, |is_released| !*is_released).unwrap());
                Content::text(StatusCode::OK, "released").into()
            }
            "/who" => {
                let peer = request.peer();
                let shown = peer.certificate.as_ref().map_or(0, |der| der.len());
                Content::text(StatusCode::OK, format!("{} {shown}", peer.remote)).into()
            }
            "/events/silent" => Answer::Events(Box::new(Events { next: 0, count: 0, size: 0 })),
            "/events/three" => Answer::Events(Box::new(Events { next: 0, count: 3, size: 1 })),
            "/events/flood" => Answer::Events(Box::new(Events { next: 0, count: u64::MAX, size: 60_000 })),
            "/events/panic" => Answer::Events(Box::new(Broken)),
            _ => Content::text(StatusCode::NOT_FOUND, "no such page").into(),
        }
    }
}

/// So many events, and then silence; or an end after them.
struct Events {
    next: u64,
    count: u64,
    size: usize,
}

impl EventSource for Events {
    fn next(&mut self, until: Instant) -> Next {
        if self.next < self.count {
            self.next += 1;
            let data = "x".repeat(self.size);
            return Next::Event { id: Some(self.next.to_string()), name: Some("tick".to_owned()), data };
        }
        if self.count > 0 {
            return Next::End;
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()));
        Next::Idle
    }
}

struct Broken;

impl EventSource for Broken {
    fn next(&mut self, _until: Instant) -> Next {
        panic!("the source panics, as it was asked to");
    }
}

/// A server on a port of its own.
pub(crate) struct Running {
    pub server: Option<HttpServer>,
    pub addr: SocketAddr,
    pub responder: Arc<Responder>,
    pub counters: Arc<Counters>,
    _turn: Option<Turn>,
}

impl Running {
    pub(crate) fn plain(limits: Limits) -> Self {
        Self::start(limits, None, Some(Turn::side_by_side()))
    }

    pub(crate) fn tls(limits: Limits, tls: Arc<Tls>) -> Self {
        Self::start(limits, Some(tls), Some(Turn::side_by_side()))
    }

    /// For a test that runs alone.
    pub(crate) fn alone(limits: Limits) -> Self {
        Self::start(limits, None, None)
    }

    fn start(limits: Limits, tls: Option<Arc<Tls>>, turn: Option<Turn>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let responder = Arc::new(Responder {
            asked: Mutex::default(),
            is_released: Mutex::new(false),
            released: Condvar::new(),
            large: vec![b'x'; LARGE_BYTES].into(),
        });
        let server = HttpServer::start(listener, tls, responder.clone(), limits).unwrap();
        let counters = server.counters().clone();
        Self { server: Some(server), addr, responder, counters, _turn: turn }
    }

    pub(crate) fn connect(&self) -> Client<TcpStream> {
        Client::new(connect(self.addr))
    }

    /// One request on a connection of its own, which the server is expected to close behind its answer.
    pub(crate) fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut client = self.connect();
        client.send(request);
        let reply = client.reply();
        assert_eq!(reply.field("connection"), Some("close"), "{reply:?}");
        assert!(client.ends(), "nothing follows {reply:?}");
        reply
    }

    pub(crate) fn open(&self) -> u64 {
        self.counters.connections.load(Ordering::Relaxed)
    }

    pub(crate) fn streams(&self) -> u64 {
        self.counters.streams.load(Ordering::Relaxed)
    }

    /// Whether a client that behaves is answered.
    pub(crate) fn assert_serves(&self) {
        let mut client = self.connect();
        client.send(get("/"));
        assert_eq!(client.reply().status, 200);
    }
}

pub(crate) fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

pub(crate) fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(this, _)| this == name).map(|(_, value)| value.as_str())
    }
}

/// One end of a connection, with what was read and not yet taken.
pub(crate) struct Client<S> {
    pub stream: S,
    pub buffer: Vec<u8>,
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self.stream.flush().unwrap();
    }

    /// Reads more; false at the end.
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        let count = self.stream.read(&mut bytes).unwrap();
        self.buffer.extend_from_slice(&bytes[..count]);
        count > 0
    }

    /// Reads up to that, and takes it.
    pub(crate) fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end.as_bytes()) {
                let taken = self.buffer.drain(..at + end.len()).collect();
                return String::from_utf8(taken).unwrap();
            }
            assert!(
                self.fill(),
                "the connection ended before {end:?}: {:?}",
                self.buffer.escape_ascii().to_string()
            );
        }
    }

    /// Reads the head of an answer.
    pub(crate) fn head(&mut self) -> Reply {
        let head = self.until("\r\n\r\n");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap();
        let status = status.strip_prefix("HTTP/1.1 ").unwrap()[..3].parse().unwrap();
        let field = |line: &str| {
            line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap()
        };
        Reply { status, fields: lines.map(field).collect(), body: Vec::new() }
    }

    /// Reads an answer.
    pub(crate) fn reply(&mut self) -> Reply {
        let mut reply = self.head();
        let length = reply.field("content-length").map_or(0, |length| length.parse().unwrap());
        while self.buffer.len() < length {
            assert!(self.fill(), "the body ended early");
        }
        reply.body = self.buffer.drain(..length).collect();
        reply
    }

    /// Whether the server sends nothing more and closes.
    pub(crate) fn ends(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        match self.stream.read(&mut [0; 1]) {
            Ok(count) => count == 0,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => true,
                _ => panic!("the connection neither ends nor says anything: {error}"),
            },
        }
    }
}
