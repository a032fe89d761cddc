//! The copy's file: lines appended, continued in a new file when it would outgrow its bound, older ones numbered
//! as Python's `RotatingFileHandler` numbers them: `{path}.1` is the newest of them.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::audit::LaneId;
use crate::files;

/// How much of the newest files a start reads to learn how far the copy goes, in bytes.
const TAIL_BYTES: u64 = 16 * 1024 * 1024;

/// Longest first line that is looked at, in bytes.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// The newest lines of a copy: how far each lane goes, and how late the last line is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) lanes: BTreeMap<LaneId, u64>,
    pub(super) time_us: u64,
}

#[derive(Debug)]
pub(super) struct RotatingFile {
    path: PathBuf,
    /// Of `{path}.lock`: the file itself changes with every rotation.
    _lock: Flock<File>,
    file: BufWriter<File>,
    /// Bytes of whole lines.
    length: u64,
    max_bytes: u64,
    backup_count: u32,
}

impl RotatingFile {
    /// Opens the copy, or begins one; `None` where another server writes it. A line that a crash cut off is
    /// removed; it is written again.
    pub(super) fn open(path: &Path, max_bytes: u64, backup_count: u32) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut name = path.to_path_buf().into_os_string();
        name.push(".lock");
        let lock = match Flock::lock(open(Path::new(&name))?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            Err((_, errno)) => return Err(errno.into()),
        };
        let mut file = open(path)?;
        check_copy(&mut file)?;
        let length = whole_lines(&mut file)?;
        file.set_len(length)?;
        let (path, file) = (path.to_path_buf(), BufWriter::new(file));
        Ok(Some(Self { path, _lock: lock, file, length, max_bytes, backup_count }))
    }

    /// Appends a line, in a new file where this one has no room for it. Without backups the file just grows.
    pub(super) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let bytes = line.len() as u64;
        if self.backup_count > 0 && self.length > 0 && self.length + bytes > self.max_bytes {
            self.rotate()?;
        }
        self.file.write_all(line)?;
        self.length += bytes;
        Ok(())
    }

    /// Hands what was written to the system.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// Gives the file up without writing what is still buffered.
    pub(super) fn abandon(self) {
        let Self { file, .. } = self;
        drop(file.into_parts());
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_data()?;
        for number in (1..self.backup_count).rev() {
            rename(&self.numbered(number), &self.numbered(number + 1))?;
        }
        rename(&self.path, &self.numbered(1))?;
        self.file = BufWriter::new(open(&self.path)?);
        self.length = 0;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    /// How far the copy goes; `None` where it holds nothing yet.
    pub(super) fn reached(&self) -> io::Result<Option<Reached>> {
        let mut reached = Reached::default();
        for path in [self.numbered(1), self.path.clone()] {
            let mut file = match File::open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let from = file.metadata()?.len().saturating_sub(TAIL_BYTES);
            let _ = file.seek(SeekFrom::Start(from))?;
            let mut reader = BufReader::new(file);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line)? > 0 {
                // The first may be cut, and others are not ours to judge.
                if let Ok(place) = serde_json::from_slice::<Place>(&line) {
                    reached.time_us = reached.time_us.max(place.time_us);
                    let last = reached.lanes.entry(LaneId::from_stored(&place.lane)).or_default();
                    *last = place.seq.max(*last);
                }
                line.clear();
            }
        }
        Ok((!reached.lanes.is_empty()).then_some(reached))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the copy, with all that was rotated away, has a line of that lane. Reads all of it: for lanes of which
    /// nothing else tells.
    pub(super) fn mentions(&self, lane: &LaneId) -> io::Result<bool> {
        let rotated = (1..=self.backup_count).map(|n| self.numbered(n));
        for path in std::iter::once(self.path.clone()).chain(rotated) {
            if mentions(&path, lane)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Whether a file has a line of that lane.
fn mentions(path: &Path, lane: &LaneId) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut reader = BufReader::new(file);
    let name = lane.as_str().as_bytes();
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        // Others may name it in what they tell.
        if memchr::memmem::find(&line, name).is_some()
            && serde_json::from_slice::<Place>(&line).is_ok_and(|place| place.lane == lane.as_str())
        {
            return Ok(true);
        }
        line.clear();
    }
    Ok(false)
}

#[derive(serde::Deserialize)]
struct Place {
    lane: String,
    seq: u64,
    time_us: u64,
}

fn open(path: &Path) -> io::Result<File> {
    files::append(path, 0o600)
}

/// Nothing is appended to a file that holds something else than lines of JSON.
fn check_copy(file: &mut File) -> io::Result<()> {
    let _ = file.seek(SeekFrom::Start(0))?;
    let mut first = Vec::new();
    let _ = BufReader::new(file.take(MAX_LINE_BYTES)).read_until(b'\n', &mut first)?;
    let whole = first.ends_with(b"\n");
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&first).is_ok();
    // What a crash left of the first line is cut back.
    if first.is_empty() || object || !whole && first.starts_with(b"{\"") {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "it holds something else than a copy of the trail; expected a path of its own",
    ))
}

fn rename(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes up to the last newline.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = file.metadata()?.len();
    let mut step = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        step.resize((end - start) as usize, 0);
        let _ = file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut step)?;
        if let Some(newline) = step.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + newline as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64) -> Vec<u8> {
        format!("{{\"lane\":\"l\",\"seq\":{seq},\"time_us\":{}}}\n", 1000 + seq).into_bytes()
    }

    fn lines(path: &Path) -> usize {
        std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
    }

    #[test]
    fn files_rotate_as_python_rotates_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("logs/audit.jsonl");
        let bytes = line(10).len() as u64;
        let mut file = RotatingFile::open(&path, 3 * bytes, 2).unwrap().unwrap();
        for seq in 10..21 {
            file.write_line(&line(seq)).unwrap();
        }
        file.flush().unwrap();
        let older = |n: u32| PathBuf::from(format!("{}.{n}", path.display()));
        assert_eq!((lines(&path), lines(&older(1)), lines(&older(2)), lines(&older(3))), (2, 3, 3, 0));
        assert!(std::fs::read_to_string(older(2)).unwrap().starts_with("{\"lane\":\"l\",\"seq\":13,"));
        let reached = file.reached().unwrap().unwrap();
        assert_eq!((reached.lanes[&LaneId::from_stored("l")], reached.time_us), (20, 1020));
    }

    #[test]
    fn without_backups_the_file_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let mut file = RotatingFile::open(&path, 10, 0).unwrap().unwrap();
        assert_eq!(file.reached().unwrap(), None);
        for seq in 0..5 {
            file.write_line(&line(seq)).unwrap();
        }
        file.flush().unwrap();
        assert_eq!(lines(&path), 5);
    }

    #[test]
    fn a_cut_line_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        std::fs::write(&path, [line(1), line(2)[..9].to_vec()].concat()).unwrap();
        let mut file = RotatingFile::open(&path, 1000, 1).unwrap().unwrap();
        assert!(RotatingFile::open(&path, 1000, 1).unwrap().is_none());
        assert_eq!(file.reached().unwrap().unwrap().lanes[&LaneId::from_stored("l")], 1);
        file.write_line(&line(2)).unwrap();
        file.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), [line(1), line(2)].concat());
    }
}
