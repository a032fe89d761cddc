//! Damages of the trail that an operator knows of, put on record.

use serde_json::json;

use super::acting::{Acted, Operator};
use super::command::Damage;
use super::outcome::{By, Done, Say, Trouble};
use crate::audit::{Action, Fields};
use crate::config::Config;

/// Puts on record that somebody knows of damages.
pub(super) fn acknowledge(
    config: &Config,
    by: &By,
    damages: &[Damage],
    say: Say<'_>,
) -> Result<Done, Trouble> {
    if damages.is_empty() {
        return Err(Trouble::Usage("which damages?".to_owned()));
    }
    let mut operator = Operator::connect(config, by)?;
    let fields =
        damages.iter().map(|damage| Fields { target: &damage.id, rule: &damage.text, ..Fields::default() });
    match operator.act_on_all(Action::Acknowledged, fields, |_, _| {})? {
        Acted::Done(_) => {}
        Acted::Conflict => return Err(Trouble::Refused("try again".to_owned())),
    }
    let receipt = operator.close(config);
    for damage in damages {
        say(json!({"id": damage.id, "damage": damage.text, "outcome": "acknowledged"}))?;
    }
    Ok(Done { done: damages.len() as u64, receipt, ..Done::default() })
}
