//! The server killed, stopped, started.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Ended, World, until};

#[test]
fn what_was_accepted_before_a_kill_is_delivered_after_it() {
    let world = World::new();
    let mut server = world.server();
    let addr = server.addr.clone();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for n in 0..20 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    // Five handled, five in the handler's hands, ten not looked at.
    let mut handled = BTreeSet::new();
    for _ in 0..5 {
        handled.insert(b.take().data()["n"].as_i64().unwrap());
    }
    for _ in 0..5 {
        b.next();
    }
    until("five are acknowledged", || world.redis.len("agent.stream:beta") == 15);
    server.kill();
    let server = world.server_on(&addr);
    let beta = world.client(&server, "beta");
    let b = beta.session("b");
    let mut again = BTreeSet::new();
    while again.len() < 15 {
        again.insert(b.take().data()["n"].as_i64().unwrap());
    }
    assert!(handled.is_disjoint(&again), "what was acknowledged does not come again");
    assert_eq!(handled.union(&again).count(), 20);
    world.assert_intact();
}

#[test]
fn another_instance_gets_what_an_instance_held_when_the_server_was_killed() {
    let world = World::new();
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b1"));
    let id = alpha.send("a", "beta", "{}").unwrap();
    b.next();
    server.kill();
    let server = world.server();
    let other = world.client(&server, "beta").session("b2");
    assert_eq!(other.take().message_id(), id);
}

#[test]
fn a_stop_ends_sessions_in_order_and_keeps_what_is_unacknowledged() {
    let world = World::new();
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let id = alpha.send("a", "beta", "{}").unwrap();
    b.next();
    server.stop();
    assert_eq!(b.end(), Ended::refused("UNAVAILABLE", "server_stopping"));
    let status: String = world.redis.query(&["HGET", "agent:beta", "status"]);
    assert_eq!(status, "INACTIVE");
    let records = world.records();
    assert!(records.iter().any(|r| r.action.as_str() == "session_close" && r.reason == "server_stopping"));
    assert_eq!(records.iter().filter(|r| r.action.as_str() == "lane_closed").count(), 2);
    world.assert_intact();
    let server = world.server();
    assert_eq!(world.client(&server, "beta").session("b").take().message_id(), id);
}

#[test]
fn killed_servers_leave_a_trail_that_verifies() {
    let world = World::new();
    for round in 0..5 {
        let mut server = world.server();
        let alpha = world.client(&server, "alpha");
        let _a = alpha.session("a");
        let accepted: Vec<String> = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                let mut accepted = Vec::new();
                while let Ok(id) = alpha.send("a", "beta", "{}") {
                    accepted.push(id);
                }
                accepted
            });
            let records = world.records().len();
            until("messages flow", || world.records().len() > records + 20 + round);
            server.kill();
            sender.join().unwrap()
        });
        world.assert_intact();
        let recorded: BTreeSet<String> =
            world.records().iter().filter_map(|r| r.message_id).map(|id| id.to_string()).collect();
        let missing: Vec<_> = accepted.iter().filter(|id| !recorded.contains(*id)).collect();
        assert!(missing.is_empty(), "acknowledged without a record: {missing:?}");
    }
}

#[test]
fn a_second_server_does_not_share_the_port() {
    let (world, other) = (World::new(), World::new());
    let server = world.server();
    let output = other.mas_server(&["--listen", &server.addr]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains(&server.addr), "{message}");
}

#[test]
fn an_idle_server_is_small_and_quiet() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{}").unwrap();
    b.take();
    assert!(server.rss_kib() < 30 * 1024, "{} KiB", server.rss_kib());
    // A worker that spins would use up the second: 100 ticks.
    let used = server.cpu_ticks_during(Duration::from_secs(1));
    assert!(used <= 10, "{used} ticks in a second of idleness");
}

#[test]
fn a_stop_ends_though_callers_do_not_pause() {
    let world = World::with(World::PAIR, "limits: {max_streams_per_connection: 1000}\n");
    let mut server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::SeqCst) {
                    let _ = alpha.send("a", "beta", "{}");
                }
            });
        }
        until("messages flow", || world.redis.len("agent.stream:beta") > 200);
        server.stop();
        over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    world.assert_intact();
    assert_eq!(world.records().iter().filter(|r| r.action.as_str() == "lane_closed").count(), 2);
}
