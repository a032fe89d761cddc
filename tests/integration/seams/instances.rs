//! Who has an instance, where the server that is named has gone or has only half begun.

use std::time::Duration;

use super::{instance_entry, send_numbers};
use crate::support::{World, until, within};

/// What a promise allows beyond `reclaim_idle_ms`.
const SLACK: Duration = Duration::from_secs(3);

#[test]
fn what_an_instance_of_a_forgotten_server_held_is_delivered() {
    let world = World::new();
    // A server's end of which nobody has heard: killed, out of the registry, and the one that saw to it died
    // before it took note of the instance.
    let mut forgotten = world.server();
    let (alpha, beta) = (world.client(&forgotten, "alpha"), world.client(&forgotten, "beta"));
    let (a, ghost) = (alpha.session("a"), beta.session("ghost"));
    send_numbers(&alpha, "a", "beta", 0..3);
    for _ in 0..3 {
        ghost.next();
    }
    let entry = instance_entry(&world, "beta", "ghost").unwrap();
    let id = entry.strip_prefix("s:").expect("the server's id");
    forgotten.kill();
    drop((a, ghost));
    let _: u64 = world.redis.query(&["HDEL", "mas.servers", id]);
    let _: u64 = world.redis.query(&["DEL", &format!("mas.server:{id}")]);
    assert_eq!(world.redis.pending("agent.stream:beta").len(), 3);

    let _earlier = {
        // A server that knows nothing of it is there already, as in any cluster.
        let saved: Vec<String> = world.redis.query(&["HGETALL", "agent.instances:beta"]);
        let _: u64 = world.redis.query(&["DEL", "agent.instances:beta"]);
        let earlier = world.server();
        let fields: Vec<&str> = saved.iter().map(String::as_str).collect();
        let _: u64 = world.redis.query(&[&["HSET", "agent.instances:beta"], fields.as_slice()].concat());
        earlier
    };
    let server = world.server();
    let heir = world.client(&server, "beta").session("heir");
    for n in 0..3 {
        let delivered = heir.next_within(SLACK).unwrap_or_else(|| panic!("{n} of 3 were delivered"));
        heir.ack(&delivered.id);
    }
    let is_free = || instance_entry(&world, "beta", "ghost").is_none_or(|now| now != entry);
    within(SLACK, "the entry is replaced", is_free);
    until("nothing is left", || world.redis.len("agent.stream:beta") == 0);
}

#[test]
fn an_instance_whose_opening_was_lost_connects_elsewhere() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 30000}\n");
    let gate = world.gate("gate.sock");
    let (one, two) = (world.server_behind(&gate), world.server());
    let here = world.client(&one, "beta");
    gate.lose_answer(&["agent.instances:beta\r\n", "HSET\r\n", "EXEC\r\n"]);
    // Redis has carried it out; the client hears that nobody knows.
    let refused = here.try_session("b").err();
    gate.wait_lost();
    assert!(refused.is_some(), "it was let in");
    let there = world.client(&two, "beta");
    let mut moved = None;
    within(Duration::from_secs(5), "it is let in elsewhere", || {
        moved = there.try_session("b").ok();
        moved.is_some()
    });
    let alpha = world.client(&two, "alpha");
    let _a = alpha.session("a");
    send_numbers(&alpha, "a", "beta", 0..1);
    moved.unwrap().take();
}
