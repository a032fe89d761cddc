//! Redis has no room: what would take some is refused, and everything that leads to more room goes on. Sessions are let in,
//! servers start and take over, inboxes are drained.

use std::collections::BTreeSet;
use std::time::Duration;

use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;
use nix::sys::signal::Signal;

use super::{instance_entry, send_numbers, send_to};
use crate::support::{Client, Session, World, pass, until, within};

const INBOX: &str = "agent.stream:beta";
const SETTINGS: &str = "delivery: {reclaim_idle_ms: 300, max_in_flight: 20}\n";

/// How far Redis is above its bound, in bytes: far more than it frees in a test.
const ABOVE: usize = 2 * 1024 * 1024;

/// Something else uses Redis' memory up, until messages are refused.
fn fill(world: &World, sender: &Client) {
    let _: String = world.redis.query(&["SET", "somebody.else", &"x".repeat(16 * 1024 * 1024)]);
    within(Duration::from_secs(5), "messages are refused", || {
        // What it uses falls once the buffers are freed that brought the value.
        if used(world) < maxmemory(world) + ABOVE || maxmemory(world) == 0 {
            let bound = (used(world) - 2 * ABOVE).to_string();
            let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", &bound]);
            return false;
        }
        sender.send("a", "beta", "{}").is_err()
    });
}

fn used(world: &World) -> usize {
    memory(world, "used_memory:")
}

fn maxmemory(world: &World) -> usize {
    memory(world, "maxmemory:")
}

fn memory(world: &World, name: &str) -> usize {
    let memory: String = world.redis.query(&["INFO", "memory"]);
    memory.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().parse().unwrap()
}

fn make_room(world: &World) {
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", "0"]);
}

#[test]
fn whoever_was_away_drains_a_redis_without_room() {
    drains_after_absence(false);
}

#[test]
fn whoever_was_connected_before_drains_a_redis_without_room() {
    drains_after_absence(true);
}

/// `returns`: it had a session before, and so its consumer groups are there.
fn drains_after_absence(returns: bool) {
    const WAITING: usize = 40;
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    if returns {
        drop(beta.session("b"));
        until("it has left", || instance_entry(&world, "beta", "b").is_some_and(|on| !on.starts_with("s:")));
    }
    send_numbers(&alpha, "a", "beta", 0..WAITING as u64);
    fill(&world, &alpha);
    let b = let_in(&world, &beta, "b");
    for n in 0..WAITING {
        assert_eq!(b.take().data()["n"], n);
    }
    within(Duration::from_secs(5), "the inbox is empty", || world.redis.len(INBOX) == 0);
    make_room(&world);
    until("messages are admitted again", || alpha.send("a", "beta", "{\"n\":-1}").is_ok());
    assert_eq!(b.take().data()["n"], -1);
    until("all is done", || world.redis.len(INBOX) == 0);
    world.assert_intact();
}

#[track_caller]
fn let_in(world: &World, client: &Client, instance: &str) -> Session {
    let session = client.try_open(instance, Duration::from_secs(8));
    session.unwrap_or_else(|| panic!("{instance} is not let in: {}", world.logged()))
}

/// `heir` gets all of 0..20, and nothing names a server that is gone.
#[track_caller]
fn drains(world: &World, beta: &Client) {
    let heir = let_in(world, beta, "heir");
    let mut got = BTreeSet::new();
    while got.len() < 20 {
        let delivered = heir.next_within(Duration::from_secs(8));
        let delivered = delivered.unwrap_or_else(|| panic!("{} of 20", got.len()));
        heir.ack(&delivered.id);
        got.insert(delivered.data()["n"].as_u64().unwrap());
    }
    within(Duration::from_secs(5), "the inbox is empty", || world.redis.len(INBOX) == 0);
    let is_free = || instance_entry(world, "beta", "victim").is_none_or(|entry| !entry.starts_with("s:"));
    within(Duration::from_secs(5), "the instance is nobody's", is_free);
}

#[test]
fn a_server_starts_without_room_and_takes_over() {
    let world = World::with(World::PAIR, SETTINGS);
    let mut first = world.server();
    let alpha = world.client(&first, "alpha");
    let _a = alpha.session("a");
    let victim = world.client(&first, "beta").session("victim");
    send_numbers(&alpha, "a", "beta", 0..20);
    for _ in 0..10 {
        victim.next();
    }
    fill(&world, &alpha);
    first.kill();
    drop(victim);
    let second = world.server();
    drains(&world, &world.client(&second, "beta"));
    let servers: Vec<String> = world.redis.query(&["HKEYS", "mas.servers"]);
    assert_eq!(servers.len(), 1, "{servers:?}");
    assert!(world.redis.query::<bool>(&["EXISTS", &format!("mas.server:{}", servers[0])]));
    make_room(&world);
    let alpha = world.client(&second, "alpha");
    let _a = alpha.session("a");
    until("messages are admitted again", || alpha.send("a", "beta", "{\"n\":-1}").is_ok());
    world.assert_intact();
}

#[test]
fn what_a_killed_server_held_reaches_another_instance_without_room() {
    let world = World::with(World::PAIR, SETTINGS);
    let (survivor, mut killed) = (world.server(), world.server());
    let alpha = world.client(&survivor, "alpha");
    let _a = alpha.session("a");
    let victim = world.client(&killed, "beta").session("victim");
    send_numbers(&alpha, "a", "beta", 0..20);
    for _ in 0..20 {
        victim.next();
    }
    fill(&world, &alpha);
    killed.kill();
    drop(victim);
    drains(&world, &world.client(&survivor, "beta"));
    make_room(&world);
    world.assert_intact();
}

#[test]
fn of_two_servers_one_lets_an_instance_in_without_room() {
    let world = World::with(World::PAIR, SETTINGS);
    let (one, two) = (world.server(), world.server());
    let alpha = world.client(&one, "alpha");
    let _a = alpha.session("a");
    fill(&world, &alpha);
    let clients = [world.client(&one, "beta"), world.client(&two, "beta")];
    let mut let_in = 0;
    for round in 0..20 {
        let instance = format!("new{round}");
        let opened: Vec<_> = std::thread::scope(|scope| {
            let open = |client: &Client| client.try_session(&instance);
            let threads = clients.each_ref().map(|client| scope.spawn(move || open(client)));
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let sessions: Vec<_> = opened.iter().filter_map(|opened| opened.as_ref().ok()).collect();
        assert!(sessions.len() <= 1, "both servers let {instance} in");
        let_in += sessions.len();
        let entry = instance_entry(&world, "beta", &instance).unwrap_or_default();
        assert!(sessions.is_empty() || entry.starts_with("s:"), "{entry}");
    }
    assert!(let_in > 0, "nobody was let in");
    make_room(&world);
    world.assert_intact();
}

#[test]
fn a_stop_without_room_records_what_was_acknowledged() {
    let world = World::with(World::PAIR, SETTINGS);
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    send_numbers(&alpha, "a", "beta", 0..10);
    let held: Vec<_> = (0..10).map(|_| b.next()).collect();
    fill(&world, &alpha);
    b.ack_all(held.iter().map(|delivered| delivered.id.clone()).collect());
    // What it says next is heard after it.
    let refused = b.call(Call::Send(send_to("alpha", "{}")));
    assert!(matches!(refused, Outcome::Failure(_)), "{refused:?}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_code(), Some(0));
    assert_eq!((world.redis.len(INBOX), world.redis.pending(INBOX).len()), (0, 0));
    make_room(&world);
    let (_, report) = world.verify();
    assert_eq!(report["messages"]["waiting"], 0, "{report}");
    let closed =
        world.records().iter().any(|r| r.action == mas::audit::Action::SessionClose && r.agent == "beta");
    assert!(closed, "the session's end is on record");
    world.assert_intact();
}

#[test]
fn what_a_gone_instance_left_is_cleared_once_there_is_room() {
    // What it left is cleared after twice that time.
    const RECLAIM: Duration = Duration::from_millis(1500);
    let settings = format!("delivery: {{reclaim_idle_ms: {}}}\n", RECLAIM.as_millis());
    let world = World::with(World::PAIR, &settings);
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("gone"), beta.session("b"));
    let _a = alpha.session("a");
    let asked = alpha.request("gone", "beta", "{}", 20_000).unwrap();
    let asking = b.next();
    drop(a);
    until("it has left", || {
        instance_entry(&world, "alpha", "gone").is_some_and(|entry| !entry.starts_with("s:"))
    });
    beta.reply("b", &asked, "{\"ok\":true}").unwrap();
    b.ack(&asking.id);
    fill(&world, &alpha);
    until("nothing else waits", || world.redis.len(INBOX) == 0);
    let cleared = || instance_entry(&world, "alpha", "gone").is_none();
    pass(RECLAIM * 2 + Duration::from_millis(500));
    assert!(!cleared(), "nothing was removed while a reply could not be made a dead letter");
    make_room(&world);
    until("its reply is a dead letter", || world.redis.len("dlq:messages") == 1);
    until("it is forgotten", cleared);
    world.assert_intact();
}
