//! `mas dlp scan`: JSON objects on standard input, and what is found in each.

use std::path::PathBuf;

use clap::Args;

use super::rules::rules;
use crate::cli::exit::Exit;
use crate::dlp::Route;
use crate::dlp::lines::{Asked, scan_lines};

/// Arguments of `scan`.
#[derive(Debug, Args)]
pub struct ScanArgs {
    /// The configuration whose rules are used; else MAS_CONFIG_FILE, else mas.yaml upward, else the default rules.
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

pub(super) fn run(args: &ScanArgs) -> Result<Exit, String> {
    let dlp = rules(args.config.as_deref())?;
    let asked = Asked {
        route: Route { from: &args.from, to: &args.to },
        message_type: &args.message_type,
        explained: args.explain,
    };
    Ok(match scan_lines(&dlp, asked, std::io::stdin().lock(), std::io::stdout().lock()) {
        Ok(()) => Exit::Done,
        // Nobody reads on.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            eprintln!("mas dlp: {error}");
            Exit::Failed
        }
    })
}
