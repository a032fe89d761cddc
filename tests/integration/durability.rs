//! What Redis must be able to give, and what callers are told when it does not: durability, and memory.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Redis, World, free_port, until};

/// Between where admission closes and where Redis refuses, with room to spare for a second of messages.
const MAX_MEMORY: usize = 100 * 1024 * 1024;

/// What a server that does not start says; it must be the configuration's fault.
fn refused(world: &World) -> String {
    let output = world.mas_server(&[]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "no ready line");
    String::from_utf8(output.stderr).unwrap()
}

/// A world whose Redis listens on a port, and a replica of it.
fn with_replica() -> (World, Redis) {
    let mut world = World::new();
    let port = free_port().to_string();
    world.redis.restart_with(&["--port", &port, "--repl-diskless-sync-delay", "0"]);
    let replica = Redis::start_with(&world.path().join("replica"), &["--replicaof", "127.0.0.1", &port]);
    until("the replica is in step", || {
        world.redis.query::<String>(&["INFO", "replication"]).contains("state=online")
    });
    let url = world.redis.url();
    world.set_redis(&format!(
        "url: '{url}', socket_timeout: 2, durability: {{mode: replicated, replicas: 1, timeout_ms: 500}}"
    ));
    (world, replica)
}

#[test]
fn what_redis_cannot_give_is_refused_at_start() {
    let mut world = World::new();
    let url = world.redis.url();
    world.set_redis(&format!("url: '{url}', durability: {{mode: replicated, replicas: 1}}"));
    assert!(refused(&world).contains("asks for 1 replicas"), "no replica");
    world.set_redis(&format!("url: '{url}', durability: {{mode: fsynced}}"));
    let version: String = world.redis.query(&["INFO", "server"]);
    let has_waitaof = !version.contains("redis_version:7.0") && !version.contains("redis_version:6");
    if !has_waitaof {
        assert!(refused(&world).contains("appendfsync always"), "no WAITAOF");
    }
    let _: String = world.redis.query(&["CONFIG", "SET", "appendfsync", "always"]);
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    assert_eq!(b.take().data()["n"], 1);
    drop(server);
    let _: String = world.redis.query(&["CONFIG", "SET", "appendonly", "no"]);
    assert!(refused(&world).contains("appendonly yes"), "no append-only file");
    world.set_redis(&format!("url: '{url}'"));
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    drop(world.server());
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", "100mb"]);
    assert!(refused(&world).contains("maxmemory-policy noeviction"), "it would evict");
}

#[test]
fn what_no_replica_has_in_time_is_unknown_and_delivered_when_one_has_it() {
    let (world, replica) = with_replica();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    // A replica says what it has once a second, until it is asked for the first time.
    until("commits reach the replica", || alpha.update_state(&[("a", "0")]).is_ok());
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    assert_eq!(b.take().data()["n"], 1);
    replica.signal(Signal::SIGSTOP);
    for n in [2, 3] {
        let refusal = alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap_err();
        assert_eq!((refusal.code.as_str(), refusal.details.as_str()), ("UNAVAILABLE", "commit_unknown"));
    }
    assert!(b.next_within(Duration::from_millis(300)).is_none(), "nobody gets what could be lost yet");
    assert_eq!(alpha.update_state(&[("a", "1")]).unwrap_err().details, "commit_unknown");
    assert_eq!(alpha.state().unwrap()["a"], "1");
    replica.signal(Signal::SIGCONT);
    let mut late = [b.take(), b.take()].map(|delivered| delivered.data()["n"].as_i64().unwrap());
    late.sort_unstable();
    assert_eq!(late, [2, 3]);
    until("commits are accepted again", || alpha.update_state(&[("a", "2")]).is_ok());
    alpha.send("a", "beta", "{\"n\":4}").unwrap();
    assert_eq!(b.take().data()["n"], 4);
    let logged = world.logged();
    // Once per worker and change, not per message.
    let count = |text: &str| logged.matches(text).count();
    assert!((1..=3).contains(&count("not as durable as configured")), "{logged}");
    assert!(count("as durable as configured again") <= 3, "{logged}");
    world.assert_intact();
}

#[test]
fn admission_stops_before_memory_is_full_and_acks_go_on() {
    let world = World::new();
    let filler = |name: &str, bytes: usize| {
        // A long command would count too.
        let _: i64 = world.redis.query(&["SETRANGE", name, &bytes.to_string(), "x"]);
    };
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", &MAX_MEMORY.to_string()]);
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"n\":0}").unwrap();
    let held = b.next();
    filler("filler:1", MAX_MEMORY / 2);
    filler("filler:2", MAX_MEMORY / 100 * 38);
    let mut sent = 0;
    until("admission is closed", || {
        let Err(refusal) = alpha.send("a", "beta", "{}") else {
            sent += 1;
            return false;
        };
        assert_eq!((refusal.code.as_str(), refusal.details.as_str()), ("RESOURCE_EXHAUSTED", "storage_full"));
        true
    });
    assert_eq!(alpha.update_state(&[("a", "1")]).unwrap_err().details, "storage_full");
    assert!(alpha.state().unwrap().is_empty(), "what reads goes on");
    b.ack(&held.id);
    for _ in 0..sent {
        b.take();
    }
    until("acks drain what is there", || world.redis.len("agent.stream:beta") == 0);
    let _: i64 = world.redis.query(&["DEL", "filler:1"]);
    until("admission is open again", || alpha.send("a", "beta", "{\"n\":1}").is_ok());
    assert_eq!(b.next_within(Duration::from_secs(5)).unwrap().data()["n"], 1);
    let logged = world.logged();
    assert_eq!((logged.matches("nearly full").count(), logged.matches("has room again").count()), (1, 1));
    world.assert_intact();
}
