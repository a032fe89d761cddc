//! The admin listener of a real server: health, readiness, metrics, and who may ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mas::certs::{agent_files, ca_file, operator_files};
use mas::ids::AgentId;
use mas::protocol::ServingStatus;
use mas::shard::desk::troubles::Code;
use nix::sys::signal::Signal;

use crate::support::{Answered, Server, World, free_port, get, get_as, until, within};

/// How soon what is wrong must show.
const SHOWS: Duration = Duration::from_secs(3);

fn world() -> World {
    let mut world = World::new();
    world.set_admin("127.0.0.1:0");
    world
}

#[track_caller]
fn ask(server: &Server, path: &str) -> Answered {
    get(server.admin.as_ref().unwrap(), path).unwrap()
}

/// Samples by name and labels, as they stand on the page.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let lines = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

#[test]
fn a_server_says_that_it_is_well_and_why_it_is_not() {
    let mut world = world();
    let mut server = world.server();
    assert_eq!(ask(&server, "/healthz").body, "ok\n");
    until("it is ready", || ask(&server, "/readyz").status == 200);
    let ready = ask(&server, "/readyz?verbose");
    for check in ["redis", "workers", "audit", "storage", "drain"] {
        assert!(ready.body.contains(&format!("[+] {check}: ok\n")), "{}", ready.body);
    }
    assert!(ready.head.contains("cache-control: no-store"), "{}", ready.head);
    world.redis.kill();
    within(SHOWS, "it is not ready, and says why", || {
        let answer = ask(&server, "/readyz");
        answer.status == 503
            && answer.body.contains("[-] redis: ")
            && answer.body.contains("gateway.redis.url")
    });
    assert_eq!(ask(&server, "/healthz").status, 200);
    assert_eq!(samples(&ask(&server, "/metrics").body)["mas_redis_up"], 0.0);
    world.redis.resume();
    until("it is ready again", || ask(&server, "/readyz").status == 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_code(), Some(0));
    assert!(get(server.admin.as_ref().unwrap(), "/healthz").is_err());
}

#[test]
fn what_metrics_count_is_what_the_trail_says() {
    let mut world = world();
    world.set_agents(
        "permissions: [{type: allow_broadcast, sender: alpha, receivers: [beta]}]\n\
         agents: [{agent_id: alpha}, {agent_id: beta}]\n",
    );
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for n in 0..7 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
        b.take();
    }
    for target in ["alpha", "nobody", "x\n\"y"] {
        assert!(beta.send("b", target, "{}").is_err());
    }
    alpha.send("a", "beta", "{}").unwrap();
    b.nack(&b.next().id, "never", false);
    until("it is a dead letter", || world.redis.len("dlq:messages") == 1);
    until("its acknowledgements have left", || world.redis.len("agent.stream:beta") == 0);
    let page = ask(&server, "/metrics").body;
    let found = samples(&page);
    assert_eq!(found["mas_messages_total{call=\"send\",decision=\"ALLOWED\"}"], 8.0, "{page}");
    assert_eq!(found["mas_messages_total{call=\"send\",decision=\"AUTHZ_DENIED\"}"], 3.0);
    assert_eq!(found["mas_agent_messages_total{agent=\"beta\",decision=\"AUTHZ_DENIED\"}"], 3.0);
    assert_eq!(found["mas_edge_messages_total{sender=\"alpha\",target=\"beta\"}"], 8.0);
    assert_eq!(found["mas_edge_messages_total{sender=\"beta\",target=\"alpha\"}"], 1.0);
    // Names of nobody make no labels.
    assert!(!page.contains("nobody"), "{page}");
    assert_eq!(found["mas_deliveries_total{agent=\"beta\",outcome=\"ack\"}"], 7.0);
    assert_eq!(found["mas_deliveries_total{agent=\"beta\",outcome=\"dead\"}"], 1.0);
    assert_eq!(found["mas_sessions{agent=\"alpha\"}"], 1.0);
    assert_eq!(found["mas_queue_delay_seconds_count"], 8.0);
    assert_eq!(found["mas_handling_duration_seconds_count"], 8.0);
    assert_eq!(found["mas_refusals_total{reason=\"not_authorized\"}"], 3.0);
    assert_eq!(found["mas_mailbox_depth{worker=\"0\"}"], 0.0);
    let ends_s = found["mas_agent_certificate_expiry_timestamp_seconds{agent=\"alpha\"}"];
    let now_s = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
    assert!(ends_s > now_s, "{ends_s}");

    // Once nothing happens any more both say the same.
    until("the report and the page agree", || {
        let output = world.mas(&["audit", "report", "--json"]);
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let reported: BTreeMap<String, u64> = serde_json::from_value(report["actions"].clone()).unwrap();
        let mut actions = BTreeMap::<String, u64>::new();
        for (name, count) in samples(&ask(&server, "/metrics").body) {
            if let Some(labels) = name.strip_prefix("mas_audit_records_total{action=\"") {
                *actions.entry(labels.split('"').next().unwrap().to_owned()).or_default() += count as u64;
            }
        }
        actions == reported
    });
}

#[test]
fn a_redis_that_hangs_or_takes_no_writes_shows() {
    let world = world();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    until("it is ready", || ask(&server, "/readyz").status == 200);
    world.redis.halt();
    until("it is not ready", || ask(&server, "/readyz").status == 503);
    // Scrapes do not wait for it for long, and tell.
    until("a scrape tells", || samples(&ask(&server, "/metrics").body)["mas_redis_up"] == 0.0);
    world.redis.proceed();
    until("it is ready again", || ask(&server, "/readyz").status == 200);
    assert_eq!(alpha.health("").unwrap(), ServingStatus::SERVING);
    let _: String = world.redis.query(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    until("it is not ready", || ask(&server, "/readyz").status == 503);
    let why = ask(&server, "/readyz").body;
    assert!(why.contains("[-] lease: Redis does not take"), "{why}");
    until("agents are told", || alpha.health("").unwrap() == ServingStatus::NOT_SERVING);
    let _: String = world.redis.query(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    until("it is ready once more", || ask(&server, "/readyz").status == 200);
}

#[test]
fn every_metric_is_documented_and_every_documented_one_exists() {
    let world = world();
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", "100000000"]);
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{}").unwrap();
    b.take();
    until("Redis was looked at", || samples(&ask(&server, "/metrics").body)["mas_redis_up"] == 1.0);
    let page = ask(&server, "/metrics").body;
    let exported: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    let is_metric =
        |line: &&str| ["counter", "gauge", "histogram"].iter().any(|t| line.contains(&format!("| {t} |")));
    let named = |line: &str| Some(line.strip_prefix("| `")?.split(['`', '{']).next()?.to_owned());
    let documented: BTreeSet<String> = text.lines().filter(is_metric).filter_map(named).collect();
    let exported: BTreeSet<String> = exported.into_iter().map(str::to_owned).collect();
    assert_eq!(exported, documented);
    for code in Code::ALL {
        assert!(text.contains(&format!("| `{}` |", code.as_str())), "{}", code.as_str());
    }
    // Every line of it is a sample of a family, with a help text.
    let helps = page.lines().filter(|line| line.starts_with("# HELP ")).count();
    assert_eq!(helps, exported.len());
    assert!(samples(&page).len() > exported.len());
}

#[test]
fn without_an_address_it_may_be_missing_and_with_one_it_may_not() {
    let mut world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    world.set_admin(&addr);
    let output = world.mas_server(&["--config", "mas.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("admin_listen_addr: cannot listen on {addr}")), "{said}");
    drop(taken);
    world.set_admin(&format!("127.0.0.1:{}", free_port()));
    assert!(world.server().admin.is_some());
    world.set_admin("null");
    assert!(world.server().admin.is_none());
    // The default address: whoever comes second goes without it.
    let text = std::fs::read_to_string(world.config_path()).unwrap();
    std::fs::write(world.config_path(), text.replace("admin_listen_addr: null\n", "")).unwrap();
    let (first, second) = (world.server(), world.server());
    assert!(second.admin.is_none());
    if first.admin.is_some() {
        assert_eq!(first.admin.as_deref(), Some("127.0.0.1:9464"));
    }
    assert!(world.logged().contains("no admin listener: 127.0.0.1:9464"), "{}", world.logged());
}

#[test]
fn whoever_comes_from_elsewhere_shows_an_operators_certificate() {
    let mut world = world();
    world.set_admin("0.0.0.0:0");
    world.set_settings("operators: [{name: ops, role: operator}, {name: eyes, role: reader}]\ntls_revoked_path: certs/revoked.json\n");
    let certs = world.certs();
    let issued = world.mas(&[
        "certs",
        "issue",
        "--dir",
        "certs",
        "--operator",
        "ops",
        "--operator",
        "other",
        "--operator",
        "eyes",
    ]);
    assert_eq!(issued.status.code(), Some(0), "{issued:?}");
    drop(world.certificate("alpha"));
    let server = world.server();
    let port = server.admin.as_ref().unwrap().rsplit_once(':').unwrap().1.to_owned();
    let (addr, ca) = (format!("127.0.0.1:{port}"), ca_file(&certs));
    let ask = |path: &str, files: &mas::certs::IssuedPaths| {
        get_as(&addr, path, &ca, Some((&files.cert, &files.key))).unwrap()
    };
    let (ops, other) = (operator_files(&certs, "ops"), operator_files(&certs, "other"));
    let agent = agent_files(&certs, &AgentId::parse("alpha").unwrap());
    until("it is ready", || ask("/readyz", &ops).status == 200);
    assert_eq!(ask("/metrics", &ops).status, 200);
    assert_eq!(ask("/healthz", &other).status, 200);
    let eyes = operator_files(&certs, "eyes");
    assert_eq!(ask("/metrics", &eyes).status, 200);
    assert_eq!(ask("/api/v1/events", &eyes).status, 403);
    for (files, why) in [(&other, "does not name this operator"), (&agent, "does not name an operator")] {
        let refused = ask("/metrics", files);
        assert_eq!(refused.status, 403);
        assert!(refused.body.contains(why), "{}", refused.body);
    }
    assert_eq!(ask("/readyz?verbose", &agent).body, "ready\n");
    assert!(ask("/readyz?verbose", &ops).body.contains("[+] redis: ok"));
    assert!(get(&addr, "/healthz").is_err(), "plain HTTP");
    assert!(get_as(&addr, "/healthz", &ca, None).is_err(), "no certificate");
    let operator = ops.cert.display().to_string();
    assert_eq!(world.mas(&["certs", "revoke", "--dir", "certs", "--file", &operator]).status.code(), Some(0));
    until("it is revoked", || ask("/metrics", &ops).status == 403);
    // An operator is no agent.
    let (cert, key) = (std::fs::read(&other.cert).unwrap(), std::fs::read(&other.key).unwrap());
    assert!(world.client_with(&server, cert, key).send("a", "beta", "{}").is_err());
}

#[test]
fn a_reload_that_is_refused_shows_until_one_is_taken() {
    let mut world = world();
    let server = world.server();
    let good = std::fs::read_to_string(world.config_path()).unwrap();
    std::fs::write(world.config_path(), "gateway: {redis: 'redis://:TOPSECRET@h:1/0'}\n").unwrap();
    server.signal(Signal::SIGHUP);
    let trouble = "mas_trouble{code=\"reload_refused\"}";
    until("it shows", || samples(&ask(&server, "/metrics").body)[trouble] == 1.0);
    let status: serde_json::Value = serde_json::from_str(&ask(&server, "/api/v1/status").body).unwrap();
    assert_eq!(status["troubles"][0]["code"], "reload_refused", "{status}");
    let told = [status.to_string(), ask(&server, "/readyz?verbose").body, world.logged()].concat();
    assert!(told.contains("gateway.redis") && !told.contains("TOPSECRET"), "{told}");
    // It serves on.
    until("it is ready", || ask(&server, "/readyz").status == 200);
    assert!(ask(&server, "/readyz?verbose").body.contains("[!] reload_refused: "));
    std::fs::write(world.config_path(), good).unwrap();
    server.signal(Signal::SIGHUP);
    until("it is over", || samples(&ask(&server, "/metrics").body)[trouble] == 0.0);
    let found = samples(&ask(&server, "/metrics").body);
    assert_eq!(found["mas_config_reloads_total{result=\"failure\"}"], 1.0);
    assert_eq!(found["mas_config_reloads_total{result=\"success\"}"], 1.0);
    assert_eq!(ask(&server, "/nothing").status, 404);
    world.set_admin("null");
}

#[test]
fn agents_may_ask_the_standard_health_service_and_strangers_not() {
    let world = world();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    for service in ["", "mas.runtime.v1.RuntimeService", "mas.v1.MasService"] {
        assert_eq!(alpha.health(service).unwrap(), ServingStatus::SERVING, "{service}");
    }
    assert_eq!(alpha.health("another").unwrap_err().code, "NOT_FOUND");
    let stranger = world.client(&server, "stranger");
    assert_eq!(stranger.health("").unwrap_err().code, "UNAUTHENTICATED");
}

#[test]
fn operators_see_in_the_terminal_how_the_server_is() {
    let mut world = world();
    let server = world.server();
    let addr = server.admin.clone().unwrap();
    let status = |world: &World| {
        let output = world.mas(&["status", "--admin", &addr]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    until("it is ready", || status(&world).0 == Some(0));
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    alpha.send("a", "beta", "{}").unwrap();
    let (_, text) = status(&world);
    assert!(text.starts_with("ready: server ") && text.contains("1 sessions of 1 agents here"), "{text}");
    let json = world.mas(&["status", "--admin", &addr, "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["ready"], true);
    world.redis.kill();
    within(SHOWS, "it is not ready, and says why", || {
        let (code, text) = status(&world);
        code == Some(1) && text.starts_with("NOT READY: ") && text.contains("  redis: ")
    });
    let nobody = format!("127.0.0.1:{}", free_port());
    let output = world.mas(&["status", "--admin", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no answer of http://127.0.0.1:"));
    // Port 0 is not where it listens; its unix socket says how it is.
    let output = world.mas(&["status"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("NOT READY: "), "{output:?}");
}

#[test]
fn decisions_are_seen_as_they_are_committed() {
    let world = world();
    let server = world.server();
    let addr = server.admin.clone().unwrap();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, _b) = (alpha.session("a"), beta.session("b"));
    let filters =
        ["--from", "alpha", "--to", "beta", "--to", "nobody", "--action", "send", "--count", "2", "--json"];
    let mut tap = world.mas_command(&[&["tap", "--admin", &addr][..], &filters].concat());
    let mut tap = tap.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let watched = || samples(&ask(&server, "/metrics").body)["mas_admin_streams"] == 1.0;
    until("it watches", watched);
    assert!(beta.send("b", "beta", "{}").is_err());
    alpha.send("a", "beta", "{}").unwrap();
    assert!(alpha.send("a", "nobody", "{}").is_err());
    let mut text = String::new();
    std::io::Read::read_to_string(&mut tap.stdout.take().unwrap(), &mut text).unwrap();
    assert_eq!(tap.wait().unwrap().code(), Some(0));
    let records: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seen: Vec<_> = records
        .iter()
        .map(|record| (record["target"].as_str().unwrap(), record["decision"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [("beta", "ALLOWED"), ("nobody", "AUTHZ_DENIED")]);
    // They are those of the trail.
    let lanes: BTreeSet<&str> = records.iter().map(|record| record["lane"].as_str().unwrap()).collect();
    let on_record = world.mas(&["audit", "tail", "--json"]);
    let on_record = String::from_utf8(on_record.stdout).unwrap();
    assert!(lanes.iter().all(|lane| on_record.contains(lane)), "{on_record}");
    until("it watches no more", || samples(&ask(&server, "/metrics").body)["mas_admin_streams"] == 0.0);
    let wrong = world.mas(&["tap", "--admin", &addr, "--action", "fly"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8(wrong.stderr).unwrap();
    assert!(said.contains("400: \"fly\" is no action; expected one of "), "{said}");
}
