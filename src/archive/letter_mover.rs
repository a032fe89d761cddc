//! Moves dead letters that are too many for Redis to a file, oldest first. Nothing leaves Redis that is not on disk.

use std::path::Path;
use std::time::{Duration, Instant};

use super::error::ArchiveError;
use super::letters::LetterFile;
use super::pace::Pace;
use crate::store::Connection;
use crate::store::answers::EntryId;
use crate::store::moved_letters::{self, Held, RawLetter};

/// Bytes of letters, as far as Redis can tell, beyond which they are moved, however few there are …
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// … but for so many.
const KEPT_LETTERS: u64 = 100;
/// What is moved at once, as a share of what may stay.
const STEP_SHARE: u64 = 8;
/// How long one look may take: the trail is to be archived, too.
const LONGEST_LOOK: Duration = Duration::from_secs(2);
/// Rest after a failure.
const FAILURE_REST: Duration = Duration::from_secs(5);

/// What was moved, for the record.
#[derive(Debug)]
pub(super) struct Moved {
    pub(super) letters: u64,
    /// Where they are.
    pub(super) file: String,
}

/// Moves letters, in the name of one archive.
#[derive(Debug)]
pub(super) struct LetterMover {
    /// As whom it holds letters: the same after a restart.
    own: String,
    /// Letters that stay in Redis at most; 0: however many.
    max_letters: u64,
    file: Option<LetterFile>,
    /// An append has failed: what it wrote is not relied on.
    failed: bool,
    /// When it failed last.
    failed_at: Option<Instant>,
    /// The last letter that was looked at: those before it are others' for a while.
    after: Option<EntryId>,
    /// Since it was asked last.
    moved: Vec<Moved>,
}

impl LetterMover {
    pub(super) fn new(own: String, max_letters: u64) -> Self {
        Self { own, max_letters, file: None, failed: false, failed_at: None, after: None, moved: Vec::new() }
    }

    /// The folder is another one's by now, or is opened anew.
    pub(super) fn forget_file(&mut self) {
        self.file = None;
    }

    /// What was moved since this was asked last.
    pub(super) fn moved(&mut self) -> Vec<Moved> {
        std::mem::take(&mut self.moved)
    }

    /// Whether it failed a moment ago, and is not to be tried again yet.
    pub(super) fn is_resting(&self) -> bool {
        self.failed_at.is_some_and(|at| at.elapsed() < FAILURE_REST)
    }

    /// Moves what is too much, for a short time. After an error the connection is to be dropped: it watches holds.
    pub(super) fn look(
        &mut self,
        connection: &mut Connection,
        dir: &Path,
        pace: &mut Pace,
    ) -> Result<(), ArchiveError> {
        let looked = self.try_look(connection, dir, pace);
        self.failed_at = looked.is_err().then(Instant::now);
        if looked.is_err() {
            self.file = None;
            self.after = None;
        }
        looked
    }

    fn try_look(
        &mut self,
        connection: &mut Connection,
        dir: &Path,
        pace: &mut Pace,
    ) -> Result<(), ArchiveError> {
        let max = if self.max_letters == 0 { u64::MAX } else { self.max_letters };
        let (mut count, bytes) = moved_letters::size(connection)?;
        if count <= max && bytes <= MAX_BYTES {
            return Ok(());
        }
        // Below the bound, so that it is not done for each letter.
        let goal = max - max / STEP_SHARE;
        let mut to_free = if bytes > MAX_BYTES { bytes - (MAX_BYTES - MAX_BYTES / STEP_SHARE) } else { 0 };
        let until = Instant::now() + LONGEST_LOOK;
        pace.hurry = false;
        while (count > goal || to_free > 0 && count > KEPT_LETTERS)
            && Instant::now() < until
            && !pace.rest(Duration::ZERO)
        {
            let too_many = if count > goal { count - goal } else { count - KEPT_LETTERS };
            let Held { letters, last } =
                moved_letters::hold_oldest(connection, &self.own, self.after, too_many)?;
            self.after = last;
            if last.is_none() {
                break;
            }
            if !letters.is_empty() {
                let file = self.write(dir, &letters)?;
                let ids: Vec<_> = letters.iter().map(|letter| letter.id).collect();
                if !moved_letters::remove(connection, &ids)? {
                    // A hold has run out, and somebody else took that letter on.
                    break;
                }
                let moved = ids.len() as u64;
                match self.moved.last_mut().filter(|last| last.file == file) {
                    Some(last) => last.letters += moved,
                    None => self.moved.push(Moved { letters: moved, file }),
                }
                count = count.saturating_sub(moved);
                to_free = to_free.saturating_sub(letters.iter().map(|letter| letter.bytes() as u64).sum());
            }
            pace.step();
        }
        Ok(())
    }

    /// Writes letters to the file; its name.
    fn write(&mut self, dir: &Path, letters: &[RawLetter]) -> Result<String, ArchiveError> {
        let mut file = match self.file.take().filter(LetterFile::is_in_place) {
            Some(file) => file.continued(dir)?,
            None if self.failed => LetterFile::begin_anew(dir)?,
            None => LetterFile::open(dir)?,
        };
        self.failed = true;
        file.append(letters)?;
        self.failed = false;
        let name = file.name();
        self.file = Some(file);
        Ok(name)
    }
}
