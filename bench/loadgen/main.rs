//! Load and latency: starts its own Redis and server, sends with a fixed number of calls in flight, and
//! says how many messages a second arrived and how long they took from the call to the handler.
//!
//! Closed loop: the next message of a lane is sent when its last one was accepted. Latency under a given
//! rate (open loop), other patterns and floors come with the performance work.

#![forbid(unsafe_code)]

mod measure;
mod world;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use measure::Plan;
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
        "features": ["mtls", "acl", "audit"],
        "path": "unary",
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
