//! What operators type: real commands, against real servers and a real Redis, well and not well.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};

use mas::certs::{agent_files, ca_file, server_files};
use mas::ids::AgentId;
use nix::sys::signal::Signal;
use serde_json::Value as Json;
use time::{Duration, OffsetDateTime};

use crate::support::{Process, Server, World, until};

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
    assert!(codes.contains(&"dead_letters".to_owned()), "{said}");
}

#[test]
fn a_redis_that_is_away_is_critical_everywhere() {
    let mut world = world();
    let server = world.server();
    until("it is ready", || {
        check(&world, admin(&server), &["server", "--warn", "20", "--critical", "30"]).0 == 0
    });
    world.redis.kill();
    until("it is critical", || check(&world, admin(&server), &["server"]).0 == 2);
    let (_, said) = check(&world, admin(&server), &["server"]);
    assert!(said["summary"].as_str().unwrap().starts_with("redis: "), "{said}");
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

/// Everything in a `.tar.gz`, by name.
fn unpacked(path: &std::path::Path) -> std::collections::BTreeMap<String, String> {
    let file = std::fs::File::open(path).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    };
    archive.entries().unwrap().map(read).collect()
}

/// The parts of a key's file that nobody else may know.
fn parts_of_keys(folder: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            parts_of_keys(&path, found);
        } else if path.extension().is_some_and(|end| end == "key" || end == "ed25519") {
            let text = std::fs::read_to_string(&path).unwrap();
            let words = text.split_whitespace().filter(|word| word.len() >= 32);
            found.extend(words.map(str::to_owned));
        }
    }
}

#[test]
fn a_bundle_has_everything_but_secrets() {
    let mut world = World::with(
        "permissions: [{type: allow_bidirectional, agents: [alpha, beta]}]\n\
         agents:\n\
         - {agent_id: alpha, command: [run-it, '--token=SECRET-argument'], env: {TOKEN: SECRET-variable}}\n\
         - {agent_id: beta, class_path: 'a:B', init_kwargs: {k: SECRET-argument2}, metadata: {m: SECRET-metadata}}\n",
        "",
    );
    world.set_admin("127.0.0.1:0");
    world.set_gateway(
        "rate_limit: {per_minute: 1000, per_hour: 10000}, \
         telemetry: {headers: {authorization: SECRET-header}, otlp_endpoint: 'http://u:SECRET-collector@127.0.0.1:4318'}, \
         dlp: {rules: [{id: mine, type: own, pattern: 'SECRET-pattern', action: alert}]}",
    );
    let url = format!("{}?pass=SECRET-password", world.redis.url());
    world.set_redis(&format!("url: '{url}', socket_timeout: 2"));
    let _: String = world.redis.query(&["CONFIG", "SET", "requirepass", "SECRET-password"]);
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"text\": \"SECRET-payload SECRET-pattern 123-45-6789\"}").unwrap();
    b.nack(&b.next().id, "SECRET-reason", false);
    assert!(alpha.send("a", "SECRET-target", "{}").is_err());
    alpha.update_state(&[("SECRET-field", "SECRET-value")]).unwrap();
    until("the letter is dead, and a record says so", || {
        said_of(&world, &["dlq", "list", "--json"]).contains("SECRET-reason")
    });
    let dropped = world.mas(&["dlq", "drop", "--all", "--reason", "SECRET-word"]);
    assert_eq!(dropped.status.code(), Some(0), "{dropped:?}");

    let bundle = world.path().join("report.tar.gz");
    let output = world.mas(&["bundle", "--admin", admin(&server), "--output", "report.tar.gz"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let files = unpacked(&bundle);
    let mut secrets = vec!["SECRET".to_owned(), "123-45-6789".to_owned()];
    parts_of_keys(world.path(), &mut secrets);
    assert!(secrets.len() > 8, "{secrets:?}");
    for (name, text) in &files {
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} holds {secret}");
        }
    }
    let of = |name: &str| {
        files.get(&format!("mas-bundle/{name}")).unwrap_or_else(|| panic!("{name}: {:?}", files.keys()))
    };
    for (name, part) in [
        ("README.txt", "records.jsonl: "),
        ("configuration.yaml", "authorization: (masked)"),
        ("configuration.yaml", "TOKEN: (masked)"),
        ("configuration.yaml", "- run-it"),
        ("status.json", "\"policy_version\""),
        ("readyz.txt", "redis: ok"),
        ("metrics.txt", "mas_audit_records_total{"),
        ("doctor.json", "\"well\""),
        ("versions.json", "\"release\""),
        ("redis-info.txt", "redis_version:"),
        ("records.jsonl", "\"action\":\"dead_letter\""),
        ("records.jsonl", "\"decision\":\"AUTHZ_DENIED\""),
        ("checkpoints.jsonl", "mas.audit/"),
    ] {
        assert!(of(name).contains(part), "{name} lacks {part}: {}", of(name));
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&bundle).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    // Nothing is overwritten.
    let output = world.mas(&["bundle", "--admin", admin(&server), "--output", "report.tar.gz"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn a_bundle_can_be_made_where_nothing_works() {
    let mut world = world();
    world.redis.kill();
    let good = std::fs::read_to_string(world.config_path()).unwrap();
    for bad in [
        "gateway: {redis: 'redis://:SECRET@h:1/0'}\n".to_owned(),
        "gateway: {redis: {url: 'redsi://:SECRET@h:1/0'}}\n".to_owned(),
        "gateway: {telemetry: {otlp_endpoint: SECRET}}\n".to_owned(),
        "{SECRET".to_owned(),
        good,
    ] {
        std::fs::write(world.config_path(), &bad).unwrap();
        let _ = std::fs::remove_file(world.path().join("b.tar.gz"));
        let output = world.mas(&["bundle", "--admin", NOBODY, "--output", "b.tar.gz"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let files = unpacked(&world.path().join("b.tar.gz"));
        assert!(files["mas-bundle/README.txt"].contains("status.json: not there: "), "{files:?}");
        assert!(files.values().all(|text| !text.contains("SECRET")), "{files:?}");
    }
}

/// A command on a terminal of its own.
struct OnTerminal {
    process: Process,
    screen: Arc<Mutex<Vec<u8>>>,
    master: std::fs::File,
    slave: OwnedFd,
    before: nix::sys::termios::Termios,
}

impl OnTerminal {
    fn start(mut command: std::process::Command) -> Self {
        let size = nix::pty::Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = nix::pty::openpty(&size, None).unwrap();
        let before = nix::sys::termios::tcgetattr(&pty.slave).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        command.stdin(end()).stdout(end()).stderr(end()).env_remove("NO_COLOR");
        let process = Process::start(&mut command);
        let screen = Arc::new(Mutex::new(Vec::new()));
        let master = std::fs::File::from(pty.master);
        let (mut reader, seen) = (master.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = reader.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { process, screen, master, slave: pty.slave, before }
    }

    fn seen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// Forgets what was shown, and waits for something.
    fn shows(&self, what: &str) {
        self.screen.lock().unwrap().clear();
        until(what, || self.seen().contains(what));
    }

    fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn resize(&self, columns: u16, lines: u16) {
        let size = rustix::termios::Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.slave, size).unwrap();
        // It is no session leader here, so the kernel tells it nothing.
        self.process.signal(Signal::SIGWINCH);
    }

    /// It has ended, and the terminal is as it was.
    #[track_caller]
    fn gave_back(&mut self) -> Option<i32> {
        let code = self.process.wait().code();
        until("the screen is back", || self.seen().ends_with("\x1b[?25h\x1b[?1049l"));
        let after = nix::sys::termios::tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_flags, self.before.local_flags);
        assert_eq!(after.input_flags, self.before.input_flags);
        code
    }
}

#[test]
fn top_shows_a_running_server_and_gives_the_terminal_back() {
    let mut world = world();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let args = ["top", "--admin", admin(&server), "--interval", "1s"];
    let mut top = OnTerminal::start(world.mas_command(&args));
    until("it is on another screen", || top.seen().contains("\x1b[?1049h\x1b[?25l"));
    top.shows("READY  server ");
    alpha.send("a", "beta", "{}").unwrap();
    b.take();
    assert!(alpha.send("a", "gamma", "{}").is_err());
    for what in ["alpha ", "beta ", "worker 0 ", "q quit", "2 sessions"] {
        top.shows(what);
    }
    // No line is wider than the terminal.
    top.resize(40, 10);
    top.shows("\x1b[H");
    top.press("w\x1b[Bp");
    top.shows("PAUSED");
    let last = top.seen().rsplit("\x1b[H").next().unwrap().to_owned();
    let lines: Vec<String> = last.split("\r\n").map(bare).collect();
    assert!(lines.len() <= 10, "{lines:?}");
    assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:?}");
    top.press("p");
    world.redis.kill();
    top.shows("NOT READY");
    top.press("q");
    assert_eq!(top.gave_back(), Some(0));

    // The same on a signal, and where the server goes away meanwhile.
    world.redis.resume();
    let mut top = OnTerminal::start(world.mas_command(&args));
    top.shows("server ");
    drop(server);
    top.shows("what follows is older");
    top.process.signal(Signal::SIGTERM);
    assert_eq!(top.gave_back(), Some(0));
    // Nothing is taken for a server that is not there.
    let gone = world.mas(&["top", "--admin", NOBODY]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(!said(&gone).contains('\x1b'));
}

/// Text without escape sequences.
fn bare(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, behind)) = rest.split_once("\x1b[") {
        text.push_str(before);
        rest = behind.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |(_, rest)| rest);
    }
    text.push_str(rest);
    text
}

#[test]
fn top_tells_pipes_what_metrics_say() {
    let world = world();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let text = said_of(&world, &["top", "--once", "--admin", admin(&server)]);
    assert!(text.starts_with("READY  server ") && !text.contains('\x1b'), "{text}");
    assert!(text.lines().any(|line| line.starts_with("alpha ")), "{text}");
    let mut command = world.mas_command(&["top", "--json", "--admin", admin(&server)]);
    let mut top = Process::start(command.stdout(Stdio::piped()));
    let lines = std::io::BufRead::lines(std::io::BufReader::new(top.child().stdout.take().unwrap()));
    for n in 0..20 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    let counted = lines.map(|line| serde_json::from_str::<Json>(&line.unwrap()).unwrap()).find(|view| {
        let rows = view["agents"].as_array().unwrap();
        rows.iter().any(|row| row["agent"] == "alpha" && row["sent_per_s"].as_f64().unwrap() > 0.0)
    });
    let view = counted.unwrap();
    assert!(view["decided_per_s"].as_f64().unwrap() > 0.0, "{view}");
    assert_eq!(view["status"]["ready"], true);
}

#[test]
fn a_shell_completes_commands_and_options() {
    let world = World::new();
    let script = said_of(&world, &["completions", "bash"]);
    let complete = |words: &str, current: usize| {
        let ask = format!(
            "source ./mas.bash; complete -p mas >&2; COMP_WORDS=({words}); COMP_CWORD={current}; \
             COMP_LINE='{words}'; COMP_POINT=${{#COMP_LINE}}; _mas mas \"${{COMP_WORDS[{current}]}}\" mas; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = std::process::Command::new("bash")
            .args(["--norc", "-c", &ask])
            .current_dir(world.path())
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&output.stderr).contains("complete -F _mas"), "{output:?}");
        said(&output).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    std::fs::write(world.path().join("mas.bash"), script).unwrap();
    assert_eq!(complete("mas doc", 1), ["doctor"]);
    let mut found = complete("mas check a", 2);
    found.sort();
    assert_eq!(found, ["anchor", "audit"]);
    assert_eq!(complete("mas check audit --verif", 3), ["--verify"]);
    let mut found = complete("mas check dlq --format ''", 4);
    found.sort();
    assert_eq!(found, ["json", "nagios", "prometheus", "text"]);
    for shell in ["zsh", "fish"] {
        assert!(said_of(&world, &["completions", shell]).contains("doctor"), "{shell}");
    }
}

#[test]
fn the_manual_renders_without_a_warning() {
    let world = World::new();
    let output = world.mas(&["man", "--dir", "man/man1"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let pages: Vec<_> =
        std::fs::read_dir(world.path().join("man/man1")).unwrap().map(|e| e.unwrap().path()).collect();
    let named = |name: &str| pages.iter().any(|page| page.file_name().unwrap() == name);
    assert!(named("mas.1") && named("mas-check-inbox.1") && named("mas-audit-verify.1"), "{pages:?}");
    assert!(!pages.iter().any(|page| page.to_string_lossy().contains("demo")), "{pages:?}");
    let mut command = std::process::Command::new("groff");
    let output = command.args(["-man", "-Tutf8", "-ww", "-z"]).args(&pages).output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut command = std::process::Command::new("groff");
    let page = world.path().join("man/man1/mas-check-dlq.1");
    let output = command.args(["-man", "-Tascii", "-P-cbou"]).arg(page).output().unwrap();
    let text = said(&output);
    for part in ["mas-check-dlq", "--warn", "0 ok, 1 warning, 2 critical, 3 unknown", "mas check server"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn an_operator_sends_asks_and_hears_which_rule_refuses() {
    let mut world = world();
    world.set_agents(
        "permissions:\n\
         - {type: allow_broadcast, sender: alpha, receivers: [beta, delta]}\n\
         - {type: allow, sender: beta, targets: [alpha]}\n\
         - {type: deny, sender: alpha, targets: [delta]}\n\
         agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: delta}, {agent_id: gamma}]\n",
    );
    let server = world.server();
    drop(world.certificate("alpha"));
    let beta = world.client(&server, "beta");
    let b = beta.session("b");
    let addr = &server.addr;
    let by_name = ["--as", "alpha", "--addr", addr, "--server-name", "localhost"];
    let run = |args: &[&str]| world.mas(&[args, &by_name[..]].concat());

    let output = run(&["send", "beta", "{\"n\": 1}", "--type", "count"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = said(&output);
    let id = text.strip_prefix("accepted ").unwrap().lines().next().unwrap().to_owned();
    let receipt = text.lines().find_map(|line| line.strip_prefix("receipt  ")).unwrap().to_owned();
    let delivered = b.take();
    assert_eq!((delivered.message_id(), delivered.data()["n"].as_i64()), (id.as_str(), Some(1)));

    // A message's id and its receipt lead to the same chain.
    until("it is acknowledged", || said_of(&world, &["audit", "show", &id]).contains(": acknowledged"));
    let by_id = said_of(&world, &["audit", "show", &id]);
    assert_eq!(said_of(&world, &["audit", "show", &receipt]), by_id);
    let missing = world.mas(&["audit", "show", "nowhere-w0-c1:7"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert_eq!(world.mas(&["audit", "show", "x"]).status.code(), Some(2));
    // A record of no message: a lane's first.
    let lane = receipt.rsplit_once(':').unwrap().0;
    let first = said_of(&world, &["audit", "show", &format!("{lane}:1")]);
    assert!(first.contains("lane_opened"), "{first}");

    let refused = run(&["send", "delta", "{}", "--json"]);
    assert_eq!(refused.status.code(), Some(1));
    let said_json = json(&refused);
    assert_eq!(
        (&said_json["accepted"], &said_json["decision"]),
        (&Json::Bool(false), &"AUTHZ_DENIED".into())
    );
    let explained = json(&world.mas(&["policy", "explain", "--from", "alpha", "--to", "delta", "--json"]));
    assert_eq!(said_json["rule"], explained["rule"], "{said_json}");
    let refused = run(&["send", "gamma", "{}"]);
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("not_authorized (PERMISSION_DENIED)") && why.contains("rule     "), "{why}");
    assert!(why.contains("receipt  "), "{why}");

    // From standard input, and with files in the place of a name.
    let files = agent_files(&world.certs(), &AgentId::parse("alpha").unwrap());
    let ca = ca_file(&world.certs());
    let (cert, key, ca) =
        (files.cert.display().to_string(), files.key.display().to_string(), ca.display().to_string());
    let mut command = world.mas_command(&["send", "beta", "--addr", addr, "--json"]);
    command.args(["--cert", &cert, "--key", &key, "--ca", &ca, "--server-name", "localhost"]);
    let mut process = Process::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    process.child().stdin.take().unwrap().write_all(b"{\"n\": 2}").unwrap();
    assert_eq!(b.take().data()["n"], 2);
    assert_eq!(process.wait().code(), Some(0));

    let asking = std::thread::spawn({
        let mut command = world.mas_command(&["request", "beta", "{\"q\": 6}", "--timeout", "20s"]);
        command.args(by_name);
        move || command.output().unwrap()
    });
    let question = b.take();
    let correlation = question.correlation_id().to_owned();
    beta.reply("b", &correlation, "{\"a\": 42}").unwrap();
    let answered = asking.join().unwrap();
    assert_eq!((answered.status.code(), json(&answered)), (Some(0), serde_json::json!({"a": 42})));
    // By its correlation id: the request, and its reply.
    let chain = said_of(&world, &["audit", "show", &correlation]);
    assert!(chain.contains("request from alpha") && chain.contains("its reply"), "{chain}");

    for (args, code) in [
        (&["send", "beta", "{", "--as", "alpha", "--addr", addr][..], 2),
        (&["send", "beta", "{}", "--as", "nobody", "--addr", addr], 2),
        (&["send", "beta", "{}", "--addr", addr], 2),
        (&["send", "beta", "{}", "--as", "alpha"], 2),
        (&["send", "beta", "{}", "--as", "alpha", "--addr", NOBODY, "--timeout", "1s"], 1),
    ] {
        let output = world.mas(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
    }
}

#[test]
fn what_waits_for_an_agent_is_given_back_by_who_sends_as_it() {
    let world = world();
    let server = world.server();
    drop(world.certificate("beta"));
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    alpha.send("a", "beta", "{\"for\": \"the agent\"}").unwrap();
    let sent = world.mas(&[
        "send",
        "alpha",
        "{}",
        "--as",
        "beta",
        "--addr",
        &server.addr,
        "--server-name",
        "localhost",
    ]);
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    let beta = world.client(&server, "beta").session("b");
    assert_eq!(beta.take().data()["for"], "the agent");
    assert_eq!(world.redis.len("dlq:messages"), 0);
}

#[test]
fn tail_and_query_filter_and_print_alike() {
    let world = world();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, _b) = (alpha.session("a"), beta.session("b"));
    for n in 0..30 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    assert!(beta.send("b", "gamma", "{}").is_err());
    for n in 0..30 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    let filter = ["--sender", "beta", "--decision", "AUTHZ_DENIED"];
    for format in ["--text", "--json", "--csv"] {
        let of = |command: &[&str]| said_of(&world, &[&["audit"], command, &filter[..], &[format]].concat());
        // It is older than the newest record, and found all the same.
        let (tail, query) = (of(&["tail", "-n", "1"]), of(&["query"]));
        assert_eq!(tail, query, "{format}");
        assert_eq!(tail.lines().count(), if format == "--csv" { 2 } else { 1 }, "{tail}");
    }
    let few = said_of(&world, &["audit", "tail", "-n", "5", "--action", "send"]);
    assert_eq!(few.lines().count(), 5, "{few}");
    assert_eq!(world.mas(&["audit", "tail", "--decision", "maybe"]).status.code(), Some(2));
    assert_eq!(world.mas(&["audit", "query", "--text", "--json"]).status.code(), Some(2));
}
