//! Tests of the module as a whole.

mod benign;
mod bounds;
mod configured;
mod evasion;
mod excepted;
mod found;
mod quoted;
mod redaction;

use super::*;
use crate::content::Trace;

/// The default rules.
fn defaults() -> Dlp {
    Dlp::compile(&DlpConfig::default()).unwrap()
}

fn scan(data: &str) -> Scan {
    crate::json::check_object(data, 128).unwrap_or_else(|error| panic!("{error:?}: {data}"));
    defaults().scan("test.message", data, &mut Scratch::new())
}

/// The types found, sorted, each once.
fn kinds(scan: &Scan) -> Vec<String> {
    let mut kinds: Vec<String> = scan.findings.iter().map(|found| found.kind.to_string()).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[track_caller]
fn assert_found(kind: &str, data: &str) -> Scan {
    let scan = scan(data);
    assert!(kinds(&scan).iter().any(|found| found == kind), "{kind} not in {:?} of {data}", scan.findings);
    scan
}

#[track_caller]
fn assert_clean(data: &str) {
    let scan = scan(data);
    assert!(scan.findings.is_empty(), "{:?} in {data}", scan.findings);
    assert_eq!(scan.action, Action::Allow);
}

/// `{"x": text}`.
fn text(text: &str) -> String {
    serde_json::json!({ "x": text }).to_string()
}
