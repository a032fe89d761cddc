//! The life of a handler.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mas::audit::keys::KeyHistory;
use mas::audit::proof::{Proof, Receipt};
use mas_agent::{AgentError, HandlerError};
use serde_json::json;

use super::{Number, agent, behaviours};
use crate::support::{PATIENCE, World, until};

#[test]
fn handlers_get_their_types_and_the_fallback_the_rest() {
    behaviours(["handler.done"]);
    let world = World::new();
    let server = world.server();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (typed, any) = (seen.clone(), seen.clone());
    let beta = agent(&world, &server, "beta")
        .threads(1)
        .on("number", move |_, number: Number| {
            typed.lock().unwrap().push(format!("number {}", number.n));
            Ok(())
        })
        .on_any(move |message| {
            any.lock().unwrap().push(format!("{} from {}", message.message_type(), message.sender()));
            Ok(())
        })
        .connect()
        .unwrap();
    assert_eq!(beta.agent_id(), "beta");
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    alpha.send("beta", "number", &Number { n: 7 }).unwrap();
    alpha.send("beta", "other", &serde_json::json!({})).unwrap();
    until("both are handled", || seen.lock().unwrap().len() == 2);
    assert_eq!(*seen.lock().unwrap(), ["number 7", "other from alpha"]);
    until("both are acknowledged", || world.redis.len("agent.stream:beta") == 0);
}

#[test]
fn a_handlers_work_is_committed_as_a_whole_or_not_at_all() {
    behaviours(["commit.whole"]);
    let world = World::with(World::PAIR, "delivery: {retry_backoff_ms: [10]}\n");
    let server = world.server();
    let versions: Arc<Mutex<Vec<Result<u64, String>>>> = Arc::default();
    let outcomes = versions.clone();
    let beta = agent(&world, &server, "beta")
        .threads(1)
        .on("number", move |message, number: Number| {
            let commit = message
                .commit()
                .set("last", &number.n.to_string())
                .expect_version(if number.n == 13 { 99 } else { number.n as u64 })
                .send("alpha", "done", &number)
                .and_then(mas_agent::Commit::apply);
            let outcome = commit.map(|committed| {
                assert_eq!(committed.sent.len(), 1);
                committed.version
            });
            outcomes.lock().unwrap().push(outcome.map_err(|error| error.to_string()));
            Ok(())
        })
        .connect()
        .unwrap();
    let done: Arc<Mutex<Vec<i64>>> = Arc::default();
    let seen = done.clone();
    let alpha = agent(&world, &server, "alpha")
        .on("done", move |_, number: Number| {
            seen.lock().unwrap().push(number.n);
            Ok(())
        })
        .connect()
        .unwrap();
    for n in [0, 1, 13] {
        alpha.send("beta", "number", &Number { n }).unwrap();
        until("it was handled", || {
            versions.lock().unwrap().len() > [0, 1, 13].iter().position(|m| *m == n).unwrap()
        });
    }
    until("what was committed has arrived", || done.lock().unwrap().len() == 2);
    assert_eq!(*done.lock().unwrap(), [0, 1]);
    let outcomes = versions.lock().unwrap();
    assert_eq!(outcomes[..2], [Ok(1), Ok(2)]);
    assert!(outcomes[2].as_ref().is_err_and(|error| error.contains("version_mismatch")), "{outcomes:?}");
    assert_eq!(beta.state().unwrap().fields["last"], "1");
    until("all of it is acknowledged", || world.redis.len("agent.stream:beta") == 0);
}

#[test]
fn a_handler_that_fails_after_its_commit_has_handled_its_message() {
    behaviours(["commit.whole", "handler.once"]);
    let world = World::new();
    let server = world.server();
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = starts.clone();
    let beta = agent(&world, &server, "beta")
        .on("number", move |message, number: Number| {
            let _ = counted.fetch_add(1, Ordering::SeqCst);
            let twice = message.commit().reply("one", &number)?.reply("two", &number);
            assert!(
                matches!(twice, Err(AgentError::Setup(said)) if said.contains("answers its message already"))
            );
            let _ = message.commit().set("done", "1").reply("one", &number)?.apply()?;
            Err(HandlerError::reject("after its commit"))
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    let _ = alpha.request("beta", "number", &Number { n: 1 }, PATIENCE).unwrap();
    let _ = alpha.request("beta", "number", &Number { n: 2 }, PATIENCE).unwrap();
    assert_eq!(starts.load(Ordering::SeqCst), 2);
    assert_eq!(world.redis.len("agent.stream:beta"), 0);
    drop(beta);
    assert!(!world.redis.keys().contains(&"dlq:messages".to_owned()));
}

#[test]
fn a_commit_that_the_server_would_not_take_is_refused_before_it_is_sent() {
    behaviours(["commit.whole"]);
    let world = World::with(World::PAIR, "limits: {max_message_bytes: 20000, max_state_bytes: 20000}\n");
    let server = world.server();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    let commit = |messages: usize| {
        let text = json!({"text": "x".repeat(19_000)});
        (0..messages).fold(alpha.commit(), |commit, _| commit.send("beta", "long", &text).unwrap()).apply()
    };
    // 20,000 bytes and 64 KiB for one event.
    let refused = commit(5).unwrap_err();
    assert!(
        matches!(&refused, AgentError::Setup(said) if said.contains("the server takes at most 85536")),
        "{refused}"
    );
    assert_eq!(commit(4).unwrap().sent.len(), 4);
    assert!(alpha.is_connected());
}

#[test]
fn failures_of_a_handler_are_nacks_with_their_reason() {
    behaviours(["handler.retry", "handler.failed", "handler.none"]);
    let world = World::with(World::PAIR, "delivery: {retry_backoff_ms: [10]}\n");
    let server = world.server();
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let beta = agent(&world, &server, "beta")
        .on("flaky", move |_, _: Number| {
            if counted.fetch_add(1, Ordering::SeqCst) < 2 {
                return Err(HandlerError::retry("not yet"));
            }
            Ok(())
        })
        .on("wrong", |_, _: Number| Err(HandlerError::reject("never")))
        .on("panics", |_, _: Number| panic!("on purpose"))
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    alpha.send("beta", "flaky", &Number { n: 1 }).unwrap();
    until("the third try", || tries.load(Ordering::SeqCst) == 3);
    alpha.send("beta", "wrong", &Number { n: 1 }).unwrap();
    alpha.send("beta", "panics", &Number { n: 1 }).unwrap();
    alpha.send("beta", "wrong", &serde_json::json!({"n": "text"})).unwrap();
    alpha.send("beta", "unheard of", &Number { n: 1 }).unwrap();
    until("four dead letters", || world.redis.len("dlq:messages") == 4);
    until("an empty inbox", || world.redis.len("agent.stream:beta") == 0);
    let text = format!("{:?}", world.redis.entries("dlq:messages"));
    for reason in ["\"never\"", "handler_error:panic", "handler_error:payload:n", "no_handler:unheard of"] {
        assert!(text.contains(reason), "{reason}: {text}");
    }
    beta.shutdown();
}

#[test]
fn a_request_gets_its_reply_or_an_honest_timeout() {
    behaviours(["handler.calls"]);
    let world = World::new();
    let server = world.server();
    let beta = agent(&world, &server, "beta")
        .on("double", |message, number: Number| {
            assert!(message.expects_reply());
            message.reply("doubled", &Number { n: number.n * 2 })?;
            Ok(())
        })
        .on("silent", |_, _: Number| Ok(()))
        .connect()
        .unwrap();
    let alpha = Arc::new(agent(&world, &server, "alpha").connect().unwrap());
    let threads: Vec<_> = (0..8)
        .map(|t| {
            let alpha = alpha.clone();
            std::thread::spawn(move || {
                for n in 0..25 {
                    let n = t * 100 + n;
                    let reply = alpha.request("beta", "double", &Number { n }, PATIENCE).unwrap();
                    assert_eq!(reply.parse_data::<Number>().unwrap(), Number { n: n * 2 });
                    assert_eq!((reply.sender(), reply.message_type()), ("beta", "doubled"));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    let started = Instant::now();
    let silence = alpha.request("beta", "silent", &Number { n: 0 }, Duration::from_millis(200));
    assert!(matches!(silence, Err(AgentError::NoReply(_))), "{silence:?}");
    assert!(started.elapsed() < PATIENCE);
    drop(beta);
}

#[test]
fn refusals_reach_the_caller_with_the_contracts_word() {
    behaviours(["call.errors"]);
    let world = World::new();
    let server = world.server();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    let error = alpha.send("gamma", "t", &Number { n: 1 }).unwrap_err();
    assert_eq!(error.detail(), Some("not_authorized"));
    let error = alpha.send("beta", "t", &[1]).unwrap_err();
    assert_eq!(error.detail(), Some("payload_must_be_object"));
    let stranger = agent(&world, &server, "stranger").connect().err().unwrap();
    assert_eq!(stranger.detail(), Some("agent_not_allowlisted"));
    let misnamed = agent(&world, &server, "alpha").instance("a b").connect().err().unwrap();
    assert!(matches!(misnamed, AgentError::Setup(_)));
}

#[test]
fn state_and_discover_work_from_the_library() {
    let world = World::new();
    let server = world.server();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    alpha.update_state(&[("k", "v")]).unwrap();
    assert_eq!(alpha.state().unwrap().fields["k"], "v");
    alpha.reset_state().unwrap();
    assert!(alpha.state().unwrap().fields.is_empty());
    let _beta = agent(&world, &server, "beta").connect().unwrap();
    let found = alpha.discover(&["work"]).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].metadata, serde_json::json!({"level": 3}));
}

#[test]
fn an_agent_outlives_a_killed_server_and_handles_each_message() {
    behaviours(["connect.again"]);
    let world = World::new();
    let mut server = world.server();
    let addr = server.addr.clone();
    let handled: Arc<Mutex<Vec<i64>>> = Arc::default();
    let list = handled.clone();
    let _beta = agent(&world, &server, "beta")
        .on("number", move |_, number: Number| {
            list.lock().unwrap().push(number.n);
            Ok(())
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    for n in 0..20 {
        alpha.send("beta", "number", &Number { n }).unwrap();
    }
    server.kill();
    let _server = world.server_on(&addr);
    // The call waits for the new session by itself; an outcome that is unknown is the caller's to judge.
    for n in 20..40 {
        until("sent", || alpha.send("beta", "number", &Number { n }).is_ok());
    }
    until("all are handled", || {
        let handled = handled.lock().unwrap();
        (0..40).all(|n| handled.contains(&n))
    });
    until("all are acknowledged", || world.redis.len("agent.stream:beta") == 0);
}

#[test]
fn work_finished_across_a_reconnect_is_not_done_twice() {
    behaviours(["handler.once"]);
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 60000}\n");
    let mut server = world.server();
    let addr = server.addr.clone();
    let starts = Arc::new(AtomicUsize::new(0));
    let (go_sender, go) = crossbeam_channel::bounded::<()>(1);
    let counted = starts.clone();
    let beta = agent(&world, &server, "beta")
        .instance("b")
        .on("slow", move |_, _: Number| {
            counted.fetch_add(1, Ordering::SeqCst);
            go.recv_timeout(PATIENCE).map_err(HandlerError::reject)
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    alpha.send("beta", "slow", &Number { n: 1 }).unwrap();
    until("it runs", || starts.load(Ordering::SeqCst) == 1);
    server.kill();
    until("the loss is noticed", || !beta.is_connected());
    let _server = world.server_on(&addr);
    until("it is connected again", || beta.is_connected());
    go_sender.send(()).unwrap();
    until("it is acknowledged", || world.redis.len("agent.stream:beta") == 0);
    assert_eq!(starts.load(Ordering::SeqCst), 1);
}

#[test]
fn a_shutdown_finishes_what_has_begun() {
    behaviours(["stop.drain"]);
    let world = World::new();
    let server = world.server();
    let (begun_sender, begun) = crossbeam_channel::bounded(100);
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    let beta = agent(&world, &server, "beta")
        .threads(2)
        .on("slow", move |_, _: Number| {
            begun_sender.send(()).unwrap();
            std::thread::park_timeout(Duration::from_millis(100));
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    for n in 0..4 {
        alpha.send("beta", "slow", &Number { n }).unwrap();
    }
    begun.recv_timeout(PATIENCE).unwrap();
    beta.shutdown();
    let finished = done.load(Ordering::SeqCst);
    assert!(finished >= 1);
    until("exactly the finished ones are acknowledged", || {
        world.redis.len("agent.stream:beta") == 4 - finished
    });
}

#[test]
fn receipts_are_kept_of_what_was_accepted_and_of_what_was_refused() {
    let mut world = World::new();
    world.set_gateway(
        "rate_limit: {per_minute: 10000, per_hour: 100000}, audit: {checkpoint_interval_ms: 50}",
    );
    let mut server = world.server();
    let kept: Arc<Mutex<Vec<mas_agent::Receipt>>> = Arc::default();
    let store = kept.clone();
    let alpha = agent(&world, &server, "alpha")
        .keep_receipts(move |receipt| store.lock().unwrap().push(receipt.clone()))
        .connect()
        .unwrap();
    let id = alpha.send("beta", "number", &Number { n: 1 }).unwrap().message_id;
    let refused = alpha.send("gamma", "number", &Number { n: 2 }).unwrap_err();
    assert_eq!(refused.detail(), Some("not_authorized"));
    alpha.shutdown();
    server.stop();
    let receipts = kept.lock().unwrap().clone();
    assert_eq!(receipts.len(), 2, "{receipts:?}");
    assert_eq!(receipts[0].message_id.as_deref(), Some(id.as_str()));

    // Each is proved with the public key alone.
    let keys = std::fs::read_to_string(world.path().join("keys/audit.ed25519.pub")).unwrap();
    let keys = [KeyHistory::parse(&keys).unwrap()];
    let mut decisions = Vec::new();
    for receipt in &receipts {
        // As a file of the client's, which an auditor reads.
        let receipt: Receipt = serde_json::from_str(&serde_json::to_string(receipt).unwrap()).unwrap();
        let sequence = receipt.sequence.to_string();
        let output = world.mas(&["audit", "proof", "--lane", &receipt.lane, "--sequence", &sequence]);
        let proof: Proof = serde_json::from_slice(&output.stdout).unwrap();
        let proven = receipt.check(&proof, &keys).unwrap();
        decisions.push(proven.record.decision.as_str());
        let forged = Receipt { record_hash: "00".repeat(32), ..receipt.clone() };
        assert!(forged.check(&proof, &keys).is_err());
    }
    assert_eq!(decisions, ["ALLOWED", "AUTHZ_DENIED"]);
}

#[test]
fn a_payload_that_does_not_fit_is_named_by_its_field_and_not_quoted() {
    behaviours(["handler.payload"]);
    let world = World::new();
    let server = world.server();
    let _beta = agent(&world, &server, "beta").on("number", |_, _: Number| Ok(())).connect().unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    alpha.send("beta", "number", &json!({"n": "a-secret"})).unwrap();
    until("a dead letter", || world.redis.len("dlq:messages") == 1);
    let letter = &world.redis.entries("dlq:messages")[0].1;
    let reason = &letter.iter().find(|(name, _)| name == "reason").unwrap().1;
    assert_eq!(reason, "handler_error:payload:n");
}

#[test]
fn what_cannot_be_handled_now_comes_again_and_is_no_dead_letter() {
    behaviours(["handler.later"]);
    const CHAIN: &str = "\
permissions:
  - {type: allow, sender: alpha, targets: [beta]}
  - {type: allow, sender: beta, targets: [gamma]}
agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: gamma}]
";
    const MESSAGES: usize = 10;
    let world = World::with(CHAIN, "limits: {max_queue_len: 6}\ndelivery: {max_attempts: 2}\n");
    let server = world.server();
    let (tries, attempts) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (tried, highest) = (tries.clone(), attempts.clone());
    let _beta = agent(&world, &server, "beta")
        .threads(8)
        .on("number", move |message, number: Number| {
            let _ = tried.fetch_add(1, Ordering::SeqCst);
            let _ = highest.fetch_max(message.attempt() as usize, Ordering::SeqCst);
            message.send("gamma", "number", &number)?;
            Ok(())
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    for n in 0..MESSAGES {
        // Its own inbox has few places, too.
        until("it is taken", || alpha.send("beta", "number", &Number { n: n as i64 }).is_ok());
    }
    until("gamma's inbox is full, and more than two attempts were made", || {
        world.redis.len("agent.stream:gamma") == 6 && tries.load(Ordering::SeqCst) > 2 * MESSAGES
    });
    assert!(!world.redis.keys().contains(&"dlq:messages".to_owned()));
    let arrived: Arc<Mutex<Vec<i64>>> = Arc::default();
    let seen = arrived.clone();
    let _gamma = agent(&world, &server, "gamma")
        .on("number", move |_, number: Number| {
            seen.lock().unwrap().push(number.n);
            Ok(())
        })
        .connect()
        .unwrap();
    until("all have arrived", || {
        let arrived = arrived.lock().unwrap();
        (0..MESSAGES).all(|n| arrived.contains(&(n as i64)))
    });
    until("all are acknowledged", || world.redis.len("agent.stream:beta") == 0);
    assert_eq!(attempts.load(Ordering::SeqCst), 1, "no attempt was counted");
    assert!(!world.redis.keys().contains(&"dlq:messages".to_owned()));
}

#[test]
fn what_is_uncertain_inside_a_handler_is_tried_again() {
    behaviours(["handler.uncertain"]);
    let world = World::with(World::PAIR, "delivery: {retry_backoff_ms: [10]}\n");
    let server = world.server();
    let attempts: Arc<Mutex<Vec<u32>>> = Arc::default();
    let seen = attempts.clone();
    let _beta = agent(&world, &server, "beta")
        .on("ask", move |message, _: Number| {
            seen.lock().unwrap().push(message.attempt());
            message.agent().request("alpha", "silent", &json!({}), Duration::from_millis(100))?;
            Ok(())
        })
        .connect()
        .unwrap();
    let alpha =
        agent(&world, &server, "alpha").on("silent", |_, _: serde_json::Value| Ok(())).connect().unwrap();
    alpha.send("beta", "ask", &Number { n: 1 }).unwrap();
    until("the third attempt", || attempts.lock().unwrap().len() >= 3);
    assert_eq!(attempts.lock().unwrap()[..3], [1, 2, 3]);
}

#[test]
fn all_that_an_agent_can_do_can_be_done_inside_a_handler() {
    behaviours(["handler.calls"]);
    let world = World::new();
    let server = world.server();
    let _beta = agent(&world, &server, "beta")
        .on("all", |message, _: Number| {
            let agent = message.agent();
            let peers = agent.discover(&[])?.len();
            let _ = agent.update_state(&[("k", "v")])?;
            let state = agent.state()?;
            let asked = agent.request("alpha", "double", &Number { n: 21 }, PATIENCE)?;
            let number: Number = asked.parse_data()?;
            let text = json!({"peers": peers, "k": state.fields["k"], "n": number.n});
            let _ = message
                .commit()
                .set("done", "1")
                .expect_version(state.version)
                .reply("all", &text)?
                .apply()?;
            Ok(())
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha")
        .on("double", |message, number: Number| {
            let _ = message.reply("doubled", &Number { n: number.n * 2 })?;
            Ok(())
        })
        .connect()
        .unwrap();
    let reply = alpha.request("beta", "all", &Number { n: 0 }, PATIENCE).unwrap();
    assert_eq!(reply.parse_data::<serde_json::Value>().unwrap(), json!({"peers": 1, "k": "v", "n": 42}));
}

#[test]
fn one_handler_at_a_time_keeps_the_order() {
    behaviours(["handler.order"]);
    let world = World::new();
    let server = world.server();
    let seen: Arc<Mutex<Vec<i64>>> = Arc::default();
    let list = seen.clone();
    let _beta = agent(&world, &server, "beta")
        .threads(1)
        .on("number", move |_, number: Number| {
            list.lock().unwrap().push(number.n);
            Ok(())
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    for n in 0..200 {
        alpha.send("beta", "number", &Number { n }).unwrap();
    }
    until("all are handled", || seen.lock().unwrap().len() == 200);
    assert!(seen.lock().unwrap().iter().copied().eq(0..200));
}

#[test]
fn a_reply_that_nobody_waits_for_fails_neither_its_handler_nor_its_commit() {
    behaviours(["reply.late", "reply.unasked"]);
    let world = World::new();
    let server = world.server();
    let replies: Arc<Mutex<Vec<String>>> = Arc::default();
    let (plain, commits) = (replies.clone(), replies.clone());
    let beta = agent(&world, &server, "beta")
        .on("slow", move |message, _: Number| {
            std::thread::park_timeout(Duration::from_millis(1500));
            let reply = message.reply("late", &json!({}));
            plain.lock().unwrap().push(format!("{:?}", reply.map(|sent| sent.is_some())));
            Ok(())
        })
        .on("slow commit", move |message, _: Number| {
            std::thread::park_timeout(Duration::from_millis(1500));
            let done = message.commit().set("done", "1").reply("late", &json!({}))?.apply()?;
            commits.lock().unwrap().push(format!("{} sent, version {}", done.sent.len(), done.version));
            Ok(())
        })
        .on("sent", |message, _: Number| {
            let error = message.reply("unasked", &json!({})).unwrap_err();
            Err(HandlerError::reject(error))
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    for kind in ["slow", "slow commit"] {
        let asked = alpha.request("beta", kind, &Number { n: 1 }, Duration::from_millis(50));
        assert!(matches!(asked, Err(AgentError::NoReply(_))), "{asked:?}");
    }
    until("both are handled", || replies.lock().unwrap().len() == 2);
    until("both are acknowledged", || world.redis.len("agent.stream:beta") == 0);
    let mut said = replies.lock().unwrap().clone();
    said.sort();
    assert_eq!(said, ["0 sent, version 1", "Ok(false)"]);
    assert_eq!(beta.state().unwrap().fields["done"], "1");
    assert!(!world.redis.keys().contains(&"dlq:messages".to_owned()));
    alpha.send("beta", "sent", &Number { n: 1 }).unwrap();
    until("a dead letter", || world.redis.len("dlq:messages") == 1);
    let letter = format!("{:?}", world.redis.entries("dlq:messages"));
    assert!(letter.contains("asked for no reply"), "{letter}");
}
