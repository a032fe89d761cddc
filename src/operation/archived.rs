//! Dead letters in the files of archives: shown, and brought back to Redis, each on record in the transaction that does it.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::acting::{Acted, MAX_CONFLICTS, Operator};
use super::letters::{Wanted, fields};
use super::outcome::{By, Done, Say, Trouble};
use super::shown::{Shows, shown};
use crate::archive;
use crate::audit::{Action, Fields};
use crate::config::Config;
use crate::store::answers::{self, EntryId};
use crate::store::dead_letters::{self, Letter};
use crate::store::moved_letters::{self, RawLetter};

/// Which letters in files.
pub(super) struct Chosen<'a> {
    /// By ids, filters, or all.
    pub(super) which: &'a Wanted,
    /// Those behind this one.
    pub(super) after: Option<&'a str>,
    /// The folders of archives; none: those of the configuration.
    pub(super) folders: &'a [PathBuf],
}

impl Chosen<'_> {
    /// Hands out the letters that are meant, oldest first in each folder, up to the limit; whether there are more.
    fn each(
        &self,
        config: &Config,
        say: Say<'_>,
        mut on: impl FnMut(RawLetter, Say<'_>) -> Result<(), Trouble>,
    ) -> Result<Found, Trouble> {
        let entry = |text: &str| {
            EntryId::parse(text).ok_or_else(|| Trouble::Usage(format!("{text:?} is no id of a dead letter")))
        };
        let ids = self.which.ids.iter().map(|id| entry(id)).collect::<Result<BTreeSet<_>, _>>()?;
        let (filter, after) = (self.which.filter()?, self.after.map(entry).transpose()?);
        let folders = match self.folders {
            [] => config.audit.archive_folders(),
            named => named.to_vec(),
        };
        if let Some(missing) = self.folders.iter().find(|folder| !folder.is_dir()) {
            return Err(Trouble::Usage(format!("{}: there is no such folder", missing.display())));
        }
        let mut found = Found { missing: ids.clone(), ..Found::default() };
        let mut unread = Vec::new();
        let mut ended = Ok(());
        let read = archive::each_letter(
            &folders,
            &mut |path: &Path, bytes| unread.push((path.to_path_buf(), bytes)),
            &mut |raw| {
                let is_meant = match ids.is_empty() {
                    true => after.is_none_or(|after| raw.id > after),
                    false => ids.contains(&raw.id),
                };
                if !is_meant || !filter.fits(&raw.letter()) {
                    return Ok(ControlFlow::Continue(()));
                }
                if found.count >= self.which.limit {
                    found.more = true;
                    return Ok(ControlFlow::Break(()));
                }
                found.count += 1;
                let _ = found.missing.remove(&raw.id);
                ended = on(raw, &mut *say);
                Ok(if ended.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            },
        );
        for (path, bytes) in unread {
            let problem = format!("{}: {bytes} bytes at its end cannot be read", path.display());
            say(json!({"problem": problem}))?;
        }
        ended?;
        read.map_err(|error| Trouble::Refused(error.to_string()))?;
        Ok(found)
    }
}

/// What was found.
#[derive(Default)]
struct Found {
    count: u64,
    /// Ids that were named and are in no file.
    missing: BTreeSet<EntryId>,
    /// Whether the limit left some out.
    more: bool,
}

impl Found {
    /// Says which of the named letters are in no file.
    fn say_missing(&self, done: &mut Done, say: Say<'_>) -> Result<(), Trouble> {
        done.more = self.more;
        if self.more {
            return Ok(());
        }
        for id in &self.missing {
            done.failed += 1;
            say(json!({"id": id.to_string(), "problem": "there is no such dead letter in a file"}))?;
        }
        Ok(())
    }
}

/// Says the letters, without or with what they say.
pub(super) fn list(
    config: &Config,
    chosen: &Chosen<'_>,
    shows: Shows,
    say: Say<'_>,
) -> Result<Done, Trouble> {
    let (mut done, mut room, mut is_full) = (Done::default(), super::reading::Room::default(), false);
    let found = chosen.each(config, say, |raw, say| {
        let letter = raw.letter();
        let bytes = if shows == Shows::Short { 0 } else { letter.envelope.as_ref().map_or(0, String::len) };
        is_full = is_full || !room.take(bytes);
        if is_full {
            return Ok(());
        }
        Ok(say(shown(&letter, shows, config.dlp.as_deref()))?)
    })?;
    found.say_missing(&mut done, say)?;
    done.more |= is_full;
    Ok(done)
}

/// Brings the letters back.
pub(super) fn restore(config: &Config, by: &By, chosen: &Chosen<'_>, say: Say<'_>) -> Result<Done, Trouble> {
    let _ = chosen.which.chosen()?;
    let mut operator = Operator::connect(config, by)?;
    let mut done = Done::default();
    let found = chosen.each(config, say, |raw, say| {
        let letter = raw.letter();
        let (id, message) = (raw.id.to_string(), letter.message_id().map(|id| id.to_string()));
        match restore_one(&mut operator, &raw, &letter) {
            Ok(restored) => {
                done.done += 1;
                say(json!({
                    "id": id, "restored_as": restored, "message_id": message, "stream": letter.stream,
                    "outcome": Action::LetterRestored.as_str(),
                }))?;
            }
            Err(Trouble::Refused(why)) => {
                done.failed += 1;
                say(json!({"id": id, "outcome": "failed", "problem": why}))?;
            }
            Err(other) => return Err(other),
        }
        Ok(())
    });
    // Also after a failure: what was restored before it is covered.
    done.receipt = operator.close(config);
    found?.say_missing(&mut done, say)?;
    Ok(done)
}

/// Brings one letter back; the id that it has now.
fn restore_one(operator: &mut Operator, raw: &RawLetter, letter: &Letter) -> Result<String, Trouble> {
    if !letter.is_ours(&operator.keys) {
        return Err(Trouble::Refused("no server has written it as it is".to_owned()));
    }
    // MULTI does not roll back: nothing goes on record that cannot be done.
    if dead_letters::letter(&mut operator.connection, raw.id)?.is_some() {
        return Err(Trouble::Refused("it is in Redis still, under the same id".to_owned()));
    }
    for _ in 0..MAX_CONFLICTS {
        let record = Fields { target: &letter.stream, ..fields(letter) };
        let acted =
            operator.act(Action::LetterRestored, &record, |batch, _| moved_letters::restore(batch, raw))?;
        if let Acted::Done(values) = acted {
            return Ok(values.first().and_then(answers::text).unwrap_or_default().to_owned());
        }
    }
    Err(Trouble::Refused("what it depends on keeps changing; try again".to_owned()))
}
