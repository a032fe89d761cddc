//! One message's life as one chain, from the request for it to its end, and its reply.

use std::ops::ControlFlow;

use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::error::HistoryError;
use super::records::each_record;
use super::source::{Range, Source};
use crate::audit::{Action, Decision, LaneId, Record, View};
use crate::ids::unhex;

/// Most steps of one message that are shown.
const MAX_STEPS: usize = 10_000;
/// A message's id carries its time; records may have been made this much before, in microseconds.
const CLOCK_SLACK_US: u64 = 60_000_000;

/// One step of a message's life.
#[derive(Debug)]
pub struct Step {
    /// Where it is on record.
    pub lane: LaneId,
    /// What is.
    pub record: Record,
    /// Which delivery it is about; 0: none.
    pub attempt: u32,
}

/// A message's life.
#[derive(Debug)]
pub struct Chain {
    /// Its steps, by time.
    pub steps: Vec<Step>,
    /// Those of other messages with the same correlation id: its reply, or its request.
    pub related: Vec<Step>,
}

/// Looks a message up; `None` where nothing is on record of it.
pub fn chain(source: &mut Source, message_id: Uuid) -> Result<Option<Chain>, HistoryError> {
    let from_us = made_after_us(message_id);
    let messages = [*message_id.as_bytes()];
    let range = Range { from_us, to_us: None, messages: &messages, whole: false };
    let steps = collect(source, range, &|record| about(record, message_id))?;
    let Some(asked) = steps.iter().find(|step| step.record.message_id == Some(message_id)) else {
        return Ok(None);
    };
    // Request and reply carry one correlation id.
    let correlation = asked.record.correlation_id.clone();
    let other = |record: &View<'_>| {
        let id = record.correlation_id.map(|id| crate::ids::hex(id));
        (record.message_id != Some(message_id) && id.as_deref() == Some(&correlation)).then_some(0)
    };
    let key = unhex(&correlation).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    let related = match key {
        None => Vec::new(),
        Some(key) => {
            // A reply's id is later than its request's; a request's is earlier than what is asked for here.
            let range = match asked.record.action {
                Action::Reply => Range::ALL,
                _ => range,
            };
            collect(source, Range { messages: &[key], whole: false, ..range }, &other)?
        }
    };
    Ok(Some(Chain { steps, related }))
}

/// From when on a message can be on record, Unix microseconds. Ids of version 7 begin with the time in
/// milliseconds: what is older need not be read.
pub fn made_after_us(id: Uuid) -> Option<u64> {
    let made_ms = (id.get_version_num() == 7).then_some((id.as_u128() >> 80) as u64)?;
    Some(made_ms.saturating_mul(1000).saturating_sub(CLOCK_SLACK_US))
}

/// The records that `about` wants, by time; it says which delivery each is about.
fn collect(
    source: &mut Source,
    range: Range<'_>,
    about: &dyn Fn(&View<'_>) -> Option<u32>,
) -> Result<Vec<Step>, HistoryError> {
    let mut steps = Vec::new();
    each_record::<HistoryError>(source, range, &mut |lane, record| {
        if let Some(attempt) = about(record) {
            steps.push(Step { lane: lane.clone(), record: record.to_record(), attempt });
        }
        Ok(if steps.len() < MAX_STEPS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    steps.sort_by(|a, b| {
        (a.record.time_us, &a.lane, a.record.seq).cmp(&(b.record.time_us, &b.lane, b.record.seq))
    });
    Ok(steps)
}

/// Which delivery of a message a record is about, 0 for none; `None`: it is about another message.
pub fn about(record: &View<'_>, id: Uuid) -> Option<u32> {
    if record.message_id == Some(id) {
        return Some(record.attempt);
    }
    record.messages.iter().find(|(message, _)| *message == id).map(|(_, attempt)| u32::from(attempt))
}

/// Where the message is now, by its last step that moved it.
pub fn state(steps: &[Step]) -> &'static str {
    let mut state = "unknown";
    for step in steps {
        state = match step.record.action {
            Action::Send | Action::Request | Action::Reply => match step.record.decision {
                Decision::Allowed | Decision::Alert | Decision::DlpRedacted => "accepted",
                _ => "refused",
            },
            Action::Delivered => "delivered",
            Action::Nack => "refused by its receiver",
            Action::Acked => "acknowledged",
            Action::DeadLetter => "dead",
            Action::Redriven => "put back",
            Action::Dropped => "dropped",
            Action::Expired => "expired",
            Action::EffectFailed => "not stored",
            _ => state,
        };
    }
    state
}

/// A step as JSON.
pub fn step_json(step: &Step) -> Json {
    let record = &step.record;
    json!({
        "lane": step.lane.as_str(), "seq": record.seq, "time_us": record.time_us,
        "action": record.action.as_str(), "decision": record.decision.as_str(),
        "agent": record.agent, "instance": record.instance, "target": record.target,
        "target_instance": record.target_instance,
        "message_id": record.message_id.map(|id| id.to_string()),
        "message_type": record.message_type, "correlation_id": record.correlation_id,
        "attempt": step.attempt, "rule": record.rule, "reason": record.reason,
        "payload_bytes": record.payload_len,
    })
}
