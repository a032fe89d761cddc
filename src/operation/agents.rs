//! The agents of the configuration, as Redis knows them: where their instances are, and what waits for them.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::acting;
use super::outcome::{Done, Say, Trouble};
use crate::config::Config;
use crate::ids::{AgentId, ServerId};
use crate::store::overview::{self, AgentView};
use crate::store::owners::{self, Owner};

/// Says one line for each agent; without names, for all of the configuration.
pub(super) fn list(config: &Config, names: &[String], say: Say<'_>) -> Result<Done, Trouble> {
    if let Some(name) = names.iter().find(|name| !config.agents.contains_key(name.as_str())) {
        return Err(Trouble::Usage(format!("{name:?} is not in `agents`")));
    }
    let wanted = |agent: &&AgentId| names.is_empty() || names.iter().any(|name| name == agent.as_str());
    let mut connection = acting::connect(config)?;
    let servers = overview::servers(&mut connection)?;
    for view in overview::agents(&mut connection, config.agents.keys().filter(wanted))? {
        say(line(&view, &servers))?;
    }
    Ok(Done::default())
}

fn line(view: &AgentView, servers: &BTreeSet<ServerId>) -> Json {
    let mut known = owners::instances(view.instances.clone());
    known.sort_by(|(a, _), (b, _)| a.cmp(b));
    let instances: Vec<Json> = known
        .into_iter()
        .map(|(instance, owner)| {
            let (server, connected) = match &owner {
                Owner::Server(server) => (Some(server.as_str()), servers.contains(server)),
                Owner::Nobody => (None, false),
            };
            json!({"instance_id": instance.as_str(), "server": server, "connected": connected})
        })
        .collect();
    json!({
        "agent_id": view.agent.as_str(),
        "status": view.status,
        "queued": view.queued,
        "bytes": view.bytes,
        "unacked": view.pending,
        "circuit": if view.circuit_open_ms.is_some() { "open" } else { "closed" },
        "circuit_since_ms": view.circuit_open_ms,
        "instances": instances,
    })
}
