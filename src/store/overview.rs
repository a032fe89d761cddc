//! What Redis says of agents and their state, for an operator: looked up, never cached.

use std::collections::BTreeSet;

use redis::Value;

use super::answers::{self, text};
use super::connection::{Batch, Connection, StoreError};
use super::keys;
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
}

/// The servers on this Redis.
pub fn servers(connection: &mut Connection) -> Result<BTreeSet<ServerId>, StoreError> {
    let listed = connection.command("HKEYS", &[keys::SERVERS])?;
    let Value::Array(ids) = &listed else {
        return Err(StoreError::Unexpected { command: "HKEYS", answer: format!("{listed:?}") });
    };
    Ok(ids.iter().filter_map(text).filter_map(ServerId::parse).collect())
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
                pending: match &pending {
                    Value::Array(summary) => summary.first().and_then(answers::int).unwrap_or(0),
                    // No stream or no group yet: nothing is delivered.
                    _ => 0,
                },
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
    let _ = batch.arg(&state).arg(&version);
    let _ = batch.command("HGETALL");
    let _ = batch.arg(&state);
    let _ = batch.command("GET");
    let _ = batch.arg(&version);
    let _ = batch.command("PTTL");
    let _ = batch.arg(&state);
    let answers = connection.run(&mut batch)?;
    let [_, fields, version, ttl] = answers.as_slice() else {
        return Err(StoreError::Unexpected { command: "reading a state", answer: format!("{answers:?}") });
    };
    let Some(mut fields) = answers::pairs(fields.clone()) else {
        return Err(StoreError::Unexpected { command: "HGETALL", answer: format!("{fields:?}") });
    };
    fields.sort();
    // Negative where there is no state, or no end.
    Ok(StateView { fields, version: answers::int(version).unwrap_or(0), ttl_ms: answers::int(ttl) })
}

/// Adds what sets fields of a state. The new version is its last answer.
pub fn set_state(batch: &mut Batch, agent: &AgentId, fields: &[(String, String)]) {
    let _ = batch.command("HSET");
    let _ = batch.arg(keys::state(agent));
    for (field, value) in fields {
        let _ = batch.arg(field).arg(value);
    }
    let _ = batch.command("INCR");
    let _ = batch.arg(keys::state_version(agent));
}

/// Adds what removes a state. The new version is its last answer.
pub fn reset_state(batch: &mut Batch, agent: &AgentId) {
    let _ = batch.command("DEL");
    let _ = batch.arg(keys::state(agent));
    let _ = batch.command("INCR");
    let _ = batch.arg(keys::state_version(agent));
}
