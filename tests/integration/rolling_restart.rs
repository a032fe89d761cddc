//! Two servers are restarted one after the other while agents of the library send and receive.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mas_agent::{Agent, Builder, Credentials};
use serde::{Deserialize, Serialize};

use crate::support::{Server, World, until};

/// Messages a second that are due, over all senders.
const RATE: usize = 5_000;
/// Threads of each sender: each waits for the outcome of its message before its next one.
const LANES: usize = 16;
/// Time under load before, between and after the restarts, in seconds; `MAS_TEST_SECONDS` says another.
const SECONDS: u64 = 2;
const SENDERS: [&str; 4] = ["s0", "s1", "s2", "s3"];
const RECEIVERS: [&str; 2] = ["r0", "r1"];
/// What a session may hold: `delivery.max_in_flight`.
const CREDIT: usize = 200;

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq, Hash, Clone)]
struct Mark {
    sender: usize,
    lane: usize,
    n: usize,
}

fn builder(world: &World, server: &Server, name: &str) -> Builder {
    let (cert, key) = world.certificate(name);
    let ca = std::fs::read(mas::certs::ca_file(&world.certs())).unwrap();
    Agent::builder(&server.addr, Credentials::from_pem(ca, cert, key).unwrap())
}

/// Sends on one lane at its share of the rate, until `over`; how many were accepted.
fn send(agent: &Agent, sender: usize, lane: usize, over: &AtomicBool) -> usize {
    let every = Duration::from_secs((SENDERS.len() * LANES) as u64) / RATE as u32;
    let mut due = Instant::now();
    let mut n = 0;
    while !over.load(Ordering::SeqCst) {
        let now = Instant::now();
        if due > now {
            std::thread::park_timeout(due - now);
            continue;
        }
        due += every;
        let target = RECEIVERS[(n + lane) % RECEIVERS.len()];
        // The library repeats what may not have happened; what it gives up on would be a loss.
        agent.send(target, "mark", &Mark { sender, lane, n }).unwrap();
        n += 1;
    }
    n
}

#[test]
fn a_rolling_restart_under_load_loses_nothing() {
    let span = std::env::var("MAS_TEST_SECONDS").map_or(SECONDS, |seconds| seconds.parse().unwrap());
    let world = World::with(World::FOUR_TO_TWO, "delivery: {reclaim_idle_ms: 500}\n");
    let mut servers = [world.server(), world.server()];
    let seen: Arc<Mutex<HashMap<Mark, usize>>> = Arc::default();
    let receivers: Vec<Agent> = (0..2)
        .map(|n| {
            let seen = Arc::clone(&seen);
            let handler = move |_: &_, mark: Mark| {
                *seen.lock().unwrap().entry(mark).or_default() += 1;
                Ok(())
            };
            builder(&world, &servers[n], RECEIVERS[n]).threads(4).on("mark", handler).connect().unwrap()
        })
        .collect();
    let senders: Vec<Agent> =
        (0..4).map(|n| builder(&world, &servers[n % 2], SENDERS[n]).connect().unwrap()).collect();
    let over = AtomicBool::new(false);
    let began = Instant::now();
    let restarted = AtomicUsize::new(0);
    let accepted: usize = std::thread::scope(|scope| {
        let lanes: Vec<_> = senders
            .iter()
            .enumerate()
            .flat_map(|(n, agent)| (0..LANES).map(move |lane| (n, lane, agent)))
            .map(|(n, lane, agent)| {
                let over = &over;
                scope.spawn(move || send(agent, n, lane, over))
            })
            .collect();
        let wait = || {
            let until_then = Instant::now() + Duration::from_secs(span);
            while Instant::now() < until_then {
                std::thread::park_timeout(Duration::from_millis(20));
            }
        };
        wait();
        for server in &mut servers {
            let addr = server.addr.clone();
            server.stop();
            *server = world.server_on(&addr);
            restarted.fetch_add(1, Ordering::SeqCst);
            wait();
        }
        over.store(true, Ordering::SeqCst);
        lanes.into_iter().map(|lane| lane.join().unwrap()).sum()
    });
    let took = began.elapsed();
    until("everything accepted has arrived", || seen.lock().unwrap().len() >= accepted);
    until("everything is acknowledged", || {
        RECEIVERS.iter().all(|agent| world.redis.len(&format!("agent.stream:{agent}")) == 0)
    });
    let seen = seen.lock().unwrap();
    let twice = seen.values().filter(|count| **count > 1).count();
    println!(
        "{accepted} accepted in {:.1} s ({:.0}/s of {RATE}/s), {} delivered, {twice} of them twice, {} restarts",
        took.as_secs_f64(),
        accepted as f64 / took.as_secs_f64(),
        seen.len(),
        restarted.load(Ordering::SeqCst)
    );
    assert_eq!(seen.len(), accepted, "each once accepted, each delivered");
    assert!(twice <= 2 * RECEIVERS.len() * CREDIT, "{twice} came twice: more than was in flight");
    for agent in senders.into_iter().chain(receivers) {
        agent.shutdown();
    }
    world.assert_intact();
}
