//! The operator's view: agents, and their state.

use serde_json::Value;

use crate::support::{World, until};

fn mas(world: &World, args: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = world.mas(&[args, &["--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn agents_are_shown_with_their_instances_and_what_waits_for_them() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{}").unwrap();
    let held = b.next();
    let (code, shown) = mas(&world, &["agents", "beta"]);
    assert_eq!((code, shown.len()), (Some(0), 1));
    let beta = &shown[0];
    assert_eq!(
        (&beta["status"], &beta["queued"], &beta["unacked"]),
        (&"ACTIVE".into(), &1.into(), &1.into())
    );
    assert_eq!((&beta["circuit"], &beta["instances"][0]["connected"]), (&"closed".into(), &true.into()));
    b.ack(&held.id);
    until("the ack shows", || mas(&world, &["agents", "beta"]).1[0]["queued"] == 0);
    let all = mas(&world, &["agents"]).1;
    assert_eq!(all.len(), 4);
    assert_eq!(all.iter().filter(|agent| agent["status"] == "ACTIVE").count(), 2);
    assert!(String::from_utf8(world.mas(&["agents"]).stdout).unwrap().contains("b@"));
    assert_eq!(world.mas(&["agents", "nobody"]).status.code(), Some(2));
}

#[test]
fn a_state_is_changed_by_hand_like_by_its_agent_and_on_record() {
    let world = World::with(World::PAIR, "limits: {max_state_bytes: 64}\n");
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    alpha.update_state(&[("a", "1")]).unwrap();
    let (code, state) = mas(&world, &["state", "get", "alpha"]);
    assert_eq!((code, &state[0]["version"], &state[0]["state"]["a"]), (Some(0), &1.into(), &"1".into()));
    let set = ["state", "set", "alpha", "b=2", "c=x=y", "--expect-version", "1", "--reason", "by hand"];
    let (code, said) = mas(&world, &set);
    assert_eq!((code, &said[0]["version"]), (Some(0), &2.into()));
    assert_eq!(mas(&world, &set).0, Some(1), "the version has changed");
    let seen = alpha.versioned_state().unwrap();
    assert_eq!((seen.version, seen.state["b"].as_str(), seen.state["c"].as_str()), (2, "2", "x=y"));
    let long = format!("d={}", "x".repeat(64));
    assert_eq!(mas(&world, &["state", "set", "alpha", &long]).0, Some(1));
    assert_eq!(world.mas(&["state", "set", "alpha", "novalue"]).status.code(), Some(2));
    assert_eq!(world.mas(&["state", "get", "nobody"]).status.code(), Some(2));
    let (code, said) = mas(&world, &["state", "reset", "alpha"]);
    assert_eq!((code, &said[0]["version"]), (Some(0), &3.into()));
    assert!(alpha.state().unwrap().is_empty());
    let records = world.records();
    let by_hand = records.iter().find(|r| r.reason.ends_with(": by hand")).unwrap();
    assert_eq!((by_hand.action.as_str(), by_hand.target.as_str()), ("state_update", "alpha"));
    world.assert_intact();
}

#[test]
fn an_inbox_is_emptied_into_the_dead_letters_and_what_is_in_hand_stays() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 60000, max_in_flight: 2}\n");
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    // Two are lost with their instance, two are in the hands of another one, many wait.
    let gone = beta.session("gone");
    for n in 0..2 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
        let _ = gone.next();
    }
    drop(gone);
    let b = beta.session("b");
    let held: Vec<_> = (0..2)
        .map(|n| {
            alpha.send("a", "beta", &format!("{{\"held\":{n}}}")).unwrap();
            b.next()
        })
        .collect();
    for n in 0..200 {
        alpha.send("a", "beta", &format!("{{\"waits\":{n}}}")).unwrap();
    }
    for (limit, left) in [("1", 203), ("17", 186)] {
        let (code, said) =
            mas(&world, &["inbox", "empty", "beta", "--reason", "a mistake", "--limit", limit]);
        let moved = limit.parse::<u64>().unwrap();
        assert_eq!((code, &said[0]["moved"], &said[0]["left"]), (Some(0), &moved.into(), &left.into()));
    }
    let (code, said) = mas(&world, &["inbox", "empty", "beta", "--reason", "a mistake"]);
    assert_eq!((code, &said[0]["moved"], &said[0]["left"]), (Some(0), &184.into(), &2.into()));
    let (_, letters) =
        mas(&world, &["dlq", "list", "--agent", "beta", "--died-of", "emptied", "--limit", "500"]);
    assert_eq!(letters.len(), 202);
    // Whoever has something goes on, and so does the inbox.
    held.iter().for_each(|delivered| b.ack(&delivered.id));
    alpha.send("a", "beta", "{\"next\":1}").unwrap();
    assert_eq!(b.take().data()["next"], 1);
    until("it is empty", || world.redis.len("agent.stream:beta") == 0);
    let records = world.records();
    let moved =
        |r: &&mas::audit::Record| r.action.as_str() == "dead_letter" && r.reason.ends_with(": a mistake");
    assert_eq!(records.iter().filter(moved).count(), 202);
    assert!(!records.iter().any(|r| r.action.as_str() == "vanished"), "the server was told");
    // They can be put back, and an inbox of an absent agent is emptied without a server too.
    let (_, back) = mas(&world, &["dlq", "redrive", "--agent", "beta", "--limit", "3"]);
    assert_eq!(back.iter().filter(|letter| letter["outcome"] == "redriven").count(), 3);
    for _ in 0..3 {
        b.take();
    }
    until("it is empty", || world.redis.len("agent.stream:beta") == 0);
    drop(b);
    alpha.send("a", "beta", "{}").unwrap();
    server.stop();
    let (code, said) = mas(&world, &["inbox", "empty", "beta"]);
    assert_eq!((code, &said[0]["moved"]), (Some(0), &1.into()));
    assert_eq!(mas(&world, &["inbox", "empty", "nobody"]).0, Some(1), "it has none");
    let _server = world.server();
    world.assert_intact();
}
