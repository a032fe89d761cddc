//! The newest records of the trail, as far as they say nothing of what was in messages, and nothing that an agent or a
//! person has written.

use serde_json::{Value as Json, json};

use crate::audit::{Action, LaneId, View, lane};
use crate::config::Config;
use crate::store::{Connection, StoreError, trail};

use super::mask::MASKED;

/// How many.
const MAX_RECORDS: usize = 500;
/// Longest reason that can be one of the server's own words.
const MAX_WORD: usize = 64;

/// The newest records, oldest first, one JSON object a line.
pub(super) fn newest(connection: &mut Connection, config: &Config) -> Result<String, StoreError> {
    let mut found: Vec<(u64, Json)> = Vec::new();
    for lane in trail::lanes(connection)?.existing {
        // A block holds at least one record.
        for block in trail::newest_blocks(connection, &lane, MAX_RECORDS)? {
            let parts = lane::split_block(&block.bytes).unwrap_or_default();
            let records = parts.into_iter().filter_map(View::decode);
            found.extend(records.map(|record| (record.time_us, shown(&lane, &record, config))));
        }
        found.sort_by_key(|(time_us, _)| *time_us);
        let from = found.len().saturating_sub(MAX_RECORDS);
        drop(found.drain(..from));
    }
    Ok(found.into_iter().map(|(_, record)| format!("{record}\n")).collect())
}

fn shown(lane: &LaneId, record: &View<'_>, config: &Config) -> Json {
    // What is no agent of the configuration is what somebody has written.
    let known = |name: &str| match name.is_empty() || config.agents.contains_key(name) {
        true => name.to_owned(),
        false => MASKED.to_owned(),
    };
    let is_decision = matches!(record.action, Action::Send | Action::Request | Action::Reply);
    let is_word = |text: &str| {
        text.len() <= MAX_WORD && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let reason = match record.reason {
        "" => "",
        word if is_decision && is_word(word) => word,
        _ => MASKED,
    };
    json!({
        "lane": lane.as_str(), "seq": record.seq, "time_us": record.time_us,
        "action": record.action.as_str(), "decision": record.decision.as_str(),
        "agent": known(record.agent), "target": known(record.target),
        "message_id": record.message_id.map(|id| id.to_string()),
        "attempt": record.attempt, "rule": if is_decision { record.rule } else { "" }, "reason": reason,
        "payload_bytes": record.payload_len, "messages": record.messages.iter().count(),
        "has_findings": !record.findings.is_empty(),
    })
}
