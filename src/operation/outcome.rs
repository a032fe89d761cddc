//! By whom a command is given, what becomes of it, and where it is on record.

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use nix::unistd::{Uid, User};

use crate::config::ConfigError;
use crate::key_files::KeyError;
use crate::store::StoreError;

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
    /// It could not be looked for: why. The next checkpoint of a server covers them.
    Unknown(String),
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
            Sealed::Unknown(why) => write!(f, "whether a checkpoint covers it is not known ({why})"),
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
    /// Behind which one a list goes on.
    #[serde(default)]
    pub next: Option<String>,
    /// Where it is on record; nothing where nothing was changed.
    pub receipt: Option<Receipt>,
}

/// Takes one line of what a command has to say.
pub type Say<'a> = &'a mut dyn FnMut(Json) -> std::io::Result<()>;
