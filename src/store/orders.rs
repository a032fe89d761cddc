//! What operators have told all servers through Redis: who is in quarantine, and which server is to stop. Each with a tag:
//! whoever can only write to Redis can neither shut out nor let in anybody, nor stop a server.

use std::collections::BTreeMap;

use redis::Value;
use serde::{Deserialize, Serialize};

use super::answers::{error_code, text};
use super::connection::{Batch, Connection, StoreError};
use super::keys;
use crate::audit::StoreKeys;
use crate::ids::{ServerId, hex, unhex};
use crate::quarantine::{Entry, MAX_ENTRIES, Quarantine, Whom};

const QUARANTINE: &str = "quarantine";
const DRAIN: &str = "drain";
/// How long an order to stop stands, in milliseconds.
const DRAIN_MS: u64 = 60_000;

/// What Redis says of the quarantine.
#[derive(Debug, Default)]
pub struct Read {
    /// Entries with a tag that fits.
    pub entries: BTreeMap<Whom, Entry>,
    /// Fields that no server or operator has written.
    pub foreign: usize,
}

/// Reads the quarantine, and WATCHes it: the caller's transaction, or `UNWATCH`, follows.
pub fn watch_quarantine(connection: &mut Connection, keys: &StoreKeys) -> Result<Read, StoreError> {
    let _ = connection.command("WATCH", &[keys::QUARANTINE])?;
    let count = match connection.command("HLEN", &[keys::QUARANTINE])? {
        Value::Int(count) => usize::try_from(count).unwrap_or(usize::MAX),
        other => return Err(unexpected("reading the quarantine", &other)),
    };
    // Twice: somebody else may have put something beside it.
    if count > 2 * MAX_ENTRIES {
        return Err(StoreError::Unexpected {
            command: "reading the quarantine",
            answer: format!("{count} entries, of which at most {MAX_ENTRIES} are operators'"),
        });
    }
    let Value::Array(pairs) = connection.command("HGETALL", &[keys::QUARANTINE])? else {
        return Err(unexpected("reading the quarantine", &Value::Nil));
    };
    let mut read = Read::default();
    for pair in pairs.chunks_exact(2) {
        let [field, value] = pair else { continue };
        let found = text(field).zip(text(value)).and_then(|(field, value)| {
            let (tag, json) = value.split_once(' ')?;
            keys.check(QUARANTINE, &[field.as_bytes(), json.as_bytes()], &unhex(tag)?).ok()?;
            Some((Whom::parse(field)?, serde_json::from_str::<Entry>(json).ok()?))
        });
        match found {
            Some((whom, entry)) => drop(read.entries.insert(whom, entry)),
            None => read.foreign += 1,
        }
    }
    Ok(read)
}

/// Adds the command that stores an entry.
pub fn set_quarantine(batch: &mut Batch, keys: &StoreKeys, whom: &Whom, entry: &Entry) {
    let field = whom.to_string();
    // A struct of numbers and text is always JSON.
    let json = serde_json::to_string(entry).unwrap_or_default();
    let tag = hex(&keys.tag(QUARANTINE, &[field.as_bytes(), json.as_bytes()]));
    let _ = batch.command("HSET");
    let _ = batch.arg(keys::QUARANTINE).arg(field).arg(format!("{tag} {json}"));
}

/// Puts back what Redis has lost of a quarantine, or holds in an older form. Whether it did; else something has changed.
pub fn put_back(
    connection: &mut Connection,
    keys: &StoreKeys,
    entries: &[(&Whom, &Entry)],
) -> Result<bool, StoreError> {
    let mut batch = Batch::new();
    let _ = batch.command("MULTI");
    for (whom, entry) in entries {
        set_quarantine(&mut batch, keys, whom, entry);
    }
    let exec = batch.command("EXEC");
    let answers = connection.run(&mut batch)?;
    match answers.get(exec) {
        Some(Value::Array(answers)) if answers.iter().all(|answer| error_code(answer).is_none()) => Ok(true),
        Some(Value::Nil) => Ok(false),
        other => Err(unexpected("putting back the quarantine", other.unwrap_or(&Value::Nil))),
    }
}

/// What is to be put back where `read` is what Redis says, and `known` what is known.
pub fn lost<'a>(known: &'a Quarantine, read: &Read) -> Vec<(&'a Whom, &'a Entry)> {
    let is_lost = |(whom, entry): &(&Whom, &Entry)| {
        read.entries.get(*whom).is_none_or(|found| found.version < entry.version)
    };
    known.entries().iter().filter(is_lost).collect()
}

/// That a server is to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// By whom, and why.
    pub by: String,
    /// How long it goes on after it is not ready any more, in milliseconds.
    pub after_ms: u64,
}

/// Adds the command that tells a server to stop.
pub fn set_drain(batch: &mut Batch, keys: &StoreKeys, server: &ServerId, drain: &Drain) {
    let json = serde_json::to_string(drain).unwrap_or_default();
    let tag = hex(&keys.tag(DRAIN, &[server.as_str().as_bytes(), json.as_bytes()]));
    let _ = batch.command("SET");
    let _ = batch.arg(keys::drain(server)).arg(format!("{tag} {json}")).arg("PX").arg(DRAIN_MS);
}

/// Whether a server is to stop.
pub fn drain(
    connection: &mut Connection,
    keys: &StoreKeys,
    server: &ServerId,
) -> Result<Option<Drain>, StoreError> {
    let value = connection.command("GET", &[&keys::drain(server)])?;
    Ok(text(&value).and_then(|value| {
        let (tag, json) = value.split_once(' ')?;
        keys.check(DRAIN, &[server.as_str().as_bytes(), json.as_bytes()], &unhex(tag)?).ok()?;
        serde_json::from_str(json).ok()
    }))
}

fn unexpected(command: &'static str, answer: &Value) -> StoreError {
    StoreError::Unexpected { command, answer: format!("{answer:?}") }
}
