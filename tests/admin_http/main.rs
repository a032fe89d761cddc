//! The HTTP server and what hostile peers do to it, over real sockets and real TLS.

#![forbid(unsafe_code)]
// A panic is how a test fails.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, unreachable_pub)]

mod crowds;
mod events;
mod requests;
mod slow;
mod stop;
mod support;
mod tls;
