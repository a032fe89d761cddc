//! `mas foreign`: what somebody else than a server has put into Redis, looked through and removed.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::Value as Json;

use super::exit::Exit;
use super::operator::{self, Source, Trouble, Why, exit_of};
use super::text::{plain, table, time_text};
use crate::operation::Command;
use crate::store::answers::EntryId;

/// Subcommands of `mas foreign`.
#[derive(Debug, Subcommand)]
pub enum ForeignCommand {
    /// List what was put aside, oldest first.
    List(ListArgs),
    /// Show it whole.
    Show(WhichArgs),
    /// Remove it for good.
    Drop(DropArgs),
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    source: Source,
    /// What stands behind this one: where the page before ended.
    #[arg(long, value_name = "ID", value_parser = parse_entry)]
    after: Option<EntryId>,
    /// Entries at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
    limit: u64,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct WhichArgs {
    /// Which, by the ids that `list` shows.
    #[arg(value_name = "ID", required = true, value_parser = parse_entry)]
    ids: Vec<EntryId>,
    #[command(flatten)]
    source: Source,
}

/// Arguments of `drop`.
#[derive(Debug, Args)]
pub struct DropArgs {
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    why: Why,
}

fn parse_entry(text: &str) -> Result<EntryId, String> {
    EntryId::parse(text).ok_or_else(|| format!("{text:?} is no id of what was put aside"))
}

/// Runs one command.
pub fn run(command: ForeignCommand) -> Exit {
    let outcome = match &command {
        ForeignCommand::List(args) => list(args),
        ForeignCommand::Show(args) => show(args),
        ForeignCommand::Drop(args) => drop_them(args),
    };
    operator::exit("foreign", outcome)
}

fn word(line: &Json, name: &str) -> String {
    plain(line.get(name).and_then(Json::as_str).unwrap_or_default())
}

fn list(args: &ListArgs) -> Result<Exit, Trouble> {
    let command =
        Command::ForeignList { after: args.after.map(|after| after.to_string()), limit: args.limit };
    let mut out = std::io::stdout().lock();
    let mut rows = vec![["ID", "FOUND", "KEY", "ENTRY", "SHA-256"].map(str::to_owned).to_vec()];
    let _ = args.source.carry_out(&Why::default(), &command, |line| {
        if args.source.json {
            return writeln!(out, "{line}");
        }
        let time_ms = line.get("time_ms").and_then(Json::as_u64).unwrap_or(0);
        rows.push(vec![
            word(&line, "id"),
            time_text(time_ms.saturating_mul(1000)),
            word(&line, "key"),
            word(&line, "entry"),
            word(&line, "sha256"),
        ]);
        Ok(())
    })?;
    if !args.source.json {
        write!(out, "{}", table(&rows))?;
    }
    Ok(Exit::Done)
}

fn show(args: &WhichArgs) -> Result<Exit, Trouble> {
    let command = Command::ForeignShow { ids: args.ids.iter().map(EntryId::to_string).collect() };
    let mut out = std::io::stdout().lock();
    let done = args.source.carry_out(&Why::default(), &command, |line| {
        if line.get("problem").is_some() {
            eprintln!("mas foreign: there is no {}", word(&line, "id"));
            return Ok(());
        }
        if args.source.json {
            return writeln!(out, "{line}");
        }
        writeln!(out, "{} of {} entry {}", word(&line, "id"), word(&line, "key"), word(&line, "entry"))?;
        for bytes in line.get("base64").and_then(Json::as_array).into_iter().flatten() {
            let bytes = STANDARD.decode(bytes.as_str().unwrap_or_default()).unwrap_or_default();
            writeln!(out, "  {}", plain(&String::from_utf8_lossy(&bytes)))?;
        }
        Ok(())
    })?;
    if done.more {
        eprintln!("mas foreign: there are more than are shown at once: name fewer ids");
    }
    Ok(exit_of(&done))
}

fn drop_them(args: &DropArgs) -> Result<Exit, Trouble> {
    let source = &args.which.source;
    let ids = args.which.ids.iter().map(EntryId::to_string).collect();
    let mut out = std::io::stdout().lock();
    let done = source.carry_out(&args.why, &Command::ForeignDrop { ids }, |line| {
        let word = |name: &str| plain(line.get(name).and_then(Json::as_str).unwrap_or_default());
        match (source.json, line.get("problem").is_some()) {
            (true, _) => writeln!(out, "{line}"),
            (false, false) => writeln!(out, "dropped  {}  {}", word("id"), word("key")),
            (false, true) => {
                eprintln!("mas foreign: {}: {}", word("id"), word("problem"));
                Ok(())
            }
        }
    })?;
    Ok(exit_of(&done))
}
