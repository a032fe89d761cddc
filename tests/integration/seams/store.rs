//! Redis hangs, or refuses, for a while: callers are told at once, sessions and stops are seen to meanwhile, and nothing
//! burns CPU over it.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::send_numbers;
use crate::support::{Ended, Server, Session, World, pass, until, within};

/// Of a worker that spins, in two seconds: 200 ticks.
const FEW_TICKS: u64 = 40;
const SPAN: Duration = Duration::from_secs(2);
/// `socket_timeout` where Redis hangs: long beside what is promised meanwhile.
const HANGS: &str = "4";
/// Longer than a server waits at first until it connects again.
const RETRIED: Duration = Duration::from_millis(200);
/// A deny-list is looked at twice a second, open sessions once.
const SEEN_TO: Duration = Duration::from_millis(2500);

/// A world whose Redis hangs and whose server has found out with a call that timed out.
fn with_a_hanging_redis(settings: &str, found_out: impl FnOnce(&World, Server, [Session; 2])) {
    let world = World::with(World::PAIR, settings);
    let server = world.server_with(1, &format!("url: '{}', socket_timeout: {HANGS}", world.redis.url()));
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    world.redis.halt();
    let refused = alpha.send("a", "beta", "{}").unwrap_err();
    assert_eq!(refused.code, "UNAVAILABLE");
    // By now it tries to connect again.
    pass(RETRIED);
    found_out(&world, server, [a, b]);
    world.redis.proceed();
}

#[test]
fn calls_are_refused_at_once_while_redis_hangs() {
    with_a_hanging_redis("", |world, server, _sessions| {
        let alpha = world.client(&server, "alpha");
        for _ in 0..4 {
            pass(RETRIED);
            let started = Instant::now();
            let refused = alpha.send("a", "beta", "{}").unwrap_err();
            assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
            assert_eq!(refused.details, "storage_unavailable");
        }
    });
}

#[test]
fn a_revoked_session_ends_while_redis_hangs() {
    with_a_hanging_redis("tls_revoked_path: certs/revoked.json\n", |world, _server, [a, _b]| {
        let revoked = world.mas(&["certs", "revoke", "--dir", "certs", "--agent", "alpha"]);
        assert_eq!(revoked.status.code(), Some(0), "{revoked:?}");
        ends_in_time(&a, &Ended::refused("UNAUTHENTICATED", "certificate_revoked"));
    });
}

#[test]
fn a_stop_is_heard_while_redis_hangs() {
    with_a_hanging_redis("", |_, server, [a, b]| {
        server.signal(Signal::SIGTERM);
        for session in [a, b] {
            ends_in_time(&session, &Ended::refused("UNAVAILABLE", "server_stopping"));
        }
    });
}

#[track_caller]
fn ends_in_time(session: &Session, how: &Ended) {
    match session.try_next(SEEN_TO) {
        Some(Err(ended)) => assert_eq!(ended, *how),
        Some(Ok(delivered)) => panic!("delivered: {delivered:?}"),
        None => panic!("the session is still open after {SEEN_TO:?}"),
    }
}

/// From now on Redis refuses every write.
fn refuse_transactions(world: &World) {
    let _: String = world.redis.query(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
}

#[test]
fn a_redis_that_refuses_transactions_costs_no_cpu_however_much_is_to_be_recorded() {
    /// More than may be off the record at once.
    const MESSAGES: usize = 120_000;
    let world =
        World::with(World::PAIR, "delivery: {max_in_flight: 10000}\nlimits: {max_queue_len: 1000000}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    alpha.send("a", "beta", "{}").unwrap();
    let envelope = world.redis.entries("agent.stream:beta")[0].1[0].1.clone();
    super::neighbours::fill(&world, &envelope, MESSAGES);
    let b = beta.stream();
    b.hello_batched("b");
    let first = b.next();
    refuse_transactions(&world);
    b.ack(&first.id);
    // Takes all that it gets, until nothing comes any more.
    let mut taken = 1;
    let mut ids = Vec::new();
    while let Some(delivered) = b.next_within(Duration::from_millis(700)) {
        taken += 1;
        ids.push(delivered.id);
        if ids.len() == 500 {
            b.ack_all(std::mem::take(&mut ids));
        }
    }
    b.ack_all(ids);
    let used = server.cpu_ticks_during(SPAN);
    assert!(used <= FEW_TICKS, "{used} ticks in {SPAN:?} after {taken} deliveries");
    let _: String = world.redis.query(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    until("it goes on", || b.next_within(Duration::from_millis(100)).is_some());
}

#[test]
fn a_stop_ends_in_time_and_without_burning_cpu_while_redis_refuses_transactions() {
    let world = World::new();
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    send_numbers(&alpha, "a", "beta", 0..4);
    let held: Vec<_> = (0..4).map(|_| b.next()).collect();
    refuse_transactions(&world);
    b.nack(&held[0].id, "later", true);
    b.nack(&held[1].id, "never", false);
    b.ack(&held[2].id);
    server.signal(Signal::SIGTERM);
    let asked = Instant::now();
    let used = server.cpu_ticks_during(SPAN);
    // Its patience is five seconds; what it does around that takes some more.
    within(Duration::from_secs(9).saturating_sub(asked.elapsed()), "it has ended", || server.has_ended());
    assert!(used <= FEW_TICKS, "{used} ticks in {SPAN:?} of a stop");
}

#[test]
fn notes_that_wait_for_redis_cost_no_cpu() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    send_numbers(&alpha, "a", "beta", 0..50);
    let held: Vec<_> = (0..50).map(|_| b.next()).collect();
    refuse_transactions(&world);
    for (n, delivered) in held.iter().enumerate() {
        match n % 3 {
            0 => b.ack(&delivered.id),
            1 => b.nack(&delivered.id, "later", true),
            _ => b.nack(&delivered.id, "never", false),
        }
    }
    // What it said before is heard before its end.
    b.half_close();
    let used = server.cpu_ticks_during(SPAN);
    assert!(used <= FEW_TICKS, "{used} ticks in {SPAN:?}");
    let _: String = world.redis.query(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    until("all of it is done", || world.redis.len("dlq:messages") == 16);
    world.assert_intact();
}

#[test]
fn connections_that_carry_nothing_leave_no_lane() {
    const CUTS: usize = 5;
    let world = World::new();
    let server = world.server();
    let lanes = || world.redis.query::<usize>(&["HLEN", "audit:lanes"]);
    let alpha = world.client(&server, "alpha");
    drop(alpha.session("a"));
    until("its session is closed", || {
        world.records().iter().any(|record| record.action == mas::audit::Action::SessionClose)
    });
    let before = lanes();
    for n in 0..CUTS {
        let _: usize = world.redis.query(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        // Noticed by the next that needs it, which is refused.
        assert!(alpha.send("a", "beta", "{}").is_err());
        let again = || world.logged().matches("connected to Redis again").count();
        until("the worker is connected again", || again() > n);
    }
    assert_eq!(lanes(), before);
    // What comes then is on record, and so is where the lane before it ended.
    let _a = alpha.session("a");
    assert!(lanes() > before);
    world.assert_intact();
}
