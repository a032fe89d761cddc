//! Who has which instance, as the store says: what several servers on one Redis agree by. Each instance
//! has at most one owner; the key that says so is watched while it is changed.

use std::collections::{HashMap, HashSet};

use crate::ids::{AgentId, InstanceId, ServerId};
use crate::store::{Value, answers};

/// Before the id of a server in an instance's entry.
const SERVER_PREFIX: &str = "s:";

/// What an instance's entry says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// It has a session on this server, if that still lives.
    Server(ServerId),
    /// It has none.
    Nobody,
}

/// The entry of an instance that has a session on `server`.
pub(super) fn owned_by(server: &ServerId) -> String {
    format!("{SERVER_PREFIX}{server}")
}

/// Reads an agent's instances.
pub(crate) fn instances(value: &Value) -> Vec<(InstanceId, Owner)> {
    let pairs = answers::pairs(value.clone()).unwrap_or_default();
    let entry = |(name, value): (String, String)| {
        let owner = match value.strip_prefix(SERVER_PREFIX).and_then(ServerId::parse) {
            Some(server) => Owner::Server(server),
            None => Owner::Nobody,
        };
        Some((InstanceId::parse(&name)?, owner))
    };
    pairs.into_iter().filter_map(entry).collect()
}

/// Agents' instances and the servers that live, read and watched for one round.
#[derive(Debug, Default)]
pub(super) struct Presence {
    pub instances: HashMap<AgentId, Vec<(InstanceId, Owner)>>,
    pub servers: HashSet<ServerId>,
}

impl Presence {
    fn is_live_elsewhere(&self, owner: &Owner, own: &ServerId) -> bool {
        matches!(owner, Owner::Server(server) if server != own && self.servers.contains(server))
    }

    /// Whether a server other than `own` has this instance.
    pub(super) fn elsewhere(&self, agent: &AgentId, instance: &InstanceId, own: &ServerId) -> bool {
        let mut known = self.instances.get(agent).into_iter().flatten();
        known.any(|(name, owner)| name == instance && self.is_live_elsewhere(owner, own))
    }

    /// Whether a server other than `own` has any instance of the agent.
    pub(super) fn any_elsewhere(&self, agent: &AgentId, own: &ServerId) -> bool {
        let mut known = self.instances.get(agent).into_iter().flatten();
        known.any(|(_, owner)| self.is_live_elsewhere(owner, own))
    }

    /// Whether this instance's entry names this server.
    pub(super) fn is_owned_by(&self, agent: &AgentId, instance: &InstanceId, server: &ServerId) -> bool {
        let mut known = self.instances.get(agent).into_iter().flatten();
        known.any(|(name, owner)| name == instance && matches!(owner, Owner::Server(on) if on == server))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_counts_as_long_as_its_server_lives() {
        let (own, other) = (ServerId::new(), ServerId::new());
        let (agent, instance) = (AgentId::parse("a").unwrap(), InstanceId::parse("i").unwrap());
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let stored = Value::Array(vec![bulk("i"), bulk(&owned_by(&other)), bulk("j"), bulk("17")]);
        let known = instances(&stored);
        assert_eq!(known.iter().map(|(_, owner)| owner).filter(|o| **o == Owner::Nobody).count(), 1);
        let mut presence = Presence::default();
        let _ = presence.instances.insert(agent.clone(), known);
        assert!(!presence.elsewhere(&agent, &instance, &own));
        let _ = presence.servers.insert(other.clone());
        assert!(presence.elsewhere(&agent, &instance, &own));
        assert!(presence.any_elsewhere(&agent, &own));
        assert!(!presence.elsewhere(&agent, &instance, &other));
        assert!(presence.is_owned_by(&agent, &instance, &other));
    }
}
