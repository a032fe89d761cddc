//! What settles a delivery: its receiver, once, and nobody by an earlier delivery of the same message.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use mas::audit::{Action, Decision, Record};

use super::checker::ACK_SLACK;
use super::desk::LATE;
use super::history::{Disturbed, Seen, Word};
use crate::support::Redis;

/// How long limits that were low may still be felt: messages that were refused then are tried again at once.
const LIMITS_SLACK: Duration = Duration::from_secs(2);

pub type Report<'r> = &'r mut dyn FnMut(String);

fn us(span: Duration) -> u64 {
    span.as_micros() as u64
}

/// Whether a time and some span after it are free of disturbances.
fn is_quiet(disturbed: &[Disturbed], from_us: u64, span: Duration) -> bool {
    let to_us = from_us + us(span);
    !disturbed.iter().any(|d| d.from_us < to_us && from_us < d.to_us)
}

/// Holds commits against the promise that each delivery is committed once, by its receiver.
pub fn commits(seen: &Seen, records: &[Record], report: Report<'_>) {
    let mut on_record: HashMap<String, usize> = HashMap::new();
    for record in records {
        if record.action == Action::Commit
            && record.decision == Decision::Allowed
            && let Some(id) = record.message_id
        {
            *on_record.entry(id.to_string()).or_default() += 1;
        }
    }
    for (id, count) in on_record {
        if count > 1 {
            report(format!("{id}: {count} commits on record"));
        }
    }
    // The same commit may be answered twice, with what the first did.
    let mut outcomes: HashMap<&str, HashSet<&[String]>> = HashMap::new();
    for commit in &seen.committed {
        let _ = outcomes.entry(&commit.held.message_id).or_default().insert(&commit.results);
    }
    for (id, outcomes) in outcomes {
        if outcomes.len() > 1 {
            report(format!("{id}: {} commits with different messages", outcomes.len()));
        }
    }
    let mut effects: HashMap<&str, HashSet<&str>> = HashMap::new();
    for delivery in &seen.delivered {
        if let Some(key) = &delivery.key {
            let _ = effects.entry(key).or_default().insert(&delivery.message_id);
        }
    }
    for (key, messages) in effects {
        if messages.len() > 1 {
            report(format!("key {key}: {} messages", messages.len()));
        }
    }
}

/// Holds acknowledgements, refusals and commits against the promise that they count for their own delivery only.
pub fn words(seen: &Seen, records: &[Record], redis: &Redis, report: Report<'_>) {
    let mut settled_by: HashSet<(&str, u32)> = HashSet::new();
    for said in &seen.said {
        if matches!(said.word, Word::Ack | Word::Commit) {
            let _ = settled_by.insert((&said.held.message_id, said.held.attempt));
        }
    }
    for record in records.iter().filter(|record| record.action == Action::Acked) {
        for (id, attempt) in &record.messages {
            if !settled_by.contains(&(id.to_string().as_str(), u32::from(*attempt))) {
                report(format!("{id}: delivery {attempt} was settled, and not by its receiver"));
            }
        }
    }
    for (_, fields) in redis.entries("dlq:messages") {
        let late = fields.iter().find(|(_, value)| value.starts_with(LATE));
        if let Some((name, value)) = late {
            report(format!("a dead letter by a nack of an earlier delivery: {name} {value}"));
        }
    }
    let mut attempts: HashMap<&str, Vec<(u32, u64)>> = HashMap::new();
    for delivery in &seen.delivered {
        attempts.entry(&delivery.message_id).or_default().push((delivery.attempt, delivery.at_us));
    }
    for commit in &seen.committed {
        let (id, attempt) = (commit.held.message_id.as_str(), commit.held.attempt);
        let later = attempts.get(id).into_iter().flatten();
        let later =
            later.filter(|(n, at_us)| *n > attempt && *at_us < commit.asked_us).map(|(n, _)| *n).max();
        if let Some(later) = later {
            report(format!("{id}: committed by delivery {attempt} after delivery {later}"));
        } else if commit.late {
            report(format!("{id}: committed by delivery {attempt} after its session had ended"));
        }
    }
}

/// Holds deliveries against what their receivers acknowledged on sessions that lived on.
pub fn acknowledged(seen: &Seen, report: Report<'_>) {
    let closed: HashMap<u64, u64> = seen.closed.iter().copied().collect();
    let lived_on = |session: u64, at_us: u64| {
        closed.get(&session).is_some_and(|closed_us| *closed_us >= at_us + us(ACK_SLACK))
    };
    let mut acked: HashMap<&str, (u32, u64)> = HashMap::new();
    for said in seen.said.iter().filter(|said| said.word == Word::Ack && !said.late) {
        if lived_on(said.held.session, said.at_us) && is_quiet(&seen.disturbed, said.at_us, ACK_SLACK) {
            let _ = acked.entry(&said.held.message_id).or_insert((said.held.attempt, said.at_us));
        }
    }
    for delivery in &seen.delivered {
        if let Some((attempt, at_us)) = acked.get(delivery.message_id.as_str())
            && delivery.attempt >= *attempt
            && delivery.at_us > at_us + us(ACK_SLACK)
        {
            report(format!(
                "{}: delivery {} after its receiver had acknowledged delivery {attempt}",
                delivery.message_id, delivery.attempt
            ));
        }
    }
}

/// Senders are limited only while limits are low.
pub fn limits(seen: &Seen, report: Report<'_>) {
    for (sender, at_us) in &seen.limited {
        let allowed = |low: &Disturbed| low.from_us <= *at_us && *at_us <= low.to_us + us(LIMITS_SLACK);
        if !seen.low_limits.iter().any(allowed) {
            report(format!("{sender} was rate limited while no limit was reached"));
        }
    }
}
