//! `mas dlp`: what the rules find, without a server; what was found, from the trail; and samples that hold a policy in CI.

mod report;
mod rules;
mod scan;
mod suite;

use clap::Subcommand;

use super::exit::Exit;

/// Subcommands of `mas dlp`.
#[derive(Debug, Subcommand)]
pub enum DlpCommand {
    /// Scan JSON objects on stdin, one a line; one JSON object a line says what was found in each.
    Scan(scan::ScanArgs),
    /// Check labelled samples against the configuration; exit 1 where one is judged otherwise than its label says.
    Test(suite::TestArgs),
    /// List what was found in messages, by kind, rule, sender, target, type and place; and the exceptions that would let it pass.
    Report(report::ReportArgs),
}

/// Runs one command.
pub fn run(command: DlpCommand) -> Exit {
    let done = match command {
        DlpCommand::Scan(args) => scan::run(&args),
        DlpCommand::Test(args) => suite::run(&args),
        DlpCommand::Report(args) => return report::run(args),
    };
    done.unwrap_or_else(|problem| {
        eprintln!("mas dlp: {problem}");
        Exit::Usage
    })
}
