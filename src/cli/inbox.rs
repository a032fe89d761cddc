//! `mas inbox empty`: an agent's waiting messages moved to the dead letters, each on record in the transaction that
//! moves it.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::Value as Json;

use super::exit::Exit;
use super::operator::{self, Source, Trouble, Why, exit_of};
use super::text::plain;
use crate::operation::Command;

/// Messages that are moved by one command: a server's answer tells of so many.
const PORTION: u64 = 10_000;

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
    let agent = plain(&args.agent);
    let mut out = std::io::stdout().lock();
    let (mut wanted, mut all) = (args.limit, 0);
    loop {
        let limit = wanted.min(PORTION);
        let command = Command::InboxEmpty { agent: args.agent.clone(), limit };
        let mut left = None;
        let done = args.source.carry_out(&args.why, &command, |line| {
            all += line.get("moved").and_then(Json::as_u64).unwrap_or(0);
            left = line.get("left").and_then(Json::as_u64);
            if args.source.json { writeln!(out, "{line}") } else { Ok(()) }
        });
        let done = match done {
            Ok(done) => done,
            Err(trouble) => {
                eprintln!("mas inbox: {all} messages were moved before this:");
                return Err(trouble);
            }
        };
        wanted = wanted.saturating_sub(done.done);
        if done.done == limit && wanted > 0 {
            continue;
        }
        if !args.source.json {
            writeln!(out, "{all} messages of {agent} are dead letters now: mas dlq list --agent {agent}")?;
            let left = left.unwrap_or(0);
            writeln!(out, "{left} are in the inbox: given to connected instances, or newer")?;
        }
        return Ok(exit_of(&done));
    }
}
