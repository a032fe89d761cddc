//! What operators change, and look at: each change in one transaction with its record, by whom and why. The same code runs in a server,
//! for whoever may ask its admin listener, and in `mas` itself, where no server runs.
//!
//! * [`command`]: what can be asked for, as it goes over the wire.
//! * `outcome`: by whom, and what became of it.
//! * [`acting`]: the audit lane of one command, and how it is sealed.
//! * `letters`, `inboxes`, `states`, `foreign`, `damages`: what commands do to Redis.
//! * `archived`: dead letters in the files of archives.
//! * `agents`, `reading`, [`shown`]: what they show, and how payloads are masked.
//! * `drains`: servers that are told to stop.
//! * `quarantine`: agents that are shut out, and let in again.

pub mod acting;
mod agents;
mod archived;
pub mod command;
mod damages;
mod drains;
mod foreign;
mod inboxes;
pub mod letters;
mod outcome;
mod quarantine;
mod reading;
pub mod shown;
mod states;

use crate::config::Config;
use shown::Shows;

pub use command::Command;
pub use letters::Wanted as WantedLetters;
pub use outcome::{By, Done, MAX_REASON_BYTES, Receipt, Say, Sealed, Trouble, user_name};

/// Does what is asked for. Lines that were said before an error are done, and on record.
pub fn carry_out(config: &Config, by: &By, command: &Command, say: Say<'_>) -> Result<Done, Trouble> {
    match command {
        Command::Agents { agents } => agents::list(config, agents, say),
        Command::DeadLettersList { which, after } => reading::letters(config, which, after.as_deref(), say),
        Command::DeadLettersShow { which, unmasked } => reading::whole_letters(config, which, *unmasked, say),
        Command::DeadLettersArchived { which, after, whole, unmasked, archive } => {
            let chosen = archived::Chosen { which, after: after.as_deref(), folders: archive };
            let shows = if *whole { Shows::whole(*unmasked) } else { Shows::Short };
            archived::list(config, &chosen, shows, say)
        }
        Command::DeadLettersRestore { which, after, archive } => {
            let chosen = archived::Chosen { which, after: after.as_deref(), folders: archive };
            archived::restore(config, by, &chosen, say)
        }
        Command::ForeignList { after, limit } => reading::foreign(config, after.as_deref(), *limit, say),
        Command::ForeignShow { ids } => reading::whole_foreign(config, ids, say),
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
        Command::Acknowledge { damages } => damages::acknowledge(config, by, damages, say),
        Command::Quarantine { whom } => quarantine::shut_out(config, by, whom, say),
        Command::Release { whom } => quarantine::let_in(config, by, whom, say),
        Command::Drain { server: Some(server), after_ms } => drains::tell(config, by, server, *after_ms, say),
        Command::CircuitClose { .. } | Command::Reload | Command::Drain { server: None, .. } => {
            Err(Trouble::Refused("no server runs here that could do this".to_owned()))
        }
    }
}
