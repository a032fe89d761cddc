//! A small HTTP/1.1 server for people and tools that operate the runtime, made for hostile peers. It has no async
//! runtime: one thread accepts (`admin-accept`), each connection has a thread of its own (`admin-http`), and there
//! are never more of them than places for connections and event streams.
//!
//! What it leaves out on purpose: chunked bodies, pipelining, upgrades, HTTP/2, compression, ranges. A request that
//! two readers could read differently is refused and its connection closed.
//!
//! Bytes become a request in `scan`, `target`, `host`, `request` and `intake`, all pure. `wire` is a connection with
//! its deadlines, `places` who is connected, `connection` the life of one connection.

#![forbid(unsafe_code)]

mod accept;
mod answer;
mod connection;
mod counters;
mod events;
mod host;
mod intake;
mod knocks;
mod limits;
mod places;
mod refused;
mod request;
mod scan;
mod server;
mod service;
mod socket;
mod stream;
mod target;
mod tls;
mod wire;

pub use answer::{Answer, Body, Content, ETag};
pub use counters::Counters;
pub use events::{EventSource, Next};
pub use host::Hosts;
pub use intake::{Intake, Wants};
pub use limits::{Limits, MAX_HEAD_BYTES, MAX_HEADERS, MAX_QUERY_PAIRS};
pub use refused::Refused;
pub use request::{Method, Peer, Request, Rules};
pub use server::HttpServer;
pub use service::Service;
pub use socket::{Remote, Socket};
pub use tls::Tls;
