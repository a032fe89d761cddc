//! What operators type: real commands, against real servers and a real Redis, well and not well.

use std::process::Output;

use mas::certs::{agent_files, ca_file, server_files};
use mas::ids::AgentId;
use serde_json::Value as Json;
use time::{Duration, OffsetDateTime};

use crate::support::{Server, World, until};

mod agent;
mod bundle;
mod doctor;
mod manual;
mod top;

fn world() -> World {
    let mut world = World::new();
    world.set_admin("127.0.0.1:0");
    world
}

fn admin(server: &Server) -> &str {
    server.admin.as_ref().unwrap()
}

#[track_caller]
fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[track_caller]
fn json(output: &Output) -> Json {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// Runs `mas check` and returns its exit code and what it says, as JSON.
#[track_caller]
fn check(world: &World, admin: &str, args: &[&str]) -> (i32, Json) {
    let mut all = vec!["check"];
    all.extend(args);
    all.extend(["--admin", admin, "--json"]);
    let output = world.mas(&all);
    let code = output.status.code().unwrap();
    let said = json(&output);
    assert_eq!(said["exit_code"], code, "{said}");
    (code, said)
}

/// The codes of what `mas doctor` finds.
#[track_caller]
fn diagnosed(world: &World, args: &[&str]) -> (i32, Vec<String>, Json) {
    let mut all = vec!["doctor", "--json"];
    all.extend(args);
    let output = world.mas(&all);
    let said = json(&output);
    let codes = said["findings"].as_array().unwrap().iter();
    let codes = codes.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect();
    (output.status.code().unwrap(), codes, said)
}

/// An admin address that nobody listens on.
const NOBODY: &str = "127.0.0.1:9";

#[test]
fn checks_are_well_where_all_is_well_in_every_format() {
    let world = world();
    let server = world.server();
    until("it is ready", || {
        check(&world, admin(&server), &["server", "--warn", "20", "--critical", "30"]).0 == 0
    });
    // At thresholds of nothing: no inbox has anything, Redis has no bound, and of days there are more.
    let strict =
        [("server", 2), ("inbox", 0), ("dlq", 2), ("audit", 2), ("certs", 0), ("redis", 0), ("anchor", 2)];
    for (what, expected) in strict {
        let (code, said) = check(&world, admin(&server), &[what, "--warn", "0", "--critical", "0"]);
        assert_eq!((said["check"].as_str(), code), (Some(what), expected), "{said}");
        let nagios = world.mas(&["check", what, "--admin", admin(&server), "--format", "nagios"]);
        let line = said_line(&nagios);
        assert!(line.starts_with(&format!("MAS {} OK - ", what.to_uppercase())), "{line}");
        assert_eq!(nagios.status.code(), Some(0));
        let samples = said_of(&world, &["check", what, "--admin", admin(&server), "--format", "prometheus"]);
        assert!(samples.contains(&format!("mas_check_status{{check=\"{what}\"}} 0\n")), "{samples}");
    }
    let text = said_of(&world, &["check", "audit", "--verify", "--admin", admin(&server)]);
    assert!(text.starts_with("audit OK: newest checkpoint of "), "{text}");
    assert!(text.contains("records verified: intact"), "{text}");
    let line = said_line(&world.mas(&["check", "dlq", "--admin", admin(&server), "--format", "nagios"]));
    assert_eq!(line, "MAS DLQ OK - 0 dead letters in Redis | 'dead letters'=0;1;1000;0;");
}

fn said_line(output: &Output) -> String {
    said(output).lines().next().unwrap_or_default().to_owned()
}

fn said_of(world: &World, args: &[&str]) -> String {
    said(&world.mas(args))
}

#[test]
fn a_check_that_cannot_be_made_is_unknown_and_not_critical() {
    let world = world();
    for args in [
        &["check", "dlq", "--warn", "5", "--critical", "1"][..],
        &["check", "dlq", "--warn", "x"],
        &["check", "dlq", "--warn", "2h"],
        &["check", "nothing"],
        &["check", "inbox", "--agent", "nobody"],
        &["check", "server"],
        &["check", "dlq", "--config", "missing.yaml"],
    ] {
        let output = world.mas(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}: {output:?}");
    }
    let help = world.mas(&["check", "audit", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(said(&help).contains("0 ok, 1 warning, 2 critical, 3 unknown"), "{}", said(&help));
}

#[test]
fn a_full_inbox_and_dead_letters_reach_their_thresholds() {
    let mut world = World::with(World::PAIR, "limits: {max_queue_len: 10}\n");
    world.set_admin("127.0.0.1:0");
    world.set_gateway("circuit_breaker: {failure_threshold: 1}");
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _session = alpha.session("a");
    for _ in 0..10 {
        alpha.send("a", "beta", "{}").unwrap();
    }
    assert!(alpha.send("a", "beta", "{}").is_err(), "the inbox is full");
    // What the server knows of inboxes is up to five seconds old.
    until("it is critical", || check(&world, admin(&server), &["inbox"]).0 == 2);
    let (_, said) = check(&world, admin(&server), &["inbox"]);
    assert_eq!(said["values"][0]["name"], "beta");
    assert_eq!(said["values"][0]["value"], 10.0);
    assert_eq!(check(&world, admin(&server), &["inbox", "--agent", "alpha"]).0, 0);
    assert_eq!(check(&world, admin(&server), &["inbox", "--warn", "11", "--critical", "12"]).0, 0);
    // Without a server Redis tells the same.
    let (code, said) = check(&world, NOBODY, &["inbox"]);
    assert_eq!((code, &said["values"][0]["value"]), (2, &10.0.into()));
    let (_, codes, said) = diagnosed(&world, &["--admin", admin(&server)]);
    assert!(codes.contains(&"inbox_full".to_owned()), "{said}");

    let beta = world.client(&server, "beta");
    let session = beta.session("b");
    session.nack(&session.next().id, "never", false);
    until("it is a warning", || check(&world, admin(&server), &["dlq"]).0 == 1);
    assert_eq!(check(&world, admin(&server), &["dlq", "--critical", "1"]).0, 2);
    assert_eq!(check(&world, NOBODY, &["dlq"]).0, 1);
    let (code, codes, said) = diagnosed(&world, &["--admin", admin(&server)]);
    assert_eq!(code, 1);
    for code in ["dead_letters", "circuit_open"] {
        assert!(codes.contains(&code.to_owned()), "{code}: {said}");
    }
}

#[test]
fn a_redis_that_is_away_is_critical_everywhere() {
    let mut world = world();
    let server = world.server();
    until("it is ready", || {
        check(&world, admin(&server), &["server", "--warn", "20", "--critical", "30"]).0 == 0
    });
    world.redis.kill();
    // Its lease may fail first.
    until("it is critical, and says why", || {
        let (code, said) = check(&world, admin(&server), &["server"]);
        code == 2 && said["summary"].as_str().unwrap().starts_with("redis: ")
    });
    assert_eq!(check(&world, admin(&server), &["redis"]).0, 2);
    assert_eq!(check(&world, NOBODY, &["redis"]).0, 2);
    assert_eq!(check(&world, NOBODY, &["audit"]).0, 3);
    let (code, codes, said) = diagnosed(&world, &["--admin", admin(&server)]);
    assert_eq!(code, 1);
    assert_eq!(codes[0], "redis_unreachable", "{said}");
    assert!(codes.contains(&"server_not_ready".to_owned()), "{said}");
    let text = said_of(&world, &["doctor", "--admin", admin(&server)]);
    assert!(text.starts_with("CRITICAL redis_unreachable: Redis does not answer\n  seen: "), "{text}");
    assert!(text.contains("\n  do:   start Redis"), "{text}");
}

#[test]
fn a_redis_that_would_lose_messages_is_named() {
    let world = world();
    let server = world.server();
    let set = |name: &str, value: &str| {
        let _: String = world.redis.query(&["CONFIG", "SET", name, value]);
    };
    set("maxmemory", "100mb");
    set("maxmemory-policy", "allkeys-lru");
    set("appendonly", "no");
    let (code, said) = check(&world, admin(&server), &["redis"]);
    assert_eq!(code, 2, "{said}");
    let (_, codes, said) = diagnosed(&world, &["--admin", admin(&server)]);
    for code in ["redis_evicts", "redis_not_persistent"] {
        assert!(codes.contains(&code.to_owned()), "{code}: {said}");
    }
    set("maxmemory-policy", "noeviction");
    set("appendonly", "yes");
    let used: String = world.redis.query(&["INFO", "memory"]);
    let used: u64 =
        used.lines().find_map(|l| l.strip_prefix("used_memory:")).unwrap().trim().parse().unwrap();
    set("maxmemory", &(used * 100 / 80).to_string());
    until("it fills up", || check(&world, admin(&server), &["redis", "--critical", "99"]).0 == 1);
    let (_, codes, said) = diagnosed(&world, &["--admin", admin(&server)]);
    assert!(codes.contains(&"redis_memory_high".to_owned()), "{said}");
}

#[test]
fn certificates_that_end_are_counted_in_days() {
    let world = world();
    let server = world.server();
    drop(world.certificate("alpha"));
    let (code, said) = check(&world, NOBODY, &["certs"]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(check(&world, NOBODY, &["certs", "--warn", "40d", "--critical", "1d"]).0, 1);
    assert_eq!(check(&world, NOBODY, &["certs", "--warn", "41", "--critical", "40"]).0, 2);
    let names = |said: &Json| -> Vec<String> {
        let values = said["values"].as_array().unwrap().iter();
        values.map(|value| value["name"].as_str().unwrap().to_owned()).collect()
    };
    let (_, said) = check(&world, admin(&server), &["certs"]);
    for name in ["ca", "server", "agent alpha", "server in force"] {
        assert!(names(&said).contains(&name.to_owned()), "{said}");
    }
    // One that has expired, and a key that others may read.
    let beta = AgentId::parse("beta").unwrap();
    let (start, end) =
        (OffsetDateTime::now_utc() - Duration::days(3), OffsetDateTime::now_utc() - Duration::days(2));
    let files = world.authority.issue_agent_with(&beta, start, end).unwrap();
    std::fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (code, said) = check(&world, NOBODY, &["certs"]);
    assert_eq!(code, 2);
    let summary = said["summary"].as_str().unwrap();
    assert!(summary.starts_with("agent beta ("), "{said}");
    assert!(summary.ends_with("it is over"), "{said}");
    let (_, codes, said) = diagnosed(&world, &["--admin", admin(&server)]);
    for code in ["certificate_expired", "key_exposed"] {
        assert!(codes.contains(&code.to_owned()), "{code}: {said}");
    }
    assert!(said["findings"].as_array().unwrap().iter().any(|finding| {
        finding["remedy"] == format!("chmod 600 {}", agent_files(&world.certs(), &beta).key.display())
    }));
    // A new one of the server's that it has not taken up.
    world.authority.issue_server(&["localhost".to_owned()], 20).unwrap();
    let (_, codes, said) = diagnosed(&world, &["--admin", admin(&server)]);
    assert!(codes.contains(&"certificate_stale".to_owned()), "{said}");
    std::fs::write(server_files(&world.certs()).cert, "none").unwrap();
    assert_eq!(check(&world, NOBODY, &["certs"]).0, 2);
    let (_, codes, said) = diagnosed(&world, &["--admin", admin(&server)]);
    assert_eq!(codes[0], "tls_unusable", "{said}");
    assert!(ca_file(&world.certs()).exists());
}

#[test]
fn the_anchor_is_looked_at_without_a_server() {
    let mut world = world();
    world.set_gateway(
        "rate_limit: {per_minute: 1000000, per_hour: 10000000}, audit: {checkpoint_interval_ms: 50}",
    );
    assert_eq!(check(&world, NOBODY, &["anchor"]).0, 2, "there is none yet");
    let mut server = world.server();
    until("there is a checkpoint", || check(&world, NOBODY, &["anchor", "--critical", "1h"]).0 == 0);
    let alpha = world.client(&server, "alpha");
    let session = alpha.session("a");
    until("there are some more", || {
        alpha.send("a", "beta", "{}").unwrap();
        world.redis.len("audit:checkpoints") > 20
    });
    drop(session);
    server.stop();
    let path = world.path().join("audit-anchor.jsonl");
    let good = std::fs::read_to_string(&path).unwrap();
    let (code, said) = check(&world, NOBODY, &["anchor", "--critical", "0"]);
    assert_eq!((code, said["status"].as_str()), (2, Some("CRITICAL")));
    // A signature that is none: one digit of the text is another.
    let last = good.lines().last().unwrap();
    let at = last.find("\\ncounter ").unwrap() + "\\ncounter ".len();
    let mut forged = last.to_owned();
    forged.replace_range(at..=at, if &last[at..=at] == "1" { "2" } else { "1" });
    std::fs::write(&path, good.replace(last, &forged)).unwrap();
    let (code, said) = check(&world, NOBODY, &["anchor"]);
    assert_eq!(code, 2, "{said}");
    assert!(said["summary"].as_str().unwrap().contains("signature is wrong"), "{said}");
    let (_, codes, said) = diagnosed(&world, &["--admin", NOBODY]);
    assert!(codes.contains(&"signature_wrong".to_owned()), "{said}");
    std::fs::write(&path, "rubbish\n").unwrap();
    assert_eq!(check(&world, NOBODY, &["anchor"]).0, 2);
    let (_, codes, said) = diagnosed(&world, &["--admin", NOBODY]);
    assert!(codes.contains(&"anchor_unusable".to_owned()), "{said}");
    // With the server's run still in Redis, an older file in its place is behind.
    std::fs::write(&path, format!("{}\n", good.lines().next().unwrap())).unwrap();
    let (_, codes, said) = diagnosed(&world, &["--admin", NOBODY]);
    assert!(codes.contains(&"anchor_behind".to_owned()), "{said}");
    world.set_gateway("audit: {anchor_path: null}");
    assert_eq!(check(&world, NOBODY, &["anchor"]).0, 1);
}

#[test]
fn the_doctor_finds_nothing_where_nothing_is_wrong_and_a_server_that_is_down() {
    let world = world();
    let mut server = world.server();
    until("nothing is wrong", || {
        let (code, ..) = diagnosed(&world, &["--admin", admin(&server)]);
        code == 0
    });
    let text = said_of(&world, &["doctor", "--admin", admin(&server)]);
    assert!(text.ends_with("nothing is wrong\n"), "{text}");
    // The file is not what is in force any more.
    let good = std::fs::read_to_string(world.config_path()).unwrap();
    std::fs::write(world.config_path(), format!("{good}# changed\n")).unwrap();
    let (code, codes, said) = diagnosed(&world, &["--admin", admin(&server)]);
    assert_eq!((code, codes.contains(&"configuration_stale".to_owned())), (1, true), "{said}");
    server.kill();
    // Its lease runs out by itself.
    until("it is down", || diagnosed(&world, &["--admin", NOBODY]).1.contains(&"server_down".to_owned()));
    std::fs::write(world.config_path(), "gateway: {redis: 'redis://:TOPSECRET@h:1/0'}\n").unwrap();
    let (code, codes, said) = diagnosed(&world, &["--admin", NOBODY]);
    assert_eq!((code, codes[0].as_str()), (1, "configuration_invalid"), "{said}");
    assert!(!said.to_string().contains("TOPSECRET"), "{said}");
}

#[test]
fn the_doctor_sees_what_waits_for_nobody_and_what_does_not_belong_there() {
    let world = world();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _session = alpha.session("a");
    alpha.send("a", "beta", "{}").unwrap();
    let _: String = world.redis.query(&["XADD", "agent.stream:gamma", "1-1", "envelope", "{}"]);
    let (_, codes, said) = diagnosed(&world, &["--admin", admin(&server)]);
    // The one of gamma is as old as its id; that of beta has just been sent.
    let unattended: Vec<&Json> =
        said["findings"].as_array().unwrap().iter().filter(|f| f["code"] == "inbox_unattended").collect();
    assert_eq!(unattended.len(), 1, "{said}");
    assert!(unattended[0]["evidence"].as_str().unwrap().starts_with("gamma: 1 messages"), "{codes:?}");
    let gamma = world.client(&server, "gamma");
    let _session = gamma.session("g");
    until("it was put aside", || {
        diagnosed(&world, &["--admin", admin(&server)]).1.contains(&"foreign_entries".to_owned())
    });
}

#[test]
fn the_doctor_sees_disks_and_folders_that_the_trail_needs() {
    let world = world();
    let folder = world.path().join("audit-archive");
    std::fs::write(&folder, "in its place").unwrap();
    let (code, codes, said) = diagnosed(&world, &["--admin", NOBODY]);
    assert_eq!(code, 1);
    for code in ["server_down", "archive_unusable"] {
        assert!(codes.contains(&code.to_owned()), "{code}: {said}");
    }
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    if !crate::checkpoints::mount(&folder) {
        println!("no file system can be mounted here");
        return;
    }
    let found = |bytes: usize| {
        std::fs::write(folder.join("filler"), vec![0_u8; bytes]).unwrap();
        diagnosed(&world, &["--admin", NOBODY])
    };
    let outcomes = [found(1000), found(980_000), found(1_044_480)];
    crate::checkpoints::unmount(&folder);
    let expected = [(false, false), (true, false), (false, true)];
    for ((_, codes, said), (is_low, is_full)) in outcomes.iter().zip(expected) {
        let has = |code: &str| codes.contains(&code.to_owned());
        assert_eq!((has("disk_low"), has("disk_full")), (is_low, is_full), "{said}");
    }
}
