//! Dead letters, as an operator finds, puts back and removes them.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{Session, World, until};

/// What a `mas` command says with `--json`, a line each, and its exit code.
fn mas(world: &World, args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = world.mas(&[args, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Refuses the next delivery for good.
fn bury(session: &Session, reason: &str) -> String {
    let delivered = session.next();
    session.nack(&delivered.id, reason, false);
    delivered.message_id().to_owned()
}

#[test]
fn letters_are_listed_by_filter_and_page_and_tell_their_history() {
    let world = World::with(World::PAIR, "delivery: {max_attempts: 3, retry_backoff_ms: [1]}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    for reason in ["first", "second", "third"] {
        let delivered = b.next();
        b.nack(&delivered.id, reason, true);
    }
    alpha.send("a", "beta", "{\"n\":2}").unwrap();
    let second = bury(&b, "bad");
    beta.send("b", "alpha", "{\"n\":3}").unwrap();
    bury(&a, "bad");
    until("all are dead letters", || world.redis.len("dlq:messages") == 3);

    let (code, all) = mas(&world, &["dlq", "list"]);
    assert_eq!((code, all.len()), (Some(0), 3));
    let history = |letter: &Value| -> BTreeMap<u64, String> {
        let failures = letter["history"].as_array().unwrap().iter();
        failures.map(|f| (f["attempt"].as_u64().unwrap(), f["reason"].as_str().unwrap().to_owned())).collect()
    };
    let tried = all.iter().find(|letter| letter["attempts"] == 3).unwrap();
    let expected = [(1, "first"), (2, "second"), (3, "third")].map(|(n, reason)| (n, reason.to_owned()));
    assert_eq!(history(tried), BTreeMap::from(expected));

    let count = |filters: &[&str]| mas(&world, &[&["dlq", "list"], filters].concat()).1.len();
    assert_eq!(count(&["--agent", "beta"]), 2);
    assert_eq!(count(&["--died-of", "bad"]), 2);
    assert_eq!(count(&["--died-of", "bad", "--agent", "alpha"]), 1);
    assert_eq!(count(&["--message", &second]), 1);
    assert_eq!(count(&["--from", "1h"]), 3);
    assert_eq!(count(&["--to", "1h"]), 0);
    assert_eq!(count(&["--limit", "2"]), 2);
    let after = all[1]["id"].as_str().unwrap();
    assert_eq!(mas(&world, &["dlq", "list", "--after", after]).1, all[2..]);
    let table = String::from_utf8(world.mas(&["dlq", "list", "--limit", "2"]).stdout).unwrap();
    assert!(table.ends_with(&format!("more: --after {after}\n")), "{table}");

    let (_, shown) = mas(&world, &["dlq", "show", "--message", &second]);
    assert_eq!(shown[0]["envelope"]["data"]["n"], 2);
    let (code, none) = mas(&world, &["dlq", "show", "1-1"]);
    assert_eq!((code, none.len()), (Some(1), 0));
    for bad in [&["dlq", "list", "--agent", "a b"][..], &["dlq", "redrive"], &["dlq", "drop", "1-1", "--all"]]
    {
        assert_eq!(world.mas(bad).status.code(), Some(2), "{bad:?}");
    }
}

#[test]
fn a_redriven_letter_is_delivered_with_its_id_and_on_record() {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    let (alpha, beta) = (world.client(&one, "alpha"), world.client(&two, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let mut sent = Vec::new();
    for n in 0..3 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
        sent.push(bury(&b, "bad"));
    }
    until("all are dead letters", || world.redis.len("dlq:messages") == 3);

    let (code, redriven) = mas(&world, &["dlq", "redrive", "--message", &sent[0], "--reason", "fixed it"]);
    assert_eq!((code, redriven.len()), (Some(0), 1));
    assert_eq!(redriven[0]["message_id"], *sent[0]);
    let again = b.take();
    assert_eq!((again.message_id(), again.attempt), (sent[0].as_str(), 1));
    let (code, dropped) = mas(&world, &["dlq", "drop", "--message", &sent[1]]);
    assert_eq!((code, dropped.len()), (Some(0), 1));
    let (code, rest) = mas(&world, &["dlq", "redrive", "--all"]);
    assert_eq!((code, rest.len()), (Some(0), 1));
    assert_eq!(b.take().message_id(), sent[2]);
    until("no letter is left", || world.redis.len("dlq:messages") == 0);
    until("nothing is left", || world.redis.len("agent.stream:beta") == 0);

    let records = world.records();
    let of = |action: &str| records.iter().filter(|r| r.action.as_str() == action).collect::<Vec<_>>();
    let redriven = of("redriven");
    assert_eq!(redriven.len(), 2);
    assert_eq!(redriven[0].message_id.unwrap().to_string(), sent[0]);
    assert!(redriven[0].reason.ends_with(": fixed it"), "{}", redriven[0].reason);
    assert_eq!((redriven[0].target.as_str(), of("dropped").len()), ("beta", 1));
    // What is gone is not there a second time.
    let (code, gone) = mas(&world, &["dlq", "drop", "1-1"]);
    assert_eq!((code, &gone[0]["outcome"]), (Some(1), &Value::from("failed")));
    world.assert_intact();
}

#[test]
fn a_reply_goes_back_only_to_an_instance_that_exists() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 100}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let correlation = alpha.request("a", "beta", "{}", 5000).unwrap();
    b.take();
    beta.reply("b", &correlation, "{\"ok\":true}").unwrap();
    let reply = bury(&a, "bad");
    until("it is a dead letter", || world.redis.len("dlq:messages") == 1);
    assert_eq!(mas(&world, &["dlq", "redrive", "--message", &reply]).0, Some(0));
    bury(&a, "bad again");
    until("it is a dead letter again", || world.redis.len("dlq:messages") == 1);
    drop(a);
    until("the instance is forgotten", || !world.redis.keys().contains(&"agent.instances:alpha".to_owned()));
    let (code, said) = mas(&world, &["dlq", "redrive", "--message", &reply]);
    assert_eq!(code, Some(1));
    assert!(said[0]["problem"].as_str().unwrap().contains("instance a"), "{said:?}");
    assert_eq!(world.redis.len("dlq:messages"), 1);
    assert!(!world.redis.keys().iter().any(|key| key.starts_with("mas.once:")));
    world.assert_intact();
}

#[test]
fn letters_that_are_too_many_are_moved_to_a_file_and_come_back_from_there() {
    const LETTERS: usize = 30;
    let mut world = World::new();
    world.set_gateway(
        "circuit_breaker: {failure_threshold: 1000}, audit: {max_dead_letters: 8, checkpoint_interval_ms: 50}",
    );
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let mut buried = Vec::new();
    for n in 0..LETTERS {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
        buried.push(bury(&b, "bad"));
    }
    until("Redis has no more than it may", || world.redis.len("dlq:messages") <= 8);

    // Each is in one of the two places, once.
    let ids = |letters: &[Value]| -> Vec<String> {
        letters.iter().map(|letter| letter["message_id"].as_str().unwrap().to_owned()).collect()
    };
    let (code, on_disk) = mas(&world, &["dlq", "archived"]);
    assert_eq!(code, Some(0));
    let live = mas(&world, &["dlq", "list"]).1;
    assert_eq!([ids(&on_disk), ids(&live)].concat(), buried);
    assert_eq!(
        mas(&world, &["dlq", "archived", "--message", &buried[3], "--whole"]).1[0]["envelope"]["data"]["n"],
        3
    );
    assert_eq!(mas(&world, &["dlq", "archived", "--agent", "alpha"]).1.len(), 0);
    assert!(world.records().iter().any(|record| record.action.as_str() == "archived"));

    // One comes back, and is delivered with its id.
    let first = on_disk[0]["id"].as_str().unwrap();
    let (code, restored) = mas(&world, &["dlq", "restore", first, "--reason", "wanted"]);
    assert_eq!(code, Some(0), "{restored:?}");
    let again = restored[0]["restored_as"].as_str().unwrap();
    let (code, redriven) = mas(&world, &["dlq", "redrive", again, "--reason", "wanted"]);
    assert_eq!(code, Some(0), "{redriven:?}");
    assert_eq!(b.take().message_id(), buried[0]);
    assert_eq!(mas(&world, &["dlq", "restore", "1-1", "--reason", "wanted"]).0, Some(1));

    // Nothing is added twice by a restart.
    server.kill();
    let server = world.server();
    drop(server);
    assert_eq!(world.verify().0, 0);

    // What somebody has changed in a file is not brought back.
    let file = world.path().join("audit-archive/dead-letters-00000001.jsonl.zst");
    let bytes = std::fs::read(&file).unwrap();
    let lines = zstd::stream::decode_all(&bytes[..]).unwrap();
    let changed = String::from_utf8(lines).unwrap().replace("\\\"n\\\":4", "\\\"n\\\":5");
    std::fs::write(&file, zstd::bulk::compress(changed.as_bytes(), 3).unwrap()).unwrap();
    let (code, restored) = mas(&world, &["dlq", "restore", "--message", &buried[4], "--reason", "wanted"]);
    assert_eq!((code, &restored[0]["outcome"]), (Some(1), &Value::from("failed")), "{restored:?}");
    let (code, report) = world.verify();
    let damages = report["damages"].as_array().unwrap();
    assert_eq!((code, damages.len()), (3, 1), "{report}");
    assert_eq!(
        (&damages[0]["kind"], &damages[0]["message"]),
        (&"letter_missing".into(), &buried[4].clone().into())
    );

    // Without the file nobody can say.
    std::fs::remove_file(&file).unwrap();
    let (code, report) = world.verify();
    assert_eq!(code, 0, "{report}");
    assert!(report["not_shown"].to_string().contains("dead letters that are not in Redis"), "{report}");
}
