//! `mas dlp`: what the rules find, without a server.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::exit::Exit;
use crate::config::Config;
use crate::dlp::Route;
use crate::dlp::lines::{Asked, scan_lines};

/// Subcommands of `mas dlp`.
#[derive(Debug, Subcommand)]
pub enum DlpCommand {
    /// Scan JSON objects on stdin, one a line; one JSON object a line says what was found in each.
    Scan(ScanArgs),
}

/// Arguments of `scan`.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// The configuration whose rules are used; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// As messages of this agent: its exceptions apply.
    #[arg(long, value_name = "AGENT", default_value = "")]
    from: String,
    /// As messages for this agent.
    #[arg(long, value_name = "AGENT", default_value = "")]
    to: String,
    /// As messages of this type.
    #[arg(long = "type", value_name = "TYPE", default_value = "")]
    message_type: String,
    /// Also every value that was judged by its name, found or not: the evidence, its score, what would have changed the outcome.
    #[arg(long)]
    explain: bool,
}

/// Runs one command.
pub fn run(command: DlpCommand) -> Exit {
    let DlpCommand::Scan(args) = command;
    let config = match Config::locate_and_load(args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("mas dlp: {error}");
            return Exit::Usage;
        }
    };
    let Some(dlp) = &config.dlp else {
        eprintln!("mas dlp: {}: gateway.features.dlp is off", config.path.display());
        return Exit::Usage;
    };
    let asked = Asked {
        route: Route { from: &args.from, to: &args.to },
        message_type: &args.message_type,
        explained: args.explain,
    };
    match scan_lines(dlp, asked, std::io::stdin().lock(), std::io::stdout().lock()) {
        Ok(()) => Exit::Done,
        // Nobody reads on.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            eprintln!("mas dlp: {error}");
            Exit::Failed
        }
    }
}
