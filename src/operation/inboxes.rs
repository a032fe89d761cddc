//! An agent's waiting messages moved to the dead letters, each on record in the transaction that moves it.

use serde_json::json;

use super::acting::{Acted, Operator};
use super::outcome::{By, Done, Say, Trouble};
use crate::audit::{Action, Fields};
use crate::clock::Now;
use crate::config::Config;
use crate::envelope::message_id_of;
use crate::ids::AgentId;
use crate::store::attested::Foreign;
use crate::store::emptying::{Begun, Emptying, REASON, Sorted, Taken};
use crate::store::foreign;

/// Why nothing more is moved.
const EMPTIED_ELSEWHERE: &str = "another operator empties this inbox since a moment ago";

/// Empties an inbox, also that of an agent that is not in the configuration any more.
pub(super) fn empty(config: &Config, by: &By, name: &str, limit: u64, say: Say<'_>) -> Result<Done, Trouble> {
    let agent = AgentId::parse(name).ok_or_else(|| Trouble::Usage(format!("{name:?} is no agent id")))?;
    let mut operator = Operator::connect(config, by)?;
    let refused = |why: &str| Err(Trouble::Refused(why.to_owned()));
    let (mut emptying, waiting) = match Emptying::begin(&mut operator.connection, &agent)? {
        Begun::Holding(emptying, waiting) => (emptying, waiting),
        Begun::NoInbox => return refused("this agent has no inbox: nothing was ever sent to it"),
        Begun::NoRoom => {
            return refused("Redis has no room for dead letters; `mas dlq drop` removes older ones for good");
        }
        Begun::Taken => return refused("another operator empties this inbox right now"),
    };
    // What comes while this goes on is not meant.
    let limit = limit.min(waiting);
    let mut moved = 0_u64;
    let ended = loop {
        if moved >= limit {
            break Ok(());
        }
        match page(&mut operator, &mut emptying, &agent, limit - moved, config.delivery.reclaim_idle_ms) {
            Ok(0) => break Ok(()),
            Ok(count) => moved += count,
            Err(trouble) => break Err(trouble),
        }
    };
    let left = emptying.end(&mut operator.connection);
    let receipt = operator.close(config);
    let more = moved < waiting;
    match (ended, left) {
        (Ok(()), Ok(left)) => {
            say(json!({"agent_id": agent.as_str(), "moved": moved, "left": left}))?;
            Ok(Done { done: moved, more, receipt, ..Done::default() })
        }
        (Err(trouble), _) => {
            say(json!({"agent_id": agent.as_str(), "moved": moved}))?;
            Err(trouble)
        }
        (Ok(()), Err(error)) => Err(error.into()),
    }
}

/// Moves one page; how many messages that were.
fn page(
    operator: &mut Operator,
    emptying: &mut Emptying<'_>,
    agent: &AgentId,
    most: u64,
    reclaim_idle_ms: u64,
) -> Result<u64, Trouble> {
    let began = Now::read().mono_ms;
    let taken = emptying.take(&mut operator.connection, most)?;
    if taken.is_empty() {
        return Ok(0);
    }
    // Servers hand on what a consumer that is not connected holds for so long.
    let in_time = Now::read().mono_ms < began + reclaim_idle_ms / 2;
    if !in_time || !emptying.watch(&mut operator.connection)? {
        return Err(Trouble::Refused(
            "this took too long: what was taken last goes to an instance".to_owned(),
        ));
    }
    let count = taken.len() as u64;
    if emptying.needs_other_keys(&taken, &operator.keys) {
        return Err(Trouble::Refused(
            "messages have tags of a store key that is not in the file here: copy it from a server"
                .to_owned(),
        ));
    }
    let Sorted { ours, foreign } = emptying.foreign(&mut operator.connection, taken, &operator.keys)?;
    if !ours.is_empty() {
        bury(operator, emptying, agent, &ours)?;
    }
    if !foreign.is_empty() {
        if !emptying.watch(&mut operator.connection)? {
            return Err(Trouble::Refused(EMPTIED_ELSEWHERE.to_owned()));
        }
        put_aside(operator, emptying, agent, foreign)?;
    }
    Ok(count)
}

/// Puts aside what no server has put into the inbox.
fn put_aside(
    operator: &mut Operator,
    emptying: &Emptying<'_>,
    agent: &AgentId,
    found: Vec<(Taken, Foreign)>,
) -> Result<(), Trouble> {
    let (taken, foreign): (Vec<Taken>, Vec<Foreign>) = found.into_iter().unzip();
    let digests: Vec<([u8; 32], String)> = foreign
        .iter()
        .map(|found| (found.digest(), found.entry.map(|entry| entry.to_text()).unwrap_or_default()))
        .collect();
    let records = digests.iter().map(|(digest, entry)| Fields {
        agent: agent.as_str(),
        target: emptying.stream(),
        rule: entry,
        payload_digest: digest,
        ..Fields::default()
    });
    let time_ms = Now::read().unix_us / 1000;
    let acted = operator.act_on_all(Action::ForeignEntry, records, |batch, _| {
        for found in &foreign {
            let _ = batch.command("XADD");
            foreign::arguments(batch, found, time_ms);
        }
        emptying.take_out(batch, &taken);
    })?;
    done(&acted)
}

fn done(acted: &Acted) -> Result<(), Trouble> {
    match acted {
        Acted::Done(_) => Ok(()),
        Acted::Conflict => Err(Trouble::Refused(EMPTIED_ELSEWHERE.to_owned())),
    }
}

fn bury(
    operator: &mut Operator,
    emptying: &Emptying<'_>,
    agent: &AgentId,
    taken: &[Taken],
) -> Result<(), Trouble> {
    let records = taken.iter().map(|taken| Fields {
        agent: agent.as_str(),
        message_id: taken.entry.envelope.as_deref().and_then(message_id_of),
        target: emptying.stream(),
        attempt: taken.attempts,
        rule: REASON,
        ..Fields::default()
    });
    let time_ms = Now::read().unix_us / 1000;
    let acted = operator.act_on_all(Action::DeadLetter, records, |batch, on| {
        emptying.bury(batch, taken, time_ms, on.keys, (on.lane, on.records));
    })?;
    done(&acted)
}
