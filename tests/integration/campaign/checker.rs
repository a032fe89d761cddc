//! Holds the promises against a history, the store and the trail.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use mas::audit::{Action, Decision, Record};

use super::disk::Clock;
use super::history::{History, Seen, now_us};
use super::settled::{self, Report};
use super::story;
use super::waits;
use crate::support::World;

/// How much later than an acknowledgement is on record a delivery that was under way before it may arrive.
pub const ACK_SLACK: Duration = Duration::from_secs(2);
/// `delivery.max_attempts` of the campaign's world.
const MAX_ATTEMPTS: u32 = 20;
/// Violations that come with their messages' stories.
const TOLD: usize = 20;
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

/// How many of each kind there are: texts that differ in their numbers and ids alone are of one kind.
pub fn kinds(violations: &[Violation]) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for Violation(text) in violations {
        let words = text.lines().next().unwrap_or_default().split_whitespace();
        let words = words.map(|word| if word.contains(|c: char| c.is_ascii_digit()) { "*" } else { word });
        let kind: String = words.collect::<Vec<_>>().join(" ").chars().take(120).collect();
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

/// The first of them, a line and a story each.
pub fn texts(violations: &[Violation]) -> String {
    violations.iter().take(TOLD).map(|violation| format!("\n{violation}")).collect()
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

/// What the store and the trail say.
struct Facts {
    dead: HashSet<String>,
    /// In an inbox.
    queued: HashSet<String>,
    /// By their true times.
    records: Vec<Record>,
    /// Messages that were admitted, and for whom.
    allowed: HashMap<String, String>,
    /// Messages that were acknowledged first at which delivery, and when.
    acked: HashMap<String, (u8, u64)>,
}

impl Facts {
    fn read(world: &World) -> Self {
        let streams = world.redis.keys().into_iter().filter(|key| key.starts_with("agent.stream:"));
        let queued = streams.flat_map(|stream| stored(world, &stream)).collect();
        let mut records = world.records();
        let now_us = now_us();
        for record in &mut records {
            record.time_us = true_time_us(record, now_us);
        }
        records.sort_by_key(|record| record.time_us);
        let mut facts = Self {
            dead: stored(world, "dlq:messages"),
            queued,
            records: Vec::new(),
            allowed: HashMap::new(),
            acked: HashMap::new(),
        };
        for record in &records {
            facts.learn(record);
        }
        Self { records, ..facts }
    }

    fn learn(&mut self, record: &Record) {
        let admitted = matches!(record.decision, Decision::Allowed | Decision::Alert | Decision::DlpRedacted);
        let message = matches!(record.action, Action::Send | Action::Request | Action::Reply);
        if let (true, true, Some(id)) = (message, admitted, record.message_id) {
            let _ = self.allowed.entry(id.to_string()).or_insert_with(|| record.target.clone());
        }
        if record.action == Action::Acked {
            for (id, attempt) in &record.messages {
                let _ = self.acked.entry(id.to_string()).or_insert((*attempt, record.time_us));
            }
        }
    }
}

/// Every broken promise.
pub fn check(history: &History, world: &World) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut violation = |text: String| found.push(Violation(text));
    let facts = Facts::read(world);
    history.read(|seen| {
        accepted(seen, &facts, &mut violation);
        delivered(seen, &facts, &mut violation);
        replies(seen, &mut violation);
        settled::commits(seen, &facts.records, &mut violation);
        settled::words(seen, &facts.records, &world.redis, &mut violation);
        settled::acknowledged(seen, &mut violation);
        settled::limits(seen, &mut violation);
        waits::check(seen, &facts.queued, &mut violation);
    });
    history.read(|seen| {
        for Violation(text) in found.iter_mut().take(TOLD) {
            let id: String = text.chars().take(36).collect();
            text.push('\n');
            text.push_str(&story::of(&id, seen, &facts.records));
        }
    });
    let (code, report) = world.verify();
    if code != 0 {
        found.push(Violation(format!("the trail is damaged: {report}")));
    }
    found
}

/// Accepted is delivered, dead, or still there; and on record.
fn accepted(seen: &Seen, facts: &Facts, report: Report<'_>) {
    let delivered: HashSet<&str> = seen.delivered.iter().map(|d| d.message_id.as_str()).collect();
    for message in &seen.accepted {
        let id = message.message_id.as_str();
        if !delivered.contains(id) && !facts.dead.contains(id) && !facts.queued.contains(id) {
            report(format!("{id} to {}: accepted, and nowhere", message.target));
        }
        if !facts.allowed.contains_key(id) {
            report(format!("{id}: accepted, and not on record (receipt {:?})", message.receipt));
        }
    }
}

/// Delivered was allowed, is at the right agent, and was not done with before.
fn delivered(seen: &Seen, facts: &Facts, report: Report<'_>) {
    let targets: HashMap<&str, &str> =
        seen.accepted.iter().map(|a| (a.message_id.as_str(), a.target.as_str())).collect();
    for delivery in &seen.delivered {
        let id = delivery.message_id.as_str();
        match facts.allowed.get(id) {
            None => report(format!("{id}: delivered, and no record allows it")),
            Some(target) if *target != delivery.agent => {
                report(format!("{id} for {target}: at another agent, {}", delivery.agent));
            }
            Some(_) => {}
        }
        if targets.get(id).is_some_and(|target| *target != delivery.agent)
            || delivery.target != delivery.agent
        {
            report(format!("{id}: at another agent, {}", delivery.agent));
        }
        // An earlier attempt may have lain in the socket of an agent that was stopped.
        if let Some((attempt, acked_us)) = facts.acked.get(id)
            && delivery.attempt >= u32::from(*attempt)
            && delivery.at_us > acked_us + ACK_SLACK.as_micros() as u64
        {
            report(format!("{id}: delivery {} after its acknowledgement", delivery.attempt));
        }
        if delivery.attempt > MAX_ATTEMPTS {
            report(format!("{id}: delivered {} times", delivery.attempt));
        }
    }
}

/// Each request has one reply at most, and it is at the instance that asked.
fn replies(seen: &Seen, report: Report<'_>) {
    let asked: HashMap<&str, (&str, &str)> = seen
        .accepted
        .iter()
        .filter_map(|a| Some((a.correlation_id.as_deref()?, (a.sender.as_str(), a.instance.as_str()))))
        .collect();
    let mut replies: HashMap<&str, HashSet<&str>> = HashMap::new();
    for delivery in &seen.delivered {
        let Some(correlation) = &delivery.reply_to else { continue };
        let _ = replies.entry(correlation).or_default().insert(&delivery.message_id);
        // A request whose outcome stayed unknown may be answered too.
        if let Some((agent, instance)) = asked.get(correlation.as_str())
            && (*agent, *instance) != (delivery.agent.as_str(), delivery.instance.as_str())
        {
            report(format!("the reply to {correlation} is at {agent}/{instance}"));
        }
    }
    for (correlation, ids) in replies {
        if ids.len() > 1 {
            report(format!("{} replies to {correlation}", ids.len()));
        }
    }
}
