//! Operators' commands through a running server: by role, on record, with a receipt; quarantine, drain, circuits, reload.

use std::time::{Duration, Instant};

use mas::certs::{ca_file, operator_files};
use serde_json::Value;

use crate::support::{Ended, Refused, Server, Session, World, get, until, within};

/// How soon a quarantine must be in force, everywhere.
const IN_FORCE: Duration = Duration::from_secs(2);

/// Runs `mas`; its exit code, what it printed and what it said on standard error.
fn mas(world: &World, args: &[&str]) -> (Option<i32>, String, String) {
    let output = world.mas(args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs `mas` over the admin address, with an operator's certificate.
fn mas_as(world: &World, server: &Server, operator: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let (certs, admin) = (world.certs(), server.admin.clone().unwrap());
    let files = operator_files(&certs, operator);
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (cert, key, ca) = (path(&files.cert), path(&files.key), path(&ca_file(&certs)));
    let over = ["--admin", &admin, "--cert", &cert, "--key", &key, "--ca", &ca];
    let args: Vec<&str> = args.iter().copied().chain(over).collect();
    mas(world, &args)
}

fn refused(code: &str, details: &str) -> Refused {
    Refused { code: code.to_owned(), details: details.to_owned() }
}

/// The session ends in time, because of a quarantine.
#[track_caller]
fn is_put_out(session: &Session) {
    match session.try_next(IN_FORCE) {
        Some(Err(ended)) => assert_eq!(ended, Ended::refused("PERMISSION_DENIED", "quarantined")),
        other => panic!("it is not put out: {other:?}"),
    }
}

fn status(world: &World) -> Value {
    let (_, text, why) = mas(world, &["status", "--json"]);
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{why}"))
}

#[test]
fn whoever_is_in_quarantine_is_out_within_two_seconds_on_every_server_and_back_when_released() {
    let mut world = World::new();
    world.set_admin("127.0.0.1:0");
    let (mut one, other) = (world.server(), world.server());
    let (alpha, beta) = (world.client(&one, "alpha"), world.client(&other, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    b.take();

    let (code, said, receipt) = mas(&world, &["quarantine", "beta", "--reason", "it leaks"]);
    assert_eq!((code, said.as_str()), (Some(0), "agent:beta is in quarantine\n"), "{receipt}");
    assert!(receipt.contains("on record in lane") && receipt.contains("sealed by checkpoint"), "{receipt}");
    is_put_out(&b);
    // The connection is cut, too; a new one is told why.
    let again = world.client(&other, "beta");
    until("its calls are refused", || {
        again.discover(&[]).is_err_and(|refusal| refusal == refused("PERMISSION_DENIED", "quarantined"))
    });
    let elsewhere = world.client(&one, "beta");
    assert_eq!(elsewhere.discover(&[]).unwrap_err(), refused("PERMISSION_DENIED", "quarantined"));

    // What is sent to it waits.
    alpha.send("a", "beta", "{\"n\":2}").unwrap();
    assert_eq!(world.redis.len("agent.stream:beta"), 1);
    let shown = status(&world);
    assert_eq!(shown["quarantine"][0]["whom"], "agent:beta", "{shown}");
    assert!(shown["quarantine"][0]["by"].as_str().unwrap().ends_with(": it leaks"), "{shown}");
    assert!(
        get(one.admin.as_ref().unwrap(), "/metrics")
            .unwrap()
            .body
            .contains("mas_quarantined{whom=\"agent:beta\"} 1")
    );
    let (code, _, why) = mas(&world, &["quarantine", "beta", "--reason", "again"]);
    assert_eq!(code, Some(1));
    assert!(why.contains("in quarantine already"), "{why}");

    // It stands over a restart, from the first call on.
    drop(a);
    one.stop();
    let one = world.server();
    assert_eq!(
        world.client(&one, "beta").discover(&[]).unwrap_err(),
        refused("PERMISSION_DENIED", "quarantined")
    );
    let (code, said, _) = mas(&world, &["release", "beta", "--reason", "mended"]);
    assert_eq!((code, said.as_str()), (Some(0), "agent:beta is not in quarantine any more\n"));
    let beta = world.client(&one, "beta");
    within(IN_FORCE, "it is let in", || beta.discover(&[]).is_ok());
    let b = beta.session("b");
    assert!(b.take().json.contains("\"n\":2"));
    assert_eq!(mas(&world, &["release", "beta"]).0, Some(1), "it is not in quarantine");

    let records = world.records();
    let found: Vec<(&str, &str)> = records
        .iter()
        .filter(|record| record.target == "agent:beta")
        .map(|record| (record.action.as_str(), record.reason.rsplit(": ").next().unwrap()))
        .collect();
    assert_eq!(found, [("quarantined", "it leaks"), ("released", "mended")]);
    assert!(
        records
            .iter()
            .any(|record| record.action.as_str() == "session_close" && record.reason == "quarantined")
    );
    world.assert_intact();
}

#[test]
fn a_quarantine_by_capability_or_of_all_also_holds_who_comes_later() {
    let mut world = World::new();
    let agents = |beta: &str| {
        format!(
            "permissions: [{{type: allow_bidirectional, agents: [alpha, beta]}}]\n\
             agents: [{{agent_id: alpha}}, {{agent_id: beta, capabilities: [{beta}]}}]\n"
        )
    };
    world.set_agents(&agents(""));
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let held = refused("PERMISSION_DENIED", "quarantined");
    assert_eq!(mas(&world, &["quarantine", "--capability", "web", "--reason", "r"]).0, Some(0));
    // A reload gives beta the capability.
    world.set_agents(&agents("web"));
    let (code, said, why) = mas(&world, &["reload", "--reason", "beta may browse"]);
    assert_eq!((code, said.as_str()), (Some(0), "the configuration is in force\n"), "{why}");
    is_put_out(&b);
    assert!(alpha.discover(&[]).is_ok());
    assert_eq!(mas(&world, &["quarantine", "--all", "--reason", "r"]).0, Some(0));
    is_put_out(&a);
    until("everybody is refused", || {
        world.client(&server, "alpha").discover(&[]).is_err_and(|refusal| refusal == held)
    });
    assert_eq!(mas(&world, &["quarantine", "alpha", "--reason", "r"]).0, Some(0));
    let (code, said, _) = mas(&world, &["release", "alpha"]);
    assert_eq!(
        (code, said.as_str()),
        (Some(0), "agent:alpha is not in quarantine any more; still shut out with all\n")
    );
    let (code, _, why) = mas(&world, &["quarantine", "nobody", "--reason", "r"]);
    assert!(code == Some(0) && why.contains("no such agent"), "{why}");
    assert_eq!(mas(&world, &["release", "--all"]).0, Some(0));
    within(IN_FORCE, "alpha is let in", || world.client(&server, "alpha").discover(&[]).is_ok());
    assert_eq!(world.client(&server, "beta").discover(&[]).unwrap_err(), held);
    // A file that is not valid changes nothing, and whoever asked hears of it.
    world.set_settings("threads: many\n");
    let (code, _, why) = mas(&world, &["reload"]);
    assert_eq!(code, Some(2), "the command reads the file itself: {why}");
}

#[test]
fn whoever_can_write_to_redis_neither_shuts_out_nor_lets_in() {
    let world = World::new();
    let server = world.server();
    let beta = world.client(&server, "beta");
    assert_eq!(mas(&world, &["quarantine", "beta", "--reason", "r"]).0, Some(0));
    let held = |world: &World| {
        world.client(&server, "beta").discover(&[]).is_err_and(|refusal| refusal.details == "quarantined")
    };
    until("beta is out", || held(&world));
    drop(beta);
    let stored = || -> Option<String> { world.redis.query(&["GET", "mas.quarantine"]) };
    let first = stored().unwrap();
    // Deleted, forged, of another type, junk of any length: put back, and on record.
    let forged = first.replace("agent:beta", "agent:alpha").replace("\"version\":1", "\"version\":9");
    let attacks: [&dyn Fn(); 4] = [
        &|| assert_eq!(world.redis.query::<i64>(&["DEL", "mas.quarantine"]), 1),
        &|| drop(world.redis.query::<String>(&["SET", "mas.quarantine", &forged])),
        &|| {
            let _: i64 = world.redis.query(&["DEL", "mas.quarantine"]);
            let _: i64 = world.redis.query(&["HSET", "mas.quarantine", "all", "junk"]);
        },
        &|| drop(world.redis.query::<String>(&["SET", "mas.quarantine", &"x".repeat(5_000_000)])),
    ];
    for attack in attacks {
        attack();
        until("it is put back", || {
            let kind: String = world.redis.query(&["TYPE", "mas.quarantine"]);
            kind == "string" && stored().is_some_and(|now| now == first)
        });
        assert!(held(&world));
        assert!(world.client(&server, "alpha").discover(&[]).is_ok());
    }
    until("it is on record", || {
        world.records().iter().filter(|record| record.rule.starts_with("put_back")).count() >= 4
    });
    // Released, and the older document put back.
    assert_eq!(mas(&world, &["release", "beta"]).0, Some(0));
    until("beta is in", || !held(&world));
    let _: String = world.redis.query(&["SET", "mas.quarantine", &first]);
    until("the older document is replaced", || stored().is_some_and(|now| now != first));
    assert!(!held(&world));
    until("that is on record as what it is", || {
        world.records().iter().any(|r| r.action.as_str() == "released" && r.rule.starts_with("put_back"))
    });
    // Nobody stops a server by writing to Redis.
    let id = status(&world)["server"].as_str().unwrap().to_owned();
    let drain = format!("mas.drain:{id}");
    let _: String = world.redis.query(&["SET", &drain, "00 {\"by\":\"x\",\"after_ms\":0}"]);
    // It has looked at it when it has seen what came later.
    assert_eq!(mas(&world, &["quarantine", "beta", "--reason", "r"]).0, Some(0));
    until("beta is out", || held(&world));
    assert_eq!(status(&world)["ready"], true);
    // A tag of a key that this server does not have says nothing, and is not replaced: it shows.
    let now = stored().unwrap();
    let other_key = format!("{}{}", if now.starts_with("00") { "11" } else { "00" }, &now[2..]);
    let _: String = world.redis.query(&["SET", "mas.quarantine", &other_key]);
    until("it shows", || status(&world)["troubles"].to_string().contains("quarantine_unreadable"));
    assert!(held(&world));
    assert_eq!(stored(), Some(other_key));
}

#[test]
fn a_quarantine_that_was_altered_while_no_server_ran_is_told_and_a_server_stops_all_the_same() {
    let world = World::new();
    let mut server = world.server();
    assert_eq!(mas(&world, &["quarantine", "beta", "--reason", "r"]).0, Some(0));
    until("it is known", || status(&world)["quarantine"][0]["whom"] == "agent:beta");
    server.stop();
    let _: String = world.redis.query(&["SET", "mas.quarantine", "something else"]);
    let mut server = world.server();
    until("it shows", || {
        let troubles = status(&world)["troubles"].to_string();
        troubles.contains("quarantine_unreadable")
            && troubles.contains("mas audit query --action quarantined")
    });
    until("it is on record", || {
        world.records().iter().any(|r| r.action.as_str() == "foreign_entry" && r.target == "mas.quarantine")
    });
    let (code, said, why) = mas(&world, &["drain", "--reason", "look at it"]);
    assert_eq!(code, Some(0), "{said}{why}");
    assert_eq!(server.wait_code(), Some(0));
    // Shut out again, it is as before.
    let _server = world.server();
    assert_eq!(mas(&world, &["quarantine", "beta", "--reason", "again"]).0, Some(0));
    until("it is over", || !status(&world)["troubles"].to_string().contains("quarantine_unreadable"));
}

#[test]
fn operators_elsewhere_do_what_their_role_allows_and_all_is_on_record() {
    let mut world = World::new();
    world.set_admin("0.0.0.0:0");
    world.set_settings(
        "operators: [{name: ops, role: operator}, {name: eve, role: reader}, {name: aud, role: auditor}]\n",
    );
    for name in ["ops", "eve", "aud"] {
        let certs = world.certs();
        let made = world.mas(&["certs", "issue", "--operator", name, "--dir", certs.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
    }
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    alpha.update_state(&[("k", "v")]).unwrap();
    let (code, said, why) =
        mas_as(&world, &server, "ops", &["state", "set", "alpha", "k=w", "--reason", "from afar", "--json"]);
    assert_eq!(code, Some(0), "{why}");
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["version"], 2);
    assert!(why.contains("sealed by checkpoint"), "{why}");
    assert_eq!(alpha.state().unwrap()["k"], "w");
    for (who, args) in [
        ("eve", &["state", "get", "alpha"][..]),
        ("eve", &["quarantine", "alpha", "--reason", "x"]),
        ("aud", &["state", "reset", "alpha"]),
        ("aud", &["drain"]),
    ] {
        let (code, said, why) = mas_as(&world, &server, who, args);
        assert_eq!((code, said.as_str()), (Some(1), ""), "{who} {args:?}");
        assert!(why.contains("403") && why.contains("may not ask for"), "{why}");
    }
    let (code, said, why) = mas_as(&world, &server, "aud", &["state", "get", "alpha"]);
    assert_eq!(code, Some(0), "{why}");
    assert!(said.contains("version 2"), "{said}");
    // What is wrong is told as without a server.
    assert_eq!(mas_as(&world, &server, "ops", &["state", "get", "nobody"]).0, Some(2));
    assert_eq!(mas_as(&world, &server, "ops", &["release", "alpha"]).0, Some(1));
    until("all is on record", || {
        let records = world.records();
        let by = |text: &str| records.iter().filter(|record| record.reason.starts_with(text)).count();
        let refused = records.iter().filter(|record| record.rule.ends_with("refused by role")).count();
        by("ops from 127.0.0.1") == 1 && by("eve from ") == 2 && by("aud from ") == 2 && refused == 4
    });
    world.assert_intact();
}

#[test]
fn operators_see_through_the_server_what_is_in_redis_and_payloads_masked() {
    let mut world = World::with(
        World::PAIR,
        "operators:\n  - {name: ops, role: operator}\n  - {name: eve, role: reader}\n  - {name: aud, role: auditor}\n",
    );
    world.set_gateway("dlp: {policy_overrides: {ssn: allow}}");
    world.set_admin("0.0.0.0:0");
    for name in ["ops", "eve", "aud"] {
        let certs = world.certs();
        let made = world.mas(&["certs", "issue", "--operator", name, "--dir", certs.to_str().unwrap()]);
        assert!(made.status.success(), "{made:?}");
    }
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"ssn\":\"123-45-6789\"}").unwrap();
    b.nack(&b.next().id, "never", false);
    until("it is a dead letter", || world.redis.len("dlq:messages") == 1);
    let text = std::fs::read_to_string(world.config_path()).unwrap();
    std::fs::write(world.config_path(), text.replace("ssn: allow", "ssn: block")).unwrap();
    let (code, _, why) = mas_as(&world, &server, "ops", &["reload"]);
    assert_eq!(code, Some(0), "{why}");
    let seen = |who: &str, args: &[&str]| mas_as(&world, &server, who, args);
    let (code, said, why) = seen("eve", &["agents", "beta"]);
    assert!(code == Some(0) && said.contains("ACTIVE"), "{why}");
    for args in [&["dlq", "show", "--all"][..], &["dlq", "list"], &["foreign", "list"]] {
        let (code, said, why) = seen("eve", args);
        assert!(
            code == Some(1) && said.is_empty() && why.contains("may not ask for"),
            "{args:?}: {said}{why}"
        );
    }
    for who in ["ops", "aud"] {
        let (code, said, why) = seen(who, &["dlq", "show", "--all", "--json"]);
        assert!(
            code == Some(0) && said.contains("\"masked\":true") && !said.contains("123-45"),
            "{said}{why}"
        );
        let (code, said, _) = seen(who, &["dlq", "list"]);
        assert!(code == Some(0) && said.contains("beta") && said.contains("never"), "{said}");
        let (code, said, _) = seen(who, &["agents", "beta"]);
        assert!(code == Some(0) && said.contains("ACTIVE") && said.contains("b@"), "{said}");
        assert_eq!(seen(who, &["foreign", "list"]).0, Some(0));
    }
    for who in ["eve", "aud"] {
        let (code, said, why) = seen(who, &["dlq", "show", "--all", "--unmasked"]);
        assert!(
            code == Some(1) && said.is_empty() && why.contains("may not see what is masked"),
            "{said}{why}"
        );
    }
    let (code, said, why) = seen("ops", &["dlq", "show", "--all", "--unmasked", "--reason", "case 7"]);
    assert!(code == Some(0) && said.contains("123-45-6789") && why.contains("on record"), "{said}{why}");
    let shown = |rule: &str| {
        world.records().into_iter().filter(|record| record.rule.starts_with(rule)).collect::<Vec<_>>()
    };
    let seen_unmasked = shown("dead_letters_show, unmasked");
    assert!(seen_unmasked[0].reason.ends_with(": case 7"));
    assert_eq!(seen_unmasked[0].target, "all, at most 1000");
    until("refusals are on record", || shown("dead_letters_show, refused by role").len() == 3);
    assert_eq!(seen("ops", &["agents", "nobody"]).0, Some(2));
    assert_eq!(seen("ops", &["dlq", "show", "1-1"]).0, Some(1));
    server.stop();
    // Without a server the same, by Redis.
    let (code, said, _) = mas(&world, &["dlq", "show", "--all"]);
    assert!(
        code == Some(0) && said.contains("masked by the rules in force") && !said.contains("123-45"),
        "{said}"
    );
    let (code, said, _) = mas(&world, &["dlq", "show", "--all", "--unmasked"]);
    assert!(code == Some(0) && said.contains("123-45-6789"), "{said}");
}

#[test]
fn dead_letters_and_inboxes_are_dealt_with_by_the_server_and_the_same_without_one() {
    let world = World::new();
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let a = alpha.session("a");
    let b = beta.session("b");
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    b.nack(&b.next().id, "never", false);
    until("it is a dead letter", || world.redis.len("dlq:messages") == 1);
    let (code, said, why) = mas(&world, &["dlq", "redrive", "--all", "--reason", "again"]);
    assert_eq!(code, Some(0), "{why}");
    assert!(
        said.starts_with("redriven  ") && said.ends_with("1 redriven, 0 left where they are\n"),
        "{said}"
    );
    b.take();
    drop(b);
    until("beta is away", || {
        world.mas(&["agents", "beta", "--json"]).stdout.windows(8).any(|w| w == b"INACTIVE")
    });
    alpha.send("a", "beta", "{\"n\":2}").unwrap();
    let (code, said, why) = mas(&world, &["inbox", "empty", "beta", "--json"]);
    assert_eq!(code, Some(0), "{why}");
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap()["moved"], 1);
    drop(a);
    server.stop();
    let (code, said, why) = mas(&world, &["dlq", "drop", "--all"]);
    assert_eq!(code, Some(0), "{why}");
    assert!(said.ends_with("1 dropped, 0 left where they are\n"), "{said}");
    assert!(why.contains("sealed by this command, as no server runs"), "{why}");
    assert_eq!(mas(&world, &["reload"]).0, Some(1), "nobody is there to reload");
    world.assert_intact();
}

#[test]
fn a_server_is_drained_from_afar_has_its_sessions_move_and_says_so_first() {
    const AFTER: Duration = Duration::from_secs(8);
    let mut world = World::new();
    world.set_admin("127.0.0.1:0");
    let (one, mut other) = (world.server(), world.server());
    let (alpha, beta) = (world.client(&other, "alpha"), world.client(&other, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    let held = b.next();
    let id = {
        let answer = get(other.admin.as_ref().unwrap(), "/api/v1/status").unwrap().body;
        serde_json::from_str::<Value>(&answer).unwrap()["server"].as_str().unwrap().to_owned()
    };
    assert_eq!(mas(&world, &["drain", "nobody"]).0, Some(2));
    assert_eq!(mas(&world, &["drain", &"0".repeat(32)]).0, Some(1));
    // The unix socket is the first server's: it tells the other one.
    let begun = Instant::now();
    let (code, said, why) = mas(&world, &["drain", &id, "--after", "8s", "--reason", "new disks"]);
    assert_eq!((code, said), (Some(0), format!("server {id} stops\n")), "{why}");
    until("it is not ready", || {
        get(other.admin.as_ref().unwrap(), "/readyz")
            .is_ok_and(|answer| answer.status == 503 && answer.body.contains("[-] drain: "))
    });
    // It goes on for a while.
    alpha.send("a", "beta", "{}").unwrap();
    b.take();
    // A session that holds nothing is asked to move while the server still runs; nobody new is let in meanwhile.
    assert_eq!(a.end(), Ended::refused("UNAVAILABLE", "server_stopping"));
    let gamma = world.client(&other, "gamma");
    assert!(gamma.discover(&[]).is_err_and(|refusal| refusal.code == "UNAVAILABLE"));
    let moved = world.client(&one, "alpha");
    let again = moved.session("a");
    // One that is at work finishes; once it is asked to move nothing more is for it.
    let mut last = 2;
    loop {
        moved.send("a", "beta", &format!("{{\"n\":{last}}}")).unwrap();
        let Some(delivered) = b.next_within(Duration::from_millis(500)) else { break };
        b.ack(&delivered.id);
        last += 1;
    }
    b.ack(&held.id);
    assert_eq!(b.end(), Ended::refused("UNAVAILABLE", "server_stopping"));
    assert!(begun.elapsed() < AFTER, "the sessions end before the server");
    let beta = world.client(&one, "beta");
    let b = beta.session("b");
    assert_eq!(b.take().data()["n"], last, "what came meanwhile is delivered where it is now");
    assert_eq!(other.wait_code(), Some(0));
    assert!(begun.elapsed() >= AFTER);
    drop(again);
    until("the first one is ready", || get(one.admin.as_ref().unwrap(), "/readyz").unwrap().status == 200);
    assert!(world.records().iter().any(|record| {
        record.action.as_str() == "commanded" && record.target == id && record.reason.ends_with(": new disks")
    }));
    drop(one);
    world.assert_intact();
}

#[test]
fn a_circuit_is_closed_by_hand() {
    let mut world = World::new();
    world.set_gateway("circuit_breaker: {failure_threshold: 1, timeout_seconds: 3600}");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    assert_eq!(mas(&world, &["circuit", "close", "beta"]).0, Some(1), "it is closed");
    alpha.send("a", "beta", "{}").unwrap();
    b.nack(&b.next().id, "never", false);
    until("the circuit is open", || {
        alpha.send("a", "beta", "{}").is_err_and(|refusal| refusal.details == "circuit_open")
    });
    let (code, said, why) = mas(&world, &["circuit", "close", "beta", "--reason", "handler mended"]);
    assert_eq!((code, said.as_str()), (Some(0), "the circuit of beta is closed\n"), "{why}");
    until("messages pass", || alpha.send("a", "beta", "{}").is_ok());
    b.take();
    until("it is on record", || {
        let records = world.records();
        records
            .iter()
            .any(|r| r.action.as_str() == "circuit_closed" && r.reason.ends_with(": handler mended"))
            && records.iter().any(|r| r.action.as_str() == "commanded" && r.rule == "circuit_close")
    });
    world.assert_intact();
}

#[test]
fn whoever_reaches_loopback_reads_and_changes_nothing() {
    let mut world = World::new();
    world.set_admin("127.0.0.1:0");
    let server = world.server();
    let admin = server.admin.as_ref().unwrap();
    let listed = get(admin, "/api/v1/commands").unwrap().body;
    let shows = ["agents", "dead_letters_list", "dead_letters_show", "dead_letters_archived", "foreign_list"];
    assert_eq!(serde_json::from_str::<Value>(&listed).unwrap()["commands"], serde_json::json!(shows));
    let (code, said, why) = mas(&world, &["agents", "--admin", admin, "--json"]);
    assert_eq!((code, said.lines().count()), (Some(0), 4), "{why}");
    let (code, _, why) = mas(&world, &["dlq", "show", "--all", "--unmasked", "--admin", admin]);
    assert!(code == Some(1) && why.contains("403"), "{why}");
    // A long body is for those who may change something.
    let long = vec![b'x'; 20 * 1024];
    let ids: Vec<String> = vec![String::from_utf8(long).unwrap()];
    let (code, _, why) = mas(&world, &["agents", &ids[0], "--admin", admin]);
    assert!(code == Some(1) && why.contains("413"), "{why}");
    let (code, _, why) = mas(&world, &["quarantine", "--all", "--reason", "x", "--admin", admin]);
    assert_eq!(code, Some(1));
    assert!(why.contains("403"), "{why}");
    // A socket that another server of this folder has is left to it.
    let second = world.server();
    assert!(world.logged().contains("no unix socket for operators"), "{}", world.logged());
    drop(second);
    assert_eq!(mas(&world, &["quarantine", "beta", "--reason", "x"]).0, Some(0));
    assert_eq!(mas(&world, &["quarantine", "--all"]).0, Some(2), "without a reason");
}

#[test]
fn the_socket_of_a_server_that_has_ended_is_taken_over_by_another() {
    let mut world = World::new();
    world.set_admin("127.0.0.1:0");
    let mut servers: Vec<_> = (0..3).map(|_| world.server()).collect();
    let who = || -> Option<String> {
        let (_, text, _) = mas(&world, &["status", "--json"]);
        let status: Value = serde_json::from_str(&text).ok()?;
        Some(status["admin_addr"].as_str()?.to_owned())
    };
    assert_eq!(who(), servers[0].admin);
    // A kill leaves the file, a stop does not; both find one heir among two.
    servers.remove(0).kill();
    until("another one has it", || {
        who().is_some_and(|admin| servers.iter().any(|one| one.admin.as_ref() == Some(&admin)))
    });
    let second = who().unwrap();
    let at = servers.iter().position(|one| one.admin.as_ref() == Some(&second)).unwrap();
    servers.remove(at).stop();
    until("the last one has it", || who() == servers[0].admin);
    assert_eq!(mas(&world, &["quarantine", "beta", "--reason", "x"]).0, Some(0));
}
