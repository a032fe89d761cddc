//! Taking pending entries from one consumer for another, whole or not at all for each entry.
//!
//! XCLAIM asks only how long an entry has been idle. That is a clock, and says nothing of who has the entry: another
//! server may have claimed it a moment ago, or its holder may be connected to another server again. So a script in
//! Redis looks at both, and claims what is still its holder's.

use redis::Value;

use super::answers::{self, EntryId, PendingEntry, StreamEntry};
use super::claim_script::SCRIPT;
use super::connection::Batch;
use super::keys;
use super::owners::owned_by;
use super::pipeline::{Effect, Multi};
use crate::ids::{AgentId, InstanceId, ServerId};

/// What became of the claim of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// It is the new consumer's, and this is the number of its delivery.
    Taken(StreamEntry, u32),
    /// It was not pending for the expected holder, or that one is connected to another server.
    NotHeld,
    /// It was pending, and its message is not in the stream any more.
    Vanished,
}

/// An entry to claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub entry: EntryId,
    /// The number of the delivery that follows, as far as this server knows.
    pub delivery: u32,
    /// Redis' count of deliveries, as this server saw it last.
    pub stored: u32,
}

/// Whose entries are claimed, and for whom.
#[derive(Debug, Clone, Copy)]
pub struct Parties<'a> {
    /// The agent.
    pub agent: &'a AgentId,
    /// The instance that has them.
    pub holder: &'a InstanceId,
    /// The name of the consumer that gets them.
    pub consumer: &'a str,
    /// The server that claims.
    pub server: &'a ServerId,
}

/// Adds the claim of entries.
pub fn claim(
    multi: &mut Multi<'_>,
    stream: &str,
    parties: Parties<'_>,
    entries: &[Wanted],
) -> Effect<Result<Vec<Claimed>, String>> {
    let effect = multi.ask("EVAL", read);
    arguments(multi.args(), stream, parties, "", entries);
    effect
}

/// The same outside of a transaction; its answer is for [`read`].
pub fn claim_alone(batch: &mut Batch, stream: &str, parties: Parties<'_>, entries: &[Wanted]) {
    let _ = batch.command("EVAL");
    arguments(batch, stream, parties, "", entries);
}

/// Adds the correction of Redis' count of deliveries; the entries stay with their holder.
pub fn recount(multi: &mut Multi<'_>, stream: &str, parties: Parties<'_>, entries: &[Wanted]) {
    let _ = multi.effect("EVAL");
    arguments(multi.args(), stream, parties, "JUSTID", entries);
}

fn arguments(batch: &mut Batch, stream: &str, parties: Parties<'_>, mode: &str, entries: &[Wanted]) {
    let Parties { agent, holder, consumer, server } = parties;
    let _ = batch.arg(SCRIPT).arg(2).arg(stream).arg(keys::instances(agent));
    let _ = batch.arg(keys::GROUP).arg(consumer).arg(keys::consumer(agent, holder));
    let _ = batch.arg(holder.as_str()).arg(owned_by(server)).arg(mode);
    for Wanted { entry, delivery, stored } in entries {
        let _ = batch.arg(*entry).arg(*delivery).arg(*stored);
    }
}

/// The answers in the order of the entries, or the code of the refusal.
pub fn read(value: Value) -> Result<Vec<Claimed>, String> {
    if let Some(code) = answers::error_code(&value) {
        // A script's error names the command's own behind its code.
        let text = format!("{value:?}");
        return Err(if text.contains("NOGROUP") { "NOGROUP".to_owned() } else { code.to_owned() });
    }
    let Value::Array(items) = value else {
        return Err(format!("unknown answer {value:?}").chars().take(200).collect());
    };
    Ok(items.into_iter().map(read_one).collect())
}

fn read_one(item: Value) -> Claimed {
    let Value::Array(parts) = item else {
        return Claimed::NotHeld;
    };
    let mut parts = parts.into_iter();
    match parts.next().as_ref().and_then(answers::int) {
        Some(1) => {
            let entry = parts.next().and_then(|got| answers::entries(Value::Array(vec![got])));
            let entry = entry.and_then(|entries| entries.into_iter().next());
            let count =
                parts.next().as_ref().and_then(answers::int).and_then(|count| u32::try_from(count).ok());
            entry.map_or(Claimed::Vanished, |entry| Claimed::Taken(entry, count.unwrap_or(1)))
        }
        Some(2) => Claimed::Vanished,
        _ => Claimed::NotHeld,
    }
}

/// Reads XPENDING of one entry: its consumer.
pub fn holder(value: Value) -> Option<String> {
    let lines: Vec<PendingEntry> = answers::pending(&value)?;
    lines.into_iter().next().map(|line| line.consumer)
}
