//! `mas dlq`: dead letters looked through, put back, removed. Each letter that is put back or removed goes on
//! record in the transaction that does it. `archived`: those that were moved to files; `letters`: which ones,
//! and how they are shown.

mod archived;
mod letters;

use std::io::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::audit::{Action, Fields};
use crate::cli::exit::Exit;
use crate::cli::operator::{self, Acted, MAX_CONFLICTS, Operator, Source, Trouble, Why};
use crate::cli::text::plain;
use crate::config::Config;
use crate::store::Connection;
use crate::store::answers::EntryId;
use crate::store::dead_letters::{self, Filter, Held, Letter, Origin};
use archived::{ArchivedArgs, RestoreArgs};
use letters::{Which, fields, letter_json, letter_text, letters_table, parse_entry};

/// Most letters that `list` shows at once.
const MAX_LIST: u64 = 1000;
/// Letters that `show`, `redrive` and `drop` look up in one step.
const STEP: usize = 16;

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
    let filter = args.filter()?;
    let mut connection = operator::connect(&args.source.config()?)?;
    let mut out = std::io::stdout().lock();
    let mut exit = Exit::Done;
    let mut letters = Letters::new(args, filter, &mut connection)?;
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
    let filter = args.filter()?;
    let config = args.source.config()?;
    let mut operator = Operator::connect(&config, &args.why)?;
    let mut letters = Letters::new(args, filter, &mut operator.connection)?;
    let mut out = std::io::stdout().lock();
    let (mut done, mut failed) = (0_u64, 0_u64);
    while let Some(next) = letters.next(&mut operator.connection)? {
        let id = match &next {
            Ok(letter) => letter.id,
            Err(id) => *id,
        };
        match change_one(&mut operator, &config, id, action) {
            Ok(letter) => {
                done += 1;
                let message = letter.message_id().map(|id| id.to_string());
                if args.source.json {
                    let line = json!({
                        "id": id.to_string(), "message_id": message, "outcome": action.as_str(),
                        "agent_id": letter.agent, "stream": letter.stream,
                    });
                    writeln!(out, "{line}")?;
                } else {
                    let (what, whose) = (action.as_str(), plain(&letter.stream));
                    writeln!(out, "{what}  {id}  {whose}  {}", message.unwrap_or_default())?;
                }
            }
            Err(Trouble::Refused(why)) => {
                failed += 1;
                if args.source.json {
                    let line = json!({"id": id.to_string(), "outcome": "failed", "problem": why});
                    writeln!(out, "{line}")?;
                } else {
                    eprintln!("mas dlq: {id}: {why}");
                }
            }
            Err(other) => return Err(other),
        }
    }
    operator.close(&config)?;
    if !args.source.json {
        writeln!(out, "{done} {}, {failed} left where they are", action.as_str())?;
        if letters.is_cut() {
            writeln!(out, "there are more: --limit is {}", args.limit)?;
        }
    }
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

fn change_one(
    operator: &mut Operator,
    config: &Config,
    id: EntryId,
    action: Action,
) -> Result<Letter, Trouble> {
    let own = operator.name().to_owned();
    for _ in 0..MAX_CONFLICTS {
        let letter = match dead_letters::hold(&mut operator.connection, id, &own)? {
            Held::Ours(letter) => *letter,
            Held::Gone => {
                dead_letters::release(&mut operator.connection, id, &own)?;
                return Err(Trouble::Refused("there is no such dead letter".to_owned()));
            }
            Held::Taken => {
                dead_letters::release(&mut operator.connection, id, &own)?;
                return Err(Trouble::Refused("another operator deals with it right now".to_owned()));
            }
        };
        let acted = match action {
            Action::Redriven => redrive(operator, config, &letter),
            _ => {
                let mut fields = Fields { target: &letter.stream, ..fields(&letter) };
                if !letter.is_ours(&operator.keys) {
                    // No message of anybody's.
                    (fields.message_id, fields.rule) = (None, "not_written_by_a_server");
                }
                Ok(operator.act(action, &fields, |batch, _| dead_letters::remove(batch, id))?)
            }
        };
        match acted {
            Ok(Acted::Done(_)) => return Ok(letter),
            Ok(Acted::Conflict) => {}
            Err(refused @ Trouble::Refused(_)) => {
                dead_letters::release(&mut operator.connection, id, &own)?;
                return Err(refused);
            }
            Err(other) => return Err(other),
        }
    }
    Err(Trouble::Refused("what it depends on keeps changing; try again".to_owned()))
}

fn redrive(operator: &mut Operator, config: &Config, letter: &Letter) -> Result<Acted, Trouble> {
    let refused = |why: String| Err(Trouble::Refused(why));
    if !letter.is_ours(&operator.keys) {
        return refused("no server has written it; `mas dlq drop` removes it".to_owned());
    }
    let max_len = config.limits.max_queue_len;
    let (stream, agent, instance) = match dead_letters::origin(&mut operator.connection, letter, max_len)? {
        Origin::Inbox { stream, agent, instance } => (stream, agent, instance),
        Origin::InstanceGone(instance) => {
            return refused(format!("it was for instance {instance} alone, which is gone"));
        }
        Origin::Full(len) => return refused(format!("the inbox holds {len} messages already")),
        Origin::Foreign(kind) => return refused(format!("the inbox's key holds a {kind}")),
        Origin::Unknown => return refused("it does not say which inbox it came from".to_owned()),
    };
    if !config.agents.contains_key(&agent) {
        return refused(format!("{agent} is not in `agents` any more"));
    }
    let servers = dead_letters::servers(&mut operator.connection)?;
    let fields = Fields {
        target: agent.as_str(),
        target_instance: instance.as_ref().map_or("", |instance| instance.as_str()),
        ..fields(letter)
    };
    let redriven = operator.act(Action::Redriven, &fields, |batch, on| {
        dead_letters::redrive(batch, (letter, &agent, &stream), &servers, on.keys, on.first());
    });
    Ok(redriven?)
}

impl ChangeArgs {
    fn filter(&self) -> Result<Filter, Trouble> {
        let filter = self.which.filter()?;
        let usage = |text: &str| Err(Trouble::Usage(text.to_owned()));
        match (self.ids.is_empty(), filter.is_empty(), self.all) {
            (true, true, false) => usage("which letters? Expected ids, filters, or --all"),
            (false, false, _) | (false, _, true) => usage("expected either ids, or filters or --all"),
            _ => Ok(filter),
        }
    }
}

/// The letters that a command is about, a few at a time.
struct Letters {
    ids: std::vec::IntoIter<EntryId>,
    filter: Option<Filter>,
    after: Option<EntryId>,
    waiting: std::vec::IntoIter<Letter>,
    left: u64,
    ended: bool,
}

impl Letters {
    fn new(args: &ChangeArgs, mut filter: Filter, connection: &mut Connection) -> Result<Self, Trouble> {
        let by_id = !args.ids.is_empty();
        let mut ended = by_id;
        if !by_id {
            match dead_letters::newest(connection)? {
                // What is put back may die again while this goes on: it is not among those that were meant.
                Some(newest) => filter.to_ms = Some(filter.to_ms.map_or(newest.ms, |to| to.min(newest.ms))),
                None => ended = true,
            }
        }
        Ok(Self {
            ids: args.ids.clone().into_iter(),
            filter: (!by_id).then_some(filter),
            after: None,
            waiting: Vec::new().into_iter(),
            left: args.limit,
            ended,
        })
    }

    /// Whether the limit left some out, as far as is known.
    fn is_cut(&self) -> bool {
        self.left == 0 && (!self.ended || self.waiting.len() > 0 || self.ids.len() > 0)
    }

    /// The next one, or the id of one that is not there.
    fn next(&mut self, connection: &mut Connection) -> Result<Option<Result<Letter, EntryId>>, Trouble> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        if let Some(id) = self.ids.next() {
            return Ok(Some(dead_letters::letter(connection, id)?.ok_or(id)));
        }
        if let Some(letter) = self.waiting.next() {
            return Ok(Some(Ok(letter)));
        }
        let Some(filter) = self.filter.as_ref().filter(|_| !self.ended) else {
            return Ok(None);
        };
        let found = dead_letters::find(connection, filter, self.after, STEP)?;
        self.after = found.after;
        self.ended = found.after.is_none();
        self.waiting = found.letters.into_iter();
        Ok(self.waiting.next().map(Ok))
    }
}
