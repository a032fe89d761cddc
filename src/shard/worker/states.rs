//! What is known of states that were changed before, so that a change does not read the whole state again.

use std::collections::HashSet;

use crate::audit::attest::NotOurs;
use crate::ids::{AgentId, AgentMap};
use crate::shard::txn::facts::StateFact;

/// Bytes of field names that are kept.
const MAX_NAME_BYTES: usize = 4 * 1024 * 1024;
/// What a field takes here beside its name, in bytes.
const FIELD_BYTES: usize = 64;

/// States as they were after their last change. Redis says whether that is still so: by their versions and numbers of
/// fields.
#[derive(Debug, Default)]
pub(super) struct States {
    known: AgentMap<StateFact>,
    bytes: usize,
    /// Agents whose states somebody else has changed, and that is on record.
    foreign: HashSet<AgentId>,
}

fn name_bytes(state: &StateFact) -> usize {
    state.fields.keys().map(|field| field.len() + FIELD_BYTES).sum()
}

impl States {
    /// Whether something is known of an agent's state.
    pub(super) fn knows(&self, agent: &AgentId) -> bool {
        self.known.contains_key(agent)
    }

    /// Takes what is known, if it has that version and so many fields.
    pub(super) fn take(&mut self, agent: &AgentId, version: u64, fields: u64) -> Option<StateFact> {
        let state = self.known.remove(agent)?;
        self.bytes -= name_bytes(&state);
        (state.version == version && state.fields.len() as u64 == fields).then_some(state)
    }

    /// A state is what servers have stored.
    pub(super) fn is_ours_again(&mut self, agent: &AgentId) {
        let _ = self.foreign.remove(agent);
    }

    /// Whether it is not on record yet that somebody else has changed this state.
    pub(super) fn is_newly_foreign(&self, agent: &AgentId) -> bool {
        !self.foreign.contains(agent)
    }

    /// It is on record that somebody else has changed this state.
    pub(super) fn note_foreign(&mut self, agent: &AgentId) {
        let _ = self.foreign.insert(agent.clone());
        if let Some(state) = self.known.remove(agent) {
            self.bytes -= name_bytes(&state);
        }
    }

    /// Keeps states as they are after a commit.
    pub(super) fn keep(&mut self, states: AgentMap<StateFact>) {
        for (agent, state) in states {
            let bytes = name_bytes(&state);
            if let Some(why) = state.not_ours {
                // It was not changed after all. That it is foreign is on record now.
                if why == NotOurs::Foreign {
                    let _ = self.foreign.insert(agent);
                }
                continue;
            }
            let _ = self.foreign.remove(&agent);
            if bytes > MAX_NAME_BYTES {
                continue;
            }
            if let Some(before) = self.known.insert(agent.clone(), state) {
                self.bytes -= name_bytes(&before);
            }
            self.bytes += bytes;
            while self.bytes > MAX_NAME_BYTES {
                // Any other one.
                let Some(other) = self.known.keys().find(|known| **known != agent).cloned() else { break };
                if let Some(before) = self.known.remove(&other) {
                    self.bytes -= name_bytes(&before);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::StoreKeys;
    use crate::store::states::Stored;

    fn agent(n: usize) -> AgentId {
        AgentId::parse(&format!("a{n}")).unwrap()
    }

    fn state(version: u64, field: &str) -> StateFact {
        let keys = StoreKeys::new(&[[7; 32]], 1).unwrap();
        let (agent, fields) = (agent(1), vec![(field.to_owned(), "12345".to_owned())]);
        let tag = Some(Stored::next_tag(&keys, &agent, &fields, version, false));
        StateFact::new(&keys, &agent, &Stored { fields, version, tag })
    }

    fn of(n: usize, state: StateFact) -> AgentMap<StateFact> {
        [(agent(n), state)].into_iter().collect()
    }

    #[test]
    fn what_redis_does_not_confirm_is_forgotten() {
        let mut states = States::default();
        states.keep(of(1, state(3, "x")));
        assert!(states.knows(&agent(1)) && !states.knows(&agent(2)));
        assert!(states.take(&agent(1), 4, 1).is_none());
        assert!(!states.knows(&agent(1)));
        states.keep(of(1, state(3, "x")));
        assert!(states.take(&agent(1), 3, 0).is_none(), "it has run out");
        states.keep(of(1, state(3, "x")));
        states.keep(of(1, state(4, "x")));
        assert_eq!(states.take(&agent(1), 4, 1).map(|state| state.bytes), Some(6));
        assert_eq!(states.bytes, 0);
    }

    #[test]
    fn it_does_not_grow_without_a_bound() {
        let mut states = States::default();
        let long = "x".repeat(1024 * 1024);
        for n in 0..50 {
            states.keep(of(n, state(1, &long)));
            assert!(states.bytes <= MAX_NAME_BYTES);
        }
        assert!(states.knows(&agent(49)));
        states.keep(of(50, state(1, &"x".repeat(MAX_NAME_BYTES))));
        assert!(!states.knows(&agent(50)));
    }
}
