//! A fault campaign: two servers on one Redis, agents that send, ask, reply, acknowledge and refuse, and
//! everything killed, stopped and cut at random. What everybody saw goes into a history, and the checker
//! holds the server's promises against it.
//!
//! `MAS_TEST_FAULTS` says how many faults; the suite makes a few.

mod actors;
mod checker;
mod history;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{Redis, Server, World, until};
use actors::{Member, Place, Random};
use checker::Violation;
use history::History;

/// Faults in the suite.
const FAULTS: usize = 14;
/// Pause between two faults, in milliseconds: from and up to.
const PAUSE_MS: (u64, u64) = (150, 450);
/// Longest time a process is stopped, in milliseconds.
const MAX_STOP_MS: u64 = 1500;

const SENDERS: usize = 3;
const RECEIVERS: [&str; 2] = ["r0", "r1"];
const AGENTS: &str = "\
limits: {max_streams_per_connection: 1000}
delivery: {reclaim_idle_ms: 300, max_attempts: 20, retry_backoff_ms: [20, 100]}
permissions:
  - {type: allow_broadcast, sender: s0, receivers: [r0, r1]}
  - {type: allow_broadcast, sender: s1, receivers: [r0, r1]}
  - {type: allow_broadcast, sender: s2, receivers: [r0, r1]}
agents: [{agent_id: s0}, {agent_id: s1}, {agent_id: s2}, {agent_id: r0}, {agent_id: r1}, {agent_id: vault}]
";

/// What can go wrong on purpose.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillServer(usize),
    StopServer(usize),
    KillRedis,
    StopRedis,
    CutConnections,
    LoseSessions,
}

fn world() -> World {
    let mut world = World::with(AGENTS, "");
    world.redis.fsync_always();
    // Handlers fail on purpose here; that is not what is tested.
    world.set_gateway(
        "rate_limit: {per_minute: 10000000, per_hour: 10000000}, features: {circuit_breaker: false}",
    );
    world
}

struct Campaign {
    world: World,
    servers: [Server; 2],
    place: Place,
    random: Random,
}

impl Campaign {
    fn new(seed: u64) -> Self {
        let world = world();
        let servers = [world.server(), world.server()];
        let place = Place::new([&servers[0].addr, &servers[1].addr]);
        Self { world, servers, place, random: Random(seed) }
    }

    fn inflict(&mut self, fault: Fault) {
        match fault {
            Fault::KillServer(n) => {
                let addr = self.servers[n].addr.clone();
                self.servers[n].kill();
                self.servers[n] = self.world.server_on(&addr);
            }
            Fault::StopServer(n) => {
                self.servers[n].signal(Signal::SIGSTOP);
                self.pause(MAX_STOP_MS);
                self.servers[n].signal(Signal::SIGCONT);
            }
            Fault::KillRedis => {
                self.world.redis.kill();
                self.world.redis.resume();
            }
            Fault::StopRedis => {
                self.world.redis.signal(Signal::SIGSTOP);
                self.pause(MAX_STOP_MS);
                self.world.redis.signal(Signal::SIGCONT);
            }
            Fault::CutConnections => {
                let _: i64 = self.world.redis.query(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            }
            Fault::LoseSessions => self.place.lose_sessions(),
        }
    }

    fn pause(&mut self, max_ms: u64) {
        let over = Instant::now() + Duration::from_millis(self.random.below(max_ms));
        while Instant::now() < over {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn next_fault(&mut self) -> Fault {
        let server = self.random.below(2) as usize;
        match self.random.below(12) {
            0..=3 => Fault::KillServer(server),
            4 | 5 => Fault::StopServer(server),
            6 => Fault::KillRedis,
            7 => Fault::StopRedis,
            8 | 9 => Fault::CutConnections,
            _ => Fault::LoseSessions,
        }
    }

    /// Lets everybody work while `meanwhile` happens, then until nothing is left to deliver; what all saw.
    fn run(&mut self, meanwhile: impl FnOnce(&mut Self)) -> History {
        let history = History::default();
        let (sending, over) = (AtomicBool::new(true), AtomicBool::new(false));
        let place = self.place.clone();
        let members = |world: &World| -> Vec<Member> {
            let senders = (0..SENDERS).map(|n| (format!("s{n}"), "i0".to_owned()));
            let receivers = RECEIVERS
                .iter()
                .flat_map(|agent| ["i0", "i1"].map(|instance| ((*agent).to_owned(), instance.to_owned())));
            senders
                .chain(receivers)
                .enumerate()
                .map(|(n, (agent, instance))| Member::new(world, &place, &agent, &instance, n as u64))
                .collect()
        };
        let members = members(&self.world);
        std::thread::scope(|scope| {
            for member in &members {
                scope.spawn(|| member.keep_session(&history, &over));
            }
            let senders: Vec<_> = members
                .iter()
                .filter(|member| member.agent.starts_with('s'))
                .map(|member| scope.spawn(|| member.keep_sending(&history, &sending)))
                .collect();
            meanwhile(self);
            sending.store(false, Ordering::SeqCst);
            for sender in senders {
                sender.join().unwrap();
            }
            let give_up = Instant::now() + Duration::from_secs(30);
            while !drained(&self.world.redis) && Instant::now() < give_up {
                std::thread::park_timeout(Duration::from_millis(20));
            }
            over.store(true, Ordering::SeqCst);
        });
        history
    }

    fn check(&self, history: &History) -> Vec<Violation> {
        checker::check(history, &self.world)
    }
}

/// Whether nothing waits for delivery or acknowledgement.
fn drained(redis: &Redis) -> bool {
    let mut streams = redis.keys();
    streams.retain(|key| key.starts_with("agent.stream:"));
    streams.iter().all(|stream| redis.len(stream) == 0)
}

#[test]
fn promises_hold_whatever_breaks() {
    let faults = std::env::var("MAS_TEST_FAULTS").map_or(FAULTS, |count| count.parse().unwrap());
    let seed = std::env::var("MAS_TEST_SEED").map_or(std::process::id().into(), |seed| seed.parse().unwrap());
    println!("{faults} faults, seed {seed}");
    let mut campaign = Campaign::new(seed);
    let mut inflicted = std::collections::BTreeMap::new();
    let history = campaign.run(|campaign| {
        for _ in 0..faults {
            let fault = campaign.next_fault();
            campaign.inflict(fault);
            let name = format!("{fault:?}");
            *inflicted.entry(name.split('(').next().unwrap_or_default().to_owned()).or_insert(0) += 1;
            let (from, to) = PAUSE_MS;
            let more = campaign.random.below(to - from);
            let until_then = Instant::now() + Duration::from_millis(from + more);
            while Instant::now() < until_then {
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
    });
    println!("{inflicted:?}\n{}", history.summary());
    let violations = campaign.check(&history);
    assert!(
        violations.is_empty(),
        "seed {seed}: {} violations: {:#?}",
        violations.len(),
        &violations[..violations.len().min(20)]
    );
    assert!(history.accepted_count() > 100, "hardly anything was sent");
}

/// The checker must see each broken promise: what is broken here is broken for real, behind the servers'
/// back.
#[test]
fn the_checker_sees_what_is_broken() {
    let mut campaign = Campaign::new(1);
    let sabotage = |campaign: &mut Campaign, name: &str| {
        let redis = &campaign.world.redis;
        match name {
            // A message is lost: taken out of its inbox while nobody listens.
            "lost" | "misdelivered" | "unaudited" => {
                campaign.place.close();
                campaign.place.lose_sessions();
                until("a message waits", || redis.len("agent.stream:r0") > 3);
                let entries = redis.entries("agent.stream:r0");
                let (id, fields) = entries.last().unwrap().clone();
                match name {
                    "lost" => {
                        let _: i64 = redis.query(&["XDEL", "agent.stream:r0", &id]);
                    }
                    "misdelivered" => {
                        drop(redis.query::<String>(&[
                            "XADD",
                            "agent.stream:r1",
                            "*",
                            "envelope",
                            &fields[0].1,
                        ]));
                    }
                    _ => {
                        let lane = redis.keys().into_iter().find(|k| k.starts_with("audit:lane:")).unwrap();
                        let blocks = redis.query::<Vec<(String, redis::Value)>>(&["XRANGE", &lane, "-", "+"]);
                        let _: i64 = redis.query(&["XDEL", &lane, &blocks[blocks.len() / 2].0]);
                    }
                }
                campaign.place.open();
            }
            // An acknowledged message comes again, long after.
            "redelivered" => {
                until("traffic", || redis.keys().iter().any(|k| k.starts_with("agent.stream:r0")));
                let mut taken = None;
                until("a message passes", || {
                    taken = redis.entries("agent.stream:r0").pop();
                    taken.is_some()
                });
                let (_, fields) = taken.unwrap();
                until("it is done with", || {
                    !redis.entries("agent.stream:r0").iter().any(|(_, f)| f[0].1 == fields[0].1)
                });
                let then = Instant::now() + checker::ACK_SLACK + Duration::from_millis(300);
                until("long after", || Instant::now() > then);
                drop(redis.query::<String>(&["XADD", "agent.stream:r0", "*", "envelope", &fields[0].1]));
            }
            other => panic!("{other}"),
        }
    };
    for (name, expected) in [
        ("lost", "accepted, and nowhere"),
        ("misdelivered", "at another agent"),
        ("redelivered", "after its acknowledgement"),
        ("unaudited", "trail"),
    ] {
        let history = campaign.run(|campaign| {
            until("messages flow", || !campaign.world.redis.entries("audit:checkpoints").is_empty());
            sabotage(campaign, name);
        });
        let violations = campaign.check(&history);
        assert!(
            violations.iter().any(|violation| violation.to_string().contains(expected)),
            "{name}: {violations:#?}"
        );
        campaign = Campaign::new(2);
    }
    // And an unbroken one is found unbroken.
    let history = campaign.run(|campaign| {
        until("messages flow", || campaign.world.redis.len("audit:checkpoints") > 1);
    });
    assert_eq!(campaign.check(&history), []);
}
