//! How fast a trail is verified: a synthetic one in memory, or written to a file or a Redis so that
//! `mas audit verify` itself can be timed on it.
//!
//! A message is three records' worth: its decision, and its part of a delivery and of an acknowledgement
//! record. A checkpoint stands behind every hundred transactions.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use mas::audit::checkpoint::{Checkpoint, LaneHead, text_hash};
use mas::audit::lane::Lane;
use mas::audit::merkle::Frontier;
use mas::audit::note::SigningKey;
use mas::audit::segment::{Attested, Header, Item, SegmentWriter};
use mas::audit::verify::{Questions, Verifier};
use mas::audit::{Action, Decision, Fields, KeyHistory, LaneId};
use mas::clock::Now;
use mas::store::Endpoint;
use uuid::Uuid;

/// Transactions under one checkpoint.
const BLOCKS_PER_CHECKPOINT: usize = 100;
/// How long one round trip to Redis may take.
const REDIS_TIMEOUT: Duration = Duration::from_secs(10);

type AnyError = Box<dyn std::error::Error>;

/// Measures the verification of a trail.
#[derive(Debug, Parser)]
struct Args {
    /// Decisions in the trail.
    #[arg(long, default_value_t = 1_000_000)]
    messages: usize,
    /// Decisions in one transaction.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Write the trail to this file instead.
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// Write the trail to this Redis instead; it should be empty.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Write the public key to this file.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
}

/// A block as it is stored, or a note.
enum Kept {
    Block(u64, Vec<u8>, Vec<u8>),
    Note(String),
}

/// Writes a trail like a server's, part by part.
struct Log {
    key: SigningKey,
    keys: KeyHistory,
    boot: Uuid,
    lane: Lane,
    now: Now,
    counter: u64,
    previous: [u8; 32],
}

impl Log {
    fn new() -> Result<Self, AnyError> {
        let key = SigningKey::from_pem(&SigningKey::generate_pem()?)?;
        let boot = Uuid::now_v7();
        let mut lane = Lane::new(LaneId::new(boot, 0, 1));
        // Ids of messages are later than the trail's beginning.
        let now = Now { unix_us: Now::read().unix_us - 1_000_000, mono_ms: 0 };
        lane.open(now, "boot", &[7; 32]);
        Ok(Self { keys: KeyHistory::new(&key), key, boot, lane, now, counter: 0, previous: [0; 32] })
    }

    fn block(&mut self) -> Option<Kept> {
        let block = self.lane.block()?;
        let kept = Kept::Block(block.first_seq, block.bytes.to_vec(), block.hash.to_vec());
        self.lane.confirm();
        Some(kept)
    }

    /// One transaction: a batch of decisions, and that the batch before was delivered and acknowledged.
    fn batch(&mut self, count: usize, before: &mut Vec<(Uuid, u8)>) -> Option<Kept> {
        self.now.unix_us += 1000;
        for action in [Action::Delivered, Action::Acked] {
            if !before.is_empty() {
                let fields =
                    Fields { agent: "worker", instance: "i0", messages: before, ..Fields::default() };
                let _ = self.lane.append(self.now, action, Decision::Event, &fields);
            }
        }
        before.clear();
        for _ in 0..count {
            let id = Uuid::now_v7();
            let fields = Fields {
                agent: "planner",
                instance: "i0",
                fingerprint: &[1; 32],
                message_id: Some(id),
                message_type: "task",
                target: "worker",
                payload_digest: &[2; 32],
                payload_len: 256,
                rule: "permissions[0]",
                policy_version: &[7; 32],
                ..Fields::default()
            };
            let _ = self.lane.append_counted(self.now, Action::Send, Decision::Allowed, &fields);
            before.push((id, 1));
        }
        self.block()
    }

    fn checkpoint(&mut self) -> Option<Kept> {
        self.counter += 1;
        let head = self.lane.confirmed();
        let checkpoint = Checkpoint {
            origin: self.keys.origin().to_owned(),
            size: head.seq,
            boot: self.boot,
            counter: self.counter,
            previous: self.previous,
            time_ms: self.now.unix_us / 1000 + 1,
            policy: [7; 32],
            lanes: vec![LaneHead { lane: self.lane.id().clone(), head }],
        };
        self.previous = text_hash(&checkpoint.encode());
        checkpoint.sign(&self.key).map(Kept::Note)
    }

    /// The whole trail, part by part.
    fn write(
        &mut self,
        args: &Args,
        on: &mut dyn FnMut(Kept) -> Result<(), AnyError>,
    ) -> Result<(), AnyError> {
        let (mut before, mut left, mut blocks) = (Vec::new(), args.messages, 0);
        while left > 0 {
            let count = args.batch.max(1).min(left);
            left -= count;
            blocks += 1;
            on(self.batch(count, &mut before).ok_or("no block")?)?;
            if blocks % BLOCKS_PER_CHECKPOINT == 0 || left == 0 {
                on(self.checkpoint().ok_or("no checkpoint")?)?;
            }
        }
        Ok(())
    }
}

fn main() -> Result<(), AnyError> {
    let args = Args::parse();
    let mut log = Log::new()?;
    if let Some(path) = &args.public_key {
        std::fs::write(path, log.keys.encode())?;
    }
    let lane = log.lane.id().clone();
    if let Some(path) = &args.export {
        let header = Header::export(Now::read().unix_us, None, None);
        let mut writer = SegmentWriter::new(BufWriter::new(File::create_new(path)?), &header)?;
        writer.lane(&lane, Some("{}"), &Frontier::default())?;
        log.write(&args, &mut |kept| {
            match kept {
                Kept::Block(first, bytes, root) => writer.block(&lane, first, &bytes, &root)?,
                Kept::Note(note) => writer.checkpoint(&note)?,
            }
            Ok(())
        })?;
        let (mut out, end) = writer.finish()?;
        out.flush()?;
        println!("{} records in {}", end.records, path.display());
        return Ok(());
    }
    if let Some(url) = &args.redis {
        let mut connection = Endpoint::at(url, REDIS_TIMEOUT).open()?;
        let _ = connection.command("HSET", &["audit:lanes", lane.as_str(), "{}"])?;
        let mut batch = mas::store::Batch::new();
        log.write(&args, &mut |kept| {
            let _ = batch.command("XADD");
            let _ = match kept {
                Kept::Block(first, bytes, root) => {
                    let key = mas::store::keys::lane(&lane);
                    batch.arg(key).arg(format!("{first}-0")).arg("b").arg(bytes).arg("h").arg(root)
                }
                Kept::Note(note) => batch.arg(mas::store::keys::CHECKPOINTS).arg("*").arg("n").arg(note),
            };
            if batch.len() >= 256 {
                drop(connection.run(&mut batch)?);
            }
            Ok(())
        })?;
        drop(connection.run(&mut batch)?);
        println!("{} records in {url}", log.lane.confirmed().seq);
        return Ok(());
    }
    let mut trail = Vec::new();
    log.write(&args, &mut |kept| {
        trail.push(kept);
        Ok(())
    })?;
    measure(&log, &trail)
}

fn measure(log: &Log, trail: &[Kept]) -> Result<(), AnyError> {
    let bytes: usize = trail
        .iter()
        .map(|kept| match kept {
            Kept::Block(_, bytes, _) => bytes.len(),
            Kept::Note(_) => 0,
        })
        .sum();
    let keys = [log.keys.clone()];
    let mut verifier = Verifier::new(Questions { keys: &keys, ..Questions::default() });
    let lane = log.lane.id().as_str();
    let started = Instant::now();
    let before = Frontier::default();
    verifier
        .item(&Item::Lane { lane: lane.into(), registered: Some("{}".into()), before }, &mut |_, _| {})?;
    for kept in trail {
        let item = match kept {
            Kept::Block(first, bytes, root) => Item::Block {
                lane: lane.into(),
                first: *first,
                bytes: bytes.into(),
                root: root.into(),
                attested: Attested::NotLooked,
            },
            Kept::Note(note) => Item::Checkpoint { note: note.into() },
        };
        verifier.item(&item, &mut |_, _| {})?;
    }
    let report = verifier.finish(None)?;
    let seconds = started.elapsed().as_secs_f64();
    if !report.is_intact() {
        return Err(format!("{:?}", report.damages).into());
    }
    println!(
        "{} records of {} bytes on average, {} messages, {} checkpoints: {:.2} s, {:.0} records/s",
        report.records,
        bytes as u64 / report.records.max(1),
        report.accepted,
        report.checkpoints,
        seconds,
        report.records as f64 / seconds
    );
    Ok(())
}
