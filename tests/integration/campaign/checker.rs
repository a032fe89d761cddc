//! Holds the promises against a history, the store and the trail.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use mas::audit::{Action, Decision, Record};

use super::disk::Clock;
use super::history::{History, now_us};
use crate::support::World;

/// How much later than an acknowledgement is on record a delivery that was under way before it may arrive.
pub const ACK_SLACK: Duration = Duration::from_secs(2);
/// `delivery.max_attempts` of the campaign's world.
const MAX_ATTEMPTS: u32 = 20;
/// Earlier than any record of a campaign: no campaign takes an hour more than this.
const LONGEST: Duration = Duration::from_secs(Clock::STEP_S - 3600);

/// The true time of a record, whose server's clock may have been some steps ahead.
fn true_time_us(record: &Record, now_us: u64) -> u64 {
    let began_us = now_us - LONGEST.as_micros() as u64;
    began_us + record.time_us.saturating_sub(began_us) % (Clock::STEP_S * 1_000_000)
}

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation(String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn message_id(envelope: &str) -> String {
    let envelope: serde_json::Value = serde_json::from_str(envelope).unwrap();
    envelope["message_id"].as_str().unwrap().to_owned()
}

/// Message ids of a stream's entries.
fn stored(world: &World, stream: &str) -> HashSet<String> {
    let entries = world.redis.entries(stream);
    let envelopes = entries.iter().flat_map(|(_, fields)| fields).filter(|(name, _)| name == "envelope");
    envelopes.map(|(_, envelope)| message_id(envelope)).collect()
}

/// Every broken promise.
pub fn check(history: &History, world: &World) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut violation = |text: String| found.push(Violation(text));

    let dead = stored(world, "dlq:messages");
    let mut queued = HashSet::new();
    for key in world.redis.keys() {
        if key.starts_with("agent.stream:") {
            queued.extend(stored(world, &key));
        }
    }
    let mut records = world.records();
    let now_us = now_us();
    for record in &mut records {
        record.time_us = true_time_us(record, now_us);
    }
    records.sort_by_key(|record| record.time_us);
    let mut allowed = HashMap::new();
    let mut acked: HashMap<String, (u8, u64)> = HashMap::new();
    for record in &records {
        let admitted = matches!(record.decision, Decision::Allowed | Decision::Alert | Decision::DlpRedacted);
        let message = matches!(record.action, Action::Send | Action::Request | Action::Reply);
        if let (true, true, Some(id)) = (message, admitted, record.message_id) {
            let _ = allowed.entry(id.to_string()).or_insert_with(|| record.target.clone());
        }
        if record.action == Action::Acked {
            for (id, attempt) in &record.messages {
                let _ = acked.entry(id.to_string()).or_insert((*attempt, record.time_us));
            }
        }
    }

    history.read(|seen| {
        let delivered: HashSet<&str> = seen.delivered.iter().map(|d| d.message_id.as_str()).collect();
        // Accepted is delivered, dead, or still there; and on record.
        for message in &seen.accepted {
            let id = message.message_id.as_str();
            if !delivered.contains(id) && !dead.contains(id) && !queued.contains(id) {
                violation(format!("{id} to {}: accepted, and nowhere", message.target));
            }
            if !allowed.contains_key(id) {
                violation(format!("{id}: accepted, and not on record (receipt {:?})", message.receipt));
            }
        }
        let targets: HashMap<&str, &str> =
            seen.accepted.iter().map(|a| (a.message_id.as_str(), a.target.as_str())).collect();
        let asked: HashMap<&str, (&str, &str)> = seen
            .accepted
            .iter()
            .filter_map(|a| Some((a.correlation_id.as_deref()?, (a.sender.as_str(), a.instance.as_str()))))
            .collect();
        let mut replies: HashMap<&str, HashSet<&str>> = HashMap::new();
        for delivery in &seen.delivered {
            let id = delivery.message_id.as_str();
            // Delivered was allowed, and is at the right agent.
            match allowed.get(id) {
                None => violation(format!("{id}: delivered, and no record allows it")),
                Some(target) if *target != delivery.agent => {
                    violation(format!("{id} for {target}: at another agent, {}", delivery.agent));
                }
                Some(_) => {}
            }
            if targets.get(id).is_some_and(|target| *target != delivery.agent)
                || delivery.target != delivery.agent
            {
                violation(format!("{id}: at another agent, {}", delivery.agent));
            }
            // What was acknowledged is not delivered anew. An earlier attempt may have lain in the socket of an
            // agent that was stopped.
            if let Some((attempt, acked_us)) = acked.get(id)
                && delivery.attempt >= u32::from(*attempt)
                && delivery.at_us > acked_us + ACK_SLACK.as_micros() as u64
            {
                violation(format!("{id}: delivery {} after its acknowledgement", delivery.attempt));
            }
            if delivery.attempt > MAX_ATTEMPTS {
                violation(format!("{id}: delivered {} times", delivery.attempt));
            }
            if let Some(correlation) = &delivery.reply_to {
                let _ = replies.entry(correlation).or_default().insert(id);
                // A request whose outcome stayed unknown may be answered too.
                if let Some((agent, instance)) = asked.get(correlation.as_str())
                    && (*agent, *instance) != (delivery.agent.as_str(), delivery.instance.as_str())
                {
                    violation(format!("the reply to {correlation} is at {agent}/{instance}"));
                }
            }
        }
        for (correlation, ids) in replies {
            if ids.len() > 1 {
                violation(format!("{} replies to {correlation}", ids.len()));
            }
        }
    });

    let (code, report) = world.verify();
    if code != 0 {
        violation(format!("the trail is damaged: {report}"));
    }
    found
}
