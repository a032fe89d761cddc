//! A session that was ended does nothing more.

use std::time::{Duration, Instant};

use mas::audit::{Decision, Record};
use mas::protocol::Submission;
use mas::protocol::submission::Call;

use super::send_to;
use crate::support::{World, until};

/// Messages that fill what lies between the server and a client that does not read.
const IN_FLIGHT: usize = 12;
/// A record bears the time at which its round began.
const ROUND_US: u64 = 100_000;
/// How long the client goes on after its revocation.
const GOES_ON: Duration = Duration::from_millis(3500);

#[test]
fn a_session_that_was_revoked_sends_nothing_after_its_close() {
    let world = World::with(World::PAIR, "tls_revoked_path: certs/revoked.json\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_b, mut a) = (beta.session("b"), alpha.deaf_session("a"));
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(900_000));
    for _ in 0..IN_FLIGHT {
        beta.send("b", "alpha", &large).unwrap();
    }
    until("they are under way", || world.redis.pending("agent.stream:alpha").len() == IN_FLIGHT);
    let call = || Some(Call::Send(send_to("beta", "{\"late\":true}")));
    let submission = || Submission { call: call(), ..Submission::default() };
    assert!(a.submit(vec![submission()]), "the stream is open");
    let sends = |records: &[Record]| {
        let allowed = |record: &&Record| {
            record.agent == "alpha"
                && record.action.as_str() == "send"
                && record.decision == Decision::Allowed
        };
        records.iter().filter(allowed).map(|record| record.time_us).collect::<Vec<u64>>()
    };
    until("it sends", || sends(&world.records()).len() == 1);
    let revoked = world.mas(&["certs", "revoke", "--dir", "certs", "--file", "certs/agents/alpha.pem"]);
    assert_eq!(revoked.status.code(), Some(0), "{revoked:?}");
    // Fewer than a session may have under way.
    let started = Instant::now();
    let mut tries = 0;
    while started.elapsed() < GOES_ON && a.submit(vec![submission()]) {
        tries += 1;
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let closed =
        |record: &Record| record.action.as_str() == "session_close" && record.reason == "certificate_revoked";
    until("the close is on record", || world.records().iter().any(closed));
    let records = world.records();
    let closed_us = records.iter().find(|record| closed(record)).unwrap().time_us;
    let late: Vec<u64> = sends(&records).into_iter().filter(|time| *time > closed_us + ROUND_US).collect();
    let last_ms = late.last().map_or(0, |time| (time - closed_us) / 1000);
    assert!(late.is_empty(), "{} of {tries} sends after the close, up to {last_ms} ms", late.len());
    world.assert_intact();
}
