//! The anchor: a copy of every signed checkpoint outside Redis, in files that only grow. One JSON line
//! each: `{"note": "…"}`. On disk before anything else learns of the checkpoint. Servers that share a key may
//! share an anchor: whoever writes holds the key's lock.
//!
//! A file that is large gets a number (`audit-anchor-00000001.jsonl`), and a new one goes on under the anchor's name. Its first
//! line names the one before (`{"previous": "audit-anchor-00000001.jsonl"}`), the last line of that one says that it is
//! continued (`{"continued": true}`). Older files may be moved away.

use std::collections::HashSet;
use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::audit::note::MAX_NOTE_BYTES;
use crate::files;

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
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Note { note: String },
    Previous { previous: String },
    Continued { continued: bool },
}

/// How each kind of [`Line`] begins.
const BEGINNINGS: &[&[u8]] = &[b"{\"note\":\"", b"{\"previous\":\"", b"{\"continued\":"];

/// The files of an anchor that were continued in others, oldest first: those of them that are there.
pub fn older_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let folder = folder_of(path);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?.path();
        found.extend(number_of(path, &entry).map(|number| (number, entry)));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Name and extension of an anchor, between which a number stands.
fn parts_of(path: &Path) -> (String, String) {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|text| format!(".{}", text.to_string_lossy()));
    (stem, extension.unwrap_or_default())
}

fn number_of(anchor: &Path, path: &Path) -> Option<u64> {
    let (stem, extension) = parts_of(anchor);
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix(&stem)?.strip_prefix('-')?.strip_suffix(&extension)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// What a refresh has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refreshed {
    /// Nothing.
    Same,
    /// Further notes.
    Grown,
    /// Another server of this log goes on in a new file.
    Continued,
}

/// An open anchor.
#[derive(Debug)]
pub struct Anchor {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    end: u64,
}

fn open_file(path: &Path) -> io::Result<File> {
    files::append(path, 0o644)
}

impl Anchor {
    /// Opens the anchor, or begins one. The caller holds the lock of the log's key.
    pub fn open(path: &Path) -> Result<Self, AnchorError> {
        let folder = folder_of(path);
        let fail = |action| {
            let path = path.to_path_buf();
            move |source| AnchorError::Io { action, path, source }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(folder)
            .map_err(fail("make the directory of"))?;
        let file = open_file(path).map_err(fail("open"))?;
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
        self.write(&Line::Note { note: note.to_owned() })
    }

    /// Goes on in a new file. The caller holds the lock of the log's key, and has refreshed under it. A crash in between leaves
    /// a file that says it is continued, and goes on itself.
    pub fn continue_in_new_file(&mut self) -> Result<(), AnchorError> {
        let older = older_files(&self.path).map_err(|e| self.error("look for older files of", e))?;
        let newest = older.last().and_then(|path| number_of(&self.path, path)).unwrap_or(0);
        let (stem, extension) = parts_of(&self.path);
        let name = format!("{stem}-{:08}{extension}", newest + 1);
        let (folder, path) = (folder_of(&self.path).to_path_buf(), self.path.clone());
        self.write(&Line::Continued { continued: true })?;
        // Put together under another name: whoever opens the anchor finds a file with its first line.
        let temporary = path.with_extension("new");
        let mut first = serde_json::to_vec(&Line::Previous { previous: name.clone() })
            .map_err(|error| self.error("write", error.into()))?;
        first.push(b'\n');
        let made = (|| {
            match std::fs::remove_file(&temporary) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = open_file(&temporary)?;
            file.write_all(&first)?;
            file.sync_all()?;
            std::fs::rename(&path, folder.join(&name))?;
            std::fs::rename(&temporary, &path)?;
            File::open(&folder)?.sync_all()?;
            Ok(file)
        })();
        self.file = made.map_err(|e| self.error("continue", e))?;
        self.end = first.len() as u64;
        Ok(())
    }

    fn write(&mut self, line: &Line) -> Result<(), AnchorError> {
        let mut line = serde_json::to_vec(line).map_err(|error| self.error("write", error.into()))?;
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

    /// Takes up what other servers of this log have appended, also in a new file. What a crash left of
    /// a line is removed: nobody was told of it.
    pub fn refresh(&mut self) -> Result<Refreshed, AnchorError> {
        let is_continued = match std::fs::metadata(&self.path) {
            Ok(there) => {
                let here = self.file.metadata().map_err(|e| self.error("read", e))?;
                (there.dev(), there.ino()) != (here.dev(), here.ino())
            }
            // Between the two renamings of a crash, or taken away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(self.error("read", error)),
        };
        if is_continued {
            self.file = open_file(&self.path).map_err(|e| self.error("open", e))?;
            self.end = 0;
            let _ = self.take_up()?;
            return Ok(Refreshed::Continued);
        }
        Ok(if self.take_up()? { Refreshed::Grown } else { Refreshed::Same })
    }

    fn take_up(&mut self) -> Result<bool, AnchorError> {
        let length = self.file.metadata().map_err(|e| self.error("read", e))?.len();
        if length == self.end {
            return Ok(false);
        }
        let whole = self.line_start(length)?;
        if whole < length {
            self.check_begun(whole)?;
            log::warn!(
                code = "anchor_truncated", path:% = self.path.display();
                "{}: its last line was cut off; it is removed", self.path.display()
            );
            self.file.set_len(whole).map_err(|e| self.error("cut back", e))?;
        }
        let grown = whole != self.end;
        self.end = whole;
        Ok(grown)
    }

    /// What a crash left of a line begins like one; anything else belongs to another file, which is not cut.
    fn check_begun(&mut self, at: u64) -> Result<(), AnchorError> {
        let mut begun = Vec::new();
        let _ = self.file.seek(SeekFrom::Start(at)).map_err(|e| self.error("read", e))?;
        let most = BEGINNINGS.iter().map(|line| line.len() as u64).max().unwrap_or(0);
        let _ = (&self.file).take(most).read_to_end(&mut begun).map_err(|e| self.error("read", e))?;
        let begins = |line: &&[u8]| begun.starts_with(line) || line.starts_with(&begun);
        match BEGINNINGS.iter().any(begins) {
            true => Ok(()),
            false => Err(AnchorError::Malformed { path: self.path.clone(), at }),
        }
    }

    /// The newest note, also where it is in an older file.
    pub fn last(&mut self) -> Result<Option<String>, AnchorError> {
        let mut end = self.end;
        while end > 0 {
            let start = self.line_start(end - 1)?;
            if let Some((note, _)) = self.read_from(start, 1)?.pop() {
                return Ok(Some(note));
            }
            end = start;
        }
        match self.previous()? {
            Some(mut previous) => previous.last(),
            None => Ok(None),
        }
    }

    /// The file that this one continues; `None` where it continues none, or that one was moved away.
    fn previous(&mut self) -> Result<Option<Self>, AnchorError> {
        let _ = self.file.seek(SeekFrom::Start(0)).map_err(|e| self.error("read", e))?;
        let mut line = Vec::new();
        let mut reader = BufReader::new((&self.file).take(self.end.min(MAX_LINE_BYTES)));
        let _ = reader.read_until(b'\n', &mut line).map_err(|e| self.error("read", e))?;
        match serde_json::from_slice(&line) {
            // A name, and no way to elsewhere.
            Ok(Line::Previous { previous }) if !previous.contains('/') => {
                Self::open_read_only(&folder_of(&self.path).join(previous))
            }
            _ => Ok(None),
        }
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
            let parsed: Line = serde_json::from_slice(&line)
                .map_err(|_| AnchorError::Malformed { path: self.path.clone(), at })?;
            at += bytes as u64;
            if let Line::Note { note } = parsed {
                notes.push((note, at));
            }
        }
        Ok(notes)
    }

    /// Where the line after the last of these notes begins, the beginning where it is in the file before; `None` where none is
    /// among the newest lines.
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
        if found.is_none()
            && from == 0
            && let Some(mut previous) = self.previous()?
        {
            return Ok(previous.behind(notes)?.map(|_| 0));
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
        assert_eq!(anchor.refresh().unwrap(), Refreshed::Same);
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
        assert_eq!(anchor.refresh().unwrap(), Refreshed::Grown);
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

    #[test]
    fn a_large_anchor_goes_on_in_a_new_file_and_nothing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("anchor.jsonl");
        let mut anchor = Anchor::open(&path).unwrap();
        let mut other = Anchor::open(&path).unwrap();
        for n in 0..30 {
            let refreshed = anchor.refresh().unwrap();
            assert!(refreshed != Refreshed::Continued, "{n}");
            anchor.append(&note(n)).unwrap();
            if n % 10 == 9 {
                anchor.continue_in_new_file().unwrap();
                assert_eq!(anchor.last().unwrap(), Some(note(n)), "in the file before");
                assert_eq!(anchor.behind(&HashSet::from([note(n)])).unwrap(), Some(0));
                assert_eq!(other.refresh().unwrap(), Refreshed::Continued);
                assert_eq!(other.last().unwrap(), Some(note(n)));
            }
        }
        let mut all = Vec::new();
        for file in older_files(&path).unwrap().into_iter().chain([path.clone()]) {
            let mut anchor = Anchor::open_read_only(&file).unwrap().unwrap();
            all.extend(anchor.read_from(0, usize::MAX).unwrap().into_iter().map(|(note, _)| note));
        }
        assert_eq!(all, (0..30).map(note).collect::<Vec<_>>());
        assert_eq!(older_files(&path).unwrap().len(), 3);
        // Older files may be moved away.
        std::fs::remove_file(dir.path().join("anchor-00000003.jsonl")).unwrap();
        assert_eq!(Anchor::open(&path).unwrap().last().unwrap(), None);
    }
}
