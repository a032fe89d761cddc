//! What a peer may cost.

use std::time::{Duration, Instant};

/// Longest request line and header fields together, in bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Most header fields of a request.
pub const MAX_HEADERS: usize = 64;
/// Most pairs of a query.
pub const MAX_QUERY_PAIRS: usize = 64;

/// No deadline is further ahead, whatever a limit says.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What connections, streams and requests are bounded by.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections that are open at once, event streams not among them.
    pub connections: usize,
    /// Of them, those of one source address that is not loopback. An IPv6 source is its /64 network.
    pub connections_per_source: usize,
    /// Event streams that are open at once.
    pub streams: usize,
    /// Of them, those of one source address that is not loopback.
    pub streams_per_source: usize,
    /// Requests that one connection may make.
    pub requests_per_connection: u32,
    /// Longest body of a request, in bytes.
    pub body_bytes: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a request may take to arrive: from its first byte, or from the start of its connection.
    pub request: Duration,
    /// How long a connection may wait for its next request.
    pub idle: Duration,
    /// How long the peer may take none of the bytes of an answer or event.
    pub stall: Duration,
    /// How often a comment is sent on an event stream that has no events.
    pub heartbeat: Duration,
    /// Names and addresses by which the server may be called, besides `localhost` and the address that a
    /// connection came to.
    pub hosts: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 64,
            connections_per_source: 16,
            streams: 16,
            streams_per_source: 8,
            requests_per_connection: 1000,
            body_bytes: 256 * 1024,
            handshake: Duration::from_secs(5),
            request: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            stall: Duration::from_secs(10),
            heartbeat: Duration::from_secs(15),
            hosts: Vec::new(),
        }
    }
}

/// The deadline of what may take that long from now on.
pub(super) fn from_now(wait: Duration) -> Instant {
    Instant::now() + wait.min(LONGEST)
}
