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
use crate::operation::letters::Letters;
use crate::operation::{Command, WantedLetters};
use crate::store::answers::EntryId;
use crate::store::dead_letters;
use archived::{ArchivedArgs, RestoreArgs};
use letters::{Which, letter_json, letter_text, letters_table, parse_entry};

/// Most letters that `list` shows at once.
const MAX_LIST: u64 = 1000;

/// Subcommands of `mas dlq`.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Show dead letters, oldest first, a page at a time.
    List(ListArgs),
    /// Show letters whole: payload, and how each delivery failed.
    Show(ChangeArgs),
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
    let filter = args.which.filter()?;
    let mut connection = operator::connect(&args.source.config()?)?;
    let found = dead_letters::find(&mut connection, &filter, args.after, args.limit as usize)?;
    let mut out = std::io::stdout().lock();
    if args.source.json {
        for letter in &found.letters {
            writeln!(out, "{}", letter_json(letter, false))?;
        }
        return Ok(Exit::Done);
    }
    write!(out, "{}", letters_table(&found.letters))?;
    if let Some(after) = found.after {
        writeln!(out, "more: --after {after}")?;
    }
    Ok(Exit::Done)
}

fn show(args: &ChangeArgs) -> Result<Exit, Trouble> {
    let (ids, filter) = args.wanted().chosen()?;
    let mut connection = operator::connect(&args.source.config()?)?;
    let mut out = std::io::stdout().lock();
    let mut exit = Exit::Done;
    let mut letters = Letters::new(ids, filter, args.limit, &mut connection)?;
    while let Some(next) = letters.next(&mut connection)? {
        match next {
            Err(id) => {
                eprintln!("mas dlq: there is no dead letter {id}");
                exit = Exit::Failed;
            }
            Ok(letter) if args.source.json => writeln!(out, "{}", letter_json(&letter, true))?,
            Ok(letter) => writeln!(out, "{}", letter_text(&letter))?,
        }
    }
    Ok(exit)
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
