//! Many messages, several senders and receivers, one of them killed on the way.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{Client, PATIENCE, World};

const MESSAGES: usize = 100_000;
const SENDERS: usize = 4;
/// Calls that each sender keeps under way.
const LANES: usize = 16;
/// The receiver that is killed dies after this many messages.
const KILL_AFTER: usize = 5_000;

const AGENTS: &str = "\
permissions:
  - {type: allow_broadcast, sender: s0, receivers: [r0, r1]}
  - {type: allow_broadcast, sender: s1, receivers: [r0, r1]}
  - {type: allow_broadcast, sender: s2, receivers: [r0, r1]}
  - {type: allow_broadcast, sender: s3, receivers: [r0, r1]}
agents: [{agent_id: s0}, {agent_id: s1}, {agent_id: s2}, {agent_id: s3}, {agent_id: r0}, {agent_id: r1}]
";

/// What receivers saw: how often each message came, to which agent, and whether the killed one held it.
#[derive(Default)]
struct Seen {
    deliveries: HashMap<String, (String, usize)>,
    held_at_kill: HashSet<String>,
}

fn receive(
    client: &Client,
    agent: &str,
    instance: &str,
    kill_after: Option<usize>,
    seen: &Mutex<Seen>,
    over: &AtomicBool,
) {
    let session = client.session(instance);
    let mut count = 0;
    while !over.load(Ordering::SeqCst) {
        let Some(delivered) = session.next_within(Duration::from_millis(50)) else {
            continue;
        };
        count += 1;
        let mut seen = seen.lock().unwrap();
        let id = delivered.message_id().to_owned();
        assert_eq!(delivered.envelope["target_id"], agent);
        let entry = seen.deliveries.entry(id.clone()).or_insert_with(|| (agent.to_owned(), 0));
        entry.1 += 1;
        assert_eq!(entry.0, agent, "delivered to two agents");
        if kill_after.is_some_and(|after| count > after) {
            // From here on nothing is acknowledged: what arrives is in flight at the kill.
            seen.held_at_kill.insert(id);
            if count >= kill_after.unwrap() + 100 {
                return;
            }
            continue;
        }
        drop(seen);
        session.ack(&delivered.id);
    }
}

#[test]
fn a_hundred_thousand_messages_arrive_though_a_receiver_is_killed() {
    let world =
        World::with(AGENTS, "delivery: {reclaim_idle_ms: 500}\nlimits: {max_streams_per_connection: 200}\n");
    let server = world.server();
    let seen = Mutex::new(Seen::default());
    let over = AtomicBool::new(false);
    let accepted = Mutex::new(HashSet::new());
    let refused = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for agent in ["r0", "r1"] {
            for instance in ["i0", "i1"] {
                let (seen, over) = (&seen, &over);
                let client = world.client(&server, agent);
                let kill_after = (agent == "r0" && instance == "i1").then_some(KILL_AFTER);
                // The killed one vanishes with its connection: client and session are dropped on return.
                scope.spawn(move || receive(&client, agent, instance, kill_after, seen, over));
            }
        }
        let senders: Vec<_> = (0..SENDERS)
            .map(|s| {
                let client = world.client(&server, &format!("s{s}"));
                let (accepted, refused) = (&accepted, &refused);
                scope.spawn(move || {
                    let _session = client.session("i");
                    std::thread::scope(|lanes| {
                        for lane in 0..LANES {
                            let client = &client;
                            lanes.spawn(move || {
                                let mut mine = Vec::new();
                                for n in 0..MESSAGES / SENDERS / LANES {
                                    let target = if (n + lane) % 2 == 0 { "r0" } else { "r1" };
                                    match client.send("i", target, &format!("{{\"s\":{s},\"n\":{n}}}")) {
                                        Ok(id) => mine.push(id),
                                        Err(refusal) => {
                                            assert_eq!(refusal.code, "UNAVAILABLE", "{refusal:?}");
                                            refused.fetch_add(1, Ordering::SeqCst);
                                        }
                                    }
                                }
                                accepted.lock().unwrap().extend(mine);
                            });
                        }
                    });
                })
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        let accepted = accepted.lock().unwrap().len();
        let mut last = (0, std::time::Instant::now());
        loop {
            let count = seen.lock().unwrap().deliveries.len();
            if count >= accepted
                && world.redis.len("agent.stream:r0") + world.redis.len("agent.stream:r1") == 0
            {
                break;
            }
            if count > last.0 {
                last = (count, std::time::Instant::now());
            }
            if last.1.elapsed() > PATIENCE {
                over.store(true, Ordering::SeqCst);
                panic!("{count} of {accepted} arrived");
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        over.store(true, Ordering::SeqCst);
    });
    let accepted = accepted.into_inner().unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(accepted.len() + refused.load(Ordering::SeqCst), MESSAGES / SENDERS / LANES * SENDERS * LANES);
    let missing = accepted.iter().filter(|id| !seen.deliveries.contains_key(*id)).count();
    assert_eq!(missing, 0, "accepted and never delivered");
    let twice: Vec<_> =
        seen.deliveries.iter().filter(|(_, (_, count))| *count > 1).map(|(id, _)| id).collect();
    for id in &twice {
        assert!(seen.held_at_kill.contains(*id), "{id} came twice, and was not in flight at the kill");
    }
    println!(
        "{} accepted, {} delivered, {} again after the kill",
        accepted.len(),
        seen.deliveries.len(),
        twice.len()
    );
    assert_eq!(world.redis.len("dlq:messages"), 0);
    world.assert_intact();
}
