//! `mas inbox empty`: an agent's waiting messages moved to the dead letters, each on record in the transaction that
//! moves it.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use super::exit::Exit;
use super::operator::{self, Acted, Operator, Source, Trouble, Why};
use crate::audit::{Action, Fields};
use crate::clock::Now;
use crate::envelope::message_id_of;
use crate::ids::AgentId;
use crate::store::attested::Foreign;
use crate::store::emptying::{Begun, Emptying, REASON, Sorted, Taken};
use crate::store::foreign;

/// Why nothing more is moved.
const EMPTIED_ELSEWHERE: &str = "another operator empties this inbox since a moment ago";

/// Subcommands of `mas inbox`.
#[derive(Debug, Subcommand)]
pub enum InboxCommand {
    /// Move what waits for an agent to the dead letters. What connected instances have been given, or are to get again
    /// later, stays with them; so do replies in instances' own inboxes. `mas dlq drop` is what frees Redis' memory.
    Empty(EmptyArgs),
}

/// Arguments of `empty`.
#[derive(Debug, Args)]
pub struct EmptyArgs {
    /// Whose inbox.
    #[arg(value_name = "AGENT")]
    agent: String,
    /// Messages at most; by default all.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    why: Why,
}

/// Runs one command.
pub fn run(command: InboxCommand) -> Exit {
    match command {
        InboxCommand::Empty(args) => operator::exit("inbox", empty(&args)),
    }
}

fn empty(args: &EmptyArgs) -> Result<Exit, Trouble> {
    let config = args.source.config()?;
    // Also of an agent that is not in the configuration any more.
    let agent = AgentId::parse(&args.agent)
        .ok_or_else(|| Trouble::Usage(format!("{:?} is no agent id", args.agent)))?;
    let mut operator = Operator::connect(&config, &args.why)?;
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
    let limit = args.limit.min(waiting);
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
    operator.close(&config)?;
    let left = match (ended, left) {
        (Ok(()), Ok(left)) => left,
        (Err(trouble), _) => {
            eprintln!("mas inbox: {moved} messages were moved before this:");
            return Err(trouble);
        }
        (Ok(()), Err(error)) => return Err(error.into()),
    };
    let mut out = std::io::stdout().lock();
    if args.source.json {
        writeln!(out, "{}", json!({"agent_id": agent.as_str(), "moved": moved, "left": left}))?;
    } else {
        writeln!(out, "{moved} messages of {agent} are dead letters now: mas dlq list --agent {agent}")?;
        writeln!(out, "{left} are in the inbox: given to connected instances, or newer")?;
    }
    Ok(Exit::Done)
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
