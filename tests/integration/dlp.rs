//! Data-loss prevention as senders, receivers and auditors meet it.

use std::io::Write;
use std::process::{Command, Stdio};

use grpcio::CallOption;
use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;
use mas::protocol::{Commit, Finding, Findings, RUNTIME_V1, Receipt, SendRequest, Status, Submission};
use protobuf::Message;

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
    // Nothing of the secrets anywhere in the records. Each text is long enough that no hexadecimal id has it by chance.
    for key in world.redis.keys().iter().filter(|key| key.starts_with("audit:lane:")) {
        let blocks: crate::support::Blocks = world.redis.query(&["XRANGE", key, "-", "+"]);
        let all: Vec<u8> =
            blocks.into_iter().flat_map(|(_, fields)| fields).flat_map(|(_, bytes)| bytes).collect();
        for secret in [&b"4111 1111"[..], b"41111111", b"hunter2", b"AKIAIOSF"] {
            assert!(!all.windows(secret.len()).any(|window| window == secret), "{key}");
        }
    }
    world.assert_intact();
}

/// What was found, as the sender is told.
fn told(findings: &[Finding]) -> Vec<(&str, &str, &str)> {
    findings
        .iter()
        .map(|found| (found.type_.as_str(), found.pointer.as_str(), found.action.as_str()))
        .collect()
}

#[test]
fn a_sender_is_told_what_was_found_where_and_under_which_id_it_is_on_record() {
    const CARD: &str = "{\"pay\": {\"card\": \"4111 1111 1111 1111\"}, \"to\": \"b@example.org\"}";
    const SSN: &str = "{\"note\": \"ssn 123-45-6789\", \"to\": \"b@example.org\"}";
    let world = World::new();
    let mut server = world.server();
    let alpha = world.client(&server, "alpha");
    let (a, _b) = (alpha.session("a"), world.client(&server, "beta").session("b"));
    let send = |data: &str| SendRequest {
        target_id: "beta".to_owned(),
        message_type: "test".to_owned(),
        data_json: data.to_owned(),
        instance_id: "a".to_owned(),
        ..SendRequest::default()
    };
    // On the stream.
    let Outcome::Failure(failure) = a.call(Call::Send(send(CARD))) else { panic!("it was taken") };
    assert_eq!(failure.detail, "dlp_blocked");
    // Alerts are the operators' business.
    assert_eq!(told(&failure.findings), [("credit_card", "/pay/card", "block")]);
    let Outcome::Send(sent) = a.call(Call::Send(send(SSN))) else { panic!("it was refused") };
    assert_eq!(told(&sent.findings), [("ssn", "/note", "redact")]);
    let Outcome::Send(clean) = a.call(Call::Send(send("{}"))) else { panic!("it was refused") };
    assert_eq!(told(&clean.findings), []);
    // A commit is refused for one of its messages.
    let commit = |data: &str| {
        let message = |data| Submission { call: Some(Call::Send(send(data))), ..Submission::default() };
        Call::Commit(Commit { messages: vec![message("{}"), message(data)], ..Commit::default() })
    };
    let Outcome::Failure(refused) = a.call(commit(CARD)) else { panic!("it was taken") };
    assert_eq!(told(&refused.findings), [("credit_card", "/pay/card", "block")]);
    let Outcome::Commit(done) = a.call(commit(SSN)) else { panic!("it was refused") };
    let Some(Outcome::Send(second)) = &done.results[1].outcome else { panic!("no result") };
    assert_eq!(told(&second.findings), [("ssn", "/note", "redact")]);
    // By a call of its own.
    assert_eq!(told(&alpha.send_raw(&send(SSN)).unwrap().findings), [("ssn", "/note", "redact")]);
    let Err(error) = alpha.raw.unary_call(&RUNTIME_V1.send.client, &send(CARD), CallOption::default()) else {
        panic!("it was taken")
    };
    let grpcio::Error::RpcFailure(status) = error else { panic!("{error}") };
    let details = Status::parse_from_bytes(status.details()).unwrap().details;
    let detail = |name: &str| details.iter().find(|any| any.type_url.ends_with(name)).unwrap();
    let findings = Findings::parse_from_bytes(&detail("/mas.runtime.v1.Findings").value).unwrap();
    assert_eq!(told(&findings.findings), [("credit_card", "/pay/card", "block")]);
    let receipt = Receipt::parse_from_bytes(&detail("/mas.runtime.v1.Receipt").value).unwrap();
    server.stop();
    let records = world.records();
    for (named, receipt) in [("unary", &receipt), ("stream", &failure.receipt), ("commit", &refused.receipt)]
    {
        let record = records
            .iter()
            .find(|record| record.message_id.is_some_and(|id| id.to_string() == receipt.message_id));
        assert_eq!(record.unwrap().decision.as_str(), "DLP_BLOCKED", "{named}");
    }
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
        ("{\"ssn\": \"123\\t45\\t6789\"}", "45\\t6789"),
        (
            "{\"ssn\": \"\u{ff11}\u{ff12}\u{ff13}-\u{ff14}\u{ff15}-\u{ff16}\u{ff17}\u{ff18}\u{ff19}\"}",
            "\u{ff14}\u{ff15}",
        ),
        ("{\"ssn\": {\"123-45-6789\": true}}", "123-45"),
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
