//! `mas inbox empty`: an agent's waiting messages moved to the dead letters, each on record in the transaction that
//! moves it.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::Value as Json;

use super::exit::Exit;
use super::operator::{self, Source, Trouble, Why, exit_of};
use super::text::plain;
use crate::operation::Command;

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
    let command = Command::InboxEmpty { agent: args.agent.clone(), limit: args.limit };
    let agent = plain(&args.agent);
    let mut out = std::io::stdout().lock();
    let done = args.source.carry_out(&args.why, &command, |line| {
        if args.source.json {
            return writeln!(out, "{line}");
        }
        let moved = line.get("moved").and_then(Json::as_u64).unwrap_or(0);
        match line.get("left").and_then(Json::as_u64) {
            Some(left) => {
                writeln!(
                    out,
                    "{moved} messages of {agent} are dead letters now: mas dlq list --agent {agent}"
                )?;
                writeln!(out, "{left} are in the inbox: given to connected instances, or newer")
            }
            None => {
                eprintln!("mas inbox: {moved} messages were moved before this:");
                Ok(())
            }
        }
    })?;
    Ok(exit_of(&done))
}
