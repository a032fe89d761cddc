//! Load and latency: starts its own Redis and server (or aims at a running one), sends, and says how many
//! messages a second arrived and how long they took until the receiver had them.
//!
//! Closed loop by default: the next message follows when the last one was accepted. With `--rate` open loop:
//! messages are due at fixed instants, and latency counts from the instant at which a message was due, whether
//! or not it could be sent then (no coordinated omission).
//!
//! Messages are sent and received by client processes, so that their work is no part of what is measured.

#![forbid(unsafe_code)]

mod agents;
mod args;
mod client;
mod clock;
mod echo;
mod fleet;
mod floors;
mod goal;
mod guard;
mod idle;
mod interrupt;
mod latency;
mod payload;
mod plan;
mod plot;
mod process;
mod product;
mod ramp;
mod ratios;
mod redis_floor;
mod report;
mod run;
mod setting;
mod world;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, FloorArgs};
use floors::{FloorPlan, Floors};
use setting::Place;

/// What went wrong, in words for the user.
pub(crate) type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// Hidden subcommand: a client process.
pub(crate) const CLIENT_COMMAND: &str = "client";
/// Hidden subcommand: the echo server.
pub(crate) const ECHO_COMMAND: &str = "echo-server";

/// Hidden subcommand: ends what a killed loadgen has started.
pub(crate) const GUARD_COMMAND: &str = "guard";

/// Something failed while it ran.
const FAILED: u8 = 1;
/// Flags that do not go together: clap's own code for flags that are wrong.
const USAGE: u8 = 2;

/// Flags that do not go together.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub(crate) String);

/// Marks what went wrong as the user's to mend.
pub(crate) fn usage(error: impl std::fmt::Display) -> AnyError {
    UsageError(error.to_string()).into()
}

fn main() -> ExitCode {
    match dispatch(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(if error.is::<UsageError>() { USAGE } else { FAILED })
        }
    }
}

fn dispatch(cli: Cli) -> Result<(), AnyError> {
    match cli.command {
        Some(Command::Client) => client::main(),
        Some(Command::Echo { certs, threads }) => echo::main(&certs, threads),
        Some(Command::Guard { folder }) => guard::main(&folder),
        Some(Command::Floor(args)) => {
            interrupt::listen()?;
            floor(&args)
        }
        Some(Command::Ratios(args)) => {
            interrupt::listen()?;
            ratios::run(&args)
        }
        Some(Command::Idle(args)) => {
            interrupt::listen()?;
            idle::run(&args)
        }
        None => {
            interrupt::listen()?;
            run::run(&cli.run)
        }
    }
}

fn floor(args: &FloorArgs) -> Result<(), AnyError> {
    let floors = Floors::start(FloorPlan {
        threads: args.threads,
        warm_up_s: args.warm_up as f64,
        counted_s: args.seconds as f64,
        content: args.content.content().map_err(usage)?,
    })?;
    let all = floors::all(&floors)?;
    let place = Place {
        server_version: "none".to_owned(),
        redis_version: floors.redis.version,
        threads: Some(args.threads),
        fsynced: false,
    };
    let more = serde_json::json!({
        "features": "mtls (echo)", "payload_bytes": args.content.payload, "seconds": args.seconds,
        "senders": floors::SENDERS, "client_threads": client_threads(),
    });
    let setting = setting::with(setting::setting(&place), &more);
    if args.json {
        let floors = floors::json(&all.iter().collect::<Vec<_>>());
        println!(
            "{}",
            serde_json::json!({"setting": setting, "floors": floors, "explanation": floors::EXPLANATION})
        );
    } else {
        println!("{}\n", setting::line(&setting));
        floors::print(&all);
    }
    Ok(())
}

/// Threads of a client process, for a result that holds both kinds.
pub(crate) fn client_threads() -> String {
    let of = |path: plan::Path| path.client_queues();
    format!("{} (stream), {} (unary)", of(plan::Path::Stream), of(plan::Path::Unary))
}
