//! `mas audit verify`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, IsTerminal, Read, Seek, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::{Value as Json, json};

use super::join::join;
use super::noted;
use super::source::{SourceArgs, config};
use super::trouble::Trouble;
use crate::audit::keys::KeyHistory;
use crate::audit::segment::Item;
use crate::audit::verify::{AnchorReader, Damage, Freshness, Place, Plain, Questions, Report, Verifier};
use crate::audit::{LaneId, View};
use crate::checkpoint::IDLE_INTERVALS;
use crate::checkpoint::anchor::older_files;
use crate::cli::exit::Exit;
use crate::cli::text::time_text;
use crate::clock::Now;
use crate::config::Config;
use crate::history::source::{self, Live, Range, Source};
use crate::store::{Connection, servers, trail};

/// Records between two lines of progress on a terminal.
const PROGRESS_RECORDS: u64 = 100_000;
/// Largest file of public keys.
const MAX_KEY_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// What the name of a key's history has behind that of the key.
const HISTORY_SUFFIX: &str = ".pub";
/// On a live Redis a record may be this many intervals old, while a server runs, before a checkpoint covers it.
const MAX_INTERVALS: u64 = 10;
/// Readings of a trail from which a server takes archived parts meanwhile.
const MAX_READINGS: u32 = 5;
/// Places of one kind of damage that are listed for people; the others are counted.
const EXAMPLES: usize = 10;

/// What a trail is verified against.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TrustArgs {
    /// The checkpoints outside Redis; else those of the configuration. Once for each file.
    #[arg(long, value_name = "FILE")]
    pub(crate) anchor: Vec<PathBuf>,
    /// Leave the anchor of the configuration out.
    #[arg(long, conflicts_with = "anchor")]
    pub(crate) no_anchor: bool,
    /// The public key that signs checkpoints, with its history; else that of the configuration. Once for each
    /// log: servers that do not share a key have one each.
    #[arg(long, value_name = "FILE")]
    pub(crate) public_key: Vec<PathBuf>,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// The files of one anchor, oldest first, each with how much of it was there: what is appended later may be ahead of the trail
/// that is read.
#[derive(Debug)]
struct AnchorFiles {
    path: PathBuf,
    files: Vec<(File, u64)>,
}

impl AnchorFiles {
    fn open(path: &Path) -> Result<Self, Trouble> {
        let wrap = |source| Trouble::File { path: path.to_path_buf(), source };
        // The newest first: where it goes on in a new file meanwhile, what it held is among the older ones.
        let newest = File::open(path).map_err(wrap)?;
        let older = older_files(path).map_err(wrap)?;
        let older = older.iter().map(File::open).collect::<Result<Vec<_>, _>>().map_err(wrap)?;
        let mut files = Vec::new();
        let id = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino()));
        for file in older.into_iter().chain([newest]) {
            let length = file.metadata().map_err(wrap)?.len();
            let (mut is_listed, this) = (false, id(&file).map_err(wrap)?);
            for (listed, _) in &files {
                is_listed |= id(listed).map_err(wrap)? == this;
            }
            if !is_listed {
                files.push((file, length));
            }
        }
        Ok(Self { path: path.to_path_buf(), files })
    }

    fn reader(&self) -> std::io::Result<AnchorReader<'static>> {
        let mut all: Box<dyn Read> = Box::new(std::io::empty());
        for (file, length) in &self.files {
            let mut file = file.try_clone()?;
            file.rewind()?;
            all = Box::new(all.chain(file.take(*length)));
        }
        Ok(AnchorReader::new(Box::new(BufReader::new(all))))
    }
}

/// What stands beside the trail: keys and anchor, read before the trail is.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    keys: Vec<KeyHistory>,
    anchors: Vec<AnchorFiles>,
}

impl Trust {
    /// Opens what the arguments name, or what the configuration does, as far as it is there.
    pub(crate) fn open(args: &TrustArgs, config: Option<&Config>) -> Result<Self, Trouble> {
        let mut keys = Vec::new();
        let logs = config.map_or(&[][..], |config| &config.audit.logs);
        let mut configured: Vec<PathBuf> =
            config.map(configured_keys).filter(|path| path.exists()).into_iter().collect();
        configured.extend(logs.iter().map(|log| log.public_key_path.clone()));
        configured.retain(|_| args.public_key.is_empty());
        for path in args.public_key.iter().chain(&configured) {
            keys.push(read_keys(path)?);
        }
        let own = config.and_then(|config| config.audit.anchor_path.clone()).filter(|path| path.exists());
        let mut configured: Vec<PathBuf> = own.into_iter().collect();
        configured.extend(logs.iter().filter_map(|log| log.anchor_path.clone()));
        configured.retain(|_| args.anchor.is_empty() && !args.no_anchor);
        let mut anchors = Vec::new();
        for path in args.anchor.iter().chain(&configured) {
            anchors.push(AnchorFiles::open(path)?);
        }
        Ok(Self { keys, anchors })
    }

    /// One history per log.
    pub(crate) fn keys(&self) -> &[KeyHistory] {
        &self.keys
    }

    fn anchors(&self) -> Result<Vec<AnchorReader<'static>>, Trouble> {
        let open = |anchor: &AnchorFiles| {
            anchor.reader().map_err(|source| Trouble::File { path: anchor.path.clone(), source })
        };
        self.anchors.iter().map(open).collect()
    }

    fn anchor_trouble(&self, source: std::io::Error) -> Trouble {
        let path = self.anchors.first().map_or_else(PathBuf::new, |anchor| anchor.path.clone());
        Trouble::File { path, source }
    }
}

/// The history of the configured key lies beside it.
fn configured_keys(config: &Config) -> PathBuf {
    let mut path = config.audit.signing_key_path.clone().into_os_string();
    path.push(HISTORY_SUFFIX);
    path.into()
}

/// Reads a file of public keys.
pub(crate) fn read_keys(path: &Path) -> Result<KeyHistory, Trouble> {
    let wrap = |source| Trouble::File { path: path.to_path_buf(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(wrap)?;
    let _ = file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text).map_err(wrap)?;
    KeyHistory::parse(&text).map_err(|error| Trouble::Usage(format!("{}: {error}", path.display())))
}

type Each<'a> = dyn FnMut(&LaneId, &View<'_>) + 'a;

/// Verifies a trail in bounded memory, handing its records to `each`.
fn verify_source(
    source: &mut Source,
    trust: &Trust,
    interval_ms: Option<u64>,
    each: &mut Each<'_>,
) -> Result<Report, Trouble> {
    let questions = Questions {
        keys: trust.keys(),
        anchors: trust.anchors()?,
        partial: source.is_partial(),
        elsewhere: source.elsewhere().to_vec(),
        without_custody: false,
    };
    let mut verifier = Verifier::new(questions);
    // As of the time at which the trail's end is looked for: reading it may take long.
    let mut fresh = None;
    if let (Some(connection), Some(interval_ms)) = (source.connection(), interval_ms)
        && servers::any_alive(connection)?
    {
        fresh = Some(freshness(interval_ms));
    }
    match source.live() {
        Some(Live { connection, keys: Some(keys), .. }) => {
            verifier.taken_over(trail::taken_over(connection, keys)?);
        }
        Some(Live { keys: None, .. }) => verifier.without_store_keys(),
        None => {}
    }
    let progress = source.read(Range::ALL, &mut |item| feed(&mut verifier, trust, each, item))?;
    if let Some(live) = source.live() {
        let mut read_on = |live: &mut Live, verifier: &mut Verifier<'_>, progress| {
            source::read_live(live, progress, Range::ALL, &mut |item| feed(verifier, trust, each, item))
                .map(drop)
        };
        join(live, &mut verifier, progress, &mut read_on)?;
    }
    verifier.finish(fresh).map_err(|error| trust.anchor_trouble(error))
}

fn feed(
    verifier: &mut Verifier<'_>,
    trust: &Trust,
    each: &mut Each<'_>,
    item: &Item<'_>,
) -> Result<ControlFlow<()>, Trouble> {
    verifier.item(item, each).map_err(|error| trust.anchor_trouble(error))?;
    Ok(ControlFlow::Continue(()))
}

/// Verifies the whole trail behind a connection, in bounded memory, without keys and anchor.
pub(crate) fn verify_trail(connection: Connection) -> Result<Report, Trouble> {
    verify_source(&mut Source::of_live(Live::new(connection, None)), &Trust::default(), None, &mut |_, _| {})
}

pub(super) fn run(args: &VerifyArgs) -> Result<Exit, Trouble> {
    let (report, ()) = verify_named(&args.source, &args.trust, &|| (), &mut |(), _| {})?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", report_json(&report)).map_err(Trouble::output)?;
    } else {
        write_report(&mut out, &report).map_err(Trouble::output)?;
    }
    noted::note(&args.source, &report)?;
    Ok(if report.is_intact() { Exit::Done } else { Exit::NotVerified })
}

/// Verifies the trail that the arguments name. Where a server archives while it is read, what was still to
/// come may leave Redis: then it is read again. `counts`, new for each reading, are handed each record.
pub(crate) fn verify_named<T>(
    source_args: &SourceArgs,
    trust: &TrustArgs,
    counts: &dyn Fn() -> T,
    each: &mut dyn FnMut(&mut T, &View<'_>),
) -> Result<(Report, T), Trouble> {
    let config = optional_config(source_args)?;
    let mut attempt = 1;
    loop {
        let trust = Trust::open(trust, config.as_ref())?;
        let mut source = source_args.open(config.as_ref())?;
        let (mut meter, mut counts) = (Meter::new(), counts());
        let interval_ms = config.as_ref().map(|config| config.audit.checkpoint_interval_ms);
        let report = verify_source(&mut source, &trust, interval_ms, &mut |_, record| {
            meter.record();
            each(&mut counts, record);
        })?;
        meter.finish();
        let settled = report.is_intact() || attempt == MAX_READINGS;
        if settled || !source.has_moved()? {
            return Ok((report, counts));
        }
        attempt += 1;
    }
}

/// How old the newest checkpoint may be while a server runs.
fn freshness(interval_ms: u64) -> Freshness {
    // A killed server is believed to run as long as its lease lives.
    let lease_ms = servers::LEASE.as_millis() as u64;
    let bound_ms = |intervals: u64| interval_ms.saturating_mul(intervals).saturating_add(lease_ms);
    Freshness {
        now_ms: Now::read().unix_us / 1000,
        max_age_ms: bound_ms(IDLE_INTERVALS + MAX_INTERVALS),
        max_unsealed_ms: bound_ms(MAX_INTERVALS),
    }
}

/// The configuration, where Redis is read, or where one is named.
pub(crate) fn optional_config(args: &SourceArgs) -> Result<Option<Config>, Trouble> {
    match args.export.is_empty() || args.config.is_some() {
        true => Ok(Some(config(args)?)),
        false => Ok(None),
    }
}

/// Progress on a terminal; silent in a pipe.
pub(crate) struct Meter {
    on_terminal: bool,
    records: u64,
    started: Instant,
}

impl Meter {
    /// Starts counting.
    pub(crate) fn new() -> Self {
        Self { on_terminal: std::io::stderr().is_terminal(), records: 0, started: Instant::now() }
    }

    /// One more.
    pub(crate) fn record(&mut self) {
        self.records += 1;
        if self.on_terminal && self.records.is_multiple_of(PROGRESS_RECORDS) {
            let per_s = self.records as f64 / self.started.elapsed().as_secs_f64().max(0.001);
            eprint!("\r{} records, {per_s:.0}/s …", self.records);
        }
    }

    /// Ends the line, if there is one.
    pub(crate) fn finish(&self) {
        if self.on_terminal && self.records >= PROGRESS_RECORDS {
            eprintln!();
        }
    }
}

/// The report as one JSON object.
pub(crate) fn report_json(report: &Report) -> Json {
    let damages: Vec<Json> = report.damages.iter().map(damage_json).collect();
    json!({
        "intact": report.is_intact(),
        "records": report.records,
        "lanes": report.lanes,
        "decisions": report.decisions,
        "checkpoints": report.checkpoints,
        "anchored": report.anchored,
        "only_anchored": report.only_anchored,
        "newest_checkpoint_ms": report.newest_checkpoint_ms,
        "unsealed": report.unsealed,
        "messages": {
            "accepted": report.accepted, "done": report.done, "waiting": report.waiting,
            "vanished": report.vanished, "older": report.older, "taken_over": report.taken_over,
        },
        "taken_over_records": report.taken_over_records,
        "damages": damages,
        "further_damages": report.further_damages,
        "acknowledged": report.acknowledged.iter().map(acknowledged_json).collect::<Vec<_>>(),
        "not_shown": report.not_shown,
    })
}

fn acknowledged_json((damage, why): &(Damage, String)) -> Json {
    let mut json = damage_json(damage);
    if let Some(members) = json.as_object_mut() {
        let _ = members.insert("acknowledged_by".to_owned(), why.as_str().into());
    }
    json
}

fn damage_json(damage: &Damage) -> Json {
    let (kind, problem) = (damage.kind.code(), damage.to_string());
    let mut json = place_json(damage, kind, &problem);
    if let Some(members) = json.as_object_mut() {
        let _ = members.insert("id".to_owned(), damage.id().into());
    }
    json
}

fn place_json(damage: &Damage, kind: &str, problem: &str) -> Json {
    match &damage.place {
        Place::Record { lane, seq } => {
            json!({"kind": kind, "problem": problem, "lane": lane.as_str(), "seq": seq})
        }
        Place::Checkpoint { stream, boot, counter } => json!({
            "kind": kind, "problem": problem, "stream": stream.to_string(), "boot": boot.to_string(),
            "counter": counter,
        }),
        Place::Note { stream, number } => {
            json!({"kind": kind, "problem": problem, "stream": stream.to_string(), "note": number})
        }
        Place::Entry { stream, id } => {
            json!({"kind": kind, "problem": problem, "stream": stream, "entry": id})
        }
        Place::Message { message } => {
            json!({"kind": kind, "problem": problem, "message": message.to_string()})
        }
    }
}

/// The report for people.
pub(crate) fn write_report(out: &mut dyn Write, report: &Report) -> std::io::Result<()> {
    let decisions: Vec<String> =
        report.decisions.iter().map(|(name, count)| format!("{count} {name}")).collect();
    writeln!(out, "{} records in {} lanes: {}", report.records, report.lanes, decisions.join(", "))?;
    if report.checkpoints > 0 || report.anchored > 0 {
        writeln!(
            out,
            "{} checkpoints, the newest of {}; {} in the anchor ({} of them newer than those beside the trail); \
             {} records not yet sealed",
            report.checkpoints,
            time_text(report.newest_checkpoint_ms.saturating_mul(1000)),
            report.anchored,
            report.only_anchored,
            report.unsealed
        )?;
    }
    writeln!(
        out,
        "{} messages accepted, {} done, {} waiting; {} of before the trail",
        report.accepted, report.done, report.waiting, report.older
    )?;
    if report.vanished > 0 {
        writeln!(
            out,
            "{} messages are accepted, not done and in no inbox; it is on record that messages of their agents vanished \
             (action vanished)",
            report.vanished
        )?;
    }
    if report.taken_over + report.taken_over_records > 0 {
        writeln!(
            out,
            "{} messages and {} records of before this log were taken over: no server's key vouches for them",
            report.taken_over, report.taken_over_records
        )?;
    }
    let mut by_kind: BTreeMap<&str, usize> = BTreeMap::new();
    for damage in &report.damages {
        let count = by_kind.entry(damage.kind.code()).or_default();
        *count += 1;
        if *count <= EXAMPLES {
            writeln!(out, "DAMAGED  {damage}")?;
        }
    }
    for (kind, count) in by_kind.iter().filter(|(_, count)| **count > EXAMPLES) {
        writeln!(out, "DAMAGED  {} further places of kind {kind} (--json lists them)", count - EXAMPLES)?;
    }
    if report.further_damages > 0 {
        writeln!(out, "DAMAGED  {} further places", report.further_damages)?;
    }
    for (damage, why) in report.acknowledged.iter().take(EXAMPLES) {
        writeln!(out, "acknowledged by {}: {damage}", Plain(why))?;
    }
    if report.acknowledged.len() > EXAMPLES {
        writeln!(out, "acknowledged: {} further places", report.acknowledged.len() - EXAMPLES)?;
    }
    if report.is_intact() && !report.acknowledged.is_empty() {
        writeln!(out, "intact but for what was acknowledged")?;
    } else if report.is_intact() {
        writeln!(out, "intact: every record is chained to the one before it")?;
    }
    for line in &report.not_shown {
        writeln!(out, "not shown {line}")?;
    }
    Ok(())
}
