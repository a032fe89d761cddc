//! A real server says what happens to it: by the same codes in text and as JSON.

use std::process::Command;

use nix::sys::signal::Signal;

use crate::support::{World, until};

const BREAKER: &str = "rate_limit: {per_minute: 100000, per_hour: 100000}, \
    circuit_breaker: {failure_threshold: 3, success_threshold: 1, timeout_seconds: 1, window_seconds: 60}";

/// What must have been said by the end, by level and code.
const EXPECTED: [(&str, &str); 10] = [
    ("INFO", "connection_limit"),
    ("INFO", "server_ready"),
    ("ERROR", "reload_refused"),
    ("INFO", "reload_taken"),
    ("WARN", "handshake_refused"),
    ("WARN", "circuit_opened"),
    ("WARN", "redis_away"),
    ("INFO", "redis_back"),
    ("INFO", "server_stopping"),
    ("INFO", "server_stopped"),
];

/// Makes things happen; `is_logged`: whether the log has a line with a code.
fn live(format: &str, is_logged: impl Fn(&World, &str) -> bool) -> World {
    let mut world = World::new();
    world.set_gateway(BREAKER);
    let mut command = Command::new(World::SERVER);
    command.args(["--log-format", format]);
    let mut server = world.server_by(command, "127.0.0.1:0", &world.config_path());

    world.set_agents("agents: [{agent_id: 'no such shape'}]\n");
    server.signal(Signal::SIGHUP);
    until("the file is refused", || is_logged(&world, "reload_refused"));
    world.set_agents(World::PAIR);
    server.signal(Signal::SIGHUP);
    until("the file is taken", || is_logged(&world, "reload_taken"));

    let ca = std::fs::read(mas::certs::ca_file(&world.certs())).unwrap();
    let stranger = crate::support::Client::new(&server.addr, ca, None);
    assert_eq!(stranger.send("i", "beta", "{}").unwrap_err().code, "UNAVAILABLE");
    until("it is said who knocked", || is_logged(&world, "handshake_refused"));

    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for _ in 0..3 {
        alpha.send("a", "beta", "{}").unwrap();
        b.nack(&b.next().id, "handler_error:ValueError", false);
    }
    until("the circuit is open", || is_logged(&world, "circuit_opened"));

    world.redis.kill();
    until("Redis is away", || {
        // An idle worker does not look.
        beta.send("b", "alpha", "{}").is_err() && is_logged(&world, "redis_away")
    });
    world.redis.resume();
    until("Redis is back", || is_logged(&world, "redis_back"));

    server.stop();
    assert!(is_logged(&world, "server_stopped"));
    world
}

#[test]
fn what_happens_is_logged_as_json_with_codes_and_fields() {
    let lines = |world: &World| -> Vec<serde_json::Value> {
        let logged = world.logged();
        // The last line may not be written to its end yet.
        let whole = &logged[..logged.rfind('\n').map_or(0, |at| at + 1)];
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    };
    let world = live("json", |world, code| lines(world).iter().any(|line| line["code"] == code));
    let lines = lines(&world);
    for line in &lines {
        for name in ["time", "level", "code", "module", "message"] {
            assert!(line[name].as_str().is_some_and(|text| !text.is_empty()), "{name}: {line}");
        }
    }
    let of =
        |code: &str| lines.iter().find(|line| line["code"] == code).unwrap_or_else(|| panic!("no {code}"));
    for (level, code) in EXPECTED {
        assert_eq!(of(code)["level"], level, "{code}");
    }
    let path = world.config_path().display().to_string();
    assert_eq!(of("reload_refused")["path"], path);
    assert_eq!(of("reload_taken")["path"], path);
    assert_eq!(of("circuit_opened")["agent"], "beta");
    assert_eq!(of("circuit_opened")["module"], "mas::shard::worker::settlements");
    assert!(of("redis_away")["worker"].as_u64().is_some_and(|worker| worker < 2), "{}", of("redis_away"));
    assert_eq!(of("handshake_refused")["reason"], "no_certificate");
    assert!(of("handshake_refused")["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(of("server_ready")["addr"].as_str().unwrap().starts_with("127.0.0.1:"));
}

#[test]
fn what_happens_is_logged_as_text_with_codes_and_the_fields_that_the_message_lacks() {
    let world = live("text", |world, code| world.logged().contains(&format!(" {code}] ")));
    let logged = world.logged();
    // [TIME LEVEL CODE] MESSAGE FIELD=VALUE
    let of = |code: &str| -> (String, String) {
        let line = logged
            .lines()
            .find(|line| line.contains(&format!(" {code}] ")))
            .unwrap_or_else(|| panic!("no {code}"));
        let (head, text) = line.strip_prefix('[').unwrap().split_once("] ").unwrap();
        (head.to_owned(), text.to_owned())
    };
    for (level, code) in EXPECTED {
        let head = of(code).0;
        let words: Vec<&str> = head.split_whitespace().collect();
        assert_eq!(words[1..], [level, code], "{head}");
        assert!(words[0].ends_with('Z'), "{head}");
    }
    let path = world.config_path().display().to_string();
    assert_eq!(of("reload_taken").1, format!("{path}: in force"), "the message gives the path");
    assert!(of("handshake_refused").1.ends_with("it shows no certificate reason=no_certificate"), "{logged}");
    assert_eq!(of("server_stopped").1, "stopped");
}

#[test]
fn levels_are_set_for_a_module_alone() {
    let world = World::new();
    let mut command = Command::new(World::SERVER);
    command.args(["--log-format", "json"]).env("RUST_LOG", "error,mas::gate=info");
    let mut server = world.server_by(command, "127.0.0.1:0", &world.config_path());
    server.stop();
    let logged = world.logged();
    let lines: Vec<serde_json::Value> =
        logged.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["code"] == "connection_limit"), "{logged}");
    let is_of_gate = |line: &serde_json::Value| line["module"].as_str().unwrap().starts_with("mas::gate");
    assert!(lines.iter().all(|line| is_of_gate(line) || line["level"] == "ERROR"), "{logged}");
}
