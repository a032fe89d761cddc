//! How operators' commands are carried out: by a running server, which decides by role, or by this process where none runs.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::Value as Json;

use super::admin::{self, AdminArgs, Told};
use super::exit::Exit;
use super::text::plain;
use crate::config::Config;
use crate::operation::{self, By, Command, Done, MAX_REASON_BYTES};

pub use crate::operation::acting::store_keys;

/// Which installation a command works on, and how it answers.
#[derive(Debug, Clone, Args)]
pub struct Source {
    #[command(flatten)]
    admin: AdminArgs,
    /// JSON, one object a line, instead of text.
    #[arg(long)]
    pub json: bool,
}

/// Why something is done.
#[derive(Debug, Clone, Default, Args)]
pub struct Why {
    /// Goes on record with the operator's name.
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = parse_reason)]
    reason: String,
}

impl Why {
    /// For that reason.
    pub fn of(reason: &str) -> Result<Self, Trouble> {
        parse_reason(reason)
            .map(|reason| Self { reason })
            .map_err(|why| Trouble::usage(format!("--reason {why}")))
    }

    /// By the user who runs this.
    pub fn by(&self) -> By {
        By::this_user(&self.reason)
    }
}

fn parse_reason(text: &str) -> Result<String, String> {
    match text.len() {
        0..=MAX_REASON_BYTES => Ok(text.to_owned()),
        len => Err(format!("is {len} bytes long; expected at most {MAX_REASON_BYTES}")),
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// What was asked for, by whoever carries it out.
    #[error(transparent)]
    Operation(operation::Trouble),
    /// The server that was asked.
    #[error(transparent)]
    Admin(#[from] admin::Trouble),
    /// Nobody reads on: `mas dlq list | head`.
    #[error("standard output: {0}")]
    Output(std::io::Error),
}

impl<E: Into<operation::Trouble>> From<E> for Trouble {
    fn from(error: E) -> Self {
        match error.into() {
            // What a command says goes to standard output here.
            operation::Trouble::Unheard(error) => Self::Output(error),
            trouble => Self::Operation(trouble),
        }
    }
}

impl Trouble {
    /// It was asked for something that is not possible.
    pub(crate) fn usage(why: String) -> Self {
        Self::Operation(operation::Trouble::Usage(why))
    }

    /// What it works on does not allow it now.
    pub(crate) fn refused(why: String) -> Self {
        Self::Operation(operation::Trouble::Refused(why))
    }

    /// How a command ends for it.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Operation(operation::Trouble::Usage(_) | operation::Trouble::Config(_))
            | Self::Admin(admin::Trouble::Usage(_)) => Exit::Usage,
            Self::Operation(_) | Self::Admin(_) | Self::Output(_) => Exit::Failed,
        }
    }
}

/// How a command ends, after saying why where that is a failure.
pub fn exit(command: &str, outcome: Result<Exit, Trouble>) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(Trouble::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => {
            eprintln!("mas {command}: {error}");
            error.exit()
        }
    }
}

impl Source {
    /// That of a configuration.
    pub fn of(config: Option<PathBuf>) -> Self {
        Self { admin: AdminArgs::of(config), json: false }
    }

    /// Reads the configuration.
    pub fn config(&self) -> Result<Config, Trouble> {
        Ok(Config::locate_and_load(self.admin.config.as_deref().map(Path::new))?)
    }

    /// Has a command carried out, and hands on what it says. Says on standard error where it is on record.
    pub fn carry_out(
        &self,
        why: &Why,
        command: &Command,
        mut say: impl FnMut(Json) -> std::io::Result<()>,
    ) -> Result<Done, Trouble> {
        match self.admin.post(command, &why.reason)? {
            Some(told) => said(hand_on(told, &mut say)?),
            None => self.carry_out_here(why, command, say),
        }
    }

    /// The same by this process, also where a server runs.
    pub fn carry_out_here(
        &self,
        why: &Why,
        command: &Command,
        mut say: impl FnMut(Json) -> std::io::Result<()>,
    ) -> Result<Done, Trouble> {
        said(operation::carry_out(&self.config()?, &why.by(), command, &mut say)?)
    }
}

/// Says on standard error where it is on record.
fn said(done: Done) -> Result<Done, Trouble> {
    if let Some(receipt) = &done.receipt {
        eprintln!("mas: {receipt}");
    }
    Ok(done)
}

/// Hands on the lines of a server's answer; an error where the command was not done.
fn hand_on(told: Told, say: &mut dyn FnMut(Json) -> std::io::Result<()>) -> Result<Done, Trouble> {
    for line in told.lines {
        say(line)?;
    }
    let why = told.error.map(|why| plain(&why));
    match (told.status, told.done, why) {
        (200, Some(done), None) => Ok(done),
        (400, _, Some(why)) => Err(Trouble::usage(why)),
        (409, _, Some(why)) => Err(Trouble::refused(why)),
        (status, _, why) => {
            let why = why.unwrap_or_else(|| "no answer to a command".to_owned());
            Err(admin::Trouble::Refused { url: told.url, status, why }.into())
        }
    }
}

/// How a command ends whose parts may have failed.
pub fn exit_of(done: &Done) -> Exit {
    if done.failed == 0 { Exit::Done } else { Exit::Failed }
}
