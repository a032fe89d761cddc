//! Exceptions: what they let pass, and nothing wider than they are written.

use super::*;
use crate::content::Content;
use proptest::prelude::*;

const SECRETS: &str =
    r#"{"notes":[{"mail":"bob@mail.example.com","pass":{"password":"hunter2x9"}}],"password":"hunter2x9"}"#;

fn with(exceptions: &str) -> Dlp {
    let exceptions: Vec<ExceptionConfig> = serde_yaml::from_str(exceptions).unwrap();
    Dlp::compile(&DlpConfig { exceptions, ..DlpConfig::default() }).unwrap()
}

fn refused(exceptions: &str) -> String {
    let exceptions: Vec<ExceptionConfig> = serde_yaml::from_str(exceptions).unwrap();
    Dlp::compile(&DlpConfig { exceptions, ..DlpConfig::default() }).unwrap_err().to_string()
}

fn on(dlp: &Dlp, from: &str, to: &str, message_type: &str, data: &str) -> Scan {
    let content = Content { message_type, data_json: data, trace: None };
    dlp.search(&content, Route { from, to }, &mut Scratch::new())
}

#[test]
fn an_exception_is_for_its_sender_target_type_place_and_rule() {
    let dlp =
        with("[{from: a, to: b-*, type: t, pointer: /password, kind: password, action: allow, reason: r}]");
    let data = r#"{"password":"hunter2x9"}"#;
    let allowed = on(&dlp, "a", "b-1", "t", data);
    assert_eq!((allowed.action, allowed.findings.len()), (Action::Allow, 1));
    assert_eq!(allowed.findings[0].exception.as_deref(), Some("exception.1"));
    assert!(allowed.exceptions.iter().map(|name| &**name).eq(["exception.1"]));
    for (from, to, message_type, data) in [
        ("x", "b-1", "t", data),
        ("", "", "t", data),
        ("a", "b", "t", data),
        ("a", "b-1", "u", data),
        ("a", "b-1", "t", r#"{"x":{"password":"hunter2x9"}}"#),
        ("a", "b-1", "t", r#"{"password":{"password":"hunter2x9"}}"#),
        // Another kind at the same place.
        ("a", "b-1", "t", r#"{"password":"4111 1111 1111 1111 cvv 123"}"#),
    ] {
        let scan = on(&dlp, from, to, message_type, data);
        assert_eq!(scan.action, Action::Block, "{from} {to} {message_type} {data}");
    }
}

#[test]
fn the_narrowest_of_several_counts() {
    let dlp = with(
        "- {kind: password, action: alert, reason: r, name: wide}
- {kind: password, from: a, action: redact, reason: r, name: sender}
- {kind: password, from: a, pointer: '/notes/**', action: allow, reason: r, name: place}
- {kind: password, from: 'a*', pointer: '/notes/**', action: block, reason: r, name: similar}
",
    );
    let names = |scan: &Scan| -> Vec<String> {
        let of = |pointer: &str| {
            let found = scan.findings.iter().find(|found| found.pointer == pointer).unwrap();
            found.exception.as_deref().unwrap_or_default().to_owned()
        };
        vec![of("/notes/0/pass/password"), of("/password")]
    };
    let from_a = on(&dlp, "a", "b", "t", SECRETS);
    assert_eq!((names(&from_a), from_a.action), (vec!["place".into(), "sender".into()], Action::Redact));
    let redacted =
        SECRETS.replacen(r#"}}],"password":"hunter2x9""#, r#"}}],"password":"[REDACTED:password]""#, 1);
    assert_ne!(redacted, SECRETS);
    assert_eq!(from_a.redacted, Some(redacted));
    let from_ab = on(&dlp, "ab", "b", "t", SECRETS);
    assert_eq!((names(&from_ab), from_ab.action), (vec!["similar".into(), "wide".into()], Action::Block));
    assert_eq!(on(&dlp, "x", "b", "t", SECRETS).action, Action::Alert);
}

#[test]
fn an_exception_may_demand_more() {
    let dlp = with("[{kind: email, to: partner, action: block, reason: r}]");
    let data = r#"{"x":"bob@mail.example.com"}"#;
    assert_eq!(on(&dlp, "a", "partner", "t", data).action, Action::Block);
    assert_eq!(on(&dlp, "a", "other", "t", data).action, Action::Alert);
    // What is allowed everywhere else is looked for, too.
    let exceptions = serde_yaml::from_str("[{kind: email, to: partner, action: block, reason: r}]").unwrap();
    let policy_overrides = [("email".to_owned(), Action::Allow)].into();
    let config = DlpConfig { exceptions, policy_overrides, ..DlpConfig::default() };
    let dlp = Dlp::compile(&config).unwrap();
    assert_eq!(on(&dlp, "a", "partner", "t", data).action, Action::Block);
    assert!(on(&dlp, "a", "other", "t", data).findings.is_empty());
    // What has only the shape of a kind is changed by its own rule's name alone.
    let shape = r#"{"x":"512-64-1024 and 512-64-1025"}"#;
    let wide = with("[{kind: ssn, to: partner, action: block, reason: r}]");
    assert!(on(&wide, "a", "partner", "t", shape).action < Action::Redact);
}

#[test]
fn what_is_within_an_exception_is_judged_by_itself() {
    // The value of one name holds another name and its value.
    let data = r#"{"x":"password=api_key=a1B2c3D4e5F6g7H8i9J0k1L2"}"#;
    let dlp = with("[{kind: password, pointer: /x, action: allow, reason: r}]");
    assert_eq!(on(&dlp, "a", "b", "t", data).action, Action::Block);
    let token = "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8";
    let data = format!(r#"{{"password":"{token}"}}"#);
    let dlp = with("[{kind: password, action: allow, reason: r}]");
    assert_eq!(on(&dlp, "a", "b", "t", &data).action, Action::Block);
    let dlp = with("[{kind: github_token, action: allow, reason: r}]");
    assert_eq!(on(&dlp, "a", "b", "t", &data).action, Action::Block);
}

#[test]
fn texts_beside_the_payload_have_places_too() {
    let dlp = with("[{pointer: message_type, kind: email, action: block, reason: r}]");
    assert_eq!(on(&dlp, "a", "b", "bob@mail.example.com", "{}").action, Action::Block);
    assert_eq!(on(&dlp, "a", "b", "t", r#"{"message_type":"bob@mail.example.com"}"#).action, Action::Alert);
}

#[test]
fn what_cannot_be_meant_is_refused() {
    for (exceptions, said) in [
        ("[{action: allow, reason: r}]", "exceptions[0]: says nothing"),
        ("[{kind: ssn, action: allow, reason: ' '}]", "exceptions[0].reason"),
        ("[{kind: sssn, action: allow, reason: r}]", "exceptions[0].kind"),
        ("[{rule: default.x, action: allow, reason: r}]", "exceptions[0].rule"),
        ("[{rule: default.ssn, kind: email, action: allow, reason: r}]", "finds \"ssn\""),
        ("[{kind: ssn, pointer: a, action: allow, reason: r}]", "exceptions[0].pointer"),
        ("[{kind: ssn, from: 'a*b', action: allow, reason: r}]", "exceptions[0].from"),
        (
            "[{kind: ssn, action: allow, reason: r, name: x}, {kind: email, action: allow, reason: r, name: x}]",
            "another exception",
        ),
    ] {
        let error = refused(exceptions);
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_pointer_that_is_too_long_to_be_written_fits_no_pattern() {
    let dlp = with(
        "[{kind: credit_card, pointer: '/*/card', action: allow, reason: r}, {kind: ssn, action: allow, reason: r}]",
    );
    let long = |value: &str| format!(r#"{{"a":{{"b":{{"{}":{{"card":"{value}"}}}}}}}}"#, "x".repeat(2043));
    assert_eq!(on(&dlp, "a", "b", "t", &long("4111 1111 1111 1111")).action, Action::Block);
    assert_eq!(on(&dlp, "a", "b", "t", &long("SSN: 123-45-6789")).action, Action::Allow);
}

#[test]
fn an_exception_never_weakens_what_it_says_to_stop() {
    let exceptions = serde_yaml::from_str("[{kind: ssn, pointer: /x, action: block, reason: r}]").unwrap();
    let policy_overrides = [("ssn".to_owned(), Action::Block)].into();
    let dlp = Dlp::compile(&DlpConfig { exceptions, policy_overrides, ..DlpConfig::default() }).unwrap();
    assert_eq!(on(&dlp, "a", "b", "t", r#"{"x":"512-64-1024"}"#).action, Action::Block);
}

#[test]
fn a_value_is_redacted_as_a_whole() {
    let exceptions =
        serde_yaml::from_str("[{kind: password, action: redact, pointer: /x, reason: r}]").unwrap();
    let policy_overrides = [("email".to_owned(), Action::Redact)].into();
    let dlp = Dlp::compile(&DlpConfig { exceptions, policy_overrides, ..DlpConfig::default() }).unwrap();
    let scan = on(&dlp, "a", "b", "t", r#"{"x":"password=Zz9:jane.doe@example.com"}"#);
    let redacted = scan.redacted.unwrap();
    assert!(!redacted.contains("Zz9"), "{redacted}");
    assert_eq!(scan.exceptions.len(), 1);
}

#[test]
fn an_exception_that_was_used_is_named_whatever_else_was_found_there() {
    let dlp = with("[{kind: password, pointer: /password, action: allow, reason: r}]");
    let scan = on(&dlp, "a", "b", "t", r#"{"password":"hunter2x@example.com"}"#);
    assert_eq!(scan.exceptions.len(), 1, "{scan:?}");
}

#[test]
fn what_has_too_many_matches_is_decided_without_exceptions() {
    let mails = r#""bob@mail.example.com","#.repeat(9_000);
    let data = format!(r#"{{"x":"card 4111 1111 1111 1111","m":[{mails}1]}}"#);
    let dlp = with("[{kind: credit_card, pointer: /x, action: allow, reason: r}]");
    assert_eq!(on(&dlp, "a", "b", "t", &data).action, Action::Block);
    // Those of other routes change nothing.
    let mails = format!(r#"{{"m":[{mails}1]}}"#);
    let dlp = with("[{kind: email, from: other, action: block, reason: r}]");
    assert_eq!(on(&dlp, "a", "b", "t", &mails).action, Action::Alert);
}

proptest! {
    /// An exception changes nothing but findings of its kind, at its place.
    #[test]
    fn an_exception_changes_no_other_finding(
        kind in prop::sample::select(vec!["password", "email", "github_token", "credit_card", "ssn"]),
        step in prop::sample::select(vec!["/a", "/b", "/c/0", "/c/*", "/**", "/c/**"]),
        texts in prop::collection::vec(prop::sample::select(vec![
            "password=hunter2x9", "bob@mail.example.com", "SSN: 123-45-6789", "4111 1111 1111 1111", "plain words",
            "ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8", "password=ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
        ]), 4),
    ) {
        let data = serde_json::json!({"a": texts[0], "b": texts[1], "c": [texts[2], texts[3]]}).to_string();
        let dlp = with(&format!("[{{kind: {kind}, pointer: '{step}', action: allow, reason: r}}]"));
        let (plain, excepted) = (scan(&data), on(&dlp, "a", "b", "test.message", &data));
        let at = |scan: &Scan| -> Vec<(String, usize, Action)> {
            let others = scan.findings.iter().filter(|found| &*found.kind != kind);
            let mut list: Vec<_> = others.map(|f| (format!("{} {}", f.rule, f.pointer), f.start, f.action)).collect();
            list.sort();
            list
        };
        let (before, after) = (at(&plain), at(&excepted));
        prop_assert!(before.iter().all(|found| after.contains(found)), "{before:?} {after:?}");
        for found in excepted.findings.iter().filter(|found| found.exception.is_some()) {
            prop_assert_eq!(&*found.kind, kind);
        }
    }
}
