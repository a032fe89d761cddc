//! The anchor: a copy of every signed checkpoint outside Redis, in a file that only grows. One JSON line
//! each: `{"note": "…"}`. On disk before anything else learns of the checkpoint. Servers that share a key may
//! share an anchor: whoever writes holds the key's lock.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::audit::note::MAX_NOTE_BYTES;

/// How far back a note is searched for from the end, in bytes.
const MAX_LOOK_BACK_BYTES: u64 = 64 * 1024 * 1024;
/// Longest line, in bytes: a note, and what JSON's escapes add to it.
const MAX_LINE_BYTES: u64 = 2 * MAX_NOTE_BYTES as u64;
/// Bytes read in one step when the last line is searched for.
const STEP_BYTES: u64 = 64 * 1024;

/// What the anchor says, or why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnchorError {
    /// The system.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The anchor.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A line that is none of an anchor.
    #[error("{}: byte {at}: no line of an anchor", path.display())]
    Malformed {
        /// The anchor.
        path: PathBuf,
        /// Where the line begins.
        at: u64,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    note: std::borrow::Cow<'a, str>,
}

/// An open anchor.
#[derive(Debug)]
pub struct Anchor {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    end: u64,
}

impl Anchor {
    /// Opens the anchor, or begins one. The caller holds the lock of the log's key.
    pub fn open(path: &Path) -> Result<Self, AnchorError> {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let fail = |action| {
            let path = path.to_path_buf();
            move |source| AnchorError::Io { action, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(fail("make the directory of"))?;
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(0o644)
            .open(path)
            .map_err(fail("open"))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail("sync the directory of"))?;
        let mut anchor = Self { path: path.to_path_buf(), file, end: 0 };
        let _ = anchor.refresh()?;
        Ok(anchor)
    }

    /// Opens an anchor to read it; `None` where there is none.
    pub fn open_read_only(path: &Path) -> Result<Option<Self>, AnchorError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => {
                return Err(AnchorError::Io { action: "open", path: path.to_path_buf(), source });
            }
        };
        let mut anchor = Self { path: path.to_path_buf(), file, end: 0 };
        let length = anchor.file.metadata().map_err(|e| anchor.error("read", e))?.len();
        anchor.end = anchor.line_start(length)?;
        Ok(Some(anchor))
    }

    /// Where the next line begins.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends a note; it is on disk when this returns. After an error the anchor is as it was before. The
    /// caller holds the lock of the log's key, and has refreshed under it.
    pub fn append(&mut self, note: &str) -> Result<(), AnchorError> {
        let mut line = serde_json::to_vec(&Line { note: note.into() })
            .map_err(|error| self.error("write", error.into()))?;
        line.push(b'\n');
        let written = self.file.write_all(&line).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // Part of it may be there: what cannot be cut back now is cut back by the next refresh.
            let _ = self.file.set_len(self.end);
            return Err(self.error("write", error));
        }
        self.end += line.len() as u64;
        Ok(())
    }

    /// Takes up what other servers of this log have appended; whether there is anything. What a crash left of
    /// a line is removed: nobody was told of it.
    pub fn refresh(&mut self) -> Result<bool, AnchorError> {
        let length = self.file.metadata().map_err(|e| self.error("read", e))?.len();
        if length == self.end {
            return Ok(false);
        }
        let whole = self.line_start(length)?;
        if whole < length {
            log::warn!("{}: its last line was cut off; it is removed", self.path.display());
            self.file.set_len(whole).map_err(|e| self.error("cut back", e))?;
        }
        let grown = whole != self.end;
        self.end = whole;
        Ok(grown)
    }

    /// The newest note.
    pub fn last(&mut self) -> Result<Option<String>, AnchorError> {
        if self.end == 0 {
            return Ok(None);
        }
        let start = self.line_start(self.end - 1)?;
        Ok(self.read_from(start, 1)?.pop().map(|(note, _)| note))
    }

    /// The next notes from the line that begins at `offset`, at most `count`, each with where the line after
    /// it begins.
    pub fn read_from(&mut self, offset: u64, count: usize) -> Result<Vec<(String, u64)>, AnchorError> {
        let _ = self.file.seek(SeekFrom::Start(offset)).map_err(|e| self.error("read", e))?;
        let mut reader = BufReader::new((&self.file).take(self.end.saturating_sub(offset)));
        let mut notes = Vec::new();
        let (mut at, mut line) = (offset, Vec::new());
        while notes.len() < count {
            line.clear();
            let bytes = reader
                .by_ref()
                .take(MAX_LINE_BYTES)
                .read_until(b'\n', &mut line)
                .map_err(|e| self.error("read", e))?;
            if bytes == 0 {
                break;
            }
            let parsed: Line<'_> = serde_json::from_slice(&line)
                .map_err(|_| AnchorError::Malformed { path: self.path.clone(), at })?;
            at += bytes as u64;
            notes.push((parsed.note.into_owned(), at));
        }
        Ok(notes)
    }

    /// Where the line after the last of these notes begins; `None` where none is among the newest lines.
    pub fn behind(&mut self, notes: &HashSet<String>) -> Result<Option<u64>, AnchorError> {
        let from = self.end.saturating_sub(MAX_LOOK_BACK_BYTES);
        // The first line of the stretch may be cut; the one after it is whole.
        let mut at = if from == 0 { 0 } else { self.next_line(from)? };
        let mut found = None;
        while at < self.end {
            let lines = self.read_from(at, 256)?;
            let Some((_, next)) = lines.last() else {
                break;
            };
            at = *next;
            found = lines.iter().rfind(|(note, _)| notes.contains(note)).map(|(_, next)| *next).or(found);
        }
        Ok(found)
    }

    fn next_line(&mut self, from: u64) -> Result<u64, AnchorError> {
        let _ = self.file.seek(SeekFrom::Start(from)).map_err(|e| self.error("read", e))?;
        let mut skipped = Vec::new();
        let bytes = BufReader::new((&self.file).take(MAX_LINE_BYTES))
            .read_until(b'\n', &mut skipped)
            .map_err(|e| self.error("read", e))?;
        Ok(from + bytes as u64)
    }

    /// Where the line that byte `at` belongs to, or would, begins.
    fn line_start(&mut self, at: u64) -> Result<u64, AnchorError> {
        let mut end = at;
        let mut step = Vec::new();
        while end > 0 {
            let start = end.saturating_sub(STEP_BYTES);
            step.resize((end - start) as usize, 0);
            let _ = self.file.seek(SeekFrom::Start(start)).map_err(|e| self.error("read", e))?;
            self.file.read_exact(&mut step).map_err(|e| self.error("read", e))?;
            if let Some(newline) = step.iter().rposition(|byte| *byte == b'\n') {
                return Ok(start + newline as u64 + 1);
            }
            end = start;
        }
        Ok(0)
    }

    fn error(&self, action: &'static str, source: io::Error) -> AnchorError {
        AnchorError::Io { action, path: self.path.clone(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(n: u32) -> String {
        format!("log\n{n}\n\n— log {}\n", "x".repeat(n as usize % 7))
    }

    #[test]
    fn what_was_appended_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/anchor.jsonl");
        assert!(Anchor::open_read_only(&path).unwrap().is_none());
        let mut anchor = Anchor::open(&path).unwrap();
        assert_eq!(anchor.last().unwrap(), None);
        for n in 0..1000 {
            anchor.append(&note(n)).unwrap();
            assert_eq!(anchor.last().unwrap().as_deref(), Some(note(n).as_str()));
        }
        assert!(!anchor.refresh().unwrap());
        let mut again = Anchor::open(&path).unwrap();
        let all = again.read_from(0, usize::MAX).unwrap();
        assert_eq!(all.len(), 1000);
        assert_eq!(all.last().unwrap(), &(note(999), again.end()));
        for n in [0, 500, 999] {
            let notes = HashSet::from([note(n), note(0), "another".to_owned()]);
            assert_eq!(again.behind(&notes).unwrap(), Some(all[n as usize].1));
        }
        assert_eq!(again.behind(&HashSet::from(["another".to_owned()])).unwrap(), None);
        again.append(&note(1000)).unwrap();
        assert!(anchor.refresh().unwrap());
        assert_eq!(anchor.last().unwrap(), Some(note(1000)));
    }

    #[test]
    fn a_line_that_was_cut_off_is_removed_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anchor.jsonl");
        let mut anchor = Anchor::open(&path).unwrap();
        anchor.append(&note(1)).unwrap();
        anchor.append(&note(2)).unwrap();
        drop(anchor);
        let whole = std::fs::read(&path).unwrap();
        for cut in 1..20 {
            std::fs::write(&path, &whole[..whole.len() - cut]).unwrap();
            let mut anchor = Anchor::open(&path).unwrap();
            assert_eq!(anchor.last().unwrap(), Some(note(1)), "{cut}");
            anchor.append(&note(3)).unwrap();
            let notes = anchor.read_from(0, 9).unwrap();
            assert_eq!(notes.iter().map(|(note, _)| note.clone()).collect::<Vec<_>>(), [note(1), note(3)]);
        }
    }

    #[test]
    fn a_foreign_line_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anchor.jsonl");
        std::fs::write(&path, "{\"note\":\"a\"}\nnothing\n").unwrap();
        let error = Anchor::open(&path).unwrap().last().unwrap_err().to_string();
        assert!(error.contains("byte 13"), "{error}");
    }
}
