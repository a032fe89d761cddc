//! A copy of the trail as JSON lines (`gateway.audit.file_path`), for tools that read files. Fed after the
//! commit, by a thread of its own. Where it cannot keep up with the workers, or the disk is full, it reads
//! what it missed back from Redis: a worker never waits for it, and nothing is left out.

mod file;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::audit::json::record_json;
use crate::audit::lane::split_block;
use crate::audit::record::View;
use crate::audit::tap::CommittedBlock;
use crate::audit::{Board, LaneId, Tap};
use crate::config;
use crate::shard::desk::shared::Shared;
use crate::shard::desk::troubles::Code;
use crate::store::{Connection, Endpoint, StoreError, trail};
use file::RotatingFile;

/// How much later than it began a lane's first lines may be in the copy, in microseconds: workers commit side by side,
/// and the thread that copies may be slow.
const SKEW_US: u64 = 60_000_000;
/// How often the thread looks for what it was not given.
const LOOK: Duration = Duration::from_millis(500);

/// Why the copy does not go on.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The copy.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another server writes it.
    #[error("{}: another server writes this copy", path.display())]
    Taken {
        /// The copy.
        path: PathBuf,
    },
    /// Redis, from which what is missing is read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The running thread.
pub struct Sink {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    /// Opens the copy and goes on where it ends: with what was recorded since its last line, or, in a new one,
    /// with what this server records. `None` where none is configured.
    pub fn start(config: &config::Audit, shared: &Arc<Shared>) -> Result<Option<Self>, SinkError> {
        let (Some(path), Some((tap, feed))) = (&config.file_path, &shared.tap) else {
            return Ok(None);
        };
        let failed = |source| SinkError::Io { path: path.clone(), source };
        let file = open(path, config)?;
        let mut connection = shared.redis.open()?;
        let next = positions(&file, &mut connection, &shared.board)?;
        let mut copier = Copier {
            path: path.clone(),
            config: config.clone(),
            file: Some(file),
            connection: Some(connection),
            endpoint: shared.redis.clone(),
            flushed: next.clone(),
            next,
            behind: true,
            failing: false,
            shared: shared.clone(),
        };
        let (stop, stopped) = crossbeam_channel::bounded(1);
        let (feed, shared, tap) = (feed.clone(), shared.clone(), tap.clone());
        let run = move || copier.run(&feed, &stopped, &tap, &shared.board);
        let thread = std::thread::Builder::new().name("audit-copy".to_owned()).spawn(run).map_err(failed)?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }

    /// Writes what is left. The workers must have stopped.
    pub fn stop(mut self) {
        // A thread that is gone has said so by its panic, which ends the process.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(
                code = "thread_panicked", part = "audit-copy";
                "the audit copy ended by a panic"
            );
        }
    }
}

fn open(path: &Path, config: &config::Audit) -> Result<RotatingFile, SinkError> {
    match RotatingFile::open(path, config.max_bytes, config.backup_count) {
        Ok(Some(file)) => Ok(file),
        Ok(None) => Err(SinkError::Taken { path: path.to_path_buf() }),
        Err(source) => Err(SinkError::Io { path: path.to_path_buf(), source }),
    }
}

/// The next record of each lane that the copy goes on with.
fn positions(
    file: &RotatingFile,
    connection: &mut Connection,
    board: &Board,
) -> Result<BTreeMap<LaneId, u64>, SinkError> {
    let failed = |source| SinkError::Io { path: file.path().to_path_buf(), source };
    let own = board.open_lanes();
    let mut next: BTreeMap<LaneId, u64> = own.iter().map(|lane| (lane.clone(), 1)).collect();
    let Some(reached) = file.reached().map_err(failed)? else {
        return Ok(next);
    };
    // What another server writes, that one copies.
    let existing = trail::lanes(connection)?.existing;
    let written: BTreeSet<LaneId> = trail::written(connection)?.into_iter().collect();
    for lane in existing.into_iter().filter(|lane| own.contains(lane) || !written.contains(lane)) {
        if let Some(last) = reached.lanes.get(&lane) {
            let _ = next.insert(lane, last + 1);
            continue;
        }
        // A lane that began behind the last line is missing as a whole; one that is much older is further up.
        let description = trail::registration(connection, &lane)?;
        let opened_us = description
            .and_then(|text| serde_json::from_str::<serde_json::Value>(&text).ok())
            .and_then(|description| description.get("opened_unix_us")?.as_u64());
        let is_missing = match opened_us {
            Some(opened_us) if opened_us.saturating_add(SKEW_US) < reached.time_us => false,
            Some(opened_us) if opened_us <= reached.time_us => !file.mentions(&lane).map_err(failed)?,
            Some(_) | None => true,
        };
        if is_missing {
            let _ = next.entry(lane).or_insert(1);
        }
    }
    Ok(next)
}

/// Whether nothing more comes of a lane that is not open: its writer has another one, or has ended.
fn is_over(lane: &LaneId, open: &BTreeSet<LaneId>) -> bool {
    let of_this_run = open.iter().any(|other| other.boot() == lane.boot());
    let has_gone_on =
        |other: &LaneId| other.writer() == lane.writer() && other.connection() > lane.connection();
    !open.is_empty() && (!of_this_run || open.iter().any(has_gone_on))
}

struct Copier {
    path: PathBuf,
    config: config::Audit,
    /// Opened again after an error: what it holds is known only from the file.
    file: Option<RotatingFile>,
    connection: Option<Connection>,
    endpoint: Endpoint,
    /// The next record of each lane.
    next: BTreeMap<LaneId, u64>,
    /// The same, as of when all before it was last handed to the system.
    flushed: BTreeMap<LaneId, u64>,
    /// Whether something was left out, and must be read back.
    behind: bool,
    failing: bool,
    /// Who is to hear of failures.
    shared: Arc<Shared>,
}

impl Copier {
    fn run(&mut self, feed: &Receiver<CommittedBlock>, stopped: &Receiver<()>, tap: &Tap, board: &Board) {
        loop {
            let stopping = stopped.try_recv().is_ok();
            let wait = if stopping { Duration::ZERO } else { LOOK };
            let mut outcome = Ok(());
            match feed.recv_timeout(wait) {
                Ok(first) => {
                    for block in std::iter::once(first).chain(feed.try_iter()) {
                        tap.taken(&block);
                        if outcome.is_ok() && !self.behind {
                            outcome = self.take(&block);
                        } else {
                            self.hear_of(block.lane);
                        }
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            let missed = tap.take_missed();
            self.behind |= outcome.is_err() || !missed.is_empty();
            missed.into_iter().for_each(|lane| self.hear_of(lane));
            if outcome.is_ok() && (self.behind || stopping) {
                outcome = self.catch_up(board);
            }
            let outcome = outcome.and_then(|()| self.flush());
            self.behind |= outcome.is_err();
            self.note(outcome, stopping);
            if stopping {
                return;
            }
        }
    }

    /// A lane has a block that was not copied: it is read back, whether the board has the lane yet or not.
    fn hear_of(&mut self, lane: LaneId) {
        let _ = self.next.entry(lane).or_insert(1);
    }

    /// A block from a worker. What is missing before it is read back first.
    fn take(&mut self, block: &CommittedBlock) -> Result<(), SinkError> {
        let next = *self.next.entry(block.lane.clone()).or_insert(1);
        if block.first_seq > next {
            return self.read_back(&block.lane);
        }
        self.write(&block.lane, block.first_seq, &block.bytes)
    }

    /// Reads back what was left out of every lane that is not done.
    fn catch_up(&mut self, board: &Board) -> Result<(), SinkError> {
        if self.file.is_none() {
            self.reopen()?;
        }
        let open = board.open_lanes();
        for lane in &open {
            let _ = self.next.entry(lane.clone()).or_insert(1);
        }
        for lane in self.next.keys().cloned().collect::<Vec<_>>() {
            self.read_back(&lane)?;
        }
        self.flush()?;
        // The board gets a lane a little after its first block is handed over.
        self.next.retain(|lane, _| open.contains(lane) || !is_over(lane, &open));
        self.behind = false;
        Ok(())
    }

    fn read_back(&mut self, lane: &LaneId) -> Result<(), SinkError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.endpoint.open()?,
        };
        // The copy may end within a block.
        let next = self.next.get(lane).copied().unwrap_or(1);
        if let Some(block) = trail::block_at(&mut connection, lane, next)? {
            self.write(lane, block.first_seq, &block.bytes)?;
        }
        loop {
            let next = self.next.get(lane).copied().unwrap_or(1);
            let blocks = trail::blocks(&mut connection, lane, next.saturating_sub(1))?;
            if blocks.is_empty() {
                break;
            }
            let reached = self.next.get(lane).copied().unwrap_or(1);
            for block in blocks {
                let next = self.next.get(lane).copied().unwrap_or(1);
                if block.first_seq > next {
                    log::error!(
                        code = "copy_lacks_records", path:% = self.path.display(), lane:%;
                        "{}: lacks records {next} to {} of lane {lane}: Redis does not hold them any more",
                        self.path.display(),
                        block.first_seq - 1
                    );
                }
                self.write(lane, block.first_seq, &block.bytes)?;
            }
            if self.next.get(lane).copied().unwrap_or(1) == reached {
                log::error!(
                    code = "copy_lane_unreadable", path:% = self.path.display(), lane:%;
                    "{}: lane {lane} holds something that is no block", self.path.display()
                );
                break;
            }
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Writes the records of a block that the copy does not have.
    fn write(&mut self, lane: &LaneId, first_seq: u64, block: &[u8]) -> Result<(), SinkError> {
        let mut seq = first_seq;
        for part in split_block(block).unwrap_or_default() {
            let next = self.next.get(lane).copied().unwrap_or(1);
            if seq >= next
                && let Some(record) = View::decode(part)
            {
                let mut line = record_json(lane, &record).to_string().into_bytes();
                line.push(b'\n');
                let written = match &mut self.file {
                    Some(file) => file.write_line(&line),
                    None => Ok(()),
                };
                written.map_err(|source| self.io(source))?;
            }
            seq += 1;
            let _ = self.next.insert(lane.clone(), next.max(seq));
        }
        Ok(())
    }

    /// After an error: the file says how far the copy goes.
    fn reopen(&mut self) -> Result<(), SinkError> {
        let file = open(&self.path, &self.config)?;
        let reached = file.reached().map_err(|source| self.io(source))?.unwrap_or_default();
        for (lane, next) in &mut self.next {
            let flushed = self.flushed.get(lane).copied().unwrap_or(1);
            *next = reached.lanes.get(lane).map_or(flushed, |last| flushed.max(last + 1));
        }
        self.file = Some(file);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        match self.file.as_mut().map(RotatingFile::flush) {
            Some(Err(source)) => Err(self.io(source)),
            Some(Ok(())) => {
                self.flushed.clone_from(&self.next);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn io(&self, source: io::Error) -> SinkError {
        SinkError::Io { path: self.path.clone(), source }
    }

    fn note(&mut self, outcome: Result<(), SinkError>, stopping: bool) {
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    self.shared.troubles.set(Code::Copy, None);
                    log::warn!(
                        code = "copy_resumed", path:% = self.path.display();
                        "{}: the audit copy goes on", self.path.display()
                    );
                }
            }
            Err(error) => {
                if matches!(error, SinkError::Io { .. })
                    && let Some(file) = self.file.take()
                {
                    file.abandon();
                }
                self.connection = None;
                self.shared.troubles.set(Code::Copy, Some(error.to_string()));
                if !std::mem::replace(&mut self.failing, true) || stopping {
                    log::error!(
                        code = "copy_waits", path:% = self.path.display();
                        "the audit copy waits, and reads what it misses back later: {error}"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_lane_is_over_when_its_writer_has_another_or_has_ended() {
        let (boot, before) = (Uuid::now_v7(), Uuid::now_v7());
        let open = BTreeSet::from([LaneId::new(boot, 0, 3)]);
        assert!(is_over(&LaneId::new(boot, 0, 2), &open));
        assert!(is_over(&LaneId::new(before, 1, 1), &open));
        // Not on the board yet.
        assert!(!is_over(&LaneId::new(boot, 0, 10), &open));
        assert!(!is_over(&LaneId::new(boot, 1, 1), &open));
        assert!(!is_over(&LaneId::new(boot, 1, 1), &BTreeSet::new()));
    }
}
