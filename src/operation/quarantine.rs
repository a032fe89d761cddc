//! Agents shut out, and let in again: stored for all servers, which look twice a second.

use serde_json::json;

use super::acting::{Acted, MAX_CONFLICTS, Operator};
use super::outcome::{By, Done, Say, Trouble};
use crate::audit::{Action, Fields};
use crate::clock::Now;
use crate::config::Config;
use crate::quarantine::{Entry, MAX_ENTRIES, Quarantine, Whom};
use crate::store::orders::{self, Read};

/// Shuts them out.
pub(super) fn shut_out(config: &Config, by: &By, whom: &Whom, say: Say<'_>) -> Result<Done, Trouble> {
    if by.reason().is_empty() {
        return Err(Trouble::Usage("a quarantine needs a reason".to_owned()));
    }
    change(config, by, whom, true, say)
}

/// Lets them in.
pub(super) fn let_in(config: &Config, by: &By, whom: &Whom, say: Say<'_>) -> Result<Done, Trouble> {
    change(config, by, whom, false, say)
}

fn change(config: &Config, by: &By, whom: &Whom, active: bool, say: Say<'_>) -> Result<Done, Trouble> {
    let mut operator = Operator::connect(config, by)?;
    for _ in 0..MAX_CONFLICTS {
        let keys = operator.keys.clone();
        let known = match orders::watch_quarantine(&mut operator.connection, &keys)? {
            Read::Ours(known) => known,
            // Servers that know better put theirs back, and this command is repeated then.
            Read::Nothing | Read::Foreign => Quarantine::default(),
            Read::UnknownKey => {
                return Err(Trouble::Refused(
                    "the quarantine has a tag of a store key that is not in the file here: copy it from a server"
                        .to_owned(),
                ));
            }
        };
        let mut quarantine = Quarantine { version: known.version.saturating_add(1), ..known.clone() };
        let since_ms = Now::read().unix_us / 1000;
        let entry = Entry { by: by.to_text(), since_ms };
        match (active, known.entries.get(whom)) {
            (true, Some(entry)) => {
                return Err(Trouble::Refused(format!("{whom} is in quarantine already, by {}", entry.by)));
            }
            (false, None) => {
                let holds = held_by(config, &known, whom);
                let why = holds.map(|held| format!("; it is shut out with {held}")).unwrap_or_default();
                return Err(Trouble::Refused(format!("{whom} is not in quarantine{why}")));
            }
            (true, None) if known.entries.len() >= MAX_ENTRIES => {
                return Err(Trouble::Refused(format!(
                    "{MAX_ENTRIES} entries are the most: shut out a capability, or all"
                )));
            }
            (true, None) => drop(quarantine.entries.insert(whom.clone(), entry.clone())),
            (false, Some(_)) => drop(quarantine.entries.remove(whom)),
        }
        let action = if active { Action::Quarantined } else { Action::Released };
        let (target, rule) = (whom.to_string(), format!("version {}", quarantine.version));
        let fields = Fields { target: &target, rule: &rule, ..Fields::default() };
        let acted =
            operator.act(action, &fields, |batch, on| orders::set_quarantine(batch, on.keys, &quarantine))?;
        if matches!(acted, Acted::Conflict) {
            continue;
        }
        let receipt = operator.close(config);
        let meant = config.agents.values().filter(|agent| whom.names(&agent.id, &agent.capabilities));
        say(json!({
            "whom": target, "quarantined": active, "by": entry.by, "since_unix_ms": since_ms,
            "agents": meant.count(), "held_by": held_by(config, &quarantine, whom).filter(|_| !active),
        }))?;
        return Ok(Done { done: 1, receipt, ..Done::default() });
    }
    Err(Trouble::Refused("the quarantine keeps changing; try again".to_owned()))
}

/// What else an agent is shut out with.
fn held_by(config: &Config, quarantine: &Quarantine, whom: &Whom) -> Option<String> {
    let Whom::Agent(agent) = whom else { return None };
    let capabilities = config.agents.get(agent.as_str()).map_or(&[][..], |agent| &agent.capabilities);
    quarantine.holds(agent, capabilities).map(|(whom, _)| whom.to_string())
}
