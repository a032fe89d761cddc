//! What one agent does on one server costs neither the agents beside it nor the servers beside that one.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::send_to;
use crate::support::{Client, Session, World, until};

/// How long the two servers fight over one state.
const FIGHT: Duration = Duration::from_secs(4);
const AGENTS: &str = "\
permissions:
  - {type: allow_broadcast, sender: alpha, receivers: [beta]}
  - {type: allow_broadcast, sender: gamma, receivers: [beta]}
agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: gamma}, {agent_id: rival}]
";

#[test]
fn conflicts_over_one_state_refuse_no_other_agents_message() {
    let world = World::with(AGENTS, "limits: {max_streams_per_connection: 1000}\n");
    let redis = format!("url: '{}', socket_timeout: 2", world.redis.url());
    let servers = [world.server_with(1, &redis), world.server_with(1, &redis)];
    let senders = ["alpha", "gamma"].map(|agent| world.client(&servers[0], agent));
    let _sessions = senders.each_ref().map(|client| client.session("s"));
    let rivals = servers.each_ref().map(|server| world.client(server, "rival"));
    // What takes a while to be looked through makes the first server's rounds longer than the other one's.
    let words = "Lorem 4711 ipsum dolor sit amet, 12-34-56 consectetur 0815 adipiscing elit. ".repeat(800);
    let payload = format!("{{\"x\":\"{words}\"}}");
    let over = AtomicBool::new(false);
    let refusals = Mutex::new(Vec::new());
    let (mut sent, mut updates) = (0, 0);
    std::thread::scope(|scope| {
        let updating: Vec<_> = [&rivals[0], &rivals[0], &rivals[1], &rivals[1], &rivals[1], &rivals[1]]
            .into_iter()
            .map(|rival| {
                scope.spawn(|| {
                    let mut done = 0;
                    while !over.load(Ordering::SeqCst) {
                        done += usize::from(rival.update_state(&[("x", "1")]).is_ok());
                    }
                    done
                })
            })
            .collect();
        let sending: Vec<_> = (0..8)
            .map(|n| {
                let (client, payload, refusals, over) = (&senders[n % 2], &payload, &refusals, &over);
                scope.spawn(move || {
                    let mut done = 0;
                    while !over.load(Ordering::SeqCst) {
                        match client.send("s", "beta", payload) {
                            Ok(_) => done += 1,
                            Err(refused) => refusals.lock().unwrap().push(refused.details),
                        }
                    }
                    done
                })
            })
            .collect();
        crate::support::pass(FIGHT);
        over.store(true, Ordering::SeqCst);
        updates = updating.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>();
        sent = sending.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>();
    });
    let refusals = refusals.into_inner().unwrap();
    assert!(sent > 0 && updates > 0, "{sent} sent, {updates} updates");
    let some: Vec<&String> = refusals.iter().take(3).collect();
    assert!(
        refusals.is_empty(),
        "{} refused beside {sent} sent and {updates} updates: {some:?}",
        refusals.len()
    );
}

/// Messages that each session leaves unacknowledged.
const LEFT: usize = 10_000;
const ROUNDS: usize = 5;
/// What a server that has no part in it may grow by. What it would remember of so many entries is 8 MiB or more.
const MAX_GROWTH_KIB: u64 = 4 * 1024;

/// Puts `count` messages into beta's inbox, as any server does.
pub(super) fn fill(world: &World, envelope: &str, count: usize) {
    let mut connection = world.redis.connection();
    let mut pipe = redis::pipe();
    let fields = world.entry_fields("agent.stream:beta", envelope);
    for _ in 0..count {
        let command = pipe.cmd("XADD").arg("agent.stream:beta").arg("*");
        for (name, value) in &fields {
            command.arg(name).arg(value);
        }
        command.ignore();
    }
    let _: () = pipe.query(&mut connection).unwrap();
}

/// A session that takes deliveries in batches.
fn batched(client: &Client, instance: &str) -> Session {
    let session = client.stream();
    session.hello_batched(instance);
    session
}

/// Takes `count` deliveries and acknowledges them, or does not.
fn take(session: &Session, count: usize, acknowledge: bool) {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(session.next().id);
        if acknowledge && ids.len() == 250 {
            session.ack_all(std::mem::take(&mut ids));
        }
    }
    if acknowledge {
        session.ack_all(ids);
    }
}

#[test]
fn a_server_remembers_nothing_of_what_sessions_elsewhere_left_to_each_other() {
    let world = World::with(
        World::PAIR,
        "delivery: {reclaim_idle_ms: 100, max_in_flight: 10000, reclaim_batch_size: 1000}\n\
         limits: {max_queue_len: 1000000}\n",
    );
    let (bystander, server) = (world.server(), world.server());
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let envelope = {
        let _a = alpha.session("a");
        alpha
            .send_raw(&mas::protocol::SendRequest { instance_id: "a".to_owned(), ..send_to("beta", "{}") })
            .unwrap();
        let entries = world.redis.entries("agent.stream:beta");
        let envelope = entries[0].1[0].1.clone();
        let first = batched(&beta, "first");
        take(&first, 1, true);
        until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
        envelope
    };
    let round = |n: usize, count: usize| {
        fill(&world, &envelope, count);
        let leaving = batched(&beta, &format!("l{n}"));
        take(&leaving, count, false);
        drop(leaving);
        let heir = batched(&beta, &format!("h{n}"));
        take(&heir, count, true);
        until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
    };
    round(0, 1000);
    let before = bystander.rss_kib();
    (1..=ROUNDS).for_each(|n| round(n, LEFT));
    let grown = bystander.rss_kib().saturating_sub(before);
    assert!(grown < MAX_GROWTH_KIB, "{before} KiB and {grown} more after {} entries", ROUNDS * LEFT);
}
