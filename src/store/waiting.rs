//! Since when inboxes hold what they hold: for an operator, looked up, never cached.

use redis::Value;

use super::answers;
use super::connection::{Batch, Connection, StoreError};
use super::keys;
use crate::ids::AgentId;

/// Inboxes looked at in one round trip.
const PAGE: usize = 256;

/// When the oldest entry of each shared inbox was added (Unix milliseconds, by Redis' clock), in order; `None`: it is empty.
pub fn oldest_ms<'a>(
    connection: &mut Connection,
    agents: impl Iterator<Item = &'a AgentId>,
) -> Result<Vec<Option<u64>>, StoreError> {
    let agents: Vec<&AgentId> = agents.collect();
    let mut found = Vec::with_capacity(agents.len());
    let mut batch = Batch::new();
    for page in agents.chunks(PAGE) {
        for agent in page {
            let _ = batch.command("XRANGE");
            let _ = batch.arg(keys::inbox(agent)).arg("-").arg("+").arg("COUNT").arg(1);
        }
        found.extend(connection.run(&mut batch)?.into_iter().map(first_ms));
    }
    Ok(found)
}

fn first_ms(answer: Value) -> Option<u64> {
    match answer {
        Value::Array(entries) => Some(answers::entry(entries.into_iter().next()?)?.0.ms),
        _ => None,
    }
}
