//! `mas dlq archived` and `mas dlq restore`: dead letters in the files of archives.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value as Json, json};

use super::letters::{Which, letter_text, letters_table, parse_entry};
use crate::archive;
use crate::audit::Action;
use crate::cli::exit::Exit;
use crate::cli::operator::{Acted, MAX_CONFLICTS, Operator, Source, Trouble, Why};
use crate::cli::text::plain;
use crate::config::Config;
use crate::operation::shown::{letter_json, whole_json};
use crate::operation::{self, letters::fields};
use crate::store::answers::EntryId;
use crate::store::dead_letters::{self, Letter};
use crate::store::moved_letters::{self, RawLetter};

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
    /// The folder of an archive; else those of the configuration. Once for each.
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
    fn folders(&self, config: &Config) -> Vec<PathBuf> {
        if !self.archive.is_empty() {
            return self.archive.clone();
        }
        config.audit.archive_folders()
    }

    /// The letters that are meant, and whether there are more than the limit.
    fn letters(&self, config: &Config) -> Result<(Vec<RawLetter>, bool), Trouble> {
        let filter = self.which.filter()?;
        let folders = self.folders(config);
        if let Some(missing) = self.archive.iter().find(|folder| !folder.is_dir()) {
            return Err(Trouble::usage(format!("{}: there is no such folder", missing.display())));
        }
        let (mut found, mut is_cut) = (Vec::new(), false);
        let mut unread = |path: &Path, bytes: u64| {
            eprintln!("mas dlq: {}: {bytes} bytes at its end cannot be read", path.display());
        };
        archive::each_letter(&folders, &mut unread, &mut |raw| {
            let is_meant = if self.ids.is_empty() {
                self.after.is_none_or(|after| raw.id > after)
            } else {
                self.ids.contains(&raw.id)
            };
            if is_meant && filter.fits(&raw.letter()) {
                let is_room = (found.len() as u64) < self.limit;
                is_cut |= !is_room;
                if is_room {
                    found.push(raw);
                }
            }
            Ok(())
        })
        .map_err(|error| Trouble::refused(error.to_string()))?;
        Ok((found, is_cut))
    }

    /// Says where to go on, where the limit left some out.
    fn say_more(&self, found: &[RawLetter], is_cut: bool) {
        if let Some(last) = found.last().filter(|_| is_cut) {
            eprintln!("mas dlq: there are more: --after {}", last.id);
        }
    }
}

pub(super) fn list(args: &ArchivedArgs) -> Result<Exit, Trouble> {
    let chosen = &args.chosen;
    let (found, is_cut) = chosen.letters(&chosen.source.config()?)?;
    let as_json = if args.whole { whole_json } else { letter_json };
    let letters: Vec<Json> = found.iter().map(|letter| as_json(&letter.letter())).collect();
    let mut out = std::io::stdout().lock();
    match (chosen.source.json, args.whole) {
        (true, _) => {
            for letter in &letters {
                writeln!(out, "{letter}")?;
            }
        }
        (false, true) => {
            for letter in &letters {
                writeln!(out, "{}", letter_text(letter))?;
            }
        }
        (false, false) => write!(out, "{}", letters_table(&letters))?,
    }
    chosen.say_more(&found, is_cut);
    Ok(missing(chosen, &found, is_cut))
}

/// Says which of the named letters are in no file.
fn missing(chosen: &Chosen, found: &[RawLetter], is_cut: bool) -> Exit {
    let mut exit = Exit::Done;
    if is_cut {
        return exit;
    }
    for id in chosen.ids.iter().filter(|id| !found.iter().any(|letter| letter.id == **id)) {
        eprintln!("mas dlq: there is no dead letter {id} in a file");
        exit = Exit::Failed;
    }
    exit
}

pub(super) fn restore(args: &RestoreArgs) -> Result<Exit, Trouble> {
    let chosen = &args.chosen;
    if chosen.ids.is_empty() && chosen.which.filter()?.is_empty() && !args.all {
        return Err(Trouble::usage("which letters? Expected ids, filters, or --all".to_owned()));
    }
    let config = chosen.source.config()?;
    let (found, is_cut) = chosen.letters(&config)?;
    let mut exit = missing(chosen, &found, is_cut);
    let mut operator = Operator::connect(&config, &args.why.by())?;
    let restored = restore_all(&mut operator, chosen, &found);
    // Also after a failure: what was restored before it is covered.
    if let Some(receipt) = operator.close(&config) {
        eprintln!("mas: {receipt}");
    }
    if restored? > 0 {
        exit = Exit::Failed;
    }
    chosen.say_more(&found, is_cut);
    Ok(exit)
}

/// Brings letters back; how many stay where they are.
fn restore_all(operator: &mut Operator, chosen: &Chosen, found: &[RawLetter]) -> Result<u64, Trouble> {
    let mut out = std::io::stdout().lock();
    let (mut done, mut failed) = (0_u64, 0_u64);
    for raw in found {
        let letter = raw.letter();
        let message = letter.message_id().map(|id| id.to_string());
        match restore_one(operator, raw, &letter) {
            Ok(restored) => {
                done += 1;
                if chosen.source.json {
                    let line = json!({
                        "id": raw.id.to_string(), "restored_as": restored, "message_id": message,
                        "outcome": Action::LetterRestored.as_str(),
                    });
                    writeln!(out, "{line}")?;
                } else {
                    let (whose, message) = (plain(&letter.stream), message.unwrap_or_default());
                    writeln!(out, "restored  {}  as {restored}  {whose}  {message}", raw.id)?;
                }
            }
            Err(Trouble::Operation(operation::Trouble::Refused(why))) => {
                failed += 1;
                if chosen.source.json {
                    let line = json!({"id": raw.id.to_string(), "outcome": "failed", "problem": why});
                    writeln!(out, "{line}")?;
                } else {
                    eprintln!("mas dlq: {}: {why}", raw.id);
                }
            }
            Err(other) => return Err(other),
        }
    }
    if !chosen.source.json {
        writeln!(out, "{done} restored, {failed} left where they are")?;
    }
    Ok(failed)
}

/// Brings one letter back; the id that it has now.
fn restore_one(operator: &mut Operator, raw: &RawLetter, letter: &Letter) -> Result<String, Trouble> {
    if !letter.is_ours(&operator.keys) {
        return Err(Trouble::refused("no server has written it as it is".to_owned()));
    }
    // MULTI does not roll back: nothing goes on record that cannot be done.
    if dead_letters::letter(&mut operator.connection, raw.id)?.is_some() {
        return Err(Trouble::refused("it is in Redis still, under the same id".to_owned()));
    }
    for _ in 0..MAX_CONFLICTS {
        let record = crate::audit::Fields { target: &letter.stream, ..fields(letter) };
        let acted =
            operator.act(Action::LetterRestored, &record, |batch, _| moved_letters::restore(batch, raw))?;
        if let Acted::Done(answers) = acted {
            let id = answers.first().and_then(crate::store::answers::text).unwrap_or_default();
            return Ok(id.to_owned());
        }
    }
    Err(Trouble::refused("what it depends on keeps changing; try again".to_owned()))
}
