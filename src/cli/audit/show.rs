//! `mas audit show`: one message's life as one chain, from the request for it to its end, and its reply.
//!
//! Every step is on record in a lane, and each is shown with its place there: `mas audit proof` proves any of
//! them.

use std::io::Write;

use clap::Args;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::source::SourceArgs;
use super::trouble::Trouble;
use super::verify::optional_config;
use crate::audit::Action;
use crate::audit::verify::Plain;
use crate::cli::exit::Exit;
use crate::cli::text::time_text;
use crate::history::chain::{Chain, Step, chain, state, step_json};

/// Arguments of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
    /// The message.
    #[arg(value_name = "MESSAGE_ID")]
    message_id: Uuid,
}

pub(super) fn run(args: &ShowArgs) -> Result<Exit, Trouble> {
    let config = optional_config(&args.source)?;
    let mut source = args.source.open(config.as_ref())?;
    let Some(Chain { steps, related }) = chain(&mut source, args.message_id)? else {
        eprintln!("mas audit: message {} is not on record", args.message_id);
        return Ok(Exit::Failed);
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        let chain: Vec<Json> = steps.iter().map(step_json).collect();
        let related: Vec<Json> = related.iter().map(step_json).collect();
        let line = json!({
            "message_id": args.message_id.to_string(), "state": state(&steps), "chain": chain, "related": related,
        });
        writeln!(out, "{line}").map_err(Trouble::output)?;
        return Ok(Exit::Done);
    }
    writeln!(out, "message {}: {}", args.message_id, state(&steps)).map_err(Trouble::output)?;
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
