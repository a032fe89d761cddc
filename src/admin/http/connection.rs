//! The life of one connection, on its own thread: handshake, then one request after another, each read as a whole,
//! answered, and only then followed by the next.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::answer::{Answer, Content, events_head};
use super::counters::{Counters, add};
use super::events::EventSource;
use super::host::Hosts;
use super::intake::{Intake, Wants};
use super::knocks::Knocks;
use super::limits::{Limits, from_now};
use super::places::Place;
use super::refused::Refused;
use super::request::{Method, Peer, Request, Rules};
use super::service::Service;
use super::socket::{Remote, Stream};
use super::stream;
use super::tls::Tls;
use super::wire::{Heard, Wire};

/// What one read takes, in bytes.
const READ_BYTES: usize = 8 * 1024;
/// What is logged of a path, in characters.
const LOGGED_CHARS: usize = 100;
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What all connections share.
pub(super) struct Shared {
    pub service: Arc<dyn Service>,
    pub tls: Option<Arc<Tls>>,
    pub limits: Limits,
    pub hosts: Arc<Hosts>,
    pub counters: Arc<Counters>,
    pub knocks: Knocks,
}

/// One connection.
struct Connection<'a> {
    wire: Wire,
    peer: Arc<Peer>,
    rules: Rules,
    shared: &'a Shared,
    place: &'a Place,
}

/// What came of waiting for a request.
enum Arrived {
    Request {
        request: Request,
        /// Whether more bytes stood behind it.
        more: bool,
    },
    Refused {
        refused: Refused,
        is_head: bool,
    },
    /// Nobody is there any more, or has said anything in time.
    Gone,
}

/// Serves a connection until it ends. `place` is given back by the caller, after everything else.
pub(super) fn run(socket: Arc<Stream>, remote: Remote, shared: &Shared, place: &Place) {
    let Limits { stall, handshake, body_bytes, .. } = shared.limits;
    let Ok(local) = socket.local_ip() else { return };
    let wire = match &shared.tls {
        None => Wire::plain(socket, stall),
        Some(tls) => match Wire::shake(socket, stall, tls.current(), from_now(handshake)) {
            Ok(wire) => wire,
            Err(error) => {
                add(&shared.counters.refused_handshake);
                if let Some(left_out) = shared.knocks.count(Instant::now()) {
                    log::warn!(
                        code = "handshake_refused", peer:% = remote, listener = "admin",
                        left_out = (left_out > 0).then_some(left_out);
                        "a handshake from {remote} with the admin listener was refused: {error}"
                    );
                }
                return;
            }
        },
    };
    let peer = Arc::new(Peer { remote, certificate: wire.certificate() });
    let body_bytes = body_bytes.min(shared.service.body_bytes(&peer));
    let rules = Rules { hosts: shared.hosts.clone(), local, body_bytes };
    Connection { wire, peer, rules, shared, place }.serve();
}

impl Connection<'_> {
    fn serve(mut self) {
        let requests = self.shared.limits.requests_per_connection;
        for number in 1..=requests {
            if !self.place.idle() {
                return self.wire.close(true);
            }
            match self.arrive(number == 1) {
                Arrived::Gone => return self.wire.close(true),
                Arrived::Refused { refused, is_head } => {
                    self.place.served();
                    let _ = self.write(&refused.into(), is_head, false);
                    return;
                }
                Arrived::Request { request, more } => {
                    self.place.served();
                    if !self.answer(&request, more || number == requests) {
                        return;
                    }
                }
            }
        }
    }

    /// Waits for a request and reads it.
    fn arrive(&mut self, is_first: bool) -> Arrived {
        let limits = &self.shared.limits;
        let mut deadline = from_now(if is_first { limits.request } else { limits.idle });
        let mut intake = Intake::new(&self.rules);
        let mut buffer = [0; READ_BYTES];
        let (mut begun, mut invited) = (false, false);
        loop {
            self.wire.until(deadline);
            let count = match self.wire.read(&mut buffer) {
                Ok(count) if count > 0 => count,
                Err(error) if begun && error.kind() == ErrorKind::TimedOut => {
                    return Arrived::Refused { refused: Refused::Slow, is_head: intake.is_head() };
                }
                Ok(_) | Err(_) => return Arrived::Gone,
            };
            if !begun {
                begun = true;
                self.place.owes();
                if !is_first {
                    deadline = from_now(limits.request);
                }
            }
            let taken = match intake.take(buffer.get(..count).unwrap_or_default()) {
                Ok(taken) => taken,
                Err(refused) => return Arrived::Refused { refused, is_head: intake.is_head() },
            };
            match intake.wants() {
                Wants::Nothing => {
                    return intake
                        .finish(self.peer.clone())
                        .map_or(Arrived::Gone, |request| Arrived::Request { request, more: taken < count });
                }
                Wants::Body { asks_first: true } if !invited => {
                    invited = true;
                    if self.wire.write(&[CONTINUE]).is_err() {
                        return Arrived::Gone;
                    }
                }
                Wants::Head | Wants::Body { .. } => {}
            }
        }
    }

    /// Has a request answered. Returns whether another may follow.
    fn answer(&mut self, request: &Request, is_last: bool) -> bool {
        let is_head = request.method() == Method::Head;
        let service = &self.shared.service;
        let content = match catch_unwind(AssertUnwindSafe(|| service.answer(request))) {
            Ok(Answer::Content(content)) => content.unless_known(request),
            Ok(Answer::Events(source)) => match self.stream(source, is_head) {
                Some(refused) => refused.into(),
                None => return false,
            },
            Err(_) => {
                add(&self.shared.counters.panics);
                let path: String = request.path().chars().take(LOGGED_CHARS).collect();
                log::error!(
                    code = "admin_answer_panicked", path;
                    "the answer to a request for {path:?} panicked"
                );
                Refused::Failed.into()
            }
        };
        // What was sent behind the request, before its answer, may have been meant for another reader of it.
        let keeps =
            request.head.keeps && !is_last && !self.place.stops() && self.wire.heard() == Heard::Nothing;
        self.write(&content, is_head, keeps)
    }

    /// Writes events until the stream ends, and closes the connection; unless it has no place among the streams.
    fn stream(&mut self, source: Box<dyn EventSource>, is_head: bool) -> Option<Refused> {
        let Shared { counters, limits, .. } = self.shared;
        if is_head {
            counters.answered(StatusCode::OK);
            if self.wire.write(&[&events_head()]).is_ok() {
                self.close();
            }
            return None;
        }
        if self.place.stream().is_err() {
            add(&counters.refused_streams);
            return Some(Refused::StreamsFull);
        }
        counters.answered(StatusCode::OK);
        if stream::run(&mut self.wire, source, self.place, limits.heartbeat, counters).is_ok() {
            self.close();
        }
        None
    }

    /// Writes an answer, and closes the connection behind the last one. Returns whether a request may follow.
    fn write(&mut self, content: &Content, is_head: bool, keeps: bool) -> bool {
        let status = content.status();
        self.shared.counters.answered(status);
        let keeps = keeps && !status.is_client_error() && !status.is_server_error();
        let body = if is_head || !content.has_body() { &[] } else { content.body() };
        if self.wire.write(&[&content.head(keeps), body]).is_err() {
            return false;
        }
        if !keeps {
            self.close();
        }
        keeps
    }

    fn close(&mut self) {
        let lingers = self.place.idle();
        self.wire.close(!lingers);
    }
}
