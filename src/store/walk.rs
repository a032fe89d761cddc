//! Reads the whole trail out of Redis, once, in the order in which it is verified: blocks by time, each
//! checkpoint behind the blocks that it covers. In memory for a page of each lane that is being read.
//!
//! The end is where the trail ended when the walk began, so that it ends although servers go on writing.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::ControlFlow;

use redis::Value;

use super::answers::{self, EntryId};
use super::checkpoints::NOTE_FIELD;
use super::connection::{Batch, Connection, StoreError};
use super::keys;
use super::trail::{self, PAGE_BLOCKS, StoredBlock, parse_blocks, unexpected};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::lane;
use crate::audit::merkle::Frontier;
use crate::audit::note;
use crate::audit::record::View;
use crate::audit::segment::{Attested, Item};
use crate::audit::{LaneId, StoreKeys};

/// Checkpoints read in one step: each may list thousands of lanes.
const PAGE_NOTES: usize = 64;
/// Lanes asked for their ends in one step.
const PAGE_LANES: usize = 256;
/// A search by time stops when it is this close, in records.
const SEEK_RECORDS: u64 = 2048;

/// What a walk leaves out.
#[derive(Debug, Default)]
pub struct Start {
    /// Records at the beginning of lanes that are known already.
    pub known: HashMap<LaneId, u64>,
    /// How far lanes were archived elsewhere: they begin there, where less is known.
    pub archived: BTreeMap<LaneId, Frontier>,
    /// The last checkpoint that is known already.
    pub last_note: Option<String>,
    /// Blocks of before this time may be left out, in Unix microseconds: for readers that do not verify.
    pub seek_us: Option<u64>,
    /// Blocks that begin at or after this time are left out, in Unix microseconds.
    pub to_us: Option<u64>,
    /// For a look at each block's tag.
    pub keys: Option<StoreKeys>,
}

/// How a walk went.
#[derive(Debug, Default)]
pub struct Ends {
    /// Records of each lane that were handed out or known.
    pub lanes: HashMap<LaneId, u64>,
}

/// One lane's place.
struct Cursor {
    lane: LaneId,
    registered: Option<String>,
    /// The last block when the walk began.
    last: EntryId,
    /// The block that was read last; before the first one, what is to be left out.
    position: EntryId,
    /// Records that were handed out or known.
    size: u64,
    /// Time of the next block, Unix microseconds.
    next_us: u64,
    page: VecDeque<StoredBlock>,
    state: State,
    announced: bool,
    /// The tree before its first block.
    before: Frontier,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was read yet.
    Waiting,
    /// Being read.
    Active,
    /// Read to its end.
    Done,
}

/// A walk that is prepared: it knows where it will end.
pub struct Walk<'a> {
    connection: &'a mut Connection,
    cursors: Vec<Cursor>,
    by_lane: BTreeMap<LaneId, usize>,
    /// Those that are being read.
    active: Vec<usize>,
    /// Those of which nothing was read yet, by the time of their first block.
    waiting: VecDeque<usize>,
    newest_note: Option<EntryId>,
    start: Start,
}

impl<'a> Walk<'a> {
    /// Takes note of where the trail ends now.
    pub fn new(connection: &'a mut Connection, start: Start) -> Result<Self, StoreError> {
        // First the checkpoints: whatever they cover is in the lanes by now.
        let newest_note = newest_note(connection)?;
        let lanes = trail::lanes(connection)?;
        let mut walk = Self {
            connection,
            cursors: Vec::new(),
            by_lane: BTreeMap::new(),
            active: Vec::new(),
            waiting: VecDeque::new(),
            newest_note,
            start,
        };
        let mut registered = lanes.registered;
        walk.add_archived(&lanes.existing);
        for page in lanes.existing.chunks(PAGE_LANES) {
            walk.add_lanes(page, &mut registered)?;
        }
        for (lane, description) in registered {
            walk.add(Cursor {
                lane,
                registered: Some(description),
                last: EntryId::ZERO,
                position: EntryId::ZERO,
                size: 0,
                next_us: 0,
                page: VecDeque::new(),
                state: State::Done,
                announced: false,
                before: Frontier::default(),
            });
        }
        let mut waiting: Vec<(u64, &LaneId, usize)> = walk
            .cursors
            .iter()
            .enumerate()
            .filter(|(_, cursor)| cursor.state == State::Waiting)
            .map(|(at, cursor)| (cursor.next_us, &cursor.lane, at))
            .collect();
        waiting.sort();
        walk.waiting = waiting.into_iter().map(|(_, _, at)| at).collect();
        Ok(walk)
    }

    fn add(&mut self, cursor: Cursor) {
        let _ = self.by_lane.insert(cursor.lane.clone(), self.cursors.len());
        self.cursors.push(cursor);
    }

    /// Lanes that have ended, and left Redis as a whole.
    fn add_archived(&mut self, existing: &[LaneId]) {
        let is_gone = |lane: &LaneId| existing.binary_search(lane).is_err();
        let gone: Vec<LaneId> = self.start.archived.keys().filter(|lane| is_gone(lane)).cloned().collect();
        for lane in gone {
            let (size, before) = self.known(&lane);
            if before.size() > 0 {
                self.add(Cursor {
                    lane,
                    registered: Some(String::new()),
                    last: EntryId::ZERO,
                    position: EntryId::ZERO,
                    size,
                    next_us: 0,
                    page: VecDeque::new(),
                    state: State::Done,
                    announced: false,
                    before,
                });
            }
        }
    }

    /// Records of a lane that are to be left out, and its tree behind them where it begins there.
    fn known(&self, lane: &LaneId) -> (u64, Frontier) {
        let known = self.start.known.get(lane).copied().unwrap_or(0);
        match self.start.archived.get(lane).filter(|tree| tree.size() > known) {
            Some(tree) => (tree.size(), tree.clone()),
            None => (known, Frontier::default()),
        }
    }

    fn add_lanes(
        &mut self,
        lanes: &[LaneId],
        registered: &mut BTreeMap<LaneId, String>,
    ) -> Result<(), StoreError> {
        let mut batch = Batch::new();
        for lane in lanes {
            let key = keys::lane(lane);
            let (known, _) = self.known(lane);
            let _ = batch.command("XRANGE");
            let _ = batch.arg(&key).arg(format!("({known}-0")).arg("+").arg("COUNT").arg(1);
            let _ = batch.command("XREVRANGE");
            let _ = batch.arg(&key).arg("+").arg("-").arg("COUNT").arg(1);
        }
        let mut answers = self.connection.run(&mut batch)?.into_iter();
        for lane in lanes {
            let first = parse_blocks(answers.next().unwrap_or(Value::Nil))?.pop();
            let last = parse_blocks(answers.next().unwrap_or(Value::Nil))?.pop();
            let (known, before) = self.known(lane);
            let mut cursor = Cursor {
                lane: lane.clone(),
                registered: registered.remove(lane),
                last: last.map_or(EntryId::ZERO, |block| block.id),
                position: EntryId { ms: known, seq: 0 },
                size: known,
                next_us: first.as_ref().map_or(0, time_of),
                page: VecDeque::new(),
                state: if first.is_some() { State::Waiting } else { State::Done },
                announced: false,
                before,
            };
            if let (Some(seek_us), Some(_)) = (self.start.seek_us, first) {
                seek(self.connection, &mut cursor, seek_us)?;
            }
            self.add(cursor);
        }
        Ok(())
    }

    /// Hands out everything. `on` may end the walk.
    pub fn run<E: From<StoreError>>(
        mut self,
        on: &mut dyn FnMut(&Item<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<Ends, E> {
        if self.notes(on)?.is_continue() && self.pull(None, on)?.is_continue() {
            for at in 0..self.cursors.len() {
                if self.announce(at, on)?.is_break() {
                    break;
                }
            }
        }
        let ends = self.cursors.into_iter().map(|cursor| (cursor.lane, cursor.size)).collect();
        Ok(Ends { lanes: ends })
    }

    /// All checkpoints, each behind what it covers.
    fn notes<E: From<StoreError>>(
        &mut self,
        on: &mut dyn FnMut(&Item<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let Some(newest) = self.newest_note else {
            return Ok(ControlFlow::Continue(()));
        };
        let mut from = match self.start.last_note.take() {
            Some(note) => self.behind(&note, newest)?,
            None => "-".to_owned(),
        };
        loop {
            let notes = notes(self.connection, &from, newest)?;
            let Some((last, _)) = notes.last() else {
                return Ok(ControlFlow::Continue(()));
            };
            from = format!("({last}");
            for (_, note) in &notes {
                if let Some(checkpoint) = unverified(note) {
                    let past = self.start.to_us.is_some_and(|to_us| checkpoint.time_ms * 1000 >= to_us);
                    if past {
                        return Ok(ControlFlow::Continue(()));
                    }
                    if self.pull(Some(&checkpoint), on)?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                }
                if on(&Item::Checkpoint { note: note.into() })?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
    }

    /// Where the checkpoints behind `known` begin; where it is not there, at the first.
    fn behind(&mut self, known: &str, newest: EntryId) -> Result<String, StoreError> {
        let mut from = "-".to_owned();
        loop {
            let page = notes(self.connection, &from, newest)?;
            if let Some((id, _)) = page.iter().find(|(_, note)| note == known) {
                return Ok(format!("({id}"));
            }
            match page.last() {
                Some((last, _)) => from = format!("({last}"),
                None => return Ok("-".to_owned()),
            }
        }
    }

    /// Hands out what the checkpoint covers, and what other lanes have of before it, by time; without one,
    /// everything that is left.
    fn pull<E: From<StoreError>>(
        &mut self,
        checkpoint: Option<&Checkpoint>,
        on: &mut dyn FnMut(&Item<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let limit_us = checkpoint.map_or(u64::MAX, |checkpoint| checkpoint.time_ms.saturating_mul(1000));
        for head in checkpoint.map_or(&[][..], |checkpoint| &checkpoint.lanes) {
            if let Some(at) = self.by_lane.get(&head.lane).copied() {
                self.activate(at);
            }
        }
        loop {
            let mut best: Option<(u64, usize)> = None;
            for at in &self.active {
                let Some(cursor) = self.cursors.get(*at) else {
                    continue;
                };
                if best.is_some_and(|(time_us, _)| time_us <= cursor.next_us) {
                    continue;
                }
                let due = match checkpoint.and_then(|checkpoint| checkpoint.lane(&cursor.lane)) {
                    Some(head) => cursor.size < head.head.seq,
                    None => cursor.next_us < limit_us,
                };
                if due {
                    best = Some((cursor.next_us, *at));
                }
            }
            // A lane of which nothing was read takes part from its time on.
            let from_us = best.map_or(limit_us, |(time_us, _)| time_us.min(limit_us));
            if let Some(at) = self.waiting.front().copied()
                && self.cursors.get(at).is_none_or(|c| c.state != State::Waiting || c.next_us < from_us)
            {
                let _ = self.waiting.pop_front();
                self.activate(at);
                continue;
            }
            let Some((_, at)) = best else {
                return Ok(ControlFlow::Continue(()));
            };
            if self.push(at, on)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
    }

    fn activate(&mut self, at: usize) {
        if let Some(cursor) = self.cursors.get_mut(at)
            && cursor.state == State::Waiting
        {
            cursor.state = State::Active;
            self.active.push(at);
        }
    }

    /// Hands out the lane's next block.
    fn push<E: From<StoreError>>(
        &mut self,
        at: usize,
        on: &mut dyn FnMut(&Item<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        self.fill(at)?;
        let to_us = self.start.to_us;
        let Some(cursor) = self.cursors.get_mut(at) else {
            return Ok(ControlFlow::Continue(()));
        };
        let block = cursor.page.pop_front();
        let Some(block) = block.filter(|block| to_us.is_none_or(|to_us| time_of(block) < to_us)) else {
            self.close(at);
            return Ok(ControlFlow::Continue(()));
        };
        if self.announce(at, on)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        let Some(cursor) = self.cursors.get_mut(at) else {
            return Ok(ControlFlow::Continue(()));
        };
        let attested = match &self.start.keys {
            Some(keys) => block.check(keys, &cursor.lane).into(),
            None => Attested::NotLooked,
        };
        let flow = on(&Item::Block {
            attested,
            lane: cursor.lane.as_str().into(),
            first: block.first_seq,
            bytes: (&block.bytes).into(),
            root: (&block.hash).into(),
        })?;
        cursor.position = block.id;
        cursor.size = cursor.size.max(block.first_seq.saturating_add(count(&block.bytes)).saturating_sub(1));
        if flow.is_break() {
            return Ok(flow);
        }
        self.fill(at)?;
        match self.cursors.get_mut(at).map(|cursor| (cursor.page.front().map(time_of), cursor)) {
            Some((Some(next_us), cursor)) => cursor.next_us = next_us,
            Some((None, _)) | None => self.close(at),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn close(&mut self, at: usize) {
        if let Some(cursor) = self.cursors.get_mut(at) {
            cursor.state = State::Done;
            cursor.page = VecDeque::new();
        }
        self.active.retain(|active| *active != at);
    }

    /// Reads the lane's next page, if the last one is used up.
    fn fill(&mut self, at: usize) -> Result<(), StoreError> {
        let Some(cursor) = self.cursors.get_mut(at).filter(|cursor| cursor.page.is_empty()) else {
            return Ok(());
        };
        if cursor.position >= cursor.last {
            return Ok(());
        }
        let key = keys::lane(&cursor.lane);
        let (from, to) = (format!("({}", cursor.position), cursor.last.to_string());
        let answer =
            self.connection.command("XRANGE", &[&key, &from, &to, "COUNT", &PAGE_BLOCKS.to_string()])?;
        cursor.page = parse_blocks(answer)?.into();
        Ok(())
    }

    fn announce<E>(
        &mut self,
        at: usize,
        on: &mut dyn FnMut(&Item<'_>) -> Result<ControlFlow<()>, E>,
    ) -> Result<ControlFlow<()>, E> {
        let Some(cursor) = self.cursors.get_mut(at).filter(|cursor| !cursor.announced) else {
            return Ok(ControlFlow::Continue(()));
        };
        cursor.announced = true;
        on(&Item::Lane {
            lane: cursor.lane.as_str().into(),
            registered: cursor.registered.as_deref().map(Into::into),
            before: std::mem::take(&mut cursor.before),
        })
    }
}

/// Finds a block near the first one of `time_us`, at or before it.
fn seek(connection: &mut Connection, cursor: &mut Cursor, time_us: u64) -> Result<(), StoreError> {
    let key = keys::lane(&cursor.lane);
    let (mut low, mut high) = (cursor.position, cursor.last.ms);
    while high.saturating_sub(low.ms) > SEEK_RECORDS {
        let middle = low.ms + (high - low.ms) / 2;
        let answer = connection.command("XRANGE", &[&key, &format!("{middle}-0"), "+", "COUNT", "1"])?;
        match parse_blocks(answer)?.pop() {
            Some(block) if time_of(&block) < time_us && block.id > low => {
                // The block itself is not needed: one that is read later begins before `time_us`, too, unless
                // this is the last such one.
                low = block.id;
            }
            _ => high = middle,
        }
    }
    let answer = connection.command("XREVRANGE", &[&key, &low.to_string(), "-", "COUNT", "2"])?;
    // One block back: its later records may be of this time.
    cursor.position = match parse_blocks(answer)?.pop() {
        Some(block) if block.id < low && low != cursor.position => block.id,
        _ => cursor.position,
    };
    Ok(())
}

fn newest_note(connection: &mut Connection) -> Result<Option<EntryId>, StoreError> {
    let answer = connection.command("XREVRANGE", &[keys::CHECKPOINTS, "+", "-", "COUNT", "1"])?;
    match answer {
        Value::Array(mut entries) => match entries.pop() {
            None => Ok(None),
            Some(entry) => {
                let (id, _) = answers::entry(entry).ok_or_else(|| unexpected("XREVRANGE", &Value::Nil))?;
                Ok(Some(id))
            }
        },
        other => Err(unexpected("XREVRANGE", &other)),
    }
}

/// The next page of checkpoints. An entry without a note is handed on as an empty one: the reader says
/// that it is none.
fn notes(connection: &mut Connection, from: &str, to: EntryId) -> Result<Vec<(EntryId, String)>, StoreError> {
    let args = [keys::CHECKPOINTS, from, &to.to_string(), "COUNT", &PAGE_NOTES.to_string()];
    let answer = connection.command("XRANGE", &args)?;
    let Value::Array(entries) = answer else {
        return Err(unexpected("XRANGE", &answer));
    };
    entries
        .into_iter()
        .map(|entry| {
            let (id, fields) = answers::entry(entry).ok_or_else(|| unexpected("XRANGE", &Value::Nil))?;
            let note = answers::field(fields, NOTE_FIELD).unwrap_or_default();
            Ok((id, String::from_utf8(note).unwrap_or_default()))
        })
        .collect()
}

/// The checkpoint in a note, whoever signed it: only the order of reading depends on it.
fn unverified(note: &str) -> Option<Checkpoint> {
    Checkpoint::parse(note::text_of(note).ok()?).ok()
}

/// Time of a block's first record; 0 where it is no block.
fn time_of(block: &StoredBlock) -> u64 {
    lane::first_record(&block.bytes).and_then(View::time_of).unwrap_or(0)
}

/// Records in a block, as far as its lengths add up; at least one.
fn count(bytes: &[u8]) -> u64 {
    let (mut rest, mut count) = (bytes, 0);
    while let Some((length, behind)) = rest.split_first_chunk::<4>()
        && let Some(next) = behind.get(u32::from_be_bytes(*length) as usize..)
    {
        (rest, count) = (next, count + 1);
    }
    count.max(1)
}
