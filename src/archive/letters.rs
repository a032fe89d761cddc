//! Dead letters on disk: those that were too many for Redis, in files of the archive's folder
//! (`dead-letters-00000001.jsonl.zst`): frames of zstd, each of whole lines of JSON, a letter each, as Redis held it.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::error::ArchiveError;
use super::folder::sync_folder_of;
use super::frames::{FRAME_BYTES, LEVEL, each_frame};
use crate::store::answers::EntryId;
use crate::store::moved_letters::RawLetter;

const PREFIX: &str = "dead-letters-";
const SUFFIX: &str = ".jsonl.zst";
/// Size at which a file is continued in a new one.
const FILE_BYTES: u64 = 16 * 1024 * 1024;

/// Letters of one append, at most.
pub(super) const APPEND_LETTERS: usize = 256;

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
    fn new(bytes: &[u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self::Plain(text.to_owned()),
            Err(_) => Self::Bytes { base64: BASE64.encode(bytes) },
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
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(ArchiveError::io("read", dir))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(ArchiveError::io("read", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let digits = name.strip_prefix(PREFIX).and_then(|rest| rest.strip_suffix(SUFFIX));
        if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Hands out the letters of a file, frame by frame, and returns where its last whole frame ends.
fn each_in(
    path: &Path,
    on: &mut dyn FnMut(Vec<RawLetter>) -> Result<(), ArchiveError>,
) -> Result<u64, ArchiveError> {
    let bytes = std::fs::read(path).map_err(ArchiveError::io("read", path))?;
    let mut good = 0;
    each_frame(&bytes, &mut |end, lines| {
        let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let letters: Option<Vec<RawLetter>> = lines.map(letter_of).collect();
        let problem = || "holds a line that is no dead letter".to_owned();
        on(letters.ok_or_else(|| ArchiveError::Folder { path: path.to_path_buf(), problem: problem() })?)?;
        good = end;
        Ok(())
    })?;
    Ok(good)
}

/// Hands out the letters in these folders, oldest first in each.
pub fn each_letter(
    dirs: &[PathBuf],
    on: &mut dyn FnMut(RawLetter) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    for dir in dirs {
        for (_, path) in files(dir)? {
            let end = each_in(&path, &mut |letters| letters.into_iter().try_for_each(&mut *on))?;
            let length = std::fs::metadata(&path).map_err(ArchiveError::io("read", &path))?.len();
            // What a server is writing, or a crash has left, is in Redis still.
            if end < length {
                log::debug!("{}: {} bytes behind the last whole frame", path.display(), length - end);
            }
        }
    }
    Ok(())
}

/// The file that is being filled.
#[derive(Debug)]
pub(super) struct LetterFile {
    path: PathBuf,
    file: File,
    end: u64,
    /// Letters of the last append: a crash may have come before they left Redis.
    last: HashSet<EntryId>,
}

impl LetterFile {
    /// Opens the newest file in `dir`, or begins one. What a crash has left of a frame is cut off: its letters are in Redis.
    pub(super) fn open(dir: &Path) -> Result<Self, ArchiveError> {
        let Some((number, path)) = files(dir)?.pop() else {
            return Self::begin(dir, 1);
        };
        let mut ids: Vec<EntryId> = Vec::new();
        let end = each_in(&path, &mut |letters| {
            ids.extend(letters.iter().map(|letter| letter.id));
            Ok(())
        })?;
        let last = ids.split_off(ids.len().saturating_sub(APPEND_LETTERS)).into_iter().collect();
        if end >= FILE_BYTES {
            return Ok(Self { last, ..Self::begin(dir, number + 1)? });
        }
        let fail = |action| ArchiveError::io(action, &path);
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(fail("open"))?;
        file.set_len(end).map_err(fail("cut back"))?;
        file.sync_all().map_err(fail("sync"))?;
        let _ = file.seek(SeekFrom::Start(end)).map_err(fail("read"))?;
        Ok(Self { path, file, end, last })
    }

    fn begin(dir: &Path, number: u64) -> Result<Self, ArchiveError> {
        let path = dir.join(format!("{PREFIX}{number:08}{SUFFIX}"));
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(ArchiveError::io("make", &path))?;
        sync_folder_of(&path)?;
        Ok(Self { path, file, end: 0, last: HashSet::new() })
    }

    /// The file's name.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// Appends letters; they are on disk when this returns. One that the file ends with already is left out. After an error the
    /// file is to be opened anew.
    pub(super) fn append(&mut self, letters: &[RawLetter]) -> Result<(), ArchiveError> {
        let path = self.path.clone();
        let fail = |action| ArchiveError::io(action, &path);
        let mut lines = Vec::new();
        let new: Vec<&RawLetter> = letters.iter().filter(|letter| !self.last.contains(&letter.id)).collect();
        for letter in &new {
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
        self.last = letters.iter().map(|letter| letter.id).collect();
        Ok(())
    }

    fn frame(&mut self, lines: &mut Vec<u8>) -> io::Result<()> {
        let frame = zstd::bulk::compress(lines, LEVEL)?;
        lines.clear();
        self.file.write_all(&frame)?;
        self.end += frame.len() as u64;
        Ok(())
    }

    /// Goes on in a new file, where this one is large.
    pub(super) fn continued(self, dir: &Path) -> Result<Self, ArchiveError> {
        if self.end < FILE_BYTES {
            return Ok(self);
        }
        let number = files(dir)?.pop().map_or(1, |(number, _)| number + 1);
        Ok(Self { last: self.last, ..Self::begin(dir, number)? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(dir: &Path) -> Vec<RawLetter> {
        let mut letters = Vec::new();
        each_letter(&[dir.to_path_buf()], &mut |letter| {
            letters.push(letter);
            Ok(())
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
        for end in whole as usize..both.len() {
            std::fs::write(&file.path, &both[..end]).unwrap();
            let mut again = LetterFile::open(dir.path()).unwrap();
            assert_eq!(all(dir.path()), letters(1..5));
            // The crash came between the file and Redis.
            again.append(&letters(1..5)).unwrap();
            again.append(&letters(5..9)).unwrap();
            assert_eq!(all(dir.path()), letters(1..9));
        }
    }
}
