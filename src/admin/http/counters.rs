//! What a metrics page can tell about the server.

use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;

/// Counts since the start; the first two are of now.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections that are open, without event streams.
    pub connections: AtomicU64,
    /// Event streams that are open.
    pub streams: AtomicU64,
    /// Answers with a status of 200 to 299.
    pub answered_2xx: AtomicU64,
    /// Answers with a status of 300 to 399.
    pub answered_3xx: AtomicU64,
    /// Answers with a status of 400 to 499.
    pub answered_4xx: AtomicU64,
    /// Answers with a status of 500 to 599.
    pub answered_5xx: AtomicU64,
    /// Panics of the service.
    pub panics: AtomicU64,
    /// Connections refused because all places were taken.
    pub refused_full: AtomicU64,
    /// Connections refused because their source had its share of places.
    pub refused_source: AtomicU64,
    /// Event streams refused because all places, or those of their source, were taken.
    pub refused_streams: AtomicU64,
    /// Connections whose TLS handshake failed or took too long.
    pub refused_handshake: AtomicU64,
    /// Connections refused because no thread could be made.
    pub refused_thread: AtomicU64,
    /// Connections that kept the server waiting and were closed to make room for others.
    pub gave_way: AtomicU64,
    /// Failures to accept that were not of one connection: no descriptors, no memory.
    pub accept_failed: AtomicU64,
}

impl Counters {
    pub(super) fn answered(&self, status: StatusCode) {
        add(match status.as_u16() {
            0..300 => &self.answered_2xx,
            300..400 => &self.answered_3xx,
            400..500 => &self.answered_4xx,
            500.. => &self.answered_5xx,
        });
    }
}

/// One more.
pub(super) fn add(counter: &AtomicU64) {
    let _ = counter.fetch_add(1, Ordering::Relaxed);
}

/// One less.
pub(super) fn subtract(counter: &AtomicU64) {
    let _ = counter.fetch_sub(1, Ordering::Relaxed);
}
