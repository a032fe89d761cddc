//! The server is killed at random points under load, again and again: every acknowledged message has its
//! record, every effect has its record, and the trail verifies each time. How often: `MAS_TEST_KILLS`.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mas::audit::lane::split_block;
use mas::audit::merkle::leaf_hash;
use mas::audit::{Action, Decision, Record};
use mas::protocol::{Receipt, SendRequest};

use crate::support::{Blocks, Client, Server, World, until};

/// Kills in the suite.
const KILLS: usize = 4;
/// A kill comes after at most so many acknowledged messages.
const MAX_ACKNOWLEDGED: usize = 1500;
/// Calls that are under way at once.
const CALLS: usize = 24;

const AGENTS: &str = "\
permissions:
  - {type: allow_broadcast, sender: alpha, receivers: [beta, gamma]}
  - {type: allow_broadcast, sender: beta, receivers: [alpha, gamma]}
agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: gamma}]
";

/// What the server has said before it died.
#[derive(Default)]
struct Heard {
    acknowledged: Mutex<Vec<(String, Receipt)>>,
    count: AtomicUsize,
    delivered: Mutex<HashSet<String>>,
    over: AtomicBool,
}

fn send(client: &Client, instance: &str, caller: usize, heard: &Heard) {
    for n in 0.. {
        if heard.over.load(Ordering::SeqCst) {
            return;
        }
        let target = if n % 5 == 4 { "nobody" } else { "gamma" };
        let request = SendRequest {
            target_id: target.to_owned(),
            message_type: "load".to_owned(),
            data_json: format!("{{\"caller\":{caller},\"n\":{n}}}"),
            instance_id: instance.to_owned(),
            ..SendRequest::default()
        };
        match client.send_raw(&request) {
            Ok(response) => {
                let receipt = response.receipt.into_option().expect("a receipt");
                heard.acknowledged.lock().unwrap().push((response.message_id, receipt));
                heard.count.fetch_add(1, Ordering::SeqCst);
            }
            Err(refused) if refused.details == "not_authorized" => {}
            // The server is dead.
            Err(_) => return,
        }
    }
}

fn receive(client: &Client, heard: &Heard) {
    let Ok(session) = client.try_session("g") else {
        return;
    };
    while !heard.over.load(Ordering::SeqCst) {
        let Some(delivered) = session.try_next(Duration::from_millis(20)) else {
            continue;
        };
        let Ok(delivered) = delivered else {
            return;
        };
        heard.delivered.lock().unwrap().insert(delivered.message_id().to_owned());
        session.ack(&delivered.id);
    }
}

/// Loads the server until it has acknowledged so many messages, and kills it.
fn load_and_kill(world: &World, server: &mut Server, after: usize) -> Heard {
    let heard = Heard::default();
    let clients = [world.client(server, "alpha"), world.client(server, "beta")];
    let receiver = world.client(server, "gamma");
    let sessions: Vec<_> = clients.iter().map(|client| client.session("i")).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| receive(&receiver, &heard));
        for caller in 0..CALLS {
            let (client, heard) = (&clients[caller % 2], &heard);
            scope.spawn(move || send(client, "i", caller, heard));
        }
        until("enough is acknowledged", || heard.count.load(Ordering::SeqCst) >= after);
        server.kill();
        heard.over.store(true, Ordering::SeqCst);
    });
    drop(sessions);
    heard
}

/// The records of the lanes that the receipts name, by lane and sequence.
fn records(world: &World, lanes: &HashSet<&str>) -> HashMap<(String, u64), (Vec<u8>, Record)> {
    let mut found = HashMap::new();
    for lane in lanes {
        let blocks: Blocks = world.redis.query(&["XRANGE", &format!("audit:lane:{lane}"), "-", "+"]);
        for (_, fields) in blocks {
            for part in split_block(&fields[0].1).unwrap() {
                let record = Record::decode(part).unwrap();
                found.insert(((*lane).to_owned(), record.seq), (part.to_vec(), record));
            }
        }
    }
    found
}

fn check(world: &World, heard: &Heard, kill: usize) {
    let acknowledged = heard.acknowledged.lock().unwrap();
    let lanes: HashSet<&str> = acknowledged.iter().map(|(_, receipt)| receipt.lane.as_str()).collect();
    let records = records(world, &lanes);
    let mut accepted = HashSet::new();
    for (id, receipt) in acknowledged.iter() {
        let place = (receipt.lane.clone(), receipt.sequence);
        let (bytes, record) =
            records.get(&place).unwrap_or_else(|| panic!("kill {kill}: {place:?} of {id} is lost"));
        assert_eq!(leaf_hash(bytes).as_slice(), receipt.record_hash, "kill {kill}: {id}");
        assert_eq!(record.message_id.map(|id| id.to_string()).as_deref(), Some(id.as_str()));
        assert_eq!((record.action, record.decision), (Action::Send, Decision::Allowed));
        assert_eq!(record.sender_seq, receipt.sender_sequence);
        accepted.insert(id.clone());
    }
    // What came was on record first; some of it was accepted in an earlier life, or its answer was lost.
    let on_record: HashSet<String> = records
        .values()
        .filter(|(_, record)| record.action == Action::Send && record.decision == Decision::Allowed)
        .filter_map(|(_, record)| record.message_id.map(|id| id.to_string()))
        .collect();
    let earlier: HashSet<String> = heard.delivered.lock().unwrap().difference(&on_record).cloned().collect();
    if !earlier.is_empty() {
        let all: HashSet<String> =
            world.records().iter().filter_map(|record| record.message_id.map(|id| id.to_string())).collect();
        assert!(earlier.is_subset(&all), "kill {kill}: delivered without a record");
    }
    // Every effect: what waits in the inboxes is joined with the trail by the command.
    let (code, report) = world.verify();
    assert_eq!(code, 0, "kill {kill}: {report}");
    let waiting = world.redis.len("agent.stream:gamma") as u64;
    assert!(report["messages"]["waiting"].as_u64().unwrap() >= waiting, "kill {kill}: {report}");
    println!(
        "kill {kill}: {} acknowledged, {} delivered, {} records, {waiting} wait",
        accepted.len(),
        heard.delivered.lock().unwrap().len(),
        report["records"]
    );
}

#[test]
fn killed_at_random_points_under_load_nothing_acknowledged_is_off_the_record() {
    let kills = std::env::var("MAS_TEST_KILLS").map_or(KILLS, |text| text.parse().expect("a number"));
    let mut world = World::with(AGENTS, "delivery: {reclaim_idle_ms: 300}\n");
    world.set_gateway(
        "rate_limit: {per_minute: 10000000, per_hour: 100000000}, audit: {checkpoint_interval_ms: 100}",
    );
    for kill in 1..=kills {
        let mut server = world.server();
        let random = uuid::Uuid::new_v4().as_u128() as usize;
        let heard = load_and_kill(&world, &mut server, random % MAX_ACKNOWLEDGED);
        check(&world, &heard, kill);
    }
}
