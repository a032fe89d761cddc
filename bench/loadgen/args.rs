//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::AnyError;
use crate::agents::Names;
use crate::fleet::MAX_PROCESSES;
use crate::payload::{MIN_BYTES, MIN_FINDING_BYTES};
use crate::plan::{Content, Generation, Path, Pattern};

/// Longest run, so that a forgotten one ends.
const MAX_SECONDS: u64 = 3600;
/// Largest payload: the server's default bound.
const MAX_PAYLOAD_BYTES: u32 = 1_048_576;

#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about = "Measures a MAS server under load")]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// What Redis alone and gRPC alone do on this machine.
    Floor(FloorArgs),
    /// Floors and the product in turn: how near the product is to them.
    Ratios(RatiosArgs),
    /// Many connected agents that do nothing: what they cost, and whether two active ones notice.
    Idle(IdleArgs),
    /// A client process, told by stdin.
    #[command(name = crate::CLIENT_COMMAND, hide = true)]
    Client,
    /// Ends what a killed loadgen has started.
    #[command(name = crate::GUARD_COMMAND, hide = true)]
    Guard { folder: PathBuf },
    /// The echo server of the floors.
    #[command(name = crate::ECHO_COMMAND, hide = true)]
    Echo {
        #[arg(long)]
        certs: PathBuf,
        #[arg(long)]
        threads: u16,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Who says what to whom.
    #[arg(long, value_enum, default_value_t = Pattern::Send)]
    pub(crate) pattern: Pattern,
    /// How messages are sent: unary calls, or submissions on the session's stream.
    #[arg(long, value_enum, default_value_t = Path::Unary)]
    pub(crate) path: Path,
    /// Agents in all: half of them send (send, request), all but one (fan-in), one (fan-out), all (state).
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub(crate) agents: u32,
    /// Sessions of each receiving agent, each with a connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) instances: u16,
    /// Sessions of each sending agent, each with a connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) connections: u16,
    /// Client processes that share the sessions.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_PROCESSES)))]
    pub(crate) processes: u16,
    /// Messages under way over all senders, in a closed loop.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) in_flight: u32,
    /// Messages a second over all senders, at fixed instants: an open loop.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000), conflicts_with = "in_flight")]
    pub(crate) rate: Option<u32>,
    /// Raises the open loop's rate from this, step by step, until latency or backlog breaks.
    #[arg(long, value_name = "RATE", conflicts_with_all = ["rate", "in_flight"],
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) ramp: Option<u32>,
    /// Each step's rate as a multiple of the one before (1.01 to 4).
    #[arg(long, default_value_t = 1.25, requires = "ramp", value_parser = step)]
    pub(crate) ramp_step: f64,
    /// The p99, in milliseconds, beyond which latency counts as broken.
    #[arg(long, default_value_t = 100, requires = "ramp", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) ramp_p99_ms: u32,
    #[command(flatten)]
    pub(crate) content: ContentArgs,
    /// Seconds that count; of each step with --ramp.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(crate) seconds: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=MAX_SECONDS))]
    pub(crate) warm_up: u64,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Permission rules in all; those beyond the agents' own concern nobody who sends.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) rules: u32,
    #[command(flatten)]
    pub(crate) target: TargetArgs,
    /// Writes latency by percentile and over time as a page without outside resources.
    #[arg(long, value_name = "FILE.html")]
    pub(crate) plot: Option<PathBuf>,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ContentArgs {
    /// Payload size in bytes.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(MIN_BYTES as i64..=i64::from(MAX_PAYLOAD_BYTES)))]
    pub(crate) payload: u32,
    /// clean, findings (a number that is redacted in each), or the part of messages with findings, 0 to 1.
    #[arg(long, default_value = "clean", value_parser = mix)]
    pub(crate) mix: f64,
    /// Makes the same payloads again.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Starts a Redis and a server of its own (the default).
    #[arg(long, conflicts_with = "target")]
    pub(crate) spawn: bool,
    /// Worker threads of the server that is started.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024), conflicts_with = "target")]
    pub(crate) threads: u16,
    /// Accepted means fsynced; Redis fsyncs before it answers.
    #[arg(long, conflicts_with = "target")]
    pub(crate) fsynced: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// host:port of a running server of the same protocol, of which the agents must be known and permitted.
    #[arg(long, value_name = "ADDR", requires = "certs")]
    pub(crate) target: Option<String>,
    /// Folder with ca.pem, agents/NAME.pem and agents/NAME.key.
    #[arg(long, value_name = "DIR", requires = "target")]
    pub(crate) certs: Option<PathBuf>,
    /// The name in the server's certificate, where it is not the host of ADDR.
    #[arg(long, requires = "target")]
    pub(crate) server_name: Option<String>,
    /// The clients whose service path it has: 0.4 for the Python server.
    #[arg(long, value_enum, default_value = "0.5", requires = "target")]
    pub(crate) generation: Generation,
    /// Process id of that server, if it runs here: to account for its CPU.
    #[arg(long, requires = "target")]
    pub(crate) server_pid: Option<u32>,
    /// Names of sending agents; {} stands for 0, 1, 2 and so on.
    #[arg(long, default_value = "s{}")]
    pub(crate) sender_name: String,
    /// Names of receiving agents.
    #[arg(long, default_value = "r{}")]
    pub(crate) receiver_name: String,
}

#[derive(Debug, Args)]
pub(crate) struct FloorArgs {
    #[command(flatten)]
    pub(crate) content: ContentArgs,
    /// Seconds of each.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(crate) seconds: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=MAX_SECONDS))]
    pub(crate) warm_up: u64,
    /// Connections to Redis, and completion queues of the echo server.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RatiosArgs {
    #[command(flatten)]
    pub(crate) floor: FloorArgs,
    /// Rounds; medians of them count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) rounds: u16,
    /// Seconds of the open loop at half the peak; a figure to go by takes 60.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(crate) open_seconds: u64,
    /// Ends with exit code 1 when a goal is not met.
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Args)]
pub(crate) struct IdleArgs {
    /// Agents that connect and do nothing.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) agents: u32,
    /// Client processes that share them.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=i64::from(MAX_PROCESSES)))]
    pub(crate) processes: u16,
    #[command(flatten)]
    pub(crate) content: ContentArgs,
    /// Seconds of each measurement; an idle agent pings every 19, which a shorter one may miss.
    #[arg(long, default_value_t = 25, value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    pub(crate) seconds: u64,
    /// Worker threads of the server.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,
    /// Ends with exit code 1 when a goal is not met.
    #[arg(long)]
    pub(crate) check: bool,
    /// One JSON object instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

impl ContentArgs {
    /// What is in the messages.
    ///
    /// # Errors
    /// When a finding does not fit.
    pub(crate) fn content(&self) -> Result<Content, AnyError> {
        let payload_bytes = self.payload as usize;
        if self.mix > 0.0 && payload_bytes < MIN_FINDING_BYTES {
            return Err(format!("--payload: with findings at least {MIN_FINDING_BYTES} bytes").into());
        }
        Ok(Content { payload_bytes, findings: self.mix, seed: self.seed })
    }
}

impl TargetArgs {
    pub(crate) fn names(&self) -> Names {
        Names { senders: self.sender_name.clone(), receivers: self.receiver_name.clone() }
    }
}

fn mix(text: &str) -> Result<f64, String> {
    match text {
        "clean" => Ok(0.0),
        "findings" => Ok(1.0),
        part => match part.parse::<f64>() {
            Ok(part) if (0.0..=1.0).contains(&part) => Ok(part),
            _ => Err("expected clean, findings or a number from 0 to 1".to_owned()),
        },
    }
}

fn step(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(step) if (1.01..=4.0).contains(&step) => Ok(step),
        _ => Err("expected a number from 1.01 to 4".to_owned()),
    }
}
