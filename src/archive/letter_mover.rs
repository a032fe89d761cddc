//! Moves dead letters that are too many for Redis to a file, oldest first. Nothing leaves Redis that is not on disk.

use std::path::Path;

use super::error::ArchiveError;
use super::letters::{APPEND_LETTERS, LetterFile};
use super::pace::Pace;
use crate::store::Connection;
use crate::store::moved_letters;

/// Bytes of letters, as far as Redis can tell, beyond which they are moved, however few there are.
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// What is moved at once, as a share of what may stay.
const STEP_SHARE: u64 = 8;

/// What was moved, for the record.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) letters: u64,
    /// Where the last of them is.
    pub(super) file: String,
}

/// Moves letters, in the name of one server.
#[derive(Debug)]
pub(super) struct LetterMover {
    /// As whom it holds letters.
    own: String,
    /// Letters that stay in Redis at most; 0: however many.
    max_letters: u64,
    file: Option<LetterFile>,
}

impl LetterMover {
    pub(super) fn new(own: String, max_letters: u64) -> Self {
        Self { own, max_letters, file: None }
    }

    /// Moves what is too much; `None`: nothing was moved.
    pub(super) fn look(
        &mut self,
        connection: &mut Connection,
        dir: &Path,
        pace: &mut Pace,
    ) -> Result<Option<Moved>, ArchiveError> {
        let (max, max_bytes) = (if self.max_letters == 0 { u64::MAX } else { self.max_letters }, MAX_BYTES);
        let (mut count, mut bytes) = moved_letters::size(connection)?;
        if count <= max && bytes <= max_bytes {
            return Ok(None);
        }
        // Below the bound, so that it is not done for each letter.
        let (goal, goal_bytes) = (max - max / STEP_SHARE, max_bytes - max_bytes / STEP_SHARE);
        let (mut moved, mut after) = (None, None);
        while (count > goal || bytes > goal_bytes) && !pace.is_stopped() {
            let most = usize::try_from(count.saturating_sub(goal)).unwrap_or(APPEND_LETTERS);
            let most = if bytes > goal_bytes { APPEND_LETTERS } else { most.min(APPEND_LETTERS) };
            let (letters, last) = moved_letters::hold_oldest(connection, &self.own, after, most)?;
            after = last;
            if last.is_none() {
                break;
            }
            if letters.is_empty() {
                continue;
            }
            let file = match self.file.take() {
                Some(file) => file.continued(dir)?,
                None => LetterFile::open(dir)?,
            };
            // After a failure it is opened anew.
            let mut file = file;
            file.append(&letters)?;
            let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
            let removed = moved_letters::remove(connection, &ids)?;
            let name = file.name();
            self.file = Some(file);
            if !removed {
                // An operator was quicker: the rest is tried again with the next look.
                break;
            }
            let all: &mut Moved = moved.get_or_insert_with(|| Moved { letters: 0, file: String::new() });
            all.letters += ids.len() as u64;
            all.file = name;
            pace.step();
            (count, bytes) = moved_letters::size(connection)?;
        }
        Ok(moved)
    }
}
