//! A server that others have declared void changes nothing any more, whatever it had to do.

use std::collections::BTreeMap;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::send_numbers;
use crate::support::{Client, Delivered, Server, Session, World, pass, until};

/// What is done for the server while it is stopped: so long until all of it waits in its sockets.
const QUEUED: Duration = Duration::from_millis(300);

/// What the server may not touch: all but leases, and checkpoints, which only sign what is there.
fn contents(world: &World) -> BTreeMap<String, Vec<u8>> {
    let mut contents = world.redis.contents();
    let may_change = ["mas.server:", "mas.turn:", "audit:checkpoints"];
    contents.retain(|key, _| !may_change.iter().any(|prefix| key.starts_with(prefix)));
    contents
}

/// What another server does with one whose lease has run out.
fn fence(world: &World) -> String {
    let servers: Vec<String> = world.redis.query(&["HKEYS", "mas.servers"]);
    let [id] = servers.as_slice() else { panic!("one server: {servers:?}") };
    let mut connection = world.redis.connection();
    let _: () = redis::pipe()
        .atomic()
        .cmd("SET")
        .arg(format!("mas.fence:{id}"))
        .arg("fenced")
        .arg("PX")
        .arg(7 * 24 * 3_600_000_u64)
        .cmd("DEL")
        .arg(format!("mas.server:{id}"))
        .cmd("HDEL")
        .arg("mas.servers")
        .arg(id)
        .query(&mut connection)
        .unwrap();
    id.clone()
}

/// Everything that a stopped server has clients for.
struct Scene {
    world: World,
    server: Server,
    alpha: Client,
    _a: Session,
    b: Session,
    held: Vec<Delivered>,
}

impl Scene {
    /// A server with two sessions, of which one may hold `credit` messages and holds ten. Nothing of it is under way.
    fn new(credit: usize) -> Self {
        let world = World::with(World::PAIR, &format!("delivery: {{max_in_flight: {credit}}}\n"));
        // One worker: another one that notices first would end the process.
        let server = world.server_with(1, &format!("url: '{}', socket_timeout: 2", world.redis.url()));
        let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
        let (a, b) = (alpha.session("a"), beta.session("b"));
        send_numbers(&alpha, "a", "beta", 0..10);
        let held = (0..10).map(|_| b.next()).collect();
        let recorded = || {
            let records = world.records();
            records
                .iter()
                .filter(|r| r.action.as_str() == "delivered")
                .map(|r| r.messages.len())
                .sum::<usize>()
        };
        until("the deliveries are on record", || recorded() == 10);
        Self { world, server, alpha, _a: a, b, held }
    }

    /// Stops the server and leaves it `calls` to answer; has it fenced, and `meanwhile` happen; continues it.
    fn stopped_and_fenced(
        mut self,
        calls: usize,
        meanwhile: impl FnOnce(&World, &str, &Session, &[Delivered]),
    ) {
        self.server.halt();
        let (before, after) = std::thread::scope(|scope| {
            for n in 0..calls {
                let alpha = &self.alpha;
                scope.spawn(move || {
                    let answer = alpha.send("a", "beta", &format!("{{\"late\":{n}}}"));
                    assert!(answer.is_err(), "accepted by a server that is void");
                });
            }
            let id = fence(&self.world);
            meanwhile(&self.world, &id, &self.b, &self.held);
            pass(QUEUED);
            let before = contents(&self.world);
            self.server.signal(Signal::SIGCONT);
            assert_eq!(self.server.wait_code(), Some(1), "it noticed, and ended");
            (before, contents(&self.world))
        });
        let keys = |contents: &BTreeMap<String, Vec<u8>>| contents.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&before), keys(&after), "keys came or went");
        let changed: Vec<&String> = before.keys().filter(|key| before.get(*key) != after.get(*key)).collect();
        assert!(
            changed.is_empty(),
            "{changed:?} changed; pending: {:?}",
            self.world.redis.pending("agent.stream:beta")
        );
    }
}

fn cut_connections(world: &World) {
    for kind in ["normal", "pubsub"] {
        let _: i64 = world.redis.query(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]);
    }
}

fn ids(held: &[Delivered]) -> Vec<String> {
    held.iter().map(|delivered| delivered.id.clone()).collect()
}

/// What another server does that has something for beta.
fn add_as_another_server(world: &World, id: &str) {
    let entries = world.redis.entries("agent.stream:beta");
    let (_, envelope) = entries[0].1.iter().find(|(field, _)| field == "envelope").unwrap();
    for stream in ["agent.stream:beta", "agent.stream:beta:b"] {
        let _ = world.add_entry(stream, envelope);
    }
    let _: u64 = world.redis.query(&["PUBLISH", &format!("mas.news:{id}"), "inboxes beta"]);
}

#[test]
fn a_fenced_server_whose_connections_broke_changes_nothing() {
    Scene::new(10).stopped_and_fenced(4, |world, _, _, _| cut_connections(world));
}

#[test]
fn a_fenced_server_whose_connections_broke_acknowledges_nothing() {
    Scene::new(10).stopped_and_fenced(4, |world, _, b, held| {
        b.ack_all(ids(held));
        cut_connections(world);
    });
}

#[test]
fn a_fenced_server_whose_connections_hold_accepts_nothing() {
    Scene::new(10).stopped_and_fenced(4, |_, _, _, _| {});
}

#[test]
fn a_fenced_server_whose_connections_hold_acknowledges_nothing() {
    Scene::new(10).stopped_and_fenced(0, |_, _, b, held| b.ack_all(ids(held)));
}

#[test]
fn a_fenced_server_whose_connections_hold_buries_nothing() {
    Scene::new(10).stopped_and_fenced(0, |_, _, b, held| {
        held.iter().for_each(|delivered| b.nack(&delivered.id, "no", false));
    });
}

#[test]
fn a_fenced_server_whose_connections_hold_reads_nothing() {
    Scene::new(100).stopped_and_fenced(0, |world, id, _, _| add_as_another_server(world, id));
}

#[test]
fn a_fenced_server_whose_connections_hold_says_of_nobody_that_he_is_there() {
    Scene::new(10).stopped_and_fenced(0, |world, id, _, _| {
        // Others have seen to its sessions.
        let _: u64 = world.redis.query(&["HSET", "agent:beta", "status", "INACTIVE"]);
        let _: u64 = world.redis.query(&["PUBLISH", &format!("mas.news:{id}"), "inboxes beta"]);
    });
}

#[test]
fn a_fenced_server_whose_sessions_end_leaves_its_instances_to_others() {
    for cut in [true, false] {
        Scene::new(10).stopped_and_fenced(0, |world, _, b, _| {
            // Another server has the instance by now.
            let other = format!("s:{}", mas::ids::ServerId::new());
            let _: u64 = world.redis.query(&["HSET", "agent.instances:beta", "b", &other]);
            b.half_close();
            if cut {
                cut_connections(world);
            }
        });
    }
}
