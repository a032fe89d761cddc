//! What is refused costs whoever asks nothing: so it must cost the server little. Single records up to a budget, then counts.

use std::time::Instant;

use mas::audit::{Action, Decision, Record};
use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;
use mas::protocol::{SendRequest, Submission};
use nix::sys::signal::Signal;

use crate::support::{Server, Session, World, until};

/// Records of an agent's refusals in a second; ten times as many at once.
const PER_S: u64 = 10;
const SETTINGS: &str = "limits: {refusal_records_per_s: 10}\n";
/// Submissions under way.
const BATCH: u64 = 500;

/// Refused messages of the largest type there may be, to an agent that the sender may not message.
fn forbidden(count: u64) -> Vec<Submission> {
    let send = SendRequest {
        target_id: "gamma".to_owned(),
        message_type: "t".repeat(120),
        data_json: "{}".to_owned(),
        ..SendRequest::default()
    };
    (0..count).map(|_| Submission { call: Some(Call::Send(send.clone())), ..Submission::default() }).collect()
}

/// Has `count` messages refused; how many refusals had a receipt.
fn flood(session: &Session, count: u64) -> u64 {
    let mut receipts = 0;
    for _ in 0..count / BATCH {
        session.submit(forbidden(BATCH));
        for _ in 0..BATCH {
            match session.result().outcome.unwrap() {
                Outcome::Failure(failure) => {
                    assert_eq!(failure.detail, "not_authorized");
                    receipts += u64::from(failure.receipt.sequence > 0);
                }
                other => panic!("accepted: {other:?}"),
            }
        }
    }
    receipts
}

/// Refusals of one reason on record: one by one, and in counts.
fn on_record(records: &[Record], agent: &str, reason: &str) -> (u64, u64) {
    let of = |record: &&Record| record.agent == agent && record.reason == reason;
    let counts = records.iter().filter(of).filter(|record| record.action == Action::Refusals);
    let single = records.iter().filter(of).filter(|record| record.action != Action::Refusals).count();
    (single as u64, counts.map(|record| u64::from(record.attempt)).sum())
}

#[test]
fn a_flood_of_refusals_leaves_a_bounded_trail_that_counts_them_all() {
    const REFUSED: u64 = 20_000;
    let world = World::with(World::PAIR, SETTINGS);
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let started = Instant::now();
    let receipts = flood(&a, REFUSED);
    let seconds = started.elapsed().as_secs() + 2;
    until("all of them are on record", || {
        let (single, counted) = on_record(&world.records(), "alpha", "not_authorized");
        single + counted == REFUSED
    });
    let records = world.records();
    let (single, _) = on_record(&records, "alpha", "not_authorized");
    assert_eq!(single, receipts, "a refusal that is recorded by itself has a receipt, and no other");
    assert!(single >= 10 * PER_S && single <= PER_S * (10 + seconds), "{single} in {seconds} s");
    let counts: Vec<&Record> = records.iter().filter(|record| record.action == Action::Refusals).collect();
    // Of each of two workers, each second.
    assert!(counts.len() as u64 <= 2 * seconds, "{} in {seconds} s", counts.len());
    for record in counts {
        assert_eq!((record.decision, record.rule.as_str()), (Decision::AuthzDenied, "send"));
    }
    // Another agent's refusals, and what is accepted, are recorded as ever.
    let refused = beta.send("b", "gamma", "{}").unwrap_err();
    assert_eq!(refused.details, "not_authorized");
    let id = alpha.send("a", "beta", "{}").unwrap();
    assert_eq!(b.take().message_id(), id);
    assert_eq!(on_record(&world.records(), "beta", "not_authorized"), (1, 0));
    world.assert_intact();
}

/// What strangers were refused, and the server's stop in the middle of it.
#[test]
fn strangers_share_one_small_budget_and_a_stop_loses_no_count() {
    const CALLS: u64 = 300;
    let world = World::with(World::PAIR, SETTINGS);
    let mut server = world.server();
    let refuse = |server: &Server, name: &str| {
        let (cert, key) = world.certificate(name);
        let client = world.client_with(server, cert, key);
        for _ in 0..CALLS {
            assert_eq!(client.discover(&[]).unwrap_err().details, "agent_not_allowlisted");
        }
    };
    refuse(&server, "mallory");
    refuse(&server, "trudy");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_code(), Some(0));
    let records = world.records();
    let single: u64 =
        ["mallory", "trudy"].iter().map(|name| on_record(&records, name, "agent_not_allowlisted").0).sum();
    let (_, counted) = on_record(&records, "", "agent_not_allowlisted");
    assert_eq!(single + counted, 2 * CALLS);
    assert!(single <= 30, "{single}");
    world.assert_intact();
}

#[test]
fn a_refusal_that_is_only_counted_is_not_sent_to_redis() {
    const REFUSED: u64 = 10_000;
    let world = World::with(World::PAIR, SETTINGS);
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let a = alpha.session("a");
    // Its budget is spent.
    let _ = flood(&a, BATCH);
    let received = || {
        let stats: String = world.redis.query(&["INFO", "stats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("total_net_input_bytes:")).unwrap();
        line.trim().parse::<u64>().unwrap()
    };
    let before = received();
    let _ = flood(&a, REFUSED);
    // A record alone takes 400 bytes.
    let bytes = received() - before;
    assert!(bytes < 40 * REFUSED, "{bytes} bytes for {REFUSED} refusals");
    world.assert_intact();
}
