//! The list of an archive's segments: `index.jsonl` in its directory, one line per segment, appended once
//! the segment is on disk and before Redis is trimmed. It says how far each lane has left Redis, so that the
//! next segment goes on there, and a start does not take what was archived for what was lost.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::ArchiveError;
use super::folder::sync_folder_of;
use crate::audit::LaneId;
use crate::audit::merkle::Frontier;

/// Name of the list in the archive's directory.
const FILE_NAME: &str = "index.jsonl";

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// Rises. Numbers that are missing are those of segments in other archives of the same Redis.
    pub(super) number: u64,
    pub(super) file: String,
    /// The hash that closes the file.
    pub(super) sha256: String,
    pub(super) records: u64,
    /// Id in Redis of the newest checkpoint in it.
    pub(super) checkpoint: String,
    /// The trees of the lanes behind their last archived records.
    pub(super) lanes: Vec<LaneTree>,
}

/// A lane's tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LaneTree {
    lane: String,
    size: u64,
    nodes: Vec<String>,
}

impl LaneTree {
    pub(super) fn of(lane: &LaneId, tree: &Frontier) -> Self {
        Self { lane: lane.to_string(), size: tree.size(), nodes: tree.node_texts().collect() }
    }

    fn read(&self) -> Option<(LaneId, Frontier)> {
        let tree = Frontier::from_texts(self.size, self.nodes.iter().map(String::as_str))?;
        Some((LaneId::from_stored(&self.lane), tree))
    }
}

/// What the list says.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Number of the newest one; 0: there is none.
    pub(super) newest: u64,
    /// How far each lane was archived. Grows with the archive, by some hundred bytes a lane.
    pub(super) lanes: BTreeMap<LaneId, Frontier>,
    /// Id in Redis of the newest checkpoint that was archived.
    pub(super) checkpoint: Option<String>,
    /// Bytes of whole lines.
    end: u64,
}

/// The list, open for another line.
#[derive(Debug)]
pub(super) struct Index {
    path: PathBuf,
    file: File,
    listed: Listed,
}

impl Deref for Index {
    type Target = Listed;

    fn deref(&self) -> &Listed {
        &self.listed
    }
}

impl Listed {
    fn take(&mut self, entry: &Entry) -> Option<()> {
        for tree in &entry.lanes {
            let (lane, tree) = tree.read()?;
            let _ = self.lanes.insert(lane, tree);
        }
        self.newest = entry.number;
        self.checkpoint = Some(entry.checkpoint.clone());
        Some(())
    }
}

impl Index {
    /// Reads the list of the archive in `dir`. A last line that is not whole is left out: what it is about
    /// is still in Redis.
    pub(super) fn read(dir: &Path) -> Result<Listed, ArchiveError> {
        let path = dir.join(FILE_NAME);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read.map_err(ArchiveError::io("read", &path))?,
        };
        let end = text.rfind('\n').map_or(0, |newline| newline + 1);
        let mut listed = Listed { end: end as u64, ..Listed::default() };
        for (line, text) in text.get(..end).unwrap_or_default().lines().enumerate() {
            let malformed = || ArchiveError::Index { path: path.clone(), line: line + 1 };
            let entry: Entry = serde_json::from_str(text).map_err(|_| malformed())?;
            if entry.number <= listed.newest {
                return Err(malformed());
            }
            listed.take(&entry).ok_or_else(malformed)?;
        }
        Ok(listed)
    }

    /// Hands out the trees of one lane, as each segment's end has them.
    pub(super) fn each_tree(
        dir: &Path,
        lane: &LaneId,
        on: &mut dyn FnMut(Frontier),
    ) -> Result<(), ArchiveError> {
        let path = dir.join(FILE_NAME);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            file => file.map_err(ArchiveError::io("read", &path))?,
        };
        for (number, line) in BufReader::new(file).lines().enumerate() {
            let line = line.map_err(ArchiveError::io("read", &path))?;
            // Most lines are of other lanes, and need not be taken apart.
            if !line.contains(lane.as_str()) {
                continue;
            }
            let malformed = |_| ArchiveError::Index { path: path.clone(), line: number + 1 };
            let entry: Entry = serde_json::from_str(&line).map_err(malformed)?;
            let trees = entry.lanes.iter().filter(|tree| tree.lane == lane.as_str());
            trees.filter_map(LaneTree::read).for_each(|(_, tree)| on(tree));
        }
        Ok(())
    }

    /// Opens the list, or begins one. A line that a crash cut off is removed.
    pub(super) fn open(dir: &Path) -> Result<Self, ArchiveError> {
        let path = dir.join(FILE_NAME);
        let listed = Self::read(dir)?;
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600);
        let file = file.open(&path).map_err(ArchiveError::io("open", &path))?;
        file.set_len(listed.end).map_err(ArchiveError::io("cut back", &path))?;
        sync_folder_of(&path)?;
        Ok(Self { path, file, listed })
    }

    /// Adds a segment; the line is on disk when this returns, or not there at all.
    pub(super) fn append(&mut self, entry: &Entry) -> Result<(), ArchiveError> {
        let fail = |action: &'static str| ArchiveError::io(action, &self.path);
        let mut line = serde_json::to_vec(entry).map_err(io::Error::from).map_err(fail("write"))?;
        line.push(b'\n');
        self.file.set_len(self.listed.end).map_err(fail("cut back"))?;
        self.file.write_all(&line).and_then(|()| self.file.sync_all()).map_err(fail("write"))?;
        self.listed.end += line.len() as u64;
        let line = entry.number as usize;
        self.listed.take(entry).ok_or_else(|| ArchiveError::Index { path: self.path.clone(), line })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::merkle::leaf_hash;

    fn entry(number: u64, records: u64) -> Entry {
        let mut tree = Frontier::default();
        for n in 0..records {
            tree.push(leaf_hash(&n.to_be_bytes()));
        }
        Entry {
            number,
            file: format!("segment-{number}"),
            sha256: String::new(),
            records,
            checkpoint: format!("{number}-0"),
            lanes: vec![LaneTree::of(&LaneId::from_stored("lane"), &tree)],
        }
    }

    #[test]
    fn the_list_reads_back_and_a_cut_line_is_as_if_it_was_never_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::open(dir.path()).unwrap();
        assert_eq!((index.newest, index.checkpoint.clone()), (0, None));
        index.append(&entry(1, 3)).unwrap();
        index.append(&entry(2, 7)).unwrap();
        let again = Index::open(dir.path()).unwrap();
        assert_eq!((again.newest, again.checkpoint.as_deref()), (2, Some("2-0")));
        assert_eq!(again.lanes[&LaneId::from_stored("lane")].size(), 7);

        let path = dir.path().join(FILE_NAME);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, &text[..text.len() - 3]).unwrap();
        let mut cut = Index::open(dir.path()).unwrap();
        assert_eq!((cut.newest, cut.lanes[&LaneId::from_stored("lane")].size()), (1, 3));
        cut.append(&entry(2, 7)).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn a_segment_that_stands_twice_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut index = Index::open(dir.path()).unwrap();
        index.append(&entry(2, 1)).unwrap();
        index.append(&entry(2, 1)).unwrap();
        let error = Index::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
