//! `mas audit report`: what was decided in a stretch of time, for people who must account for it; and whether
//! the trail that says so is intact.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use clap::Args;
use serde_json::{Value as Json, json};

use super::filter::TimeArgs;
use super::source::SourceArgs;
use super::trouble::Trouble;
use super::verify::{TrustArgs, report_json, verify_named, write_report};
use crate::audit::verify::{Plain, Report};
use crate::audit::{Action, Decision, View};
use crate::cli::exit::Exit;
use crate::cli::text::time_text;
use crate::history::filter::findings;
use crate::history::source::Range;

/// Names that are counted one by one; further ones are counted together.
const MAX_NAMES: usize = 100_000;

/// Arguments of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    trust: TrustArgs,
    #[command(flatten)]
    time: TimeArgs,
    /// How many names of each kind.
    #[arg(long, value_name = "COUNT", default_value_t = 10)]
    top: usize,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// How often each name came up, up to a bound: targets are what strangers wrote.
#[derive(Debug, Default)]
struct Tally {
    counts: HashMap<String, Count>,
    others: u64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Count {
    all: u64,
    refused: u64,
}

impl Tally {
    fn add(&mut self, name: &str, refused: bool) {
        if let Some(count) = self.counts.get_mut(name) {
            count.all += 1;
            count.refused += u64::from(refused);
        } else if self.counts.len() < MAX_NAMES {
            let count = Count { all: 1, refused: u64::from(refused) };
            let _ = self.counts.insert(name.to_owned(), count);
        } else {
            self.others += 1;
        }
    }

    /// The most frequent names.
    fn top(&self, count: usize) -> Vec<(&str, Count)> {
        let mut names: Vec<(&str, Count)> =
            self.counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        names.sort_by(|(a, x), (b, y)| (y.all, *a).cmp(&(x.all, *b)));
        names.truncate(count);
        names
    }

    fn json(&self, count: usize) -> Json {
        let names: Vec<Json> = self
            .top(count)
            .into_iter()
            .map(|(name, count)| json!({"name": name, "count": count.all, "refused": count.refused}))
            .collect();
        json!({"top": names, "names": self.counts.len(), "others": self.others})
    }
}

#[derive(Debug, Default)]
struct Counts {
    records: u64,
    messages: u64,
    decisions: BTreeMap<&'static str, u64>,
    actions: BTreeMap<&'static str, u64>,
    senders: Tally,
    targets: Tally,
    reasons: Tally,
    violations: Tally,
}

impl Counts {
    fn record(&mut self, record: &View<'_>) {
        self.records += 1;
        *self.actions.entry(record.action.as_str()).or_default() += 1;
        if record.decision == Decision::Event {
            return;
        }
        *self.decisions.entry(record.decision.as_str()).or_default() += 1;
        let refused = !matches!(record.decision, Decision::Allowed | Decision::Alert | Decision::DlpRedacted);
        if matches!(record.action, Action::Send | Action::Request | Action::Reply) {
            self.messages += 1;
            self.senders.add(record.agent, refused);
            self.targets.add(record.target, refused);
        }
        if refused {
            self.reasons.add(record.reason, true);
        }
        for finding in findings(record) {
            if !finding.kind.is_empty() {
                self.violations
                    .add(&format!("{} ({})", finding.kind, finding.rule), finding.action == "block");
            }
            for _ in 0..finding.further.min(1) {
                self.violations.add("further ones in one message", false);
            }
        }
    }
}

pub(super) fn run(args: &ReportArgs) -> Result<Exit, Trouble> {
    let range = args.time.range(true)?;
    // All of the trail is verified: what is outside the range carries what is inside.
    let (report, counts) =
        verify_named(&args.source, &args.trust, &Counts::default, &mut |counts, record| {
            if range.holds(record.time_us) {
                counts.record(record);
            }
        })?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", json(args, range, &counts, &report)).map_err(Trouble::output)?;
    } else {
        write(&mut out, args, range, &counts, &report).map_err(Trouble::output)?;
    }
    Ok(if report.is_intact() { Exit::Done } else { Exit::NotVerified })
}

fn json(args: &ReportArgs, range: Range<'static>, counts: &Counts, report: &Report) -> Json {
    json!({
        "from_us": range.from_us, "to_us": range.to_us,
        "records": counts.records, "messages": counts.messages,
        "decisions": counts.decisions, "actions": counts.actions,
        "senders": counts.senders.json(args.top), "targets": counts.targets.json(args.top),
        "refusals": counts.reasons.json(args.top), "violations": counts.violations.json(args.top),
        "verification": report_json(report),
    })
}

fn write(
    out: &mut dyn Write,
    args: &ReportArgs,
    range: Range<'static>,
    counts: &Counts,
    report: &Report,
) -> std::io::Result<()> {
    let time = |time_us: Option<u64>, open: &str| time_us.map_or_else(|| open.to_owned(), time_text);
    writeln!(
        out,
        "audit report, {} to {}",
        time(range.from_us, "the beginning"),
        time(range.to_us, "the end")
    )?;
    writeln!(out, "\n{} records, {} of them decisions on messages", counts.records, counts.messages)?;
    writeln!(out, "\n  {:<28} {:>10}", "decision", "count")?;
    for (name, count) in &counts.decisions {
        writeln!(out, "  {name:<28} {count:>10}")?;
    }
    for (title, tally) in [
        ("sender", &counts.senders),
        ("target", &counts.targets),
        ("refused because", &counts.reasons),
        ("found (rule)", &counts.violations),
    ] {
        if tally.counts.is_empty() {
            continue;
        }
        writeln!(out, "\n  {title:<28} {:>10} {:>10}", "count", "refused")?;
        for (name, count) in tally.top(args.top) {
            writeln!(out, "  {:<28} {:>10} {:>10}", Plain(name).to_string(), count.all, count.refused)?;
        }
        let further = tally.counts.len().saturating_sub(args.top);
        if further > 0 {
            writeln!(out, "  … and {further} more")?;
        }
    }
    writeln!(out, "\nverification of the whole trail")?;
    write_report(out, report)
}
