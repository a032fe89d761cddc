//! `mas audit key`: which key signs the checkpoints, and its replacement.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::audit::{Checkpoint, KeyHistory};
use crate::checkpoint::anchor::Anchor;
use crate::cli::exit::Exit;
use crate::cli::text::{parse_span_ms, time_text};
use crate::clock::Now;
use crate::config::Config;
use crate::key_files::{KeyFiles, StoreKeyFile};

/// Subcommands of `mas audit key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Show the log's keys, and from when on each signs. The first line of the text is what a verifier needs.
    Show(KeyArgs),
    /// Make a new key, introduced by the one in force; a running server takes it with its next checkpoint.
    Rotate(KeyArgs),
    /// Add a store key, whose tags are on what servers store in Redis. Older ones stay in the file: what has their tags
    /// stays good. Copy the file to the other hosts before the new key's time has come.
    RotateStore(RotateStoreArgs),
}

/// Arguments of `rotate-store`.
#[derive(Debug, Args)]
pub struct RotateStoreArgs {
    /// The configuration that names the file; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long until the new key makes tags: 5s, 10m, 1h.
    #[arg(long, value_name = "SPAN", default_value = "5s", value_parser = parse_span)]
    after: u64,
}

fn parse_span(text: &str) -> Result<u64, String> {
    parse_span_ms(text).ok_or_else(|| format!("{text:?} is no span: expected 5s, 10m, 1h"))
}

fn rotate_store(args: &RotateStoreArgs) -> Result<String, Box<dyn std::error::Error>> {
    let config = Config::locate_and_load(args.config.as_deref())?;
    let file = StoreKeyFile::new(&config.audit.store_key_path);
    let from_ms = (Now::read().unix_us / 1000).saturating_add(args.after);
    let keys = file.rotate(&file.lock()?, from_ms)?.keys;
    Ok(format!(
        "store key {} makes tags from {}",
        keys.newest_name(),
        time_text(from_ms.saturating_mul(1000))
    ))
}

/// Arguments of both.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// The configuration that names the key; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs one command.
pub(super) fn run(command: &KeyCommand) -> Exit {
    let args = match command {
        KeyCommand::Show(args) | KeyCommand::Rotate(args) => args,
        KeyCommand::RotateStore(args) => {
            return match rotate_store(args) {
                Ok(line) => {
                    println!("{line}");
                    Exit::Done
                }
                Err(error) => fail(Exit::Failed, error.as_ref()),
            };
        }
    };
    let config = match Config::locate_and_load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => return fail(Exit::Usage, &error),
    };
    let files = KeyFiles::new(&config.audit.signing_key_path);
    let history = match command {
        KeyCommand::Show(_) => match files.read_history() {
            Ok(Some(history)) => history,
            Ok(None) => {
                let path = files.history_path();
                eprintln!("mas audit key: {}: no key yet; the first start makes it", path.display());
                return Exit::Failed;
            }
            Err(error) => return fail(Exit::Failed, &error),
        },
        KeyCommand::Rotate(_) | KeyCommand::RotateStore(_) => match rotate(&config, &files) {
            Ok(history) => history,
            Err(error) => return fail(Exit::Failed, error.as_ref()),
        },
    };
    match show(&history, args.json) {
        Ok(()) => Exit::Done,
        Err(error) => fail(Exit::Failed, &error),
    }
}

fn rotate(config: &Config, files: &KeyFiles) -> Result<KeyHistory, Box<dyn std::error::Error>> {
    // No checkpoint is signed while this is held: the newest in the anchor is the newest there is.
    let lock = files.lock()?;
    let keys = files.load_or_create(&lock)?;
    let anchor = config.audit.anchor_path.as_deref().map(Anchor::open_read_only).transpose()?.flatten();
    let last = anchor.map(|mut anchor| anchor.last()).transpose()?.flatten();
    let last_ms = match last {
        Some(note) => Checkpoint::open(&note, &keys.history)?.0.time_ms,
        None => 0,
    };
    let now_ms = Now::read().unix_us / 1000;
    let from_ms = now_ms.max(last_ms + 1).max(keys.history.newest_from_ms() + 1);
    Ok(files.rotate(&lock, from_ms)?.history)
}

fn show(history: &KeyHistory, as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let newest = history.newest();
    if as_json {
        let keys: Vec<_> = history
            .keys()
            .map(|(from_ms, key)| json!({"key": key.to_string(), "from_ms": from_ms, "signs": key == newest}))
            .collect();
        writeln!(out, "{}", json!({"log": history.log_id(), "origin": history.origin(), "keys": keys}))?;
    } else {
        for (from_ms, key) in history.keys() {
            let from = if from_ms == 0 { "from the start".to_owned() } else { format!("from {from_ms} ms") };
            writeln!(out, "{key}  {from}{}", if key == newest { ", signs now" } else { "" })?;
        }
    }
    out.flush()
}

fn fail(exit: Exit, error: &dyn std::error::Error) -> Exit {
    eprintln!("mas audit key: {error}");
    exit
}
