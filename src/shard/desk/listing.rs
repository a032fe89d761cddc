//! What Discover is answered from: a snapshot of the agents that are connected, and for each caller those that the rules let
//! it message. Both are worked out once, so a discovery costs what it answers.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use super::directory::Directory;
use super::outcome::Discovered;
use crate::ids::{AgentId, AgentMap};
use crate::policy::Policy;

/// What an agent costs a discovery beside what is told of it.
const LISTED_BYTES: usize = 32;

/// The agents of one configuration, as others see them.
pub struct Listing {
    /// Sorted by name.
    shown: Vec<Arc<Discovered>>,
    places: AgentMap<usize>,
    /// By caller: those that it may message, a bit for each place; worked out when it first asks.
    reach: Vec<OnceLock<Box<[u64]>>>,
    /// Bytes of an answer that tells of all.
    bytes: usize,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("agents", &self.shown.len()).finish_non_exhaustive()
    }
}

impl Listing {
    /// Of the agents of a policy.
    pub fn new(policy: &Policy) -> Self {
        let show = |card: &crate::policy::Card| {
            Arc::new(Discovered {
                agent: card.id.clone(),
                capabilities: card.capabilities.clone(),
                metadata_json: card.metadata_json.clone(),
            })
        };
        let mut shown: Vec<Arc<Discovered>> = policy.agents().map(show).collect();
        shown.sort_by(|a, b| a.agent.cmp(&b.agent));
        Self {
            bytes: shown.iter().map(|agent| agent.bytes() + LISTED_BYTES).sum(),
            places: shown.iter().enumerate().map(|(place, agent)| (agent.agent.clone(), place)).collect(),
            reach: shown.iter().map(|_| OnceLock::new()).collect(),
            shown,
        }
    }

    /// Bytes of an answer that tells of all agents.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Those that `caller` may message: a bit for each place.
    fn reach(&self, policy: &Policy, caller: &AgentId) -> &[u64] {
        let Some(reach) = self.places.get(caller).and_then(|place| self.reach.get(*place)) else {
            return &[];
        };
        reach.get_or_init(|| {
            let may = |other: &Arc<Discovered>| u64::from(policy.may_message(caller, &other.agent));
            let word = |agents: &[Arc<Discovered>]| {
                agents.iter().rev().fold(0, |word, other| word << 1 | may(other))
            };
            self.shown.chunks(64).map(word).collect()
        })
    }

    /// Those of `connected` that `caller` may message and that offer one of `capabilities`; of no capabilities: all.
    pub fn find(
        &self,
        policy: &Policy,
        caller: &AgentId,
        capabilities: &[String],
        connected: &Connected,
    ) -> Vec<Arc<Discovered>> {
        let words = self.reach(policy, caller).iter().zip(&connected.bits).map(|(may, is)| may & is);
        let agents = self.shown.chunks(64).zip(words).flat_map(|(agents, word)| {
            agents.iter().enumerate().filter(move |(at, _)| word >> at & 1 == 1).map(|(_, agent)| agent)
        });
        let offers = |agent: &&Arc<Discovered>| {
            capabilities.is_empty() || agent.capabilities.iter().any(|offered| capabilities.contains(offered))
        };
        agents.filter(offers).cloned().collect()
    }

    fn connected(&self, directory: &Directory) -> Connected {
        let change = directory.change();
        let mut bits = vec![0_u64; self.shown.len().div_ceil(64)];
        directory.each_active(|agent| {
            let place = self.places.get(agent).copied();
            if let Some(word) = place.and_then(|place| bits.get_mut(place / 64)) {
                *word |= 1 << (place.unwrap_or(0) % 64);
            }
        });
        Connected { change, bits }
    }
}

/// Which agents of a listing are connected, to any server.
#[derive(Debug)]
pub struct Connected {
    /// The directory's change that it has seen.
    change: u64,
    /// A bit for each place.
    bits: Vec<u64>,
}

/// The newest snapshot, for all workers.
#[derive(Debug, Default)]
pub struct Snapshot(RwLock<Option<(Arc<Listing>, Arc<Connected>)>>);

impl Snapshot {
    /// Who of `listing` is connected now: what was found last, unless sessions have opened or ended since.
    pub fn connected(&self, listing: &Arc<Listing>, directory: &Directory) -> Arc<Connected> {
        let is_newest = |(of, connected): &&(Arc<Listing>, Arc<Connected>)| {
            Arc::ptr_eq(of, listing) && connected.change == directory.change()
        };
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, connected)) = known.as_ref().filter(is_newest) {
            return connected.clone();
        }
        drop(known);
        let connected = Arc::new(listing.connected(directory));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((listing.clone(), connected.clone()));
        connected
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::ids::{InstanceId, ServerId};
    use crate::shard::desk::settings::Settings;

    const AGENTS: [&str; 4] = ["a", "b", "c", "d"];

    fn settings() -> Settings {
        let text = "tls_ca_path: c\ntls_server_cert_path: s\ntls_server_key_path: k\n\
            permissions: [{type: allow, sender: a, targets: [b, c]}, {type: allow, sender: b, targets: [a, b, d]}]\n\
            agents: [{agent_id: d}, {agent_id: c, capabilities: [x]}, {agent_id: b, capabilities: [x, y]}, {agent_id: a}]\n";
        Settings::new(&Config::parse(Path::new("/mas.yaml"), text).unwrap(), None)
    }

    #[derive(Debug, Clone)]
    enum Change {
        Insert(usize, usize),
        Remove(usize, usize),
        InsertElsewhere(usize, usize),
        RemoveElsewhere(usize, usize),
        RemoveServer,
    }

    fn change() -> impl Strategy<Value = Change> {
        let (agent, instance) = (0..AGENTS.len(), 0..2_usize);
        prop_oneof![
            (agent.clone(), instance.clone()).prop_map(|(a, i)| Change::Insert(a, i)),
            (agent.clone(), instance.clone()).prop_map(|(a, i)| Change::Remove(a, i)),
            (agent.clone(), instance.clone()).prop_map(|(a, i)| Change::InsertElsewhere(a, i)),
            (agent, instance).prop_map(|(a, i)| Change::RemoveElsewhere(a, i)),
            Just(Change::RemoveServer),
        ]
    }

    proptest! {
        #[test]
        fn a_snapshot_says_what_the_directory_and_the_rules_say(changes in prop::collection::vec(change(), 0..40)) {
            let (settings, directory, snapshot) = (settings(), Directory::default(), Snapshot::default());
            let other = ServerId::new();
            let agent = |at: usize| AgentId::parse(AGENTS[at]).unwrap();
            let instance = |at: usize| InstanceId::parse(["i", "j"][at]).unwrap();
            for change in changes {
                match change {
                    Change::Insert(a, i) => directory.insert(&agent(a), &instance(i)),
                    Change::Remove(a, i) => directory.remove(&agent(a), &instance(i)),
                    Change::InsertElsewhere(a, i) => directory.insert_elsewhere(&agent(a), &instance(i), &other),
                    Change::RemoveElsewhere(a, i) => directory.remove_elsewhere(&agent(a), &instance(i), &other),
                    Change::RemoveServer => drop(directory.remove_server(&other)),
                }
                let connected = snapshot.connected(&settings.listing, &directory);
                for caller in AGENTS {
                    for wanted in [&[][..], &["x".to_owned()][..], &["y".to_owned(), "z".to_owned()][..]] {
                        let caller = AgentId::parse(caller).unwrap();
                        let found = settings.listing.find(&settings.policy, &caller, wanted, &connected);
                        let found: Vec<&str> = found.iter().map(|agent| agent.agent.as_str()).collect();
                        let mut expected: Vec<&str> = settings.policy.agents()
                            .filter(|card| directory.is_active(&card.id) && settings.policy.may_message(&caller, &card.id))
                            .filter(|card| wanted.is_empty() || card.capabilities.iter().any(|c| wanted.contains(c)))
                            .map(|card| card.id.as_str())
                            .collect();
                        expected.sort_unstable();
                        prop_assert_eq!(found, expected);
                    }
                }
            }
        }
    }

    #[test]
    fn whoever_is_not_listed_finds_nobody() {
        let (settings, directory) = (settings(), Directory::default());
        directory.insert(&AgentId::parse("b").unwrap(), &InstanceId::parse("i").unwrap());
        let connected = Snapshot::default().connected(&settings.listing, &directory);
        let stranger = AgentId::parse("stranger").unwrap();
        assert!(settings.listing.find(&settings.policy, &stranger, &[], &connected).is_empty());
    }
}
