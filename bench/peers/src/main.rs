//! The server beside what else one could take: NATS JetStream, and Redis Streams with a client written by hand.
//!
//! One run, one machine: the same payload, the same number of messages in flight, the same number of senders and
//! receivers, in turn, round after round. Every measurement has servers of its own, in a temporary folder.

mod args;
mod clock;
mod drive;
mod folder;
mod latency;
mod nats;
mod ours;
mod payload;
mod process;
mod raw_redis;
mod recorder;
mod report;
mod rounds;
mod rows;

use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use args::Cli;

/// What went wrong, in words for the user.
pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Something failed while it ran.
const FAILED: u8 = 1;
/// Flags that do not go together: clap's own code for flags that are wrong.
const USAGE: u8 = 2;

/// Flags that do not go together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::from(if error.is::<UsageError>() { USAGE } else { FAILED })
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), AnyError> {
    if let Some(args::Command::Guard { folder }) = cli.command {
        return folder::guard(&folder);
    }
    cli.run.check()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(usize::from(cli.run.client_threads))
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        // A run that is dropped drops its processes and its folder with it.
        tokio::select! {
            outcome = rounds::run(&cli.run) => outcome,
            _ = interrupted.recv() => Err("interrupted".into()),
            _ = terminated.recv() => Err("told to end".into()),
        }
    })
}
