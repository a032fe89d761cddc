//! `mas foreign`: what somebody else than a server has put into Redis, looked through and removed.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::exit::Exit;
use super::operator::{self, Source, Trouble, Why, exit_of};
use super::text::{plain, table, time_text};
use crate::operation::Command;
use crate::store::answers::EntryId;
use crate::store::foreign::{self, PutAside};

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

fn list(args: &ListArgs) -> Result<Exit, Trouble> {
    let mut connection = operator::connect(&args.source.config()?)?;
    let (mut found, mut after) = (Vec::new(), args.after);
    while (found.len() as u64) < args.limit {
        let page = foreign::list(&mut connection, after)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        found.extend(page);
    }
    found.truncate(usize::try_from(args.limit).unwrap_or(usize::MAX));
    let mut out = std::io::stdout().lock();
    if args.source.json {
        for aside in &found {
            writeln!(out, "{}", to_json(aside, false))?;
        }
        return Ok(Exit::Done);
    }
    let mut rows = vec![["ID", "FOUND", "KEY", "ENTRY", "SHA-256"].map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|aside| {
        vec![
            aside.id.to_string(),
            time_text(aside.time_ms.saturating_mul(1000)),
            plain(&aside.key),
            plain(&aside.entry),
            plain(&aside.digest),
        ]
    }));
    write!(out, "{}", table(&rows))?;
    Ok(Exit::Done)
}

fn show(args: &WhichArgs) -> Result<Exit, Trouble> {
    let mut connection = operator::connect(&args.source.config()?)?;
    let mut out = std::io::stdout().lock();
    let mut exit = Exit::Done;
    for id in &args.ids {
        match foreign::one(&mut connection, *id)? {
            None => {
                eprintln!("mas foreign: there is no {id}");
                exit = Exit::Failed;
            }
            Some(aside) if args.source.json => writeln!(out, "{}", to_json(&aside, true))?,
            Some(aside) => {
                writeln!(out, "{} of {} entry {}", aside.id, plain(&aside.key), plain(&aside.entry))?;
                for bytes in &aside.bytes {
                    writeln!(out, "  {}", plain(&String::from_utf8_lossy(bytes)))?;
                }
            }
        }
    }
    Ok(exit)
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

fn to_json(aside: &PutAside, whole: bool) -> Json {
    let mut line = json!({
        "id": aside.id.to_string(),
        "time_ms": aside.time_ms,
        "key": aside.key,
        "entry": aside.entry,
        "sha256": aside.digest,
    });
    if let (true, Json::Object(fields)) = (whole, &mut line) {
        let bytes: Vec<String> = aside.bytes.iter().map(|bytes| STANDARD.encode(bytes)).collect();
        let _ = fields.insert("base64".to_owned(), bytes.into());
    }
    line
}
