//! Facts of Redis that the decisions of one round depend on: read before, watched, and true until the round commits.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::ids::{AgentId, AgentMap, CorrelationId, InstanceId, ServerId};
use crate::shard::desk::job::Post;
use crate::shard::inbox::entry::EntryKey;
use crate::store::essential::OwnerGuard;
use crate::store::owners::Owner;

/// An unanswered request, as stored under its correlation id.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct PendingRequest {
    /// Who asked.
    pub sender_id: String,
    /// Which instance asked.
    pub sender_instance_id: String,
    /// Who was asked.
    pub target_id: String,
    /// The asking message.
    pub message_id: String,
}

/// What decisions of one round depend on.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// Unanswered requests that replies of this round name, and how long they still live (milliseconds).
    pub pending: HashMap<CorrelationId, Option<(PendingRequest, u64)>>,
    /// States that are changed in this round.
    pub states: AgentMap<StateFact>,
    /// Messages sent before with the idempotency keys of this round, by sender and key.
    pub remembered: HashMap<(AgentId, String), Option<Remembered>>,
    /// Lengths of other workers' inboxes that commits of this round send to.
    pub lengths: AgentMap<u64>,
    /// The consumers that hold entries which commits of this round acknowledge, where memory is not certain.
    pub holders: HashMap<(AgentId, EntryKey), Option<String>>,
    /// The servers of the instances whose sessions open or end.
    pub presence: Presence,
    /// Targets whose next trial another server makes.
    pub trials_elsewhere: HashSet<AgentId>,
}

/// A state as it is before a change.
#[derive(Debug, Clone, Default)]
pub(crate) struct StateFact {
    /// Sizes of its fields.
    pub sizes: HashMap<String, usize>,
    /// Its fields' names and values together, in bytes.
    pub bytes: usize,
    /// How often it was changed.
    pub version: u64,
}

impl StateFact {
    /// A state with fields of these sizes.
    pub(crate) fn new(sizes: HashMap<String, usize>, version: u64) -> Self {
        let bytes = sizes.iter().map(|(field, size)| field.len() + size).sum();
        Self { sizes, bytes, version }
    }

    /// How many fields and bytes it has after these updates, each of another field.
    pub(super) fn after(&self, updates: &[(String, String)]) -> (usize, usize) {
        let (mut fields, mut bytes) = (self.sizes.len(), self.bytes);
        for (field, value) in updates {
            match self.sizes.get(field) {
                Some(before) => bytes = bytes - before + value.len(),
                None => {
                    fields += 1;
                    bytes += field.len() + value.len();
                }
            }
        }
        (fields, bytes)
    }

    /// Updates its fields.
    pub(super) fn update(&mut self, updates: &[(String, String)]) {
        self.bytes = self.after(updates).1;
        for (field, value) in updates {
            let _ = self.sizes.insert(field.clone(), value.len());
        }
        self.version += 1;
    }
}

/// Agents' instances and the servers that live.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    pub instances: HashMap<AgentId, Vec<(InstanceId, Owner)>>,
    pub servers: HashSet<ServerId>,
}

impl Presence {
    fn owners<'a>(&'a self, agent: &AgentId, instance: &'a InstanceId) -> impl Iterator<Item = &'a Owner> {
        let known = self.instances.get(agent).into_iter().flatten();
        known.filter(move |(name, _)| name == instance).map(|(_, owner)| owner)
    }

    fn is_live_elsewhere(&self, owner: &Owner, own: &ServerId) -> bool {
        matches!(owner, Owner::Server(server) if server != own && self.servers.contains(server))
    }

    /// Whether a server other than `own` has this instance.
    pub(crate) fn elsewhere(&self, agent: &AgentId, instance: &InstanceId, own: &ServerId) -> bool {
        self.owners(agent, instance).any(|owner| self.is_live_elsewhere(owner, own))
    }

    /// Whether a server other than `own` has any instance of the agent.
    pub(crate) fn any_elsewhere(&self, agent: &AgentId, own: &ServerId) -> bool {
        let mut known = self.instances.get(agent).into_iter().flatten();
        known.any(|(_, owner)| self.is_live_elsewhere(owner, own))
    }

    /// Guards of a transaction that watches nothing: what was read of instances, and that those among `named` that were
    /// not there have no server.
    pub(crate) fn guards<'n>(
        &self,
        named: impl Iterator<Item = (&'n AgentId, &'n InstanceId)>,
    ) -> Vec<OwnerGuard> {
        let guard = |agent: &AgentId, instance: &InstanceId, owner: Owner| OwnerGuard {
            agent: agent.clone(),
            instance: instance.clone(),
            owner,
        };
        let mut guards = Vec::new();
        for (agent, known) in &self.instances {
            guards.extend(known.iter().map(|(instance, owner)| guard(agent, instance, owner.clone())));
        }
        let absent = named.filter(|(agent, instance)| self.owners(agent, instance).next().is_none());
        guards.extend(absent.map(|(agent, instance)| guard(agent, instance, Owner::Nobody)));
        guards
    }

    /// Whether this instance's entry names this server.
    pub(crate) fn is_owned_by(&self, agent: &AgentId, instance: &InstanceId, server: &ServerId) -> bool {
        self.owners(agent, instance).any(|owner| matches!(owner, Owner::Server(on) if on == server))
    }
}

/// A message that was accepted under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub message_id: Uuid,
    pub correlation_id: Option<CorrelationId>,
    /// What was sent: the same key with another message is a mistake.
    pub digest: [u8; 32],
}

impl Remembered {
    pub(super) fn to_text(&self) -> String {
        let correlation = self.correlation_id.map(|id| id.to_string()).unwrap_or_default();
        format!("{} {correlation} {}", self.message_id.simple(), crate::ids::hex(&self.digest))
    }

    /// Reads it back; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let message_id = Uuid::parse_str(words.next()?).ok()?;
        let correlation_id = match words.next()? {
            "" => None,
            id => Some(CorrelationId::parse(id)?),
        };
        let digest = words.next()?;
        // Compared as text would do too; bytes are half as long.
        let bytes: Option<Vec<u8>> = (0..digest.len() / 2)
            .map(|at| u8::from_str_radix(digest.get(at * 2..at * 2 + 2)?, 16).ok())
            .collect();
        Some(Self { message_id, correlation_id, digest: bytes?.try_into().ok()? })
    }

    pub(super) fn digest_of(post: &Post) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&post.target, &post.message_type, &post.data_json] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        digest.update([u8::from(post.request_ttl_s.is_some())]);
        digest.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envelope::new_message_id;

    #[test]
    fn an_owner_counts_as_long_as_its_server_lives() {
        let (own, other) = (ServerId::new(), ServerId::new());
        let (agent, instance) = (AgentId::parse("a").unwrap(), InstanceId::parse("i").unwrap());
        let mut presence = Presence::default();
        let known = vec![(instance.clone(), Owner::Server(other.clone()))];
        let _ = presence.instances.insert(agent.clone(), known);
        assert!(!presence.elsewhere(&agent, &instance, &own));
        let _ = presence.servers.insert(other.clone());
        assert!(presence.elsewhere(&agent, &instance, &own));
        assert!(presence.any_elsewhere(&agent, &own));
        assert!(!presence.elsewhere(&agent, &instance, &other));
        assert!(presence.is_owned_by(&agent, &instance, &other));
    }

    #[test]
    fn what_is_remembered_reads_back() {
        let agent = AgentId::parse("a").unwrap();
        for correlation_id in [None, Some(CorrelationId::new(&agent))] {
            let post = Post { data_json: "{}".to_owned(), ..Post::default() };
            let digest = Remembered::digest_of(&post);
            let remembered = Remembered { message_id: new_message_id(), correlation_id, digest };
            assert_eq!(Remembered::parse(&remembered.to_text()), Some(remembered));
        }
        assert_eq!(Remembered::parse("x"), None);
        assert_eq!(Remembered::parse(""), None);
    }
}
