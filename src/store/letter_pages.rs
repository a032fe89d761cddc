//! Dead letters looked through a page at a time, in either direction.

use super::answers::{self, EntryId};
use super::connection::{Connection, StoreError};
use super::dead_letters::{Filter, Letter, parse};
use super::keys;

/// Letters read in one step: each may be as long as the longest message.
const LOOK_PAGE: usize = 16;

/// In which order letters are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The oldest first.
    OldestFirst,
    /// The newest first.
    NewestFirst,
}

/// Letters that were looked for, a bounded number of them looked at.
#[derive(Debug, Default)]
pub struct Looked {
    /// Those that fit, in the order that was asked for.
    pub letters: Vec<Letter>,
    /// How many were looked at.
    pub looked_at: usize,
    /// Where to go on; `None`: there are no more.
    pub after: Option<EntryId>,
}

/// The next letters behind the entry `after`, in either order, that the filter lets through; at most `limit`, and of `most` that are
/// looked at.
pub fn look(
    connection: &mut Connection,
    filter: &Filter,
    order: Order,
    after: Option<EntryId>,
    (limit, most): (usize, usize),
) -> Result<Looked, StoreError> {
    let mut found = Looked::default();
    let backward = order == Order::NewestFirst;
    let first = filter.from_ms.map_or_else(|| "-".to_owned(), |from_ms| from_ms.to_string());
    let last = filter.to_ms.map_or_else(|| "+".to_owned(), |to_ms| to_ms.to_string());
    let (mut from, to) = if backward { (last, first) } else { (first, last) };
    if let Some(after) = after {
        from = format!("({after}");
    }
    let (command, page) = (if backward { "XREVRANGE" } else { "XRANGE" }, LOOK_PAGE.to_string());
    loop {
        let letters = parse(connection.command(command, &[keys::DEAD_LETTERS, &from, &to, "COUNT", &page])?)?;
        let more = letters.len() == LOOK_PAGE;
        for letter in letters {
            if found.letters.len() == limit || found.looked_at == most {
                return Ok(found);
            }
            found.looked_at += 1;
            found.after = Some(letter.id);
            from = format!("({}", letter.id);
            // A cursor may be from before the window.
            if filter.fits(&letter) {
                found.letters.push(letter);
            }
        }
        if !more {
            found.after = None;
            return Ok(found);
        }
    }
}

/// How many letters there are.
pub fn count(connection: &mut Connection) -> Result<u64, StoreError> {
    Ok(answers::int(&connection.command("XLEN", &[keys::DEAD_LETTERS])?).unwrap_or(0))
}
