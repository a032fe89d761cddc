//! The life of a call.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use mas_agent::{AgentError, HandlerError};
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Number, agent, behaviours};
use crate::support::{PATIENCE, World, until};

/// Far less than any timeout of the library's own.
const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_calls_time_is_its_callers() {
    behaviours(["call.deadline"]);
    let world = World::new();
    let server = world.server();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    server.halt();
    let began = Instant::now();
    let asked = alpha.request("beta", "number", &Number { n: 1 }, Duration::from_millis(500));
    assert!(matches!(asked, Err(AgentError::Unknown { .. })), "{asked:?}");
    let sent = alpha.message("beta", "number", &Number { n: 1 }).timeout(Duration::from_millis(500)).send();
    assert!(matches!(sent, Err(AgentError::Unknown { .. })), "{sent:?}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    server.signal(Signal::SIGCONT);
    alpha.send("beta", "number", &Number { n: 2 }).unwrap();
}

#[test]
fn what_passes_is_waited_for() {
    behaviours(["call.passing"]);
    let world = World::new();
    let server = world.server();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    // No replica, so every write is refused.
    let _: String = world.redis.query(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    let refused =
        alpha.message("beta", "number", &Number { n: 1 }).timeout(Duration::from_millis(300)).send();
    assert_eq!(refused.unwrap_err().detail(), Some("storage_unavailable"));
    let sent = std::thread::scope(|scope| {
        let sending = scope.spawn(|| alpha.send("beta", "number", &Number { n: 2 }));
        std::thread::park_timeout(Duration::from_millis(200));
        assert!(!sending.is_finished());
        let _: String = world.redis.query(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
        sending.join().unwrap()
    });
    assert!(sent.is_ok(), "{sent:?}");
}

#[test]
fn a_message_whose_answer_was_lost_is_sent_once_and_nothing_else_is_repeated() {
    behaviours(["call.repeat", "call.unknown"]);
    let world = World::new();
    let gate = world.gate("gate");
    let server = world.server_behind(&gate);
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    gate.lose_answer(&["EXEC", "a-lost-one"]);
    let sent = alpha.send("beta", "number", &json!({"text": "a-lost-one"})).unwrap();
    let entries = world.redis.entries("agent.stream:beta");
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert!(entries[0].1[0].1.contains(&sent.message_id));
    gate.lose_answer(&["EXEC", "agent.state:alpha"]);
    let changed = alpha.update_state(&[("a", "1")]);
    assert!(
        matches!(&changed, Err(AgentError::Unknown { call, .. }) if call == "update state"),
        "{changed:?}"
    );
    // The library's own key is remembered for the call's time and a minute, and made by agents that want it.
    let key = world.redis.keys().into_iter().find(|key| key.starts_with("mas.idempotency:alpha:")).unwrap();
    let left_ms: u64 = world.redis.query(&["PTTL", &key]);
    assert!((60_000..=90_000).contains(&left_ms), "{left_ms}");
    let plain = agent(&world, &server, "alpha").repeat_sends(false).connect().unwrap();
    gate.lose_answer(&["EXEC", "another-lost-one"]);
    let lost = plain.send("beta", "number", &json!({"text": "another-lost-one"}));
    assert!(matches!(&lost, Err(AgentError::Unknown { call, .. }) if call.contains("send")), "{lost:?}");
    let keys = world.redis.keys().into_iter().filter(|key| key.starts_with("mas.idempotency:")).count();
    assert_eq!(keys, 1);
    // A refusal is never unknown.
    assert_eq!(alpha.send("gamma", "number", &Number { n: 1 }).unwrap_err().detail(), Some("not_authorized"));
}

#[test]
fn a_reply_to_a_request_that_was_given_up_is_taken_and_nothing_stays() {
    behaviours(["call.cancelled"]);
    let world = World::new();
    let server = world.server();
    let beta = agent(&world, &server, "beta")
        .on("slow", |message, _: Number| {
            std::thread::park_timeout(Duration::from_millis(300));
            message.reply("late", &json!({}))?;
            Ok(())
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").instance("a").connect().unwrap();
    let committed =
        alpha.commit().request("beta", "slow", &Number { n: 1 }, PATIENCE).unwrap().apply().unwrap();
    drop(committed);
    let given_up = alpha.request("beta", "slow", &Number { n: 2 }, Duration::from_millis(50));
    assert!(matches!(given_up, Err(AgentError::NoReply(_))), "{given_up:?}");
    until("all is handled", || world.redis.len("agent.stream:beta") == 0);
    until("its replies are taken", || world.redis.len("agent.stream:alpha:a") == 0);
    assert!(!world.redis.keys().contains(&"dlq:messages".to_owned()));
    drop((alpha, beta));
}

#[test]
fn errors_say_what_was_called_to_whom_and_where_it_is_on_record() {
    behaviours(["call.errors"]);
    let mut world = World::new();
    world.set_gateway("rate_limit: {per_minute: 2, per_hour: 1000}");
    let mut server = world.server();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    let error = alpha.send("gamma", "quote", &Number { n: 1 }).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("send \"quote\" to gamma"), "{text}");
    assert_eq!(text.matches("not_authorized").count(), 1, "{text}");
    let refusal = error.refusal().unwrap();
    let (id, receipt) = (refusal.message_id.clone().unwrap(), refusal.receipt.clone().unwrap());
    assert!(text.contains(&format!("mas audit show {id}")), "{text}");
    let silent = alpha.request("beta", "quote", &Number { n: 1 }, Duration::from_millis(100)).unwrap_err();
    let AgentError::NoReply(no_reply) = &silent else { panic!("{silent}") };
    let said = silent.to_string();
    for part in ["beta", "\"quote\"", &no_reply.message_id] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let limited = (0..3).find_map(|_| alpha.send("beta", "quote", &Number { n: 1 }).err()).unwrap();
    assert_eq!(limited.detail(), Some("rate_limited"));
    assert!(limited.refusal().unwrap().retry_after.is_some_and(|after| after > Duration::ZERO));
    server.stop();
    for (id, decision) in [(&id, "AUTHZ_DENIED"), (&no_reply.message_id, "ALLOWED")] {
        let records = world.records();
        let record = records.iter().find(|record| record.message_id.is_some_and(|on| on.to_string() == *id));
        assert_eq!(record.unwrap().decision.as_str(), decision);
    }
    let shown = world.mas(&["audit", "show", &format!("{}:{}", receipt.lane, receipt.sequence)]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&id), "{shown:?}");
}

#[test]
fn senders_are_told_what_was_found_in_their_payload() {
    behaviours(["call.findings"]);
    let world = World::new();
    let server = world.server();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    let blocked = alpha.send("beta", "pay", &json!({"card": {"number": "4111 1111 1111 1111"}})).unwrap_err();
    let findings = &blocked.refusal().unwrap().findings;
    assert_eq!((findings.len(), findings[0].kind.as_str()), (1, "credit_card"), "{findings:?}");
    assert_eq!((findings[0].pointer.as_str(), findings[0].action.as_str()), ("/card/number", "block"));
    assert!(
        blocked.to_string().contains("credit_card at /card/number") && !blocked.to_string().contains("4111")
    );
    let redacted = alpha.send("beta", "note", &json!({"note": "ssn 123-45-6789"})).unwrap();
    assert_eq!((redacted.findings[0].kind.as_str(), redacted.findings[0].action.as_str()), ("ssn", "redact"));
    // What is too long for the stream goes by a call of its own, and is told the same.
    let long =
        alpha.send("beta", "pay", &json!({"card": "4111 1111 1111 1111", "text": "x".repeat(100_000)}));
    assert_eq!(long.unwrap_err().refusal().unwrap().findings[0].pointer, "/card");
}

#[test]
fn calls_beyond_what_is_taken_at_a_time_wait_in_the_agent() {
    behaviours(["call.backpressure"]);
    let world = World::new();
    let server = world.server();
    let alpha = agent(&world, &server, "alpha").max_calls(4).connect().unwrap();
    server.halt();
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..12)
            .map(|n| {
                scope.spawn({
                    let alpha = &alpha;
                    move || alpha.send("beta", "number", &Number { n })
                })
            })
            .collect();
        until("eight wait", || alpha.backlog() == 8);
        // Within their time.
        let late =
            alpha.message("beta", "number", &Number { n: 99 }).timeout(Duration::from_millis(200)).send();
        assert!(late.is_err());
        server.signal(Signal::SIGCONT);
        assert!(calls.into_iter().all(|call| call.join().unwrap().is_ok()));
    });
    assert_eq!(alpha.backlog(), 0);
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    asked: u64,
    history: Vec<String>,
}

#[test]
fn changes_of_the_state_are_all_there_in_the_end() {
    behaviours(["state.change"]);
    const EACH: usize = 12;
    let world = World::new();
    let server = world.server();
    let two = [0, 1].map(|_| agent(&world, &server, "alpha").connect().unwrap());
    let (start, tries) = (Arc::new(Barrier::new(8)), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (start, alpha, tries) = (start.clone(), &two[thread % 2], &tries);
            let _ = scope.spawn(move || {
                let _ = start.wait();
                for n in 0..EACH {
                    let changed = alpha.change_state(|memory: &mut Memory| {
                        let _ = tries.fetch_add(1, Ordering::Relaxed);
                        memory.asked += 1;
                        memory.history.push(format!("{thread}-{n}"));
                    });
                    assert!(changed.is_ok(), "{changed:?}");
                }
            });
        }
    });
    let memory: Memory = two[0].state().unwrap().parse().unwrap();
    assert_eq!((memory.asked, memory.history.len()), (8 * EACH as u64, 8 * EACH));
    assert!(tries.load(Ordering::Relaxed) > 8 * EACH, "the two were never in each other's way");
}

#[test]
fn state_is_written_on_condition_of_a_version() {
    behaviours(["state.versions"]);
    let world = World::new();
    let server = world.server();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    assert_eq!(alpha.state().unwrap().version, 0);
    let first = alpha.update_state(&[("k", "v"), ("n", "7")]).unwrap();
    let state = alpha.state().unwrap();
    assert_eq!((state.version, state.fields["k"].as_str()), (first, "v"));
    let second = alpha.state_update().set("k", "w").expect_version(first).apply().unwrap();
    assert!(second > first);
    let stale = alpha.state_update().set("k", "x").expect_version(first).apply().unwrap_err();
    assert_eq!(stale.detail(), Some("version_mismatch"));
    assert_eq!(alpha.state().unwrap().fields["k"], "w");
    alpha.reset_state().unwrap();
    assert!(alpha.state().unwrap().fields.is_empty());
    let _ = alpha.state_update().set("k", "v").ttl(Duration::from_millis(50)).apply().unwrap();
    until("it is gone in time", || alpha.state().unwrap().fields.is_empty());
}

#[test]
fn a_message_carries_a_key_and_times() {
    behaviours(["call.repeat"]);
    let world = World::new();
    let server = world.server();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    let order = || alpha.message("beta", "order", &Number { n: 1 }).key("order-1").send().unwrap().message_id;
    assert_eq!(order(), order());
    let reused = alpha.message("beta", "order", &Number { n: 2 }).key("order-1").send().unwrap_err();
    assert_eq!(reused.detail(), Some("idempotency_key_reused"));
    let later = std::time::SystemTime::now() + Duration::from_secs(3600);
    let _ = alpha.message("beta", "order", &Number { n: 3 }).not_before(later).send().unwrap();
    let _ = alpha.message("beta", "order", &Number { n: 4 }).ttl(Duration::from_millis(1)).send().unwrap();
    std::thread::park_timeout(Duration::from_millis(5));
    let b = world.client(&server, "beta").session("b");
    assert_eq!(b.take().data()["n"], 1);
    assert!(b.next_within(Duration::from_millis(300)).is_none(), "one is to come later, one is too late");
}

#[test]
fn a_request_whose_message_is_dead_fails_at_once_wherever_the_two_are() {
    behaviours(["call.unanswered"]);
    let mut world = World::with(World::PAIR, "delivery: {retry_backoff_ms: [10], max_attempts: 2}\n");
    world
        .set_gateway("rate_limit: {per_minute: 10000, per_hour: 100000}, features: {circuit_breaker: false}");
    let (server, other) = (world.server(), world.server());
    let _beta = agent(&world, &server, "beta")
        .on("wrong", |_, _: Number| Err(HandlerError::reject("the receiver's own words")))
        .on("again", |_, _: Number| Err(HandlerError::retry("not yet")))
        .connect()
        .unwrap();
    for server in [&server, &other] {
        let alpha = agent(&world, server, "alpha").connect().unwrap();
        for (kind, expected) in
            [("wrong", "handler_failed"), ("again", "handler_failed"), ("unheard of", "no_handler")]
        {
            let began = Instant::now();
            let failed = alpha.request("beta", kind, &Number { n: 1 }, PATIENCE).unwrap_err();
            let AgentError::NoReply(no_reply) = &failed else { panic!("{failed}") };
            assert_eq!(no_reply.reason.as_deref(), Some(expected), "{failed}");
            assert!(
                failed.to_string().contains(&no_reply.message_id)
                    && !failed.to_string().contains("own words")
            );
            assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
        }
        // Of a commit, too.
        let commit = alpha.commit().request("beta", "wrong", &Number { n: 1 }, PATIENCE).unwrap();
        let failed = commit.apply().unwrap().replies.remove(0).wait().unwrap_err();
        assert!(failed.to_string().contains("handler_failed"), "{failed}");
    }
}
