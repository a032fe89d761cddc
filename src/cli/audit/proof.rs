//! `mas audit proof`: a record, and the path from it to a signed checkpoint, in a file that is checked with
//! the public key alone.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::json;
use uuid::Uuid;

use super::source::SourceArgs;
use super::text::record_line;
use super::trouble::Trouble;
use super::verify::{Trust, TrustArgs, optional_config, read_keys};
use crate::audit::LaneId;
use crate::audit::json::record_json;
use crate::audit::proof::{MAX_PROOF_BYTES, Proof, Proven, Receipt};
use crate::cli::exit::Exit;
use crate::cli::text::time_text;
use crate::history::proving::{build, covering, find};

/// Arguments of `proof`.
#[derive(Debug, Args)]
pub struct ProofArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// The lane of the record to prove.
    #[arg(long, value_name = "LANE", requires = "sequence", conflicts_with_all = ["message_id", "check"])]
    lane: Option<String>,
    /// Its position in the lane, from 1.
    #[arg(long, value_name = "N", requires = "lane")]
    sequence: Option<u64>,
    /// Prove the decision on this message.
    #[arg(long, value_name = "ID", conflicts_with = "check")]
    message_id: Option<Uuid>,
    /// The receipt that the server gave, as JSON: prove it, or with --check compare the proof with it.
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Check this proof, offline.
    #[arg(long, value_name = "FILE", requires = "public_key")]
    check: Option<PathBuf>,
    /// The public key that signs checkpoints, with its history. Once for each log.
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
    /// With --check: one JSON object instead of text.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ProofArgs) -> Result<Exit, Trouble> {
    let receipt: Option<Receipt> = args.receipt.as_deref().map(read_json).transpose()?;
    if let Some(path) = &args.check {
        return check(args, path, receipt.as_ref());
    }
    let config = optional_config(&args.source)?;
    let mut source = args.source.open(config.as_ref())?;
    let (lane, sequence) = match (&args.lane, args.sequence, args.message_id, &receipt) {
        (Some(lane), Some(sequence), _, _) => (LaneId::from_stored(lane), sequence),
        (None, None, None, Some(receipt)) => (LaneId::from_stored(&receipt.lane), receipt.sequence),
        (None, None, Some(id), _) => match find(&mut source, id)? {
            Some(place) => place,
            None => {
                eprintln!("mas audit: message {id} is not on record");
                return Ok(Exit::Failed);
            }
        },
        _ => {
            let what = "name a record: --lane and --sequence, --message-id, or --receipt";
            return Err(Trouble::Usage(what.to_owned()));
        }
    };
    let Some((size, note)) = covering(&mut source, &lane, sequence)? else {
        eprintln!("mas audit: no checkpoint covers record {sequence} of lane {lane} (yet)");
        return Ok(Exit::Failed);
    };
    let Some(proof) = build(&mut source, &lane, sequence, size, &note)? else {
        eprintln!("mas audit: lane {lane} is not there as a whole, from its first record to record {size}");
        return Ok(Exit::NotVerified);
    };
    // What this command hands out has been checked by it.
    let trust = TrustArgs { public_key: args.public_key.clone(), anchor: Vec::new(), no_anchor: true };
    let trust = Trust::open(&trust, config.as_ref())?;
    if trust.keys().is_empty() {
        eprintln!("mas audit: no public key at hand, the proof was not checked");
    } else {
        let checked = match &receipt {
            Some(receipt) => receipt.check(&proof, trust.keys()),
            None => proof.check(trust.keys()),
        };
        if let Err(error) = checked {
            eprintln!("mas audit: {error}");
            return Ok(Exit::NotVerified);
        }
    }
    let mut out = std::io::stdout().lock();
    let text = serde_json::to_string(&proof).map_err(|error| Trouble::Usage(error.to_string()))?;
    writeln!(out, "{text}").map_err(Trouble::output)?;
    Ok(Exit::Done)
}

fn check(args: &ProofArgs, path: &Path, receipt: Option<&Receipt>) -> Result<Exit, Trouble> {
    let proof: Proof = read_json(path)?;
    let keys = args.public_key.iter().map(|path| read_keys(path)).collect::<Result<Vec<_>, _>>()?;
    let checked = match receipt {
        Some(receipt) => receipt.check(&proof, &keys),
        None => proof.check(&keys),
    };
    let (lane, sequence) = proof.place();
    let mut out = std::io::stdout().lock();
    match checked {
        Ok(proven) => {
            write_proven(&mut out, &proof, &proven, args.json).map_err(Trouble::output)?;
            Ok(Exit::Done)
        }
        Err(error) => {
            if args.json {
                let line =
                    json!({"proven": false, "lane": lane, "seq": sequence, "problem": error.to_string()});
                writeln!(out, "{line}").map_err(Trouble::output)?;
            } else {
                let error = error.to_string();
                writeln!(out, "NOT PROVEN  {}", crate::audit::verify::Plain(&error))
                    .map_err(Trouble::output)?;
            }
            Ok(Exit::NotVerified)
        }
    }
}

fn write_proven(out: &mut dyn Write, proof: &Proof, proven: &Proven, as_json: bool) -> std::io::Result<()> {
    let (lane, sequence) = proof.place();
    let Proven { record, leaf, checkpoint } = proven;
    // The record was decoded from bytes that are canonical, so these are they.
    let bytes = record.encode();
    let Some(view) = crate::audit::View::decode(&bytes) else {
        return Err(std::io::Error::other("the record does not read back"));
    };
    if as_json {
        let line = json!({
            "proven": true, "lane": lane, "seq": sequence, "record_hash": crate::ids::hex(leaf),
            "record": record_json(&LaneId::from_stored(lane), &view),
            "checkpoint": {
                "log": checkpoint.origin, "boot": checkpoint.boot.to_string(), "counter": checkpoint.counter,
                "time_ms": checkpoint.time_ms,
            },
        });
        return writeln!(out, "{line}");
    }
    writeln!(out, "{}", record_line(&view))?;
    writeln!(
        out,
        "record {sequence} of lane {}, hash {}",
        crate::audit::verify::Plain(lane),
        crate::ids::hex(leaf)
    )?;
    writeln!(
        out,
        "proven: under checkpoint {} of server run {} of {}, signed at {}",
        checkpoint.counter,
        checkpoint.boot.simple(),
        checkpoint.origin,
        time_text(checkpoint.time_ms.saturating_mul(1000))
    )
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Trouble> {
    let wrap = |source| Trouble::File { path: path.to_path_buf(), source };
    let mut text = String::new();
    let file = File::open(path).map_err(wrap)?;
    let _ = file.take(MAX_PROOF_BYTES).read_to_string(&mut text).map_err(wrap)?;
    serde_json::from_str(&text).map_err(|error| Trouble::Usage(format!("{}: {error}", path.display())))
}
