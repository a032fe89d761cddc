//! Acks, nacks, lost sessions, dead letters.

use std::time::{Duration, Instant};

use crate::support::{World, until};

/// Long enough to see that nothing comes; the worlds here reclaim after 300 ms.
const QUIET: Duration = Duration::from_millis(900);

fn field(letter: &(String, Vec<(String, String)>), name: &str) -> String {
    letter.1.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone()).unwrap_or_default()
}

#[test]
fn an_acknowledged_message_is_gone_from_redis() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for _ in 0..50 {
        alpha.send("a", "beta", "{}").unwrap();
        b.take();
    }
    until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
    let pending: Vec<redis::Value> =
        world.redis.query(&["XPENDING", "agent.stream:beta", "agents", "-", "+", "10"]);
    assert_eq!(pending.len(), 0);
}

#[test]
fn a_handler_that_takes_long_does_not_get_its_message_again() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    let (one, two) = (beta.session("b1"), beta.session("b2"));
    alpha.send("a", "beta", "{}").unwrap();
    let slow = [&one, &two].into_iter().find_map(|s| s.next_within(QUIET).map(|d| (s, d)));
    let (holder, delivered) = slow.expect("one of them has it");
    // Three times the reclaim time, and a session that is alive.
    assert!(one.next_within(QUIET).is_none());
    assert!(two.next_within(QUIET).is_none());
    holder.ack(&delivered.id);
    until("it is gone", || world.redis.len("agent.stream:beta") == 0);
}

#[test]
fn a_lost_sessions_message_goes_to_another_instance_after_the_reclaim_time() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    let lost = beta.session("b1");
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    let first = lost.next();
    let other = world.client(&server, "beta").session("b2");
    let gone = Instant::now();
    drop(lost);
    let again = other.take();
    assert!(gone.elapsed() >= Duration::from_millis(250), "it waited for the instance's return");
    assert_eq!(again.message_id(), first.message_id());
    assert!(other.next_within(QUIET).is_none());
}

#[test]
fn an_instance_that_comes_back_gets_its_own_messages_at_once() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 60000}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    let session = beta.session("b1");
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    let first = session.next();
    drop(session);
    let mut back = None;
    until("it is back", || {
        back = beta.try_session("b1").ok();
        back.is_some()
    });
    let back = back.unwrap();
    let again = back.next();
    assert_eq!(again.message_id(), first.message_id());
    assert_ne!(again.id, first.id, "another delivery: what is said of the first changes nothing of it");
    back.ack(&first.id);
    back.nack(&first.id, "late", false);
    back.ack(&again.id);
    until("it is gone", || world.redis.len("agent.stream:beta") == 0);
    assert_eq!(world.redis.len("dlq:messages"), 0);
}

#[test]
fn a_retryable_nack_comes_back_with_growing_waits_and_in_the_end_dies() {
    let world = World::with(
        World::PAIR,
        "delivery: {reclaim_idle_ms: 300, max_attempts: 4, retry_backoff_ms: [100, 200, 400]}\n",
    );
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let id = alpha.send("a", "beta", "{\"word\":\"kept\"}").unwrap();
    let started = Instant::now();
    let mut waits = Vec::new();
    let mut last = Instant::now();
    for _ in 0..4 {
        let delivered = b.next();
        assert_eq!(delivered.message_id(), id);
        waits.push(last.elapsed());
        last = Instant::now();
        b.nack(&delivered.id, "not_now", true);
    }
    assert!(started.elapsed() >= Duration::from_millis(690), "{waits:?}");
    for (wait, at_least) in waits.iter().skip(1).zip([95, 195, 395]) {
        assert!(*wait >= Duration::from_millis(at_least), "{waits:?}");
    }
    until("a dead letter", || world.redis.len("dlq:messages") == 1);
    assert!(b.next_within(QUIET).is_none(), "no fifth delivery");
    let letter = &world.redis.entries("dlq:messages")[0];
    assert_eq!(field(letter, "reason"), "not_now");
    assert_eq!(field(letter, "attempts"), "4");
    assert_eq!(field(letter, "agent_id"), "beta");
    let envelope: serde_json::Value = serde_json::from_str(&field(letter, "envelope")).unwrap();
    assert_eq!(envelope["data"]["word"], "kept", "the payload is there to be replayed");
    assert_eq!(world.redis.len("agent.stream:beta"), 0);
    let records = world.records();
    assert_eq!(records.iter().filter(|r| r.action.as_str() == "nack").count(), 4);
    let dead = records.iter().find(|r| r.action.as_str() == "dead_letter").unwrap();
    assert_eq!(dead.message_id.unwrap().to_string(), id);
    world.assert_intact();
}

#[test]
fn a_nack_that_is_not_retryable_is_a_dead_letter_at_once() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    alpha.send("a", "beta", "{\"n\":2}").unwrap();
    b.nack(&b.next().id, "handler_error:ValueError", false);
    assert_eq!(b.take().data()["n"], 2);
    until("a dead letter", || world.redis.len("dlq:messages") == 1);
    until("an empty inbox", || world.redis.len("agent.stream:beta") == 0);
    let letter = &world.redis.entries("dlq:messages")[0];
    assert_eq!(field(letter, "reason"), "handler_error:ValueError");
    assert!(field(letter, "envelope").contains("\"n\":1"));
}

#[test]
fn a_message_that_kills_its_handler_each_time_ends_in_the_dead_letters() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 50, max_attempts: 3}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    alpha.send("a", "beta", "{}").unwrap();
    for n in 0..3 {
        let session = beta.session(&format!("b{n}"));
        session.next();
        drop(session);
    }
    let survivor = beta.session("survivor");
    until("a dead letter", || world.redis.len("dlq:messages") == 1);
    assert!(survivor.next_within(QUIET).is_none());
    assert_eq!(field(&world.redis.entries("dlq:messages")[0], "reason"), "max_attempts");
}

#[test]
fn credit_bounds_what_a_session_holds_and_nothing_is_dropped() {
    let world = World::with(World::PAIR, "delivery: {max_in_flight: 10}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for n in 0..50 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    let held: Vec<_> = (0..10).map(|_| b.next()).collect();
    assert!(b.next_within(QUIET).is_none(), "an eleventh without an ack");
    for delivered in &held {
        b.ack(&delivered.id);
    }
    let mut seen: Vec<i64> = held.iter().map(|d| d.data()["n"].as_i64().unwrap()).collect();
    while seen.len() < 50 {
        seen.push(b.take().data()["n"].as_i64().unwrap());
    }
    assert_eq!(seen, (0..50).collect::<Vec<_>>());
}

#[test]
fn one_agent_cannot_acknowledge_anothers_delivery() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let rival = world.client(&server, "beta").session("rival");
    alpha.send("a", "beta", "{}").unwrap();
    let (holder, other) = match b.next_within(QUIET) {
        Some(delivered) => ((&b, delivered), &rival),
        None => ((&rival, rival.next()), &b),
    };
    a.ack(&holder.1.id);
    other.ack(&holder.1.id);
    other.nack(&holder.1.id, "mine", false);
    assert!(other.next_within(QUIET).is_none());
    assert_eq!(world.redis.len("agent.stream:beta"), 1, "it is still held");
    holder.0.ack(&holder.1.id);
    until("acknowledged", || world.redis.len("agent.stream:beta") == 0);
}

#[test]
fn many_refusals_at_once_all_reach_the_dead_letters() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for _ in 0..200 {
        alpha.send("a", "beta", "{}").unwrap();
    }
    let held: Vec<_> = (0..200).map(|_| b.next()).collect();
    for delivered in &held {
        b.nack(&delivered.id, "no", false);
    }
    // Nothing else happens from here on: the letters must not wait for anything.
    until("two hundred dead letters", || world.redis.len("dlq:messages") == 200);
    until("an empty inbox", || world.redis.len("agent.stream:beta") == 0);
    world.assert_intact();
}

#[test]
fn a_message_nobody_can_take_costs_nothing_while_it_waits() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 20}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    let lost = beta.session("b1");
    for _ in 0..100 {
        alpha.send("a", "beta", "{}").unwrap();
    }
    for _ in 0..100 {
        lost.next();
    }
    drop(lost);
    until("it is gone", || alpha.discover(&[]).unwrap().is_empty());
    let used = server.cpu_ticks_during(Duration::from_secs(1));
    assert!(used <= 10, "{used} ticks in a second of waiting");
    let other = beta.session("b2");
    for _ in 0..100 {
        other.take();
    }
}

#[test]
fn what_cannot_be_handled_now_comes_again_and_nothing_is_held_against_anybody() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 300, max_attempts: 2}\n");
    let mut server = world.server();
    let alpha = world.client(&server, "alpha");
    let (a, b) = (alpha.session("a"), world.client(&server, "beta").session("b"));
    let sent: Vec<String> = (0..8).map(|_| alpha.send("a", "beta", "{}").unwrap()).collect();
    let put_off = |b: &crate::support::Session| {
        let delivered = b.next();
        assert_eq!(delivered.attempt, 1, "no attempt is counted");
        b.put_off(&delivered.id, "rate_limited", 1);
    };
    for _ in 0..3 * sent.len() {
        put_off(&b);
    }
    until("Redis has not counted them, either, while they wait", || {
        world.redis.pending("agent.stream:beta").iter().all(|(_, _, _, deliveries)| *deliveries == 0)
    });
    assert!(!world.redis.keys().contains(&"dlq:messages".to_owned()));
    assert_eq!(alpha.send("a", "beta", "{\"n\": 9}").map(drop), Ok(()), "no circuit is open");
    loop {
        let delivered = b.next();
        if delivered.data()["n"] == 9 {
            break b.ack(&delivered.id);
        }
        b.put_off(&delivered.id, "rate_limited", 1);
    }
    // What Redis has counted is no more than that, either: a server that knows nothing of it goes on from there.
    drop((a, b));
    server.kill();
    let again = world.server();
    let b = world.client(&again, "beta").session("b");
    let mut left: std::collections::BTreeSet<String> = sent.into_iter().collect();
    while !left.is_empty() {
        let delivered = b.take();
        assert!(delivered.attempt <= 2, "attempt {}", delivered.attempt);
        let _ = left.remove(delivered.message_id());
    }
    let records = world.records();
    let nacks = records.iter().filter(|record| record.action.as_str() == "nack");
    assert!(nacks.clone().count() >= 24 && nacks.clone().all(|record| record.rule == "later"));
    world.assert_intact();
}

#[test]
fn an_acknowledgement_that_redis_refuses_is_not_forgotten() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{}").unwrap();
    let delivered = b.next();
    // No replica, so every write is refused.
    let _: String = world.redis.query(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    b.ack(&delivered.id);
    assert!(b.next_within(QUIET).is_none());
    assert_eq!(world.redis.len("agent.stream:beta"), 1);
    let _: String = world.redis.query(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    until("it is acknowledged after all", || world.redis.len("agent.stream:beta") == 0);
    assert!(b.next_within(Duration::from_millis(100)).is_none(), "and not delivered again");
}

#[test]
fn a_dead_letter_that_cannot_be_written_keeps_its_payload() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let _: String = world.redis.query(&["SET", "dlq:messages", "not a stream"]);
    alpha.send("a", "beta", "{\"precious\":1}").unwrap();
    b.nack(&b.next().id, "no", false);
    until("it was tried", || world.records().iter().any(|r| r.action.as_str() == "dead_letter"));
    assert_eq!(world.redis.len("agent.stream:beta"), 1);
    let _: i64 = world.redis.query(&["DEL", "dlq:messages"]);
    until("it is written", || world.redis.keys().contains(&"dlq:messages".to_owned()));
    assert!(field(&world.redis.entries("dlq:messages")[0], "envelope").contains("precious"));
    until("an empty inbox", || world.redis.len("agent.stream:beta") == 0);
}
