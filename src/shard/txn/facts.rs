//! Facts of Redis that the decisions of one round depend on: read before, watched, and true until the round commits.

use std::collections::{HashMap, HashSet};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::audit::StoreKeys;
use crate::audit::attest::{KeyId, NotOurs};
use crate::ids::{AgentId, AgentMap, CorrelationId, InstanceId, ServerId, unhex};
use crate::shard::desk::job::Post;
use crate::shard::inbox::entry::EntryKey;
use crate::store::attested::{self, Foreign};
use crate::store::essential::OwnerGuard;
use crate::store::owners::Owner;
use crate::store::states::{self, Outline, Stored, Sum};

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
    /// Made by the server that stored it.
    #[serde(default)]
    pub tag: String,
}

impl PendingRequest {
    /// What its tag speaks for.
    pub(crate) fn says(&self) -> [&str; 4] {
        [&self.sender_id, &self.sender_instance_id, &self.target_id, &self.message_id]
    }

    /// Reads what is stored under a correlation id; an error where no server has stored it.
    pub(crate) fn read(keys: &StoreKeys, id: &CorrelationId, bytes: &[u8]) -> Result<Self, NotOurs> {
        let request: Self = serde_json::from_slice(bytes).map_err(|_| NotOurs::Foreign)?;
        attested::check_request(keys, id, request.says(), &request.tag)?;
        Ok(request)
    }
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
    /// What was found in their places, and no server has stored.
    pub foreign: Vec<ForeignFact>,
    /// Something has a tag of a store key that is not known here: another server may know it.
    pub unreadable: bool,
}

impl Facts {
    /// What a server has stored. Anything else is no fact, and noted.
    pub(crate) fn ours<T>(
        &mut self,
        read: Option<Result<T, NotOurs>>,
        key: impl FnOnce() -> String,
        stored: Option<&[u8]>,
    ) -> Option<T> {
        match read? {
            Ok(fact) => Some(fact),
            Err(NotOurs::UnknownKey) => {
                self.unreadable = true;
                None
            }
            Err(NotOurs::Foreign) => {
                let bytes = stored.map(<[u8]>::to_vec).into_iter().collect();
                let found = Foreign { key: key(), entry: None, bytes };
                self.foreign.push(ForeignFact { agent: None, found, stays: false });
                None
            }
        }
    }
}

/// What was found in the place of a fact, and no server has stored.
#[derive(Debug)]
pub(crate) struct ForeignFact {
    /// Whose it would be, where that is known.
    pub agent: Option<AgentId>,
    pub found: Foreign,
    /// It is not removed.
    pub stays: bool,
}

/// What is known of a field without its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FieldFact {
    /// Its value's length in bytes.
    pub bytes: usize,
    /// Its part of the state's tag.
    digest: u128,
}

/// A state as it is before a change.
#[derive(Debug, Clone, Default)]
pub(crate) struct StateFact {
    /// Its fields.
    pub fields: HashMap<String, FieldFact>,
    /// Their names and values together, in bytes.
    pub bytes: usize,
    /// How often it was changed.
    pub version: u64,
    /// Somebody else has changed it, or taken it away; or its tag is of a key that is not known here.
    pub not_ours: Option<NotOurs>,
    /// Whether Redis may let it run out.
    temporary: bool,
    /// The sum of the fields' digests, and the key that they were made with.
    sum: Sum,
    key: KeyId,
}

impl StateFact {
    /// A state that was read; one that no server has stored is foreign.
    pub(crate) fn new(keys: &StoreKeys, agent: &AgentId, stored: &Stored) -> Self {
        let mut fact = Self { version: stored.version, key: keys.key_in_use(), ..Self::default() };
        match stored.check(keys, agent) {
            Ok(temporary) => fact.temporary = temporary,
            Err(why) => fact.not_ours = Some(why),
        }
        for (field, value) in &stored.fields {
            fact.put(keys, agent, field, value);
        }
        fact
    }

    fn put(&mut self, keys: &StoreKeys, agent: &AgentId, field: &str, value: &str) {
        let digest = states::field_digest(keys, self.key, agent, (field, value));
        self.sum.add(digest);
        self.bytes += value.len();
        match self.fields.insert(field.to_owned(), FieldFact { bytes: value.len(), digest }) {
            Some(before) => {
                self.sum.take(before.digest);
                self.bytes -= before.bytes;
            }
            None => self.bytes += field.len(),
        }
    }

    /// Whether its tag can be made anew from what is known.
    pub(crate) fn is_of(&self, keys: &StoreKeys) -> bool {
        self.key == keys.key_in_use()
    }

    /// How many fields and bytes it has after these updates, each of another field.
    pub(super) fn after(&self, updates: &[(String, String)]) -> (usize, usize) {
        let (mut fields, mut bytes) = (self.fields.len(), self.bytes);
        for (field, value) in updates {
            match self.fields.get(field) {
                Some(before) => bytes = bytes - before.bytes + value.len(),
                None => {
                    fields += 1;
                    bytes += field.len() + value.len();
                }
            }
        }
        (fields, bytes)
    }

    /// Updates its fields; its tag after that. `ends`: it gets a time to live.
    pub(super) fn update(
        &mut self,
        keys: &StoreKeys,
        agent: &AgentId,
        updates: &[(String, String)],
        ends: bool,
    ) -> String {
        // A time to live goes on with the state, and ends with it.
        self.temporary = ends || (self.temporary && !self.fields.is_empty());
        for (field, value) in updates {
            self.put(keys, agent, field, value);
        }
        self.version = self.version.saturating_add(1);
        self.tag(keys, agent)
    }

    /// Removes all of it; its tag after that.
    pub(super) fn reset(&mut self, keys: &StoreKeys, agent: &AgentId) -> String {
        *self = Self { version: self.version.saturating_add(1), key: keys.key_in_use(), ..Self::default() };
        self.tag(keys, agent)
    }

    fn tag(&self, keys: &StoreKeys, agent: &AgentId) -> String {
        let outline = Outline { version: self.version, temporary: self.temporary, fields: self.fields.len() };
        states::tag_text(keys, agent, outline, self.sum)
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
    /// As it is stored, with its tag.
    pub(super) fn to_text(&self, keys: &StoreKeys, sender: &AgentId, key: &str) -> String {
        let text = self.plain_text();
        let tag = attested::memory_tag(keys, sender, key, &text);
        format!("{text} {tag}")
    }

    /// Reads it back; an error where no server has stored it.
    pub(crate) fn read(keys: &StoreKeys, sender: &AgentId, key: &str, bytes: &[u8]) -> Result<Self, NotOurs> {
        let text = std::str::from_utf8(bytes).map_err(|_| NotOurs::Foreign)?;
        let (text, tag) = text.rsplit_once(' ').ok_or(NotOurs::Foreign)?;
        attested::check_memory(keys, sender, key, text, tag)?;
        Self::parse(text).ok_or(NotOurs::Foreign)
    }

    fn plain_text(&self) -> String {
        let correlation = self.correlation_id.map(|id| id.to_string()).unwrap_or_default();
        format!("{} {correlation} {}", self.message_id.simple(), crate::ids::hex(&self.digest))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let message_id = Uuid::parse_str(words.next()?).ok()?;
        let correlation_id = match words.next()? {
            "" => None,
            id => Some(CorrelationId::parse(id)?),
        };
        let digest = words.next()?;
        Some(Self { message_id, correlation_id, digest: unhex(digest)?.try_into().ok()? })
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
        let keys = StoreKeys::new(&[[7; 32]], 1).unwrap();
        let agent = AgentId::parse("a").unwrap();
        for correlation_id in [None, Some(CorrelationId::new(&agent))] {
            let post = Post { data_json: "{}".to_owned(), ..Post::default() };
            let digest = Remembered::digest_of(&post);
            let remembered = Remembered { message_id: new_message_id(), correlation_id, digest };
            let text = remembered.to_text(&keys, &agent, "k");
            let read = |key: &str, text: &str| Remembered::read(&keys, &agent, key, text.as_bytes());
            assert!(read("other", &text).is_err());
            assert!(read("k", &text.replace(' ', "  ")).is_err());
            assert_eq!(read("k", &text), Ok(remembered.clone()));
            assert!(read("k", &remembered.plain_text()).is_err());
        }
        for bad in ["x", ""] {
            assert!(Remembered::read(&keys, &agent, "k", bad.as_bytes()).is_err());
        }
    }
}
