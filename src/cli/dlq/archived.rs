//! `mas dlq archived` and `mas dlq restore`: dead letters in the files of archives.

use std::io::Write;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value as Json;

use super::letters::{Which, letter_text, letters_table, parse_entry};
use crate::cli::exit::Exit;
use crate::cli::operator::{Source, Trouble, Why, exit_of};
use crate::cli::text::plain;
use crate::operation::{Command, Done, WantedLetters};
use crate::store::answers::EntryId;

/// Most letters that one command takes.
const MAX_LIMIT: u64 = 100_000;

/// Which letters in files.
#[derive(Debug, Args)]
struct Chosen {
    /// The letters, by the ids that `archived` shows.
    #[arg(value_name = "ID", value_parser = parse_entry)]
    ids: Vec<EntryId>,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    which: Which,
    /// The folder of an archive, once for each; else those of the server's configuration. Named folders are read here.
    #[arg(long, value_name = "DIR")]
    archive: Vec<PathBuf>,
    /// Letters behind this one: where the command before ended.
    #[arg(long, value_name = "ID", value_parser = parse_entry)]
    after: Option<EntryId>,
    /// Letters at most, oldest first.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=MAX_LIMIT))]
    limit: u64,
}

/// Arguments of `archived`.
#[derive(Debug, Args)]
pub struct ArchivedArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Show them whole: payload, and how each delivery failed.
    #[arg(long)]
    whole: bool,
    /// Show also what the rules of data-loss prevention would block or redact. Of a running server for operators alone, and on
    /// record.
    #[arg(long, requires = "whole")]
    unmasked: bool,
    #[command(flatten)]
    why: Why,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    #[command(flatten)]
    chosen: Chosen,
    /// Every letter that is in files.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    why: Why,
}

impl Chosen {
    fn wanted(&self, all: bool) -> WantedLetters {
        let ids = self.ids.iter().map(EntryId::to_string).collect();
        WantedLetters { ids, all, limit: self.limit, ..self.which.wanted() }
    }

    fn after(&self) -> Option<String> {
        self.after.map(|after| after.to_string())
    }

    /// Has it carried out: where folders are named, here. What is wrong with a letter goes to standard error.
    fn carry_out(
        &self,
        why: &Why,
        command: &Command,
        mut say: impl FnMut(Json) -> std::io::Result<()>,
    ) -> Result<Exit, Trouble> {
        let mut last = None;
        let each = |line: Json| {
            let id = line.get("id").and_then(Json::as_str).map(plain);
            if let Some(problem) = line.get("problem").and_then(Json::as_str) {
                let which = id.as_ref().map(|id| format!("{id}: ")).unwrap_or_default();
                eprintln!("mas dlq: {which}{}", plain(problem));
                let is_outcome = line.get("outcome").is_some();
                return if self.source.json && is_outcome { say(line) } else { Ok(()) };
            }
            last = id;
            say(line)
        };
        let done: Done = match self.archive.is_empty() {
            true => self.source.carry_out(why, command, each)?,
            false => self.source.carry_out_here(why, command, each)?,
        };
        if let Some(last) = last.filter(|_| done.more) {
            eprintln!("mas dlq: there are more: --after {last}");
        }
        Ok(exit_of(&done))
    }
}

pub(super) fn list(args: &ArchivedArgs) -> Result<Exit, Trouble> {
    let chosen = &args.chosen;
    let command = Command::DeadLettersArchived {
        which: chosen.wanted(false),
        after: chosen.after(),
        whole: args.whole,
        unmasked: args.unmasked,
        archive: chosen.archive.clone(),
    };
    let mut out = std::io::stdout().lock();
    let mut letters = Vec::new();
    let exit = chosen.carry_out(&args.why, &command, |line| {
        if chosen.source.json {
            return writeln!(out, "{line}");
        }
        if args.whole {
            return writeln!(out, "{}", letter_text(&line));
        }
        letters.push(line);
        Ok(())
    })?;
    if !chosen.source.json && !args.whole {
        write!(out, "{}", letters_table(&letters))?;
    }
    Ok(exit)
}

pub(super) fn restore(args: &RestoreArgs) -> Result<Exit, Trouble> {
    let chosen = &args.chosen;
    let command = Command::DeadLettersRestore {
        which: chosen.wanted(args.all),
        after: chosen.after(),
        archive: chosen.archive.clone(),
    };
    let mut out = std::io::stdout().lock();
    let mut restored = 0;
    let exit = chosen.carry_out(&args.why, &command, |line| {
        if chosen.source.json {
            return writeln!(out, "{line}");
        }
        restored += 1;
        let word = |name: &str| plain(line.get(name).and_then(Json::as_str).unwrap_or_default());
        let (id, now, whose) = (word("id"), word("restored_as"), word("stream"));
        writeln!(out, "restored  {id}  as {now}  {whose}  {}", word("message_id"))
    })?;
    if !chosen.source.json {
        writeln!(out, "{restored} restored")?;
    }
    Ok(exit)
}
