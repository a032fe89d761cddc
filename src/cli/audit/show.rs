//! `mas audit show`: one message's life as one chain, from the request for it to its end, and its reply.
//!
//! Every step is on record in a lane, and each is shown with its place there: `mas audit proof` proves any of
//! them.

use std::io::Write;

use clap::Args;
use serde_json::{Value as Json, json};

use super::source::SourceArgs;
use super::subject::{Meant, Subject};
use super::trouble::Trouble;
use super::verify::optional_config;
use crate::audit::Action;
use crate::audit::record::LATER_RULE;
use crate::audit::verify::Plain;
use crate::cli::exit::Exit;
use crate::cli::text::time_text;
use crate::history::chain::{Chain, Step, chain, state, step_json};

const EXAMPLES: &str = "\
Examples:
  mas audit show 01890a5d-ac96-774b-bcce-b302099a8057       # a message
  mas audit show 6f1c3ad0f6ab4d7e9d0c1b2a3c4d5e6f           # a request and its reply, by their correlation id
  mas audit show LANE:SEQ                                   # a receipt, as mas send prints it";

/// Arguments of `show`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ShowArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// A message's id, the correlation id of a request, or a receipt as LANE:SEQ.
    #[arg(value_name = "ID", value_parser = Subject::parse)]
    subject: Subject,
}

pub(super) fn run(args: &ShowArgs) -> Result<Exit, Trouble> {
    let config = optional_config(&args.source)?;
    let mut source = args.source.open(config.as_ref())?;
    let not_on_record = || {
        eprintln!("mas audit: that is not on record");
        Ok(Exit::Failed)
    };
    let message_id = match args.subject.look_up(&mut source)? {
        Meant::Message(message_id) => message_id,
        Meant::Record(text, json) => {
            let line = if args.json { json.to_string() } else { text };
            writeln!(std::io::stdout(), "{line}").map_err(Trouble::output)?;
            return Ok(Exit::Done);
        }
        Meant::Nothing => return not_on_record(),
    };
    let Some(Chain { steps, related }) = chain(&mut source, message_id)? else {
        return not_on_record();
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        let chain: Vec<Json> = steps.iter().map(step_json).collect();
        let related: Vec<Json> = related.iter().map(step_json).collect();
        let line = json!({
            "message_id": message_id.to_string(), "state": state(&steps), "chain": chain, "related": related,
        });
        writeln!(out, "{line}").map_err(Trouble::output)?;
        return Ok(Exit::Done);
    }
    writeln!(out, "message {message_id}: {}", state(&steps)).map_err(Trouble::output)?;
    for step in &steps {
        writeln!(out, "  {}", step_line(step)).map_err(Trouble::output)?;
    }
    for step in &related {
        let id = step.record.message_id.map(|id| id.to_string()).unwrap_or_default();
        let what = if step.record.action == Action::Reply { "its reply" } else { "it answers" };
        writeln!(out, "{what}: message {id}").map_err(Trouble::output)?;
        writeln!(out, "  {}", step_line(step)).map_err(Trouble::output)?;
    }
    Ok(Exit::Done)
}

fn step_line(step: &Step) -> String {
    let record = &step.record;
    let who = match record.instance.is_empty() {
        true => Plain(&record.agent).to_string(),
        false => format!("{}/{}", Plain(&record.agent), Plain(&record.instance)),
    };
    let what = match record.action {
        Action::Send | Action::Request | Action::Reply => {
            let refused =
                if record.reason.is_empty() { String::new() } else { format!(" ({})", record.reason) };
            format!(
                "{} from {who} to {}, type {:?}, {} bytes: {}{refused}, rule {}",
                record.action.as_str(),
                Plain(&record.target),
                record.message_type,
                record.payload_len,
                record.decision.as_str(),
                Plain(&record.rule),
            )
        }
        Action::Delivered => format!("delivered to {who}, delivery {}", step.attempt),
        Action::Acked => format!("acknowledged by {who}, delivery {}", step.attempt),
        Action::Nack if record.rule == LATER_RULE => {
            format!("put off by {who}: {}", Plain(&record.reason))
        }
        Action::Nack => {
            format!("refused by {who}, delivery {}, {}: {}", step.attempt, record.rule, Plain(&record.reason))
        }
        Action::DeadLetter => {
            format!(
                "to the dead letters of {who} after {} deliveries: {}",
                step.attempt,
                Plain(&record.reason)
            )
        }
        _ => format!("{} {who} {}", record.action.as_str(), Plain(&record.reason)),
    };
    format!("{}  {what}  [{} {}]", time_text(record.time_us), step.lane, record.seq)
}
