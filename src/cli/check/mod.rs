//! `mas check`: one thing held against thresholds, for monitoring: exit codes, performance data and samples as
//! monitoring systems read them.

mod args;
mod files;
mod outcome;
mod running;
mod threshold;

use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use args::CheckArgs;
use outcome::Status;

const EXIT_CODES: &str = "\
Exit codes are those of monitoring plugins, whatever the format, and not those of other `mas` commands:
  0 ok, 1 warning, 2 critical, 3 unknown (nothing could be looked at, or the arguments are wrong).

Examples:
  mas check server
  mas check inbox --agent planner --warn 100 --critical 1000
  mas check certs --warn 45d --critical 14d --format nagios
  mas check audit --verify --format prometheus > /var/lib/node_exporter/mas_audit.prom";

/// What is looked at.
#[derive(Debug, Subcommand)]
#[command(after_long_help = EXIT_CODES)]
pub enum CheckCommand {
    /// The server: whether it answers and is ready.
    ///
    /// Thresholds: seconds until it answers; by default 0.5 and 2. What keeps it from being ready is critical, other troubles
    /// are warnings.
    #[command(after_long_help = EXIT_CODES)]
    Server(CheckArgs),
    /// Inboxes: how many messages are in each.
    ///
    /// Thresholds: messages; by default 50 % and 90 % of `limits.max_queue_len`. Asks the server, or, where none answers, the
    /// Redis of the configuration.
    #[command(after_long_help = EXIT_CODES)]
    Inbox(InboxArgs),
    /// Dead letters in Redis.
    ///
    /// Thresholds: how many; by default 1 and 1000. Asks the server, or, where none answers, the Redis of the configuration.
    #[command(after_long_help = EXIT_CODES)]
    Dlq(CheckArgs),
    /// The seal of the audit trail.
    ///
    /// Thresholds: age of the newest checkpoint in seconds; by default 70 and 200 checkpoint intervals: where nothing happens
    /// a server makes one every 60. Asks the server, or, where none answers, the Redis of the configuration.
    #[command(after_long_help = EXIT_CODES)]
    Audit(AuditArgs),
    /// Certificates: when they end, and who can read their keys.
    ///
    /// Those of the server and its authority, and of agents and operators as far as they are on this machine; and those that
    /// the running server has loaded. Thresholds: days that are left; by default 14 and 3.
    #[command(after_long_help = EXIT_CODES)]
    Certs(CheckArgs),
    /// Redis: whether it answers, and can be what the server needs.
    ///
    /// Thresholds: percent of `maxmemory` in use; by default 75 and 85: at 90 nothing is admitted any more. Asks the Redis of
    /// the configuration, and the server.
    #[command(after_long_help = EXIT_CODES)]
    Redis(CheckArgs),
    /// The anchor: signed checkpoints outside Redis.
    ///
    /// Thresholds: age of the newest one in seconds; by default as `audit`. Reads the file of the configuration.
    #[command(after_long_help = EXIT_CODES)]
    Anchor(CheckArgs),
}

/// Arguments of `check inbox`.
#[derive(Debug, Args)]
pub struct InboxArgs {
    #[command(flatten)]
    common: CheckArgs,
    /// Only this agent's; may be repeated.
    #[arg(long, value_name = "AGENT")]
    agent: Vec<String>,
}

/// Arguments of `check audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    #[command(flatten)]
    common: CheckArgs,
    /// Also verify the whole trail, as `mas audit verify` does: damage is critical. Reads all of it.
    #[arg(long)]
    verify: bool,
}

/// Runs a check; the exit codes are those of monitoring plugins.
pub fn run(command: &CheckCommand) -> ExitCode {
    let (args, outcome) = match command {
        CheckCommand::Server(args) => (args, running::server(args)),
        CheckCommand::Inbox(args) => (&args.common, running::inbox(&args.common, &args.agent)),
        CheckCommand::Dlq(args) => (args, running::dead_letters(args)),
        CheckCommand::Audit(args) => (&args.common, running::audit(&args.common, args.verify)),
        CheckCommand::Certs(args) => (args, files::certificates(args)),
        CheckCommand::Redis(args) => (args, running::redis(args)),
        CheckCommand::Anchor(args) => (args, files::anchor(args)),
    };
    let written = std::io::stdout().lock().write_all(outcome.write(args.form()).as_bytes());
    match written {
        Ok(()) => outcome.status().into(),
        // Nobody knows what was found.
        Err(_) => Status::Unknown.into(),
    }
}

/// How a check ends whose arguments are wrong: 2 would be critical.
pub fn usage_error() -> ExitCode {
    Status::Unknown.into()
}
