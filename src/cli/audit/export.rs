//! `mas audit export`: the trail, or a stretch of it, in a file that is verified elsewhere.
//!
//! It is verified while it is written: what is damaged is not exported as if it were whole.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::Args;

use super::filter::TimeArgs;
use super::source::SourceArgs;
use super::trouble::Trouble;
use super::verify::{Meter, Trust, TrustArgs, optional_config};
use crate::audit::LaneId;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::lane::split_block;
use crate::audit::merkle::Frontier;
use crate::audit::note;
use crate::audit::record::View;
use crate::audit::segment::{End, Header, Item, SegmentWriter};
use crate::audit::verify::{Questions, Verifier};
use crate::cli::exit::Exit;
use crate::clock::Now;
use crate::history::source::{Range, Source};

/// Arguments of `export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    time: TimeArgs,
    /// The public key that signs checkpoints, with its history; else that of the configuration. Once for each
    /// log.
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
    /// The file to write; it must not exist. `-`: standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) fn run(args: &ExportArgs) -> Result<Exit, Trouble> {
    let range = args.time.range(true)?;
    let config = optional_config(&args.source)?;
    let trust = TrustArgs { public_key: args.public_key.clone(), anchor: Vec::new(), no_anchor: true };
    let trust = Trust::open(&trust, config.as_ref())?;
    let mut source = args.source.open(config.as_ref())?;
    let wrap = |source| Trouble::File { path: args.file.clone(), source };
    if args.file.as_os_str() == "-" {
        let out = BufWriter::new(std::io::stdout().lock());
        let (exit, _, mut out) = export(&mut source, &trust, range, out, &Trouble::output)?;
        out.flush().map_err(Trouble::output)?;
        return Ok(exit);
    }
    let file = File::create_new(&args.file).map_err(wrap)?;
    let written = export(&mut source, &trust, range, BufWriter::new(file), &wrap)
        .and_then(|(exit, end, out)| Ok((exit, end, out.into_inner().map_err(|e| wrap(e.into_error()))?)))
        .and_then(|(exit, end, file)| Ok((exit, end, file.sync_all().map_err(wrap)?)));
    match written {
        Ok((exit, end, ())) => {
            eprintln!("{} records in {}, SHA-256 {}", end.records, args.file.display(), end.sha256);
            Ok(exit)
        }
        Err(trouble) => {
            remove(&args.file);
            Err(trouble)
        }
    }
}

/// Half a file is none.
fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        eprintln!("mas audit: {}: cannot be removed: {error}", path.display());
    }
}

/// What has been written so far, and what each lane was before its first block in the file.
struct Exporter<'a, W> {
    out: SegmentWriter<W>,
    verifier: Verifier<'a>,
    range: Range<'static>,
    registered: HashMap<LaneId, String>,
    announced: BTreeSet<LaneId>,
}

fn export<W: Write>(
    source: &mut Source,
    trust: &Trust,
    range: Range<'static>,
    out: W,
    wrap: &dyn Fn(std::io::Error) -> Trouble,
) -> Result<(Exit, End, W), Trouble> {
    let partial = source.is_partial();
    let header = Header::export(Now::read().unix_us, range.from_us, range.to_us);
    let questions = Questions {
        keys: trust.keys(),
        anchors: Vec::new(),
        partial,
        elsewhere: source.elsewhere().to_vec(),
        without_custody: true,
    };
    let mut exporter = Exporter {
        out: SegmentWriter::new(out, &header).map_err(wrap)?,
        verifier: Verifier::new(questions),
        range,
        registered: HashMap::new(),
        announced: BTreeSet::new(),
    };
    let mut meter = Meter::new();
    let _ = source.read::<Trouble>(range, &mut |item| {
        exporter.item(item, &mut meter).map_err(wrap)?;
        Ok(ControlFlow::Continue(()))
    })?;
    meter.finish();
    let Exporter { out, verifier, .. } = exporter;
    for damage in verifier.damages() {
        eprintln!("DAMAGED  {damage}");
    }
    let exit = if verifier.damages().is_empty() { Exit::Done } else { Exit::NotVerified };
    let (out, end) = out.finish().map_err(wrap)?;
    Ok((exit, end, out))
}

impl<W: Write> Exporter<'_, W> {
    fn item(&mut self, item: &Item<'_>, meter: &mut Meter) -> std::io::Result<()> {
        match item {
            Item::Lane { lane, registered, .. } => {
                if let Some(registered) = registered {
                    let _ =
                        self.registered.insert(LaneId::from_stored(lane), registered.clone().into_owned());
                }
                self.verifier.item(item, &mut |_, _| {})?;
                // A lane that is registered and empty must be seen to be. One that was opened behind the range has
                // nothing in it.
                if self.range.from_us.is_none() && self.had_opened(registered.as_deref()) {
                    self.announce(&LaneId::from_stored(lane))?;
                }
            }
            Item::Block { lane, first, bytes, root, .. } => {
                let lane = LaneId::from_stored(lane);
                if self.wants(bytes) {
                    self.announce(&lane)?;
                    self.out.block(&lane, *first, bytes, root)?;
                }
                self.verifier.item(item, &mut |_, _| meter.record())?;
            }
            Item::Checkpoint { note } => {
                let checkpoint = note::text_of(note).ok().and_then(|text| Checkpoint::parse(text).ok());
                let time_us = checkpoint.as_ref().map(|checkpoint| checkpoint.time_ms.saturating_mul(1000));
                if time_us.is_none_or(|time_us| self.range.holds(time_us)) {
                    for head in checkpoint.iter().flat_map(|checkpoint| &checkpoint.lanes) {
                        self.announce(&head.lane)?;
                    }
                    self.out.checkpoint(note)?;
                }
                self.verifier.item(item, &mut |_, _| {})?;
            }
        }
        Ok(())
    }

    /// Whether a lane was opened before the range ends, as far as the registry says.
    fn had_opened(&self, registered: Option<&str>) -> bool {
        #[derive(serde::Deserialize)]
        struct Registered {
            opened_unix_us: u64,
        }
        let registered = registered.and_then(|text| serde_json::from_str::<Registered>(text).ok());
        match (registered, self.range.to_us) {
            (Some(Registered { opened_unix_us }), Some(to_us)) => opened_unix_us < to_us,
            (None, _) | (_, None) => true,
        }
    }

    /// Whether the block ends in the range: its last record is of that time.
    fn wants(&self, bytes: &[u8]) -> bool {
        let Some(from_us) = self.range.from_us else {
            return true;
        };
        let last = split_block(bytes).and_then(|parts| View::time_of(parts.last()?));
        last.is_none_or(|time_us| time_us >= from_us)
    }

    fn announce(&mut self, lane: &LaneId) -> std::io::Result<()> {
        if self.announced.contains(lane) {
            return Ok(());
        }
        let empty = Frontier::default();
        let before = self.verifier.lane(lane).unwrap_or(&empty);
        self.out.lane(lane, self.registered.get(lane).map(String::as_str), before)?;
        let _ = self.announced.insert(lane.clone());
        Ok(())
    }
}
