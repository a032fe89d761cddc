//! `mas state`: an agent's state read and changed by an operator. A change counts as one for whoever compares
//! versions, and goes on record in the transaction that makes it.

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::Value as Json;

use super::exit::Exit;
use super::operator::{self, Source, Trouble, Why, exit_of};
use super::text::{plain, table};
use crate::operation::Command;

/// Subcommands of `mas state`.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Show an agent's state and its version.
    Get(GetArgs),
    /// Set fields of it; others stay.
    Set(SetArgs),
    /// Remove all of it.
    Reset(ResetArgs),
    /// Take a state over as it is that somebody else has changed: from now on it counts as the servers' own.
    Accept(AcceptArgs),
}

/// Arguments of `get`.
#[derive(Debug, Args)]
pub struct GetArgs {
    /// Whose.
    agent: String,
    #[command(flatten)]
    source: Source,
}

/// Arguments of `set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Whose.
    agent: String,
    /// FIELD=VALUE, once or more.
    #[arg(value_name = "FIELD=VALUE", required = true, value_parser = parse_field)]
    fields: Vec<(String, String)>,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Arguments of `reset`.
#[derive(Debug, Args)]
pub struct ResetArgs {
    /// Whose.
    agent: String,
    #[command(flatten)]
    change: ChangeArgs,
}

/// Arguments of `accept`.
#[derive(Debug, Args)]
pub struct AcceptArgs {
    /// Whose.
    agent: String,
    /// Only if it is this one: the SHA-256 that `get` shows.
    #[arg(long, value_name = "HEX", required = true)]
    sha256: String,
    #[command(flatten)]
    change: ChangeArgs,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// Only if the state has this version.
    #[arg(long, value_name = "N")]
    expect_version: Option<u64>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    why: Why,
}

fn parse_field(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((field, value)) if !field.is_empty() => Ok((field.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not FIELD=VALUE")),
    }
}

/// Runs one command.
pub fn run(command: StateCommand) -> Exit {
    let outcome = match &command {
        StateCommand::Get(args) => get(args),
        StateCommand::Set(SetArgs { agent, fields, change: args }) => {
            let (agent, fields, expect_version) = (agent.clone(), fields.clone(), args.expect_version);
            change(args, &Command::StateSet { agent, fields, expect_version })
        }
        StateCommand::Reset(ResetArgs { agent, change: args }) => {
            let (agent, expect_version) = (agent.clone(), args.expect_version);
            change(args, &Command::StateReset { agent, expect_version })
        }
        StateCommand::Accept(AcceptArgs { agent, sha256, change: args }) => {
            let (agent, sha256, expect_version) = (agent.clone(), sha256.clone(), args.expect_version);
            change(args, &Command::StateAccept { agent, sha256, expect_version })
        }
    };
    operator::exit("state", outcome)
}

fn get(args: &GetArgs) -> Result<Exit, Trouble> {
    let mut out = std::io::stdout().lock();
    let command = Command::StateGet { agent: args.agent.clone() };
    let done = args.source.carry_out(&Why::default(), &command, |mut line| {
        let foreign = line.as_object_mut().and_then(|line| line.remove("foreign_sha256"));
        if let Some(digest) = foreign.as_ref().and_then(Json::as_str) {
            eprintln!(
                "mas state: somebody else than a server has changed this state, SHA-256 {}",
                plain(digest)
            );
        }
        if args.source.json {
            return writeln!(out, "{line}");
        }
        let number = |name: &str| line.get(name).and_then(Json::as_u64);
        let ends = number("ttl_ms").map(|ttl_ms| format!(", kept for {ttl_ms} ms more")).unwrap_or_default();
        let fields = line.get("state").and_then(Json::as_object);
        let row =
            |(field, value): (&String, &Json)| vec![plain(field), plain(value.as_str().unwrap_or_default())];
        let rows: Vec<Vec<String>> = fields.into_iter().flatten().map(row).collect();
        let version = number("version").unwrap_or(0);
        writeln!(out, "{}: version {version}, {} fields{ends}", plain(&args.agent), rows.len())?;
        write!(out, "{}", table(&rows))
    })?;
    Ok(exit_of(&done))
}

fn change(args: &ChangeArgs, command: &Command) -> Result<Exit, Trouble> {
    let mut out = std::io::stdout().lock();
    let done = args.source.carry_out(&args.why, command, |line| {
        if args.source.json {
            return writeln!(out, "{line}");
        }
        let agent = line.get("agent_id").and_then(Json::as_str).unwrap_or_default();
        let version = line.get("version").and_then(Json::as_u64).unwrap_or(0);
        writeln!(out, "{}: version {version}", plain(agent))
    })?;
    Ok(exit_of(&done))
}
