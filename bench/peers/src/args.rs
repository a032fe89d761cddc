//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::rows::Row;
use crate::{AnyError, UsageError};

/// Longest run of one measurement, so that a forgotten one ends.
const MAX_SECONDS: u64 = 3600;
/// What loadgen takes.
const MIN_PAYLOAD_BYTES: i64 = 51;
const MAX_PAYLOAD_BYTES: i64 = 1_048_576;
/// Messages one sender may have under way: what a stream of ours takes, and the bound of every open loop here.
pub(crate) const MAX_UNDER_WAY: usize = 1000;

#[derive(Debug, Parser)]
#[command(name = "peers", about = "Measures a MAS server, NATS JetStream and Redis Streams in one run")]
#[command(args_override_self = true, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Ends what a killed run has started.
    #[command(hide = true)]
    Guard { folder: PathBuf },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The loadgen program, with mas-server beside it; needed for the rows of the MAS server.
    #[arg(long, value_name = "PATH")]
    pub(crate) loadgen: Option<PathBuf>,
    /// The nats-server program.
    #[arg(long, value_name = "PATH", default_value = "nats-server")]
    pub(crate) nats_server: PathBuf,
    /// The redis-server program of the rows of Redis alone; loadgen takes the one on the path.
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    pub(crate) redis_server: PathBuf,
    /// What is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Row::ALL)]
    pub(crate) rows: Vec<Row>,
    /// Messages that one XREADGROUP of the rows of Redis alone may bring.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub(crate) read_count: u16,
    /// Messages under way over all senders, in a closed loop: each number is a measurement of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [256, 1],
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) in_flight: Vec<u32>,
    /// Messages a second over all senders, at fixed instants: an open loop.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with = "in_flight")]
    pub(crate) rate: Option<u32>,
    /// Senders; each has a receiver of its own, and each of them a connection.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) pairs: u16,
    /// Size of each payload in bytes.
    #[arg(long, default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(MIN_PAYLOAD_BYTES..=MAX_PAYLOAD_BYTES))]
    pub(crate) payload: u32,
    /// Rounds; medians of them count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,
    /// Seconds of each measurement that count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(crate) seconds: u64,
    /// Seconds before those.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=MAX_SECONDS))]
    pub(crate) warm_up: u64,
    /// Worker threads of the MAS server; NATS and Redis decide for themselves.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) server_threads: u16,
    /// Threads of the clients of NATS and Redis; loadgen's clients have one.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) client_threads: u16,
    /// One JSON object instead of tables.
    #[arg(long)]
    pub(crate) json: bool,
}

/// How messages are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Loop {
    /// This many under way; the next one follows when one is acknowledged.
    Closed(u32),
    /// This many a second, at fixed instants.
    Open(u32),
}

impl RunArgs {
    /// The loops that every row goes through.
    pub(crate) fn loops(&self) -> Vec<Loop> {
        match self.rate {
            Some(rate) => vec![Loop::Open(rate)],
            None => self.in_flight.iter().map(|count| Loop::Closed(*count)).collect(),
        }
    }

    /// What clap does not see.
    ///
    /// # Errors
    /// A [`UsageError`].
    pub(crate) fn check(&self) -> Result<(), AnyError> {
        let usage = |text: String| Err(UsageError(text).into());
        if self.rows.iter().any(|row| row.fsynced_by_loadgen().is_some()) {
            match &self.loadgen {
                None => return usage("--loadgen PATH is needed for the rows of the MAS server".to_owned()),
                Some(path) if !path.is_file() => {
                    return usage(format!("--loadgen: {}: there is no such file", path.display()));
                }
                Some(_) => {}
            }
        }
        let most = usize::from(self.pairs) * MAX_UNDER_WAY;
        if self.rate.is_none() && self.in_flight.iter().any(|count| *count as usize > most) {
            return usage(format!("--in-flight: {} pairs take {most}; give more --pairs", self.pairs));
        }
        Ok(())
    }
}
