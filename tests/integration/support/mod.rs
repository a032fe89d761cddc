//! The harness: worlds, processes, clients.

mod client;
mod gate;
mod http;
mod process;
mod random;
mod redis;
mod world;

pub use client::{Client, Delivered, Ended, Polled, Refused, Session};
pub use gate::{Gate, pass};
pub use http::{Answered, get, get_as};
pub use process::Process;
pub use random::Random;
pub use redis::Redis;
pub use world::{Blocks, Server, World};

use std::time::{Duration, Instant};

/// How long anything that must happen may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `holds`, or fails the test.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < give_up, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Waits until `holds`, or fails the test after `span`: how long a promise gives it.
#[track_caller]
pub fn within(span: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < span, "not within {span:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A port that nobody listens on, for programs that cannot choose one themselves.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
