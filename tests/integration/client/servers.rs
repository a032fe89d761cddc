//! Beside servers that fail: nothing that was accepted is lost, and nothing is buried that was not the handler's own doing.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::{Number, agent, behaviours};
use crate::support::{World, until};

/// alpha sends to beta, which forwards to gamma.
const CHAIN: &str = "\
permissions:
  - {type: allow, sender: alpha, targets: [beta]}
  - {type: allow, sender: beta, targets: [gamma]}
agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: gamma}]
";
/// A rule more.
const MORE: &str = "\
permissions:
  - {type: allow, sender: alpha, targets: [beta, gamma]}
  - {type: allow, sender: beta, targets: [gamma]}
agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: gamma}]
";

/// Sends and forwards while `disturb` has its way with the server; what was accepted arrives, and nothing is dead.
fn all_arrives(mut world: World, disturb: impl Fn(&mut World, &mut crate::support::Server)) {
    let mut server = world.server();
    let arrived: Arc<Mutex<BTreeSet<i64>>> = Arc::default();
    let seen = arrived.clone();
    let _gamma = agent(&world, &server, "gamma")
        .on("number", move |_, number: Number| {
            let _ = seen.lock().unwrap().insert(number.n);
            Ok(())
        })
        .connect()
        .unwrap();
    let _beta = agent(&world, &server, "beta")
        .on("number", |message, number: Number| {
            message.send("gamma", "number", &number)?;
            Ok(())
        })
        .connect()
        .unwrap();
    let alpha = agent(&world, &server, "alpha").connect().unwrap();
    let (going, accepted) = (AtomicBool::new(true), Mutex::new(BTreeSet::new()));
    std::thread::scope(|scope| {
        let _ = scope.spawn(|| {
            for n in 0.. {
                if !going.load(Ordering::SeqCst) {
                    break;
                }
                if alpha.send("beta", "number", &Number { n }).is_ok() {
                    let _ = accepted.lock().unwrap().insert(n);
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        disturb(&mut world, &mut server);
        let before = accepted.lock().unwrap().len();
        until("more is accepted", || accepted.lock().unwrap().len() > before + 5);
        going.store(false, Ordering::SeqCst);
    });
    let accepted = accepted.into_inner().unwrap();
    until("all that was accepted has arrived", || arrived.lock().unwrap().is_superset(&accepted));
    until("all of it is acknowledged", || world.redis.len("agent.stream:beta") == 0);
    assert!(!world.redis.keys().contains(&"dlq:messages".to_owned()), "something is buried");
}

#[test]
fn killed_servers_lose_and_bury_nothing() {
    behaviours(["survives.kill"]);
    all_arrives(World::with(CHAIN, "delivery: {reclaim_idle_ms: 300}\n"), |world, server| {
        let addr = server.addr.clone();
        for _ in 0..3 {
            std::thread::park_timeout(Duration::from_millis(200));
            server.kill();
            *server = world.server_on(&addr);
        }
    });
}

#[test]
fn a_paused_server_loses_and_buries_nothing() {
    behaviours(["survives.pause"]);
    all_arrives(World::with(CHAIN, "delivery: {reclaim_idle_ms: 300}\n"), |_, server| {
        std::thread::park_timeout(Duration::from_millis(200));
        server.halt();
        // Longer than its lease.
        std::thread::park_timeout(Duration::from_secs(7));
        server.signal(Signal::SIGCONT);
    });
}

#[test]
fn a_reloaded_server_loses_and_buries_nothing() {
    behaviours(["survives.reload"]);
    all_arrives(World::with(CHAIN, "delivery: {reclaim_idle_ms: 300}\n"), |world, server| {
        for round in 0..6 {
            world.set_agents(if round % 2 == 0 { MORE } else { CHAIN });
            server.signal(Signal::SIGHUP);
            std::thread::park_timeout(Duration::from_millis(100));
        }
    });
}

#[test]
fn an_agent_that_forwards_more_than_its_limit_allows_buries_nothing() {
    behaviours(["survives.limits"]);
    const THREE: &str = "\
permissions:
  - {type: allow, sender: alpha, targets: [beta]}
  - {type: allow, sender: delta, targets: [beta]}
  - {type: allow, sender: beta, targets: [gamma]}
agents: [{agent_id: alpha}, {agent_id: delta}, {agent_id: beta}, {agent_id: gamma}]
";
    let mut world = World::with(THREE, "delivery: {max_attempts: 2}\n");
    world.set_gateway("rate_limit: {per_minute: 30, per_hour: 100000}");
    let server = world.server();
    let _beta = agent(&world, &server, "beta")
        .threads(8)
        .on("number", |message, number: Number| {
            message.send("gamma", "number", &number)?;
            Ok(())
        })
        .connect()
        .unwrap();
    let senders = ["alpha", "delta"].map(|name| agent(&world, &server, name).connect().unwrap());
    let sent =
        senders.iter().flat_map(|sender| (0..30).map(|n| sender.send("beta", "number", &Number { n })));
    let accepted = sent.filter(Result::is_ok).count();
    assert_eq!(accepted, 60);
    let put_off = || world.records().iter().filter(|record| record.rule == "later").count();
    until("thirty are put off", || put_off() >= 30);
    assert_eq!(world.redis.len("agent.stream:gamma"), 30);
    assert_eq!(world.redis.len("agent.stream:beta"), 30, "the others wait");
    assert!(!world.redis.keys().contains(&"dlq:messages".to_owned()), "something is buried");
    assert!(!world.records().iter().any(|record| record.action.as_str() == "circuit_opened"));
}
