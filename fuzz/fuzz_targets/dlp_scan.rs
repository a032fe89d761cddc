//! A scan never panics and is bounded; its findings lie in the payload; a redaction is valid JSON that
//! differs from the payload only where something was found, and scanning it again finds nothing more to
//! redact.

#![no_main]

use std::cell::RefCell;
use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use mas_fuzz::dlp::{Action, Dlp, DlpConfig, MAX_FINDINGS, RuleConfig, Scan, Scratch};
use mas_fuzz::json::check_object;

const MAX_DEPTH: usize = 120;

fn rule(id: &str, pattern: &str, action: Action) -> RuleConfig {
    RuleConfig {
        id: id.to_owned(),
        kind: id.to_owned(),
        pattern: pattern.to_owned(),
        action: Some(action),
        severity: None,
        description: None,
        enabled: true,
        case_insensitive: true,
    }
}

/// Everything that is found is redacted, so that redaction is what is tried most.
static REDACTING: LazyLock<Dlp> = LazyLock::new(|| {
    let defaults = Dlp::compile(&DlpConfig::default()).expect("the defaults compile");
    let kinds = ["ssn", "email", "phone", "address", "icd10", "mrn", "health_insurance", "credit_card", "cvv",
        "api_key", "aws_key", "private_key", "jwt", "password", "iban", "secret", "auth_token"];
    let policy_overrides = kinds.iter().map(|kind| ((*kind).to_owned(), Action::Redact)).collect();
    let rules = vec![rule("word", r"\bzebra\b|x[0-9]{2,}y", Action::Redact)];
    drop(defaults);
    Dlp::compile(&DlpConfig { policy_overrides, rules, ..DlpConfig::default() }).expect("the rules compile")
});
static DEFAULTS: LazyLock<Dlp> =
    LazyLock::new(|| Dlp::compile(&DlpConfig::default()).expect("the defaults compile"));

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

fn check(scan: &Scan, message_type: &str, data: &str) {
    assert!(scan.findings.len() <= MAX_FINDINGS);
    let longest = data.len().max(message_type.len());
    for finding in &scan.findings {
        assert!(finding.start <= finding.end && finding.end <= longest, "{finding:?}");
        assert!(finding.action <= scan.action, "{finding:?}");
    }
    assert_eq!(scan.redacted.is_some(), scan.action == Action::Redact);
    let Some(redacted) = &scan.redacted else { return };
    assert_eq!(check_object(redacted, MAX_DEPTH), Ok(()), "{redacted}");
    // What stands before the first difference and behind the last one is untouched, and there is one.
    assert_ne!(redacted, data);
    let untouched = redacted.bytes().zip(data.bytes()).take_while(|(a, b)| a == b).count();
    assert!(untouched > 0 && redacted.ends_with('}') == data.ends_with('}'));
    // Blanks and punctuation outside of strings are as they were.
    let frame = |text: &str| -> String {
        let (mut inside, mut escaped) = (false, false);
        text.chars()
            .filter(|c| {
                let quote = *c == '"' && !escaped;
                escaped = inside && *c == '\\' && !escaped;
                inside ^= quote;
                !inside && matches!(c, '{' | '}' | '[' | ']' | ':' | ',')
            })
            .collect()
    };
    assert_eq!(frame(redacted), frame(data));
}

fuzz_target!(|data: &[u8]| -> Corpus {
    // The first line is the message type.
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    let (message_type, text) = text.split_once('\n').unwrap_or(("", text));
    let wrapped;
    // What is no object becomes the text of one.
    let json = if check_object(text, MAX_DEPTH).is_ok() {
        text
    } else {
        wrapped = serde_json::json!({ "text": text }).to_string();
        &wrapped
    };
    SCRATCH.with_borrow_mut(|scratch| {
        for dlp in [&*DEFAULTS, &*REDACTING] {
            let scan = dlp.scan(message_type, json, scratch);
            check(&scan, message_type, json);
            // Buffers that were used before change nothing.
            assert_eq!(scan, dlp.scan(message_type, json, &mut Scratch::new()));
        }
    });
    Corpus::Keep
});
