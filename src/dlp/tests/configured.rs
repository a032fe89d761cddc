//! Configuration: merging, overriding, refusing.

use super::*;

fn rule(id: &str, kind: &str, pattern: &str) -> RuleConfig {
    serde_json::from_value(serde_json::json!({ "id": id, "type": kind, "pattern": pattern })).unwrap()
}

fn outcome(config: &DlpConfig, data: &str) -> (Action, Vec<String>) {
    let scan = Dlp::compile(config).unwrap().scan("t", data, &mut Scratch::new());
    (scan.action, kinds(&scan))
}

const DATA: &str = r#"{"ssn":"123-45-6789","b":"ACME-1234"}"#;

#[test]
fn custom_rules_join_or_replace_the_defaults() {
    let mut config = DlpConfig { rules: vec![rule("r1", "acme", "ACME-[0-9]{4}")], ..DlpConfig::default() };
    assert_eq!(outcome(&config, DATA), (Action::Block, vec!["acme".into(), "ssn".into()]));
    config.merge_strategy = MergeStrategy::Replace;
    assert_eq!(outcome(&config, DATA), (Action::Block, vec!["acme".into()]));
    config.merge_strategy = MergeStrategy::Append;
    config.disable_defaults = Disabled::All(true);
    assert_eq!(outcome(&config, DATA), (Action::Block, vec!["acme".into()]));
    config.rules[0].enabled = false;
    assert_eq!(outcome(&config, DATA), (Action::Allow, vec![]));
}

#[test]
fn single_defaults_can_be_left_out() {
    let config = |types: &str| -> DlpConfig {
        serde_json::from_str(&format!("{{\"disable_defaults\":{types}}}")).unwrap()
    };
    assert_eq!(outcome(&config("[]"), DATA), (Action::Redact, vec!["ssn".into()]));
    assert_eq!(outcome(&config(r#"["email","ssn"]"#), DATA), (Action::Allow, vec![]));
    let unknown = Dlp::compile(&config(r#"["sssn"]"#)).unwrap_err();
    assert!(unknown.to_string().contains("sssn"), "{unknown}");
}

#[test]
fn overrides_change_the_action_of_a_type() {
    let mut config = DlpConfig { rules: vec![rule("r1", "acme", "ACME-[0-9]{4}")], ..DlpConfig::default() };
    config.policy_overrides.insert("ssn".into(), Action::Alert);
    config.policy_overrides.insert("acme".into(), Action::Allow);
    assert_eq!(outcome(&config, DATA), (Action::Alert, vec!["ssn".into()]));
    config.policy_overrides.insert("ssn".into(), Action::Block);
    assert_eq!(outcome(&config, DATA), (Action::Block, vec!["ssn".into()]));
}

#[test]
fn custom_rules_have_actions_and_cases() {
    let mut own = rule("r1", "acme", "acme-[0-9]{4}");
    own.action = Some(Action::Redact);
    own.case_insensitive = true;
    let config =
        DlpConfig { rules: vec![own], merge_strategy: MergeStrategy::Replace, ..DlpConfig::default() };
    let dlp = Dlp::compile(&config).unwrap();
    let data = r#"{"a":"ACME-1234, acme-5678","n":77}"#;
    let scan = dlp.scan("t", data, &mut Scratch::new());
    assert_eq!(scan.redacted.unwrap(), r#"{"a":"[REDACTED:acme], [REDACTED:acme]","n":77}"#);
    assert_eq!((&*scan.findings[0].rule, scan.findings[1].start), ("r1", 11));
    // Numbers, keys and the message type are matched too.
    let number = DlpConfig { rules: vec![rule("n", "n", "^77$")], ..config };
    assert_eq!(outcome(&number, data).1, ["n"]);
}

#[test]
fn custom_rules_reach_over_windows() {
    let config = DlpConfig {
        rules: vec![rule("r1", "acme", "ACME-[0-9]{4}")],
        merge_strategy: MergeStrategy::Replace,
        ..DlpConfig::default()
    };
    let dlp = Dlp::compile(&config).unwrap();
    for before in [16_380, 16_384, 17_400, 17_408, 32_764] {
        let data = text(&format!("{}ACME-1234é{}", "x".repeat(before), "y".repeat(20_000)));
        let scan = dlp.scan("t", &data, &mut Scratch::new());
        assert_eq!(scan.findings.len(), 1, "{before}");
        assert_eq!((scan.findings[0].start, scan.findings[0].end), (before, before + 9));
    }
}

#[test]
fn faults_are_named() {
    let error = |config: &DlpConfig| Dlp::compile(config).unwrap_err().to_string();
    let with = |rule| DlpConfig { rules: vec![rule], ..DlpConfig::default() };
    assert!(error(&with(rule("bad", "t", "(["))).starts_with("rules[0].pattern: rule \"bad\": "));
    assert!(error(&with(rule("big", "t", "(\\w{1000}){1000}"))).contains("size limit"));
    assert!(error(&with(rule("empty", "t", "a*"))).contains("empty text"));
    assert!(error(&with(rule("", "t", "a"))).contains("id"));
    assert!(error(&with(rule("x", "t]", "a"))).contains("type"));
    assert!(error(&with(rule("x", "t", &"a".repeat(MAX_PATTERN_BYTES + 1)))).contains("at most"));
    let twice = DlpConfig { rules: vec![rule("x", "t", "a"), rule("x", "t", "b")], ..DlpConfig::default() };
    assert!(error(&twice).contains("rules[1].id: rule \"x\""));
    let many = DlpConfig {
        rules: (0..=MAX_RULES).map(|n| rule(&n.to_string(), "t", "a")).collect(),
        ..DlpConfig::default()
    };
    assert!(error(&many).contains("257 rules"));
    let policy_overrides = [("sssn".to_owned(), Action::Block)].into();
    assert!(error(&DlpConfig { policy_overrides, ..DlpConfig::default() }).contains("sssn"));
}

#[test]
fn unknown_settings_are_refused() {
    assert!(
        serde_json::from_str::<DlpConfig>(r#"{"merge":"append"}"#).unwrap_err().to_string().contains("merge")
    );
    assert!(serde_json::from_str::<RuleConfig>(r#"{"id":"a","type":"b","pattern":"c","x":1}"#).is_err());
    assert!(serde_json::from_str::<DlpConfig>(r#"{"merge_strategy":"replace"}"#).is_ok());
}

#[test]
fn what_was_judged_is_explained() {
    let data = r#"{"password":"hunter2","passwort":"erforderlich","db":{"pass":"mem2reg"}}"#;
    let content = Content { message_type: "t", data_json: data, trace: None };
    let (scan, candidates) = defaults().explain(&content, Route::default(), &mut Scratch::new());
    assert_eq!(scan.findings.len(), 1);
    let about = |pointer: &str| candidates.iter().find(|candidate| candidate.pointer == pointer).unwrap();
    let found = about("/password");
    assert!(found.is_found() && found.evidence.contains(&("its name", 60)), "{found:?}");
    let (stands_in, weak) = (about("/passwort"), about("/db/pass"));
    assert!(!stands_in.is_found() && !weak.is_found());
    assert_eq!(weak.score, weak.evidence.iter().map(|(_, weight)| weight).sum::<i32>());
    assert!(weak.decisive().any(|what| what == "a name that is also a word"), "{weak:?}");
}

#[test]
fn lines_are_scanned_one_by_one() {
    let input = "{\"ssn\":\"123-45-6789\"}\nnonsense\n[1]\n{}\r\n{\"password\":\"hunter2\"}";
    let mut out = Vec::new();
    lines::scan_lines(&defaults(), lines::Asked::default(), input.as_bytes(), &mut out).unwrap();
    let lines: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found = serde_json::json!([{ "type": "ssn", "pointer": "/ssn", "start": 0, "end": 11 }]);
    assert_eq!(
        lines[0],
        serde_json::json!({ "action": "redact", "findings": found, "redacted": { "ssn": "XXX-XX-6789" } })
    );
    assert_eq!(lines[1], serde_json::json!({ "error": "no valid JSON" }));
    assert_eq!(lines[2], serde_json::json!({ "error": "no JSON object" }));
    assert_eq!(lines[3], serde_json::json!({ "action": "allow", "findings": [], "redacted": null }));
    assert_eq!(lines[4]["action"], "block");
    assert_eq!(lines[4]["redacted"], serde_json::Value::Null);
    assert_eq!(lines.len(), 5);
}
