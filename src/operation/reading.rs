//! Dead letters, and what was put aside, as operators look through them. Changes nothing.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::acting;
use super::letters::{Letters, Wanted};
use super::outcome::{Done, Say, Trouble};
use super::shown::{Shows, letter_json, shown};
use crate::config::Config;
use crate::store::answers::EntryId;
use crate::store::foreign::{self, PutAside};
use crate::store::letter_pages::{self, Order};

/// Lines of one list.
const MAX_LIST: u64 = 1_000;
/// What is shown whole at once, in bytes; one thing is, whatever its size.
const MAX_WHOLE_BYTES: usize = 4 * 1024 * 1024;
/// Letters that are read at a time, those that are looked at for them, and those that are looked at in all.
const STEP: usize = 16;
const LOOK_STEP: usize = 1_000;
const MAX_LOOKED_AT: usize = 100_000;

/// Counts what was said whole.
#[derive(Default)]
pub(super) struct Room {
    bytes: usize,
}

impl Room {
    /// Whether there is room for so many more; it is taken.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let is_room = self.bytes == 0 || self.bytes + bytes <= MAX_WHOLE_BYTES;
        self.bytes += bytes;
        is_room
    }
}

/// Says dead letters without their payloads, oldest first, behind `after`.
pub(super) fn letters(
    config: &Config,
    which: &Wanted,
    after: Option<&str>,
    say: Say<'_>,
) -> Result<Done, Trouble> {
    if !which.ids.is_empty() || which.all {
        return Err(Trouble::Usage("a list is of all letters that fit the filters".to_owned()));
    }
    let (filter, mut after) = (which.filter()?, after.map(entry).transpose()?);
    let mut connection = acting::connect(config)?;
    let (mut left, mut looked_at) = (which.limit.min(MAX_LIST), 0);
    // A part at a time: what letters say is read with them, and not kept.
    loop {
        let bounds = (usize::try_from(left).unwrap_or(usize::MAX).min(STEP), LOOK_STEP);
        let found = letter_pages::look(&mut connection, &filter, Order::OldestFirst, after, bounds)?;
        for letter in &found.letters {
            say(letter_json(letter))?;
        }
        left -= found.letters.len() as u64;
        looked_at += found.looked_at;
        let Some(next) = found.after else { return Ok(Done::default()) };
        if left == 0 || looked_at >= MAX_LOOKED_AT {
            return Ok(Done { more: true, next: Some(next.to_string()), ..Done::default() });
        }
        after = Some(next);
    }
}

/// Says dead letters with what they say; masked by the rules in force, unless that is to be seen, too.
pub(super) fn whole_letters(
    config: &Config,
    which: &Wanted,
    unmasked: bool,
    say: Say<'_>,
) -> Result<Done, Trouble> {
    let (ids, filter) = which.chosen()?;
    let mut connection = acting::connect(config)?;
    let (mut done, mut room) = (Done::default(), Room::default());
    let mut letters = Letters::new(ids, filter, which.limit.min(MAX_LIST), &mut connection)?;
    while let Some(next) = letters.next(&mut connection)? {
        let letter = match next {
            Ok(letter) => letter,
            Err(id) => {
                done.failed += 1;
                say(json!({"id": id.to_string(), "problem": "there is no such dead letter"}))?;
                continue;
            }
        };
        if !room.take(letter.envelope.as_ref().map_or(0, String::len)) {
            done.more = true;
            return Ok(done);
        }
        say(shown(&letter, Shows::whole(unmasked), config.dlp.as_deref()))?;
    }
    done.more = letters.is_cut();
    Ok(done)
}

/// Says what was put aside, without its bytes, oldest first, behind `after`.
pub(super) fn foreign(
    config: &Config,
    after: Option<&str>,
    limit: u64,
    say: Say<'_>,
) -> Result<Done, Trouble> {
    let mut after = after.map(entry).transpose()?;
    let mut connection = acting::connect(config)?;
    let mut left = limit.min(MAX_LIST);
    loop {
        let page = foreign::list(&mut connection, after)?;
        let Some(last) = page.last() else { return Ok(Done::default()) };
        after = Some(last.id);
        for aside in &page {
            if left == 0 {
                return Ok(Done { more: true, ..Done::default() });
            }
            say(aside_json(aside, false))?;
            left -= 1;
        }
    }
}

/// Says what was put aside, with its bytes.
pub(super) fn whole_foreign(config: &Config, ids: &[String], say: Say<'_>) -> Result<Done, Trouble> {
    let mut connection = acting::connect(config)?;
    let (mut done, mut room) = (Done::default(), Room::default());
    for id in ids {
        let Some(aside) = foreign::one(&mut connection, entry(id)?)? else {
            done.failed += 1;
            say(json!({"id": id, "problem": "there is nothing with this id"}))?;
            continue;
        };
        if !room.take(aside.bytes.iter().map(Vec::len).sum()) {
            done.more = true;
            return Ok(done);
        }
        say(aside_json(&aside, true))?;
    }
    Ok(done)
}

fn entry(text: &str) -> Result<EntryId, Trouble> {
    EntryId::parse(text).ok_or_else(|| Trouble::Usage(format!("{text:?} is no id of a list")))
}

fn aside_json(aside: &PutAside, whole: bool) -> Json {
    let mut line = json!({
        "id": aside.id.to_string(),
        "time_ms": aside.time_ms,
        "key": aside.key,
        "entry": aside.entry,
        "sha256": aside.digest,
    });
    if let (true, Json::Object(fields)) = (whole, &mut line) {
        let bytes: Vec<String> = aside.bytes.iter().map(|bytes| STANDARD.encode(bytes)).collect();
        let _ = fields.insert("base64".to_owned(), bytes.into());
    }
    line
}
