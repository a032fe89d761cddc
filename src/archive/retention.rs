//! The thread that archives, and its bounds.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::error::ArchiveError;
use super::filling::{Goal, Source};
use super::folder::SegmentFile;
use super::keeping::{Archive, MAX_KEPT};
use super::letter_mover::LetterMover;
use super::open_segment::{OpenSegment, Recovered};
use super::pace::Pace;
use crate::audit::Action;
use crate::audit::OperatorEvent;
use crate::audit::record::LETTERS_MOVED;
use crate::clock::Now;
use crate::config;
use crate::key_files::{KeyFiles, host_name};
use crate::shard::Shards;
use crate::shard::desk::troubles::Code;
use crate::store::archived::{self, Archived, Archiver, Right};
use crate::store::{Connection, StoreError, checkpoints, servers, trail};

/// How often the thread looks whether there is too much …
const LOOK: Duration = Duration::from_millis(500);
/// … and for how many times the time that looking took, archiving apart, it rests, at least.
const REST_FACTOR: u32 = 20;
/// With an archive, Redis may hold this many times `max_records` before nothing is admitted any more, …
const ARCHIVE_SLACK: u64 = 8;
/// … or this many records more, where that is more: a burst may be larger than a small bound.
const LEAST_SLACK: u64 = 20_000;
/// Beyond this many times `max_records` the thread does not rest any more.
const HURRY_SLACK: u64 = 2;
/// What is not archived yet is at most this share of `max_records`, so that the rest of them is on disk and in Redis.
const UNARCHIVED_SHARE: u64 = 2;
/// An append takes at least this share of `max_records`, so that it is not done for a few records …
const STEP_SHARE: u64 = 16;
/// … and at most about this many: a checkpoint is taken whole.
const MAX_STEP: u64 = 100_000;
/// A segment holds at most about this many times `max_records` …
const SEGMENT_FACTOR: u64 = 8;
/// … and this many records.
const SEGMENT_RECORDS: u64 = 2_000_000;
/// Checkpoints that one append takes at most.
const MAX_STEP_CHECKPOINTS: u64 = 10_000;
/// Checkpoints that stay in Redis, however few records there are: a day's, and some.
const MAX_LIVE_CHECKPOINTS: u64 = 100_000;

/// The running thread.
pub struct Retention {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Retention {
    /// Starts it; `None` where neither an archive nor a bound is configured.
    pub fn start(config: &config::Audit, shards: Arc<Shards>) -> io::Result<Option<Self>> {
        let max_records = config.max_records();
        if config.archive().is_none() && max_records == 0 {
            return Ok(None);
        }
        let (stop, stopped) = channel();
        let dir = config.archive().map(|dir| dir.display().to_string()).unwrap_or_default();
        let letters = LetterMover::new(format!("archive {}:{dir}", host_name()), config.max_dead_letters);
        let mut worker = Worker {
            letters,
            letters_failure: None,
            this: config.archive().map(|dir| Archiver {
                host: host_name(),
                dir: dir.display().to_string(),
                machine: servers::machine().unwrap_or_else(|| shards.boot().to_string()),
                max_records,
            }),
            dir: config.archive().map(Into::into),
            archive: None,
            files: KeyFiles::new(&config.signing_key_path),
            max_records,
            shards,
            connection: None,
            failure: None,
            full: false,
            looking: Duration::ZERO,
            pace: Pace::new(stopped),
            may_archive: false,
            other: None,
        };
        let run = move || {
            let mut rest = LOOK;
            while !worker.pace.rest(rest) {
                worker.look();
                rest = LOOK.max(worker.looking * REST_FACTOR);
            }
            worker.leave();
        };
        let thread = std::thread::Builder::new().name("retention".to_owned()).spawn(run)?;
        Ok(Some(Self { stop, thread: Some(thread) }))
    }
}

impl Drop for Retention {
    fn drop(&mut self) {
        // Either the thread hears it or it is gone. An append that is being written is finished first.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Worker {
    dir: Option<PathBuf>,
    /// While this server holds it.
    archive: Option<Archive>,
    letters: LetterMover,
    /// Why dead letters could not be moved when that was tried last.
    letters_failure: Option<String>,
    files: KeyFiles,
    max_records: u64,
    shards: Arc<Shards>,
    connection: Option<Connection>,
    /// Why nothing could be archived when it was tried last.
    failure: Option<String>,
    full: bool,
    /// How long it took to see what there is.
    looking: Duration,
    pace: Pace,
    /// This server, as Redis names it; `None`: it does not archive.
    this: Option<Archiver>,
    /// Whether it had the right to archive when it looked last.
    may_archive: bool,
    /// The one that has it.
    other: Option<Archiver>,
}

impl Worker {
    /// Archives as long as there is too much, and shuts admission where that is of no avail.
    fn look(&mut self) {
        let mut live = None;
        let failure = self.try_look(&mut live).err();
        if failure.is_some() {
            // What was half done is done again from what is on disk, and in Redis.
            self.may_archive = false;
        }
        if let Some(ArchiveError::Io { .. }) = failure {
            // Opened again, it is as the disk has it.
            self.archive = None;
            self.letters.forget_file();
        }
        let failure = failure.map(|error| error.to_string());
        match (&self.failure, &failure) {
            (Some(_), None) => log::warn!(code = "archive_resumed"; "the trail is archived again"),
            (None, Some(why)) => log::error!(code = "archive_failing"; "the trail cannot be archived: {why}"),
            _ => {}
        }
        self.shards.shared().troubles.set(Code::Archive, failure.clone());
        self.failure = failure;
        // How much there is counts, whatever hinders.
        if let Some(live) = live {
            self.admit(live);
        }
    }

    fn try_look(&mut self, live: &mut Option<u64>) -> Result<(), ArchiveError> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.shards.shared().redis.open()?,
        };
        let began = Instant::now();
        let found = live.insert(live_records(&mut connection)?);
        self.looking = began.elapsed();
        self.archive_what_is_too_much(&mut connection, found)?;
        // They are no reason not to archive the trail. After a failure the connection may watch something.
        if self.move_letters(&mut connection) {
            self.connection = Some(connection);
        }
        Ok(())
    }

    fn archive_what_is_too_much(
        &mut self,
        connection: &mut Connection,
        live: &mut u64,
    ) -> Result<(), ArchiveError> {
        if !self.may_archive(connection, live)? {
            return Ok(());
        }
        while self.keeps_right(connection)? {
            self.trim(connection, live)?;
            let Some(goal) = self.goal(connection, *live)? else {
                return Ok(());
            };
            self.pace.hurry = self.max_records > 0 && *live > self.max_records.saturating_mul(HURRY_SLACK);
            if self.pace.is_stopped() || !self.append(connection, goal)? {
                return Ok(());
            }
            *live = live_records(connection)?;
            // Between two appends, too, for a long way may lie before it.
            self.admit(*live);
        }
        Ok(())
    }

    /// Moves dead letters that are too many; whether nothing hindered that.
    fn move_letters(&mut self, connection: &mut Connection) -> bool {
        let Some(archive) = self.archive.as_ref().filter(|_| self.may_archive) else {
            return true;
        };
        if self.letters.is_resting() {
            return true;
        }
        let looked = self.letters.look(connection, &archive.dir, &mut self.pace);
        for moved in self.letters.moved() {
            log::info!(
                code = "letters_moved", count = moved.letters, path:% = archive.dir.join(&moved.file).display();
                "{} dead letters were moved to {}",
                moved.letters,
                archive.dir.join(&moved.file).display()
            );
            self.shards.record(OperatorEvent {
                action: Action::Archived,
                target: moved.file,
                rule: format!("{} dead letters", moved.letters),
                reason: LETTERS_MOVED.to_owned(),
                pending: None,
            });
        }
        let failure = looked.err().map(|error| error.to_string());
        if let Some(why) = failure.as_ref().filter(|why| self.letters_failure.as_ref() != Some(why)) {
            log::error!(
                code = "letters_stuck";
                "dead letters are too many for Redis and cannot be moved to a file: {why}"
            );
        }
        self.shards.shared().troubles.set(Code::DeadLetters, failure.clone());
        let is_well = failure.is_none();
        self.letters_failure = failure;
        is_well
    }

    /// Keeps the right to archive; `false` where another server has it by now.
    fn keeps_right(&mut self, connection: &mut Connection) -> Result<bool, ArchiveError> {
        let Some(this) = &self.this else {
            return Ok(false);
        };
        let right = archived::take_right(connection, &self.shards.shared().server, this)?;
        self.may_archive = matches!(right, Right::Own);
        Ok(self.may_archive)
    }

    /// Whether this server archives: it has the folder, and the right to.
    fn may_archive(&mut self, connection: &mut Connection, live: &mut u64) -> Result<bool, ArchiveError> {
        let (Some(dir), Some(this)) = (&self.dir, &self.this) else {
            return Ok(false);
        };
        let had_right = std::mem::take(&mut self.may_archive) && self.archive.is_some();
        if self.archive.is_none() {
            let began = Instant::now();
            self.archive = Archive::open(dir)?;
            self.looking += began.elapsed();
        }
        if self.archive.is_none() {
            return Ok(false);
        }
        let server = &self.shards.shared().server;
        let other = match archived::take_right(connection, server, this)? {
            Right::Own => None,
            Right::Other(other) => Some(other),
            // Others have declared this server void: it ends.
            Right::Fenced => return Ok(false),
        };
        if other != self.other {
            match &other {
                Some(other) => log::info!(
                    code = "archive_elsewhere", host = other.host.as_str(), path = other.dir.as_str();
                    "the trail is archived by {}, in {}", other.host, other.dir
                ),
                None => log::info!(
                    code = "archive_here", path = this.dir.as_str();
                    "this server archives the trail now, in {}", this.dir
                ),
            }
            self.other = other;
        }
        if self.other.is_some() {
            return Ok(false);
        }
        if !had_right {
            self.go_on(connection)?;
            *live = live_records(connection)?;
        }
        self.may_archive = true;
        Ok(true)
    }

    /// Goes on from what is on disk here and what others have archived, and removes from Redis what a crash, or a stop, has
    /// left there of it.
    fn go_on(&mut self, connection: &mut Connection) -> Result<(), ArchiveError> {
        let keys = self.shards.shared().key_ring.keys();
        let elsewhere = archived::read(connection, &keys)?;
        if self.archive.as_mut().is_some_and(|archive| archive.take_up(elsewhere)) {
            // A segment is one stretch of each lane.
            self.close()?;
        }
        let (Some(archive), Some(this)) = (&mut self.archive, &self.this) else {
            return Ok(());
        };
        archive.kept.clear();
        // Before anything is removed for it: a crash may have come in between.
        if !archive.numbers.is_empty()
            && !archived::write(connection, &keys, this, &archive.archived, &archive.numbers)?
        {
            return Ok(());
        }
        archive.trim(connection, &archive.archived.lanes, archive.archived.newest, &mut self.pace)?;
        Ok(())
    }

    /// Another server may archive at once.
    fn leave(&mut self) {
        if let (Some(connection), Some(this), true) = (&mut self.connection, &self.this, self.may_archive)
            && let Err(error) = archived::leave_right(connection, this)
        {
            log::warn!(
                code = "lease_not_released";
                "the right to archive could not be given up; it runs out by itself: {error}"
            );
        }
    }

    /// What is to be archived now; `None`: nothing.
    fn goal(&self, connection: &mut Connection, live: u64) -> Result<Option<Goal>, ArchiveError> {
        let (records, sealed) = match &self.archive {
            Some(archive) => (archive.kept_records(), archive.kept_checkpoints()),
            None => return Ok(None),
        };
        let unarchived = live.saturating_sub(records);
        let checkpoints = checkpoints::count(connection)?.saturating_sub(sealed);
        let (most, most_checkpoints) =
            (self.max_records / UNARCHIVED_SHARE, MAX_LIVE_CHECKPOINTS / UNARCHIVED_SHARE);
        let many = self.max_records > 0 && unarchived > most;
        let many_checkpoints = checkpoints > most_checkpoints;
        let step = (self.max_records / STEP_SHARE).max(1);
        let goal = Goal {
            records: if many { (unarchived - most).max(step).min(MAX_STEP) } else { 0 },
            checkpoints: if many_checkpoints {
                (checkpoints - most_checkpoints / 2).min(MAX_STEP_CHECKPOINTS)
            } else {
                0
            },
        };
        Ok((many || many_checkpoints).then_some(goal))
    }

    /// Removes from Redis what is on disk and too much.
    fn trim(&mut self, connection: &mut Connection, live: &mut u64) -> Result<(), ArchiveError> {
        let Some(archive) = &mut self.archive else {
            return Ok(());
        };
        let mut sealed = checkpoints::count(connection)?;
        while let Some(oldest) = archive.kept.pop_front() {
            let many = self.max_records > 0 && *live > self.max_records || sealed > MAX_LIVE_CHECKPOINTS;
            if !many && archive.kept.len() < MAX_KEPT {
                archive.kept.push_front(oldest);
                return Ok(());
            }
            archive.trim(connection, &oldest.lanes, oldest.newest, &mut self.pace)?;
            *live = live.saturating_sub(oldest.records);
            sealed = sealed.saturating_sub(oldest.checkpoints);
        }
        Ok(())
    }

    fn admit(&mut self, live: u64) {
        // Another server may be configured to leave more in Redis.
        let others = self.other.as_ref().map_or(0, |other| other.max_records);
        let bound = match &self.dir {
            Some(_) => {
                let bound = self.max_records.max(others);
                bound.saturating_mul(ARCHIVE_SLACK).max(bound.saturating_add(LEAST_SLACK))
            }
            None => self.max_records,
        };
        let full = self.max_records > 0 && live >= bound;
        if full != std::mem::replace(&mut self.full, full) {
            let max_records = self.max_records;
            match (full, &self.failure) {
                (true, Some(why)) => log::error!(
                    code = "audit_full", records = live;
                    "the audit trail in Redis holds {live} records, gateway.audit.max_records is {max_records}, and it cannot \
                     be archived ({why}): nothing is admitted"
                ),
                (true, None) => log::error!(
                    code = "audit_full", records = live;
                    "the audit trail in Redis holds {live} records, and gateway.audit.max_records is {max_records}: nothing \
                     is admitted"
                ),
                (false, _) => log::warn!(
                    code = "audit_has_room", records = live;
                    "the audit trail has room again: {live} records in Redis"
                ),
            }
        }
        self.shards.shared().board.set_full(full);
    }

    /// Appends to the open segment; `false` where no checkpoint covers anything more.
    fn append(&mut self, connection: &mut Connection, goal: Goal) -> Result<bool, ArchiveError> {
        let Some(history) = self.files.read_history()? else {
            return Ok(false);
        };
        let (Some(archive), Some(this)) = (&mut self.archive, &self.this) else {
            return Ok(false);
        };
        let keys = self.shards.shared().key_ring.keys();
        let open = match &mut archive.open {
            Some(open) => open,
            none => {
                let place = SegmentFile::new(&archive.dir, archive.archived.segment + 1);
                match OpenSegment::open(place, &archive.archived.lanes)? {
                    Recovered::Open(open) => none.insert(*open),
                    Recovered::Closed(entry) => {
                        return Err(ArchiveError::Folder {
                            path: archive.dir.clone(),
                            problem: format!("segment {} is there already", entry.number),
                        });
                    }
                }
            }
        };
        let source = Source {
            connection: &mut *connection,
            history: &history,
            keys: keys.clone(),
            after: archive.archived.newest,
            archived: &archive.archived.lanes,
            goal,
        };
        let Some(appended) = open.append(source, &mut self.pace)? else {
            return Ok(false);
        };
        log::debug!(
            code = "records_archived", count = appended.records;
            "{} records were archived", appended.records
        );
        let news = Archived {
            lanes: appended.lanes.clone(),
            newest: appended.newest,
            segment: open.number(),
            ..Archived::default()
        };
        let most = self.max_records.saturating_mul(SEGMENT_FACTOR).min(SEGMENT_RECORDS);
        let most = if most == 0 { SEGMENT_RECORDS } else { most };
        let is_full = open.is_full(most, Now::read().unix_us);
        let own = &mut archive.archived;
        own.lanes.extend(appended.lanes.iter().map(|(lane, tree)| (lane.clone(), tree.clone())));
        (own.newest, own.segment) = (news.newest, news.segment);
        archive.numbers.push(news.segment);
        // Before anything is removed for it. Where that fails it is noted with everything when this server goes on.
        if !archived::write(connection, &keys, this, &news, &archive.numbers)? {
            self.may_archive = false;
            return Ok(false);
        }
        archive.kept.push_back(appended);
        if is_full {
            self.close()?;
        }
        Ok(true)
    }

    /// Closes the open segment.
    fn close(&mut self) -> Result<(), ArchiveError> {
        let Some(archive) = &mut self.archive else {
            return Ok(());
        };
        let Some(mut open) = archive.open.take() else {
            return Ok(());
        };
        // A failure is one of the disk: the folder is opened anew then, and the segment with it.
        let Some(entry) = open.close()? else {
            return Ok(());
        };
        archive.index.append(&entry)?;
        log::info!(
            code = "segment_closed", path:% = archive.dir.join(&entry.file).display(), records = entry.records;
            "{}: closed with {} records", archive.dir.join(&entry.file).display(), entry.records
        );
        self.shards.record(OperatorEvent {
            action: Action::Archived,
            target: entry.file,
            rule: format!("{} records of {} lanes", entry.records, entry.lanes.len()),
            reason: format!("sha256 {}", entry.sha256),
            pending: None,
        });
        Ok(())
    }
}

fn live_records(connection: &mut Connection) -> Result<u64, StoreError> {
    let lanes = trail::registered(connection)?;
    trail::live_records(connection, &lanes)
}
