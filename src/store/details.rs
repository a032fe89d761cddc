//! What Redis says of agents beside their inboxes, for an operator: circuits, states, instances, dead letters.

use std::collections::BTreeMap;

use redis::Value;

use super::answers::{self, text};
use super::connection::{Batch, Connection, StoreError};
use super::keys;
use crate::ids::AgentId;

/// Agents looked up in one round trip.
const PAGE: usize = 256;
/// Largest stream of dead letters that is counted by agent, in bytes: Redis does nothing else meanwhile.
const MAX_COUNTED_BYTES: u64 = 4 * 1024 * 1024;

/// Counts dead letters by agent, where they do not take too much.
const COUNT: &str = "local used = redis.call('MEMORY', 'USAGE', KEYS[1], 'SAMPLES', 0)
if not used then return {} end
if used > tonumber(ARGV[1]) then return false end
local counts, out = {}, {}
for _, e in ipairs(redis.call('XRANGE', KEYS[1], '-', '+')) do
  for i = 1, #e[2], 2 do
    if e[2][i] == 'agent_id' then counts[e[2][i + 1]] = (counts[e[2][i + 1]] or 0) + 1 end
  end
end
for agent, count in pairs(counts) do out[#out + 1] = agent; out[#out + 1] = string.format('%d', count) end
return out";

/// What Redis says of one agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detail {
    /// When its circuit opened (Unix milliseconds), if it is not closed.
    pub circuit_since_ms: Option<u64>,
    /// Fields of its state.
    pub state_fields: u64,
    /// What its state takes in Redis, in bytes.
    pub state_bytes: u64,
    /// How often its state has changed.
    pub state_version: u64,
    /// How long its state is kept yet, in milliseconds; `None`: for good.
    pub state_ttl_ms: Option<u64>,
}

/// An instance that has, or had, an inbox of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// The server that it is connected to.
    pub server: Option<String>,
    /// When it left (Unix milliseconds).
    pub left_ms: Option<u64>,
}

/// Looks agents up, in order.
pub fn details<'a>(
    connection: &mut Connection,
    agents: impl Iterator<Item = &'a AgentId>,
) -> Result<Vec<Detail>, StoreError> {
    let agents: Vec<&AgentId> = agents.collect();
    let mut found = Vec::with_capacity(agents.len());
    let mut batch = Batch::new();
    for page in agents.chunks(PAGE) {
        for agent in page {
            let _ = batch.command("HGET");
            let _ = batch.arg(keys::circuit(agent)).arg("since_ms");
            let _ = batch.command("HLEN");
            let _ = batch.arg(keys::state(agent));
            let _ = batch.command("MEMORY");
            let _ = batch.arg("USAGE").arg(keys::state(agent)).arg("SAMPLES").arg(0);
            let _ = batch.command("GET");
            let _ = batch.arg(keys::state_version(agent));
            let _ = batch.command("PTTL");
            let _ = batch.arg(keys::state(agent));
        }
        let mut answers = connection.run(&mut batch)?.into_iter().map(|answer| answers::int(&answer));
        for _ in page {
            let mut next = || answers.next().flatten();
            found.push(Detail {
                circuit_since_ms: next(),
                state_fields: next().unwrap_or(0),
                state_bytes: next().unwrap_or(0),
                state_version: next().unwrap_or(0),
                // Negative where there is no state, or no end.
                state_ttl_ms: next(),
            });
        }
    }
    Ok(found)
}

/// How many dead letters each agent has; `None`: they are too many to be counted by agent.
pub fn dead_letters(connection: &mut Connection) -> Result<Option<BTreeMap<String, u64>>, StoreError> {
    let most = MAX_COUNTED_BYTES.to_string();
    match connection.command("EVAL", &[COUNT, "1", keys::DEAD_LETTERS, &most])? {
        Value::Array(counts) => {
            let (pairs, _) = counts.as_chunks::<2>();
            let pair = |[agent, count]: &[Value; 2]| Some((text(agent)?.to_owned(), answers::int(count)?));
            Ok(Some(pairs.iter().filter_map(pair).collect()))
        }
        _ => Ok(None),
    }
}

/// The instances of an agent, by id; at most `most`, and whether there are more.
pub fn instances(
    connection: &mut Connection,
    agent: &AgentId,
    most: usize,
) -> Result<(Vec<Instance>, bool), StoreError> {
    let stored = answers::pairs(connection.command("HGETALL", &[&keys::instances(agent)])?);
    let mut stored = stored.unwrap_or_default();
    stored.sort();
    let cut = stored.len() > most;
    let instance = |(id, state): (String, String)| Instance {
        id,
        server: state.strip_prefix("s:").map(str::to_owned),
        left_ms: state.parse().ok(),
    };
    Ok((stored.into_iter().take(most).map(instance).collect(), cut))
}
