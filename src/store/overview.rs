//! What Redis says of agents and their state, for an operator: looked up, never cached.

use std::collections::BTreeSet;

use redis::Value;
use sha2::{Digest, Sha256};

use super::answers::{self, text};
use super::connection::{Batch, Connection, StoreError};
use super::fitness;
use super::keys;
use super::pipeline::Answers;
use super::states::{self, Stored};
use crate::audit::StoreKeys;
use crate::audit::attest::NotOurs;
use crate::ids::{AgentId, ServerId};

/// Agents looked up in one round trip.
const PAGE: usize = 256;

/// What Redis says of one agent.
#[derive(Debug)]
pub struct AgentView {
    /// Which.
    pub agent: AgentId,
    /// ACTIVE or INACTIVE; empty before the first start of a server.
    pub status: String,
    /// The hash of its instances, as it is stored.
    pub instances: Value,
    /// Messages in its shared inbox, delivered ones that are not acknowledged included.
    pub queued: u64,
    /// What its shared inbox takes in Redis, in bytes; `None` where that may not be asked.
    pub bytes: Option<u64>,
    /// Those that are delivered and not acknowledged.
    pub pending: u64,
    /// When its circuit opened (Unix milliseconds), if it is not closed.
    pub circuit_open_ms: Option<u64>,
}

/// An agent's state.
#[derive(Debug, Default)]
pub struct StateView {
    /// Its fields, sorted.
    pub fields: Vec<(String, String)>,
    /// Counts its changes.
    pub version: u64,
    /// How long it is kept yet, in milliseconds; `None`: for good.
    pub ttl_ms: Option<u64>,
    /// Its tag.
    tag: Option<String>,
}

impl StateView {
    /// Whether this is what servers and operators' commands have stored.
    pub fn check(&self, keys: &StoreKeys, agent: &AgentId) -> Result<(), NotOurs> {
        let (fields, tag) = (self.fields.clone(), self.tag.clone());
        Stored { fields, version: self.version, tag }.check(keys, agent).map(drop)
    }

    /// Whether its tag fits, whatever the reason where it does not.
    pub fn is_ours(&self, keys: &StoreKeys, agent: &AgentId) -> bool {
        self.check(keys, agent).is_ok()
    }

    /// The tag of the next version, with these fields.
    pub fn next_tag(&self, keys: &StoreKeys, agent: &AgentId, fields: &[(String, String)]) -> String {
        let temporary = self.ttl_ms.is_some() && !fields.is_empty();
        Stored::next_tag(keys, agent, fields, self.next_version(), temporary)
    }

    /// The version after a change.
    pub fn next_version(&self) -> u64 {
        self.version.saturating_add(1)
    }

    /// SHA-256 of its fields, each name and value behind its length.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in self.fields.iter().flat_map(|(field, value)| [field, value]) {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

/// How Redis is, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Redis {
    /// What counts against its bound of memory, in bytes.
    pub used_bytes: u64,
    /// That bound; 0: none.
    pub max_bytes: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Things that somebody else had put there, put aside.
    pub foreign: u64,
    /// Servers in the registry.
    pub servers: u64,
}

/// Asks Redis how it is.
pub fn redis(connection: &mut Connection) -> Result<Redis, StoreError> {
    let mut batch = Batch::new();
    let memory_at = fitness::look_at_memory(&mut batch);
    let count = |batch: &mut Batch, command: &str, key: &str| {
        let asked = batch.ask(command, |answer| answers::int(&answer).unwrap_or(0));
        let _ = batch.arg(key);
        asked
    };
    let dead_letters = count(&mut batch, "XLEN", keys::DEAD_LETTERS);
    let foreign = count(&mut batch, "XLEN", keys::FOREIGN);
    let servers = count(&mut batch, "HLEN", keys::SERVERS);
    let mut answers = Answers::new(connection.run(&mut batch)?);
    let memory = answers.at(memory_at..memory_at + 1).first().and_then(fitness::memory);
    Ok(Redis {
        used_bytes: memory.map_or(0, fitness::Memory::used),
        max_bytes: memory.map_or(0, fitness::Memory::max),
        dead_letters: answers.take(dead_letters),
        foreign: answers.take(foreign),
        servers: answers.take(servers),
    })
}

/// The servers on this Redis.
pub fn servers(connection: &mut Connection) -> Result<BTreeSet<ServerId>, StoreError> {
    let listed = connection.command("HKEYS", &[keys::SERVERS])?;
    let Value::Array(ids) = &listed else {
        return Err(StoreError::Unexpected { command: "HKEYS", answer: format!("{listed:?}") });
    };
    Ok(ids.iter().filter_map(text).filter_map(ServerId::parse).collect())
}

/// An agent's shared inbox.
#[derive(Debug, Clone)]
pub struct InboxView {
    /// Whose.
    pub agent: AgentId,
    /// Messages in it, delivered ones that are not acknowledged included.
    pub queued: u64,
    /// Those that are delivered and not acknowledged.
    pub pending: u64,
    /// What it takes in Redis, in bytes; `None` where that may not be asked.
    pub bytes: Option<u64>,
    /// For how long its oldest message is there, in milliseconds; `None`: it is empty.
    pub oldest_ms: Option<u64>,
}

/// When the oldest entry of a stream was added, and what time it is, both by Redis' clock: the entry itself, which may be long,
/// stays there.
const OLDEST: &str = "local e = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not e then return false end
local t = redis.call('TIME')
return {string.match(e[1], '^%d+'), string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))}";

fn age_ms(answer: &Value) -> Option<u64> {
    let Value::Array(times) = answer else { return None };
    let mut times = times.iter().map(answers::int);
    let (added_ms, now_ms) = (times.next()??, times.next()??);
    Some(now_ms.saturating_sub(added_ms))
}

/// Looks at inboxes, in order.
pub fn inboxes<'a>(
    connection: &mut Connection,
    agents: impl Iterator<Item = &'a AgentId>,
) -> Result<Vec<InboxView>, StoreError> {
    let agents: Vec<&AgentId> = agents.collect();
    let mut views = Vec::with_capacity(agents.len());
    let mut batch = Batch::new();
    for page in agents.chunks(PAGE) {
        for agent in page {
            let _ = batch.command("XLEN");
            let _ = batch.arg(keys::inbox(agent));
        }
        let counts = connection.run(&mut batch)?;
        let counts: Vec<u64> = counts.iter().map(|count| answers::int(count).unwrap_or(0)).collect();
        // Of the empty ones there is nothing to ask.
        let full = |(_, count): &(&&AgentId, &u64)| **count > 0;
        for (agent, _) in page.iter().zip(&counts).filter(full) {
            let _ = batch.command("MEMORY");
            let _ = batch.arg("USAGE").arg(keys::inbox(agent)).arg("SAMPLES").arg(0);
            let _ = batch.command("XPENDING");
            let _ = batch.arg(keys::inbox(agent)).arg(keys::GROUP);
            let _ = batch.command("EVAL");
            let _ = batch.arg(OLDEST).arg(1).arg(keys::inbox(agent));
        }
        let mut found = connection.run(&mut batch)?.into_iter();
        for (agent, queued) in page.iter().zip(counts) {
            let mut view =
                InboxView { agent: (*agent).clone(), queued, pending: 0, bytes: Some(0), oldest_ms: None };
            if queued > 0 {
                view.bytes = found.next().as_ref().and_then(answers::int);
                view.pending = found.next().map_or(0, |pending| delivered(&pending));
                view.oldest_ms = found.next().as_ref().and_then(age_ms);
            }
            views.push(view);
        }
    }
    Ok(views)
}

/// The number in XPENDING's summary; without a stream or a group nothing is delivered.
fn delivered(pending: &Value) -> u64 {
    match pending {
        Value::Array(summary) => summary.first().and_then(answers::int).unwrap_or(0),
        _ => 0,
    }
}

/// Looks agents up, in order.
pub fn agents<'a>(
    connection: &mut Connection,
    agents: impl Iterator<Item = &'a AgentId>,
) -> Result<Vec<AgentView>, StoreError> {
    let agents: Vec<&AgentId> = agents.collect();
    let mut views = Vec::with_capacity(agents.len());
    let mut batch = Batch::new();
    for page in agents.chunks(PAGE) {
        for agent in page {
            let _ = batch.command("HGET");
            let _ = batch.arg(keys::agent(agent)).arg("status");
            let _ = batch.command("HGETALL");
            let _ = batch.arg(keys::instances(agent));
            let _ = batch.command("XLEN");
            let _ = batch.arg(keys::inbox(agent));
            let _ = batch.command("MEMORY");
            let _ = batch.arg("USAGE").arg(keys::inbox(agent)).arg("SAMPLES").arg(0);
            let _ = batch.command("XPENDING");
            let _ = batch.arg(keys::inbox(agent)).arg(keys::GROUP);
            let _ = batch.command("HGET");
            let _ = batch.arg(keys::circuit(agent)).arg("since_ms");
        }
        let mut found = connection.run(&mut batch)?.into_iter();
        for agent in page {
            let mut next = || found.next().unwrap_or_default();
            let (status, instances, queued) = (next(), next(), next());
            let (bytes, pending, circuit) = (next(), next(), next());
            views.push(AgentView {
                agent: (*agent).clone(),
                status: text(&status).unwrap_or_default().to_owned(),
                instances,
                queued: answers::int(&queued).unwrap_or(0),
                bytes: if bytes == Value::Nil { Some(0) } else { answers::int(&bytes) },
                pending: delivered(&pending),
                circuit_open_ms: answers::int(&circuit),
            });
        }
    }
    Ok(views)
}

/// An agent's state; a transaction that follows on this connection is refused if it changes.
pub fn watch_state(connection: &mut Connection, agent: &AgentId) -> Result<StateView, StoreError> {
    let (state, version) = (keys::state(agent), keys::state_version(agent));
    let mut batch = Batch::new();
    let _ = batch.command("WATCH");
    let _ = batch.arg(&state).arg(&version).arg(keys::state_tag(agent));
    let whole = states::ask_whole(&mut batch, agent);
    let ttl = batch.ask("PTTL", |answer| answers::int(&answer));
    let _ = batch.arg(&state);
    let mut answers = Answers::new(connection.run(&mut batch)?);
    let unread =
        || StoreError::Unexpected { command: "reading a state", answer: "no answer of a script".to_owned() };
    let Stored { mut fields, version, tag } = answers.take(whole).ok_or_else(unread)?;
    fields.sort();
    // Negative where there is no state, or no end.
    Ok(StateView { fields, version, ttl_ms: answers.take(ttl), tag })
}

/// Adds what sets fields of a state, and its version and tag after that.
pub fn set_state(
    batch: &mut Batch,
    agent: &AgentId,
    fields: &[(String, String)],
    (version, tag): (u64, &str),
) {
    if !fields.is_empty() {
        let _ = batch.command("HSET");
        let _ = batch.arg(keys::state(agent));
        for (field, value) in fields {
            let _ = batch.arg(field).arg(value);
        }
    }
    next_version(batch, agent, version, tag);
}

/// Adds what removes a state, and its version and tag after that.
pub fn reset_state(batch: &mut Batch, agent: &AgentId, (version, tag): (u64, &str)) {
    let _ = batch.command("DEL");
    let _ = batch.arg(keys::state(agent));
    next_version(batch, agent, version, tag);
}

fn next_version(batch: &mut Batch, agent: &AgentId, version: u64, tag: &str) {
    let _ = batch.command("SET");
    states::tag_arguments(batch, agent, tag);
    // Not counted up: it is watched, and what was there may be no number.
    let _ = batch.command("SET");
    let _ = batch.arg(keys::state_version(agent)).arg(version);
}
