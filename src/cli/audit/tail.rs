//! `mas audit tail`: the newest records, and what is recorded from now on.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::source::{SourceArgs, config};
use super::text::record_line;
use super::trouble::Trouble;
use crate::audit::json::record_json;
use crate::audit::{LaneId, View, lane};
use crate::cli::exit::Exit;
use crate::store::{Connection, trail};

/// Wait between two looks at the trail when following it.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// Most records that are shown of the past.
const MAX_TAIL: usize = 100_000;

/// Arguments of `tail`.
#[derive(Debug, Args)]
pub struct TailArgs {
    /// The configuration whose Redis holds the trail; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<std::path::PathBuf>,
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

/// One line to be, with its time.
type Shown = (u64, String);

pub(super) fn run(args: &TailArgs) -> Result<Exit, Trouble> {
    let source = SourceArgs { config: args.config.clone(), ..SourceArgs::default() };
    let mut source = source.open(Some(&config(&source)?))?;
    match source.connection() {
        Some(connection) => tail(connection, args),
        None => Ok(Exit::Done),
    }
}

fn tail(connection: &mut Connection, args: &TailArgs) -> Result<Exit, Trouble> {
    let mut shown: BTreeMap<LaneId, u64> = BTreeMap::new();
    let mut lines = Vec::new();
    let count = args.lines.min(MAX_TAIL);
    for lane in trail::lanes(connection)?.existing {
        // A block holds at least one record, so this many blocks are enough.
        let mut blocks = trail::newest_blocks(connection, &lane, count.max(1))?;
        blocks.reverse();
        if let Some(last) = blocks.last() {
            let _ = shown.insert(lane.clone(), last.first_seq);
        }
        for block in blocks {
            lines.extend(decode(&lane, &block.bytes, args.json));
        }
        // Only the newest of all lanes are kept.
        newest(&mut lines, count);
    }
    show(&lines)?;
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
                fresh.extend(decode(&lane, &block.bytes, args.json));
            }
        }
        fresh.sort_by_key(|(time_us, _)| *time_us);
        show(&fresh)?;
    }
}

fn newest(lines: &mut Vec<Shown>, count: usize) {
    lines.sort_by_key(|(time_us, _)| *time_us);
    let from = lines.len().saturating_sub(count);
    drop(lines.drain(..from));
}

fn decode(lane: &LaneId, block: &[u8], as_json: bool) -> Vec<Shown> {
    let parts = lane::split_block(block).unwrap_or_default();
    let line = |record: &View<'_>| {
        if as_json { record_json(lane, record).to_string() } else { record_line(record) }
    };
    parts.into_iter().filter_map(View::decode).map(|record| (record.time_us, line(&record))).collect()
}

fn show(lines: &[Shown]) -> Result<(), Trouble> {
    let mut out = std::io::stdout().lock();
    for (_, line) in lines {
        writeln!(out, "{line}").map_err(Trouble::output)?;
    }
    out.flush().map_err(Trouble::output)
}
