//! The trail: everything is on it, and what is altered is found.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::support::{Blocks, Process, World};

/// A world with some history: two allowed, one refused.
fn with_history() -> World {
    let world = World::new();
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for _ in 0..10 {
        alpha.send("a", "beta", "{\"x\":1}").unwrap();
        b.take();
        beta.send("b", "alpha", "{}").unwrap();
    }
    alpha.send("a", "gamma", "{}").unwrap_err();
    server.stop();
    world.assert_intact();
    world
}

/// The lanes' streams that hold more than an opening and a closing record.
fn lanes(world: &World) -> Vec<String> {
    let lanes: Vec<String> = world
        .redis
        .keys()
        .into_iter()
        .filter(|key| key.starts_with("audit:lane:") && world.redis.len(key) > 4)
        .collect();
    assert!(!lanes.is_empty());
    lanes
}

#[track_caller]
fn assert_damaged(world: &World, what: &str) {
    let (code, report) = world.verify();
    assert_eq!(code, 3, "{what}: {report}");
    assert_eq!(report["intact"], false);
    assert!(!report["damages"].as_array().unwrap().is_empty());
}

fn blocks(world: &World, lane: &str) -> Blocks {
    world.redis.query(&["XRANGE", lane, "-", "+"])
}

fn rewrite(world: &World, lane: &str, blocks: &Blocks) {
    let _: i64 = world.redis.query(&["DEL", lane]);
    let mut connection = world.redis.connection();
    for (id, fields) in blocks {
        let mut command = redis::cmd("XADD");
        command.arg(lane).arg(id);
        for (name, value) in fields {
            command.arg(name).arg(value);
        }
        let _: String = command.query(&mut connection).unwrap();
    }
}

#[test]
fn every_decision_is_on_record_with_who_what_and_why() {
    let world = with_history();
    let records = world.records();
    let sends: Vec<_> = records.iter().filter(|r| r.action.as_str() == "send").collect();
    assert_eq!(sends.len(), 21);
    let refused = sends.iter().find(|r| r.decision.as_str() == "AUTHZ_DENIED").unwrap();
    assert_eq!((refused.agent.as_str(), refused.target.as_str()), ("alpha", "gamma"));
    assert_eq!(refused.reason, "not_authorized");
    let allowed = sends.iter().find(|r| r.decision.as_str() == "ALLOWED").unwrap();
    assert_eq!(allowed.rule, "permissions[0]");
    assert_eq!(allowed.instance, "a");
    assert_eq!(allowed.payload_len, 7);
    assert_eq!(allowed.fingerprint.len(), 32);
    assert_eq!(allowed.policy_version.len(), 32);
    let digest = <sha2::Sha256 as sha2::Digest>::digest(b"{\"x\":1}");
    assert_eq!(allowed.payload_digest, digest.as_slice());
    for action in ["lane_opened", "session_open", "session_close", "lane_closed"] {
        assert!(records.iter().any(|r| r.action.as_str() == action), "{action}");
    }
}

#[test]
fn a_flipped_byte_is_found() {
    let world = with_history();
    let lane = &lanes(&world)[0];
    let original = blocks(&world, lane);
    let middle = original.len() / 2;
    let size = original[middle].1[0].1.len();
    for at in [4, 20, size / 2, size - 1] {
        let mut altered = original.clone();
        altered[middle].1[0].1[at] ^= 1;
        rewrite(&world, lane, &altered);
        assert_damaged(&world, &format!("byte {at}"));
    }
    rewrite(&world, lane, &original);
    world.assert_intact();
}

#[test]
fn deleted_swapped_and_inserted_blocks_are_found() {
    let world = with_history();
    let lane = &lanes(&world)[0];
    let original = blocks(&world, lane);
    let last = original.len() - 1;
    for at in [0, last / 2] {
        let mut altered = original.clone();
        altered.remove(at);
        rewrite(&world, lane, &altered);
        assert_damaged(&world, &format!("deleted block {at}"));
    }
    let mut altered = original.clone();
    let (one, two) = (altered[1].1.clone(), altered[2].1.clone());
    (altered[1].1, altered[2].1) = (two, one);
    rewrite(&world, lane, &altered);
    assert_damaged(&world, "swapped");

    let mut altered = original.clone();
    let copy = altered[last].1.clone();
    altered.push(("9999999-0".to_owned(), copy));
    rewrite(&world, lane, &altered);
    assert_damaged(&world, "inserted");

    let mut altered = original.clone();
    let tail = altered[last].1[1].1.clone();
    altered[last - 1].1[1].1 = tail;
    rewrite(&world, lane, &altered);
    assert_damaged(&world, "another block's hash");

    let _: i64 = world.redis.query(&["DEL", lane]);
    assert_damaged(&world, "the whole lane");
    let name = lane.strip_prefix("audit:lane:").unwrap();
    rewrite(&world, lane, &original);
    world.assert_intact();
    let _: i64 = world.redis.query(&["HDEL", "audit:lanes", name]);
    assert_damaged(&world, "its registration");
}

#[test]
fn tail_shows_records_and_no_stranger_writes_on_the_terminal() {
    let world = World::new();
    let mut server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    alpha.send("a", "evil\u{1b}[2J\n{\"decision\":\"ALLOWED\"}", "{}").unwrap_err();
    server.stop();
    let text = String::from_utf8(world.mas(&["audit", "tail", "-n", "100"]).stdout).unwrap();
    assert!(!text.contains('\u{1b}'));
    let line = text.lines().find(|line| line.contains("evil")).unwrap();
    assert!(line.contains("AUTHZ_DENIED") && line.contains("alpha/a"), "{line}");

    let json = String::from_utf8(world.mas(&["audit", "tail", "-n", "100", "--json"]).stdout).unwrap();
    let records: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records.iter().any(|r| r["target"].as_str().unwrap().starts_with("evil\u{1b}")));
    assert_eq!(records.len(), world.records().len());

    let few = String::from_utf8(world.mas(&["audit", "tail", "-n", "2", "--json"]).stdout).unwrap();
    assert_eq!(few.lines().count(), 2);
}

#[test]
fn verify_says_what_it_cannot_know() {
    let world = with_history();
    let text = |args: &[&str]| {
        let output = world.mas(args);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).unwrap()
    };
    let with_all = text(&["audit", "verify"]);
    assert!(with_all.contains("intact") && !with_all.contains("not shown"), "{with_all}");
    let without = text(&["audit", "verify", "--no-anchor"]);
    assert!(without.contains("intact") && without.contains("not shown without the anchor"), "{without}");
    let _: i64 = world.redis.query(&["DEL", "audit:checkpoints"]);
    let without = text(&["audit", "verify", "--no-anchor"]);
    assert!(without.contains("not shown without signed checkpoints"), "{without}");
}

#[test]
fn tail_follows_what_is_recorded_from_now_on() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let mut command = world.mas_command(&["audit", "tail", "-n", "1", "--follow", "--json"]);
    let mut tail = Process::start(command.stdout(Stdio::piped()));
    let mut lines = BufReader::new(tail.child().stdout.take().unwrap()).lines();
    assert!(lines.next().is_some());
    for n in 0..3 {
        let payload = format!("{{\"n\":{n}}}");
        let id = alpha.send("a", "beta", &payload).unwrap();
        let shown = lines
            .by_ref()
            .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
            .find(|record| record["message_id"] == *id)
            .unwrap();
        assert_eq!(shown["payload_bytes"], payload.len());
    }
}
