//! What a start finds: forged records and lanes are not signed; another key does not join; an older Redis is taken over.

use std::collections::HashMap;

use mas::audit::lane::{Lane, LaneId, split_block};
use mas::audit::merkle::{Frontier, leaf_hash};
use mas::audit::{Action, Decision, Fields, Record};
use mas::clock::Now;
use mas::ids::hex;
use serde_json::Value;

use super::{BETA, Scene, fresh_id, kinds};
use crate::support::{World, until};

type Stream = Vec<(String, Vec<(String, Vec<u8>)>)>;

fn add_block(world: &World, lane: &str, first: u64, bytes: &[u8], root: &[u8]) {
    let mut command = redis::cmd("XADD");
    command
        .arg(format!("audit:lane:{lane}"))
        .arg(format!("{first}-0"))
        .arg("b")
        .arg(bytes)
        .arg("h")
        .arg(root);
    let _: String = command.query(&mut world.redis.connection()).unwrap();
}

fn allowed(message: uuid::Uuid) -> Fields<'static> {
    Fields { agent: "alpha", target: "beta", message_id: Some(message), ..Fields::default() }
}

/// A lane as its writer would make it, but for the tag.
fn forged_lane(world: &World, message: uuid::Uuid) -> String {
    let id = LaneId::new(uuid::Uuid::now_v7(), 0, 1);
    let mut lane = Lane::new(id.clone());
    lane.open(Now::read(), "boot", &[7; 32]);
    let _ = lane.append_counted(Now::read(), Action::Send, Decision::Allowed, &allowed(message));
    let block = lane.block().unwrap();
    add_block(world, id.as_str(), block.first_seq, block.bytes, block.hash);
    let _: i64 = world.redis.query(&["HSET", "audit:lanes", id.as_str(), "{}"]);
    id.to_string()
}

/// A further record behind the end of a lane, consistent with what is there.
fn append_record(world: &World, lane: &str, message: uuid::Uuid) {
    let blocks: Stream = world.redis.query(&["XRANGE", &format!("audit:lane:{lane}"), "-", "+"]);
    let mut tree = Frontier::default();
    let mut sender_seq = 0;
    for (_, fields) in &blocks {
        for part in split_block(&fields[0].1).unwrap() {
            tree.push(leaf_hash(part));
            let record = Record::decode(part).unwrap();
            sender_seq = if record.agent == "alpha" { record.sender_seq.max(sender_seq) } else { sender_seq };
        }
    }
    let seq = tree.size() + 1;
    let mut bytes = Vec::new();
    let fields = Fields { sender_seq: sender_seq + 1, ..allowed(message) };
    mas::audit::record::encode(
        &mut bytes,
        seq,
        Now::read().unix_us,
        Action::Send,
        Decision::Allowed,
        &fields,
    );
    tree.push(leaf_hash(&bytes));
    let mut block = (bytes.len() as u32).to_be_bytes().to_vec();
    block.extend_from_slice(&bytes);
    add_block(world, lane, seq, &block, &tree.root());
}

fn lanes(world: &World) -> Vec<String> {
    let listed: HashMap<String, String> = world.redis.query(&["HGETALL", "audit:lanes"]);
    let mut lanes: Vec<String> = listed.into_keys().collect();
    lanes.sort();
    lanes
}

/// The newest checkpoint's text.
fn newest_note(world: &World) -> String {
    let notes: Stream = world.redis.query(&["XREVRANGE", "audit:checkpoints", "+", "-", "COUNT", "1"]);
    String::from_utf8(notes[0].1[0].1.clone()).unwrap()
}

fn verify(world: &World, args: &[&str]) -> (i32, Value) {
    let output = world.mas(&[&["audit", "verify", "--json"], args].concat());
    (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn forged_records_are_neither_signed_nor_proven_and_their_messages_not_delivered() {
    let scene = Scene::new();
    scene.goes_on(0);
    until("it is acknowledged", || scene.world.redis.len(BETA) == 0);
    let Scene { world, mut server, a, b, alpha, beta } = scene;
    drop((a, b, alpha, beta));
    let world = &world;
    let envelope = super::envelope(&fresh_id());
    server.stop();
    let own = lanes(world);
    let messages = [uuid::Uuid::now_v7(), uuid::Uuid::now_v7()];
    let forged = forged_lane(world, messages[0]);
    append_record(world, &own[0], messages[1]);
    let _: String = world.redis.query(&["XADD", BETA, "*", "envelope", &envelope]);
    let (code, report) = verify(world, &[]);
    assert_eq!(code, 3, "{report}");
    assert_eq!(kinds(&report).iter().filter(|kind| **kind == "not_attested").count(), 3, "{report}");
    // Started on it, the server signs what servers have written, and no more.
    let server = world.server();
    until("it has signed", || {
        newest_note(world).contains(&own[0]) || world.redis.len("audit:checkpoints") > 2
    });
    let notes: Stream = world.redis.query(&["XRANGE", "audit:checkpoints", "-", "+"]);
    for (_, fields) in &notes {
        assert!(!String::from_utf8_lossy(&fields[0].1).contains(&forged), "the forged lane was signed");
    }
    for message in messages {
        let proof = world.mas(&["audit", "proof", "--message-id", &message.to_string()]);
        assert_ne!(proof.status.code(), Some(0), "{}", String::from_utf8_lossy(&proof.stdout));
    }
    let differs: Vec<Record> =
        world.records().into_iter().filter(|record| record.action.as_str() == "trail_differs").collect();
    let named: Vec<&str> = differs.iter().map(|record| record.target.as_str()).collect();
    assert!(named.contains(&forged.as_str()) && named.contains(&own[0].as_str()), "{named:?}");
    let beta = world.client(&server, "beta");
    let b = beta.session("b");
    until("the message is put aside", || world.redis.len("mas.foreign") == 1);
    let held = b.next_within(std::time::Duration::from_millis(50));
    assert!(held.is_none(), "{held:?}");
    let (code, report) = verify(world, &[]);
    assert_eq!(code, 3, "{report}");
}

#[test]
fn junk_among_the_lanes_stops_no_start() {
    let mut scene = Scene::new();
    scene.goes_on(0);
    scene.server.stop();
    let own = lanes(&scene.world).pop().unwrap();
    let _ = scene.redis(&["SET", "audit:lane:x", "no stream"]);
    let _ = scene.redis(&["HSET", "audit:lanes", "y", "{\"operator\":\"z\"}"]);
    // The block that a checkpoint would be about says that it holds another number of records.
    let key = format!("audit:lane:{own}");
    let last: Stream = scene.world.redis.query(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]);
    let (id, fields) = &last[0];
    let parts = split_block(&fields[0].1).unwrap();
    let mut bytes = fields[0].1.clone();
    bytes.extend_from_slice(&(parts[0].len() as u32).to_be_bytes());
    bytes.extend_from_slice(parts[0]);
    let _ = scene.redis(&["XDEL", &key, id]);
    let mut dump: Stream = scene.world.redis.query(&["XRANGE", &key, "-", "+"]);
    let _ = scene.redis(&["DEL", &key]);
    dump.push((id.clone(), vec![("b".to_owned(), bytes), fields[1].clone(), fields[2].clone()]));
    for (id, fields) in &dump {
        let mut command = redis::cmd("XADD");
        command.arg(&key).arg(id);
        for (name, value) in fields {
            command.arg(name).arg(value);
        }
        let _: String = command.query(&mut scene.world.redis.connection()).unwrap();
    }
    let server = scene.world.server();
    let (alpha, beta) = (scene.world.client(&server, "alpha"), scene.world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a2"), beta.session("b2"));
    alpha.send("a2", "beta", "{}").unwrap();
    b.take();
    let _ = scene.redis(&["DEL", "audit:lane:x"]);
    let differs =
        scene.world.records().into_iter().filter(|record| record.action.as_str() == "trail_differs");
    let named: Vec<String> = differs.map(|record| record.target).collect();
    assert!(named.contains(&"x".to_owned()) && named.contains(&own), "{named:?}");
}

#[test]
fn records_put_into_a_running_servers_lane_are_found_at_once() {
    let scene = Scene::new();
    scene.goes_on(0);
    let forged = forged_lane(&scene.world, uuid::Uuid::now_v7());
    let (code, report) = scene.verify(&["--no-anchor"]);
    assert_eq!(code, 3, "{report}");
    assert_eq!(report["damages"][0]["kind"], "not_attested", "{report}");
    assert_eq!(report["damages"][0]["lane"], forged, "{report}");
}

#[test]
fn an_operators_command_is_sealed_while_the_server_runs_and_without_one() {
    let mut scene = Scene::new();
    let sealed_lane = |output: &std::process::Output| {
        let said = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(said.contains("sealed by"), "{said}");
        said.split("lane ").nth(1).unwrap().split(',').next().unwrap().to_owned()
    };
    for round in 0..2 {
        let lane = sealed_lane(&scene.world.mas(&["state", "set", "alpha", "a=1"]));
        // Erased afterwards, it shows.
        let (code, report) = scene.verify(&[]);
        assert_eq!((code, kinds(&report)), (0, vec![]), "{round}: {report}");
        let key = format!("audit:lane:{lane}");
        let dump: Vec<u8> = scene.world.redis.query(&["DUMP", &key]);
        let entry: String = scene.world.redis.query(&["HGET", "audit:lanes", &lane]);
        let _ = scene.redis(&["DEL", &key]);
        let _ = scene.redis(&["HDEL", "audit:lanes", &lane]);
        let (code, report) = scene.verify(&[]);
        assert_eq!(code, 3, "{round}: {report}");
        assert!(kinds(&report).contains(&"lane_missing"), "{round}: {report}");
        let mut restore = redis::cmd("RESTORE");
        let _: String =
            restore.arg(&key).arg(0).arg(dump).query(&mut scene.world.redis.connection()).unwrap();
        let _ = scene.redis(&["HSET", "audit:lanes", &lane, &entry]);
        scene.world.assert_intact();
        if round == 0 {
            scene.server.stop();
        }
    }
}

#[test]
fn a_server_and_a_command_with_another_key_refuse_to_join_and_say_why() {
    let mut scene = Scene::new();
    scene.goes_on(0);
    let key = scene.world.path().join("keys/store.key");
    let own = std::fs::read_to_string(&key).unwrap();
    let other = format!("mas store keys 1\n{} from 0\n", hex(&[7; 32]));
    std::fs::write(&key, other).unwrap();
    let config = scene.world.config_path();
    let args = ["--threads", "1", "--listen", "127.0.0.1:0", "--config", config.to_str().unwrap()];
    let output = scene.world.mas_server(&args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("store_key_path") && said.contains("mas.store_key"), "{said}");
    let output = scene.world.mas(&["state", "reset", "alpha"]);
    assert_ne!(output.status.code(), Some(0));
    assert!(String::from_utf8(output.stderr).unwrap().contains("store_key_path"));
    // The server that runs goes on with its own.
    scene.goes_on(1);
    // Without the file a start makes another one: refused as well.
    std::fs::remove_file(&key).unwrap();
    assert_eq!(scene.world.mas_server(&args).status.code(), Some(2));
    std::fs::write(&key, own).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    scene.server.stop();
    let mut server = scene.world.server();
    server.stop();
    scene.world.assert_intact();
}

#[test]
fn a_key_that_is_added_makes_tags_when_its_time_has_come() {
    let scene = Scene::new();
    let before = scene.world.store_keys().newest_name();
    let output = scene.world.mas(&["audit", "key", "rotate-store", "--after", "0s"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    until("the server has taken it up", || {
        scene.world.records().iter().any(|record| record.action.as_str() == "store_key_changed")
    });
    let keys = scene.world.store_keys();
    assert_ne!(keys.newest_name(), before);
    scene.alpha.update_state(&[("a", "1")]).unwrap();
    scene.goes_on(1);
    scene.alpha.update_state(&[("b", "1")]).unwrap();
    assert_eq!(scene.alpha.state().unwrap().len(), 2);
    scene.world.assert_intact();
}

/// Beta's instance `gone` reads one message.
fn read_one(world: &World) {
    let group = ["GROUP", "agents", "beta-gone", "COUNT", "1", "STREAMS", BETA, ">"];
    let _: redis::Value = world.redis.query(&[["XREADGROUP"].as_slice(), &group].concat());
}

#[test]
fn what_an_older_version_left_is_taken_over_once_and_said_to_be() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 300}\n");
    let message = uuid::Uuid::now_v7();
    let older = forged_lane(&world, message);
    // One was acknowledged and stayed in its stream, as the Python server leaves it; another is in the hands of an
    // instance that is gone.
    let _: String = world.redis.query(&["XGROUP", "CREATE", BETA, "agents", "0", "MKSTREAM"]);
    let done: String = world.redis.query(&["XADD", BETA, "1-1", "envelope", &super::envelope("done")]);
    read_one(&world);
    let _: i64 = world.redis.query(&["XACK", BETA, "agents", &done]);
    let mut ids = Vec::new();
    for n in 0..3 {
        let id = if n == 0 { message.to_string() } else { format!("000{n}") };
        let _: String = world.redis.query(&["XADD", BETA, "*", "envelope", &super::envelope(&id)]);
        ids.push(id);
    }
    read_one(&world);
    let letter = super::envelope(&fresh_id());
    let dead = [
        "XADD",
        "dlq:messages",
        "*",
        "envelope",
        &letter,
        "agent_id",
        "beta",
        "reason",
        "old",
        "stream",
        BETA,
    ];
    let _: String = world.redis.query(&dead);
    let _: i64 = world.redis.query(&["HSET", "agent.state:alpha", "a", "1"]);
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let b = beta.session("b");
    for id in &ids {
        let delivered = b.next();
        assert_eq!(delivered.message_id(), id);
        b.ack(&delivered.id);
    }
    assert_eq!(alpha.state().unwrap()["a"], "1");
    let letters = world.redis.entries("dlq:messages");
    assert_eq!(letters.len(), 1);
    assert_eq!(world.mas(&["dlq", "redrive", &letters[0].0]).status.code(), Some(0));
    b.ack(&b.next().id);
    until("all is acknowledged", || world.redis.len(BETA) == 0);
    let (code, report) = verify(&world, &[]);
    assert_eq!((code, kinds(&report)), (0, vec![]), "{report}");
    assert_eq!(report["taken_over_records"], 2, "{report}");
    assert!(report["messages"]["taken_over"].as_u64().unwrap() >= 2, "{report}");
    let proof = world.mas(&["audit", "proof", "--message-id", &ids[0]]);
    assert_ne!(proof.status.code(), Some(0), "{}", String::from_utf8_lossy(&proof.stdout));
    for _ in 0..2 {
        assert!(!newest_note(&world).contains(&older), "nobody vouches for an older lane");
        server.stop();
        server = world.server();
    }
    // It was the first start that took over: what comes later without a tag is a stranger's.
    server.stop();
    let _: String = world.redis.query(&["XADD", BETA, "*", "envelope", &super::envelope(&fresh_id())]);
    let server = world.server();
    let b = world.client(&server, "beta").session("b");
    until("it is put aside", || world.redis.len("mas.foreign") == 1);
    drop(b);
    assert!(
        !world
            .records()
            .iter()
            .any(|record| { record.action.as_str() == "trail_differs" && record.target == older })
    );
}
