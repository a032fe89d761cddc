//! Agents shut out, and let in again: stored for all servers, which look once a second.

use serde_json::json;

use super::acting::{Acted, MAX_CONFLICTS, Operator};
use super::outcome::{By, Done, Say, Trouble};
use crate::audit::{Action, Fields};
use crate::clock::Now;
use crate::config::Config;
use crate::quarantine::{Entry, MAX_ENTRIES, Whom};
use crate::store::orders;

/// Shuts them out.
pub(super) fn shut_out(config: &Config, by: &By, whom: &Whom, say: Say<'_>) -> Result<Done, Trouble> {
    change(config, by, whom, true, say)
}

/// Lets them in.
pub(super) fn let_in(config: &Config, by: &By, whom: &Whom, say: Say<'_>) -> Result<Done, Trouble> {
    change(config, by, whom, false, say)
}

fn change(config: &Config, by: &By, whom: &Whom, active: bool, say: Say<'_>) -> Result<Done, Trouble> {
    if active && by.reason().is_empty() {
        return Err(Trouble::Usage("a quarantine needs a reason".to_owned()));
    }
    let mut operator = Operator::connect(config, by)?;
    for _ in 0..MAX_CONFLICTS {
        let keys = operator.keys.clone();
        let read = orders::watch_quarantine(&mut operator.connection, &keys)?;
        let known = read.entries.get(whom);
        let is_active = known.is_some_and(|entry| entry.active);
        if is_active == active {
            let _ = operator.connection.command("UNWATCH", &[])?;
            return Err(Trouble::Refused(match active {
                true => {
                    format!("{whom} is in quarantine already, by {}", known.map_or("", |entry| &entry.by))
                }
                false => format!("{whom} is not in quarantine"),
            }));
        }
        if known.is_none() && read.entries.len() >= MAX_ENTRIES {
            let _ = operator.connection.command("UNWATCH", &[])?;
            return Err(Trouble::Refused(format!(
                "{MAX_ENTRIES} entries are the most: shut out a capability, or all"
            )));
        }
        let version = known.map_or(0, |entry| entry.version).saturating_add(1);
        let since_ms = Now::read().unix_us / 1000;
        let entry = Entry { version, active, by: by.to_text(), since_ms };
        let (action, target, rule) = match active {
            true => (Action::Quarantined, whom.to_string(), format!("version {version}")),
            false => (Action::Released, whom.to_string(), format!("version {version}")),
        };
        let fields = Fields { target: &target, rule: &rule, ..Fields::default() };
        let acted = operator
            .act(action, &fields, |batch, on| orders::set_quarantine(batch, on.keys, whom, &entry))?;
        if matches!(acted, Acted::Conflict) {
            continue;
        }
        let receipt = operator.close(config)?;
        say(json!({"whom": target, "quarantined": active, "by": entry.by, "since_unix_ms": since_ms}))?;
        return Ok(Done { done: 1, receipt, ..Done::default() });
    }
    Err(Trouble::Refused("the quarantine keeps changing; try again".to_owned()))
}
