//! `mas audit show`: one message's life as one chain, from the request for it to its end, and its reply.
//!
//! Every step is on record in a lane, and each is shown with its place there: `mas audit proof` proves any of
//! them.

use std::io::Write;
use std::ops::ControlFlow;

use clap::Args;
use serde_json::{Value as Json, json};
use uuid::Uuid;

use super::query::each_record;
use super::source::{Range, Source, SourceArgs};
use super::subject::{Meant, Subject};
use super::trouble::Trouble;
use super::verify::optional_config;
use crate::audit::verify::Plain;
use crate::audit::{Action, Decision, LaneId, Record, View};
use crate::cli::exit::Exit;
use crate::cli::text::time_text;
use crate::ids::unhex;

/// Most steps of one message that are shown.
const MAX_STEPS: usize = 10_000;
/// A message's id carries its time; records may have been made this much before, in microseconds.
const CLOCK_SLACK_US: u64 = 60_000_000;

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

/// One step of a message's life.
struct Step {
    lane: LaneId,
    record: Record,
    /// Which delivery it is about; 0: none.
    attempt: u32,
}

pub(super) fn run(args: &ShowArgs) -> Result<Exit, Trouble> {
    let config = optional_config(&args.source)?;
    let mut source = Source::open(&args.source, config.as_ref())?;
    let message_id = match args.subject.look_up(&mut source, is_message)? {
        Meant::Message(message_id) => message_id,
        Meant::Record(text, json) => {
            let line = if args.json { json.to_string() } else { text };
            writeln!(std::io::stdout(), "{line}").map_err(Trouble::output)?;
            return Ok(Exit::Done);
        }
        Meant::Nothing => return Ok(not_on_record()),
    };
    let from_us = made_after_us(message_id);
    let messages = [*message_id.as_bytes()];
    let range = Range { from_us, to_us: None, messages: &messages, whole: false };
    let steps = collect(&mut source, range, &|record| about(record, message_id))?;
    let Some(asked) = steps.iter().find(|step| step.record.message_id == Some(message_id)) else {
        return Ok(not_on_record());
    };
    // Request and reply carry one correlation id.
    let correlation = asked.record.correlation_id.clone();
    let other = |record: &View<'_>| {
        let id = record.correlation_id.map(|id| crate::ids::hex(id));
        (record.message_id != Some(message_id) && id.as_deref() == Some(&correlation)).then_some(0)
    };
    let key = unhex(&correlation).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    let related = match key {
        None => Vec::new(),
        Some(key) => {
            // A reply's id is later than its request's; a request's is earlier than what is asked for here.
            let range = match asked.record.action {
                Action::Reply => Range::ALL,
                _ => range,
            };
            collect(&mut source, Range { messages: &[key], whole: false, ..range }, &other)?
        }
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

fn not_on_record() -> Exit {
    eprintln!("mas audit: that is not on record");
    Exit::Failed
}

/// Whether anything is on record of a message with that id.
fn is_message(source: &mut Source, id: Uuid) -> Result<bool, Trouble> {
    let messages = [*id.as_bytes()];
    let range = Range { from_us: made_after_us(id), to_us: None, messages: &messages, whole: false };
    let mut found = false;
    each_record(source, range, &mut |_, record| {
        found = record.message_id == Some(id);
        Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

/// From when on a message can be on record, Unix microseconds. Ids of version 7 begin with the time in
/// milliseconds: what is older need not be read.
pub(crate) fn made_after_us(id: Uuid) -> Option<u64> {
    let made_ms = (id.get_version_num() == 7).then_some((id.as_u128() >> 80) as u64)?;
    Some(made_ms.saturating_mul(1000).saturating_sub(CLOCK_SLACK_US))
}

/// The records that `about` wants, by time; it says which delivery each is about.
fn collect(
    source: &mut Source,
    range: Range<'_>,
    about: &dyn Fn(&View<'_>) -> Option<u32>,
) -> Result<Vec<Step>, Trouble> {
    let mut steps = Vec::new();
    each_record(source, range, &mut |lane, record| {
        if let Some(attempt) = about(record) {
            steps.push(Step { lane: lane.clone(), record: record.to_record(), attempt });
        }
        Ok(if steps.len() < MAX_STEPS { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    steps.sort_by(|a, b| {
        (a.record.time_us, &a.lane, a.record.seq).cmp(&(b.record.time_us, &b.lane, b.record.seq))
    });
    Ok(steps)
}

fn about(record: &View<'_>, id: Uuid) -> Option<u32> {
    if record.message_id == Some(id) {
        return Some(record.attempt);
    }
    record.messages.iter().find(|(message, _)| *message == id).map(|(_, attempt)| u32::from(attempt))
}

/// Where the message is now, by its last step that moved it.
fn state(steps: &[Step]) -> &'static str {
    let mut state = "unknown";
    for step in steps {
        state = match step.record.action {
            Action::Send | Action::Request | Action::Reply => match step.record.decision {
                Decision::Allowed | Decision::Alert | Decision::DlpRedacted => "accepted",
                _ => "refused",
            },
            Action::Delivered => "delivered",
            Action::Nack => "refused by its receiver",
            Action::Acked => "acknowledged",
            Action::DeadLetter => "dead",
            Action::Redriven => "put back",
            Action::Dropped => "dropped",
            Action::Expired => "expired",
            Action::EffectFailed => "not stored",
            _ => state,
        };
    }
    state
}

fn step_json(step: &Step) -> Json {
    let record = &step.record;
    json!({
        "lane": step.lane.as_str(), "seq": record.seq, "time_us": record.time_us,
        "action": record.action.as_str(), "decision": record.decision.as_str(),
        "agent": record.agent, "instance": record.instance, "target": record.target,
        "target_instance": record.target_instance,
        "message_id": record.message_id.map(|id| id.to_string()),
        "message_type": record.message_type, "correlation_id": record.correlation_id,
        "attempt": step.attempt, "rule": record.rule, "reason": record.reason,
        "payload_bytes": record.payload_len,
    })
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
