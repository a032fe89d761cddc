//! `mas dlq`: dead letters looked through, put back, removed. Each letter that is put back or removed goes on
//! record in the transaction that does it. `archived`: those that were moved to files; `letters`: which ones,
//! and how they are shown.

mod archived;
mod letters;

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::Value as Json;

use crate::audit::Action;
use crate::cli::exit::Exit;
use crate::cli::operator::{self, Source, Trouble, Why, exit_of};
use crate::cli::text::plain;
use crate::operation::{Command, WantedLetters};
use crate::store::answers::EntryId;
use archived::{ArchivedArgs, RestoreArgs};
use letters::{Which, letter_text, letters_table, parse_entry};

/// Most letters that `list` shows at once.
const MAX_LIST: u64 = 1000;

/// Subcommands of `mas dlq`.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Show dead letters, oldest first, a page at a time.
    List(ListArgs),
    /// Show letters whole: payload, and how each delivery failed.
    Show(ShowArgs),
    /// Put letters back where they came from, with the same message id.
    Redrive(ChangeArgs),
    /// Remove letters for good.
    Drop(ChangeArgs),
    /// Show letters that were too many for Redis: they are in files of gateway.audit.archive_dir.
    Archived(ArchivedArgs),
    /// Bring such letters back to Redis, behind the others; a redrive then puts them back where they came from.
    Restore(RestoreArgs),
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    which: Which,
    /// Letters behind this one: where the page before ended.
    #[arg(long, value_name = "ID", value_parser = parse_entry)]
    after: Option<EntryId>,
    /// Letters at most.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=MAX_LIST))]
    limit: u64,
}

/// Arguments of the other commands.
#[derive(Debug, Args)]
pub struct ChangeArgs {
    /// The letters, by the ids that `list` shows.
    #[arg(value_name = "ID", value_parser = parse_entry)]
    ids: Vec<EntryId>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    which: Which,
    /// Every letter that there is now.
    #[arg(long)]
    all: bool,
    /// Letters at most.
    #[arg(long, value_name = "N", default_value_t = 1000)]
    limit: u64,
    #[command(flatten)]
    why: Why,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    which: ChangeArgs,
    /// Show also what the rules of data-loss prevention would block or redact. Of a running server for operators alone, and on
    /// record.
    #[arg(long)]
    unmasked: bool,
}

/// Runs one command.
pub fn run(command: DlqCommand) -> Exit {
    let outcome = match &command {
        DlqCommand::List(args) => list(args),
        DlqCommand::Show(args) => show(args),
        DlqCommand::Redrive(args) => change(args, Action::Redriven),
        DlqCommand::Drop(args) => change(args, Action::Dropped),
        DlqCommand::Archived(args) => archived::list(args),
        DlqCommand::Restore(args) => archived::restore(args),
    };
    operator::exit("dlq", outcome)
}

fn list(args: &ListArgs) -> Result<Exit, Trouble> {
    let which = WantedLetters { limit: args.limit, ..args.which.wanted() };
    let command = Command::DeadLettersList { which, after: args.after.map(|after| after.to_string()) };
    let mut out = std::io::stdout().lock();
    let (mut letters, mut last) = (Vec::new(), None);
    let done = args.source.carry_out(&Why::default(), &command, |line| {
        last = line.get("id").and_then(Json::as_str).map(str::to_owned);
        if args.source.json {
            return writeln!(out, "{line}");
        }
        letters.push(line);
        Ok(())
    })?;
    // A server of an earlier version does not say where it has come to.
    let next = done.next.or(last).filter(|_| done.more).map(|next| plain(&next));
    if args.source.json {
        if let Some(next) = next {
            eprintln!("mas dlq: there may be more: --after {next}");
        }
        return Ok(Exit::Done);
    }
    write!(out, "{}", letters_table(&letters))?;
    if let Some(next) = next {
        writeln!(out, "more: --after {next}")?;
    }
    Ok(Exit::Done)
}

fn show(args: &ShowArgs) -> Result<Exit, Trouble> {
    let ChangeArgs { source, why, .. } = &args.which;
    let command = Command::DeadLettersShow { which: args.which.wanted(), unmasked: args.unmasked };
    let mut out = std::io::stdout().lock();
    let done = source.carry_out(why, &command, |line| {
        if let Some(problem) = line.get("problem").and_then(Json::as_str) {
            let id = line.get("id").and_then(Json::as_str).unwrap_or_default();
            eprintln!("mas dlq: {}: {}", plain(id), plain(problem));
            return Ok(());
        }
        if source.json { writeln!(out, "{line}") } else { writeln!(out, "{}", letter_text(&line)) }
    })?;
    if done.more {
        eprintln!("mas dlq: there are more than are shown at once: name them by their ids");
    }
    Ok(exit_of(&done))
}

/// Redrives or drops.
fn change(args: &ChangeArgs, action: Action) -> Result<Exit, Trouble> {
    let wanted = args.wanted();
    let command = match action {
        Action::Redriven => Command::DeadLettersRedrive(wanted),
        _ => Command::DeadLettersDrop(wanted),
    };
    let mut out = std::io::stdout().lock();
    let done = args.source.carry_out(&args.why, &command, |line| {
        let word = |name: &str| plain(line.get(name).and_then(Json::as_str).unwrap_or_default());
        match (args.source.json, line.get("problem").is_some()) {
            (true, _) => writeln!(out, "{line}"),
            (false, false) => {
                let (what, id, whose) = (word("outcome"), word("id"), word("stream"));
                writeln!(out, "{what}  {id}  {whose}  {}", word("message_id"))
            }
            (false, true) => {
                eprintln!("mas dlq: {}: {}", word("id"), word("problem"));
                Ok(())
            }
        }
    })?;
    if !args.source.json {
        writeln!(out, "{} {}, {} left where they are", done.done, action.as_str(), done.failed)?;
        if done.more {
            writeln!(out, "there are more: --limit is {}", args.limit)?;
        }
    }
    Ok(exit_of(&done))
}

impl ChangeArgs {
    fn wanted(&self) -> WantedLetters {
        let ids = self.ids.iter().map(EntryId::to_string).collect();
        WantedLetters { ids, all: self.all, limit: self.limit, ..self.which.wanted() }
    }
}
