//! Drives one server with a fixed number of messages, always in the same steps, so that what a message costs
//! can be counted in instructions and compared: see the script `instructions` beside this file.
//!
//! One sender, one receiver. Each step sends `--batch` messages (on the stream: in one event; unary: one call
//! after the other), waits until the sender has all answers and the receiver all deliveries, and acknowledges
//! them in one event.

#![forbid(unsafe_code)]

mod session;
mod world;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use futures_executor::block_on;
use grpcio::{CallOption, EnvBuilder};
use mas::protocol::{RUNTIME_V1, SendRequest};

use session::Session;
use world::{RECEIVER, SENDER, World};

type AnyError = Box<dyn std::error::Error>;

/// Payload of a message, in bytes.
const PAYLOAD_BYTES: usize = 256;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Path {
    Stream,
    Unary,
}

#[derive(Debug, Parser)]
#[command(about = "Sends a fixed number of messages through a server of its own")]
struct Args {
    /// How messages are sent.
    #[arg(long, value_enum)]
    path: Path,
    /// Steps.
    #[arg(long)]
    steps: u32,
    /// Messages in a step.
    #[arg(long, default_value_t = 64)]
    batch: u32,
    /// Traces this share of the messages, to a collector that is not there.
    #[arg(long, value_name = "RATIO")]
    telemetry: Option<f64>,
    /// The server's program and what goes before it, such as valgrind.
    #[arg(last = true, required = true)]
    server: Vec<String>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("server-bench: {error}");
            ExitCode::from(1)
        }
    }
}

fn run(args: &Args) -> Result<(), AnyError> {
    let world = World::start(&args.server, args.telemetry)?;
    let environment = Arc::new(EnvBuilder::new().cq_count(1).build());
    let mut sender = Session::open(&world, &environment, SENDER)?;
    let mut receiver = Session::open(&world, &environment, RECEIVER)?;
    for _ in 0..args.steps {
        match args.path {
            Path::Stream => sender.submit((0..args.batch).map(|_| message()).collect())?,
            Path::Unary => {
                for _ in 0..args.batch {
                    let call = sender.client.unary_call_async(
                        &RUNTIME_V1.send.client,
                        &message(),
                        CallOption::default(),
                    )?;
                    let _ = block_on(call)?;
                }
            }
        }
        receiver.receive(args.batch as usize)?;
    }
    drop((sender, receiver));
    world.stop()
}

fn message() -> SendRequest {
    let head = "{\"text\":\"";
    SendRequest {
        target_id: RECEIVER.to_owned(),
        message_type: "load".to_owned(),
        data_json: format!("{head}{}\"}}", "y".repeat(PAYLOAD_BYTES - head.len() - 2)),
        instance_id: session::INSTANCE.to_owned(),
        ..SendRequest::default()
    }
}
