//! `mas dlp report`: what was found in messages, from the trail, so that an operator can write the exception that is needed and no
//! larger one.

use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;

use clap::Args;
use serde_json::{Value as Json, json};

use crate::audit::verify::Plain;
use crate::audit::{Action, Decision, View};
use crate::cli::audit::filter::TimeArgs;
use crate::cli::audit::{SourceArgs, Trouble};
use crate::cli::exit::Exit;
use crate::cli::text::time_text;
use crate::config::Config;
use crate::history::filter::findings;
use crate::history::records::each_record;
use crate::policy::MAX_POINTER_CHARS;

/// Rows that are counted; findings of further ones are counted together.
const MAX_ROWS: usize = 100_000;

const EXAMPLES: &str = "\
Array places in pointers are shown as `*`. What was found is on record by its type and place, never with its text.

Examples:
  mas dlp report --from 7d
  mas dlp report --from 7d --sender planner --json
  mas dlp report --from 7d --exceptions   # a line of gateway.dlp.exceptions for each row that was changed or refused";

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct ReportArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    time: TimeArgs,
    /// Of this sender.
    #[arg(long, value_name = "AGENT")]
    sender: Option<String>,
    /// For this agent.
    #[arg(long, value_name = "AGENT")]
    target: Option<String>,
    /// How many rows, the most frequent first.
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    top: usize,
    /// One JSON object a row, then one with the sums.
    #[arg(long, conflicts_with = "exceptions")]
    json: bool,
    /// The exceptions that would let pass what was changed or refused, as YAML.
    #[arg(long)]
    exceptions: bool,
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Row {
    kind: String,
    rule: String,
    from: String,
    to: String,
    message_type: String,
    pointer: String,
    action: String,
    exception: String,
}

#[derive(Debug, Default)]
struct Sums {
    rows: HashMap<Row, (u64, u64)>,
    /// Findings of which the record says no more than their number, and those beyond [`MAX_ROWS`].
    unlisted: u64,
    messages: u64,
    /// Messages that were not searched to their end.
    given_up: u64,
}

pub(super) fn run(args: ReportArgs) -> Exit {
    match report(args) {
        Ok(()) => Exit::Done,
        Err(trouble) => {
            let exit = trouble.exit();
            if exit != Exit::Done {
                eprintln!("mas dlp report: {trouble}");
            }
            exit
        }
    }
}

fn report(args: ReportArgs) -> Result<(), Trouble> {
    let range = args.time.range(false)?;
    let config = match args.source.export.is_empty() {
        true => Some(
            Config::locate_and_load(args.source.config.as_deref())
                .map_err(|error| Trouble::Usage(error.to_string()))?,
        ),
        false => None,
    };
    let mut source = args.source.open(config.as_ref())?;
    let mut sums = Sums::default();
    each_record::<Trouble>(&mut source, range, &mut |_, record| {
        let is = |wanted: &Option<String>, name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
        if is(&args.sender, record.agent) && is(&args.target, record.target) {
            sums.add(record);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut rows: Vec<(&Row, &(u64, u64))> = sums.rows.iter().collect();
    rows.sort_by(|(one, (count, _)), (other, (others, _))| others.cmp(count).then_with(|| one.cmp(other)));
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = if args.exceptions {
        write_exceptions(&mut out, &rows, args.top)
    } else if args.json {
        write_json(&mut out, &rows, args.top, &sums)
    } else {
        write_text(&mut out, &rows, args.top, &sums)
    };
    written.and_then(|()| out.flush()).map_err(Trouble::output)
}

impl Sums {
    fn add(&mut self, record: &View<'_>) {
        if !matches!(record.action, Action::Send | Action::Request | Action::Reply) {
            return;
        }
        if record.rule == "dlp.work_budget" {
            self.given_up += 1;
        }
        if record.findings.is_empty() {
            return;
        }
        self.messages += 1;
        for found in findings(record) {
            self.unlisted += found.further;
            if found.kind.is_empty() {
                continue;
            }
            let row = Row {
                kind: found.kind,
                rule: found.rule,
                from: record.agent.to_owned(),
                to: record.target.to_owned(),
                message_type: record.message_type.to_owned(),
                pointer: pattern(&found.pointer),
                action: found.action,
                exception: found.exception,
            };
            // A message that was refused for something else was not changed for this.
            let stops = u64::from(matches!(record.decision, Decision::DlpBlocked | Decision::DlpRedacted));
            if let Some((count, stopped)) = self.rows.get_mut(&row) {
                *count += 1;
                *stopped += stops;
            } else if self.rows.len() < MAX_ROWS {
                let _ = self.rows.insert(row, (1, stops));
            } else {
                self.unlisted += 1;
            }
        }
    }
}

/// A pointer with `*` for places in arrays and for keys that are not shown; of one that was cut the rest is left open.
fn pattern(pointer: &str) -> String {
    if !pointer.starts_with('/') {
        return pointer.to_owned();
    }
    let is_cut = pointer.chars().count() >= MAX_POINTER_CHARS;
    let mut steps: Vec<&str> = pointer.split('/').collect();
    if is_cut {
        let _ = steps.pop();
        steps.push("**");
    }
    let step = |step: &&str| {
        let is_place = !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
        if is_place || step.contains("[REDACTED") || step.contains("XXX-XX-") {
            "*".to_owned()
        } else {
            (*step).to_owned()
        }
    };
    steps.iter().map(step).collect::<Vec<_>>().join("/")
}

fn write_text(
    out: &mut impl Write,
    rows: &[(&Row, &(u64, u64))],
    top: usize,
    sums: &Sums,
) -> std::io::Result<()> {
    writeln!(out, "{} messages with findings, {} rows", sums.messages, rows.len())?;
    for (row, (count, _)) in rows.iter().take(top) {
        let Row { kind, rule, from, to, message_type, pointer, action, exception } = row;
        let (from, to, pointer) = (Plain(from), Plain(to), Plain(pointer));
        write!(
            out,
            "{count:>8}  {action:<6}  {kind:<18} {from} -> {to}  {message_type:?} {pointer}  {rule}"
        )?;
        if !exception.is_empty() {
            write!(out, "  by {exception}")?;
        }
        writeln!(out)?;
    }
    write_rest(out, rows.len(), top, sums)
}

fn write_rest(out: &mut impl Write, rows: usize, top: usize, sums: &Sums) -> std::io::Result<()> {
    if rows > top {
        writeln!(out, "{} rows are not shown; --top {rows} shows them", rows - top)?;
    }
    if sums.unlisted > 0 {
        writeln!(out, "{} findings are on record by their number only", sums.unlisted)?;
    }
    if sums.given_up > 0 {
        writeln!(out, "{} messages were refused because they were not searched to their end", sums.given_up)?;
    }
    Ok(())
}

fn write_json(
    out: &mut impl Write,
    rows: &[(&Row, &(u64, u64))],
    top: usize,
    sums: &Sums,
) -> std::io::Result<()> {
    for (row, (count, stopped)) in rows.iter().take(top) {
        let none_if_empty = |text: &str| if text.is_empty() { Json::Null } else { Json::from(text) };
        let line = json!({
            "count": count, "stopped": stopped, "type": row.kind, "rule": row.rule, "from": row.from, "to": row.to,
            "message_type": row.message_type, "pointer": row.pointer, "action": row.action,
            "exception": none_if_empty(&row.exception),
        });
        writeln!(out, "{line}")?;
    }
    let sums = json!({
        "messages": sums.messages, "rows": rows.len(), "unlisted": sums.unlisted, "given_up": sums.given_up,
    });
    writeln!(out, "{sums}")
}

/// YAML for `gateway.dlp.exceptions`: a text in JSON is one in YAML, too. What an exception cannot say, or only with more than
/// was seen, is a comment.
fn write_exceptions(out: &mut impl Write, rows: &[(&Row, &(u64, u64))], top: usize) -> std::io::Result<()> {
    let stopped = rows.iter().filter(|(row, _)| matches!(row.action.as_str(), "block" | "redact"));
    for (row, (count, _)) in stopped.take(top) {
        let text = |text: &str| Json::from(text).to_string();
        let seen = format!("{count} times until {}", time_text(crate::clock::Now::read().unix_us));
        let stated = [&row.from, &row.to, &row.message_type].iter().any(|text| text.contains('*'));
        let starred = row.pointer.split('/').any(|step| step.contains('*') && step != "*");
        let mark = if stated || starred { "# not as it was seen: " } else { "" };
        writeln!(
            out,
            "{mark}- {{from: {}, to: {}, type: {}, pointer: {}, kind: {}, rule: {}, action: alert, reason: {}}}",
            text(&row.from),
            text(&row.to),
            text(&row.message_type),
            text(&row.pointer),
            text(&row.kind),
            text(&row.rule),
            text(&seen),
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_patterns_of_what_was_seen() {
        for (pointer, shown) in [
            ("/items/12/note", "/items/*/note"),
            ("/a1/b", "/a1/b"),
            ("message_type", "message_type"),
            ("/[REDACTED:email]/x", "/*/x"),
            ("/", "/"),
        ] {
            assert_eq!(pattern(pointer), shown);
        }
        let long = format!("/a/{}", "x".repeat(MAX_POINTER_CHARS));
        let cut: String = long.chars().take(MAX_POINTER_CHARS).collect();
        assert_eq!(pattern(&cut), "/a/**");
    }
}
