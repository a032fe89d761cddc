//! The archive's folder: which file is what.
//!
//! ```text
//! segment-00000001.jsonl       a closed segment of an earlier version: lines, not compressed
//! segment-00000007.jsonl.zst   a segment: frames of zstd, each of whole lines
//! segment-00000007.frames      where its frames are, and what is in each
//! index.jsonl                  the segments that are closed
//! .lock                        held by the server that archives
//! ```

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::error::ArchiveError;

/// Most segments of one archive: some hundred terabytes.
const MAX_SEGMENTS: usize = 1_000_000;
const PREFIX: &str = "segment-";
const PLAIN: &str = ".jsonl";
const COMPRESSED: &str = ".jsonl.zst";
const FRAMES: &str = ".frames";

/// One segment's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentFile {
    /// From 1.
    pub(super) number: u64,
    /// Where it is.
    pub(super) path: PathBuf,
}

impl SegmentFile {
    /// The name that a new segment gets.
    pub(super) fn new(dir: &Path, number: u64) -> Self {
        Self { number, path: dir.join(format!("{PREFIX}{number:08}{COMPRESSED}")) }
    }

    fn of(path: PathBuf) -> Option<Self> {
        let rest = path.file_name()?.to_str()?.strip_prefix(PREFIX)?;
        let digits = rest.strip_suffix(COMPRESSED).or_else(|| rest.strip_suffix(PLAIN))?;
        let number = digits.parse().ok().filter(|number| *number > 0)?;
        Some(Self { number, path })
    }

    /// Whether it is made of frames.
    pub(super) fn is_compressed(&self) -> bool {
        self.path.extension().is_some_and(|extension| extension == "zst")
    }

    /// The list of its frames.
    pub(super) fn frames(&self) -> PathBuf {
        let dir = self.path.parent().unwrap_or(&self.path);
        dir.join(format!("{PREFIX}{:08}{FRAMES}", self.number))
    }

    /// Its name, without the folder.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}

/// A file's name is on disk when this returns.
pub(super) fn sync_folder_of(path: &Path) -> Result<(), ArchiveError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(ArchiveError::io("sync", folder))
}

/// What is in a folder; nothing where there is none.
pub(super) fn paths(dir: &Path) -> Result<Vec<PathBuf>, ArchiveError> {
    match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(ArchiveError::io("read", dir)),
    }
}

/// The segments of an archive, in their order; none where there is no folder.
pub(super) fn segments(dir: &Path) -> Result<Vec<SegmentFile>, ArchiveError> {
    let mut found = Vec::new();
    for path in paths(dir)? {
        let Some(segment) = SegmentFile::of(path) else { continue };
        if found.len() == MAX_SEGMENTS {
            return Err(ArchiveError::Folder {
                path: dir.to_path_buf(),
                problem: format!("has more than {MAX_SEGMENTS} segments"),
            });
        }
        found.push(segment);
    }
    found.sort_by_key(|segment| segment.number);
    if let Some((one, _)) = found.iter().zip(found.iter().skip(1)).find(|(a, b)| a.number == b.number) {
        return Err(ArchiveError::Folder {
            path: dir.to_path_buf(),
            problem: format!("has two files of segment {}", one.number),
        });
    }
    Ok(found)
}
