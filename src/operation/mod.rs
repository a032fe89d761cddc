//! What operators change: each change in one transaction with its record, by whom and why. The same code runs in a server,
//! for whoever may ask its admin listener, and in `mas` itself, where no server runs.
//!
//! * [`command`]: what can be asked for, as it goes over the wire.
//! * [`acting`]: the audit lane of one command, and how it is sealed.
//! * `letters`, `inboxes`, `states`, `foreign`: what commands do to Redis.
//! * `drains`: servers that are told to stop.
//! * `quarantine`: agents that are shut out, and let in again.

pub mod acting;
pub mod command;
mod drains;
mod foreign;
mod inboxes;
pub mod letters;
mod quarantine;
mod states;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use nix::unistd::{Uid, User};

use crate::config::{Config, ConfigError};
use crate::key_files::KeyError;
use crate::store::StoreError;
pub use command::Command;
pub use letters::Wanted as WantedLetters;

/// Longest reason, in bytes.
pub const MAX_REASON_BYTES: usize = 512;
/// Longest name of somebody who operates, in bytes, with where he does it from.
const MAX_NAME_BYTES: usize = 256;

/// By whom something is done, and why.
#[derive(Debug, Clone)]
pub struct By {
    name: String,
    reason: String,
}

impl By {
    /// `name` says who, and from where; both are cut where they are too long for a record.
    pub fn new(name: &str, reason: &str) -> Self {
        let cut = |text: &str, most: usize| {
            text.chars()
                .scan(0, |bytes, c| {
                    *bytes += c.len_utf8();
                    (*bytes <= most).then_some(c)
                })
                .collect()
        };
        Self { name: cut(name, MAX_NAME_BYTES), reason: cut(reason, MAX_REASON_BYTES) }
    }

    /// The user who runs this process.
    pub fn this_user(reason: &str) -> Self {
        Self::new(&user_name(Uid::current()), reason)
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// As it is on record.
    pub fn to_text(&self) -> String {
        if self.reason.is_empty() { self.name.clone() } else { format!("{}: {}", self.name, self.reason) }
    }
}

/// A user's name, as the system knows it.
pub fn user_name(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        // Containers run under ids that no file lists.
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

/// Why a command did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// It was asked for something that is not possible.
    #[error("{0}")]
    Usage(String),
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Redis.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store keys.
    #[error("gateway.audit.store_key_path: {0}")]
    Keys(#[from] KeyError),
    /// What it works on does not allow it now.
    #[error("{0}")]
    Refused(String),
    /// Nobody takes what it says any more.
    #[error("{0}")]
    Unheard(#[from] std::io::Error),
}

/// Where a command is on record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The audit lane.
    pub lane: String,
    /// Records in it, from 1.
    pub records: u64,
    /// Which checkpoint covers them.
    pub sealed: Sealed,
}

/// Which checkpoint covers the records of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sealed {
    /// One of a running server.
    ByServer {
        /// Its number.
        checkpoint: u64,
        /// The run of the server.
        run: String,
    },
    /// One that the command has made itself, as no server runs.
    Here,
    /// No server runs, and the command could not make one: why.
    ByNextStart(String),
    /// A server runs, and none covers them so far.
    NotYet,
}

impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lane, records, sealed } = self;
        write!(f, "on record in lane {lane}, records 1 to {records}; ")?;
        match sealed {
            Sealed::ByServer { checkpoint, run } => {
                write!(f, "sealed by checkpoint {checkpoint} of server run {run}")
            }
            Sealed::Here => f.write_str("sealed by this command, as no server runs"),
            Sealed::ByNextStart(why) => write!(f, "the next start of a server seals it ({why})"),
            Sealed::NotYet => f.write_str("no checkpoint covers it yet"),
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Things that were changed.
    pub done: u64,
    /// Things that were meant and stayed as they were.
    pub failed: u64,
    /// Whether a limit left some out.
    pub more: bool,
    /// Where it is on record; nothing where nothing was changed.
    pub receipt: Option<Receipt>,
}

/// Takes one line of what a command has to say.
pub type Say<'a> = &'a mut dyn FnMut(Json) -> std::io::Result<()>;

/// Does what is asked for. Lines that were said before an error are done, and on record.
pub fn carry_out(config: &Config, by: &By, command: &Command, say: Say<'_>) -> Result<Done, Trouble> {
    match command {
        Command::StateGet { agent } => states::get(config, agent, say),
        Command::StateSet { agent, fields, expect_version } => {
            states::change(config, by, agent, *expect_version, &states::Change::Set(fields), say)
        }
        Command::StateReset { agent, expect_version } => {
            states::change(config, by, agent, *expect_version, &states::Change::Reset, say)
        }
        Command::StateAccept { agent, sha256, expect_version } => {
            states::change(config, by, agent, *expect_version, &states::Change::Accept(sha256), say)
        }
        Command::DeadLettersRedrive(wanted) => letters::redrive(config, by, wanted, say),
        Command::DeadLettersDrop(wanted) => letters::drop_them(config, by, wanted, say),
        Command::InboxEmpty { agent, limit } => inboxes::empty(config, by, agent, *limit, say),
        Command::ForeignDrop { ids } => foreign::drop_them(config, by, ids, say),
        Command::Acknowledge { damages } => acknowledge(config, by, damages, say),
        Command::Quarantine { whom } => quarantine::shut_out(config, by, whom, say),
        Command::Release { whom } => quarantine::let_in(config, by, whom, say),
        Command::Drain { server: Some(server), after_ms } => drains::tell(config, by, server, *after_ms, say),
        Command::CircuitClose { .. } | Command::Reload | Command::Drain { server: None, .. } => {
            Err(Trouble::Refused("no server runs here that could do this".to_owned()))
        }
    }
}

/// Puts on record that somebody knows of damages.
fn acknowledge(config: &Config, by: &By, damages: &[command::Damage], say: Say<'_>) -> Result<Done, Trouble> {
    use crate::audit::{Action, Fields};
    if damages.is_empty() {
        return Err(Trouble::Usage("which damages?".to_owned()));
    }
    let mut operator = acting::Operator::connect(config, by)?;
    let fields =
        damages.iter().map(|damage| Fields { target: &damage.id, rule: &damage.text, ..Fields::default() });
    match operator.act_on_all(Action::Acknowledged, fields, |_, _| {})? {
        acting::Acted::Done(_) => {}
        acting::Acted::Conflict => return Err(Trouble::Refused("try again".to_owned())),
    }
    let receipt = operator.close(config)?;
    for damage in damages {
        say(serde_json::json!({"id": damage.id, "damage": damage.text, "outcome": "acknowledged"}))?;
    }
    Ok(Done { done: damages.len() as u64, receipt, ..Done::default() })
}
