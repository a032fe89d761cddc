//! The copy of the trail as JSON lines: nothing is left out, whatever happens to it.

use std::collections::BTreeMap;

use crate::support::{Server, World, until};

fn world(settings: &str) -> World {
    let mut world = World::new();
    world.set_gateway(&format!(
        "rate_limit: {{per_minute: 1000000, per_hour: 10000000}}, audit: {{file_path: copy/audit.jsonl, {settings}}}"
    ));
    world
}

fn messages(world: &World, server: &Server, count: usize) {
    let (alpha, beta) = (world.client(server, "alpha"), world.client(server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for _ in 0..count {
        alpha.send("a", "beta", "{}").unwrap();
        b.take();
    }
}

/// The sequences that the copy holds of each lane, oldest file first.
fn copied(world: &World) -> BTreeMap<String, Vec<u64>> {
    let mut lanes: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let names =
        (1..=20).rev().map(|n| format!("copy/audit.jsonl.{n}")).chain(["copy/audit.jsonl".to_owned()]);
    for name in names {
        let text = std::fs::read_to_string(world.path().join(name)).unwrap_or_default();
        for line in text.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let lane = line["lane"].as_str().unwrap().to_owned();
            lanes.entry(lane).or_default().push(line["seq"].as_u64().unwrap());
        }
    }
    lanes
}

/// The copy holds every record of Redis once, in order.
#[track_caller]
fn assert_complete(world: &World) {
    let copied = copied(world);
    let keys = world.redis.keys();
    for lane in keys.iter().filter_map(|key| key.strip_prefix("audit:lane:")) {
        let blocks: crate::support::Blocks =
            world.redis.query(&["XRANGE", &format!("audit:lane:{lane}"), "-", "+"]);
        let count = |bytes: &Vec<u8>| mas::audit::lane::split_block(bytes).unwrap().len() as u64;
        let records: u64 = blocks.iter().map(|(_, fields)| count(&fields[0].1)).sum();
        let expected: Vec<u64> = (1..=records).collect();
        assert_eq!(copied.get(lane), Some(&expected), "{lane}");
    }
}

#[test]
fn the_copy_holds_every_record_and_rotates() {
    let world = world("max_bytes: 4096, backup_count: 20");
    let mut server = world.server();
    messages(&world, &server, 30);
    server.stop();
    assert_complete(&world);
    assert!(world.path().join("copy/audit.jsonl.2").exists());
    for entry in world.path().join("copy").read_dir().unwrap() {
        assert!(entry.unwrap().metadata().unwrap().len() <= 4096);
    }
}

#[test]
fn what_a_kill_kept_from_the_copy_is_added_by_the_next_start() {
    let world = world("max_bytes: 1000000");
    let mut server = world.server();
    messages(&world, &server, 20);
    server.kill();
    // As if the kill had come earlier: the copy ends in the middle of a line in the middle of a block.
    let path = world.path().join("copy/audit.jsonl");
    let text = std::fs::read(&path).unwrap();
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    let mut server = world.server();
    messages(&world, &server, 5);
    server.stop();
    assert_complete(&world);
}

#[test]
fn a_lane_that_the_copy_lacks_is_added_although_others_are_copied_beyond_its_beginning() {
    let world = world("max_bytes: 1000000");
    let mut server = world.server();
    messages(&world, &server, 20);
    let lanes = || world.redis.keys().iter().filter(|key| key.starts_with("audit:lane:")).count();
    until("all lanes are in the copy", || lanes() >= 2 && copied(&world).len() == lanes());
    server.kill();
    // As if the worker whose lane is the shorter one had been slow, and the kill had come before its records.
    let lanes = copied(&world);
    let (short, _) = lanes.iter().min_by_key(|(_, records)| records.len()).unwrap();
    let path = world.path().join("copy/audit.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let others: String = text.split_inclusive('\n').filter(|line| !line.contains(short.as_str())).collect();
    std::fs::write(&path, others).unwrap();
    let mut server = world.server();
    messages(&world, &server, 5);
    server.stop();
    assert_complete(&world);
}

#[test]
fn a_copy_that_cannot_be_opened_or_is_another_servers_is_refused() {
    let world = world("max_bytes: 1000000");
    let mut server = world.server();
    let refused = world.mas_server(&["--config", "mas.yaml"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("another server writes this copy"));
    server.stop();
    std::fs::remove_dir_all(world.path().join("copy")).unwrap();
    std::fs::write(world.path().join("copy"), "").unwrap();
    let refused = world.mas_server(&["--config", "mas.yaml"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("gateway.audit.file_path"));
}

#[test]
fn a_full_disk_stops_the_copy_and_not_the_server() {
    let small = tempfile::tempdir().unwrap();
    if !super::checkpoints::mount(small.path()) {
        eprintln!("SKIPPED: a small file system cannot be mounted here (needs root)");
        return;
    }
    let mut world = world("max_bytes: 100000000");
    std::os::unix::fs::symlink(small.path(), world.path().join("copy")).unwrap();
    world.set_gateway(
        "rate_limit: {per_minute: 1000000, per_hour: 10000000}, \
         audit: {file_path: copy/audit.jsonl, max_bytes: 100000000}",
    );
    let mut server = world.server();
    messages(&world, &server, 5);
    std::fs::write(small.path().join("ballast"), vec![0; 4 << 20]).unwrap_err();
    until("the copy waits", || {
        messages(&world, &server, 5);
        world.logged().contains("the audit copy waits")
    });
    messages(&world, &server, 5);
    std::fs::remove_file(small.path().join("ballast")).unwrap();
    until("the copy goes on", || world.logged().contains("the audit copy goes on"));
    messages(&world, &server, 5);
    server.stop();
    assert_complete(&world);
    super::checkpoints::unmount(small.path());
}
