//! Load and latency: starts its own Redis and server, sends, and says how many messages a second arrived
//! and how long they took until the receiver had them.
//!
//! Closed loop by default: the next message of a lane is sent when its last one was accepted. With
//! `--rate` open loop: messages are due at fixed instants, and latency counts from the instant at which
//! a message was due, whether or not it could be sent then (no coordinated omission).

#![forbid(unsafe_code)]

mod connection;
mod measure;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use measure::{Path, Plan};
use world::World;

/// Longest run, so that a forgotten one ends.
const MAX_SECONDS: u64 = 3600;

#[derive(Debug, Parser)]
#[command(version, about = "Measures a MAS server under load")]
struct Args {
    /// Sending agents, each with a connection and a receiving partner.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pairs: u16,
    /// Calls in flight over all senders.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// How messages are sent: unary calls, or submissions on the session's stream.
    #[arg(long, value_enum, default_value_t = Path::Unary)]
    path: Path,
    /// Messages a second over all senders, at fixed instants; without it a closed loop.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// Payload size in bytes.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(64..=1_000_000))]
    payload: u32,
    /// Seconds that count.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=MAX_SECONDS))]
    seconds: u64,
    /// Seconds before that.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(0..=MAX_SECONDS))]
    warm_up: u64,
    /// Worker threads of the server.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: u16,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadgen: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn std::error::Error>> {
    let world = World::start(usize::from(args.pairs), args.threads)?;
    let plan = Plan {
        pairs: usize::from(args.pairs),
        in_flight: args.in_flight as usize,
        path: args.path,
        rate: args.rate,
        payload_bytes: args.payload as usize,
        warm_up: Duration::from_secs(args.warm_up),
        counted: Duration::from_secs(args.seconds),
    };
    let result = measure::run(&world, &plan)?;
    let setting = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "threads": args.threads,
        "durability": "accepted",
        "appendfsync": "everysec",
        "features": ["mtls", "acl", "rbac", "rate limit", "circuit breaker", "dlp", "audit", "checkpoints"],
        "path": format!("{:?}", args.path).to_lowercase(),
        "rate": args.rate,
        "pairs": args.pairs,
        "in_flight": args.in_flight,
        "payload_bytes": args.payload,
        "seconds": args.seconds,
    });
    if args.json {
        println!("{}", serde_json::json!({"setting": setting, "result": result.json()}));
    } else {
        println!("{setting}");
        result.print();
    }
    Ok(())
}
