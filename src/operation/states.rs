//! An agent's state read and changed by an operator. A change counts as one for whoever compares versions.

use std::collections::BTreeMap;

use serde_json::json;

use super::acting::{self, Acted, MAX_CONFLICTS, Operator};
use super::outcome::{By, Done, Say, Trouble};
use crate::audit::{Action, Fields};
use crate::config::{Config, Limits};
use crate::ids::{AgentId, hex};
use crate::store::overview::{self, StateView};

fn known(config: &Config, name: &str) -> Result<AgentId, Trouble> {
    let listed = config.agents.get_key_value(name).map(|(agent, _)| agent.clone());
    listed.ok_or_else(|| Trouble::Usage(format!("{name:?} is not in `agents`")))
}

/// Says an agent's state.
pub(super) fn get(config: &Config, name: &str, say: Say<'_>) -> Result<Done, Trouble> {
    let agent = known(config, name)?;
    let state = overview::watch_state(&mut acting::connect(config)?, &agent)?;
    let changed_by_others = acting::store_keys(config)
        .is_ok_and(|keys| !state.is_ours(&keys, &agent))
        .then(|| hex(&state.digest()));
    let fields: serde_json::Map<String, serde_json::Value> =
        state.fields.into_iter().map(|(field, value)| (field, value.into())).collect();
    let mut line = json!({
        "agent_id": agent.as_str(), "version": state.version, "ttl_ms": state.ttl_ms, "state": fields,
    });
    if let (Some(sha256), Some(line)) = (changed_by_others, line.as_object_mut()) {
        let _ = line.insert("foreign_sha256".to_owned(), sha256.into());
    }
    say(line)?;
    Ok(Done::default())
}

/// What is done to a state.
pub(super) enum Change<'a> {
    Set(&'a [(String, String)]),
    Reset,
    /// One with this digest.
    Accept(&'a str),
}

impl Change<'_> {
    /// Fields that are set.
    fn updates(&self) -> &[(String, String)] {
        match self {
            Self::Set(updates) => updates,
            Self::Reset | Self::Accept(_) => &[],
        }
    }

    /// The state's fields after it.
    fn after(&self, state: &StateView) -> Vec<(String, String)> {
        let mut fields: BTreeMap<String, String> = match self {
            Self::Reset => BTreeMap::new(),
            Self::Set(_) | Self::Accept(_) => state.fields.iter().cloned().collect(),
        };
        fields.extend(self.updates().iter().cloned());
        fields.into_iter().collect()
    }
}

/// Changes an agent's state.
pub(super) fn change(
    config: &Config,
    by: &By,
    name: &str,
    expect_version: Option<u64>,
    change: &Change<'_>,
    say: Say<'_>,
) -> Result<Done, Trouble> {
    let agent = known(config, name)?;
    let mut operator = Operator::connect(config, by)?;
    for _ in 0..MAX_CONFLICTS {
        let state = overview::watch_state(&mut operator.connection, &agent)?;
        if let Some(expected) = expect_version.filter(|expected| *expected != state.version) {
            return Err(Trouble::Refused(format!("the state has version {}, not {expected}", state.version)));
        }
        if matches!(change, Change::Set(_)) && !state.is_ours(&operator.keys, &agent) {
            return Err(Trouble::Refused(format!(
                "somebody else has changed this state: look at it (mas state get {agent}), then accept or reset it"
            )));
        }
        if let Change::Accept(expected) = change
            && hex(&state.digest()) != *expected
        {
            return Err(Trouble::Refused(format!("the state's SHA-256 is {}", hex(&state.digest()))));
        }
        let (updates, after) = (change.updates(), change.after(&state));
        check_size(&config.limits, &after, updates)?;
        let action = match change {
            Change::Reset => Action::StateReset,
            Change::Set(_) | Change::Accept(_) => Action::StateUpdate,
        };
        let bytes: usize = updates.iter().map(|(field, value)| field.len() + value.len()).sum();
        let what =
            if matches!(change, Change::Accept(_)) { "operator, accepted as it is" } else { "operator" };
        let version = state.next_version();
        let rule = format!("{what}, version {version}");
        let digest = if matches!(change, Change::Accept(_)) { state.digest().to_vec() } else { Vec::new() };
        let tag = state.next_tag(&operator.keys, &agent, &after);
        let fields = Fields {
            target: agent.as_str(),
            rule: &rule,
            payload_digest: &digest,
            // Bounded by `max_state_bytes`.
            payload_len: bytes as u32,
            ..Fields::default()
        };
        let acted = operator.act(action, &fields, |batch, _| match change {
            Change::Reset => overview::reset_state(batch, &agent, (version, &tag)),
            Change::Set(_) | Change::Accept(_) => {
                overview::set_state(batch, &agent, updates, (version, &tag));
            }
        })?;
        if matches!(acted, Acted::Conflict) {
            continue;
        }
        let receipt = operator.close(config);
        say(json!({"agent_id": agent.as_str(), "version": version}))?;
        return Ok(Done { done: 1, receipt, ..Done::default() });
    }
    Err(Trouble::Refused("the state keeps changing; try again".to_owned()))
}

/// The bounds that hold for the agent itself.
fn check_size(
    limits: &Limits,
    fields: &[(String, String)],
    updates: &[(String, String)],
) -> Result<(), Trouble> {
    let bytes: usize = fields.iter().map(|(field, value)| field.len() + value.len()).sum();
    if !updates.is_empty() && (fields.len() > limits.max_state_fields || bytes > limits.max_state_bytes) {
        return Err(Trouble::Refused(format!(
            "the state would have {} fields and {bytes} bytes: `limits.max_state_fields` is {}, \
             `limits.max_state_bytes` {}",
            fields.len(),
            limits.max_state_fields,
            limits.max_state_bytes
        )));
    }
    Ok(())
}
