//! Redis over TLS, and behind Sentinels: a primary that dies, and a replica that takes its place.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Process, Redis, World, free_port, until};

#[test]
fn redis_over_tls_wants_the_right_certificates() {
    let mut world = World::new();
    drop(world.certificate("alpha"));
    let certs = world.certs();
    let file = |name: &str| certs.join(name).display().to_string();
    let port = free_port().to_string();
    world.redis.restart_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        &file("ca.pem"),
        "--tls-auth-clients",
        "yes",
    ]);
    let tls = "ca_path: certs/ca.pem, cert_path: certs/agents/alpha.pem, key_path: certs/agents/alpha.key";
    let url = format!("url: 'rediss://127.0.0.1:{port}', socket_timeout: 2");
    world.set_redis(&format!("{url}, tls: {{{tls}}}"));
    let (one, two) = (world.server(), world.server());
    let (alpha, beta) = (world.client(&one, "alpha"), world.client(&two, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    // Also what servers tell each other goes over TLS.
    for n in 0..10 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
        assert_eq!(b.take().data()["n"], n);
    }
    world.assert_intact();
    // Without a client certificate, or with an authority that did not issue Redis' own, nothing comes about.
    for tls in
        ["ca_path: certs/ca.pem", "cert_path: certs/agents/alpha.pem, key_path: certs/agents/alpha.key"]
    {
        world.set_redis(&format!("{url}, tls: {{{tls}}}"));
        assert_eq!(world.mas(&["audit", "verify"]).status.code(), Some(1), "{tls}");
    }
}

/// A Sentinel that watches the Redis on `port` under the name `primary`.
pub fn sentinel(world: &World, port: &str, down_after_ms: u32) -> (Process, u16) {
    let own = free_port();
    let path = world.path().join("sentinel.conf");
    let config = format!(
        "port {own}\nbind 127.0.0.1\ndir {}\nlogfile sentinel.log\nsentinel monitor primary 127.0.0.1 {port} 1\n\
         sentinel down-after-milliseconds primary {down_after_ms}\nsentinel failover-timeout primary 3000\n",
        world.path().display()
    );
    std::fs::write(&path, config).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(&path).arg("--sentinel").stdout(Stdio::null()).stderr(Stdio::null());
    (Process::start(&mut command), own)
}

#[test]
fn a_failover_loses_nothing_that_was_accepted() {
    let mut world = World::new();
    let port = free_port().to_string();
    let quick = ["--repl-diskless-sync-delay", "0"];
    world.redis.restart_with(&[&["--port", &port][..], &quick].concat());
    let replicas = ["one", "two"].map(|name| {
        let own = free_port().to_string();
        let options = [&["--port", &own, "--replicaof", "127.0.0.1", &port][..], &quick].concat();
        Redis::start_with(&world.path().join(name), &options)
    });
    until("both replicas are in step", || {
        world.redis.query::<String>(&["INFO", "replication"]).matches("state=online").count() == 2
    });
    let (_sentinel, sentinel_port) = sentinel(&world, &port, 300);
    let known = || -> redis::RedisResult<Vec<Vec<String>>> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{sentinel_port}"))?;
        redis::cmd("SENTINEL").arg("replicas").arg("primary").query(&mut client.get_connection()?)
    };
    until("the Sentinel knows them", || known().is_ok_and(|replicas| replicas.len() == 2));
    world.set_redis(&format!(
        "url: 'redis://unused', socket_timeout: 2, durability: {{mode: replicated, replicas: 1, timeout_ms: 500}}, \
         sentinel: {{master: primary, addrs: ['127.0.0.1:1', '127.0.0.1:{sentinel_port}']}}"
    ));
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let mut accepted = BTreeSet::new();
    let mut n = 0_i64;
    let mut send = |accepted: &mut BTreeSet<i64>| {
        n += 1;
        let sent = alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).is_ok();
        if sent {
            accepted.insert(n);
        }
        sent
    };
    for _ in 0..100 {
        assert!(send(&mut accepted));
    }
    world.redis.kill();
    until("the server goes on at the promoted replica", || send(&mut accepted));
    for _ in 0..50 {
        send(&mut accepted);
    }
    let mut seen = BTreeSet::new();
    until("everything accepted has arrived", || {
        while let Some(delivered) = b.next_within(Duration::from_millis(5)) {
            b.ack(&delivered.id);
            seen.insert(delivered.data()["n"].as_i64().unwrap());
        }
        accepted.is_subset(&seen)
    });
    let roles = replicas.each_ref().map(|redis| redis.query::<String>(&["INFO", "replication"]));
    assert_eq!(roles.iter().filter(|info| info.contains("role:master")).count(), 1);
    world.assert_intact();
}

/// The rights of a Redis user as the example configuration names them.
fn named_rights() -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("mas.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let words = text.lines().map(|line| line.trim().trim_start_matches('#').trim());
    let is_right = |line: &&str| ["~", "+"].iter().any(|start| line.starts_with(start));
    words.filter(is_right).flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn a_redis_user_needs_the_rights_that_the_example_names() {
    let mut world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 300, max_attempts: 1}\n");
    let rights = named_rights();
    let mut words = vec!["ACL", "SETUSER", "mas", "on", ">secret"];
    words.extend(rights.iter().map(String::as_str));
    let _: String = world.redis.query(&words);
    let socket = world.redis.socket();
    world.set_redis(&format!("url: 'unix://{}?user=mas&pass=secret', socket_timeout: 2", socket.display()));
    // Two servers, so that they tell and look at each other; everything that agents do.
    let (mut killed, server) = (world.server(), world.server());
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let victim = world.client(&killed, "beta").session("victim");
    let asked = alpha.request("a", "beta", "{}", 10_000).unwrap();
    let mut taker = &b;
    let asking = match b.next_within(Duration::from_secs(1)) {
        Some(delivered) => delivered,
        None => {
            taker = &victim;
            victim.next()
        }
    };
    taker.ack(&asking.id);
    beta.reply("b", &asked, "{\"ok\":true}").unwrap();
    a.take();
    alpha.update_state(&[("k", "v")]).unwrap();
    assert_eq!(alpha.state().unwrap().len(), 1);
    alpha.reset_state().unwrap();
    assert!(!alpha.discover(&[]).unwrap().is_empty());
    killed.kill();
    drop(victim);
    until("it is missed", || world.redis.query::<usize>(&["HLEN", "mas.servers"]) == 1);
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    let refused = b.next();
    b.nack(&refused.id, "never", false);
    until("it is a dead letter", || world.redis.len("dlq:messages") == 1);
    // And what operators do.
    let redriven = world.mas(&["dlq", "redrive", "--all"]);
    assert_eq!(redriven.status.code(), Some(0), "{redriven:?}");
    b.take();
    drop((a, b, server));
    world.assert_intact();
    let denied: Vec<redis::Value> = world.redis.query(&["ACL", "LOG"]);
    assert!(denied.is_empty(), "{denied:?}");
}

#[test]
fn a_primary_that_the_sentinels_gave_up_is_left_although_it_lives_on() {
    let mut world = World::new();
    let port = free_port().to_string();
    let quick = ["--repl-diskless-sync-delay", "0"];
    world.redis.restart_with(&[&["--port", &port][..], &quick].concat());
    // The server has a user of its own: what the Sentinel may do there can be taken away alone.
    let _: String = world.redis.query(&["ACL", "SETUSER", "mas", "on", ">secret", "~*", "&*", "+@all"]);
    let own = free_port().to_string();
    let options = [&["--port", &own, "--replicaof", "127.0.0.1", &port][..], &quick].concat();
    let replica = Redis::start_with(&world.path().join("one"), &options);
    let _: String = replica.query(&["ACL", "SETUSER", "mas", "on", ">secret", "~*", "&*", "+@all"]);
    until("the replica is in step", || {
        world.redis.query::<String>(&["INFO", "replication"]).matches("state=online").count() == 1
    });
    let (_sentinel, sentinel_port) = sentinel(&world, &port, 300);
    let ask = |words: &[&str]| -> redis::RedisResult<redis::Value> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{sentinel_port}"))?;
        redis::cmd("SENTINEL").arg(words).query(&mut client.get_connection()?)
    };
    until(
        "the Sentinel knows it",
        || matches!(ask(&["replicas", "primary"]), Ok(redis::Value::Array(known)) if known.len() == 1),
    );
    world.set_redis(&format!(
        "url: 'redis://mas:secret@unused', socket_timeout: 2, \
         sentinel: {{master: primary, addrs: ['127.0.0.1:{sentinel_port}']}}"
    ));
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"n\":0}").unwrap();
    assert_eq!(b.take().data()["n"], 0);
    // For the Sentinel, and for nobody else, the primary is dead; it stays a primary.
    let _: String =
        world.redis.query(&["ACL", "SETUSER", "default", "-ping", "-info", "-replicaof", "-slaveof"]);
    let role = || replica.try_read::<String>(&["INFO", "replication"]);
    until("the replica is promoted", || role().is_some_and(|role| role.contains("role:master")));
    // What it takes from now on is there, held by a session that connects again.
    let there = |n: u64| {
        let words = ["XRANGE", "agent.stream:beta", "-", "+"];
        let entries: Vec<(String, Vec<(String, String)>)> = replica.try_read(&words).unwrap_or_default();
        entries.iter().any(|(_, fields)| fields[0].1.contains(&format!("{{\"n\":{n}}}")))
    };
    let mut n = 0;
    until("a message that is accepted is in the new primary", || {
        n += 1;
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).is_ok() && there(n)
    });
    // Not the workers alone: whoever archives, signs or listens there works on what is lost. A connection that nobody uses
    // may stay.
    let used = |line: &&str| {
        let is = |word: &str| line.split(' ').any(|found| found == word);
        let idle_s = line.split(' ').find_map(|word| word.strip_prefix("idle=")).unwrap();
        is("user=mas") && (!is("sub=0") || idle_s.parse::<u64>().unwrap() < 3)
    };
    until("nobody of the server works at the old one", || {
        let clients: String = world.redis.query(&["CLIENT", "LIST"]);
        !clients.lines().any(|line| used(&line))
    });
}
