//! What each key of the Python server's `mas.yaml` means here.

use serde::Serialize;
use serde_yaml::Value;

/// What becomes of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    Same,
    Differs,
    NoEffect,
    New,
    Refused,
}

impl Outcome {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::NoEffect => "no effect",
            Self::New => "new here",
            Self::Refused => "REFUSED",
        }
    }
}

/// Whether the value of the path is a section, whose keys are told one by one.
pub(super) fn is_section(path: &[&str]) -> bool {
    const SECTIONS: [&str; 7] =
        ["redis", "rate_limit", "features", "dlp", "audit", "circuit_breaker", "telemetry"];
    matches!(path, ["gateway", section] if SECTIONS.contains(section))
}

/// What becomes of a key, and what an operator has to know about it.
pub(super) fn verdict(path: &[&str], value: &Value) -> (Outcome, &'static str) {
    use Outcome::{Differs, New, NoEffect, Same};
    match path {
        ["server_listen_addr" | "tls_ca_path" | "tls_server_cert_path"] => (Same, ""),
        ["tls_server_key_path"] => (Same, "refused when everybody can read the file (chmod 600)"),
        ["permissions" | "agents" | "gateway"] => (Same, ""),
        ["admin_listen_addr" | "threads" | "tls_revoked_path" | "limits" | "delivery" | "roles"] => (New, ""),
        ["gateway", "redis", key] => redis(key, value),
        ["gateway", "rate_limit", _] => (Same, "a sliding window in buckets of a second and of a minute"),
        ["gateway", "features", "dlp"] => (Same, ""),
        ["gateway", "features", "rbac"] if value.as_bool() == Some(false) => (Same, ""),
        ["gateway", "features", "rbac"] => {
            (Differs, "roles stand in this file (`roles`, agents[].roles), not in Redis")
        }
        ["gateway", "features", "circuit_breaker"] => (Same, "half-open admits one trial at a time"),
        ["gateway", "dlp", key] => dlp(key, value),
        ["gateway", "audit", "file_path"] => (Same, "beside the tamper-evident trail in Redis"),
        ["gateway", "audit", "max_bytes" | "backup_count"] => (Same, ""),
        ["gateway", "audit", _] => (New, ""),
        ["gateway", "circuit_breaker", "failure_threshold"] => {
            (Same, "failures are messages that went to the dead letters")
        }
        ["gateway", "circuit_breaker", "success_threshold"] => (Same, ""),
        ["gateway", "circuit_breaker", _] if value.as_f64().is_some_and(|n| n.fract() != 0.0) => {
            (Differs, "whole seconds here: rounded up")
        }
        ["gateway", "circuit_breaker", _] => (Same, ""),
        ["gateway", "telemetry", "enabled"] if value.as_bool() == Some(true) => {
            (Differs, "of the server alone: Python agents that are to export spans configure it themselves")
        }
        ["gateway", "telemetry", _] => (Same, ""),
        ["agents[]", key] => agent(key, value),
        // Not known here either: the parser says so.
        _ => (NoEffect, ""),
    }
}

fn redis(key: &str, value: &Value) -> (Outcome, &'static str) {
    use Outcome::{Differs, New, NoEffect, Same};
    match key {
        "url" if value.as_str() == Some("managed") => (New, "a private redis-server, started by `mas run`"),
        "url" => (Same, "what waits there, and agents' states, are taken up"),
        "decode_responses" => (NoEffect, "has no effect here"),
        "socket_timeout" if value.is_null() => (Differs, "no timeout there, 5 s here"),
        "socket_timeout" => (Same, "0.1 to 60 s"),
        _ => (New, ""),
    }
}

fn dlp(key: &str, value: &Value) -> (Outcome, &'static str) {
    use Outcome::{Differs, Same};
    match key {
        "merge_strategy" => (Same, ""),
        "disable_defaults" if value.as_sequence().is_some_and(Vec::is_empty) => (Same, ""),
        "disable_defaults" => (
            Differs,
            "the types listed are off as they were; types that are new here (`mas dlp scan`) stay on",
        ),
        "policy_overrides" => {
            (Differs, "a type that no rule has is refused; `encrypt`, which encrypted nothing, too")
        }
        "rules" => (
            Differs,
            "patterns without look-around and back-references, matched against each string, key and number",
        ),
        _ => (Outcome::NoEffect, ""),
    }
}

fn agent(key: &str, value: &Value) -> (Outcome, &'static str) {
    use Outcome::{Differs, New, Same};
    match key {
        "agent_id" => (Same, ""),
        "class_path" => {
            (Differs, "runs in a process of its own, with the interpreter of `python` or MAS_PYTHON")
        }
        "instances" if value.as_u64() == Some(1) => (Same, ""),
        "instances" => (Differs, "each is a process: what instances shared in memory they no longer share"),
        "init_kwargs" => (Same, "as JSON values: a date is a text here"),
        "capabilities" | "metadata" | "tls_cert_path" | "tls_key_path" => (Same, ""),
        "python" | "command" | "env" | "restart" | "roles" | "rate_limit" => (New, ""),
        _ => (Outcome::NoEffect, ""),
    }
}

/// What becomes of a type of rule.
pub(super) fn rule_verdict(kind: &str) -> (Outcome, &'static str) {
    match kind {
        "allow" | "allow_bidirectional" => (Outcome::Same, ""),
        "allow_network" => (Outcome::Same, "bidirectional: false is a chain, as before"),
        "allow_broadcast" => (Outcome::Same, ""),
        "allow_wildcard" => (Outcome::Same, "to every listed agent; said loudly at start"),
        "deny" => (Outcome::New, "wins over every other rule"),
        _ => (Outcome::NoEffect, ""),
    }
}
