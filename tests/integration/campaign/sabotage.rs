//! The checker must see each broken promise: what is broken here is broken for real, behind the servers'
//! back.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use mas::audit::Action;

use super::arena::{Arena, SETTINGS};
use super::checker::{self, ACK_SLACK};
use crate::support::{Redis, World, until};

/// Messages after which a campaign is well under way.
const ENOUGH: usize = 200;

type Entry = (String, Vec<(String, String)>);

/// Breaks something while everybody works; the checker must say each of `expected`.
fn sees(expected: &[&str], sabotage: impl FnOnce(&mut Arena)) {
    let mut arena = Arena::new(1);
    let history = arena.run(|arena| {
        until("messages flow", || arena.history.accepted_count() > ENOUGH);
        sabotage(arena);
    });
    let violations = checker::check(&history, &arena.world);
    for text in expected {
        let seen = violations.iter().any(|violation| violation.to_string().contains(text));
        assert!(seen, "not seen: {text} in {violations:#?}");
    }
}

/// An entry for `agent` that nobody was handed, while the receivers are away.
fn waiting(arena: &Arena, agent: &str) -> Entry {
    arena.place.close();
    arena.place.lose_sessions();
    // Also an attempt to connect that began before: it could be handed the message.
    until("no receiver has a session or opens one", || arena.place.receivers() == 0);
    let redis = &arena.world.redis;
    // A server that was killed may still be named; it has no lease any more.
    let connected = |value: &String| {
        value
            .strip_prefix("s:")
            .is_some_and(|server| redis.query::<i64>(&["EXISTS", &format!("mas.server:{server}")]) == 1)
    };
    until("the receivers leave", || {
        let values: Vec<String> = redis.query(&["HVALS", &format!("agent.instances:{agent}")]);
        !values.iter().any(connected)
    });
    // What is there now may have been handed out before; what comes from now on was not.
    let stream = format!("agent.stream:{agent}");
    let before = redis.len(&stream);
    until("a message waits", || redis.len(&stream) > before);
    redis.entries(&stream).pop().unwrap()
}

/// An entry that passes through `stream`.
fn passing(redis: &Redis, stream: &str) -> Entry {
    let mut taken = None;
    until("a message passes", || {
        taken = redis.entries(stream).pop();
        taken.is_some()
    });
    taken.unwrap()
}

/// The envelope of a message to `r0` that was acknowledged at its first delivery, and has left the inbox.
///
/// An entry that is merely found in the inbox will not do: those that wait for a second delivery are there
/// longest. The copy of such a message is delivery 1 and looks like one that was under way all the time.
fn acknowledged_at_once(world: &World) -> String {
    let mut passed = HashMap::new();
    let mut taken = None;
    until("a message is acknowledged at its first delivery", || {
        let inside = world.redis.entries("agent.stream:r0");
        let acked = world.records().into_iter().filter(|record| record.action == Action::Acked);
        let first = acked.flat_map(|record| record.messages).filter(|(_, attempt)| *attempt == 1);
        taken = first.map(|(id, _)| id.to_string()).find_map(|id| passed.remove(&id));
        passed.extend(inside.into_iter().map(|(_, fields)| (message_id(&fields[0].1), fields[0].1.clone())));
        taken.is_some()
    });
    let envelope = taken.unwrap();
    until("it has left the inbox", || {
        !world.redis.entries("agent.stream:r0").iter().any(|(_, fields)| fields[0].1 == envelope)
    });
    envelope
}

fn message_id(envelope: &str) -> String {
    let envelope: serde_json::Value = serde_json::from_str(envelope).unwrap();
    envelope["message_id"].as_str().unwrap().to_owned()
}

fn add(world: &World, stream: &str, envelope: &str) {
    let _ = world.add_entry(stream, envelope);
}

#[test]
fn the_checker_sees_a_lost_message() {
    sees(&["accepted, and nowhere"], |arena| {
        let (id, _) = waiting(arena, "r0");
        let _: i64 = arena.world.redis.query(&["XDEL", "agent.stream:r0", &id]);
        arena.place.open();
    });
}

#[test]
fn the_checker_sees_a_message_at_the_wrong_agent() {
    sees(&["at another agent"], |arena| {
        let (_, fields) = waiting(arena, "r0");
        add(&arena.world, "agent.stream:r1", &fields[0].1);
        arena.place.open();
    });
}

#[test]
fn the_checker_sees_what_no_policy_allows() {
    sees(&["delivered, and no record allows it"], |arena| {
        let (_, fields) = passing(&arena.world.redis, "agent.stream:r0");
        let mut envelope: serde_json::Value = serde_json::from_str(&fields[0].1).unwrap();
        envelope["sender_id"] = "vault".into();
        envelope["message_id"] = uuid_like("a").into();
        add(&arena.world, "agent.stream:r0", &envelope.to_string());
    });
}

#[test]
fn the_checker_sees_a_reply_at_the_wrong_instance() {
    sees(&["the reply to"], |arena| {
        let (_, fields) = passing(&arena.world.redis, "agent.stream:s0:i0");
        add(&arena.world, "agent.stream:s1:i0", &fields[0].1);
    });
}

#[test]
fn the_checker_sees_a_second_reply() {
    sees(&["2 replies to"], |arena| {
        let (_, fields) = passing(&arena.world.redis, "agent.stream:s0:i0");
        let mut envelope: serde_json::Value = serde_json::from_str(&fields[0].1).unwrap();
        envelope["message_id"] = uuid_like("b").into();
        add(&arena.world, "agent.stream:s0:i0", &envelope.to_string());
    });
}

#[test]
fn the_checker_sees_a_delivery_after_the_acknowledgement() {
    sees(&["after its acknowledgement"], |arena| {
        let envelope = acknowledged_at_once(&arena.world);
        let then = Instant::now() + ACK_SLACK + Duration::from_millis(300);
        until("long after", || Instant::now() > then);
        add(&arena.world, "agent.stream:r0", &envelope);
    });
}

#[test]
fn the_checker_sees_too_many_attempts() {
    sees(&["delivered 31 times"], |arena| {
        // The servers believe that more is allowed than the checker does.
        arena.world.set_settings(&SETTINGS.replace("max_attempts: 20", "max_attempts: 1000"));
        arena.rewrite_configs();
        for server in &mut arena.servers {
            server.kill();
        }
        arena.revive();
        let (id, _) = waiting(arena, "r0");
        let redis = &arena.world.redis;
        let _: redis::Value =
            redis.query(&["XREADGROUP", "GROUP", "agents", "r0-gone", "STREAMS", "agent.stream:r0", ">"]);
        let _: redis::Value = redis.query(&[
            "XCLAIM",
            "agent.stream:r0",
            "agents",
            "r0-gone",
            "0",
            &id,
            "RETRYCOUNT",
            "30",
            "FORCE",
            "JUSTID",
        ]);
        arena.place.open();
    });
}

#[test]
fn the_checker_sees_a_decision_that_is_not_on_record() {
    sees(&["accepted, and not on record", "the trail is damaged"], |arena| {
        let redis = &arena.world.redis;
        let (_, fields) = waiting(arena, "r0");
        let (lane, block) = arena.world.block_of(&message_id(&fields[0].1));
        let _: i64 = redis.query(&["XDEL", &lane, &block]);
        arena.place.open();
    });
}

#[test]
fn the_checker_finds_what_is_unbroken_unbroken() {
    let mut arena = Arena::new(2);
    let history = arena.run(|arena| {
        until("messages flow", || arena.history.accepted_count() > ENOUGH);
    });
    assert_eq!(checker::check(&history, &arena.world), []);
}

/// A message id that no server has given.
fn uuid_like(digit: &str) -> String {
    format!("00000000-0000-7000-8000-{}", digit.repeat(12))
}
