//! An agent's state: read, changed, reset.

use super::transaction::{Ruling, StateRead, Success, Transaction};
use crate::audit::attest::NotOurs;
use crate::audit::{Action, Decision, Fields};
use crate::ids::AgentId;
use crate::refusal::Refusal;
use crate::shard::desk::job::{Caller, StateChange};
use crate::store::{Value, answers, keys, states};

/// Longest time to live of a state, in milliseconds: a year. Redis refuses what it cannot add to its clock, and does
/// so after the other commands of the transaction have been carried out.
const MAX_STATE_TTL_MS: u64 = 366 * 86_400_000;

/// What the record of a change says of the state's version after it.
pub(super) fn version_rule(version: u64) -> String {
    if version == 0 { String::new() } else { format!("version {version}") }
}

fn number(value: Value) -> Option<u64> {
    answers::int(&value)
}

impl Transaction<'_> {
    /// Reads the caller's state.
    pub(super) fn state_get(&mut self, caller: &Caller) -> Ruling {
        let agent = &caller.identity.agent;
        let read = match self.state_read_of.get(agent) {
            // Nothing has changed it since.
            Some(read) => *read,
            None => {
                let fields = self.multi.ask("HGETALL", answers::pairs);
                let _ = self.multi.args().arg(keys::state(agent));
                let version = self.multi.ask("GET", number);
                let _ = self.multi.args().arg(keys::state_version(agent));
                let tag = self.multi.ask("GET", states::read_tag);
                let _ = self.multi.args().arg(keys::state_tag(agent));
                self.state_reads.push(StateRead { agent: agent.clone(), fields, version, tag });
                let read = self.state_reads.len() - 1;
                let _ = self.state_read_of.insert(agent.clone(), read);
                read
            }
        };
        self.state_record(caller, Action::StateGet, None, (0, 0));
        Ok(Success::State { read })
    }

    /// Removes the caller's state.
    pub(super) fn state_reset(&mut self, caller: &Caller) -> Ruling {
        let agent = &caller.identity.agent;
        let _ = self.state_read_of.remove(agent);
        let Some(state) = self.facts.states.get_mut(agent) else {
            self.state_record(caller, Action::StateReset, Some(Refusal::STORAGE_UNAVAILABLE), (0, 0));
            return Err(Refusal::STORAGE_UNAVAILABLE);
        };
        let (tag, version) = (state.reset(self.keys, agent), state.version);
        let _ = self.effect("DEL").arg(keys::state(agent));
        let _ = self.effect("SET").arg(keys::state_version(agent)).arg(version);
        states::tag_arguments(self.multi.effect("SET"), agent, &tag);
        self.state_record(caller, Action::StateReset, None, (0, version));
        Ok(Success::Done)
    }

    /// Changes the caller's state.
    pub(super) fn state_update(&mut self, caller: &Caller, change: &StateChange) -> Ruling {
        let agent = &caller.identity.agent;
        let checked = self.check_state(agent, change);
        let written: usize = change.updates.iter().map(|(field, value)| field.len() + value.len()).sum();
        if let Err(refusal) = checked {
            self.state_record(caller, Action::StateUpdate, Some(refusal), (written, 0));
            return Err(refusal);
        }
        let version = self.change_state(agent, change);
        self.state_record(caller, Action::StateUpdate, None, (written, version));
        Ok(Success::Changed { version })
    }

    /// `version`: of the state after it; 0: it has not changed.
    fn state_record(
        &mut self,
        caller: &Caller,
        action: Action,
        refusal: Option<Refusal>,
        (bytes, version): (usize, u64),
    ) {
        let rule = version_rule(version);
        let (decision, reason) = match refusal {
            None => (Decision::Allowed, ""),
            Some(refusal) => (Decision::Refused, refusal.detail),
        };
        let _ = self.record(
            action,
            decision,
            &Fields {
                agent: caller.identity.agent.as_str(),
                fingerprint: &caller.identity.fingerprint,
                payload_len: bytes as u32,
                rule: &rule,
                reason,
                ..Fields::default()
            },
        );
    }

    /// Whether a change of an agent's state may be made.
    pub(super) fn check_state(&self, agent: &AgentId, change: &StateChange) -> Result<(), Refusal> {
        if change.is_empty() {
            return Ok(());
        }
        if change.ttl_ms > MAX_STATE_TTL_MS {
            return Err(Refusal::INVALID_TTL);
        }
        let Some(state) = self.facts.states.get(agent) else {
            return Err(Refusal::STORAGE_UNAVAILABLE);
        };
        if change.expected_version.is_some_and(|expected| expected != state.version) {
            return Err(Refusal::VERSION_MISMATCH);
        }
        match state.not_ours {
            None => {}
            Some(NotOurs::Foreign) => return Err(Refusal::STATE_FOREIGN),
            Some(NotOurs::UnknownKey) => return Err(Refusal::STORAGE_UNAVAILABLE),
        }
        let limits = &self.settings.limits;
        let (fields, bytes) = state.after(&change.updates);
        if fields > limits.max_state_fields || bytes > limits.max_state_bytes {
            return Err(Refusal::STATE_TOO_LARGE);
        }
        Ok(())
    }

    /// Makes a change that was checked: the version after it; 0 for a change of nothing.
    pub(super) fn change_state(&mut self, agent: &AgentId, change: &StateChange) -> u64 {
        if change.is_empty() {
            return 0;
        }
        let version = self.facts.states.get(agent).map_or(0, |state| state.version);
        if change.updates.is_empty() {
            return version;
        }
        let _ = self.state_read_of.remove(agent);
        let hash = self.effect("HSET").arg(keys::state(agent));
        for (field, value) in &change.updates {
            let _ = hash.arg(field).arg(value);
        }
        if change.ttl_ms > 0 {
            let _ = self.effect("PEXPIRE").arg(keys::state(agent)).arg(change.ttl_ms);
        }
        let Some(state) = self.facts.states.get_mut(agent) else {
            return version;
        };
        let tag = state.update(self.keys, agent, &change.updates, change.ttl_ms > 0);
        let version = state.version;
        states::tag_arguments(self.multi.effect("SET"), agent, &tag);
        // Not counted up: it is watched, and what was there may be no number.
        let _ = self.effect("SET").arg(keys::state_version(agent)).arg(version);
        version
    }
}
