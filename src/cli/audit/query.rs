//! `mas audit query`: the records that fit, as they stand in the trail.

use std::io::{BufWriter, Write};
use std::ops::ControlFlow;

use clap::Args;

use super::filter::{FilterArgs, TimeArgs};
use super::formats::{Format, FormatArgs};
use super::source::SourceArgs;
use super::text::record_line;
use super::trouble::Trouble;
use super::verify::optional_config;
use crate::audit::json::record_json;
use crate::audit::{LaneId, View};
use crate::cli::exit::Exit;
use crate::history::records::each_record;
use crate::ids::hex;

const EXAMPLES: &str = "\
JSON lines, unless --text or --csv says otherwise.

Examples:
  mas audit query --sender planner --from 2h --text
  mas audit query --decision AUTHZ_DENIED --from 2026-01-01 --to 2026-02-01 --csv > denied.csv
  mas audit query --violation credit_card | jq -r .message_id";

/// Arguments of `query`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct QueryArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    time: TimeArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    format: FormatArgs,
    /// Stop after this many.
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,
}

pub(super) fn run(args: QueryArgs) -> Result<Exit, Trouble> {
    let range = args.time.range(false)?;
    let filter = args.filter.resolve()?;
    let config = optional_config(&args.source)?;
    let mut source = args.source.open(config.as_ref())?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let format = args.format.or(Format::Json);
    if let Some(heading) = heading(format) {
        writeln!(out, "{heading}").map_err(Trouble::output)?;
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    each_record::<Trouble>(&mut source, range, &mut |lane, record| {
        if !filter.holds(record) {
            return Ok(ControlFlow::Continue(()));
        }
        if left == 0 {
            return Ok(ControlFlow::Break(()));
        }
        left -= 1;
        writeln!(out, "{}", line(format, lane, record)).map_err(Trouble::output)?;
        Ok(ControlFlow::Continue(()))
    })?;
    out.flush().map_err(Trouble::output)?;
    Ok(Exit::Done)
}

/// What stands above the records.
pub(super) fn heading(format: Format) -> Option<String> {
    (format == Format::Csv).then(|| COLUMNS.join(","))
}

/// A record in one line.
pub(super) fn line(format: Format, lane: &LaneId, record: &View<'_>) -> String {
    match format {
        Format::Text => record_line(record),
        Format::Json => record_json(lane, record).to_string(),
        Format::Csv => csv_line(lane, record),
    }
}

/// Columns of the comma-separated form.
const COLUMNS: [&str; 23] = [
    "lane",
    "seq",
    "time",
    "action",
    "decision",
    "agent",
    "instance",
    "fingerprint",
    "message_id",
    "message_type",
    "target",
    "target_instance",
    "correlation_id",
    "payload_sha256",
    "payload_bytes",
    "attempt",
    "rule",
    "reason",
    "policy_version",
    "findings",
    "messages",
    "sender_seq",
    "trace",
];

/// A record as one line of RFC 4180.
fn csv_line(lane: &LaneId, record: &View<'_>) -> String {
    let messages: Vec<String> =
        record.messages.iter().map(|(id, attempt)| format!("{id}:{attempt}")).collect();
    let cells: [String; COLUMNS.len()] = [
        cell(lane.as_str()),
        record.seq.to_string(),
        crate::cli::text::time_text(record.time_us),
        record.action.as_str().to_owned(),
        record.decision.as_str().to_owned(),
        cell(record.agent),
        cell(record.instance),
        hex(record.fingerprint),
        record.message_id.map(|id| id.to_string()).unwrap_or_default(),
        cell(record.message_type),
        cell(record.target),
        cell(record.target_instance),
        record.correlation_id.map(|id| hex(id)).unwrap_or_default(),
        hex(record.payload_digest),
        record.payload_len.to_string(),
        record.attempt.to_string(),
        cell(record.rule),
        cell(record.reason),
        hex(record.policy_version),
        cell(record.findings),
        messages.join(" "),
        record.sender_seq.to_string(),
        cell(record.trace),
    ];
    cells.join(",")
}

/// Text of a stranger as one cell. Control characters are escaped, so that a record stays on one line; and
/// what a spreadsheet would take for a formula is kept from being one.
pub(crate) fn cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len() + 2);
    if text.starts_with(['=', '+', '-', '@']) {
        cell.push('\'');
    }
    cell.push_str(&crate::audit::verify::Plain(text).to_string());
    if cell.contains([',', '"']) {
        return format!("\"{}\"", cell.replace('"', "\"\""));
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_leaves_its_cell() {
        assert_eq!(cell("plain"), "plain");
        assert_eq!(cell("a,b"), "\"a,b\"");
        assert_eq!(cell("say \"hi\""), "\"say \"\"hi\"\"\"");
        assert_eq!(cell("a\r\nb"), "a\\r\\nb");
        assert_eq!(cell("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\"");
        assert_eq!(cell("\u{1b}[2J"), "\\u{1b}[2J");
    }
}
