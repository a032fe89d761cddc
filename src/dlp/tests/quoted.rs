//! What people have reported as found wrongly, or missed, and what a person would judge the same way: `bench/dlp/corpus/quoted.jsonl`.

use serde::Deserialize;
use serde_json::Value;

use super::*;

#[derive(Deserialize)]
struct Sample {
    id: String,
    expect: String,
    #[serde(default)]
    kind: String,
    message_type: String,
    data: Value,
}

/// What is still judged otherwise: numbers and names that say too little by themselves, and passwords that only a command's manual tells.
const MISSED: &[&str] = &[
    "card-numbered-list.15",
    "mail-international.13",
    "password-option.13",
    "env-pass.12",
    "empty-password.11",
    "library-card.10",
    "pair-env.16",
    "pair-env.30",
    "security-code-labels.04",
    "security-code-labels.08",
];
/// Types of data that are let through by default, and reported.
const REPORTED: &[&str] = &["email", "phone", "address", "icd10"];

#[test]
fn what_was_reported_is_judged_as_a_person_would() {
    let dlp = defaults();
    let mut scratch = Scratch::new();
    let samples = include_str!("../../../bench/dlp/corpus/quoted.jsonl");
    let mut wrong = Vec::new();
    for line in samples.lines() {
        let sample: Sample = serde_json::from_str(line).unwrap();
        let scan = dlp.scan(&sample.message_type, &sample.data.to_string(), &mut scratch);
        let stopped = scan.action >= Action::Redact;
        let right = match sample.expect.as_str() {
            "clean" => !stopped,
            _ if REPORTED.contains(&sample.kind.as_str()) => kinds(&scan).contains(&sample.kind),
            _ => stopped,
        };
        if right == MISSED.contains(&sample.id.as_str()) {
            wrong.push(format!("{} {}: {:?}", sample.id, sample.data, scan.findings.first()));
        }
    }
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), samples.lines().count());
}
