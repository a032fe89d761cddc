//! `mas audit`: is the trail what was written, and what does it say?

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::audit_key::{self, KeyCommand};
use super::exit::Exit;
use crate::audit::verify::{Damage, LaneEnd, LaneVerifier, check_lanes};
use crate::audit::{LaneId, Record, lane};
use crate::config::Config;
use crate::ids::hex;
use crate::store::{Connection, StoreError, trail};

/// Records between two lines of progress on a terminal.
const PROGRESS_RECORDS: u64 = 100_000;
/// Wait between two looks at the trail when following it.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// Most records that `tail` shows of the past.
const MAX_TAIL: usize = 100_000;

/// Subcommands of `mas audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check every lane: contiguity, hashes, registry. Exit 3 names what is damaged.
    Verify(VerifyArgs),
    /// Show the newest records.
    Tail(TailArgs),
    /// The key that signs checkpoints: show it, replace it.
    #[command(subcommand)]
    Key(KeyCommand),
}

/// Which trail.
#[derive(Debug, Args)]
pub struct Source {
    /// The configuration whose Redis holds the trail; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    source: Source,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Arguments of `tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    #[command(flatten)]
    source: Source,
    /// How many records of the past.
    #[arg(short = 'n', long, default_value_t = 20)]
    lines: usize,
    /// Go on with what is recorded from now on.
    #[arg(short, long)]
    follow: bool,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
}

/// Runs one command.
pub fn run(command: AuditCommand) -> Exit {
    let source = match &command {
        AuditCommand::Verify(args) => &args.source,
        AuditCommand::Tail(args) => &args.source,
        AuditCommand::Key(command) => return audit_key::run(command),
    };
    let mut connection = match connect(source) {
        Ok(connection) => connection,
        Err(exit) => return exit,
    };
    let outcome = match command {
        AuditCommand::Verify(args) => verify(&mut connection, &args),
        AuditCommand::Tail(args) => tail(&mut connection, &args),
        AuditCommand::Key(command) => return audit_key::run(&command),
    };
    match outcome {
        Ok(exit) => exit,
        Err(Trouble::Store(error)) => {
            eprintln!("mas audit: {error}");
            Exit::Failed
        }
        // Nobody reads on: `mas audit tail | head`.
        Err(Trouble::Output) => Exit::Done,
    }
}

enum Trouble {
    Store(StoreError),
    Output,
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(_: std::io::Error) -> Self {
        Self::Output
    }
}

fn connect(source: &Source) -> Result<Connection, Exit> {
    let config = Config::locate_and_load(source.config.as_deref()).map_err(|error| {
        eprintln!("mas audit: {error}");
        Exit::Usage
    })?;
    let timeout = Duration::from_millis(config.redis.timeout_ms);
    Connection::open(&config.redis.url, timeout).map_err(|error| {
        eprintln!("mas audit: {error}");
        Exit::Failed
    })
}

/// What a verification found.
#[derive(Debug, Default)]
pub struct Report {
    /// Records whose chain is intact.
    pub records: u64,
    /// Lanes looked at.
    pub lanes: usize,
    /// What is wrong; empty: intact.
    pub damages: Vec<Damage>,
    /// Records by decision.
    pub decisions: BTreeMap<&'static str, u64>,
}

/// Verifies the whole trail behind a connection, in bounded memory.
pub fn verify_trail(
    connection: &mut Connection,
    progress: &mut dyn FnMut(u64),
) -> Result<Report, StoreError> {
    let lanes = trail::lanes(connection)?;
    let mut report = Report { lanes: lanes.existing.len(), ..Report::default() };
    let mut ends: Vec<LaneEnd> = Vec::new();
    for lane in &lanes.existing {
        match verify_lane(connection, lane, &mut report, progress)? {
            Ok(end) => ends.push(end),
            Err(damage) => report.damages.push(damage),
        }
    }
    let broken: Vec<LaneId> = report.damages.iter().map(|damage| damage.lane.clone()).collect();
    let related = check_lanes(&ends, &lanes.registered);
    // A lane that is damaged inside is reported once, not also as missing or differing.
    report.damages.extend(related.into_iter().filter(|damage| !broken.contains(&damage.lane)));
    Ok(report)
}

fn verify_lane(
    connection: &mut Connection,
    lane: &LaneId,
    report: &mut Report,
    progress: &mut dyn FnMut(u64),
) -> Result<Result<LaneEnd, Damage>, StoreError> {
    let mut verifier = LaneVerifier::new(lane.clone());
    let mut after = 0;
    loop {
        let blocks = trail::blocks(connection, lane, after)?;
        if blocks.is_empty() {
            return Ok(Ok(verifier.finish()));
        }
        for block in blocks {
            let records = match verifier.block(block.first_seq, &block.bytes, &block.hash) {
                Ok(records) => records,
                Err(damage) => return Ok(Err(damage)),
            };
            after = block.first_seq;
            for record in records {
                report.records += 1;
                *report.decisions.entry(record.decision.as_str()).or_default() += 1;
                if report.records.is_multiple_of(PROGRESS_RECORDS) {
                    progress(report.records);
                }
            }
        }
    }
}

fn verify(connection: &mut Connection, args: &VerifyArgs) -> Result<Exit, Trouble> {
    let on_terminal = std::io::stderr().is_terminal();
    let mut progress = |records: u64| {
        if on_terminal {
            eprint!("\r{records} records …");
        }
    };
    let report = verify_trail(connection, &mut progress)?;
    if on_terminal && report.records >= PROGRESS_RECORDS {
        eprintln!();
    }
    let mut out = std::io::stdout().lock();
    if args.json {
        let damages: Vec<Json> = report
            .damages
            .iter()
            .map(|d| json!({"lane": d.lane.as_str(), "seq": d.seq, "problem": d.to_string()}))
            .collect();
        let intact = report.damages.is_empty();
        let line = json!({
            "intact": intact, "records": report.records, "lanes": report.lanes,
            "decisions": report.decisions, "damages": damages,
        });
        writeln!(out, "{line}")?;
    } else {
        let decisions: Vec<String> =
            report.decisions.iter().map(|(name, count)| format!("{count} {name}")).collect();
        writeln!(out, "{} records in {} lanes: {}", report.records, report.lanes, decisions.join(", "))?;
        for damage in &report.damages {
            writeln!(out, "DAMAGED  {damage}")?;
        }
        if report.damages.is_empty() {
            writeln!(out, "intact: every record is chained to the one before it")?;
            writeln!(
                out,
                "not shown without signed checkpoints outside Redis: records cut off the newest end of a lane"
            )?;
        }
    }
    Ok(if report.damages.is_empty() { Exit::Done } else { Exit::NotVerified })
}

fn tail(connection: &mut Connection, args: &TailArgs) -> Result<Exit, Trouble> {
    let mut shown: BTreeMap<LaneId, u64> = BTreeMap::new();
    let mut records = Vec::new();
    let lines = args.lines.min(MAX_TAIL);
    for lane in trail::lanes(connection)?.existing {
        // A block holds at least one record, so this many blocks are enough.
        let mut blocks = trail::newest_blocks(connection, &lane, lines.max(1))?;
        blocks.reverse();
        if let Some(last) = blocks.last() {
            let _ = shown.insert(lane.clone(), last.first_seq);
        }
        for block in blocks {
            records.extend(decode(&lane, &block.bytes));
        }
    }
    records.sort_by_key(|(_, record)| record.time_us);
    let from = records.len().saturating_sub(lines);
    show(records.get(from..).unwrap_or_default(), args.json)?;
    if !args.follow {
        return Ok(Exit::Done);
    }
    loop {
        std::thread::sleep(FOLLOW_INTERVAL);
        let mut fresh = Vec::new();
        for lane in trail::lanes(connection)?.existing {
            let after = shown.entry(lane.clone()).or_default();
            for block in trail::blocks(connection, &lane, *after)? {
                *after = block.first_seq;
                fresh.extend(decode(&lane, &block.bytes));
            }
        }
        fresh.sort_by_key(|(_, record)| record.time_us);
        show(&fresh, args.json)?;
    }
}

fn decode(lane: &LaneId, block: &[u8]) -> Vec<(LaneId, Record)> {
    let parts = lane::split_block(block).unwrap_or_default();
    parts.into_iter().filter_map(Record::decode).map(|record| (lane.clone(), record)).collect()
}

fn show(records: &[(LaneId, Record)], as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for (lane, record) in records {
        if as_json {
            writeln!(out, "{}", record_json(lane, record))?;
        } else {
            writeln!(out, "{}", record_line(record))?;
        }
    }
    out.flush()
}

/// A record as JSON; JSON's escapes keep whatever a stranger wrote on one line.
pub fn record_json(lane: &LaneId, record: &Record) -> Json {
    json!({
        "lane": lane.as_str(),
        "seq": record.seq,
        "time_us": record.time_us,
        "action": record.action.as_str(),
        "decision": record.decision.as_str(),
        "agent": record.agent,
        "instance": record.instance,
        "fingerprint": hex(&record.fingerprint),
        "message_id": record.message_id.map(|id| id.to_string()),
        "message_type": record.message_type,
        "target": record.target,
        "target_instance": record.target_instance,
        "correlation_id": record.correlation_id,
        "payload_sha256": hex(&record.payload_digest),
        "payload_bytes": record.payload_len,
        "attempt": record.attempt,
        "rule": record.rule,
        "reason": record.reason,
        "policy_version": hex(&record.policy_version),
        "findings": serde_json::from_str::<Json>(&record.findings).unwrap_or(Json::Null),
    })
}

fn record_line(record: &Record) -> String {
    let time = i128::from(record.time_us) * 1000;
    let format = time::macros::format_description!(
        "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
    );
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(time)
        .ok()
        .and_then(|t| t.format(&format).ok())
        .unwrap_or_else(|| record.time_us.to_string());
    let mut line = format!(
        "{time}  {:<15} {:<13} {}",
        record.decision.as_str(),
        record.action.as_str(),
        plain(&record.agent)
    );
    if !record.instance.is_empty() {
        line.push_str(&format!("/{}", plain(&record.instance)));
    }
    if !record.target.is_empty() {
        line.push_str(&format!(" → {}", plain(&record.target)));
    }
    for (label, value) in [
        ("type", &record.message_type),
        ("rule", &record.rule),
        ("reason", &record.reason),
        ("findings", &record.findings),
    ] {
        if !value.is_empty() {
            line.push_str(&format!("  {label}={}", plain(value)));
        }
    }
    if record.attempt > 0 {
        line.push_str(&format!("  attempt={}", record.attempt));
    }
    line
}

/// Text of a stranger, fit for a terminal: no control or escape sequence passes.
fn plain(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31m\nb"), "a\\u{1b}[31m\\nb");
        assert_eq!(plain("grün"), "grün");
    }
}
