//! `mas audit tail`: the newest records, and what is recorded from now on.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::filter::FilterArgs;
use super::formats::{Format, FormatArgs};
use super::query::{heading, line};
use super::source::{SourceArgs, config};
use super::trouble::Trouble;
use crate::audit::{LaneId, View, lane};
use crate::cli::exit::Exit;
use crate::history::filter::Filter;
use crate::store::{Connection, trail};

/// Wait between two looks at the trail when following it.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);
/// Most records that are shown of the past.
const MAX_TAIL: usize = 100_000;

const EXAMPLES: &str = "\
Examples:
  mas audit tail -n 50
  mas audit tail --follow --decision AUTHZ_DENIED
  mas audit tail --sender planner --action send --json";

/// Arguments of `tail`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
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
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    format: FormatArgs,
}

/// Blocks of a lane that are looked through for records that fit.
const MAX_BLOCKS: usize = 20_000;
/// Blocks read in one step.
const PAGE: usize = 1_000;

/// One line to be, with its time.
type Shown = (u64, String);

/// Which records are shown, and how.
struct Wanted {
    filter: Filter,
    format: Format,
}

pub(super) fn run(args: &TailArgs) -> Result<Exit, Trouble> {
    let source = SourceArgs { config: args.config.clone(), ..SourceArgs::default() };
    let mut source = source.open(Some(&config(&source)?))?;
    let wanted = Wanted { filter: args.filter.clone().resolve()?, format: args.format.or(Format::Text) };
    match source.connection() {
        Some(connection) => tail(connection, args, &wanted),
        None => Ok(Exit::Done),
    }
}

fn tail(connection: &mut Connection, args: &TailArgs, wanted: &Wanted) -> Result<Exit, Trouble> {
    if let Some(heading) = heading(wanted.format) {
        show(&[(0, heading)])?;
    }
    let mut shown: BTreeMap<LaneId, u64> = BTreeMap::new();
    let mut lines = Vec::new();
    let count = args.lines.min(MAX_TAIL);
    for lane in trail::lanes(connection)?.existing {
        if let Some(last) = trail::newest_blocks(connection, &lane, 1)?.first() {
            let _ = shown.insert(lane.clone(), last.first_seq);
            lines.extend(of_lane(connection, &lane, last.first_seq, count, wanted)?);
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
                fresh.extend(decode(&lane, &block.bytes, wanted));
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

/// The newest `count` records of a lane that fit, up to the block that begins with record `last`.
fn of_lane(
    connection: &mut Connection,
    lane: &LaneId,
    last: u64,
    count: usize,
    wanted: &Wanted,
) -> Result<Vec<Shown>, Trouble> {
    let (mut parts, mut found, mut looked, mut before) = (Vec::new(), 0, 0, last + 1);
    while found < count && looked < MAX_BLOCKS {
        // A block holds at least one record: where all fit, the first step is enough.
        let step = if looked == 0 { count.clamp(1, PAGE) } else { PAGE };
        let blocks = trail::blocks_before(connection, lane, before, step)?;
        for block in &blocks {
            before = block.first_seq;
            let lines = decode(lane, &block.bytes, wanted);
            found += lines.len();
            parts.push(lines);
        }
        looked += blocks.len();
        if blocks.len() < step {
            break;
        }
    }
    Ok(parts.into_iter().rev().flatten().collect())
}

fn decode(lane: &LaneId, block: &[u8], wanted: &Wanted) -> Vec<Shown> {
    let parts = lane::split_block(block).unwrap_or_default();
    let records = parts.into_iter().filter_map(View::decode).filter(|record| wanted.filter.holds(record));
    records.map(|record| (record.time_us, line(wanted.format, lane, &record))).collect()
}

fn show(lines: &[Shown]) -> Result<(), Trouble> {
    let mut out = std::io::stdout().lock();
    for (_, line) in lines {
        writeln!(out, "{line}").map_err(Trouble::output)?;
    }
    out.flush().map_err(Trouble::output)
}
