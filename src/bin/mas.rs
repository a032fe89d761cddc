//! The operator's program: runner, certificates, audit, dead letters.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use mas::cli::certs::{self, CertsCommand};
use mas::cli::exit::Exit;

/// Runs and inspects a MAS server.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Certificates: authority, server, agents, deny-list.
    #[command(subcommand)]
    Certs(CertsCommand),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let exit = match args.command {
        Command::Certs(command) => match certs::run(command) {
            Ok(()) => Exit::Done,
            Err(error) => {
                eprintln!("mas: {error}");
                Exit::Failed
            }
        },
    };
    exit.into()
}
