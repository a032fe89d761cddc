//! A record as JSON: for `mas audit`'s output and for the copy in a file.

use serde_json::{Value as Json, json};

use super::lane::LaneId;
use super::record::View;
use crate::ids::hex;

/// A record as JSON; JSON's escapes keep whatever a stranger wrote on one line.
pub fn record_json(lane: &LaneId, record: &View<'_>) -> Json {
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
        "trace": record.trace,
    })
}
