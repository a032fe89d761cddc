//! What `mas audit verify` looks for in Redis and beside it: whatever is there must be on record, and what is on record as not
//! done must be there.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;

use uuid::Uuid;

use super::trouble::Trouble;
use crate::archive;
use crate::audit::attest::NotOurs;
use crate::audit::verify::{Standing, Verifier};
use crate::envelope::message_id_of;
use crate::history::source::{Live, Progress};
use crate::ids::AgentId;
use crate::store::{entries, keys as store_keys, older, overview};

/// Waiting messages whose acceptance is looked for a second time.
const MAX_UNKNOWN: usize = 100_000;

/// Reads what was added to the trail since.
pub(super) type ReadOn<'a> = dyn FnMut(&mut Live, &mut Verifier<'_>, Progress) -> Result<(), Trouble> + 'a;

/// Messages that must be somewhere.
struct Missing {
    /// In an inbox.
    waiting: HashSet<Uuid>,
    /// Among the dead letters.
    letters: HashSet<Uuid>,
}

impl Missing {
    fn new(verifier: &Verifier<'_>) -> Self {
        Self { waiting: verifier.waiting(), letters: verifier.letters() }
    }

    fn found(&mut self, message: &Uuid) {
        // It may have moved from the one to the other meanwhile.
        let _ = self.waiting.remove(message);
        let _ = self.letters.remove(message);
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.letters.is_empty()
    }
}

/// Whatever waits in Redis must be on record as accepted, what was accepted and is not done must wait there, and dead letters must
/// be there or in files.
pub(super) fn join(
    live: &mut Live,
    verifier: &mut Verifier<'_>,
    progress: Progress,
    read_on: &mut ReadOn<'_>,
) -> Result<(), Trouble> {
    let mut missing = Missing::new(verifier);
    let unknown = entries(live, verifier, &mut missing)?;
    states(live, verifier)?;
    values(live, verifier)?;
    let files = match missing.letters.is_empty() {
        true => Files::default(),
        false => letter_files(live, &mut missing),
    };
    if unknown.is_empty() && missing.is_empty() {
        return Ok(());
    }
    // They may have been accepted, or done, since the trail was read: it is read on.
    read_on(live, verifier, progress)?;
    for (stream, id, message) in unknown {
        if verifier.standing(message) == Standing::Unknown {
            verifier.not_recorded(&stream, &id, message);
        }
    }
    let after = Missing::new(verifier);
    missing.waiting.retain(|message| after.waiting.contains(message));
    missing.letters.retain(|message| after.letters.contains(message));
    if !missing.is_empty() {
        // A message may have moved while they were read, by a redrive.
        let Live { connection, keys, .. } = live;
        entries::each(connection, &mut |place, found| {
            let ours = keys.as_ref().is_none_or(|keys| place.check(keys, found).is_ok());
            if let Some(message) = found.entry.envelope.as_deref().and_then(message_id_of).filter(|_| ours) {
                missing.found(&message);
            }
        })?;
    }
    if files.unread || files.letters < verifier.moved_letters() {
        let all = missing.letters.len();
        // What died after the last move is in no file.
        missing.letters.retain(|letter| !verifier.may_be_moved(letter));
        verifier.letters_elsewhere((all - missing.letters.len()) as u64);
    }
    let mut missing: Vec<Uuid> = missing.waiting.into_iter().chain(missing.letters).collect();
    missing.sort_unstable();
    verifier.not_found(missing);
    Ok(())
}

/// Looks at each entry in Redis; returns those that are not on record as accepted: stream, entry, message.
fn entries(
    live: &mut Live,
    verifier: &mut Verifier<'_>,
    missing: &mut Missing,
) -> Result<Vec<(String, String, Uuid)>, Trouble> {
    let mut unknown = Vec::new();
    let mut older = 0;
    let mut foreign: Vec<(String, String, NotOurs)> = Vec::new();
    let Live { connection, keys, .. } = live;
    entries::each(connection, &mut |place, found| {
        if let Some(Err(why)) = keys.as_ref().map(|keys| place.check(keys, found)) {
            if foreign.len() < MAX_UNKNOWN {
                foreign.push((place.stream.clone(), found.entry.id.to_string(), why));
            }
            return;
        }
        match found.entry.envelope.as_deref().and_then(message_id) {
            Some(message) => match verifier.standing(message) {
                Standing::Accepted => missing.found(&message),
                Standing::Older => older += 1,
                Standing::Unknown if unknown.len() < MAX_UNKNOWN => {
                    unknown.push((place.stream.clone(), found.entry.id.to_string(), message));
                }
                Standing::Unknown => {}
            },
            // Its id is of another form: it was taken over, or, where no tag could be looked at, it may be anybody's.
            None => {
                older += 1;
                if let Some(message) = found.entry.envelope.as_deref().and_then(message_id_of) {
                    missing.found(&message);
                }
            }
        }
    })?;
    verifier.add_older(older);
    for (stream, id, why) in foreign {
        verifier.not_attested(&stream, &id, why);
    }
    Ok(unknown)
}

/// What the files of dead letters hold.
#[derive(Default)]
struct Files {
    letters: u64,
    /// Some of it cannot be read.
    unread: bool,
}

fn letter_files(live: &Live, missing: &mut Missing) -> Files {
    let mut files = Files::default();
    for folder in &live.folders {
        let (mut unread, mut letters) = (false, 0);
        let read =
            archive::each_letter(std::slice::from_ref(folder), &mut |_, _| unread = true, &mut |raw| {
                letters += 1;
                let letter = raw.letter();
                let is_ours = live.keys.as_ref().is_none_or(|keys| letter.is_ours(keys));
                if let Some(message) = letter.message_id().filter(|_| is_ours) {
                    missing.found(&message);
                }
                Ok(ControlFlow::Continue(()))
            });
        if let Err(error) = &read {
            eprintln!("mas audit: {error}");
        }
        files.unread |= unread || read.is_err();
        files.letters += letters;
    }
    files
}

/// States must be the servers' own, and not older than the changes on record.
fn states(Live { connection, keys, .. }: &mut Live, verifier: &mut Verifier<'_>) -> Result<(), Trouble> {
    let recorded: BTreeMap<String, u64> = verifier.state_versions().into_iter().collect();
    let mut agents: BTreeSet<AgentId> = older::states(connection)?.into_iter().collect();
    agents.extend(recorded.keys().filter_map(|name| AgentId::parse(name)));
    for agent in agents {
        let state = overview::watch_state(connection, &agent)?;
        let _ = connection.command("UNWATCH", &[])?;
        let key = store_keys::state(&agent);
        let version = recorded.get(agent.as_str()).copied().unwrap_or(0);
        verifier.state_version(agent.as_str(), key.clone(), state.version, version);
        if let Some(Err(why)) = keys.as_ref().map(|keys| state.check(keys, &agent)) {
            verifier.not_attested(&key, agent.as_str(), why);
        }
    }
    Ok(())
}

/// Pending requests, and what idempotency keys remember, must be the servers' own.
fn values(Live { connection, keys, .. }: &mut Live, verifier: &mut Verifier<'_>) -> Result<(), Trouble> {
    let Some(keys) = keys else { return Ok(()) };
    for key in older::value_keys(connection)? {
        // Gone meanwhile, where there is none.
        if let Some(text) = older::value(connection, &key)?
            && let Err(why) = older::check_value(keys, &key, &text)
        {
            verifier.not_attested(&key, "value", why);
        }
    }
    Ok(())
}

/// The id in an envelope; `None` where it is no UUID.
fn message_id(envelope: &str) -> Option<Uuid> {
    #[derive(serde::Deserialize)]
    struct Head<'a> {
        #[serde(borrow)]
        message_id: std::borrow::Cow<'a, str>,
    }
    let head: Head<'_> = serde_json::from_str(envelope).ok()?;
    Uuid::parse_str(&head.message_id).ok()
}
