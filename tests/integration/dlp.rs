//! Data-loss prevention as senders, receivers and auditors meet it.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::support::{Refused, World};

fn blocked() -> Result<String, Refused> {
    Err(Refused { code: "PERMISSION_DENIED".to_owned(), details: "dlp_blocked".to_owned() })
}

#[test]
fn a_blocked_payload_goes_nowhere_and_its_text_is_on_no_record() {
    let world = World::new();
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for payload in [
        "{\"pay\": {\"card\": \"4111 1111 1111 1111\"}}",
        "{\"amex\": \"3782 822463 10005\"}",
        "{\"password\": \"hunter2-hunter2\"}",
        "{\"api_key\": \"q8Zt5Lw2Rk9Xv4Bn7Mp1Sd6\"}",
        "{\"key\": \"-----BEGIN OPENSSH PRIVATE KEY-----\\nb3BlbnNzaC1rZXktdjEAAAAA\\n-----END OPENSSH PRIVATE KEY-----\"}",
        "{\"text\": \"id AKIAIOSFODNN7EXAMPLA\"}",
        "{\"iban\": \"DE89 3704 0044 0532 0130 00\"}",
    ] {
        assert_eq!(alpha.send("a", "beta", payload), blocked(), "{payload}");
    }
    assert!(b.next_within(std::time::Duration::from_millis(100)).is_none());
    server.stop();
    let records = world.records();
    let record = records.iter().find(|r| r.decision.as_str() == "DLP_BLOCKED").unwrap();
    assert_eq!((record.rule.as_str(), record.reason.as_str()), ("dlp.default.credit_card", "dlp_blocked"));
    let findings: serde_json::Value = serde_json::from_str(&record.findings).unwrap();
    assert_eq!(findings[0]["type"], "credit_card");
    assert_eq!(findings[0]["pointer"], "/pay/card");
    assert_eq!(findings[0]["digest"].as_str().unwrap().len(), 32);
    // No byte of the number anywhere in Redis.
    for key in world.redis.keys().iter().filter(|key| key.starts_with("audit:lane:")) {
        let blocks: crate::support::Blocks = world.redis.query(&["XRANGE", key, "-", "+"]);
        let all: Vec<u8> =
            blocks.into_iter().flat_map(|(_, fields)| fields).flat_map(|(_, bytes)| bytes).collect();
        for secret in [&b"4111"[..], b"hunter2", b"AKIAIOSF"] {
            assert!(!all.windows(secret.len()).any(|window| window == secret), "{key}");
        }
    }
    world.assert_intact();
}

#[test]
fn an_ssn_is_redacted_and_every_other_byte_is_as_it_was() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{ \"note\" : \"ssn 123-45-6789 on file\",\"n\":1.50 }").unwrap();
    let delivered = b.take();
    let expected = "{ \"note\" : \"ssn XXX-XX-6789 on file\",\"n\":1.50 }";
    assert!(delivered.json.contains(expected), "{}", delivered.json);
    // As the old server missed it: a number, tabs, full-width digits, a key.
    for (payload, hidden) in [
        ("{\"ssn\": 123456789}", "123456789"),
        ("{\"x\": \"123\\t45\\t6789\"}", "45\\t6789"),
        (
            "{\"x\": \"\u{ff11}\u{ff12}\u{ff13}-\u{ff14}\u{ff15}-\u{ff16}\u{ff17}\u{ff18}\u{ff19}\"}",
            "\u{ff14}\u{ff15}",
        ),
        ("{\"123-45-6789\": true}", "123-45"),
    ] {
        alpha.send("a", "beta", payload).unwrap();
        let delivered = b.take();
        assert!(!delivered.json.contains(hidden), "{payload}: {}", delivered.json);
        assert!(delivered.data().is_object());
    }
    let records = world.records();
    assert_eq!(records.iter().filter(|r| r.decision.as_str() == "DLP_REDACTED").count(), 5);
}

#[test]
fn an_alert_passes_and_is_recorded_and_replies_are_searched_too() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let mail = "{\"to\":\"jane.doe@example.org\"}";
    alpha.send("a", "beta", mail).unwrap();
    assert!(b.take().json.contains(mail));
    assert!(world.records().iter().any(|r| r.decision.as_str() == "ALERT" && r.findings.contains("email")));

    let correlation = alpha.request("a", "beta", "{}", 30_000).unwrap();
    b.take();
    assert_eq!(beta.reply("b", &correlation, "{\"card\":\"4111111111111111\"}"), blocked());
    // A refused reply does not use the request up; a redacted one is an answer.
    beta.reply("b", &correlation, "{\"ssn\":\"123-45-6789\"}").unwrap();
    assert_eq!(a.take().data()["ssn"], "XXX-XX-6789");
}

#[test]
fn rules_of_ones_own_and_overrides_take_effect() {
    let mut world = World::new();
    world.set_gateway(
        "dlp: {policy_overrides: {email: block, credit_card: allow}, \
         rules: [{id: ticket, type: ticket, pattern: 'T-[0-9]{6}', action: block}]}",
    );
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    assert_eq!(alpha.send("a", "beta", "{\"to\":\"jane.doe@example.org\"}"), blocked());
    assert_eq!(alpha.send("a", "beta", "{\"x\":\"see T-123456\"}"), blocked());
    alpha.send("a", "beta", "{\"card\":\"4111111111111111\"}").unwrap();
    assert!(world.records().iter().any(|r| r.rule == "dlp.ticket"));
}

#[test]
fn without_the_feature_nothing_is_searched() {
    let mut world = World::new();
    world.set_gateway("features: {dlp: false}");
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    alpha.send("a", "beta", "{\"card\":\"4111111111111111\"}").unwrap();
}

#[test]
fn scan_reports_on_each_line() {
    let world = World::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_mas"))
        .args(["dlp", "scan", "--config", "mas.yaml"])
        .current_dir(world.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = "{\"a\":1}\n{\"ssn\":\"é 123-45-6789\"}\n{\"c\":\"4111111111111111\"}\nnope\n";
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let reports: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(reports.len(), 4);
    assert_eq!(reports[0]["action"], "allow");
    assert_eq!(reports[1]["action"], "redact");
    assert_eq!(reports[1]["redacted"]["ssn"], "é XXX-XX-6789");
    let finding = &reports[1]["findings"][0];
    assert_eq!((&finding["type"], &finding["pointer"]), (&"ssn".into(), &"/ssn".into()));
    assert_eq!((&finding["start"], &finding["end"]), (&2.into(), &13.into()), "in characters");
    assert_eq!(reports[2]["action"], "block");
    assert!(reports[2]["redacted"].is_null());
    assert!(reports[3]["error"].is_string());
}
