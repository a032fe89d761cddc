//! `mas audit`: is the trail what was written, and what does it say?
//!
//! Every command reads from a `Source`: the live Redis, files, or archives and what is still in Redis behind
//! them as one.

mod acknowledge;
mod export;
pub(crate) mod filter;
mod formats;
mod join;
mod key;
mod noted;
mod proof;
pub(crate) mod query;
mod report;
mod show;
mod source;
mod subject;
mod tail;
pub(crate) mod text;
mod trouble;
mod verify;

use clap::Subcommand;

use super::exit::Exit;
use crate::audit::verify::Report;

pub use source::SourceArgs;
pub use trouble::Trouble;
pub(crate) use verify::verify_trail;

/// Subcommands of `mas audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check every lane: contiguity, hashes, registry, signatures, the anchor, the join with what was
    /// delivered. Exit 3 names what is damaged.
    Verify(verify::VerifyArgs),
    /// Put on record that damage is known: a restored backup, a loss. It is no damage to `verify` then.
    Acknowledge(acknowledge::AcknowledgeArgs),
    /// Show the newest records, as text, JSON lines or comma-separated values.
    Tail(tail::TailArgs),
    /// Show one message's life: who asked, what was decided, who got it, how it ended; and its reply. By the message's id, a
    /// request's correlation id, or a receipt.
    Show(show::ShowArgs),
    /// Show the records that fit, as text, JSON lines or comma-separated values.
    Query(query::QueryArgs),
    /// Write the trail, or a stretch of it, to a file that is verified elsewhere.
    Export(export::ExportArgs),
    /// Prove that a record is under a signed checkpoint; or check such a proof, offline.
    Proof(proof::ProofArgs),
    /// Account for a stretch of time: counts by decision, top senders, targets and findings, and whether the
    /// trail is intact.
    Report(report::ReportArgs),
    /// The key that signs checkpoints: show it, replace it.
    #[command(subcommand)]
    Key(key::KeyCommand),
}

/// Verifies the whole trail of an installation, against its keys and its anchor.
pub(crate) fn verify_installation(config: Option<std::path::PathBuf>) -> Result<Report, Trouble> {
    let source = SourceArgs { config, ..SourceArgs::default() };
    let (report, ()) = verify::verify_named(&source, &verify::TrustArgs::default(), &|| (), &mut |(), _| {})?;
    Ok(report)
}

/// Runs one command.
pub fn run(command: AuditCommand) -> Exit {
    let outcome = match command {
        AuditCommand::Verify(args) => verify::run(&args),
        AuditCommand::Acknowledge(args) => acknowledge::run(&args),
        AuditCommand::Tail(args) => tail::run(&args),
        AuditCommand::Show(args) => show::run(&args),
        AuditCommand::Query(args) => query::run(args),
        AuditCommand::Export(args) => export::run(&args),
        AuditCommand::Proof(args) => proof::run(&args),
        AuditCommand::Report(args) => report::run(&args),
        AuditCommand::Key(command) => Ok(key::run(&command)),
    };
    outcome.unwrap_or_else(|trouble| {
        let exit = trouble.exit();
        if exit != Exit::Done {
            eprintln!("mas audit: {trouble}");
        }
        exit
    })
}
