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

#[test]
fn many_findings_are_counted() {
    let data = format!("{{\"x\":[{}1]}}", "\"123-45-6789\",".repeat(1000));
    let scan = scan(&data);
    assert_eq!((scan.findings.len(), scan.further), (MAX_FINDINGS, 1000 - MAX_FINDINGS));
    assert_eq!(scan.redacted.unwrap().matches("XXX-XX-6789").count(), 1000);
    let data = format!("{{\"x\":[{}1]}}", "\"123-45-6789\",".repeat(20_000));
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
