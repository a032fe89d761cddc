//! Inputs made to cost time or memory.

use super::*;

/// Units that start detectors over and over, repeated to a mebibyte.
fn hostile() -> Vec<String> {
    let units = [
        "a",
        "1",
        "1 ",
        "@",
        "a@",
        "a@b.",
        "1-",
        "123-45-",
        "4111 ",
        "4111111111111111 ",
        "eyJ",
        "eyJ.",
        "eyJhIjoxfQ.",
        "sk-",
        "ghp_",
        "AKIA",
        "DE12 ",
        "DE12",
        "-----BEGIN PRIVATE KEY-----",
        "PRIVATE KEY",
        "-----BEGIN ",
        "ssn ",
        "password=",
        "password is ",
        "token ",
        "bearer ",
        "basic ",
        "://",
        "://a:",
        "://a:b@",
        "%31",
        "\\\\u0031",
        "&#49;",
        "MTIz",
        "/MTIz",
        "12 Oak ",
        "1 A B C D ",
        "Q~",
        "8Q~",
        "３",
        "\u{200b}",
        "é",
        "㎏",
        "{\\\"a\\\":",
        "[",
        "313233",
        "cvv 1",
        "+1 ",
        "(555) 555-",
        "a1.",
        "E11.9 ",
        "\\\"",
        "api_key=",
        "xoxb-",
        "hooks.slack.com/services/",
    ];
    units.iter().map(|unit| format!("{{\"x\":\"{}\"}}", unit.repeat((1 << 20) / unit.len()))).collect()
}

fn structured() -> Vec<String> {
    let fill = |unit: &str| unit.repeat((1 << 20) / unit.len());
    vec![
        format!("{{\"x\":[{}1]}}", fill("1,")),
        format!("{{\"x\":[{}1]}}", fill("123456789,")),
        format!("{{\"ssn\":[{}1]}}", fill("123456789,")),
        format!("{{\"x\":[{}1]}}", fill("\"4111\",")),
        format!("{{\"x\":[{}1]}}", fill("\"DE\",")),
        format!("{{\"x\":[{}1]}}", fill("{\"password\":\"\"},")),
        format!("{{\"password\":[{}1]}}", fill("\"hunter2\",")),
        format!("{{\"x\":[{}1]}}", fill("\"123-45-6789\",")),
        format!("{{\"x\":[{}1]}}", fill("\"{\\\"a\\\":1}\",")),
        format!("{{\"x\":[{}1]}}", fill("1.5e8,")),
        format!("{{\"{}\":[\"123-45-6789\",\"123-45-6789\"]}}", fill("k")),
    ]
}

#[test]
fn hostile_inputs_complete() {
    let dlp = defaults();
    let mut scratch = Scratch::new();
    for data in hostile().iter().chain(&structured()) {
        let scan = dlp.scan("t", data, &mut scratch);
        assert!(scan.findings.len() <= MAX_FINDINGS);
        for found in &scan.findings {
            assert!(found.pointer.len() <= 4 * 1024 && found.digest_input().len() <= MAX_DIGEST_INPUT);
        }
    }
}

/// Large payloads that nobody made to cost time: lists of numbers, tables, prose in every form.
#[test]
fn large_honest_payloads_are_within_the_budget() {
    let dlp = defaults();
    let mut scratch = Scratch::new();
    let fill = |unit: &str| unit.repeat((1 << 20) / unit.len());
    let prose = fill("The committee met on Tuesday, 12 March, and agreed to publish the minutes by 4 pm.\n");
    let row = "{\"id\":\"7b1d6b1e-4f0a-4c44-9c7e-2f1f0f9a1b2c\",\"n\":12,\"at\":\"2024-05-01T12:30:45Z\",\"ok\":true},";
    let rows = format!("[{}1]", fill(row));
    let log = fill(
        "2024-05-01T12:30:45.123Z INFO http 10.0.3.7 GET /v1/items/55?page=2 200 12ms token_count=17 key=a\n",
    );
    let code = fill("let token = next_token(&mut self.key)?; // the password is checked in auth.rs:120\n");
    let encoded = |text: &str| serde_json::Value::from(text).to_string();
    for (name, data) in [
        ("bits", format!("{{\"x\":[{}1]}}", fill("0,"))),
        ("counts", format!("{{\"x\":[{}1]}}", fill("1289,"))),
        ("vector", format!("{{\"x\":[{}1]}}", fill("-0.03718549,0.91120034,"))),
        ("exponents", format!("{{\"x\":[{}1]}}", fill("1.7320508e-05,"))),
        ("words", format!("{{\"x\":[{}1]}}", fill("\"word\",\"of\",\"mouth\","))),
        ("table", format!("{{\"x\":{}}}", encoded(&fill("12.5,1289,7,0.25,1042\n")))),
        ("prose", format!("{{\"x\":{}}}", encoded(&prose))),
        ("prose, escaped", format!("{{\"x\":{}}}", encoded(&format!("100%25 {prose}")))),
        ("rows", format!("{{\"x\":{rows}}}")),
        ("rows in a string", format!("{{\"x\":{}}}", encoded(&rows))),
        ("rows in a string, escaped", format!("{{\"x\":{}}}", encoded(&format!("[\"100%25\",{rows}]")))),
        ("log", format!("{{\"x\":{}}}", encoded(&log))),
        ("code", format!("{{\"x\":{}}}", encoded(&code))),
        ("other letters", format!("{{\"x\":\"{}\"}}", fill("Καλημέρα κόσμε. שלום עולם. 你好，世界。"))),
        ("image", format!("{{\"x\":\"{}\"}}", fill("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ"))),
    ] {
        let scan = dlp.scan("t", &data, &mut scratch);
        assert!(!scan.truncated, "{name}");
        assert_eq!(scan.action, Action::Allow, "{name}: {:?}", scan.findings.first());
    }
}

#[test]
fn what_is_made_to_cost_time_is_blocked_unseen() {
    let list = |pairs: usize| format!("{{\"password\":[{}1]}}", "\"12\",\"34\",".repeat(pairs));
    assert!(scan(&list(100_000)).truncated);
    // A message that is no larger than most may hold anything: there is a budget that all have.
    assert!(!scan(&list(400)).truncated);
}

#[test]
fn many_findings_are_counted() {
    let data = format!("{{\"ssn\":[{}1]}}", "\"123-45-6789\",".repeat(1000));
    let scan = scan(&data);
    assert_eq!((scan.findings.len(), scan.further), (MAX_FINDINGS, 1000 - MAX_FINDINGS));
    assert_eq!(scan.redacted.unwrap().matches("XXX-XX-6789").count(), 1000);
    let data = format!("{{\"ssn\":[{}1]}}", "\"123-45-6789\",".repeat(20_000));
    let scan = super::scan(&data);
    assert_eq!((scan.action, scan.redacted), (Action::Block, None));
    assert_eq!(scan.findings.len() + scan.further, 20_000);
}

#[test]
fn a_hostile_custom_pattern_completes() {
    let rules = vec![RuleConfig {
        id: "quadratic".into(),
        kind: "x".into(),
        pattern: ".*[^A-Z]|[A-Z]".into(),
        action: Some(Action::Alert),
        severity: None,
        description: None,
        enabled: true,
        case_insensitive: false,
    }];
    let dlp = Dlp::compile(&DlpConfig { rules, ..DlpConfig::default() }).unwrap();
    let scan = dlp.scan("t", &text(&"A".repeat(1 << 20)), &mut Scratch::new());
    assert_eq!(scan.action, Action::Alert);
    assert!(scan.further > 0);
}
