//! What was put aside because no server had written it, removed for good.

use serde_json::json;

use super::acting::{Acted, Operator};
use super::outcome::{By, Done, Say, Trouble};
use crate::audit::{Action, Fields};
use crate::config::Config;
use crate::ids::unhex;
use crate::store::answers::EntryId;
use crate::store::foreign;

pub(super) fn drop_them(config: &Config, by: &By, ids: &[String], say: Say<'_>) -> Result<Done, Trouble> {
    let unknown = |id: &String| Trouble::Usage(format!("{id:?} is no id of what was put aside"));
    let ids: Vec<EntryId> =
        ids.iter().map(|id| EntryId::parse(id).ok_or_else(|| unknown(id))).collect::<Result<_, _>>()?;
    let mut operator = Operator::connect(config, by)?;
    let mut done = Done::default();
    for id in ids {
        let Some(aside) = foreign::one(&mut operator.connection, id)? else {
            done.failed += 1;
            say(
                json!({"id": id.to_string(), "outcome": "failed", "problem": "there is nothing with this id"}),
            )?;
            continue;
        };
        let digest = unhex(&aside.digest).unwrap_or_default();
        let fields =
            Fields { target: &aside.key, rule: &aside.entry, payload_digest: &digest, ..Fields::default() };
        match operator.act(Action::Dropped, &fields, |batch, _| foreign::remove(batch, id))? {
            Acted::Done(_) => {
                done.done += 1;
                say(json!({"id": id.to_string(), "outcome": "dropped", "key": aside.key}))?;
            }
            Acted::Conflict => {
                done.failed += 1;
                say(json!({"id": id.to_string(), "outcome": "failed", "problem": "try again"}))?;
            }
        }
    }
    done.receipt = operator.close(config);
    Ok(done)
}
