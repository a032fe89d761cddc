//! A server told to stop, wherever it runs: it looks for that in Redis.

use serde_json::json;

use super::acting::{Acted, Operator};
use super::outcome::{By, Done, Say, Trouble};
use crate::audit::{Action, Fields};
use crate::config::Config;
use crate::ids::ServerId;
use crate::store::{orders, servers};

pub(super) fn tell(
    config: &Config,
    by: &By,
    server: &str,
    after_ms: u64,
    say: Say<'_>,
) -> Result<Done, Trouble> {
    let id = ServerId::parse(server)
        .ok_or_else(|| Trouble::Usage(format!("{server:?} is no server's id: `mas status` says it")))?;
    let mut operator = Operator::connect(config, by)?;
    if !servers::is_alive(&mut operator.connection, &id)? {
        return Err(Trouble::Refused(format!("no server {id} runs on this Redis")));
    }
    let drain = orders::Drain { by: by.to_text(), after_ms };
    let rule = format!("drain, after {after_ms} ms");
    let fields = Fields { target: server, rule: &rule, ..Fields::default() };
    let acted = operator
        .act(Action::Commanded, &fields, |batch, on| orders::set_drain(batch, on.keys, &id, &drain))?;
    if matches!(acted, Acted::Conflict) {
        return Err(Trouble::Refused("try again".to_owned()));
    }
    let receipt = operator.close(config);
    say(json!({"server": server, "drain": "told", "after_ms": after_ms}))?;
    Ok(Done { done: 1, receipt, ..Done::default() })
}
