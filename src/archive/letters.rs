//! Dead letters on disk: those that were too many for Redis, in files of the archive's folder
//! (`dead-letters-00000001.jsonl.zst`): frames of zstd, each of whole lines of JSON, a letter each, as Redis held it.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use zstd::bulk::Compressor;

use super::error::ArchiveError;
use super::folder::{paths, sync_folder_of};
use super::frames::{FRAME_BYTES, LEVEL, each_frame};
use crate::store::answers::EntryId;
use crate::store::moved_letters::RawLetter;

const PREFIX: &str = "dead-letters-";
const SUFFIX: &str = ".jsonl.zst";
/// Size at which a file is continued in a new one …
const FILE_BYTES: u64 = 16 * 1024 * 1024;
/// … and that of the lines in it.
const FILE_LINE_BYTES: u64 = 64 * 1024 * 1024;

/// A letter as a line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    /// Names and values in turn.
    fields: Vec<Text>,
}

/// A field's bytes: as text where they are, else in base64.
#[derive(Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Text {
    Plain(String),
    Bytes { base64: String },
}

impl Text {
    /// A line has at most twice the bytes of its letter: what JSON would write with long escapes is in base64, too.
    fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) if !text.bytes().any(|byte| byte < b' ') => Self::Plain(text.to_owned()),
            _ => Self::Bytes { base64: BASE64.encode(bytes) },
        }
    }

    fn bytes(self) -> Option<Vec<u8>> {
        match self {
            Self::Plain(text) => Some(text.into_bytes()),
            Self::Bytes { base64 } => BASE64.decode(base64).ok(),
        }
    }
}

fn line_of(letter: &RawLetter) -> Line {
    let fields = letter.fields.iter().flat_map(|(name, value)| [Text::new(name), Text::new(value)]);
    Line { id: letter.id.to_text(), fields: fields.collect() }
}

fn letter_of(line: &[u8]) -> Option<RawLetter> {
    let line: Line = serde_json::from_slice(line).ok()?;
    let mut texts = line.fields.into_iter();
    let mut fields = Vec::new();
    while let Some(name) = texts.next() {
        fields.push((name.bytes()?, texts.next()?.bytes()?));
    }
    Some(RawLetter { id: EntryId::parse(&line.id)?, fields })
}

/// The files in a folder, by number.
fn files(dir: &Path) -> Result<Vec<(u64, PathBuf)>, ArchiveError> {
    let mut found = Vec::new();
    for path in paths(dir)? {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
        if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// What of a file can be read.
struct Good {
    /// Where its last whole frame ends.
    end: u64,
    /// Bytes of its lines.
    line_bytes: u64,
}

/// Hands out the letters of a file, frame by frame, as far as they can be read.
fn each_in(
    path: &Path,
    on: &mut dyn FnMut(Vec<RawLetter>) -> Result<(), ArchiveError>,
) -> Result<Good, ArchiveError> {
    let bytes = std::fs::read(path).map_err(ArchiveError::io("read", path))?;
    let mut good = Good { end: 0, line_bytes: 0 };
    each_frame(&bytes, &mut |end, lines| {
        good = Good { end, line_bytes: good.line_bytes + lines.len() as u64 };
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let letters: Option<Vec<RawLetter>> = lines.map(letter_of).collect();
        on(letters.ok_or_else(|| ArchiveError::Folder {
            path: path.to_path_buf(),
            problem: "holds a line that is no dead letter".to_owned(),
        })?)
    })?;
    Ok(good)
}

/// Hands out the letters in these folders, oldest first in each, until `on` has enough. `unread` hears of bytes that cannot be read.
pub fn each_letter(
    dirs: &[PathBuf],
    unread: &mut dyn FnMut(&Path, u64),
    on: &mut dyn FnMut(RawLetter) -> Result<ControlFlow<()>, ArchiveError>,
) -> Result<(), ArchiveError> {
    for dir in dirs {
        for (_, path) in files(dir)? {
            let mut enough = false;
            let good = each_in(&path, &mut |letters| {
                for letter in letters {
                    enough = enough || on(letter)?.is_break();
                }
                Ok(())
            })?;
            if enough {
                return Ok(());
            }
            let length = std::fs::metadata(&path).map_err(ArchiveError::io("read", &path))?.len();
            if good.end < length {
                unread(&path, length - good.end);
            }
        }
    }
    Ok(())
}

/// The file that is being filled. Whoever has it holds the folder's lock.
#[derive(Debug)]
pub(super) struct LetterFile {
    path: PathBuf,
    file: File,
    end: u64,
    line_bytes: u64,
    /// The letters in it: a crash may have come before some of them left Redis.
    known: HashSet<EntryId>,
    /// Those in the file before it, where this server has written or read that one.
    known_before: HashSet<EntryId>,
}

impl LetterFile {
    /// Opens the newest file in `dir`, or begins one. One that cannot be read to its end stays as it is, and another one is begun:
    /// what a crash has left of a frame is in Redis still.
    pub(super) fn open(dir: &Path) -> Result<Self, ArchiveError> {
        let Some((number, path)) = files(dir)?.pop() else {
            return Self::begin(dir, 1, HashSet::new());
        };
        let mut known = HashSet::new();
        let good = each_in(&path, &mut |letters| {
            known.extend(letters.iter().map(|letter| letter.id));
            Ok(())
        })?;
        let fail = |action| ArchiveError::io(action, &path);
        let length = std::fs::metadata(&path).map_err(fail("read"))?.len();
        if good.end < length {
            log::warn!(
                code = "letters_truncated", path:% = path.display();
                "{}: {} bytes at its end cannot be read", path.display(), length - good.end
            );
            return Self::begin(dir, number + 1, known);
        }
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail("open"))?;
        // What is taken for written is on disk.
        file.sync_all().map_err(fail("sync"))?;
        let (end, line_bytes) = (good.end, good.line_bytes);
        let file = Self { path, file, end, line_bytes, known, known_before: HashSet::new() };
        file.continued(dir)
    }

    /// Begins the file behind all others. After a failure, nothing that was written before is relied on.
    pub(super) fn begin_anew(dir: &Path) -> Result<Self, ArchiveError> {
        let number = files(dir)?.pop().map_or(1, |(number, _)| number + 1);
        Self::begin(dir, number, HashSet::new())
    }

    fn begin(dir: &Path, number: u64, known_before: HashSet<EntryId>) -> Result<Self, ArchiveError> {
        let path = dir.join(format!("{PREFIX}{number:08}{SUFFIX}"));
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(ArchiveError::io("make", &path))?;
        sync_folder_of(&path)?;
        Ok(Self { path, file, end: 0, line_bytes: 0, known: HashSet::new(), known_before })
    }

    /// The file's name.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Whether it is still the file of that name, as it was left.
    pub(super) fn is_in_place(&self) -> bool {
        let (here, there) = (self.file.metadata(), std::fs::metadata(&self.path));
        here.ok().zip(there.ok()).is_some_and(|(here, there)| {
            (here.dev(), here.ino(), self.end) == (there.dev(), there.ino(), there.len())
        })
    }

    /// Appends letters; they are on disk when this returns. One that the file has already is left out. After an error
    /// nothing that was written is relied on: [`Self::begin_anew`].
    pub(super) fn append(&mut self, letters: &[RawLetter]) -> Result<(), ArchiveError> {
        let path = self.path.clone();
        let fail = |action| ArchiveError::io(action, &path);
        let mut lines = Vec::new();
        for letter in letters {
            if self.known.contains(&letter.id) || self.known_before.contains(&letter.id) {
                continue;
            }
            serde_json::to_writer(&mut lines, &line_of(letter))
                .map_err(|error| fail("write")(error.into()))?;
            lines.push(b'\n');
            if lines.len() >= FRAME_BYTES {
                self.frame(&mut lines).map_err(fail("write"))?;
            }
        }
        if !lines.is_empty() {
            self.frame(&mut lines).map_err(fail("write"))?;
        }
        self.file.sync_data().map_err(fail("sync"))?;
        self.known.extend(letters.iter().map(|letter| letter.id));
        Ok(())
    }

    fn frame(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        let mut compressor = Compressor::new(LEVEL)?;
        compressor.include_checksum(true)?;
        compressor.include_contentsize(true)?;
        let frame = compressor.compress(lines)?;
        self.file.write_all_at(&frame, self.end)?;
        self.end += frame.len() as u64;
        self.line_bytes += lines.len() as u64;
        lines.clear();
        Ok(())
    }

    /// Goes on in a new file, where this one is large.
    pub(super) fn continued(self, dir: &Path) -> Result<Self, ArchiveError> {
        if self.end < FILE_BYTES && self.line_bytes < FILE_LINE_BYTES {
            return Ok(self);
        }
        let number = files(dir)?.pop().map_or(1, |(number, _)| number + 1);
        Self::begin(dir, number, self.known)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(dir: &Path) -> Vec<RawLetter> {
        let mut letters = Vec::new();
        each_letter(&[dir.to_path_buf()], &mut |_, _| {}, &mut |letter| {
            letters.push(letter);
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        letters
    }

    fn letter(ms: u64, fields: Vec<(Vec<u8>, Vec<u8>)>) -> RawLetter {
        RawLetter { id: EntryId { ms, seq: 0 }, fields }
    }

    proptest! {
        #[test]
        fn what_was_appended_is_read_whatever_bytes_it_has(
            letters in prop::collection::vec(
                prop::collection::vec((any::<Vec<u8>>(), any::<Vec<u8>>()), 0..4),
                1..20,
            ),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let letters: Vec<RawLetter> =
                letters.into_iter().zip(1..).map(|(fields, ms)| letter(ms, fields)).collect();
            LetterFile::open(dir.path()).unwrap().append(&letters).unwrap();
            prop_assert_eq!(all(dir.path()), letters);
        }
    }

    #[test]
    fn a_crash_leaves_whole_frames_and_a_letter_that_is_there_is_not_added_again() {
        let dir = tempfile::tempdir().unwrap();
        let letters = |ms: std::ops::Range<u64>| -> Vec<RawLetter> {
            ms.map(|ms| letter(ms, vec![(b"envelope".to_vec(), b"{}".to_vec())])).collect()
        };
        let mut file = LetterFile::open(dir.path()).unwrap();
        file.append(&letters(1..5)).unwrap();
        let whole = std::fs::metadata(&file.path).unwrap().len();
        file.append(&letters(5..9)).unwrap();
        let both = std::fs::read(&file.path).unwrap();
        let (first, further) = (file.path.clone(), dir.path().join("dead-letters-00000002.jsonl.zst"));
        for end in whole as usize..both.len() {
            let _ = std::fs::remove_file(&further);
            std::fs::write(&first, &both[..end]).unwrap();
            let mut again = LetterFile::open(dir.path()).unwrap();
            assert_eq!(all(dir.path()), letters(1..5));
            // The crash came between the file and Redis.
            again.append(&letters(1..5)).unwrap();
            again.append(&letters(5..9)).unwrap();
            assert_eq!(all(dir.path()), letters(1..9));
            // Nothing was cut off.
            assert!(std::fs::read(&first).unwrap().starts_with(&both[..end]));
        }
    }

    #[test]
    fn a_file_that_was_moved_away_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = LetterFile::open(dir.path()).unwrap();
        file.append(&[letter(1, Vec::new())]).unwrap();
        assert!(file.is_in_place());
        std::fs::rename(&file.path, dir.path().join("away")).unwrap();
        assert!(!file.is_in_place());
    }
}
