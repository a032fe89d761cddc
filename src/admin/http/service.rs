//! What answers requests.

use super::answer::Answer;
use super::request::{Peer, Request};

/// Answers requests, on the threads of their connections. It decides who a peer is and what it may do. A panic is
/// answered with status 500 and ends that connection alone.
pub trait Service: Send + Sync {
    /// Answers one request. While it works, its connection holds its place: it should bound its own waiting.
    fn answer(&self, request: &Request) -> Answer;

    /// The longest body that a peer may send, in bytes; never longer than the limits have it.
    fn body_bytes(&self, _peer: &Peer) -> usize {
        usize::MAX
    }
}
