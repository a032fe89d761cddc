//! Room: who takes much of it is refused, the others are not, and what is refused for want of it is on record.

use std::time::Duration;

use mas::protocol::submission::Call;
use mas::protocol::{SendRequest, Submission, submission_result};

use super::raw::{DATA, END_STREAM, Passport, Raw, frame, opened};
use crate::support::{Session, World, pass, until};

/// Submissions that one session may have under way.
const WINDOW: u64 = 1024;
const MB: usize = 1_000_000;
/// Two who may send to a third, and one to a fourth.
const AGENTS: &str = "\
permissions:
  - {type: allow_broadcast, sender: alpha, receivers: [beta, gamma]}
  - {type: allow_broadcast, sender: delta, receivers: [beta]}
agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: gamma}, {agent_id: delta}]
";

fn data(bytes: usize) -> String {
    format!("{{\"x\":\"{}\"}}", "x".repeat(bytes))
}

fn flood(session: &Session, target: &str) {
    let send = |n| {
        let request =
            SendRequest { target_id: target.into(), data_json: "{}".into(), ..SendRequest::default() };
        Submission { reference: n, call: Some(Call::Send(request)), ..Submission::default() }
    };
    session.submit((0..WINDOW).map(send).collect());
}

/// A call of GetState, whole.
fn asked(stream: u32) -> Vec<u8> {
    [opened(stream, "GetState"), frame(DATA, END_STREAM, stream, &[0; 5])].concat()
}

fn detail(session: &Session) -> String {
    match session.result().outcome.unwrap() {
        submission_result::Outcome::Failure(failure) => failure.detail,
        _ => String::new(),
    }
}

/// How often calls of that agent were refused for that reason without being decided, as the record has it.
fn counted(world: &World, agent: &str, reason: &str) -> u64 {
    let of = |r: &mas::audit::Record| {
        r.action.as_str() == "calls_refused" && r.target == agent && r.reason == reason
    };
    let counts = world.records().into_iter().filter(of);
    counts.map(|r| r.rule.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn who_floods_a_worker_hears_overloaded_and_the_others_do_not() {
    let world = World::with(AGENTS, "");
    let gate = world.gate("gate");
    let server = world.server_behind(&gate);
    let (alpha, delta) = (world.client(&server, "alpha"), world.client(&server, "delta"));
    let _d = delta.session("d");
    let flooding: Vec<Session> = (0..12).map(|n| alpha.session(&format!("a{n}"))).collect();
    // No round ends while all that comes waits.
    gate.hold(&["XADD", "agent.stream:beta"]);
    flooding.iter().for_each(|session| flood(session, "beta"));
    until("the flood hears of it", || world.logged().contains("overloaded"));
    std::thread::scope(|scope| {
        // To the same worker.
        let sent = scope.spawn(|| delta.send("d", "beta", "{\"n\":1}"));
        pass(Duration::from_millis(300));
        assert!(!sent.is_finished(), "it waits for Redis, and is not refused");
        gate.open();
        sent.join().unwrap().unwrap();
    });
    let mut refused = 0;
    for session in &flooding {
        for _ in 0..WINDOW {
            match detail(session).as_str() {
                "" => {}
                "overloaded" => refused += 1,
                other => panic!("{other}"),
            }
        }
    }
    assert!((3_000..=4_096).contains(&refused), "{refused}");
    until("all are counted", || counted(&world, "alpha", "overloaded") == refused);
    world.assert_intact();
}

#[test]
fn an_inbox_is_bounded_in_bytes() {
    let world = World::with(World::PAIR, "limits: {max_queue_bytes: 3500000}\n");
    let mut server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let full = |alpha: &crate::support::Client| {
        alpha.send("a", "beta", &data(MB)).is_err_and(|refused| refused.details == "queue_full")
    };
    for _ in 0..3 {
        alpha.send("a", "beta", &data(MB)).unwrap();
    }
    assert!(full(&alpha));
    alpha.send("a", "beta", &data(1000)).unwrap();
    let recorded = world.records().iter().filter(|r| r.reason == "queue_full").count();
    assert_eq!(recorded, 1);
    // After a restart it is as full as before.
    server.stop();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    assert!(full(&alpha));
    let b = beta.session("b");
    for _ in 0..4 {
        b.take();
    }
    until("there is room again", || alpha.send("a", "beta", &data(MB)).is_ok());
}

#[test]
fn replies_that_nobody_takes_are_bounded_too() {
    let world = World::with(World::PAIR, "limits: {max_queue_bytes: 3500000}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let mut ended = Vec::new();
    for _ in 0..8 {
        let asked = alpha.request("a", "beta", "{}", 60_000).unwrap();
        b.take();
        ended.push(beta.reply("b", &asked, &data(MB)));
    }
    let kept = ended.iter().filter(|reply| reply.is_ok()).count();
    assert_eq!(kept, 3, "{ended:?}");
    assert!(
        ended.iter().flat_map(|reply| reply.as_ref().err()).all(|refused| refused.details == "queue_full")
    );
    for _ in 0..3 {
        a.take();
    }
}

#[test]
fn replies_that_are_taken_elsewhere_or_die_leave_room() {
    let world = World::with(
        World::PAIR,
        "limits: {max_queue_bytes: 2500000}\ndelivery: {reclaim_idle_ms: 100, max_attempts: 1}\n",
    );
    let (here, there) = (world.server(), world.server());
    let (alpha, beta) = (world.client(&there, "alpha"), world.client(&here, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let ask = || {
        let asked = alpha.request("a", "beta", "{}", 60_000).unwrap();
        b.take();
        asked
    };
    // Through one server, to an instance on the other one.
    for n in 0..8 {
        let reply = beta.reply("b", &ask(), &data(MB));
        assert!(reply.is_ok(), "{n}: {reply:?}");
        a.take();
    }
    // To an instance that is gone, until there is no room; then they are dead letters.
    let asked: Vec<String> = (0..6).map(|_| ask()).collect();
    drop(a);
    until("it is seen to be gone", || alpha.send("a", "beta", "{}").is_err());
    let replies = asked.iter().map(|asked| beta.reply("b", asked, &data(MB)).is_ok()).filter(|ok| *ok);
    assert!((2..=6).contains(&replies.count()));
    until("they are dead letters", || world.redis.len("dlq:messages") >= 2);
    let other = alpha.session("other");
    for n in 0..3 {
        let asked = alpha.request("other", "beta", "{}", 60_000).unwrap();
        b.take();
        let reply = beta.reply("b", &asked, &data(MB));
        assert!(reply.is_ok(), "{n}: {reply:?}");
        other.take();
        until("it has been acknowledged", || world.redis.len("agent.stream:alpha:other") == 0);
    }
    world.assert_intact();
}

#[test]
fn an_estimate_that_is_too_high_heals() {
    let world = World::with(World::PAIR, "limits: {max_queue_bytes: 3500000}\n");
    let (here, there) = (world.server(), world.server());
    let (alpha, other) = (world.client(&here, "alpha"), world.client(&there, "alpha"));
    let (_a, _o) = (alpha.session("a"), other.session("o"));
    // One large message through one server, many small ones through the other: each knows the sizes of its own.
    alpha.send("a", "beta", &data(MB)).unwrap();
    for _ in 0..300 {
        other.send("o", "beta", "{}").unwrap();
    }
    until("there is room", || alpha.send("a", "beta", &data(MB)).is_ok());
    until("and it is full in the end", || alpha.send("a", "beta", &data(MB)).is_err());
}

#[test]
fn messages_to_somebody_absent_do_not_fill_redis() {
    let world = World::with(AGENTS, "");
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", "50mb"]);
    let server = world.server();
    let (alpha, gamma) = (world.client(&server, "alpha"), world.client(&server, "gamma"));
    let (_a, g) = (alpha.session("a"), gamma.session("g"));
    let sent: Vec<_> = (0..44).map(|_| alpha.send("a", "beta", &data(MB))).collect();
    let kept = sent.iter().filter(|sent| sent.is_ok()).count();
    assert!((10..25).contains(&kept), "{kept}");
    assert!(sent.iter().flat_map(|sent| sent.as_ref().err()).all(|refused| refused.details == "queue_full"));
    alpha.send("a", "gamma", "{\"n\":1}").unwrap();
    assert_eq!(g.take().data()["n"], 1);
    let recorded = world.records().iter().filter(|r| r.reason == "queue_full").count();
    assert_eq!(recorded, 44 - kept);
    world.assert_intact();
}

#[test]
fn what_is_refused_while_redis_is_full_is_counted_on_record() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", "1"]);
    until("the server has seen it", || {
        alpha.send("a", "beta", "{}").is_err_and(|refused| refused.details == "storage_full")
    });
    let refused = (0..100).filter(|_| alpha.send("a", "beta", "{}").is_err()).count() as u64;
    assert_eq!(refused, 100);
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", "0"]);
    until("messages are admitted again", || alpha.send("a", "beta", "{}").is_ok());
    until("they are on record", || counted(&world, "alpha", "storage_full") > refused);
    world.assert_intact();
}

#[test]
fn a_large_state_is_not_read_for_each_change() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let large = "x".repeat(900_000);
    alpha.update_state(&[("large", &large), ("n", "0")]).unwrap();
    let read = || -> u64 {
        let info: String = world.redis.query(&["INFO", "commandstats"]);
        let line = info.lines().find(|line| line.starts_with("cmdstat_hgetall:"));
        let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next()?.parse().ok());
        calls.unwrap_or(0)
    };
    let before = read();
    for n in 0..200 {
        alpha.update_state(&[("n", &n.to_string())]).unwrap();
    }
    assert!(read() - before < 100, "{}", read() - before);
    // Somebody else changes it: then it is read again, and nothing is done with it.
    let _: i64 = world.redis.query(&["DEL", "agent.state:alpha"]);
    assert_eq!(alpha.update_state(&[("n", "1")]).unwrap_err().details, "state_foreign");
    alpha.reset_state().unwrap();
    alpha.update_state(&[("large", &large), ("other", "1")]).unwrap();
    assert_eq!(alpha.state().unwrap().len(), 2);
    alpha.update_state(&[("large", ""), ("x", &"x".repeat(1_000_000))]).unwrap();
    assert_eq!(alpha.update_state(&[("large", &large)]).unwrap_err().details, "state_too_large");
}

#[test]
fn large_answers_that_are_asked_for_without_end_take_bounded_memory() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    alpha.update_state(&[("large", &"x".repeat(1_000_000))]).unwrap();
    let b = beta.session("b");
    let before = server.rss_kib();
    // Calls whose answers nobody reads: no window is given for them.
    let passport = Passport::of(&world, "alpha");
    let mut deaf: Vec<Raw> = (0..6).map(|_| Raw::greeted(&server, &passport).unwrap()).collect();
    for raw in &mut deaf {
        for n in 0..80 {
            raw.say(&asked(2 * n + 1)).unwrap();
        }
    }
    let mut most = 0;
    for n in 0..100 {
        most = most.max(server.rss_kib());
        beta.send("b", "beta", "{}").unwrap_err();
        beta.update_state(&[("n", &n.to_string())]).unwrap();
        pass(Duration::from_millis(20));
    }
    drop(b);
    assert!(most < before + 100 * 1024, "{before} KiB before, {most} KiB at most");
    until("some were refused", || counted(&world, "alpha", "overloaded") > 0);
    // Who reads them has them again.
    drop(deaf);
    until("states are read again", || alpha.state().is_ok_and(|state| state.len() == 1));
}
