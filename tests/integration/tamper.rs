//! A trail that a real server wrote under real traffic, and what becomes of it in hostile hands: everything is
//! found. What needs the anchor is found with it, and without it the command says what it cannot know.

use std::collections::{BTreeMap, HashMap};

use mas::audit::checkpoint::Checkpoint;
use mas::audit::lane::split_block;
use mas::audit::merkle::{Frontier, leaf_hash};
use mas::audit::note::SigningKey;
use mas::audit::{Action, Decision, Record};
use serde_json::Value;

use crate::support::World;

const AGENTS: &str = "\
permissions:
  - {type: allow_bidirectional, agents: [alpha, beta]}
agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: gamma}]
";

/// A block: its records' bytes, the stored root, and its tag.
#[derive(Clone)]
struct Block {
    id: String,
    records: Vec<Vec<u8>>,
    root: Vec<u8>,
    tag: Vec<u8>,
}

/// A copy of what is in Redis.
#[derive(Clone, Default)]
struct Trail {
    lanes: BTreeMap<String, Vec<Block>>,
    registry: BTreeMap<String, String>,
    notes: Vec<(String, String)>,
}

type Stream = Vec<(String, Vec<(String, Vec<u8>)>)>;

impl Trail {
    fn read(world: &World) -> Self {
        let mut trail = Self { registry: world.redis.query(&["HGETALL", "audit:lanes"]), ..Self::default() };
        for key in world.redis.keys() {
            let Some(lane) = key.strip_prefix("audit:lane:") else {
                continue;
            };
            let stream: Stream = world.redis.query(&["XRANGE", &key, "-", "+"]);
            let blocks = stream
                .into_iter()
                .map(|(id, fields)| Block {
                    id,
                    records: split_block(&fields[0].1).unwrap().into_iter().map(<[u8]>::to_vec).collect(),
                    root: fields[1].1.clone(),
                    tag: fields[2].1.clone(),
                })
                .collect();
            let _ = trail.lanes.insert(lane.to_owned(), blocks);
        }
        let stream: Stream = world.redis.query(&["XRANGE", "audit:checkpoints", "-", "+"]);
        let note = |fields: &[(String, Vec<u8>)]| String::from_utf8(fields[0].1.clone()).unwrap();
        trail.notes = stream.into_iter().map(|(id, fields)| (id, note(&fields))).collect();
        trail
    }

    fn write(&self, world: &World) {
        let mut connection = world.redis.connection();
        let mut pipe = redis::pipe();
        for key in world.redis.keys() {
            if key.starts_with("audit:") {
                let _ = pipe.cmd("DEL").arg(key).ignore();
            }
        }
        for (lane, blocks) in &self.lanes {
            for block in blocks {
                let mut bytes = Vec::new();
                for record in &block.records {
                    bytes.extend_from_slice(&(record.len() as u32).to_be_bytes());
                    bytes.extend_from_slice(record);
                }
                let key = format!("audit:lane:{lane}");
                let _ = pipe
                    .cmd("XADD")
                    .arg(key)
                    .arg(&block.id)
                    .arg("b")
                    .arg(bytes)
                    .arg("h")
                    .arg(&block.root)
                    .arg("t")
                    .arg(&block.tag)
                    .ignore();
            }
        }
        for (lane, description) in &self.registry {
            let _ = pipe.cmd("HSET").arg("audit:lanes").arg(lane).arg(description).ignore();
        }
        for (id, note) in &self.notes {
            let _ = pipe.cmd("XADD").arg("audit:checkpoints").arg(id).arg("n").arg(note).ignore();
        }
        pipe.query::<()>(&mut connection).unwrap();
    }

    /// The lane with the most records.
    fn longest(&self) -> String {
        let records = |blocks: &Vec<Block>| blocks.iter().map(|block| block.records.len()).sum::<usize>();
        self.lanes.iter().max_by_key(|(_, blocks)| records(blocks)).unwrap().0.clone()
    }

    fn blocks(&mut self, lane: &str) -> &mut Vec<Block> {
        self.lanes.get_mut(lane).unwrap()
    }

    /// Where each record of a lane is: its block and its place in it.
    fn places(&self, lane: &str) -> Vec<(usize, usize)> {
        let blocks = self.lanes[lane].iter().enumerate();
        blocks.flat_map(|(at, block)| (0..block.records.len()).map(move |n| (at, n))).collect()
    }

    /// Makes a lane consistent again: sequences, senders' numbers, entry ids and roots, as its writer would.
    fn recompute(&mut self, lane: &str) {
        let (mut tree, mut senders) = (Frontier::default(), HashMap::<String, u64>::new());
        let blocks = self.blocks(lane);
        blocks.retain(|block| !block.records.is_empty());
        for block in blocks {
            block.id = format!("{}-0", tree.size() + 1);
            for bytes in &mut block.records {
                let mut record = Record::decode(bytes).unwrap();
                record.seq = tree.size() + 1;
                if record.sender_seq > 0 {
                    let count = senders.entry(record.agent.clone()).or_default();
                    *count += 1;
                    record.sender_seq = *count;
                }
                *bytes = record.encode();
                tree.push(leaf_hash(bytes));
            }
            block.root = tree.root().to_vec();
        }
    }
}

/// What the command says.
struct Verdict {
    code: i32,
    report: Value,
}

impl Verdict {
    fn kinds(&self) -> Vec<&str> {
        self.report["damages"].as_array().unwrap().iter().map(|d| d["kind"].as_str().unwrap()).collect()
    }

    fn says(&self, what: &str) -> bool {
        self.report["not_shown"].as_array().unwrap().iter().any(|line| line.as_str().unwrap().contains(what))
    }
}

/// A world with a history, its trail as it was halfway, and as it is now. The server has stopped.
struct Scene {
    world: World,
    halfway: Trail,
    trail: Trail,
}

impl Scene {
    fn new() -> Self {
        let mut world =
            World::with(AGENTS, "delivery: {reclaim_idle_ms: 300, max_attempts: 2, retry_backoff_ms: [1]}\n");
        world.set_gateway(
            "rate_limit: {per_minute: 100000, per_hour: 1000000}, audit: {checkpoint_interval_ms: 100}",
        );
        let mut server = world.server();
        let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
        let (a, b) = (alpha.session("a"), beta.session("b"));
        let mut halfway = Trail::default();
        for round in 0..30 {
            alpha.send("a", "beta", "{\"x\":1}").unwrap();
            b.take();
            alpha.send("a", "gamma", "{}").unwrap_err();
            let correlation = alpha.request("a", "beta", "{}", 5000).unwrap();
            b.take();
            beta.reply("b", &correlation, "{\"ok\":true}").unwrap();
            a.take();
            alpha.send("a", "beta", "{\"ssn\":\"123-45-6789\"}").unwrap();
            b.take();
            if round == 15 {
                // A message that nobody can handle.
                alpha.send("a", "beta", "{}").unwrap();
                b.nack(&b.next().id, "no", false);
                let before = Trail::read(&world).notes.len();
                crate::support::until("a checkpoint", || Trail::read(&world).notes.len() > before + 1);
                halfway = Trail::read(&world);
            }
        }
        drop((a, b));
        server.stop();
        let trail = Trail::read(&world);
        let scene = Self { world, halfway, trail };
        let verdict = scene.verify(&[]);
        assert_eq!((verdict.code, verdict.kinds()), (0, vec![]), "{}", verdict.report);
        assert_eq!(verdict.report["unsealed"], 0);
        scene
    }

    /// As an auditor sees it who has no store key: what signatures and hashes alone can show.
    fn verify(&self, args: &[&str]) -> Verdict {
        self.verify_with_key(&[args, &["--no-store-key"]].concat())
    }

    fn verify_with_key(&self, args: &[&str]) -> Verdict {
        let words: Vec<&str> = ["audit", "verify", "--json"].iter().chain(args).copied().collect();
        let output = self.world.mas(&words);
        let text = String::from_utf8(output.stdout).unwrap();
        let report = serde_json::from_str(&text)
            .unwrap_or_else(|e| panic!("{e}: {text:?} {}", String::from_utf8_lossy(&output.stderr)));
        Verdict { code: output.status.code().unwrap(), report }
    }

    /// With this trail in Redis, the command finds `kind`, and so does it without the anchor.
    #[track_caller]
    fn found(&self, what: &str, trail: &Trail, kind: &str) {
        trail.write(&self.world);
        for args in [&[][..], &["--no-anchor"]] {
            let verdict = self.verify(args);
            assert_eq!(verdict.code, 3, "{what} {args:?}: {}", verdict.report);
            assert!(verdict.kinds().contains(&kind), "{what} {args:?}: {}", verdict.report);
        }
        let verdict = self.verify_with_key(&["--no-anchor"]);
        assert_eq!(verdict.code, 3, "{what} with the store key: {}", verdict.report);
    }

    /// With this trail in Redis, the anchor shows it; without the anchor the command says what it cannot know. All that
    /// it can find is a message that was done, as the trail said, and does not wait.
    #[track_caller]
    fn found_by_anchor(&self, what: &str, trail: &Trail, kind: &str, not_shown: &str) {
        trail.write(&self.world);
        let verdict = self.verify(&[]);
        assert_eq!(verdict.code, 3, "{what}: {}", verdict.report);
        assert!(verdict.kinds().contains(&kind), "{what}: {}", verdict.report);
        let verdict = self.verify(&["--no-anchor"]);
        let kinds = verdict.kinds();
        assert!(kinds.iter().all(|kind| *kind == "message_missing"), "{what}: {}", verdict.report);
        assert_eq!(verdict.code, if kinds.is_empty() { 0 } else { 3 }, "{what}: {}", verdict.report);
        assert!(verdict.says(not_shown), "{what}: {}", verdict.report);
    }
}

#[test]
fn records_that_are_deleted_doubled_swapped_or_put_in_are_found() {
    let scene = Scene::new();
    let lane = scene.trail.longest();
    let places = scene.trail.places(&lane);
    let middle = places.len() / 2;
    for (name, at) in [("first", 0), ("middle", middle), ("last", places.len() - 1)] {
        let (block, n) = places[at];
        let mut trail = scene.trail.clone();
        drop(trail.blocks(&lane)[block].records.remove(n));
        let kind = match trail.blocks(&lane)[block].records.len() {
            0 => "malformed",
            // What comes behind it in its block has moved up.
            left if n < left => "wrong_sequence",
            _ => "hash_mismatch",
        };
        scene.found(&format!("{name} record cut out"), &trail, kind);

        let mut trail = scene.trail.clone();
        drop(trail.blocks(&lane).remove(block));
        let kind = if at == places.len() - 1 { "truncated" } else { "gap" };
        scene.found(&format!("{name} block deleted"), &trail, kind);

        // And everything behind it made consistent again: the signatures know.
        let mut trail = scene.trail.clone();
        drop(trail.blocks(&lane)[block].records.remove(n));
        if at > 0 {
            trail.recompute(&lane);
            trail.write(&scene.world);
            for args in [&[][..], &["--no-anchor"]] {
                let verdict = scene.verify(args);
                assert_eq!(verdict.code, 3, "{name} consistently: {}", verdict.report);
                let kinds = verdict.kinds();
                assert!(kinds.contains(&"rewritten") || kinds.contains(&"truncated"), "{kinds:?}");
            }
        }
    }
    let (block, n) = places[middle];
    let mut doubled = scene.trail.clone();
    let record = doubled.blocks(&lane)[block].records[n].clone();
    doubled.blocks(&lane)[block].records.insert(n, record);
    scene.found("doubled", &doubled, "wrong_sequence");

    let mut swapped = scene.trail.clone();
    let (other, m) = places[middle + 3];
    let (one, two) =
        (swapped.blocks(&lane)[block].records[n].clone(), swapped.blocks(&lane)[other].records[m].clone());
    swapped.blocks(&lane)[block].records[n] = two;
    swapped.blocks(&lane)[other].records[m] = one;
    scene.found("swapped", &swapped, "wrong_sequence");

    let mut inserted = scene.trail.clone();
    let mut forged = Record::decode(&scene.trail.lanes[&lane][block].records[n]).unwrap();
    forged.reason = "forged".to_owned();
    inserted.blocks(&lane)[block].records.insert(n, forged.encode());
    scene.found("inserted", &inserted, "wrong_sequence");
    inserted.recompute(&lane);
    scene.found("inserted consistently", &inserted, "rewritten");
    scene.trail.write(&scene.world);
    assert_eq!(scene.verify(&[]).code, 0);
}

/// Changes one field of a record.
type Edit = (&'static str, fn(&mut Record));

const EDITS: [Edit; 22] = [
    ("seq", |r| r.seq += 1),
    ("time", |r| r.time_us += 1),
    ("action", |r| r.action = if r.action == Action::Send { Action::Request } else { Action::Send }),
    ("decision", |r| {
        r.decision = if r.decision == Decision::Allowed { Decision::Refused } else { Decision::Allowed };
    }),
    ("attempt", |r| r.attempt += 1),
    ("payload_len", |r| r.payload_len += 1),
    ("agent", |r| r.agent.push('x')),
    ("instance", |r| r.instance.push('x')),
    ("fingerprint", |r| r.fingerprint = vec![7; 32]),
    ("message_id", |r| r.message_id = Some(uuid::Uuid::nil())),
    ("message_type", |r| r.message_type.push('x')),
    ("target", |r| r.target.push('x')),
    ("target_instance", |r| r.target_instance.push('x')),
    ("correlation_id", |r| r.correlation_id = "0".repeat(32)),
    ("payload_digest", |r| r.payload_digest = vec![7; 32]),
    ("rule", |r| r.rule.push('x')),
    ("reason", |r| r.reason.push('x')),
    ("policy_version", |r| r.policy_version = vec![7; 32]),
    ("findings", |r| r.findings.push_str("[]")),
    ("messages", |r| r.messages.push((uuid::Uuid::nil(), 1))),
    ("sender_seq", |r| r.sender_seq += 1),
    ("trace", |r| r.trace.push('x')),
];

#[test]
fn every_edited_field_is_found() {
    let scene = Scene::new();
    let lane = scene.trail.longest();
    let places = scene.trail.places(&lane);
    // A decision on a message, not the opening record.
    let decides = |&(block, n): &(usize, usize)| {
        let record = Record::decode(&scene.trail.lanes[&lane][block].records[n]).unwrap();
        record.action == Action::Send && record.decision == Decision::Allowed
    };
    let (block, n) = *places.iter().skip(places.len() / 2).find(|place| decides(place)).unwrap();
    for (field, edit) in EDITS {
        let mut trail = scene.trail.clone();
        let bytes = &mut trail.blocks(&lane)[block].records[n];
        let mut record = Record::decode(bytes).unwrap();
        let before = record.clone();
        edit(&mut record);
        assert_ne!(record, before, "{field}");
        *bytes = record.encode();
        trail.write(&scene.world);
        let verdict = scene.verify(&["--no-anchor"]);
        assert_eq!(verdict.code, 3, "{field}: {}", verdict.report);
        let first = &verdict.report["damages"][0];
        assert_eq!(first["lane"], lane.as_str(), "{field}: {first}");
        // With the lane made consistent again.
        trail.recompute(&lane);
        if !matches!(field, "seq" | "sender_seq") {
            scene.found(field, &trail, "rewritten");
        }
    }
}

#[test]
fn a_lane_that_is_dropped_copied_or_cut_is_found() {
    let scene = Scene::new();
    let lane = scene.trail.longest();
    let mut dropped = scene.trail.clone();
    drop(dropped.lanes.remove(&lane));
    scene.found("dropped", &dropped, "lane_missing");
    drop(dropped.registry.remove(&lane));
    scene.found("dropped with its registration", &dropped, "lane_missing");
    let mut unlisted = scene.trail.clone();
    drop(unlisted.registry.remove(&lane));
    scene.found("unlisted", &unlisted, "lane_unlisted");

    let mut copied = scene.trail.clone();
    let copy = format!("{}9", lane);
    let _ = copied.lanes.insert(copy.clone(), scene.trail.lanes[&lane].clone());
    let _ = copied.registry.insert(copy, "{}".to_owned());
    scene.found("copied under another name", &copied, "not_opened");

    let mut cut = scene.trail.clone();
    let keep = cut.lanes[&lane].len() - 2;
    cut.blocks(&lane).truncate(keep);
    scene.found("tail cut off", &cut, "truncated");
    // And the checkpoints that know of it cut off, too.
    let records: usize = cut.lanes[&lane].iter().map(|block| block.records.len()).sum();
    let seals = |note: &str| {
        let text = mas::audit::note::text_of(note).unwrap();
        Checkpoint::parse(text)
            .unwrap()
            .lane(&mas::audit::LaneId::from_stored(&lane))
            .map(|head| head.head.seq)
    };
    cut.notes.retain(|(_, note)| seals(note).is_some_and(|size| size <= records as u64));
    scene.found_by_anchor("tail cut off with its checkpoints", &cut, "truncated", "rolled back");
}

/// Refusals for want of a permission have become another decision in a trail without checkpoints.
fn rewritten_refusals(trail: &Trail, decision: Decision) -> Trail {
    let mut rewritten = trail.clone();
    let lanes: Vec<String> = rewritten.lanes.keys().cloned().collect();
    for lane in &lanes {
        for block in rewritten.blocks(lane) {
            for bytes in &mut block.records {
                let mut record = Record::decode(bytes).unwrap();
                if record.decision == Decision::AuthzDenied {
                    record.decision = decision;
                }
                *bytes = record.encode();
            }
        }
        rewritten.recompute(lane);
    }
    rewritten.notes.clear();
    rewritten
}

#[test]
fn permissions_that_were_never_given_are_found_without_the_anchor() {
    let scene = Scene::new();
    // What was permitted must wait somewhere.
    rewritten_refusals(&scene.trail, Decision::Allowed).write(&scene.world);
    let verdict = scene.verify(&["--no-anchor"]);
    assert_eq!(verdict.code, 3, "{}", verdict.report);
    assert!(verdict.kinds().contains(&"message_missing"), "{}", verdict.report);
}

#[test]
fn a_trail_that_is_rewritten_or_rolled_back_as_a_whole_is_found_with_the_anchor() {
    let scene = Scene::new();
    // Every refusal has another reason; all roots and numbers fit; no checkpoint is left to contradict.
    let mut rewritten = rewritten_refusals(&scene.trail, Decision::RateLimited);
    scene.found_by_anchor("rewritten", &rewritten, "rewritten", "rewritten as a whole");
    rewritten.notes.clone_from(&scene.trail.notes);
    scene.found("rewritten beside the old checkpoints", &rewritten, "rewritten");

    scene.found_by_anchor("rolled back", &scene.halfway, "truncated", "rolled back");

    // An old state on which a server has gone on: what was signed meanwhile contradicts it, in Redis too.
    scene.halfway.write(&scene.world);
    let mut server = scene.world.server();
    server.stop();
    for args in [&[][..], &["--no-anchor"]] {
        let verdict = scene.verify(args);
        assert_eq!(verdict.code, 3, "{args:?}: {}", verdict.report);
        let kinds = verdict.kinds();
        assert!(kinds.contains(&"truncated") || kinds.contains(&"checkpoint_unlinked"), "{kinds:?}");
    }
}

#[test]
fn a_lane_with_two_continuations_is_found() {
    let scene = Scene::new();
    let lane = scene.trail.longest();
    let mut forked = scene.trail.clone();
    let blocks = forked.blocks(&lane);
    // The second half is another history: the same requests, decided otherwise.
    let half = blocks.len() / 2;
    for block in blocks.iter_mut().skip(half) {
        for bytes in &mut block.records {
            let mut record = Record::decode(bytes).unwrap();
            record.time_us += 1;
            *bytes = record.encode();
        }
    }
    forked.recompute(&lane);
    scene.found("forked", &forked, "rewritten");
}

#[test]
fn checkpoints_that_are_old_foreign_or_missing_are_found() {
    let scene = Scene::new();
    let last = scene.trail.notes.len() - 1;
    let mut replayed = scene.trail.clone();
    let old = replayed.notes[1].1.clone();
    replayed.notes.push(("99999999999999-0".to_owned(), old));
    scene.found("replayed", &replayed, "checkpoint_repeated");
    let mut missing = scene.trail.clone();
    drop(missing.notes.remove(last / 2));
    scene.found("missing", &missing, "checkpoint_missing");

    let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
    let text = mas::audit::note::text_of(&scene.trail.notes[last].1).unwrap();
    let checkpoint = Checkpoint::parse(text).unwrap();
    let mut foreign = scene.trail.clone();
    foreign.notes[last].1 = checkpoint.sign(&key).unwrap();
    scene.found("signed with another key", &foreign, "newer_key");
    // In the name of another log, with all that belongs to it.
    let history = mas::audit::KeyHistory::new(&key);
    let other = Checkpoint { origin: history.origin().to_owned(), ..checkpoint };
    foreign.notes[last].1 = other.sign(&key).unwrap();
    scene.found("signed for another log", &foreign, "other_log");
    let mut garbled = scene.trail.clone();
    garbled.notes[last].1 = "nothing\u{1b}[2J".to_owned();
    scene.found("no note", &garbled, "not_signed");
}

#[test]
fn a_message_that_nobody_was_allowed_to_send_is_found_in_its_inbox() {
    let scene = Scene::new();
    let forged = uuid::Uuid::now_v7();
    let envelope = |id: &str| format!("{{\"message_id\":\"{id}\",\"sender_id\":\"alpha\"}}");
    let add = |id: &str| -> String {
        scene.world.redis.query(&["XADD", "agent.stream:beta", "*", "envelope", &envelope(id)])
    };
    // Of before this server.
    let _ = (add("0001"), add(&uuid::Uuid::new_v4().to_string()));
    let verdict = scene.verify(&[]);
    assert_eq!(verdict.code, 0, "{}", verdict.report);
    assert_eq!(verdict.report["messages"]["older"], 2);
    assert!(verdict.says("without the store keys"), "{}", verdict.report);
    // Who has the store key sees that no server has written them.
    let verdict = scene.verify_with_key(&[]);
    assert_eq!((verdict.code, verdict.kinds()), (3, vec!["not_attested"; 2]), "{}", verdict.report);
    let entry = add(&forged.to_string());
    let verdict = scene.verify(&[]);
    assert_eq!((verdict.code, verdict.kinds()), (3, vec!["not_recorded"]), "{}", verdict.report);
    assert_eq!(verdict.report["damages"][0]["entry"], entry);
    assert_eq!(verdict.report["damages"][0]["stream"], "agent.stream:beta");
    assert_eq!(scene.verify_with_key(&[]).kinds(), ["not_attested"; 3]);
}

#[test]
fn the_anchor_itself_is_checked() {
    let scene = Scene::new();
    let path = scene.world.path().join("audit-anchor.jsonl");
    let anchor = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = anchor.lines().collect();
    let with = |lines: &[&str]| {
        std::fs::write(&path, format!("{}\n", lines.join("\n"))).unwrap();
        scene.verify(&[])
    };
    let mut cut = lines.clone();
    let _ = cut.remove(lines.len() / 2);
    assert_eq!(with(&cut).kinds(), ["checkpoint_missing"]);
    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    assert!(with(&swapped).kinds().contains(&"checkpoint_missing"));
    let mut garbled = lines.clone();
    garbled[2] = "nothing";
    assert!(with(&garbled).kinds().contains(&"not_signed"));
    // An auditor's copy of an earlier day, and one that is cut in the middle of a line.
    assert_eq!(with(&lines[..lines.len() / 2]).code, 0);
    std::fs::write(&path, &anchor[..anchor.len() - 9]).unwrap();
    let verdict = scene.verify(&[]);
    assert_eq!(verdict.code, 0, "{}", verdict.report);
    assert!(verdict.says("not finished"));
}
