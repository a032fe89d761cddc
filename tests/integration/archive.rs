//! The trail on disk: it leaves Redis by itself, is read wherever it is, and survives crashes, full disks, and hosts that take
//! turns.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mas::protocol::{SendRequest, Submission, submission, submission_result::Outcome};
use serde_json::Value;

use crate::support::{PATIENCE, Server, World, until, within};

/// Messages in one event.
const BATCH: usize = 100;
const RATES: &str = "rate_limit: {per_minute: 100000000, per_hour: 1000000000}";

/// A world in which little of the trail stays in Redis.
fn world() -> World {
    let mut world = World::new();
    world.set_gateway(&format!("{RATES}, audit: {{checkpoint_interval_ms: 50, max_records: 60}}"));
    world
}

/// Sends messages from alpha to beta, and takes them; their ids.
fn talk(world: &World, server: &Server, messages: usize) -> Vec<String> {
    let (alpha, beta) = (world.client(server, "alpha"), world.client(server, "beta"));
    // At another server they may be connected a moment longer.
    let open = |client: &crate::support::Client, instance: &str| {
        let mut session = None;
        until("it is connected", || {
            session = client.try_session(instance).ok();
            session.is_some()
        });
        session.unwrap()
    };
    let (_a, b) = (open(&alpha, "a"), open(&beta, "b"));
    let mut ids = Vec::new();
    for _ in 0..messages {
        until("it is admitted", || match alpha.send("a", "beta", "{}") {
            Ok(id) => {
                ids.push(id);
                true
            }
            Err(refused) => {
                assert_eq!(refused.details, "audit_full");
                false
            }
        });
        let _ = b.take();
    }
    ids
}

fn live_records(world: &World) -> u64 {
    let lanes = world.redis.keys().into_iter().filter(|key| key.starts_with("audit:lane:"));
    lanes
        .map(|lane| {
            let ids = world.redis.entries_ids(&lane);
            ids.last().map_or(0, |last| last + 1 - ids[0])
        })
        .sum()
}

fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.to_str().unwrap().ends_with(end));
    files.sort();
    files
}

fn segments(world: &World) -> Vec<PathBuf> {
    files(&world.path().join("audit-archive"), ".jsonl.zst")
}

fn text(world: &World, args: &[&str]) -> String {
    let output = world.mas(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The whole trail verifies, and has so many messages.
#[track_caller]
fn assert_whole(world: &World, messages: usize) -> Value {
    let (code, report) = world.verify();
    assert_eq!((code, &report["messages"]["accepted"]), (0, &Value::from(messages)), "{report}");
    assert_eq!(report["not_shown"], Value::Array(Vec::new()), "{report}");
    report
}

#[test]
fn checkpoints_that_were_archived_are_not_brought_again_after_a_lost_connection() {
    let world = world();
    let (mut first, mut second) = (world.server(), world.server());
    let notes = || -> Vec<String> {
        let entries = world.redis.entries("audit:checkpoints");
        entries.into_iter().flat_map(|(_, fields)| fields).map(|(_, note)| note).collect()
    };
    let mut messages = talk(&world, &first, 5).len();
    until("what the first has done is sealed", || world.verify().1["unsealed"] == 0);
    let early = notes();
    until("its checkpoints have left Redis", || {
        messages += talk(&world, &second, 40).len();
        let left = notes();
        early.iter().all(|note| !left.contains(note))
    });
    let _: i64 = world.redis.query(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    messages += talk(&world, &first, 5).len();
    first.stop();
    second.stop();
    let _ = assert_whole(&world, messages);
}

#[test]
fn the_trail_leaves_redis_by_itself_and_every_command_reads_on() {
    let mut world = World::new();
    // Nobody configures anything but the bound.
    world.set_gateway(&format!("{RATES}, audit: {{max_records: 60, checkpoint_interval_ms: 50}}"));
    let mut server = world.server();
    let mut ids = Vec::new();
    until("two segments are closed", || {
        ids.extend(talk(&world, &server, 40));
        assert_eq!(world.verify().0, 0, "while it is archived");
        segments(&world).len() >= 3
    });
    within(PATIENCE, "Redis holds no more than it may", || live_records(&world) <= 60);
    server.stop();
    let report = assert_whole(&world, ids.len());
    let first = ids.first().unwrap();
    assert!(text(&world, &["audit", "show", first]).contains("acknowledged"));
    assert!(text(&world, &["audit", "show", ids.last().unwrap()]).contains("acknowledged"));
    let count = |args: &[&str]| text(&world, args).lines().count();
    assert_eq!(count(&["audit", "query", "--action", "send"]), ids.len());
    assert_eq!(count(&["audit", "query", "--action", "send", "--no-index"]), ids.len());
    let proof = text(&world, &["audit", "proof", "--message-id", first]);
    std::fs::write(world.path().join("proof.json"), proof).unwrap();
    let _ =
        text(&world, &["audit", "proof", "--check", "proof.json", "--public-key", "keys/audit.ed25519.pub"]);

    // The lists of frames are made anew where they are lost, and nobody needs them.
    for list in files(&world.path().join("audit-archive"), ".frames") {
        std::fs::remove_file(list).unwrap();
    }
    assert_eq!(assert_whole(&world, ids.len())["records"], report["records"]);
    assert!(text(&world, &["audit", "show", first]).contains("acknowledged"));
}

#[test]
fn what_a_crash_leaves_of_an_append_is_removed_and_nothing_is_lost() {
    let world = world();
    let mut sent = 0;
    for cut in [0_i64, 1, 17, 4000] {
        let mut server = world.server();
        let before = segments(&world).len();
        until("something is archived", || {
            sent += talk(&world, &server, 20).len();
            segments(&world).len() > before || !segments(&world).is_empty()
        });
        until("Redis holds no more than it may", || live_records(&world) <= 60);
        server.kill();
        // As if the disk had only a part of one more append.
        let open = segments(&world).pop().unwrap();
        if cut == 1 {
            // Or as if it was to be closed, and the disk did not have its last line.
            std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o400)).unwrap();
        }
        if cut > 1 && !std::fs::metadata(&open).unwrap().permissions().readonly() {
            let mut bytes = std::fs::read(&open).unwrap();
            let tail: Vec<u8> = bytes.iter().copied().take(cut as usize).collect();
            bytes.extend(tail.iter().take(tail.len() / 2));
            std::fs::write(&open, bytes).unwrap();
        }
    }
    let mut server = world.server();
    sent += talk(&world, &server, 200).len();
    until("Redis holds no more than it may", || live_records(&world) <= 60);
    server.stop();
    let _ = assert_whole(&world, sent);
    assert!(!world.logged().contains("cannot be archived"), "{}", world.logged());
}

#[test]
fn a_segment_that_is_removed_replaced_cut_or_edited_is_found() {
    let world = world();
    let mut server = world.server();
    let mut sent = 0;
    until("three segments are closed", || {
        sent += talk(&world, &server, 60).len();
        segments(&world).len() >= 4
    });
    server.stop();
    let _ = assert_whole(&world, sent);
    let all = segments(&world);
    let damaged = |what: &str| {
        let code = world.mas(&["audit", "verify"]).status.code();
        assert_eq!(code, Some(3), "{what}");
    };
    for (at, path) in all.iter().enumerate() {
        let whole = std::fs::read(path).unwrap();
        if whole.is_empty() {
            // It was begun, and nothing was appended yet.
            continue;
        }
        let put = |bytes: &[u8]| {
            let _ = std::fs::remove_file(path);
            std::fs::write(path, bytes).unwrap();
        };
        std::fs::remove_file(path).unwrap();
        // Without the first ones it begins later; what is in the last one may be in Redis still.
        if at == 0 {
            let (code, report) = world.verify();
            assert_eq!(code, 0, "{report}");
            assert!(report["not_shown"].to_string().contains("before this part"), "{report}");
        } else if at + 1 < all.len() {
            damaged("removed");
        }
        // An older one in its place.
        put(&std::fs::read(&all[(at + 1) % all.len()]).unwrap());
        damaged("replaced");
        put(&whole[..whole.len() / 2]);
        damaged("cut");
        let mut edited = whole.clone();
        edited[whole.len() / 2] ^= 1;
        put(&edited);
        damaged("edited");
        // Compressed anew, with one record altered.
        let mut lines = zstd::stream::decode_all(&whole[..]).unwrap();
        let place = lines.windows(11).position(|w| w == b"\"records\":[").unwrap() + 40;
        lines[place] = if lines[place] == b'0' { b'1' } else { b'0' };
        put(&zstd::stream::encode_all(&lines[..], 3).unwrap());
        damaged("altered");
        put(&whole);
    }
    let _ = assert_whole(&world, sent);
}

/// A host of its own beside the world's: another anchor and another archive, the same keys.
fn other_host(world: &World) -> PathBuf {
    let text = std::fs::read_to_string(world.config_path()).unwrap();
    let own = "archive_dir: other-archive, anchor_path: other-anchor.jsonl, max_records";
    let path = world.path().join("other.yaml");
    std::fs::write(&path, text.replace("max_records", own)).unwrap();
    path
}

#[test]
fn two_hosts_archive_one_after_the_other_and_neither_is_told_of_a_rollback() {
    let world = world();
    let other = other_host(&world);
    let on_other = || world.server_by(std::process::Command::new(World::SERVER), "127.0.0.1:0", &other);
    let mut here = world.server();
    let mut there = on_other();
    let mut sent = talk(&world, &here, 100).len() + talk(&world, &there, 100).len();
    until("one of them archives", || live_records(&world) <= 60);
    assert!(!segments(&world).is_empty());
    assert!(files(&world.path().join("other-archive"), ".zst").is_empty(), "one archives at a time");

    // The other one takes over, and goes on where the first one stopped.
    here.stop();
    sent += talk(&world, &there, 100).len();
    until("the other one archives", || live_records(&world) <= 60);
    assert!(!files(&world.path().join("other-archive"), ".zst").is_empty());
    let mut here = world.server();
    sent += talk(&world, &here, 100).len();
    until("it goes on", || live_records(&world) <= 60);
    there.kill();
    sent += talk(&world, &here, 60).len();
    // Its lease has to run out.
    within(std::time::Duration::from_secs(60), "the first one archives again", || live_records(&world) <= 60);
    // As its kill may have left it: begun, and nothing appended. Its number was given to a segment here.
    let begun = world.path().join("other-archive").join(segments(&world)[1].file_name().unwrap());
    std::fs::write(&begun, "").unwrap();
    let _there = on_other();
    here.stop();
    until("what was begun is given up", || !begun.exists());
    let log = world.logged();
    assert!(!log.contains("rolled back") && !log.contains("ERROR"), "{log}");

    // With both folders everything is shown; with one, what is elsewhere is named, and it is no damage.
    let both = ["audit", "verify", "--json", "--archive", "audit-archive", "--archive", "other-archive"];
    let report: Value = serde_json::from_str(&text(&world, &both)).unwrap();
    assert_eq!(report["messages"]["accepted"], Value::from(sent), "{report}");
    assert_eq!(report["not_shown"], Value::Array(Vec::new()), "{report}");
    let (code, report) = world.verify();
    assert_eq!(code, 0, "{report}");
    assert!(report["not_shown"][0].as_str().unwrap().contains("other-archive"), "{report}");
    // A copy in another folder says nothing twice.
    let copy = world.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    let own = segments(&world);
    std::fs::copy(&own[0], copy.join(own[0].file_name().unwrap())).unwrap();
    let _ = text(&world, &[&both[..], &["--archive", "copy"]].concat());
    // What is missing here, and in no other host's folder, is damage, however many hosts there are.
    assert!(own.len() > 1, "{own:?}");
    std::fs::remove_file(&own[1]).unwrap();
    assert_eq!(world.mas(&["audit", "verify"]).status.code(), Some(3));
}

#[test]
fn a_full_disk_stops_admission_before_anything_is_lost_and_opens_by_itself() {
    let world = world();
    let folder = world.path().join("audit-archive");
    std::fs::create_dir_all(&folder).unwrap();
    if !crate::checkpoints::mount(&folder) {
        println!("no file system can be mounted here");
        return;
    }
    let filler = folder.join("filler");
    std::fs::write(&filler, vec![0_u8; 1_020_000]).unwrap();
    let mut server = world.server();
    let alpha = world.client(&server, "alpha");
    let a = alpha.session("a");
    let mut sent = 0;
    within(PATIENCE * 3, "nothing is admitted", || {
        let call = || {
            let call = SendRequest {
                target_id: "beta".to_owned(),
                data_json: "{}".to_owned(),
                ..SendRequest::default()
            };
            Submission { call: Some(submission::Call::Send(call)), ..Submission::default() }
        };
        a.submit((0..BATCH).map(|_| call()).collect());
        let mut full = false;
        for _ in 0..BATCH {
            match a.result().outcome.unwrap() {
                Outcome::Send(_) => sent += 1,
                Outcome::Failure(refused) => {
                    assert_eq!(refused.detail, "audit_full");
                    full = true;
                }
                other => panic!("{other:?}"),
            }
        }
        full
    });
    let log = world.logged();
    assert!(log.contains("cannot be archived") && log.contains("No space left"), "{log}");
    std::fs::remove_file(&filler).unwrap();
    until("it is admitted again", || match alpha.send("a", "beta", "{}") {
        Ok(_) => {
            sent += 1;
            true
        }
        Err(_) => false,
    });
    until("Redis holds no more than it may", || live_records(&world) <= 60);
    drop(a);
    server.stop();
    let _ = assert_whole(&world, sent);
    crate::checkpoints::unmount(&folder);
}

#[test]
fn the_anchor_goes_on_in_new_files_and_verifies_as_one() {
    let mut world = World::new();
    world.set_gateway(&format!("{RATES}, audit: {{checkpoint_interval_ms: 50, anchor_max_bytes: 4096}}"));
    let mut sent = 0;
    let older = || {
        files(world.path(), ".jsonl")
            .into_iter()
            .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("audit-anchor-"))
            .count()
    };
    for _ in 0..2 {
        let mut server = world.server();
        let before = older();
        until("the anchor goes on in a new file", || {
            sent += talk(&world, &server, 5).len();
            older() > before + 1
        });
        assert_eq!(world.verify().0, 0);
        server.stop();
    }
    let report = assert_whole(&world, sent);
    assert_eq!(report["checkpoints"], report["anchored"], "{report}");
    // What is cut out of the middle is found.
    let middle = files(world.path(), "00000002.jsonl").pop().unwrap();
    let whole = std::fs::read_to_string(&middle).unwrap();
    let kept: Vec<&str> =
        whole.lines().enumerate().filter(|(at, _)| *at != 2).map(|(_, line)| line).collect();
    std::fs::write(&middle, kept.join("\n") + "\n").unwrap();
    assert_eq!(world.mas(&["audit", "verify"]).status.code(), Some(3));
    std::fs::write(&middle, whole).unwrap();
    world.assert_intact();
}

#[test]
fn an_idle_server_signs_rarely_and_that_is_no_damage() {
    let mut world = World::new();
    world.set_gateway(&format!("{RATES}, audit: {{checkpoint_interval_ms: 50}}"));
    let server = world.server();
    let _ = talk(&world, &server, 3);
    let notes = || world.redis.len("audit:checkpoints");
    until("everything is sealed", || world.verify().1["unsealed"] == 0);
    let before = notes();
    // Sixty intervals are three seconds.
    until("one that says nothing new", || notes() > before);
    let (code, report) = world.verify();
    assert_eq!(code, 0, "{report}");
    assert!(notes() <= before + 2, "{} after {before}", notes());
}

#[test]
fn a_loss_that_an_operator_acknowledges_is_no_damage_any_more_and_stays_on_record() {
    let mut world = World::new();
    world.set_gateway(&format!("{RATES}, audit: {{checkpoint_interval_ms: 50}}"));
    let mut server = world.server();
    let sent = talk(&world, &server, 20).len();
    server.stop();
    // The end of a lane is lost, as with a backup that is restored.
    let lanes = world.redis.keys().into_iter().filter(|key| key.starts_with("audit:lane:"));
    let lane = lanes.max_by_key(|key| world.redis.len(key)).unwrap();
    let last = *world.redis.entries_ids(&lane).last().unwrap();
    let _: i64 = world.redis.query(&["XDEL", &lane, &format!("{last}-0")]);
    let (code, report) = world.verify();
    assert_eq!(code, 3, "{report}");
    let ids: Vec<&str> =
        report["damages"].as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap()).collect();
    assert!(!ids.is_empty(), "{report}");

    assert_eq!(world.mas(&["audit", "acknowledge"]).status.code(), Some(2), "nothing was named");
    assert_eq!(world.mas(&["audit", "acknowledge", "0123456789abcdef"]).status.code(), Some(2));
    let said = text(&world, &["audit", "acknowledge", "--reason", "restored on purpose", "--all"]);
    assert!(ids.iter().all(|id| said.contains(id)), "{said}");
    let (code, report) = world.verify();
    assert_eq!(code, 0, "{report}");
    let acknowledged = report["acknowledged"].as_array().unwrap();
    assert_eq!(acknowledged.len(), ids.len(), "{report}");
    assert!(acknowledged[0]["acknowledged_by"].as_str().unwrap().contains("restored on purpose"), "{report}");
    assert!(text(&world, &["audit", "verify"]).contains("intact but for what was acknowledged"));

    // What is damaged later is damage.
    let mut server = world.server();
    let _ = talk(&world, &server, 20);
    server.stop();
    assert_eq!(world.verify().0, 0, "{sent}");
    let lanes = world.redis.keys().into_iter().filter(|key| key.starts_with("audit:lane:") && *key != lane);
    let other = lanes.max_by_key(|key| world.redis.len(key)).unwrap();
    let first = world.redis.entries_ids(&other)[1];
    let _: i64 = world.redis.query(&["XDEL", &other, &format!("{first}-0")]);
    assert_eq!(world.verify().0, 3);
}
