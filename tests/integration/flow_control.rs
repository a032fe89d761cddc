//! Too much for a receiver, for Redis, for an inbox: what is held is bounded, callers are told, and nobody
//! else is slowed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{World, until};

/// Memory that a server under attack may use, in KiB.
const MAX_RSS_KIB: u64 = 160 * 1024;
/// Callers that do not wait for one another.
const FLOODERS: usize = 24;

#[test]
fn a_full_inbox_stops_its_senders_and_nobody_else() {
    let agents = "permissions:\n  - {type: allow_broadcast, sender: alpha, receivers: [beta, gamma]}\n\
                  agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: gamma}]\n";
    let world = World::with(agents, "limits: {max_queue_len: 500}\ndelivery: {reclaim_idle_ms: 300}\n");
    let server = world.server();
    let (alpha, beta, gamma) =
        (world.client(&server, "alpha"), world.client(&server, "beta"), world.client(&server, "gamma"));
    let (_a, g) = (alpha.session("a"), gamma.session("g"));
    let deaf = beta.deaf_session("b");
    let payload = format!("{{\"x\":\"{}\"}}", "y".repeat(50_000));
    let mut accepted = 0;
    let refusal = loop {
        match alpha.send("a", "beta", &payload) {
            Ok(_) => accepted += 1,
            Err(refusal) => break refusal,
        }
    };
    assert_eq!((refusal.code.as_str(), refusal.details.as_str()), ("RESOURCE_EXHAUSTED", "queue_full"));
    assert!((500..=700).contains(&accepted), "{accepted} in an inbox of 500, and in the session's window");
    // The full inbox is nobody else's concern.
    for n in 0..200 {
        alpha.send("a", "gamma", &format!("{{\"n\":{n}}}")).unwrap();
        assert_eq!(g.take().data()["n"], n);
        assert_eq!(alpha.send("a", "beta", "{}").unwrap_err().details, "queue_full");
    }
    assert!(server.rss_kib() < MAX_RSS_KIB, "{} KiB", server.rss_kib());
    // Once somebody reads, there is room again, and nothing of what was accepted is lost.
    drop(deaf);
    let b = beta.session("b2");
    let mut seen = std::collections::HashSet::new();
    until("all of it arrives", || {
        while let Some(delivered) = b.next_within(Duration::from_millis(50)) {
            b.ack(&delivered.id);
            seen.insert(delivered.message_id().to_owned());
        }
        seen.len() == accepted
    });
    alpha.send("a", "beta", "{}").unwrap();
    b.take();
    world.assert_intact();
}

#[test]
fn senders_faster_than_redis_are_told_and_held_within_bounds() {
    let world = World::with(World::PAIR, "limits: {max_streams_per_connection: 1000}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let payload = format!("{{\"x\":\"{}\"}}", "y".repeat(100_000));
    let outcomes: Mutex<BTreeMap<String, usize>> = Mutex::default();
    let over = AtomicBool::new(false);
    let accepted = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        world.redis.signal(Signal::SIGSTOP);
        for _ in 0..FLOODERS {
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    match alpha.send("a", "beta", &payload) {
                        Ok(id) => accepted.lock().unwrap().push(id),
                        Err(refusal) => {
                            assert_eq!(refusal.code, "UNAVAILABLE", "{refusal:?}");
                            *outcomes.lock().unwrap().entry(refusal.details).or_default() += 1;
                        }
                    }
                }
            });
        }
        until("callers are told", || outcomes.lock().unwrap().values().sum::<usize>() > 10 * FLOODERS);
        assert!(server.rss_kib() < MAX_RSS_KIB, "{} KiB", server.rss_kib());
        world.redis.signal(Signal::SIGCONT);
        until("it goes on", || accepted.lock().unwrap().len() > 10);
        over.store(true, Ordering::SeqCst);
    });
    let mut missing: std::collections::HashSet<String> = accepted.into_inner().unwrap().into_iter().collect();
    until("what was accepted has arrived", || {
        while let Some(delivered) = b.next_within(Duration::from_millis(50)) {
            b.ack(&delivered.id);
            missing.remove(delivered.message_id());
        }
        missing.is_empty()
    });
    println!("{:?}", outcomes.lock().unwrap());
    world.assert_intact();
}
