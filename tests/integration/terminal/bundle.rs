//! A bundle for a report of an error: everything in it but secrets.

use std::io::Read;

use super::{NOBODY, admin, said_of, world};
use crate::support::{World, until};

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
