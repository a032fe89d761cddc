//! Rate limits, circuit breakers, roles, reload.

use std::collections::BTreeSet;
use std::time::Duration;

use mas::protocol::submission_result::Outcome;
use mas::protocol::{SendRequest, submission};
use nix::sys::signal::Signal;

use crate::campaign::disk::Clock;
use crate::support::{Client, Ended, Refused, World, until};

fn refused(code: &str, details: &str) -> Result<String, Refused> {
    Err(Refused { code: code.to_owned(), details: details.to_owned() })
}

fn limited() -> Result<String, Refused> {
    refused("RESOURCE_EXHAUSTED", "rate_limited")
}

const LIMIT: &str = "rate_limit: {per_minute: 5, per_hour: 1000}";

#[test]
fn an_agent_may_send_so_much_a_minute_over_all_targets_and_instances() {
    let mut world = World::with(
        "permissions: [{type: allow_wildcard, agent_id: alpha}]
agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: gamma}, {agent_id: delta, rate_limit: {per_minute: 1}}]
",
        "",
    );
    world.set_gateway(LIMIT);
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let (_one, _two) = (alpha.session("i1"), alpha.session("i2"));
    // Targets live on different workers; the count is one.
    for (instance, target) in [("i1", "beta"), ("i2", "gamma"), ("i1", "delta"), ("i2", "alpha")] {
        alpha.send(instance, target, "{}").unwrap();
    }
    // What is refused for another reason does not count.
    assert_eq!(alpha.send("i1", "nobody", "{}"), refused("PERMISSION_DENIED", "not_authorized"));
    assert_eq!(alpha.send("i1", "beta", "nope"), refused("INVALID_ARGUMENT", "invalid_json"));
    alpha.send("i1", "beta", "{}").unwrap();
    assert_eq!(alpha.send("i1", "beta", "{}"), limited());
    assert_eq!(alpha.request("i2", "gamma", "{}", 0), limited());
    let records = world.records();
    let record = records.iter().find(|r| r.decision.as_str() == "RATE_LIMITED").unwrap();
    assert_eq!((record.agent.as_str(), record.rule.as_str()), ("alpha", "rate_limit.per_minute"));
    world.assert_intact();
}

#[test]
fn a_restart_does_not_forget_what_was_sent() {
    let mut world = World::new();
    world.set_gateway(LIMIT);
    let mut server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    for _ in 0..5 {
        alpha.send("a", "beta", "{}").unwrap();
    }
    server.kill();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    assert_eq!(alpha.send("a", "beta", "{}"), limited());
}

/// Waits until the server records by a clock that is so many steps ahead.
#[track_caller]
fn wait_for_clock(world: &World, beta: &Client, steps: u64) {
    let true_us = || mas::clock::Now::read().unix_us;
    let from_us = true_us() + steps * Clock::STEP_S * 1_000_000;
    until("the server sees its clock", || {
        beta.state().unwrap();
        let recorded =
            |us: u64| world.records().iter().any(|r| r.time_us >= us && r.time_us < us + 60_000_000);
        recorded(from_us)
    });
}

/// Each minute is in the key of its hour, and each key ends by itself.
#[track_caller]
fn assert_counts_end(world: &World) -> usize {
    let keys: Vec<String> = world.redis.keys().into_iter().filter(|k| k.starts_with("ratelimit:")).collect();
    for key in &keys {
        let hour: u64 = key.rsplit(':').next().unwrap().parse().unwrap_or_else(|_| panic!("{key}"));
        let minutes: Vec<u64> = world.redis.query(&["HKEYS", key]);
        assert!(minutes.iter().all(|minute| minute / 60 == hour), "{key}: {minutes:?}");
        let ttl_s: i64 = world.redis.query(&["TTL", key]);
        assert!((1..=7200).contains(&ttl_s), "{key}: {ttl_s}");
    }
    keys.len()
}

#[test]
fn a_stepped_clock_neither_lets_more_through_nor_limits_for_longer() {
    let mut world = World::new();
    world.set_gateway(LIMIT);
    let clock = Clock::new(world.path()).expect("libfaketime, which scripts/setup asks for");
    clock.set(1);
    let mut command = std::process::Command::new(World::SERVER);
    clock.give(&mut command);
    let mut server = world.server_by(command, "127.0.0.1:0", &world.config_path());
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, _b) = (alpha.session("a"), beta.session("b"));
    for _ in 0..5 {
        alpha.send("a", "beta", "{}").unwrap();
    }
    assert_eq!(alpha.send("a", "beta", "{}"), limited());
    // Forward: what was sent a moment ago still counts.
    clock.set(2);
    wait_for_clock(&world, &beta, 2);
    beta.send("b", "alpha", "{}").unwrap();
    assert_eq!(alpha.send("a", "beta", "{}"), limited());
    // Corrected: it counts for a minute, and not for as long as the clock was ahead.
    clock.set(0);
    wait_for_clock(&world, &beta, 0);
    beta.send("b", "alpha", "{}").unwrap();
    let again =
        SendRequest { target_id: "beta".to_owned(), data_json: "{}".to_owned(), ..SendRequest::default() };
    match a.call(submission::Call::Send(again)) {
        Outcome::Failure(failure) => {
            assert_eq!(failure.detail, "rate_limited");
            assert!((1..=61_000).contains(&failure.retry_after_ms), "{failure}");
        }
        other => panic!("{other:?}"),
    }
    // An hour of alpha's and two of beta's.
    assert!(assert_counts_end(&world) >= 3);
    // Nothing of the hours that are to come counts after a restart.
    server.kill();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    alpha.send("a", "beta", "{}").unwrap();
}

#[test]
fn three_days_of_counts_are_kept_by_the_hour_and_end() {
    /// Steps of six hours.
    const STEPS: u64 = 12;
    let mut world = World::new();
    world.set_gateway("rate_limit: {per_minute: 1000, per_hour: 1000}");
    let clock = Clock::new(world.path()).expect("libfaketime, which scripts/setup asks for");
    let mut command = std::process::Command::new(World::SERVER);
    clock.give(&mut command);
    let server = world.server_by(command, "127.0.0.1:0", &world.config_path());
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, _b) = (alpha.session("a"), beta.session("b"));
    for step in 0..STEPS {
        clock.set(step);
        wait_for_clock(&world, &beta, step);
        for _ in 0..10 {
            alpha.send("a", "beta", "{}").unwrap();
        }
    }
    // One for each step, and none of them for longer than two hours.
    assert!(assert_counts_end(&world) as u64 >= STEPS);
}

const BREAKER: &str = "rate_limit: {per_minute: 100000, per_hour: 100000}, \
    circuit_breaker: {failure_threshold: 3, success_threshold: 2, timeout_seconds: 1, window_seconds: 60}";

#[test]
fn failing_handlers_open_the_circuit_and_working_ones_close_it() {
    let mut world = World::new();
    world.set_gateway(BREAKER);
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let open = refused("FAILED_PRECONDITION", "circuit_open");
    for _ in 0..3 {
        alpha.send("a", "beta", "{}").unwrap();
        b.nack(&b.next().id, "handler_error:ValueError", false);
    }
    until("the circuit is open", || alpha.send("a", "beta", "{}") == open);
    let state: String = world.redis.query(&["HGET", "circuit:beta", "state"]);
    assert_eq!(state, "OPEN");
    // Nobody else is affected.
    beta.send("b", "alpha", "{}").unwrap();
    while let Some(delivered) = b.next_within(Duration::from_millis(50)) {
        b.ack(&delivered.id);
    }
    // Half-open: one trial at a time.
    until("a trial passes", || alpha.send("a", "beta", "{\"trial\":1}").is_ok());
    assert_eq!(alpha.send("a", "beta", "{}"), open, "one at a time");
    b.take();
    until("the next trial passes", || alpha.send("a", "beta", "{\"trial\":2}").is_ok());
    b.take();
    until("the circuit is closed", || !world.redis.keys().contains(&"circuit:beta".to_owned()));
    for _ in 0..5 {
        alpha.send("a", "beta", "{}").unwrap();
    }
    server.stop();
    let actions: Vec<_> = world.records().into_iter().map(|r| (r.action.as_str(), r.agent)).collect();
    for action in ["circuit_opened", "circuit_closed"] {
        assert!(actions.contains(&(action, "beta".to_owned())), "{action}");
    }
    world.assert_intact();
}

#[test]
fn a_failed_trial_opens_the_circuit_again_and_a_restart_keeps_it_open() {
    let mut world = World::new();
    world.set_gateway(BREAKER);
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let open = refused("FAILED_PRECONDITION", "circuit_open");
    for _ in 0..3 {
        alpha.send("a", "beta", "{}").unwrap();
        b.nack(&b.next().id, "no", false);
    }
    until("the circuit is open", || alpha.send("a", "beta", "{}") == open);
    until("a trial passes", || alpha.send("a", "beta", "{}").is_ok());
    b.nack(&b.next().id, "still no", false);
    until("it is open again", || alpha.send("a", "beta", "{}") == open);
    server.kill();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    assert_eq!(alpha.send("a", "beta", "{}"), open);
}

#[test]
fn a_slow_or_absent_consumer_does_not_open_the_circuit() {
    let mut world = World::with(
        World::PAIR,
        "delivery: {reclaim_idle_ms: 50, retry_backoff_ms: [1], max_attempts: 100}\n",
    );
    world.set_gateway(BREAKER);
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    for n in 0..5 {
        alpha.send("a", "beta", "{}").unwrap();
        // Gone with the message in hand.
        beta.session(&format!("b{n}")).next();
    }
    let b = beta.session("late");
    for _ in 0..10 {
        b.nack(&b.next().id, "not now", true);
    }
    alpha.send("a", "beta", "{}").unwrap();
}

#[test]
fn roles_permit_beside_the_rules_and_deny_wins() {
    let mut world = World::with(
        "roles:
  - {name: dispatcher, permissions: ['send:worker-*', 'send:boss']}
  - {name: chatty, permissions: ['send:*']}
permissions:
  - {type: deny, sender: alpha, targets: [worker-9]}
  - {type: allow, sender: alpha, targets: [gamma]}
agents:
  - {agent_id: alpha, roles: [dispatcher]}
  - {agent_id: beta, roles: [dispatcher, chatty]}
  - {agent_id: boss}
  - {agent_id: gamma}
  - {agent_id: worker-1}
  - {agent_id: worker-9}
",
        "",
    );
    let quiet = "rate_limit: {per_minute: 100000, per_hour: 100000}";
    world.set_gateway(&format!("{quiet}, features: {{rbac: true}}"));
    let mut server = world.server();
    let allowed = |server: &crate::support::Server| {
        let mut allowed = BTreeSet::new();
        for from in ["alpha", "beta", "gamma"] {
            let client = world.client(server, from);
            let _session = client.session("i");
            for to in ["alpha", "boss", "gamma", "worker-1", "worker-9", "nobody"] {
                if client.send("i", to, "{}").is_ok() {
                    allowed.insert(format!("{from}>{to}"));
                }
            }
        }
        allowed.into_iter().collect::<Vec<_>>().join(" ")
    };
    let expected =
        "alpha>boss alpha>gamma alpha>worker-1 beta>alpha beta>boss beta>gamma beta>worker-1 beta>worker-9";
    assert_eq!(allowed(&server), expected);
    assert!(world.records().iter().any(|r| r.agent == "beta" && r.target == "gamma" && r.rule == "roles[1]"));
    server.stop();
    world.set_gateway(quiet);
    let server = world.server();
    let none = world.client(&server, "beta");
    let _session = none.session("i");
    assert_eq!(
        none.send("i", "boss", "{}"),
        refused("PERMISSION_DENIED", "not_authorized"),
        "off by default"
    );
}

#[test]
fn a_reload_changes_rules_and_agents_without_disturbing_what_stays() {
    let mut world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let gamma = world.client(&server, "gamma");
    let (_a, b, g) = (alpha.session("a"), beta.session("b"), gamma.session("g"));
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    let denied = refused("PERMISSION_DENIED", "not_authorized");
    assert_eq!(alpha.send("a", "epsilon", "{}"), denied);
    // Of the last decision: who got what is on record without a policy, and somewhat later.
    let in_force = |world: &World| {
        let decided = |record: &mas::audit::Record| !record.policy_version.is_empty();
        world.records().into_iter().rfind(decided).unwrap().policy_version
    };
    let before = in_force(&world);

    // gamma goes, epsilon comes.
    world.set_agents(
        "permissions: [{type: allow, sender: alpha, targets: [beta, epsilon]}]
agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: epsilon}]
",
    );
    server.signal(Signal::SIGHUP);
    assert_eq!(g.end(), Ended::refused("UNAUTHENTICATED", "agent_not_allowlisted"));
    until("epsilon is known", || alpha.send("a", "epsilon", "{}").is_ok());
    assert_eq!(gamma.discover(&[]).unwrap_err().details, "agent_not_allowlisted");
    assert_eq!(beta.send("b", "alpha", "{}"), denied, "that rule is gone");
    assert_eq!(b.take().data()["n"], 1, "the session and its message stayed");
    drop(world.client(&server, "epsilon").session("e").take());
    let after = in_force(&world);
    assert_ne!(before, after);
    assert!(
        world.records().iter().any(|r| r.action.as_str() == "config_changed" && r.policy_version == after)
    );

    // A file that is not valid changes nothing.
    world.set_agents("agents: [{agent_id: 'no such shape'}]\n");
    server.signal(Signal::SIGHUP);
    until("the file is refused", || world.logged().contains("reload refused"));
    assert!(world.logged().contains("agent id"), "and the log says why");
    alpha.send("a", "epsilon", "{}").unwrap();
    // For the verification, which reads the file too.
    world.set_agents(World::PAIR);
    world.assert_intact();
}

#[test]
fn many_reloads_under_load_lose_nothing_and_mix_nothing() {
    let reloads: usize = std::env::var("MAS_TEST_RELOADS").map_or(100, |count| count.parse().unwrap());
    let mut world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let over = std::sync::atomic::AtomicBool::new(false);
    let (accepted, refusals, delivered) = std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let (mut accepted, mut refusals) = (BTreeSet::new(), 0);
            while !over.load(std::sync::atomic::Ordering::SeqCst) {
                match alpha.send("a", "beta", "{}") {
                    Ok(id) => drop(accepted.insert(id)),
                    Err(refusal) => {
                        assert_eq!(refusal.details, "not_authorized");
                        refusals += 1;
                    }
                }
            }
            (accepted, refusals)
        });
        let receiver = scope.spawn(|| {
            let mut delivered = BTreeSet::new();
            loop {
                match b.next_within(Duration::from_millis(500)) {
                    Some(message) => {
                        b.ack(&message.id);
                        assert!(delivered.insert(message.message_id().to_owned()), "delivered twice");
                    }
                    None if over.load(std::sync::atomic::Ordering::SeqCst) => break,
                    None => {}
                }
            }
            delivered
        });
        for reload in 0..reloads {
            let forbidden = "permissions: []\nagents: [{agent_id: alpha}, {agent_id: beta}]\n";
            let allows = reload % 2 == 1;
            world.set_agents(if allows { World::PAIR } else { forbidden });
            server.signal(Signal::SIGHUP);
            until("it is in force", || beta.send("b", "alpha", "{}").is_ok() == allows);
        }
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        let (accepted, refusals) = sender.join().unwrap();
        (accepted, refusals, receiver.join().unwrap())
    });
    assert!(!accepted.is_empty() && refusals > 0);
    assert_eq!(accepted, delivered);
    // Each version of the rules decided alike throughout.
    let mut by_version: std::collections::BTreeMap<Vec<u8>, BTreeSet<&str>> =
        std::collections::BTreeMap::new();
    let records = world.records();
    for record in records.iter().filter(|r| r.action.as_str() == "send") {
        by_version.entry(record.policy_version.clone()).or_default().insert(record.decision.as_str());
    }
    assert!(by_version.values().all(|decisions| decisions.len() == 1), "{by_version:?}");
    world.assert_intact();
}
