//! Nothing grows: messages and sessions come and go, and what is left is what is configured to be kept.

use std::collections::BTreeMap;
use std::time::Duration;

use mas::protocol::{SendRequest, Submission, submission, submission_result::Outcome};
use nix::sys::signal::Signal;

use crate::support::{Client, Server, Session, World, until};

/// Messages and sessions of the suite; `MAS_TEST_MESSAGES` and `MAS_TEST_SESSIONS` say others.
const MESSAGES: usize = 30_000;
const SESSIONS: usize = 300;
/// Messages in one event.
const BATCH: usize = 100;
/// Sessions that are open at a time.
const OPEN: usize = 20;
/// Records of the trail that stay in Redis.
const MAX_RECORDS: usize = 20_000;
/// Messages whose records take a moment to archive.
const LONG_TRAIL: usize = 40_000;
/// How long a server is stopped in that moment.
const STOPPED: Duration = Duration::from_millis(1_500);
/// What a server's memory may grow by once it has seen a tenth of everything, in KiB: allocators keep some.
const RSS_SLACK_KIB: u64 = 24 * 1024;

fn count(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |count| count.parse().unwrap())
}

fn send_all(alpha: &Session, beta: &Session, messages: usize) {
    let mut sent = 0;
    while sent < messages {
        let submissions = (0..BATCH.min(messages - sent))
            .map(|n| {
                let call = SendRequest {
                    target_id: "beta".to_owned(),
                    data_json: format!("{{\"n\":{}}}", sent + n),
                    ..SendRequest::default()
                };
                let call = Some(submission::Call::Send(call));
                Submission { reference: n as u64, call, ..Submission::default() }
            })
            .collect();
        alpha.submit(submissions);
        let mut ids = Vec::new();
        for _ in 0..BATCH.min(messages - sent) {
            match alpha.result().outcome.unwrap() {
                Outcome::Send(_) => {}
                other => panic!("{other:?}"),
            }
            ids.push(beta.next().id);
        }
        beta.ack_all(ids);
        sent += BATCH;
    }
}

/// Sessions of instances that nobody has seen before, each with a message to it and from it.
fn come_and_go(clients: &(Client, Client), number: &mut usize, sessions: usize) {
    for _ in 0..sessions.div_ceil(OPEN) {
        let open: Vec<Session> = (0..OPEN)
            .map(|_| {
                *number += 1;
                clients.1.session(&format!("i{number}"))
            })
            .collect();
        clients.1.send(&format!("i{number}"), "alpha", "{}").unwrap();
        drop(open);
    }
}

/// Keys that are there, with how many entries or bytes each has.
fn kept(world: &World) -> BTreeMap<String, usize> {
    let size = |key: &String| -> usize { world.redis.query(&["MEMORY", "USAGE", key, "SAMPLES", "0"]) };
    let mut kept = BTreeMap::new();
    for key in world.redis.keys() {
        // Each run of a worker's connection has a lane of its own; here there is one run.
        kept.insert(key.clone(), size(&key));
    }
    kept
}

/// Whether Redis holds little more of the trail than it may: what came since the last look is not archived yet.
fn is_bounded(world: &World) -> bool {
    let lanes: Vec<String> =
        world.redis.keys().into_iter().filter(|key| key.starts_with("audit:lane:")).collect();
    let records = lanes.iter().map(|lane| {
        let ids = world.redis.entries_ids(lane);
        match (ids.first(), ids.last()) {
            (Some(first), Some(last)) => (last - first) as usize,
            _ => 0,
        }
    });
    records.sum::<usize>() <= MAX_RECORDS + MAX_RECORDS / 2
}

fn settled(world: &World) -> BTreeMap<String, usize> {
    until("the inboxes are empty and gone instances are forgotten", || {
        let empty = ["alpha", "beta"].iter().all(|a| world.redis.len(&format!("agent.stream:{a}")) == 0);
        let instances: usize = world.redis.query(&["HLEN", "agent.instances:beta"]);
        empty && instances <= 1
    });
    until("the trail is within its bound", || is_bounded(world));
    kept(world)
}

#[test]
fn what_comes_and_goes_leaves_nothing_behind() {
    let (messages, sessions) = (count("MAS_TEST_MESSAGES", MESSAGES), count("MAS_TEST_SESSIONS", SESSIONS));
    let mut world = World::new();
    world.set_gateway(&format!(
        "rate_limit: {{per_minute: 100000000, per_hour: 1000000000}}, \
         audit: {{max_records: {MAX_RECORDS}, archive_dir: archive, checkpoint_interval_ms: 200}}"
    ));
    let server: Server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let a = alpha.session("a");
    let b = beta.stream();
    b.hello_batched("b");
    let others = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let mut number = 0;
    let drain = |a: &Session| {
        while a.next_within(Duration::from_millis(100)).map(|d| a.ack(&d.id)).is_some() {}
    };
    send_all(&a, &b, messages / 10);
    come_and_go(&others, &mut number, sessions / 10);
    drain(&a);
    let (before, rss_before) = (settled(&world), server.rss_kib());
    for _ in 0..9 {
        send_all(&a, &b, messages / 10);
        come_and_go(&others, &mut number, sessions / 10);
        drain(&a);
    }
    let (after, rss_after) = (settled(&world), server.rss_kib());
    println!(
        "{messages} messages, {number} sessions: {} keys of {} KiB before, {} of {} KiB after; server {rss_before} KiB \
         before, {rss_after} KiB after",
        before.len(),
        before.values().sum::<usize>() / 1024,
        after.len(),
        after.values().sum::<usize>() / 1024
    );
    // How far each lane is archived is noted from the first time on: a field for each lane.
    let gone = |key: &&String| !before.contains_key(*key) && *key != "audit:archived";
    assert_eq!(after.keys().filter(gone).collect::<Vec<_>>(), Vec::<&String>::new(), "new keys");
    for (key, size) in &after {
        // The trail is bounded by its records; nodes of a stream are freed as a whole.
        let bound = if key.starts_with("audit:") { MAX_RECORDS * 600 } else { before[key] + 4096 };
        assert!(*size <= bound, "{key}: {size} bytes, {} before", before[key]);
    }
    assert!(rss_after <= rss_before + RSS_SLACK_KIB, "{rss_before} KiB before, {rss_after} KiB after");
    drop((a, b));
    world.assert_intact();
}

#[test]
fn an_archive_that_took_long_is_looked_at_again_at_once() {
    let rates = "rate_limit: {per_minute: 100000000, per_hour: 1000000000}";
    // A segment ends with a checkpoint: many of them, so that it takes little more than it must.
    let audit = "checkpoint_interval_ms: 50";
    let mut world = World::new();
    world.set_gateway(&format!("{rates}, audit: {{{audit}, archive: off}}"));
    let mut server = world.server();
    let (a, b) = (world.client(&server, "alpha").session("a"), world.client(&server, "beta").stream());
    b.hello_batched("b");
    send_all(&a, &b, LONG_TRAIL);
    drop((a, b));
    server.stop();

    world.set_gateway(&format!(
        "{rates}, audit: {{{audit}, max_records: {MAX_RECORDS}, archive_dir: archive}}"
    ));
    let server = world.server();
    let is_writing = || {
        let files = std::fs::read_dir(world.path().join("archive")).into_iter().flatten();
        let is_one = |name: &str| name.ends_with(".jsonl.zst");
        files.flatten().any(|file| is_one(&file.file_name().to_string_lossy()))
    };
    until("a segment is being written", is_writing);
    server.signal(Signal::SIGSTOP);
    assert!(is_writing(), "stopped in the middle of it");
    std::thread::park_timeout(STOPPED);
    server.signal(Signal::SIGCONT);
    until("what was too much is archived", || is_bounded(&world));

    // More than fits beside what stayed, and less than is refused. Twenty times as long as the archive took would be longer
    // than anybody waits.
    let (a, b) = (world.client(&server, "alpha").session("a"), world.client(&server, "beta").stream());
    b.hello_batched("b");
    send_all(&a, &b, MAX_RECORDS + MAX_RECORDS / 4);
    until("what came then is archived as well", || is_bounded(&world));
    drop((a, b));
    world.assert_intact();
}
