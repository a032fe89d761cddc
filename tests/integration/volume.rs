//! Many messages, several senders and receivers, one of them a process that is killed on the way.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Client, PATIENCE, Process, Server, World};

const MESSAGES: usize = 100_000;
const SENDERS: usize = 4;
/// Calls that each sender keeps under way.
const LANES: usize = 20;
/// The receiving process that is killed dies after this many messages.
const KILL_AFTER: usize = 5_000;
/// What a session may hold: `delivery.max_in_flight`.
const CREDIT: usize = 200;

/// Environment of the receiving process: its server's address and its certificate files.
const CHILD: [&str; 4] = ["MAS_TEST_ADDR", "MAS_TEST_CA", "MAS_TEST_CERT", "MAS_TEST_KEY"];

/// How often each message came, and to which agent.
#[derive(Default)]
struct Seen {
    deliveries: HashMap<String, (String, usize)>,
}

impl Seen {
    fn add(&mut self, id: &str, agent: &str) {
        let entry = self.deliveries.entry(id.to_owned()).or_insert_with(|| (agent.to_owned(), 0));
        entry.1 += 1;
        assert_eq!(entry.0, agent, "delivered to two agents");
    }
}

fn receive(client: &Client, agent: &str, instance: &str, seen: &Mutex<Seen>, over: &AtomicBool) {
    let session = client.session(instance);
    while !over.load(Ordering::SeqCst) {
        let Some(delivered) = session.next_within(Duration::from_millis(50)) else {
            continue;
        };
        assert_eq!(delivered.envelope["target_id"], agent);
        seen.lock().unwrap().add(delivered.message_id(), agent);
        session.ack(&delivered.id);
    }
}

/// Not a test by itself: the process that the test below starts and kills. It says what it got, then
/// acknowledges it.
#[test]
fn receiving_process() {
    let Ok(addr) = std::env::var(CHILD[0]) else {
        return;
    };
    let file = |name: &str| std::fs::read(std::env::var(name).unwrap()).unwrap();
    let client = Client::new(&addr, file(CHILD[1]), Some((file(CHILD[2]), file(CHILD[3]))));
    let session = client.session("victim");
    let mut out = std::io::stdout();
    loop {
        let delivered = session.next();
        writeln!(out, "GOT {}", delivered.message_id()).unwrap();
        session.ack(&delivered.id);
    }
}

fn start_victim(world: &World, server: &Server) -> Process {
    drop(world.certificate("r0"));
    let files = mas::certs::agent_files(&world.certs(), &mas::ids::AgentId::parse("r0").unwrap());
    let ca = mas::certs::ca_file(&world.certs());
    Process::start(
        Command::new(std::env::current_exe().unwrap())
            .args(["volume::receiving_process", "--exact", "--nocapture"])
            .env(CHILD[0], &server.addr)
            .env(CHILD[1], ca)
            .env(CHILD[2], files.cert)
            .env(CHILD[3], files.key)
            .stdout(Stdio::piped())
            .stderr(Stdio::null()),
    )
}

/// Follows the victim's output and kills it after `KILL_AFTER` messages: what it got, in order.
fn watch(mut victim: Process, seen: &Mutex<Seen>) -> Vec<String> {
    let mut got = Vec::new();
    let lines = BufReader::new(victim.child().stdout.take().unwrap()).lines();
    for line in lines.map_while(Result::ok) {
        // The test runner's own words stand on the same output.
        let Some((_, id)) = line.split_once("GOT ") else {
            continue;
        };
        seen.lock().unwrap().add(id, "r0");
        got.push(id.to_owned());
        if got.len() == KILL_AFTER {
            victim.kill();
        }
    }
    assert!(got.len() >= KILL_AFTER, "the victim was to be killed at work, after {}", got.len());
    got
}

fn send_all(client: &Client, sender: usize, accepted: &Mutex<HashSet<String>>, refused: &AtomicUsize) {
    let _session = client.session("i");
    std::thread::scope(|lanes| {
        for lane in 0..LANES {
            lanes.spawn(move || {
                let mut mine = Vec::new();
                for n in 0..MESSAGES / SENDERS / LANES {
                    let target = if (n + lane) % 2 == 0 { "r0" } else { "r1" };
                    match client.send("i", target, &format!("{{\"s\":{sender},\"n\":{n}}}")) {
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
}

/// Waits until everything has arrived and is acknowledged, as long as there is progress.
fn settle(world: &World, seen: &Mutex<Seen>, accepted: usize) -> Result<(), String> {
    let mut last = (0, Instant::now());
    loop {
        let count = seen.lock().unwrap().deliveries.len();
        let waiting = world.redis.len("agent.stream:r0") + world.redis.len("agent.stream:r1");
        if count >= accepted && waiting == 0 {
            return Ok(());
        }
        if count > last.0 {
            last = (count, Instant::now());
        }
        if last.1.elapsed() > PATIENCE {
            return Err(format!("{count} of {accepted} arrived, {waiting} wait"));
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn a_hundred_thousand_messages_arrive_though_a_receiver_is_killed() {
    let settings = "delivery: {reclaim_idle_ms: 500}\nlimits: {max_streams_per_connection: 200}\n";
    let world = World::with(World::FOUR_TO_TWO, settings);
    let server = world.server();
    let seen = Mutex::new(Seen::default());
    let over = AtomicBool::new(false);
    let accepted = Mutex::new(HashSet::new());
    let refused = AtomicUsize::new(0);
    let victim = start_victim(&world, &server);
    let (settled, got) = std::thread::scope(|scope| {
        let (seen, over, accepted, refused) = (&seen, &over, &accepted, &refused);
        for (agent, instance) in [("r0", "i0"), ("r1", "i0"), ("r1", "i1")] {
            let client = world.client(&server, agent);
            scope.spawn(move || receive(&client, agent, instance, seen, over));
        }
        let watcher = scope.spawn(move || watch(victim, seen));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let client = world.client(&server, &format!("s{sender}"));
                scope.spawn(move || send_all(&client, sender, accepted, refused))
            })
            .collect();
        for sender in senders {
            sender.join().unwrap();
        }
        let count = accepted.lock().unwrap().len();
        let settled = settle(&world, seen, count);
        over.store(true, Ordering::SeqCst);
        (settled, watcher.join().unwrap())
    });
    settled.unwrap();
    let accepted = accepted.into_inner().unwrap();
    let seen = seen.into_inner().unwrap();
    assert_eq!(accepted.len() + refused.load(Ordering::SeqCst), MESSAGES / SENDERS / LANES * SENDERS * LANES);
    let missing = accepted.iter().filter(|id| !seen.deliveries.contains_key(*id)).count();
    assert_eq!(missing, 0, "accepted and never delivered");
    // What the victim still held when it died is among the last that it got.
    let in_flight: HashSet<&String> = got.iter().rev().take(CREDIT).collect();
    let twice: Vec<&String> =
        seen.deliveries.iter().filter(|(_, (_, count))| *count > 1).map(|(id, _)| id).collect();
    for id in &twice {
        assert!(in_flight.contains(id), "{id} came twice, and was not in flight at the kill");
    }
    println!(
        "{} accepted, {} delivered, {} to the killed process, {} of these again",
        accepted.len(),
        seen.deliveries.len(),
        got.len(),
        twice.len()
    );
    assert_eq!(world.redis.len("dlq:messages"), 0);
    world.assert_intact();
}
