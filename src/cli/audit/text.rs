//! A record as JSON, and as a line for a terminal. Records hold strangers' text: nothing of it breaks a line.

use serde_json::{Value as Json, json};

use crate::audit::verify::Plain;
use crate::audit::{LaneId, View};
use crate::ids::hex;

/// A record as JSON; JSON's escapes keep whatever a stranger wrote on one line.
pub(crate) fn record_json(lane: &LaneId, record: &View<'_>) -> Json {
    let messages: Vec<Json> = record
        .messages
        .iter()
        .map(|(id, attempt)| json!({"message_id": id.to_string(), "attempt": attempt}))
        .collect();
    json!({
        "lane": lane.as_str(),
        "seq": record.seq,
        "time_us": record.time_us,
        "action": record.action.as_str(),
        "decision": record.decision.as_str(),
        "agent": record.agent,
        "instance": record.instance,
        "fingerprint": hex(record.fingerprint),
        "message_id": record.message_id.map(|id| id.to_string()),
        "message_type": record.message_type,
        "target": record.target,
        "target_instance": record.target_instance,
        "correlation_id": record.correlation_id.map(|id| hex(id)).unwrap_or_default(),
        "payload_sha256": hex(record.payload_digest),
        "payload_bytes": record.payload_len,
        "attempt": record.attempt,
        "rule": record.rule,
        "reason": record.reason,
        "policy_version": hex(record.policy_version),
        "findings": serde_json::from_str::<Json>(record.findings).unwrap_or(Json::Null),
        "messages": messages,
        "sender_seq": record.sender_seq,
    })
}

/// Time as text: UTC, milliseconds.
pub(crate) fn time_text(time_us: u64) -> String {
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_us) * 1000)
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_else(|| time_us.to_string())
}

/// A record as one line for people.
pub(crate) fn record_line(record: &View<'_>) -> String {
    let mut line = format!(
        "{}  {:<15} {:<13} {}",
        time_text(record.time_us),
        record.decision.as_str(),
        record.action.as_str(),
        Plain(record.agent)
    );
    if !record.instance.is_empty() {
        line.push_str(&format!("/{}", Plain(record.instance)));
    }
    if !record.target.is_empty() {
        line.push_str(&format!(" → {}", Plain(record.target)));
    }
    for (label, value) in [
        ("type", record.message_type),
        ("rule", record.rule),
        ("reason", record.reason),
        ("findings", record.findings),
    ] {
        if !value.is_empty() {
            line.push_str(&format!("  {label}={}", Plain(value)));
        }
    }
    if let Some(id) = record.message_id {
        line.push_str(&format!("  id={id}"));
    }
    if record.attempt > 0 {
        line.push_str(&format!("  attempt={}", record.attempt));
    }
    let mut messages = record.messages.iter();
    if let Some((id, attempt)) = messages.next() {
        line.push_str(&format!("  {id} (delivery {attempt})"));
        let further = messages.count();
        if further > 0 {
            line.push_str(&format!(" and {further} more"));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(Plain("a\u{1b}[31m\nb").to_string(), "a\\u{1b}[31m\\nb");
        assert_eq!(Plain("grün").to_string(), "grün");
        assert_eq!(Plain("a\u{202e}b\u{2028}").to_string(), "a\\u{202e}b\\u{2028}");
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time_text(1_700_000_000_123_456), "2023-11-14T22:13:20.123Z");
    }
}
