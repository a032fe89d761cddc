//! Signed checkpoints: in the anchor and in Redis, over every record, by the key of their time.

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use mas::archive::{ArchiveError, Part, Reading, Wanted};
use mas::audit::keys::KeyHistory;
use mas::audit::segment::Item;
use mas::audit::{Checkpoint, LaneId, Record};
use nix::sys::signal::Signal;

use crate::support::{Server, World, until};

impl World {
    fn key_path(&self) -> PathBuf {
        self.path().join("keys/audit.ed25519")
    }

    fn anchor_path(&self) -> PathBuf {
        self.path().join("audit-anchor.jsonl")
    }

    fn history(&self) -> KeyHistory {
        let text = std::fs::read_to_string(self.path().join("keys/audit.ed25519.pub")).unwrap();
        KeyHistory::parse(&text).unwrap()
    }

    /// The notes of the anchor; a line that is being written is left out.
    fn anchored(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.anchor_path()).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let lines = whole.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        lines.map(|line| line["note"].as_str().unwrap().to_owned()).collect()
    }

    fn in_redis(&self) -> Vec<String> {
        let entries: Vec<(String, Vec<(String, String)>)> =
            self.redis.query(&["XRANGE", "audit:checkpoints", "-", "+"]);
        entries.into_iter().map(|(_, fields)| fields[0].1.clone()).collect()
    }

    /// The anchor's checkpoints, each signed by the key of its time, chained to the one before.
    fn checkpoints(&self) -> Vec<Checkpoint> {
        let history = self.history();
        let mut before: Option<(Checkpoint, [u8; 32])> = None;
        let mut all = Vec::new();
        for note in self.anchored() {
            let (checkpoint, hash) = Checkpoint::open(&note, &history).unwrap();
            match &before {
                Some((last, last_hash)) => {
                    assert_eq!(checkpoint.previous, *last_hash);
                    assert!(checkpoint.time_ms > last.time_ms);
                    let same_boot = checkpoint.boot == last.boot;
                    assert_eq!(checkpoint.counter, if same_boot { last.counter + 1 } else { 1 });
                    assert!(!same_boot || checkpoint.size >= last.size);
                }
                None => assert_eq!((checkpoint.counter, checkpoint.previous), (1, [0; 32])),
            }
            before = Some((checkpoint.clone(), hash));
            all.push(checkpoint);
        }
        all
    }

    /// Records in each lane of Redis.
    fn lanes(&self) -> Vec<(LaneId, u64)> {
        let keys = self.redis.keys().into_iter();
        let names: Vec<String> =
            keys.filter_map(|key| key.strip_prefix("audit:lane:").map(str::to_owned)).collect();
        let count = |name: &String| {
            let blocks: crate::support::Blocks =
                self.redis.query(&["XRANGE", &format!("audit:lane:{name}"), "-", "+"]);
            let parts = |bytes: &Vec<u8>| mas::audit::lane::split_block(bytes).unwrap().len() as u64;
            blocks.iter().map(|(_, fields)| parts(&fields[0].1)).sum()
        };
        names.iter().map(|name| (LaneId::from_stored(name), count(name))).collect()
    }

    fn record_of(&self, action: &str) -> Vec<Record> {
        self.records().into_iter().filter(|record| record.action.as_str() == action).collect()
    }
}

fn with_interval(interval_ms: u64) -> World {
    let mut world = World::new();
    world.set_gateway(&format!("audit: {{checkpoint_interval_ms: {interval_ms}}}"));
    world
}

/// Waits for so many checkpoints that did not exist before.
fn wait_for(world: &World, more: usize) {
    let before = world.anchored().len();
    until("further checkpoints", || world.anchored().len() >= before + more);
}

fn some_messages(world: &World, server: &Server) {
    let (alpha, beta) = (world.client(server, "alpha"), world.client(server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for _ in 0..10 {
        alpha.send("a", "beta", "{}").unwrap();
        b.take();
    }
}

#[test]
fn checkpoints_go_on_when_nothing_happens() {
    let world = with_interval(50);
    let mut server = world.server();
    wait_for(&world, 5);
    server.stop();
    let checkpoints = world.checkpoints();
    assert!(checkpoints.len() >= 6);
    assert!(checkpoints.iter().all(|checkpoint| checkpoint.boot == checkpoints[0].boot));
}

#[test]
fn the_last_checkpoint_covers_every_record_and_redis_has_them_all() {
    let world = with_interval(100);
    let mut server = world.server();
    some_messages(&world, &server);
    server.stop();
    let checkpoints = world.checkpoints();
    let last = checkpoints.last().unwrap();
    let lanes = world.lanes();
    for (lane, records) in &lanes {
        assert_eq!(last.lane(lane).unwrap().head.seq, *records, "{lane}");
    }
    assert_eq!(last.size, lanes.iter().map(|(_, records)| records).sum::<u64>());
    assert_eq!(world.in_redis(), world.anchored());
    world.assert_intact();
}

#[test]
fn a_restart_goes_on_from_the_anchor_and_covers_what_a_kill_left() {
    let world = with_interval(60_000);
    let mut server = world.server();
    some_messages(&world, &server);
    server.kill();
    let unsealed = world.lanes();
    assert_eq!(world.checkpoints().len(), 1);
    let mut server = world.server();
    let checkpoints = world.checkpoints();
    let first = &checkpoints[1];
    assert_eq!(first.counter, 1);
    for (lane, records) in &unsealed {
        assert_eq!(first.lane(lane).unwrap().head.seq, *records, "{lane}");
    }
    server.stop();
    assert_eq!(world.in_redis(), world.anchored());
    let started = world.record_of("server_started");
    assert_eq!(started.len(), 2);
    assert!(started[0].rule.starts_with("mas-server ") && started[0].target.starts_with("127.0.0.1:"));
    assert_eq!(world.record_of("server_stopped").len(), 1);
    assert_eq!(world.record_of("trail_differs"), []);
    assert!(!world.logged().contains("rolled back"));
}

#[test]
fn a_key_that_is_replaced_signs_from_its_time_on() {
    let world = with_interval(50);
    let mut server = world.server();
    let shown = world.mas(&["audit", "key", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["keys"].as_array().unwrap().len(), 1);
    for _ in 0..3 {
        wait_for(&world, 2);
        let rotated = world.mas(&["audit", "key", "rotate"]);
        assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
    }
    server.signal(Signal::SIGHUP);
    wait_for(&world, 2);
    server.stop();
    // Every checkpoint is by the key of its time.
    world.checkpoints();
    let history = world.history();
    assert_eq!(history.keys().count(), 4);
    let changed = world.record_of("signing_key_changed");
    assert_eq!(changed.last().unwrap().target, history.newest().to_string());
    let mode = std::fs::metadata(world.key_path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // The next start goes on with it.
    world.server().stop();
    world.checkpoints();
}

#[test]
fn a_key_that_others_can_read_and_an_anchor_of_another_log_are_refused() {
    let world = World::new();
    world.server().stop();
    std::fs::set_permissions(world.key_path(), PermissionsExt::from_mode(0o644)).unwrap();
    let refused = world.mas_server(&["--config", "mas.yaml"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("audit.ed25519"));

    for file in [world.key_path(), world.path().join("keys/audit.ed25519.pub")] {
        std::fs::remove_file(file).unwrap();
    }
    let refused = world.mas_server(&["--config", "mas.yaml"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("audit-anchor.jsonl"));
}

#[test]
fn a_redis_that_was_rolled_back_is_named_and_served() {
    let world = World::new();
    let mut server = world.server();
    some_messages(&world, &server);
    server.stop();
    let (lane, _) = world.lanes().into_iter().max_by_key(|(_, records)| *records).unwrap();
    let key = format!("audit:lane:{lane}");
    let newest: crate::support::Blocks = world.redis.query(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]);
    let _: i64 = world.redis.query(&["XDEL", &key, &newest[0].0]);
    let mut server = world.server();
    some_messages(&world, &server);
    server.stop();
    assert!(world.logged().contains("Redis was rolled back or altered"));
    let differs = world.record_of("trail_differs");
    assert_eq!(differs.len(), 1);
    assert_eq!(
        (differs[0].target.as_str(), differs[0].reason.as_str()),
        (lane.as_str(), "trail_rolled_back")
    );
    world.checkpoints();
}

#[test]
fn a_rollback_that_only_another_hosts_anchor_knows_of_is_named_too() {
    let mut world = World::new();
    let log = "{public_key_path: keys/audit.ed25519.pub, anchor_path: other-anchor.jsonl}";
    world.set_gateway(&format!("audit: {{logs: [{log}]}}"));
    let mut server = world.server();
    some_messages(&world, &server);
    server.stop();
    // As a host has it that was not there: its own anchor knows nothing, it has a copy of the other one's.
    std::fs::rename(world.path().join("audit-anchor.jsonl"), world.path().join("other-anchor.jsonl"))
        .unwrap();
    let (lane, _) = world.lanes().into_iter().max_by_key(|(_, records)| *records).unwrap();
    let key = format!("audit:lane:{lane}");
    let newest: crate::support::Blocks = world.redis.query(&["XREVRANGE", &key, "+", "-", "COUNT", "1"]);
    let _: i64 = world.redis.query(&["XDEL", &key, &newest[0].0]);
    let mut server = world.server();
    server.stop();
    let differs = world.record_of("trail_differs");
    assert_eq!(differs.len(), 1, "{}", world.logged());
    assert_eq!(differs[0].target.as_str(), lane.as_str());
}

#[test]
fn a_server_that_cannot_listen_signs_nothing_and_public_keys_can_be_read() {
    let world = World::new();
    let server = world.server();
    let config = world.path().join("other.yaml");
    let text = std::fs::read_to_string(world.config_path()).unwrap();
    let own = "gateway: {audit: {anchor_path: other-anchor.jsonl, archive_dir: other-archive}, ";
    assert!(text.contains("gateway: {"), "{text}");
    std::fs::write(&config, text.replace("gateway: {", own)).unwrap();
    let refused = world.mas_server(&["--config", "other.yaml", "--listen", &server.addr]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains(&server.addr), "{refused:?}");
    assert!(!world.path().join("other-anchor.jsonl").exists());
    let folder = world.key_path().parent().unwrap().to_path_buf();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o711);
    assert_eq!(mode(&folder.join("audit.ed25519.pub")), 0o644);
    assert_eq!(mode(&world.key_path()), 0o600);
}

#[test]
fn what_redis_missed_while_it_was_away_it_gets_later() {
    let mut world = with_interval(50);
    let mut server = world.server();
    wait_for(&world, 2);
    world.redis.kill();
    wait_for(&world, 5);
    world.redis.resume();
    until("Redis has what the anchor has", || world.in_redis().len() >= world.anchored().len() - 1);
    server.stop();
    world.checkpoints();
    assert_eq!(world.in_redis(), world.anchored());
}

#[test]
fn reload_and_revocation_are_on_record() {
    let mut world = World::new();
    let server = world.server();
    let digest = |record: &Record| record.reason.clone();
    world.set_agents(&format!("{}# changed\n", World::PAIR));
    server.signal(Signal::SIGHUP);
    until("the reload is on record", || !world.record_of("config_changed").is_empty());
    let changed = world.record_of("config_changed");
    let new = mas::ids::hex(&changed[0].policy_version);
    assert!(digest(&changed[0]).ends_with(&format!(" to {new}")), "{}", digest(&changed[0]));
    assert!(world.record_of("certificate_changed").is_empty());
    world.authority.issue_server(&["localhost".to_owned(), "127.0.0.1".to_owned()], 30).unwrap();
    server.signal(Signal::SIGHUP);
    until("the certificate is on record", || world.record_of("certificate_changed").len() == 1);
}

#[test]
fn an_anchor_that_cannot_be_written_shuts_admission() {
    let small = tempfile::tempdir().unwrap();
    if !mount(small.path()) {
        eprintln!("SKIPPED: a small file system cannot be mounted here (needs root)");
        return;
    }
    let mut world = World::new();
    let anchor = small.path().join("anchor.jsonl");
    world.set_gateway(&format!(
        "rate_limit: {{per_minute: 1000000, per_hour: 10000000}}, audit: {{checkpoint_interval_ms: 50, anchor_path: '{}'}}",
        anchor.display()
    ));
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    alpha.send("a", "beta", "{}").unwrap();
    std::fs::write(small.path().join("ballast"), vec![0; 4 << 20]).unwrap_err();
    until("admission is shut", || {
        alpha.send("a", "beta", "{}").is_err_and(|error| format!("{error:?}").contains("audit_unavailable"))
    });
    let logged = world.logged();
    assert_eq!(logged.matches("no checkpoint:").count(), 1, "{logged}");
    assert_eq!(logged.matches("were missed").count(), 1, "{logged}");
    std::fs::remove_file(small.path().join("ballast")).unwrap();
    until("admission is open", || alpha.send("a", "beta", "{}").is_ok());
    drop(server);
    let text = std::fs::read_to_string(&anchor).unwrap();
    assert!(text.lines().all(|line| line.starts_with("{\"note\":") && line.ends_with('}')));
    unmount(small.path());
}

#[test]
fn two_servers_with_one_key_seal_side_by_side() {
    let world = with_interval(50);
    let (mut one, mut two) = (world.server(), world.server());
    some_messages(&world, &one);
    wait_for(&world, 6);
    some_messages(&world, &two);
    one.stop();
    two.stop();
    let history = world.history();
    let mut boots: std::collections::BTreeMap<_, Vec<(Checkpoint, [u8; 32])>> = Default::default();
    let mut last_ms = 0;
    for note in world.anchored() {
        let (checkpoint, hash) = Checkpoint::open(&note, &history).unwrap();
        assert!(checkpoint.time_ms > last_ms);
        last_ms = checkpoint.time_ms;
        let chain = boots.entry(checkpoint.boot).or_default();
        assert_eq!(checkpoint.counter, chain.len() as u64 + 1);
        if let Some((_, before)) = chain.last() {
            assert_eq!(checkpoint.previous, *before);
        }
        chain.push((checkpoint, hash));
    }
    assert_eq!(boots.len(), 2);
    // Each lane's last head is in its own server's last checkpoint.
    for (lane, records) in world.lanes() {
        let sealed = boots.values().filter_map(|chain| chain.last()?.0.lane(&lane).cloned());
        assert_eq!(sealed.map(|sealed| sealed.head.seq).max(), Some(records), "{lane}");
    }
    let (mut here, mut there) = (world.in_redis(), world.anchored());
    here.sort();
    there.sort();
    assert_eq!(here, there);
}

fn with_retention(settings: &str) -> World {
    let mut world = World::new();
    world.set_gateway(&format!(
        "rate_limit: {{per_minute: 1000000, per_hour: 10000000}}, audit: {{checkpoint_interval_ms: 50, {settings}}}"
    ));
    world
}

fn live_records(world: &World) -> u64 {
    world.lanes().iter().map(|(_, records)| records).sum()
}

/// Every record of the archive and of Redis, in order and without a gap, and how many were archived.
fn assert_whole(world: &World) -> u64 {
    let mut next: std::collections::BTreeMap<String, u64> = Default::default();
    let mut archived = 0;
    let reading = Reading::open(&[world.path().join("archive")]).unwrap();
    let all = Wanted { whole: true, ..Wanted::default() };
    let read = reading.map(|mut reading| {
        reading.read::<ArchiveError>(all, &mut |part| {
            match part {
                Part::Item(Item::Lane { lane, before, .. }) => {
                    assert_eq!(next.entry(lane.clone().into_owned()).or_insert(1), &(before.size() + 1));
                }
                Part::Item(Item::Block { lane, first, bytes, .. }) => {
                    let next = next.get_mut(lane.as_ref()).unwrap();
                    assert_eq!(*first, *next);
                    let records = mas::audit::lane::split_block(bytes).unwrap().len() as u64;
                    *next += records;
                    archived += records;
                }
                Part::Item(Item::Checkpoint { note }) => {
                    drop(Checkpoint::open(note, &world.history()).unwrap());
                }
                Part::Passed(..) => panic!("everything is wanted"),
            }
            Ok(ControlFlow::Continue(()))
        })
    });
    let _ = read.transpose().unwrap();
    for (lane, _) in world.lanes() {
        let blocks: crate::support::Blocks =
            world.redis.query(&["XRANGE", &format!("audit:lane:{lane}"), "-", "+", "COUNT", "1"]);
        let Some((id, _)) = blocks.first() else {
            continue;
        };
        // What is on disk may be in Redis still.
        let (first, _) = id.split_once('-').unwrap();
        let behind = next.get(lane.as_str()).copied().unwrap_or(1);
        assert!(first.parse::<u64>().unwrap() <= behind, "{lane}: {id}, {behind}");
    }
    archived
}

#[test]
fn sealed_records_are_archived_and_then_trimmed() {
    let world = with_retention("max_records: 40, archive_dir: archive");
    let mut server = world.server();
    for _ in 0..3 {
        some_messages(&world, &server);
    }
    until("Redis holds no more than it may", || live_records(&world) <= 40);
    until("a segment is closed, and that is on record", || {
        some_messages(&world, &server);
        !world.record_of("archived").is_empty()
    });
    let closed = world.path().join("archive/segment-00000001.jsonl.zst");
    assert_eq!(std::fs::metadata(closed).unwrap().permissions().mode() & 0o777, 0o400);
    let archived = assert_whole(&world);
    assert!(archived > 0);
    let on_record = world.record_of("archived");
    assert!(on_record[0].target.starts_with("segment-") && on_record[0].reason.starts_with("sha256 "));
    server.kill();

    // The next start knows what was archived, goes on there, and removes the lanes that are done.
    let mut server = world.server();
    for _ in 0..3 {
        some_messages(&world, &server);
    }
    until("Redis holds no more than it may again", || live_records(&world) <= 40);
    server.stop();
    assert!(assert_whole(&world) > archived);
    assert_eq!(world.record_of("trail_differs"), []);
    let boots: std::collections::BTreeSet<String> =
        world.lanes().iter().map(|(lane, _)| lane.boot().to_owned()).collect();
    assert_eq!(boots.len(), 1, "lanes of the first boot are gone: {boots:?}");
    assert!(!world.logged().contains("ERROR"), "{}", world.logged());
}

#[test]
fn without_an_archive_a_full_trail_refuses_and_loses_nothing() {
    let world = with_retention("archive: off, max_records: 30");
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let mut sent = 0;
    until("the trail is full", || match alpha.send("a", "beta", "{}") {
        Ok(_) => {
            sent += 1;
            false
        }
        Err(refused) => {
            assert_eq!(refused.details, "audit_full");
            true
        }
    });
    assert!(sent > 0 && live_records(&world) >= 30);
    assert_eq!(world.logged().matches("gateway.audit.max_records is 30").count(), 1);
    assert_eq!(world.record_of("send").len(), sent);
}

#[test]
fn a_damaged_trail_is_not_archived() {
    let world = with_retention("max_records: 1000000, archive_dir: archive");
    let mut server = world.server();
    some_messages(&world, &server);
    server.stop();
    let (lane, _) = world.lanes().into_iter().max_by_key(|(_, records)| *records).unwrap();
    let key = format!("audit:lane:{lane}");
    let blocks: crate::support::Blocks = world.redis.query(&["XRANGE", &key, "-", "+"]);
    let _: i64 = world.redis.query(&["XDEL", &key, &blocks[blocks.len() / 2].0]);
    let before = live_records(&world);
    let mut world = world;
    world.set_gateway("audit: {checkpoint_interval_ms: 50, max_records: 5, archive_dir: archive}");
    let _server = world.server();
    until("the damage is named", || world.logged().contains(&format!("cannot be archived: lane {lane}")));
    assert!(live_records(&world) >= before);
}

/// A file system of a megabyte, if this may be done here.
pub fn mount(at: &std::path::Path) -> bool {
    let mounted =
        std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(at).output();
    mounted.is_ok_and(|output| output.status.success())
}

pub fn unmount(at: &std::path::Path) {
    let _ = std::process::Command::new("umount").arg("-l").arg(at).output();
}
