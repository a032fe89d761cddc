//! What operators can ask for.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::letters::Wanted;
use crate::config::OperatorRole;
use crate::ids::ServerId;
use crate::quarantine::Whom;
use crate::store::orders::MAX_DRAIN_MS;

/// Most damages that are acknowledged at once: as many as a verification lists.
const MAX_DAMAGES: usize = 10_000;
/// Most ids in one command.
const MAX_IDS: usize = 10_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Say where the agents' instances are, and what waits for them.
    Agents {
        /// Only these; none: all of the configuration.
        #[serde(default)]
        agents: Vec<String>,
    },
    /// List dead letters, oldest first.
    DeadLettersList {
        /// Which; without ids.
        which: Wanted,
        /// Those behind this one.
        #[serde(default)]
        after: Option<String>,
    },
    /// Show dead letters with what they say.
    DeadLettersShow {
        /// Which ones.
        which: Wanted,
        /// Also what the rules of data-loss prevention would mask.
        #[serde(default)]
        unmasked: bool,
    },
    /// Show dead letters that were too many for Redis: they are in files.
    DeadLettersArchived {
        /// Which ones; without ids and filters: all.
        which: Wanted,
        /// Those behind this one.
        #[serde(default)]
        after: Option<String>,
        /// With what they say.
        #[serde(default)]
        whole: bool,
        /// Also what the rules of data-loss prevention would mask.
        #[serde(default)]
        unmasked: bool,
        /// Folders of archives; none: those of the configuration. Not of a server.
        #[serde(default)]
        archive: Vec<PathBuf>,
    },
    /// Bring such letters back to Redis.
    DeadLettersRestore {
        /// Which ones.
        which: Wanted,
        /// Those behind this one.
        #[serde(default)]
        after: Option<String>,
        /// As above.
        #[serde(default)]
        archive: Vec<PathBuf>,
    },
    /// List what was put aside because no server had written it, oldest first.
    ForeignList {
        /// What stands behind this.
        #[serde(default)]
        after: Option<String>,
        /// Entries at most.
        #[serde(default = "no_limit")]
        limit: u64,
    },
    /// Show what was put aside.
    ForeignShow {
        /// Its ids.
        ids: Vec<String>,
    },
    /// Show a state.
    StateGet {
        /// Whose.
        agent: String,
    },
    /// Set fields of a state; others stay.
    StateSet {
        /// Whose.
        agent: String,
        /// Names and values.
        fields: Vec<(String, String)>,
        /// Only if the state has this version.
        #[serde(default)]
        expect_version: Option<u64>,
    },
    /// Remove all of a state.
    StateReset {
        /// Whose.
        agent: String,
        /// Only if the state has this version.
        #[serde(default)]
        expect_version: Option<u64>,
    },
    /// Take a state over that somebody else than a server has changed.
    StateAccept {
        /// Whose.
        agent: String,
        /// Only if this is its SHA-256.
        sha256: String,
        /// Only if the state has this version.
        #[serde(default)]
        expect_version: Option<u64>,
    },
    /// Put dead letters back where they came from.
    DeadLettersRedrive(Wanted),
    /// Remove dead letters for good.
    DeadLettersDrop(Wanted),
    /// Move what waits for an agent to the dead letters.
    InboxEmpty {
        /// Whose inbox.
        agent: String,
        /// Messages at most.
        #[serde(default = "no_limit")]
        limit: u64,
    },
    /// Remove what was put aside because no server had written it.
    ForeignDrop {
        /// Its ids.
        ids: Vec<String>,
    },
    /// Put on record that damages of the trail are known.
    Acknowledge {
        /// Which ones.
        damages: Vec<Damage>,
    },
    /// Shut out agents.
    Quarantine {
        /// Which ones.
        whom: Whom,
    },
    /// Let them in again.
    Release {
        /// Which ones: as they were shut out.
        whom: Whom,
    },
    /// Close an agent's circuit.
    CircuitClose {
        /// Whose.
        agent: String,
    },
    /// Read the configuration and the certificates again.
    Reload,
    /// Stop a server in order, after others have been told to go elsewhere.
    Drain {
        /// Its id; without one: the server that is asked.
        #[serde(default)]
        server: Option<String>,
        /// How long it goes on after it is not ready any more, in milliseconds.
        #[serde(default)]
        after_ms: u64,
    },
}

fn no_limit() -> u64 {
    u64::MAX
}

/// A damage of the trail, as a verification has named it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Damage {
    /// Its id.
    pub id: String,
    /// What it is.
    pub text: String,
}

impl Command {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Agents { .. } => "agents",
            Self::DeadLettersList { .. } => "dead_letters_list",
            Self::DeadLettersShow { .. } => "dead_letters_show",
            Self::DeadLettersArchived { .. } => "dead_letters_archived",
            Self::DeadLettersRestore { .. } => "dead_letters_restore",
            Self::ForeignList { .. } => "foreign_list",
            Self::ForeignShow { .. } => "foreign_show",
            Self::StateGet { .. } => "state_get",
            Self::StateSet { .. } => "state_set",
            Self::StateReset { .. } => "state_reset",
            Self::StateAccept { .. } => "state_accept",
            Self::DeadLettersRedrive(_) => "dead_letters_redrive",
            Self::DeadLettersDrop(_) => "dead_letters_drop",
            Self::InboxEmpty { .. } => "inbox_empty",
            Self::ForeignDrop { .. } => "foreign_drop",
            Self::Acknowledge { .. } => "acknowledge",
            Self::Quarantine { .. } => "quarantine",
            Self::Release { .. } => "release",
            Self::CircuitClose { .. } => "circuit_close",
            Self::Reload => "reload",
            Self::Drain { .. } => "drain",
        }
    }

    /// Every name, in the order of [`Self::name`].
    pub const NAMES: [&'static str; 21] = [
        "agents",
        "dead_letters_list",
        "dead_letters_show",
        "dead_letters_archived",
        "dead_letters_restore",
        "foreign_list",
        "foreign_show",
        "state_get",
        "state_set",
        "state_reset",
        "state_accept",
        "dead_letters_redrive",
        "dead_letters_drop",
        "inbox_empty",
        "foreign_drop",
        "acknowledge",
        "quarantine",
        "release",
        "circuit_close",
        "reload",
        "drain",
    ];

    /// Whether a command of that name changes nothing.
    pub fn shows(name: &str) -> bool {
        matches!(name, "agents" | "state_get" | "foreign_show") || Self::shows_records(name)
    }

    /// Whether a command of that name shows what whoever may see records sees elsewhere, too.
    pub fn shows_records(name: &str) -> bool {
        matches!(name, "dead_letters_list" | "dead_letters_show" | "dead_letters_archived" | "foreign_list")
    }

    /// Whether it shows what others see masked.
    pub fn is_unmasked(&self) -> bool {
        matches!(
            self,
            Self::DeadLettersShow { unmasked: true, .. } | Self::DeadLettersArchived { unmasked: true, .. }
        )
    }

    /// Whether somebody of that role may ask for a command of that name.
    pub fn may(role: OperatorRole, name: &str) -> bool {
        match role {
            OperatorRole::Reader => name == "agents",
            // What is on record is an auditor's business, and so is what damage it has.
            OperatorRole::Auditor => name == "acknowledge" || Self::shows(name),
            OperatorRole::Operator => name != "acknowledge",
        }
    }

    /// What it is about, for the record.
    pub fn target(&self) -> String {
        match self {
            Self::StateGet { agent }
            | Self::StateSet { agent, .. }
            | Self::StateReset { agent, .. }
            | Self::StateAccept { agent, .. }
            | Self::InboxEmpty { agent, .. }
            | Self::CircuitClose { agent } => agent.clone(),
            Self::Quarantine { whom } | Self::Release { whom } => whom.to_string(),
            Self::Drain { server, .. } => server.clone().unwrap_or_default(),
            Self::DeadLettersShow { which, .. } | Self::DeadLettersArchived { which, .. } => which.in_words(),
            Self::Agents { .. }
            | Self::DeadLettersList { .. }
            | Self::DeadLettersRestore { .. }
            | Self::ForeignList { .. }
            | Self::ForeignShow { .. }
            | Self::DeadLettersRedrive(_)
            | Self::DeadLettersDrop(_)
            | Self::ForeignDrop { .. }
            | Self::Acknowledge { .. }
            | Self::Reload => String::new(),
        }
    }

    /// Whether its lists are within their bounds, and its names are names.
    pub fn check(&self) -> Result<(), String> {
        let count = match self {
            Self::ForeignDrop { ids } | Self::ForeignShow { ids } | Self::Agents { agents: ids } => ids.len(),
            Self::DeadLettersRedrive(wanted)
            | Self::DeadLettersDrop(wanted)
            | Self::DeadLettersList { which: wanted, .. }
            | Self::DeadLettersArchived { which: wanted, .. }
            | Self::DeadLettersRestore { which: wanted, .. }
            | Self::DeadLettersShow { which: wanted, .. } => wanted.ids.len(),
            _ => 0,
        };
        if count > MAX_IDS {
            return Err(format!("{count} ids; expected at most {MAX_IDS}"));
        }
        match self {
            Self::Acknowledge { damages } if damages.len() > MAX_DAMAGES => {
                Err(format!("{} damages; expected at most {MAX_DAMAGES}", damages.len()))
            }
            Self::Drain { after_ms, .. } if *after_ms > MAX_DRAIN_MS => {
                Err(format!("after {after_ms} ms: expected at most {MAX_DRAIN_MS}"))
            }
            Self::Drain { server: Some(server), .. } if ServerId::parse(server).is_none() => {
                Err(format!("{server:?} is no server's id: `mas status` says it"))
            }
            _ => Ok(()),
        }
    }
}
