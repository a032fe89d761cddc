//! `mas dlq archived` and `mas dlq restore`: dead letters in the files of archives.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use super::letters::{Which, fields, letter_json, letter_text, letters_table, parse_entry};
use crate::archive::{self, ArchiveError};
use crate::audit::Action;
use crate::cli::exit::Exit;
use crate::cli::operator::{Acted, MAX_CONFLICTS, Operator, Source, Trouble, Why};
use crate::cli::text::plain;
use crate::config::Config;
use crate::store::answers::EntryId;
use crate::store::dead_letters::Letter;
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
        let own = config.audit.archive().map(Path::to_path_buf);
        own.into_iter().chain(config.audit.logs.iter().filter_map(|log| log.archive_dir.clone())).collect()
    }

    /// The letters that are meant, and whether there are more than the limit.
    fn letters(&self, config: &Config) -> Result<(Vec<RawLetter>, bool), Trouble> {
        let filter = self.which.filter()?;
        let (mut found, mut is_cut) = (Vec::new(), false);
        archive::each_letter(&self.folders(config), &mut |raw| {
            let is_named = self.ids.is_empty() || self.ids.contains(&raw.id);
            if is_named && filter.fits(&raw.letter()) {
                is_cut = found.len() as u64 >= self.limit;
                if !is_cut {
                    found.push(raw);
                }
            }
            Ok(())
        })
        .map_err(|error: ArchiveError| Trouble::Usage(error.to_string()))?;
        Ok((found, is_cut))
    }
}

pub(super) fn list(args: &ArchivedArgs) -> Result<Exit, Trouble> {
    let chosen = &args.chosen;
    let (found, is_cut) = chosen.letters(&chosen.source.config()?)?;
    let letters: Vec<Letter> = found.iter().map(RawLetter::letter).collect();
    let mut out = std::io::stdout().lock();
    match (chosen.source.json, args.whole) {
        (true, whole) => {
            for letter in &letters {
                writeln!(out, "{}", letter_json(letter, whole))?;
            }
        }
        (false, true) => {
            for letter in &letters {
                writeln!(out, "{}", letter_text(letter))?;
            }
        }
        (false, false) => write!(out, "{}", letters_table(&letters))?,
    }
    if is_cut && !chosen.source.json {
        writeln!(out, "there are more: --limit is {}", chosen.limit)?;
    }
    Ok(missing(chosen, &found))
}

/// Says which of the named letters are in no file.
fn missing(chosen: &Chosen, found: &[RawLetter]) -> Exit {
    let mut exit = Exit::Done;
    for id in chosen.ids.iter().filter(|id| !found.iter().any(|letter| letter.id == **id)) {
        eprintln!("mas dlq: there is no dead letter {id} in a file");
        exit = Exit::Failed;
    }
    exit
}

pub(super) fn restore(args: &RestoreArgs) -> Result<Exit, Trouble> {
    let chosen = &args.chosen;
    if chosen.ids.is_empty() && chosen.which.filter()?.is_empty() && !args.all {
        return Err(Trouble::Usage("which letters? Expected ids, filters, or --all".to_owned()));
    }
    let config = chosen.source.config()?;
    let (found, is_cut) = chosen.letters(&config)?;
    let mut exit = missing(chosen, &found);
    let mut operator = Operator::connect(&config, &args.why)?;
    let mut out = std::io::stdout().lock();
    let (mut done, mut failed) = (0_u64, 0_u64);
    for raw in &found {
        let letter = raw.letter();
        if !letter.is_ours(&operator.keys) {
            failed += 1;
            exit = Exit::Failed;
            eprintln!("mas dlq: {}: no server has written it as it is", raw.id);
            continue;
        }
        let restored = restore_one(&mut operator, raw, &letter)?;
        done += 1;
        let message = letter.message_id().map(|id| id.to_string());
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
    operator.close(&config)?;
    if !chosen.source.json {
        writeln!(out, "{done} restored, {failed} left where they are")?;
        if is_cut {
            writeln!(out, "there are more: --limit is {}", chosen.limit)?;
        }
    }
    Ok(exit)
}

/// Brings one letter back; the id that it has now.
fn restore_one(operator: &mut Operator, raw: &RawLetter, letter: &Letter) -> Result<String, Trouble> {
    for _ in 0..MAX_CONFLICTS {
        let record = crate::audit::Fields { target: &letter.stream, ..fields(letter) };
        let acted =
            operator.act(Action::LetterRestored, &record, |batch, _| moved_letters::restore(batch, raw))?;
        if let Acted::Done(answers) = acted {
            let id = answers.first().and_then(crate::store::answers::text).unwrap_or_default();
            return Ok(id.to_owned());
        }
    }
    Err(Trouble::Refused("what it depends on keeps changing; try again".to_owned()))
}
