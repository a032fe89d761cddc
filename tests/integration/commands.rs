//! The programs as their users meet them: exit codes, errors, run, dev, certs.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Process, World, until};

#[test]
fn check_config_says_yes_or_names_the_mistake() {
    let world = World::new();
    let output = world.mas_server(&["--check-config"]);
    assert_eq!(output.status.code(), Some(0), "found upward: {output:?}");
    assert!(output.stdout.is_empty());

    for (text, expected) in [
        ("agents: []\nbogus: 1\n", "bogus"),
        ("server_listen_addr: nowhere\n", "server_listen_addr"),
        ("tls_ca_path: missing.pem\n", "tls_server_cert_path"),
        (
            "tls_ca_path: missing.pem\ntls_server_cert_path: certs/server.pem\ntls_server_key_path: certs/server.key\n",
            "missing.pem",
        ),
    ] {
        let path = world.path().join("bad.yaml");
        std::fs::write(&path, text).unwrap();
        let output = world.mas_server(&["--check-config", "--config", "bad.yaml"]);
        assert_eq!(output.status.code(), Some(2), "{text}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(expected), "{text}: {message}");
    }
    assert_eq!(world.mas_server(&["--threads", "0"]).status.code(), Some(2));
    assert_eq!(world.mas_server(&["--no-such-flag"]).status.code(), Some(2));
}

#[test]
fn an_unreachable_redis_is_a_failure_that_says_so() {
    let mut world = World::new();
    world.redis.kill();
    let output = world.mas_server(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "no ready line");
    assert!(String::from_utf8(output.stderr).unwrap().contains("Redis"));
}

#[test]
fn run_starts_agents_with_their_environment_and_stops_everything() {
    let world = World::new();
    drop(world.certificate("alpha"));
    let mas = env!("CARGO_BIN_EXE_mas");
    let config = format!(
        "server_listen_addr: 127.0.0.1:0
tls_ca_path: certs/ca.pem
tls_server_cert_path: certs/server.pem
tls_server_key_path: certs/server.key
gateway: {{redis: {{url: managed, data_dir: own-redis}}}}
agents:
  - agent_id: alpha
    command: [sh, -c, 'echo env $MAS_AGENT_ID $MAS_INSTANCE_ID $MAS_SERVER_ADDR $EXTRA; exec {mas} demo-worker']
    env: {{EXTRA: more}}
    instances: 2
    tls_cert_path: certs/agents/alpha.pem
    tls_key_path: certs/agents/alpha.key
"
    );
    std::fs::write(world.path().join("run.yaml"), config).unwrap();
    let output = world.path().join("output");
    let file = std::fs::File::create(&output).unwrap();
    let mut run = Process::start(
        Command::new(mas)
            .args(["run", "--config", "run.yaml"])
            .current_dir(world.path())
            .stdout(file)
            .stderr(Stdio::null()),
    );
    let said = || std::fs::read_to_string(&output).unwrap();
    until("both instances have started", || said().matches("env alpha").count() == 2);
    let text = said();
    for line in ["alpha/i0 | env alpha i0 127.0.0.1:", "alpha/i1 | env alpha i1 127.0.0.1:"] {
        assert!(text.contains(line), "{text}");
    }
    assert!(text.lines().filter(|l| l.contains("env")).all(|l| l.ends_with(" more")), "{text}");
    let socket = world.path().join("own-redis/redis.sock");
    let client = redis::Client::open(format!("unix://{}", socket.display())).unwrap();
    let mut connection = client.get_connection().unwrap();
    until("both are connected", || {
        let instances: Vec<(String, String)> =
            redis::cmd("HGETALL").arg("agent.instances:alpha").query(&mut connection).unwrap();
        instances.len() == 2 && instances.iter().all(|(_, on)| on.starts_with("s:"))
    });
    kill(Pid::from_raw(run.pid() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(run.wait().code(), Some(0));
    assert!(client.get_connection().is_err(), "Redis was stopped too");
}

#[test]
fn run_refuses_a_configuration_it_cannot_use() {
    let world = World::new();
    std::fs::write(world.path().join("bad.yaml"), "agents: [{agent_id: 'a b'}]").unwrap();
    let output = world.mas(&["run", "--config", "bad.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(world.mas(&["run", "--config", "none.yaml"]).status.code(), Some(2));
}

#[test]
fn the_demo_shows_every_scene() {
    let world = World::new();
    let output = world.mas(&["dev", "--demo", "--dir", "demo"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert_eq!(text.matches('✔').count(), 13, "{text}");
    // Again, on what the first run left.
    assert_eq!(world.mas(&["dev", "--demo", "--dir", "demo"]).status.code(), Some(0));
    let log = std::fs::read_to_string(world.path().join("demo/demo.log")).unwrap();
    assert!(!log.contains("redis_rolled_back"), "{log}");
}

#[test]
fn certificates_are_made_shown_and_good_for_a_connection() {
    let world = World::new();
    let made = world.mas(&["certs", "init", "--dir", "pki"]);
    assert_eq!(made.status.code(), Some(0), "{made:?}");
    assert_eq!(world.mas(&["certs", "issue", "--dir", "pki", "alpha", "beta"]).status.code(), Some(0));
    let shown = world.mas(&["certs", "show", "--dir", "pki"]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(text.contains("spiffe://mas/agent/alpha"), "{text}");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(world.path().join("pki/agents/alpha.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_ne!(world.mas(&["certs", "issue", "--dir", "pki", "a b"]).status.code(), Some(0));
}

#[test]
fn audit_commands_fail_with_the_documented_codes() {
    let mut world = World::new();
    assert_eq!(world.mas(&["audit", "verify", "--config", "none.yaml"]).status.code(), Some(2));
    assert_eq!(world.mas(&["audit", "nonsense"]).status.code(), Some(2));
    world.redis.kill();
    assert_eq!(world.mas(&["audit", "verify"]).status.code(), Some(1));
}

#[test]
fn a_server_alone_starts_the_redis_it_manages_and_stops_it() {
    let world = World::new();
    let config = "server_listen_addr: 127.0.0.1:0
tls_ca_path: certs/ca.pem
tls_server_cert_path: certs/server.pem
tls_server_key_path: certs/server.key
gateway: {redis: {url: managed, data_dir: own-redis}}
agents: [{agent_id: alpha}]
";
    std::fs::write(world.path().join("alone.yaml"), config).unwrap();
    let mut server = crate::support::Server::start(
        Command::new(env!("CARGO_BIN_EXE_mas-server"))
            .args(["--config", "alone.yaml"])
            .current_dir(world.path())
            .stderr(Stdio::null()),
    );
    let socket = world.path().join("own-redis/redis.sock");
    let client = redis::Client::open(format!("unix://{}", socket.display())).unwrap();
    assert!(client.get_connection().is_ok());
    server.stop();
    assert!(client.get_connection().is_err());
}

#[test]
fn explain_names_the_decision_and_its_rule() {
    let world = World::new();
    let explain = |args: &[&str]| -> serde_json::Value {
        let output = world.mas(&[&["policy", "explain", "--json"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let allowed = explain(&["--from", "alpha", "--to", "beta"]);
    assert_eq!((&allowed["decision"], &allowed["rule"]), (&"ALLOWED".into(), &"permissions[0]".into()));
    let denied = explain(&["--from", "alpha", "--to", "gamma"]);
    assert_eq!((&denied["rule"], &denied["details"]), (&"default_deny".into(), &"not_authorized".into()));
    assert_eq!(explain(&["--from", "alpha", "--to", "nobody"])["rule"], "unknown_target");
    assert_eq!(explain(&["--from", "x", "--to", "beta"])["details"], "agent_not_allowlisted");
    assert_eq!(
        explain(&["--from", "alpha", "--to", "beta", "--data", "[]"])["details"],
        "payload_must_be_object"
    );
    // The server agrees.
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    alpha.send("a", "beta", "{}").unwrap();
    assert!(world.records().iter().any(|r| r.rule == "permissions[0]"));
}

#[test]
fn the_sets_of_an_older_deployment_become_rules() {
    let world = World::new();
    let _: i64 = world.redis.query(&["SADD", "agent:alpha:allowed_targets", "beta", "gamma", "stranger"]);
    let _: i64 = world.redis.query(&["SADD", "agent:beta:allowed_targets", "*"]);
    let _: i64 = world.redis.query(&["SADD", "agent:beta:blocked_targets", "delta"]);
    let output = world.mas(&["policy", "import-sets"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "  - {type: allow, sender: alpha, targets: [beta, gamma]}",
        "  - {type: allow_wildcard, agent_id: beta}",
        "  - {type: deny, sender: beta, targets: [delta]}",
    ] {
        assert!(text.lines().any(|l| l == line), "{text}");
    }
    assert!(String::from_utf8(output.stderr).unwrap().contains("stranger"));
    // While serving, the sets mean nothing: mas.yaml is the authority.
    let server = world.server();
    let beta = world.client(&server, "beta");
    let _b = beta.session("b");
    assert_eq!(beta.send("b", "gamma", "{}").unwrap_err().details, "not_authorized");
}

#[test]
fn a_private_key_that_everybody_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let key = world.certs().join("server.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let output = world.mas_server(&["--check-config"]);
    assert_eq!(output.status.code(), Some(2));
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(message.contains("server.key") && message.contains("644"), "{message}");
}
