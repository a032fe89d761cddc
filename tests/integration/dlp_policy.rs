//! How operators hold data-loss prevention: exceptions, the report of what was found, samples, rules of their own.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::{Refused, World, until};

fn blocked() -> Result<String, Refused> {
    Err(Refused { code: "PERMISSION_DENIED".to_owned(), details: "dlp_blocked".to_owned() })
}

const EXCEPTIONS: &str = "dlp: {exceptions: [\
    {name: ledger, from: alpha, to: beta, type: test, pointer: /items/*/card, kind: credit_card, action: allow, reason: the ledger has them}, \
    {name: replies, from: beta, to: alpha, pointer: /ssn, kind: ssn, action: allow, reason: looked up}, \
    {name: partner, to: gamma, kind: email, action: block, reason: never to gamma}]}";

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn lines(output: &Output) -> Vec<Value> {
    let out = String::from_utf8(output.stdout.clone()).unwrap();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_exception_lets_pass_what_it_is_about_and_is_on_record() {
    let mut world = World::new();
    world.set_gateway(EXCEPTIONS);
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let item = r#"{"items":[{"card":"4111 1111 1111 1111"}]}"#;
    alpha.send("a", "beta", item).unwrap();
    assert!(b.take().json.contains("4111 1111 1111 1111"));
    // Another place, another kind at the same place, another target.
    assert_eq!(alpha.send("a", "beta", r#"{"card":"4111 1111 1111 1111"}"#), blocked());
    assert_eq!(alpha.send("a", "beta", r#"{"items":[{"card":"password=hunter2-hunter2"}]}"#), blocked());
    assert_eq!(
        alpha.send(
            "a",
            "beta",
            r#"{"items":[{"card":"4111 1111 1111 1111","iban":"DE89 3704 0044 0532 0130 00"}]}"#
        ),
        blocked()
    );
    // A reply is a message of its sender, too.
    let correlation = alpha.request("a", "beta", "{}", 30_000).unwrap();
    b.take();
    beta.reply("b", &correlation, r#"{"ssn":"123-45-6789"}"#).unwrap();
    assert_eq!(a.take().data()["ssn"], "123-45-6789");
    alpha.send("a", "beta", r#"{"ssn":"123-45-6789"}"#).unwrap();
    assert_eq!(b.take().data()["ssn"], "XXX-XX-6789");
    server.stop();

    let records = world.records();
    let excepted = |name: &str| {
        let record = records.iter().find(|record| record.findings.contains(name)).unwrap();
        let findings: Value = serde_json::from_str(&record.findings).unwrap();
        (record.decision.as_str(), findings[0].clone())
    };
    let (decision, finding) = excepted("ledger");
    assert_eq!(
        (decision, &finding["action"], &finding["exception"]),
        ("ALLOWED", &"allow".into(), &"ledger".into())
    );
    assert_eq!(excepted("replies").0, "ALLOWED");
    world.assert_intact();

    // What was decided is decided again by the same configuration, and by one without exceptions otherwise.
    let same = lines(&world.mas(&["policy", "replay", "--config", "mas.yaml", "--json"]));
    assert_eq!(same.len(), 1, "{same:?}");
    let other = world.path().join("strict.yaml");
    let configured = std::fs::read_to_string(world.config_path()).unwrap();
    std::fs::write(&other, configured.replace("name: ledger, from: alpha", "name: ledger, from: gamma"))
        .unwrap();
    let strict = lines(&world.mas(&["policy", "replay", "--config", "strict.yaml", "--json"]));
    assert_eq!(strict.len(), 2, "{strict:?}");

    // The report says what was found, of whom and where.
    let report = lines(&world.mas(&["dlp", "report", "--json"]));
    let row = |pointer: &str, action: &str| {
        report.iter().find(|row| row["pointer"] == pointer && row["action"] == action).unwrap()
    };
    let allowed = row("/items/*/card", "allow");
    assert_eq!((&allowed["from"], &allowed["to"]), (&"alpha".into(), &"beta".into()));
    assert_eq!((&allowed["exception"], &allowed["type"]), (&"ledger".into(), &"credit_card".into()));
    assert_eq!(
        (&row("/card", "block")["rule"], &row("/card", "block")["count"]),
        (&"default.credit_card".into(), &1.into())
    );
    // What it proposes, taken as it is, lets pass what was refused, and nothing else.
    let proposed = world.mas(&["dlp", "report", "--exceptions"]);
    let proposed = String::from_utf8(proposed.stdout).unwrap();
    let wanted = proposed.lines().find(|line| line.contains("pointer: \"/card\"")).unwrap();
    world.set_gateway(&format!("dlp: {{exceptions: [{}]}}", wanted.trim_start_matches("- ")));
    for (pointer, decision) in [("card", "ALERT"), ("other", "DLP_BLOCKED")] {
        let data = format!(r#"{{"{pointer}":"4111 1111 1111 1111"}}"#);
        let explained = world.mas(&[
            "policy", "explain", "--from", "alpha", "--to", "beta", "--type", "test", "--data", &data,
            "--json",
        ]);
        let explained: Value =
            serde_json::from_slice(&explained.stdout).unwrap_or_else(|_| panic!("{}", text(&explained)));
        assert_eq!(explained["decision"], decision, "{explained}");
    }
}

#[test]
fn exceptions_are_taken_up_by_a_reload_and_wrong_ones_are_named() {
    let mut world = World::new();
    let mut server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let card = r#"{"items":[{"card":"4111 1111 1111 1111"}]}"#;
    assert_eq!(alpha.send("a", "beta", card), blocked());
    world.set_gateway(EXCEPTIONS);
    server.signal(nix::sys::signal::Signal::SIGHUP);
    until("the exception is in force", || alpha.send("a", "beta", card).is_ok());
    let mut wrong = |exception: &str| {
        world.set_gateway(&format!("dlp: {{exceptions: [{exception}]}}"));
        text(&world.mas_server(&["--config", "mas.yaml", "--check-config"]))
    };
    let said = wrong("{kind: sssn, action: allow, reason: r}");
    assert!(said.contains("gateway.dlp.exceptions[0].kind") && said.contains("sssn"), "{said}");
    let said = wrong("{kind: ssn, from: nobody, action: allow, reason: r}");
    assert!(said.contains("\"nobody\" is no agent of this file"), "{said}");
    server.stop();
}

#[test]
fn samples_are_judged_by_the_configuration() {
    let mut world = World::new();
    world.set_gateway(EXCEPTIONS);
    let folder = world.path().join("samples");
    std::fs::create_dir_all(folder.join("more")).unwrap();
    let right = concat!(
        r#"{"id": "ledger", "from": "alpha", "to": "beta", "type": "test", "data": {"items": [{"card": "4111 1111 1111 1111"}]}, "expect": "allow"}"#,
        "\n\n",
        r#"{"data": {"x": "4111 1111 1111 1111"}, "expect": "block", "kinds": ["credit_card"]}"#,
        "\n",
        r#"{"to": "gamma", "data": {"x": "bob@mail.example.com"}, "expect": "block"}"#,
        "\n",
    );
    std::fs::write(folder.join("right.jsonl"), right).unwrap();
    std::fs::write(folder.join("more/text.jsonl"), "{\"data\": {}, \"expect\": \"allow\", \"kinds\": []}\n")
        .unwrap();
    std::fs::write(folder.join("readme.md"), "no sample\n").unwrap();
    let done = world.mas(&["dlp", "test", "samples", "--config", "mas.yaml", "--junit", "out.xml"]);
    assert_eq!((done.status.code(), text(&done).trim()), (Some(0), "4 samples, 0 failed"));
    std::fs::write(
        folder.join("wrong.jsonl"),
        "{\"id\": \"<&\\\"\", \"data\": {\"x\": \"bob@mail.example.com\"}, \"expect\": \"allow\"}\n",
    )
    .unwrap();
    let done = world.mas(&["dlp", "test", "samples", "--config", "mas.yaml", "--junit", "out.xml"]);
    let said = text(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(
        said.contains("expected allow, was alert: default.email at /x")
            && said.contains("5 samples, 1 failed"),
        "{said}"
    );
    let junit = std::fs::read_to_string(world.path().join("out.xml")).unwrap();
    assert!(junit.contains("tests=\"5\" failures=\"1\"") && junit.contains("&lt;&amp;"), "{junit}");
    assert!(!junit.contains("bob@mail"), "{junit}");
    for (sample, problem) in [
        ("{\"data\": [], \"expect\": \"allow\"}", "data is no JSON object"),
        ("{\"data\": {}, \"expect\": \"maybe\"}", "no sample"),
        ("{\"data\": {}, \"expect\": \"allow\", \"sender\": \"a\"}", "no sample"),
    ] {
        std::fs::write(folder.join("wrong.jsonl"), sample).unwrap();
        let done = world.mas(&["dlp", "test", "samples", "--config", "mas.yaml"]);
        assert!(done.status.code() == Some(2) && text(&done).contains(problem), "{}", text(&done));
        assert!(text(&done).contains("wrong.jsonl:1"), "{}", text(&done));
    }
    let none = world.mas(&["dlp", "test", "samples/none", "--config", "mas.yaml"]);
    assert_eq!(none.status.code(), Some(2));
}

/// `mas dlp scan` on one line.
fn scan(world: &World, folder: &Path, args: &[&str], line: &str) -> Value {
    use std::io::Write;
    use std::process::Stdio;
    let mut command = world.mas_command(&[&["dlp", "scan"][..], args].concat());
    let command = command.current_dir(folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.env_remove("MAS_CONFIG_FILE").spawn().unwrap();
    child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn a_scan_applies_exceptions_of_the_named_agents_and_needs_no_configuration() {
    let mut world = World::new();
    world.set_gateway(EXCEPTIONS);
    let line = r#"{"items":[{"card":"4111 1111 1111 1111"}]}"#;
    let route = ["--from", "alpha", "--to", "beta", "--type", "test"];
    let with = scan(&world, world.path(), &[&["--config", "mas.yaml"][..], &route].concat(), line);
    assert_eq!((&with["action"], &with["findings"][0]["exception"]), (&"allow".into(), &"ledger".into()));
    assert_eq!(scan(&world, world.path(), &["--config", "mas.yaml"], line)["action"], "block");
    let elsewhere = tempfile::tempdir().unwrap();
    assert_eq!(scan(&world, elsewhere.path(), &route, line)["action"], "block");
}

#[test]
fn rules_of_ones_own_are_a_file_beside_the_configuration() {
    let mut world = World::new();
    let rules = world.path().join("own-rules.yaml");
    std::fs::write(
        &rules,
        "names: [{id: own.vault, kind: secret, value: password, weight: 60, names: [tresor wort], source: us}]\n\
         tokens: [{prefix: acme_, kind: service_token, alphabet: hex, length: 32, source: us}]\n",
    )
    .unwrap();
    world.set_gateway("dlp: {rules_file: own-rules.yaml}");
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    assert_eq!(alpha.send("a", "beta", r#"{"tresorWort":"hunter2-hunter2"}"#), blocked());
    assert_eq!(alpha.send("a", "beta", r#"{"x":"acme_0f1e2d3c4b5a69788796a5b4c3d2e1f0"}"#), blocked());
    // The built-in ones are there, too.
    assert_eq!(alpha.send("a", "beta", r#"{"password":"hunter2-hunter2"}"#), blocked());
    alpha.send("a", "beta", r#"{"x":"nothing to see"}"#).unwrap();
    std::fs::write(&rules, "names: [{id: own, kind: nothing}]\n").unwrap();
    let refused = world.mas_server(&["--config", "mas.yaml", "--check-config"]);
    let said = text(&refused);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("gateway.dlp.rules_file") && said.contains("nothing"), "{said}");
    std::fs::remove_file(&rules).unwrap();
    let said = text(&world.mas_server(&["--config", "mas.yaml", "--check-config"]));
    assert!(said.contains("own-rules.yaml") && said.contains("No such file"), "{said}");
}
