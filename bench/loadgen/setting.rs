//! What a result is a result of: stated with every figure.

use serde_json::{Map, Value, json};

/// What is switched on in a server that loadgen starts.
const FEATURES: [&str; 9] = [
    "mtls",
    "acl",
    "rbac",
    "rate limit",
    "circuit breaker",
    "dlp defaults",
    "audit hash chain",
    "custody records",
    "signed checkpoints",
];

/// The server and its store.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) server_version: String,
    pub(crate) redis_version: String,
    /// Worker threads; `None`: a server that somebody else runs.
    pub(crate) threads: Option<u16>,
    pub(crate) fsynced: bool,
}

/// Everything that does not depend on the measurement.
pub(crate) fn setting(place: &Place) -> Map<String, Value> {
    let unknown = || Value::from("unknown");
    let own = place.threads.is_some();
    let (mode, fsync) = if place.fsynced { ("fsynced", "always") } else { ("accepted", "everysec") };
    let mut setting = Map::new();
    let mut set = |key: &str, value: Value| drop(setting.insert(key.to_owned(), value));
    set("loadgen", Value::from(env!("CARGO_PKG_VERSION")));
    set("server", Value::from(place.server_version.as_str()));
    set("redis", Value::from(place.redis_version.as_str()));
    set("cores", Value::from(std::thread::available_parallelism().map_or(1, usize::from)));
    set("server_threads", place.threads.map_or_else(unknown, Value::from));
    set("durability", if own { Value::from(mode) } else { unknown() });
    set("appendfsync", if own { Value::from(fsync) } else { unknown() });
    set("features", if own { json!(FEATURES) } else { unknown() });
    set("load_average", load_average());
    setting
}

/// Adds what the measurement did.
pub(crate) fn with(mut setting: Map<String, Value>, more: &Value) -> Map<String, Value> {
    if let Value::Object(more) = more {
        setting.extend(more.clone());
    }
    setting
}

/// As one line: `key value, key value`.
pub(crate) fn line(setting: &Map<String, Value>) -> String {
    let shown = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" + "),
        other => other.to_string(),
    };
    let parts = setting.iter().filter(|(_, value)| !value.is_null());
    parts
        .map(|(key, value)| format!("{}: {}", key.replace('_', " "), shown(value)))
        .collect::<Vec<_>>()
        .join("; ")
}

/// One minute's load of the machine when the measurement was over: high with little load of one's own, others
/// were at work.
fn load_average() -> Value {
    let text = std::fs::read_to_string("/proc/loadavg").ok();
    let first = text.as_deref().and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    first.map_or(Value::Null, Value::from)
}
