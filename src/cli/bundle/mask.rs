//! A configuration without its secrets. What is shown is listed here, key by key; everything else is masked, so that a key
//! that is new, misspelt or in the wrong place is masked, too.

use serde_yaml::{Mapping, Value};

/// What stands in the place of what is not shown.
pub(super) const MASKED: &str = "(masked)";

/// What of a value is shown.
enum Shown {
    /// A number, a switch, a name, a path: but for text with an `@`, which may be a URL with a password.
    Whole,
    /// Scheme, host, port and, where it is a socket or a number, the path.
    Url,
    /// The keys, without their values.
    Keys,
    /// The first word of a command; the others may be secrets.
    Program,
    /// A list.
    Each(&'static Shown),
    /// These keys of a mapping; a further one is masked with its name, which somebody may have put a value in the place of.
    Of(&'static [(&'static str, Shown)]),
}

use Shown::{Each, Keys, Of, Program, Url, Whole};

const RATE: Shown = Of(&[("per_minute", Whole), ("per_hour", Whole)]);
const TLS: Shown = Of(&[("ca_path", Whole), ("cert_path", Whole), ("key_path", Whole)]);

const REDIS: Shown = Of(&[
    ("url", Url),
    ("data_dir", Whole),
    ("socket_timeout", Whole),
    ("decode_responses", Whole),
    ("durability", Of(&[("mode", Whole), ("replicas", Whole), ("timeout_ms", Whole)])),
    ("tls", TLS),
    ("sentinel", Of(&[("master", Whole), ("addrs", Each(&Whole))])),
]);

const DLP: Shown = Of(&[
    ("merge_strategy", Whole),
    ("disable_defaults", Whole),
    ("policy_overrides", Keys),
    ("rules_file", Whole),
    // Reasons are free text.
    (
        "exceptions",
        Each(&Of(&[
            ("name", Whole),
            ("from", Whole),
            ("to", Whole),
            ("type", Whole),
            ("pointer", Whole),
            ("kind", Whole),
            ("rule", Whole),
            ("action", Whole),
        ])),
    ),
    // Patterns and descriptions say what somebody looks for.
    (
        "rules",
        Each(&Of(&[
            ("id", Whole),
            ("type", Whole),
            ("action", Whole),
            ("severity", Whole),
            ("enabled", Whole),
            ("case_insensitive", Whole),
        ])),
    ),
]);

const AUDIT: Shown = Of(&[
    ("file_path", Whole),
    ("max_bytes", Whole),
    ("backup_count", Whole),
    ("signing_key_path", Whole),
    ("store_key_path", Whole),
    ("checkpoint_interval_ms", Whole),
    ("anchor_path", Whole),
    ("anchor_max_bytes", Whole),
    ("archive", Whole),
    ("archive_dir", Whole),
    ("max_records", Whole),
    ("max_dead_letters", Whole),
    ("logs", Each(&Of(&[("public_key_path", Whole), ("anchor_path", Whole), ("archive_dir", Whole)]))),
]);

const GATEWAY: Shown = Of(&[
    ("redis", REDIS),
    ("rate_limit", RATE),
    ("features", Of(&[("dlp", Whole), ("rbac", Whole), ("circuit_breaker", Whole)])),
    ("dlp", DLP),
    ("audit", AUDIT),
    (
        "circuit_breaker",
        Of(&[
            ("failure_threshold", Whole),
            ("window_seconds", Whole),
            ("timeout_seconds", Whole),
            ("success_threshold", Whole),
        ]),
    ),
    (
        "telemetry",
        Of(&[
            ("enabled", Whole),
            ("service_name", Whole),
            ("service_namespace", Whole),
            ("environment", Whole),
            ("otlp_endpoint", Url),
            ("sample_ratio", Whole),
            ("export_metrics", Whole),
            ("metrics_export_interval_ms", Whole),
            ("headers", Keys),
        ]),
    ),
]);

const AGENT: Shown = Of(&[
    ("agent_id", Whole),
    ("class_path", Whole),
    ("python", Whole),
    ("command", Program),
    ("env", Keys),
    ("restart", Whole),
    ("instances", Whole),
    ("capabilities", Each(&Whole)),
    ("metadata", Keys),
    ("tls_cert_path", Whole),
    ("tls_key_path", Whole),
    ("init_kwargs", Keys),
    ("roles", Each(&Whole)),
    ("rate_limit", RATE),
]);

const LIMITS: Shown = Of(&[
    ("max_message_bytes", Whole),
    ("max_json_depth", Whole),
    ("max_queue_len", Whole),
    ("max_queue_bytes", Whole),
    ("max_state_bytes", Whole),
    ("max_state_fields", Whole),
    ("max_sessions_per_agent", Whole),
    ("max_streams_per_connection", Whole),
    ("max_connections_per_agent", Whole),
    ("session_opens_per_second", Whole),
    ("refusals_per_second", Whole),
]);

const DELIVERY: Shown = Of(&[
    ("max_in_flight", Whole),
    ("reclaim_idle_ms", Whole),
    ("reclaim_batch_size", Whole),
    ("max_attempts", Whole),
    ("retry_backoff_ms", Each(&Whole)),
    ("queue_offline", Whole),
    ("idempotency_window_s", Whole),
]);

/// The document.
const DOCUMENT: Shown = Of(&[
    ("server_listen_addr", Whole),
    ("admin_listen_addr", Whole),
    ("operators", Each(&Of(&[("name", Whole), ("role", Whole)]))),
    ("threads", Whole),
    ("spin_us", Whole),
    ("tls_ca_path", Whole),
    ("tls_server_cert_path", Whole),
    ("tls_server_key_path", Whole),
    ("tls_revoked_path", Whole),
    ("limits", LIMITS),
    ("delivery", DELIVERY),
    ("gateway", GATEWAY),
    ("roles", Each(&Of(&[("name", Whole), ("permissions", Each(&Whole))]))),
    (
        "permissions",
        Each(&Of(&[
            ("type", Whole),
            ("agents", Each(&Whole)),
            ("bidirectional", Whole),
            ("sender", Whole),
            ("receivers", Each(&Whole)),
            ("agent_id", Whole),
            ("targets", Each(&Whole)),
        ])),
    ),
    ("agents", Each(&AGENT)),
]);

/// The text of a configuration with everything masked that may be a secret. The error says that it is no YAML.
pub(super) fn configuration(text: &str) -> Result<String, &'static str> {
    let document: Value =
        serde_yaml::from_str(text).map_err(|_| "the file is no YAML: nothing of it is shown")?;
    serde_yaml::to_string(&masked(&document, &DOCUMENT)).map_err(|_| "it could not be written")
}

fn hidden() -> Value {
    Value::String(MASKED.to_owned())
}

fn masked(value: &Value, shown: &Shown) -> Value {
    match (shown, value) {
        (_, Value::Null) => Value::Null,
        (Whole, Value::Bool(_) | Value::Number(_)) => value.clone(),
        (Whole, Value::String(text)) if !text.contains('@') => value.clone(),
        // `disable_defaults` may be a list of names.
        (Whole, Value::Sequence(items)) => each(items, &Whole),
        (Url, Value::String(text)) => Value::String(url(text)),
        (Each(shown), Value::Sequence(items)) => each(items, shown),
        (Program, Value::Sequence(words)) => {
            let word = |(at, word): (usize, &Value)| if at == 0 { masked(word, &Whole) } else { hidden() };
            Value::Sequence(words.iter().enumerate().map(word).collect())
        }
        (Keys, Value::Mapping(map)) => {
            Value::Mapping(map.iter().map(|(key, _)| (masked(key, &Whole), hidden())).collect())
        }
        (Of(keys), Value::Mapping(map)) => Value::Mapping(known(map, keys)),
        _ => hidden(),
    }
}

fn each(items: &[Value], shown: &Shown) -> Value {
    Value::Sequence(items.iter().map(|item| masked(item, shown)).collect())
}

fn known(map: &Mapping, keys: &[(&str, Shown)]) -> Mapping {
    let mut out = Mapping::new();
    for (key, value) in map {
        let found = keys.iter().find(|(name, _)| key.as_str() == Some(name));
        let (key, value) = match found {
            Some((_, shown)) => (key.clone(), masked(value, shown)),
            None => (hidden(), hidden()),
        };
        let _ = out.insert(key, value);
    }
    out
}

/// A URL without user, password and query.
fn url(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        // `managed`, or something that is no URL.
        return if text == "managed" { text.to_owned() } else { MASKED.to_owned() };
    };
    let without_query = rest.split(['?', '#']).next().unwrap_or_default();
    let query = if without_query.len() < rest.len() { format!("?{MASKED}") } else { String::new() };
    if scheme == "unix" || scheme == "redis+unix" {
        return format!("{scheme}://{without_query}{query}");
    }
    let (authority, path) = without_query.split_once('/').unwrap_or((without_query, ""));
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{MASKED}@{host}"),
        None => authority.to_owned(),
    };
    let path = match path {
        "" => String::new(),
        number if number.bytes().all(|byte| byte.is_ascii_digit()) => format!("/{number}"),
        _ => format!("/{MASKED}"),
    };
    format!("{scheme}://{host}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_where_and_lose_who() {
        for (given, shown) in [
            ("managed", "managed"),
            ("redis://h:1/0", "redis://h:1/0"),
            ("redis://:S3@h:1/0", "redis://(masked)@h:1/0"),
            ("rediss://u:p@ss@h:1", "rediss://(masked)@h:1"),
            ("unix:///run/r.sock?pass=S3&db=1", "unix:///run/r.sock?(masked)"),
            ("https://c.example/v1/S3?key=S3", "https://c.example/(masked)?(masked)"),
            ("S3", "(masked)"),
        ] {
            assert_eq!(url(given), shown, "{given}");
        }
    }

    #[test]
    fn what_is_not_listed_is_masked() {
        let text = "server_listen_addr: a:1\nS3KEY: x\nlimits: {max_queue_len: 5, S3: S3}\n\
                    agents: [{agent_id: a, command: [run, --token, S3], env: {NAME: S3}, metadata: {m: {S: S3}}, instances: {S3: 1}}]\n\
                    gateway: {redis: 'redis://:S3@h:1/0', dlp: {rules: [{id: r, pattern: S3}]},\n\
                    telemetry: {headers: {authorization: Bearer S3}, otlp_endpoint: 'http://u:S3@c:4318'}}\n";
        let shown = configuration(text).unwrap();
        assert!(!shown.contains("S3"), "{shown}");
        for kept in ["a:1", "max_queue_len: 5", "- run", "NAME", "id: r", "authorization", "c:4318"] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        assert!(configuration("{S3: [").is_err());
    }

    #[test]
    fn every_key_of_the_example_is_listed() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("mas.yaml");
        let shown = configuration(&std::fs::read_to_string(path).unwrap()).unwrap();
        let keys: Vec<&str> = shown.lines().filter(|line| line.contains("(masked):")).collect();
        assert_eq!(keys, [""; 0], "{shown}");
    }
}
