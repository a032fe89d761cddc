//! Redis killed, restarted, cut off, emptied: nothing acknowledged is lost, service resumes by itself.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;

use crate::support::{Session, World, until};

fn collect(session: &Session, wanted: &BTreeSet<i64>) {
    let mut seen = BTreeSet::new();
    until("everything accepted has arrived", || {
        while let Some(delivered) = session.next_within(std::time::Duration::from_millis(5)) {
            session.ack(&delivered.id);
            seen.insert(delivered.data()["n"].as_i64().unwrap());
        }
        wanted.is_subset(&seen)
    });
}

#[test]
fn a_killed_redis_is_answered_with_unavailable_and_service_resumes() {
    let mut world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let mut accepted = BTreeSet::new();
    for n in 0..50 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
        accepted.insert(n);
    }
    world.redis.kill();
    let mut unavailable = 0;
    for n in 50..60 {
        let refusal = alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap_err();
        assert_eq!(refusal.code, "UNAVAILABLE");
        assert!(["storage_unavailable", "commit_unknown"].contains(&refusal.details.as_str()), "{refusal:?}");
        unavailable += 1;
    }
    assert_eq!(unavailable, 10);
    assert_eq!(alpha.state().unwrap_err().code, "UNAVAILABLE");
    world.redis.resume();
    let mut n = 60;
    until("sends are accepted again, on the same stream", || {
        n += 1;
        let sent = alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).is_ok();
        if sent {
            accepted.insert(n);
        }
        sent
    });
    collect(&b, &accepted);
    until("all are acknowledged", || world.redis.len("agent.stream:beta") == 0);
    world.assert_intact();
}

#[test]
fn cut_connections_are_made_again_without_ending_a_stream() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let mut accepted = BTreeSet::new();
    let mut n = 0;
    for _ in 0..10 {
        for _ in 0..20 {
            n += 1;
            if alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).is_ok() {
                accepted.insert(n);
            }
        }
        let _: i64 = world.redis.query(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    }
    collect(&b, &accepted);
    until("a clean end", || alpha.send("a", "beta", "{\"n\":-1}").is_ok());
    until("all are acknowledged", || {
        while let Some(delivered) = b.next_within(std::time::Duration::from_millis(5)) {
            b.ack(&delivered.id);
        }
        world.redis.len("agent.stream:beta") == 0
    });
    assert!(accepted.len() >= 150, "{}", accepted.len());
    world.assert_intact();
}

#[test]
fn a_paused_redis_costs_one_timeout_and_no_message() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"n\":0}").unwrap();
    world.redis.signal(Signal::SIGSTOP);
    let refusal = alpha.send("a", "beta", "{\"n\":1}").unwrap_err();
    assert_eq!(refusal.code, "UNAVAILABLE");
    // Not even begun, where the record of the first delivery was under way.
    assert!(["commit_unknown", "storage_unavailable"].contains(&&*refusal.details), "{refusal:?}");
    world.redis.signal(Signal::SIGCONT);
    until("it is back", || alpha.send("a", "beta", "{\"n\":2}").is_ok());
    collect(&b, &[0, 2].into());
    world.assert_intact();
}

#[test]
fn an_emptied_redis_is_filled_again() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"n\":0}").unwrap();
    b.take();
    let _: String = world.redis.query(&["FLUSHALL"]);
    let mut n = 0;
    until("messages flow again", || {
        n += 1;
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
        b.next_within(std::time::Duration::from_millis(200)).is_some_and(|d| {
            b.ack(&d.id);
            true
        })
    });
    // The history was destroyed, and verification says so.
    let (code, report) = world.verify();
    assert_eq!(code, 3, "{report}");
}

#[test]
fn a_key_of_the_wrong_type_fails_loudly_and_only_its_own_agent() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, _b) = (alpha.session("a"), beta.session("b"));
    let _: i64 = world.redis.query(&["DEL", "agent.stream:beta"]);
    let _: String = world.redis.query(&["SET", "agent.stream:beta", "not a stream"]);
    let refusal = alpha.send("a", "beta", "{}").unwrap_err();
    assert_eq!((refusal.code.as_str(), refusal.details.as_str()), ("UNAVAILABLE", "storage_unavailable"));
    beta.send("b", "alpha", "{\"n\":1}").unwrap();
    assert_eq!(a.take().data()["n"], 1);
    until("the failure is on record", || {
        world.records().iter().any(|r| r.action.as_str() == "effect_failed")
    });
    world.assert_intact();
}

#[test]
fn a_full_redis_refuses_messages_and_still_takes_acks() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    let delivered = b.next();
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", "1"]);
    // Refused by Redis itself, until the server has seen how full it is.
    let refusal = alpha.send("a", "beta", "{}").unwrap_err();
    assert!(["storage_unavailable", "storage_full"].contains(&refusal.details.as_str()), "{refusal:?}");
    b.ack(&delivered.id);
    until("the ack is taken", || world.redis.len("agent.stream:beta") == 0);
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", "0"]);
    until("messages are admitted again", || alpha.send("a", "beta", "{\"n\":2}").is_ok());
    assert_eq!(b.take().data()["n"], 2);
    world.assert_intact();
}
