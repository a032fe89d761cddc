//! What was accepted and is not in Redis any more: somebody removed it. That is said, it is on record, and everything
//! else goes on.

use std::time::Duration;

use super::send_numbers;
use crate::support::{Server, Session, World, until, within};

/// Until a server must have noticed: what it knows comes up again after `reclaim_idle_ms`, here 300.
const NOTICED: Duration = Duration::from_secs(4);
/// Exit code of `mas audit verify` where something is wrong.
const NOT_VERIFIED: i32 = 3;
const INBOX: &str = "agent.stream:beta";

/// Whether the trail says of the agent that something of it vanished.
fn is_on_record(world: &World) -> bool {
    world.records().iter().any(|record| {
        let names = record.agent == "beta" || record.target.contains("beta");
        let says = record.action.as_str().contains("vanish") || record.reason.contains("vanish");
        names && says
    })
}

/// Whether the log warns of it.
fn is_logged(world: &World, known: usize) -> bool {
    let logged = world.logged();
    let new = logged.get(known..).unwrap_or_default();
    new.lines().any(|line| (line.contains("WARN") || line.contains("ERROR")) && line.contains("beta"))
}

/// Five messages of which one session holds three; what is removed; then the session ends and another one comes.
fn removed_under_a_session(remove: impl FnOnce(&World)) {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 300, max_in_flight: 3}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    send_numbers(&alpha, "a", "beta", 0..5);
    for _ in 0..3 {
        b.next();
    }
    let logged = world.logged().len();
    remove(&world);
    drop(b);
    let heir = beta.session("heir");
    goes_on(&world, &server, &heir);
    within(NOTICED, "it is logged", || is_logged(&world, logged));
    within(NOTICED, "it is on record", || is_on_record(&world));
    // After a restart as well.
    drop((heir, server));
    let server = world.server();
    let heir = world.client(&server, "beta").session("heir");
    goes_on(&world, &server, &heir);
    world.assert_intact();
}

/// Later messages arrive, and the inbox empties.
fn goes_on(world: &World, server: &Server, session: &Session) {
    let sender = world.client(server, "alpha");
    let instance = format!("s{}", world.records().len());
    let _s = sender.session(&instance);
    sender.send(&instance, "beta", "{\"n\":100}").unwrap();
    loop {
        let delivered = session.next();
        session.ack(&delivered.id);
        if delivered.data()["n"] == 100 {
            break;
        }
    }
    until("the inbox is empty", || {
        while let Some(delivered) = session.next_within(Duration::from_millis(20)) {
            session.ack(&delivered.id);
        }
        world.redis.len(INBOX) == 0 && world.redis.pending(INBOX).is_empty()
    });
}

#[test]
fn messages_that_were_trimmed_away_are_missed_aloud() {
    removed_under_a_session(|world| {
        let trimmed: u64 = world.redis.query(&["XTRIM", INBOX, "MAXLEN", "0"]);
        assert_eq!(trimmed, 5);
    });
}

#[test]
fn a_held_message_that_was_deleted_is_missed_aloud() {
    removed_under_a_session(|world| {
        let (entry, ..) = world.redis.pending(INBOX).swap_remove(1);
        let deleted: u64 = world.redis.query(&["XDEL", INBOX, &entry]);
        assert_eq!(deleted, 1);
    });
}

#[test]
fn an_inbox_that_was_deleted_is_missed_aloud() {
    removed_under_a_session(|world| {
        let deleted: u64 = world.redis.query(&["DEL", INBOX]);
        assert_eq!(deleted, 1);
    });
}

#[test]
fn waiting_messages_that_were_trimmed_away_are_missed_aloud() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    send_numbers(&alpha, "a", "beta", 0..5);
    let logged = world.logged().len();
    let _: u64 = world.redis.query(&["XTRIM", INBOX, "MAXLEN", "0"]);
    let b = beta.session("b");
    goes_on(&world, &server, &b);
    within(NOTICED, "it is logged", || is_logged(&world, logged));
    within(NOTICED, "it is on record", || is_on_record(&world));
    world.assert_intact();
}

#[test]
fn messages_that_were_trimmed_away_between_two_runs_are_missed_aloud() {
    let world = World::new();
    let mut server = world.server();
    {
        let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
        let (_a, b) = (alpha.session("a"), beta.session("b"));
        send_numbers(&alpha, "a", "beta", 0..3);
        for _ in 0..3 {
            b.next();
        }
        server.kill();
    }
    let _: u64 = world.redis.query(&["XTRIM", INBOX, "MAXLEN", "0"]);
    let logged = world.logged().len();
    let server = world.server();
    let heir = world.client(&server, "beta").session("heir");
    goes_on(&world, &server, &heir);
    within(NOTICED, "it is logged", || is_logged(&world, logged));
    within(NOTICED, "it is on record", || is_on_record(&world));
    world.assert_intact();
}

/// Whether `mas audit verify` misses messages: its exit code, and how many of the given ids it names.
fn missed_by_verify(world: &World, ids: &[String]) -> (i32, usize) {
    let (code, report) = world.verify();
    let damages = report["damages"].as_array().unwrap();
    let names = |id: &String| {
        damages.iter().any(|damage| damage["kind"] == "message_missing" && damage["message"] == id.as_str())
    };
    assert_eq!(damages.len(), ids.iter().filter(|id| names(id)).count(), "{report}");
    (code, damages.len())
}

#[test]
fn waiting_messages_that_vanished_beside_two_servers_are_missed_by_verify() {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    let (alpha, beta) = (world.client(&one, "alpha"), world.client(&two, "beta"));
    let _a = alpha.session("a");
    let ids: Vec<String> = (0..5).map(|_| alpha.send("a", "beta", "{}").unwrap()).collect();
    world.assert_intact();
    let trimmed: u64 = world.redis.query(&["XTRIM", INBOX, "MAXLEN", "2"]);
    assert_eq!(trimmed, 3);
    assert_eq!(missed_by_verify(&world, &ids[..3]), (NOT_VERIFIED, 3));
    // The others go on, and nothing else is missed.
    let b = beta.session("b");
    for _ in 0..2 {
        b.take();
    }
    until("the inbox is empty", || world.redis.len(INBOX) == 0);
    assert_eq!(missed_by_verify(&world, &ids[..3]), (NOT_VERIFIED, 3));
}

#[test]
fn what_a_server_noticed_is_no_damage_and_is_counted() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let a = alpha.session("a");
    send_numbers(&alpha, "a", "beta", 0..5);
    let _: u64 = world.redis.query(&["XTRIM", INBOX, "MAXLEN", "0"]);
    let _b = beta.session("b");
    within(NOTICED, "it is on record", || is_on_record(&world));
    drop(a);
    let (code, report) = world.verify();
    assert_eq!(
        (code, &report["messages"]["vanished"], &report["messages"]["waiting"]),
        (0, &5.into(), &0.into())
    );
    // What vanishes later is another matter.
    let id = beta.send("b", "alpha", "{}").unwrap();
    let _: u64 = world.redis.query(&["DEL", "agent.stream:alpha"]);
    assert_eq!(missed_by_verify(&world, &[id]), (NOT_VERIFIED, 1));
}
