//! The operator's program: runner, certificates, audit, dead letters, agents, policy.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use mas::cli::agents::{self, AgentsArgs};
use mas::cli::audit::{self, AuditCommand};
use mas::cli::bundle::{self, BundleArgs};
use mas::cli::certs::{self, CertsCommand};
use mas::cli::check::{self, CheckCommand};
use mas::cli::dlp::{self, DlpCommand};
use mas::cli::dlq::{self, DlqCommand};
use mas::cli::doctor::{self, DoctorArgs};
use mas::cli::exit::Exit;
use mas::cli::fleet::{self, CircuitCommand, DrainArgs, QuarantineArgs, ReleaseArgs, ReloadArgs};
use mas::cli::foreign::{self, ForeignCommand};
use mas::cli::inbox::{self, InboxCommand};
use mas::cli::logging::{self, LogFormat};
use mas::cli::manual::{self, CompletionsArgs, ManArgs};
use mas::cli::migrate::{self, MigrateArgs};
use mas::cli::policy::{self, PolicyCommand};
use mas::cli::run::{self, DevArgs, GuardArgs, RunArgs};
use mas::cli::send::{self, RequestArgs, SendArgs};
use mas::cli::state::{self, StateCommand};
use mas::cli::status::{self, StatusArgs};
use mas::cli::tap::{self, TapArgs};
use mas::cli::top::{self, TopArgs};

/// Runs and inspects a MAS server.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the server and the configured agents; stop all on SIGINT or SIGTERM.
    Run(RunArgs),
    /// The same with no configuration at all: own authority, own Redis.
    Dev(DevArgs),
    /// Certificates: authority, server, agents, deny-list.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// The audit trail: verify, read.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Dead letters: look through them, put them back, remove them.
    #[command(subcommand)]
    Dlq(DlqCommand),
    /// An agent's inbox: empty it.
    #[command(subcommand)]
    Inbox(InboxCommand),
    /// What somebody else than a server has put into Redis: list it, show it, remove it.
    #[command(subcommand)]
    Foreign(ForeignCommand),
    /// How a running server is.
    Status(StatusArgs),
    /// A running server, live in the terminal: rates, agents, workers, inboxes, troubles.
    Top(TopArgs),
    /// Decisions as a running server commits them.
    Tap(TapArgs),
    /// Shut out an agent, all that offer something, or every agent, on every server at once.
    Quarantine(QuarantineArgs),
    /// Let in again who was shut out.
    Release(ReleaseArgs),
    /// Stop a server in order, for maintenance.
    Drain(DrainArgs),
    /// An agent's circuit: close it by hand.
    #[command(subcommand)]
    Circuit(CircuitCommand),
    /// Have a running server read its configuration and certificates again, as SIGHUP does.
    Reload(ReloadArgs),
    /// One thing held against thresholds, for monitoring.
    #[command(subcommand)]
    Check(CheckCommand),
    /// What is wrong, in order of harm, and what to do about it.
    Doctor(DoctorArgs),
    /// One file for a report of an error, without secrets.
    Bundle(BundleArgs),
    /// The agents, where their instances are, and what waits for them.
    Agents(AgentsArgs),
    /// An agent's state: read it, change it.
    #[command(subcommand)]
    State(StateCommand),
    /// Send one message as an agent.
    Send(SendArgs),
    /// Send a request as an agent and print its reply.
    Request(RequestArgs),
    /// Data-loss prevention: scan JSON lines.
    #[command(subcommand)]
    Dlp(DlpCommand),
    /// Rules: explain a decision, take over older ones.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Say what a mas.yaml of the Python server means here, key by key.
    Migrate(MigrateArgs),
    /// Print what a shell needs to complete commands.
    Completions(CompletionsArgs),
    /// Write the manual's pages.
    Man(ManArgs),
    /// The bundled worker of `mas dev --demo`.
    #[command(hide = true)]
    DemoWorker,
    /// Ends what a runner has started when the runner is killed.
    #[command(hide = true)]
    Guard(GuardArgs),
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => return refused(&error),
    };
    let exit = match args.command {
        Command::Run(args) => {
            logging::start(LogFormat::Text);
            run::run(args)
        }
        Command::Dev(args) => {
            // The demo kills processes on purpose; what it shows says so.
            logging::start_with(LogFormat::Text, if args.demo { "error" } else { "warn" });
            run::dev(args)
        }
        Command::Certs(command) => match certs::run(command) {
            Ok(()) => Exit::Done,
            Err(error) => {
                eprintln!("mas: {error}");
                Exit::Failed
            }
        },
        Command::Audit(command) => audit::run(command),
        Command::Dlq(command) => dlq::run(command),
        Command::Inbox(command) => inbox::run(command),
        Command::Foreign(command) => foreign::run(command),
        Command::Status(args) => status::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Tap(args) => tap::run(&args),
        Command::Quarantine(args) => fleet::quarantine(&args),
        Command::Release(args) => fleet::release(&args),
        Command::Drain(args) => fleet::drain(&args),
        Command::Circuit(command) => fleet::circuit(&command),
        Command::Reload(args) => fleet::reload(&args),
        Command::Check(command) => return check::run(&command),
        Command::Doctor(args) => doctor::run(&args),
        Command::Bundle(args) => bundle::run(&args),
        Command::Agents(args) => agents::run(&args),
        Command::State(command) => state::run(command),
        Command::Send(args) => send::send(&args),
        Command::Request(args) => send::request(&args),
        Command::Dlp(command) => dlp::run(command),
        Command::Policy(command) => policy::run(command),
        Command::Migrate(args) => migrate::run(&args),
        Command::Completions(args) => manual::completions(&args, Args::command()),
        Command::Man(args) => manual::man(&args, Args::command()),
        Command::DemoWorker => {
            logging::start(LogFormat::Text);
            mas::cli::demo::run_worker()
        }
        Command::Guard(args) => {
            logging::start(LogFormat::Text);
            run::guard(&args)
        }
    };
    exit.into()
}

/// Says what is wrong with the arguments, or gives the help that was asked for.
fn refused(error: &clap::Error) -> ExitCode {
    // Nobody reads it where this fails.
    let _ = error.print();
    let is_check = std::env::args_os().nth(1).is_some_and(|command| command == "check");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_check => check::usage_error(),
        _ => Exit::Usage.into(),
    }
}
