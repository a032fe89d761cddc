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
use crate::store::emptying::{Emptying, REASON, Taken};

/// Subcommands of `mas inbox`.
#[derive(Debug, Subcommand)]
pub enum InboxCommand {
    /// Move what waits for an agent to the dead letters; what a connected instance has been given stays with it.
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
    let mut moved = 0_u64;
    if let Some(mut emptying) = Emptying::begin(&mut operator.connection, &agent)? {
        while moved < args.limit {
            let taken = emptying.take(&mut operator.connection)?;
            if taken.is_empty() {
                break;
            }
            bury(&mut operator, &emptying, &agent, &taken)?;
            moved += taken.len() as u64;
        }
        emptying.end(&mut operator.connection)?;
    }
    operator.close()?;
    let mut out = std::io::stdout().lock();
    if args.source.json {
        writeln!(out, "{}", json!({"agent_id": agent.as_str(), "moved": moved}))?;
    } else {
        writeln!(out, "{moved} messages of {agent} are dead letters now: mas dlq list --agent {agent}")?;
    }
    Ok(Exit::Done)
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
    let acted = operator.act_on_all(Action::DeadLetter, records, |batch| {
        emptying.bury(batch, taken, time_ms);
    })?;
    match acted {
        Acted::Done(_) => Ok(()),
        // Nothing is watched.
        Acted::Conflict => Err(Trouble::Refused("Redis refused the transaction".to_owned())),
    }
}
