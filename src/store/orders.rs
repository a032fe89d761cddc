//! What operators have told all servers through Redis: who is in quarantine, and which server is to stop. Each with a tag:
//! whoever can only write to Redis can neither shut out nor let in anybody, nor stop a server.

use redis::Value;
use serde::{Deserialize, Serialize};

use super::answers::{error_code, text};
use super::connection::{Batch, Connection, StoreError};
use super::keys;
use crate::audit::StoreKeys;
use crate::audit::attest::NotOurs;
use crate::ids::{ServerId, hex, unhex};
use crate::quarantine::Quarantine;

const QUARANTINE: &str = "quarantine";
const DRAIN: &str = "drain";
/// Longest document that is read, in bytes: more than the most entries of the longest can take.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// How long an order to stop stands, in milliseconds.
const DRAIN_MS: u64 = 60_000;
/// Longest that a server goes on after it was told to stop, in milliseconds.
pub const MAX_DRAIN_MS: u64 = 600_000;

/// What Redis says of the quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// Nobody was ever shut out, or somebody has removed it.
    Nothing,
    /// A document with a tag that fits.
    Ours(Quarantine),
    /// One with a tag of a key that is not known here: it says nothing, and is not replaced.
    UnknownKey,
    /// What no server or operator has written.
    Foreign,
}

/// Reads the quarantine, and WATCHes it: the caller's transaction, or `UNWATCH`, follows.
pub fn watch_quarantine(connection: &mut Connection, keys: &StoreKeys) -> Result<Read, StoreError> {
    let mut batch = Batch::new();
    let _ = batch.command("WATCH");
    let _ = batch.arg(keys::QUARANTINE);
    let get = batch.command("GETRANGE");
    // Somebody may have put there whatever they like, of any length.
    let _ = batch.arg(keys::QUARANTINE).arg(0).arg(MAX_BYTES as u64);
    let mut answers = connection.run(&mut batch)?;
    let answer = answers.get_mut(get).map(std::mem::take).unwrap_or_default();
    match error_code(&answer) {
        Some("WRONGTYPE") => return Ok(Read::Foreign),
        Some(_) => return Err(unexpected("reading the quarantine", &answer)),
        None => {}
    }
    let Some(value) = text(&answer) else { return Ok(Read::Foreign) };
    if value.is_empty() {
        return Ok(Read::Nothing);
    }
    let Some((tag, json)) = value.split_once(' ') else { return Ok(Read::Foreign) };
    Ok(match keys.check(QUARANTINE, &[json.as_bytes()], &unhex(tag).unwrap_or_default()) {
        Ok(()) => serde_json::from_str(json).map_or(Read::Foreign, Read::Ours),
        Err(NotOurs::UnknownKey) => Read::UnknownKey,
        Err(NotOurs::Foreign) => Read::Foreign,
    })
}

/// Adds the command that stores the quarantine.
pub fn set_quarantine(batch: &mut Batch, keys: &StoreKeys, quarantine: &Quarantine) {
    // Maps of text, and numbers, are always JSON.
    let json = serde_json::to_string(quarantine).unwrap_or_default();
    let tag = hex(&keys.tag(QUARANTINE, &[json.as_bytes()]));
    let _ = batch.command("SET");
    let _ = batch.arg(keys::QUARANTINE).arg(format!("{tag} {json}"));
}

/// Puts back what Redis has lost, behind a [`watch_quarantine`]. Whether it did; else something has changed.
pub fn put_back(
    connection: &mut Connection,
    keys: &StoreKeys,
    quarantine: &Quarantine,
) -> Result<bool, StoreError> {
    let mut batch = Batch::new();
    let _ = batch.command("MULTI");
    set_quarantine(&mut batch, keys, quarantine);
    let exec = batch.command("EXEC");
    let answers = connection.run(&mut batch)?;
    match answers.get(exec) {
        Some(Value::Array(answers)) if answers.iter().all(|answer| error_code(answer).is_none()) => Ok(true),
        Some(Value::Nil) => Ok(false),
        other => Err(unexpected("putting back the quarantine", other.unwrap_or(&Value::Nil))),
    }
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
    let _ = batch
        .arg(keys::drain(server))
        .arg(format!("{tag} {json}"))
        .arg("PX")
        .arg(DRAIN_MS.saturating_add(drain.after_ms));
}

/// Whether any of these servers is not to stop.
pub fn any_stays(
    connection: &mut Connection,
    keys: &StoreKeys,
    servers: &[ServerId],
) -> Result<bool, StoreError> {
    for server in servers {
        if drain(connection, keys, server)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
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
