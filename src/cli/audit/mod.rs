//! `mas audit`: is the trail what was written, and what does it say?
//!
//! Every command reads from a `Source`: the live Redis, files, or archives and what is still in Redis behind
//! them as one.

mod export;
pub(crate) mod filter;
mod key;
mod proof;
pub(crate) mod query;
mod report;
mod show;
mod source;
mod tail;
pub(crate) mod text;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::exit::Exit;
use crate::audit::segment::SegmentError;
use crate::config::Config;
use crate::store::StoreError;

pub(crate) use crate::audit::json::record_json;
pub(crate) use source::{Range, Source};
pub(crate) use text::record_line;
pub(crate) use verify::verify_trail;

/// Subcommands of `mas audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check every lane: contiguity, hashes, registry, signatures, the anchor, the join with what was
    /// delivered. Exit 3 names what is damaged.
    Verify(verify::VerifyArgs),
    /// Show the newest records.
    Tail(tail::TailArgs),
    /// Show one message's life: who asked, what was decided, who got it, how it ended; and its reply.
    Show(show::ShowArgs),
    /// Show the records that fit, as JSON lines or comma-separated values.
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

/// Which trail.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// The configuration whose Redis holds the trail; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read this file, made by `mas audit export`, and not Redis; may be given more than once.
    #[arg(long, value_name = "FILE")]
    pub export: Vec<PathBuf>,
    /// Read the archived segments in this folder, too, before what is in Redis or in the files; else those of
    /// the configuration.
    #[arg(long, value_name = "DIR")]
    pub archive: Option<PathBuf>,
}

/// Why a command has failed.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file that is no segment, or is damaged as a file.
    #[error("{path}: {source}", path = path.display())]
    Segment {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SegmentError,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or an argument that is not what it should be.
    #[error("{0}")]
    Usage(String),
    /// Nobody reads on: `mas audit tail | head`.
    #[error("the output is closed")]
    Output(#[source] std::io::Error),
}

impl Trouble {
    /// Standard output cannot be written.
    pub fn output(error: std::io::Error) -> Self {
        Self::Output(error)
    }

    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Store(_) | Self::File { .. } => Exit::Failed,
            Self::Segment { source: SegmentError::Expected { .. }, .. } => Exit::NotVerified,
            Self::Segment { source: SegmentError::Io { .. }, .. } => Exit::Failed,
            Self::Usage(_) => Exit::Usage,
            Self::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
            Self::Output(_) => Exit::Failed,
        }
    }
}

/// Runs one command.
pub fn run(command: AuditCommand) -> Exit {
    let outcome = match command {
        AuditCommand::Verify(args) => verify::run(&args),
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

/// The configuration that a command is about.
fn config(args: &SourceArgs) -> Result<Config, Trouble> {
    Config::locate_and_load(args.config.as_deref()).map_err(|error| Trouble::Usage(error.to_string()))
}
