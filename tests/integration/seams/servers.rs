//! Several servers on one Redis, of which one is gone for good, or has only half begun.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::{KNOWN, instance_entry, send_numbers};
use crate::support::{Session, World, until, within};

const SETTINGS: &str = "delivery: {reclaim_idle_ms: 2000, max_in_flight: 20}\n";
/// When the survivor must have everything: a server is missed within a second on its own host, what it held is
/// due after `reclaim_idle_ms`, and a busy machine takes its time.
const TAKEN_OVER: Duration = Duration::from_secs(7);

#[derive(Clone, Copy, PartialEq)]
enum Heir {
    Before,
    After,
}

#[derive(Clone, Copy, PartialEq)]
enum Dies {
    Server,
    ServerAndAgent,
}

/// Two servers; `victim` on the second one holds 20 of 30 messages when that server is killed, and never
/// returns. `lived`: how long that server has lived by then.
fn killed_with_deliveries(heir_connects: Heir, dies: Dies, lived: Duration) {
    let world = World::with(World::PAIR, SETTINGS);
    let survivor = world.server();
    let mut killed = world.server();
    let started = Instant::now();
    let alpha = world.client(&survivor, "alpha");
    let _a = alpha.session("a");
    let victim = world.client(&killed, "beta").session("victim");
    let connect = || world.client(&survivor, "beta").session("heir");
    send_numbers(&alpha, "a", "beta", 0..20);
    for _ in 0..20 {
        victim.next();
    }
    let early = (heir_connects == Heir::Before).then(connect);
    send_numbers(&alpha, "a", "beta", 20..30);
    until("it has lived long enough", || started.elapsed() >= lived);
    if dies == Dies::ServerAndAgent {
        // The server does not hear of its client's end.
        killed.halt();
        drop(victim);
        killed.kill();
    } else {
        killed.kill();
        drop(victim);
    }
    inherits_all(&world, &early.unwrap_or_else(connect));
}

/// `heir` gets all thirty messages in time, and nothing names the server that is gone.
#[track_caller]
fn inherits_all(world: &World, heir: &Session) {
    let since = Instant::now();
    let mut got = BTreeSet::new();
    while got.len() < 30 {
        let Some(delivered) = heir.next_within(TAKEN_OVER.saturating_sub(since.elapsed())) else {
            let held = world.redis.pending("agent.stream:beta").len();
            panic!("{} of 30 after {:?}, {held} are pending", got.len(), since.elapsed());
        };
        heir.ack(&delivered.id);
        got.insert(delivered.data()["n"].as_u64().unwrap());
    }
    within(TAKEN_OVER, "nothing is left", || world.redis.len("agent.stream:beta") == 0);
    let is_free = || instance_entry(world, "beta", "victim").is_none_or(|entry| !entry.starts_with("s:"));
    within(TAKEN_OVER, "the instance is nobody's", is_free);
    world.assert_intact();
}

#[test]
fn servers_that_have_told_each_other_of_sessions_are_at_rest() {
    const SPAN: Duration = Duration::from_secs(2);
    /// Of 200 of a core that spins.
    const FEW_TICKS: u64 = 20;
    let world = World::with(World::PAIR, SETTINGS);
    let (one, mut two) = (world.server(), world.server());
    let here: Vec<_> = ["alpha", "beta"].map(|agent| world.client(&one, agent).session("a")).into();
    // The other server is told, and has nothing to record of it; and the other way round.
    let there: Vec<_> = ["alpha", "beta"].map(|agent| world.client(&two, agent).session("b")).into();
    until("all are known", || world.redis.query::<usize>(&["HLEN", "agent.instances:beta"]) == 2);
    for (name, server) in [("one", &one), ("two", &two)] {
        let used = server.cpu_ticks_during(SPAN);
        assert!(used <= FEW_TICKS, "server {name}: {used} ticks in {SPAN:?}");
    }
    let commands = || -> u64 {
        let stats: String = world.redis.query(&["INFO", "stats"]);
        let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:")).unwrap();
        line.trim().parse().unwrap()
    };
    let before = commands();
    crate::support::pass(SPAN);
    // Leases, checkpoints, looks at the memory: some dozens a second.
    assert!(commands() - before < 1000, "{} commands in {SPAN:?}", commands() - before);
    // A stop has nothing to wait for.
    drop((here, there));
    let asked = Instant::now();
    two.stop();
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
}

#[test]
fn what_a_killed_server_held_reaches_another_instance() {
    killed_with_deliveries(Heir::Before, Dies::Server, KNOWN);
}

#[test]
fn what_a_killed_server_held_reaches_an_instance_that_connects_later() {
    killed_with_deliveries(Heir::After, Dies::Server, KNOWN);
}

#[test]
fn what_was_held_when_server_and_agent_died_together_reaches_another_instance() {
    killed_with_deliveries(Heir::Before, Dies::ServerAndAgent, KNOWN);
}

#[test]
fn what_a_server_held_that_was_killed_at_once_reaches_another_instance() {
    killed_with_deliveries(Heir::Before, Dies::Server, Duration::ZERO);
}

#[test]
fn what_a_server_held_that_another_one_found_gone_reaches_an_instance_here() {
    let world = World::with(World::PAIR, SETTINGS);
    let (here, finder) = (world.server(), world.server());
    let heir = world.client(&here, "beta").session("heir");
    let alpha = world.client(&finder, "alpha");
    let _a = alpha.session("a");
    // All of the third server's life passes while this one does not look.
    here.halt();
    let mut killed = world.server();
    let victim = world.client(&killed, "beta").session("victim");
    send_numbers(&alpha, "a", "beta", 0..30);
    for _ in 0..20 {
        victim.next();
    }
    killed.kill();
    drop(victim);
    until("it was found gone", || world.redis.query::<usize>(&["HLEN", "mas.servers"]) == 2);
    here.signal(Signal::SIGCONT);
    inherits_all(&world, &heir);
}
