//! One record by its place, and its proof, in bounded work: for whoever asks while a server runs. `proving` reads as much as it
//! takes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::error::HistoryError;
use crate::archive::{Look, Page, Pages, Place, Turned};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::lane::split_block;
use crate::audit::merkle::{Frontier, ProofBuilder, leaf_hash};
use crate::audit::proof::Proof;
use crate::audit::{LaneId, StoreKeys, View, note};
use crate::store::answers::EntryId;
use crate::store::{Connection, archived, checkpoints, trail};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Records of a lane that are hashed for one proof.
pub const MAX_HASHED: u64 = 2_000_000;
/// Checkpoints in Redis that are looked at for one.
const MAX_CHECKPOINTS: usize = 20_000;
/// Checkpoints read in one step.
const PAGE_CHECKPOINTS: usize = 64;
/// Blocks read in one step.
const PAGE_BLOCKS: usize = 256;
/// A checkpoint of a record is looked for from so long before it on, in milliseconds: a server's clock and Redis' may differ.
const CLOCK_SLACK_MS: u64 = 600_000;

/// What there is of a proof.
#[derive(Debug)]
pub enum Found {
    /// The proof.
    Proof(Box<Proof>),
    /// There is no such record.
    NoRecord,
    /// No checkpoint covers it.
    NotSealed,
    /// It takes more than is done here: `mas audit proof` makes it.
    TooMuch,
}

/// A record's bytes, and the page of the archive that has it, where it was found there.
pub type Located = (Vec<u8>, Option<Page>);

/// Looks a record up by its place.
pub fn record_at(
    connection: &mut Connection,
    folders: &[PathBuf],
    lane: &LaneId,
    seq: u64,
) -> Result<Option<Located>, HistoryError> {
    let mut pages = Pages::open(folders)?;
    find(connection, &mut pages, lane, seq, Instant::now() + PATIENCE)
}

fn find(
    connection: &mut Connection,
    pages: &mut Pages,
    lane: &LaneId,
    seq: u64,
    give_up: Instant,
) -> Result<Option<Located>, HistoryError> {
    if let Some(block) = trail::block_at(connection, lane, seq)?
        && let Some(record) = nth(&block.bytes, block.first_seq, seq)
    {
        return Ok(Some((record, None)));
    }
    let Turned::Page(page) = pages.turn(false, None, Look::Lane(lane.as_str(), seq), give_up)? else {
        return Ok(None);
    };
    let record = records(&page, lane).find(|(number, _)| *number == seq).map(|(_, record)| record.to_vec());
    Ok(record.map(|record| (record, Some(page))))
}

fn nth(block: &[u8], first: u64, seq: u64) -> Option<Vec<u8>> {
    let at = usize::try_from(seq.checked_sub(first)?).ok()?;
    split_block(block)?.get(at).map(|record| record.to_vec())
}

/// The records of a lane in a page, each with its number.
fn records<'a>(page: &'a Page, lane: &'a LaneId) -> impl Iterator<Item = (u64, &'a [u8])> {
    let blocks = page.blocks.iter().filter(move |(name, _)| name == lane);
    let records = blocks.flat_map(|(_, bytes)| split_block(bytes).unwrap_or_default());
    records.filter_map(|record| Some((View::decode(record)?.seq, record)))
}

/// Puts the proof of a record together.
pub fn prove(
    connection: &mut Connection,
    keys: &StoreKeys,
    folders: &[PathBuf],
    lane: &LaneId,
    seq: u64,
) -> Result<Found, HistoryError> {
    let give_up = Instant::now() + PATIENCE;
    let mut pages = Pages::open(folders)?;
    let Some((record, page)) = find(connection, &mut pages, lane, seq, give_up)? else {
        return Ok(Found::NoRecord);
    };
    let time_ms = View::time_of(&record).unwrap_or(0) / 1000;
    let from = page.map(|page| page.from);
    // The first one over it: the fewer records it covers, the fewer are hashed.
    let covering = match covering_in_archive(&mut pages, lane, seq, from, give_up)? {
        Some(covering) => Some(covering),
        None => covering_in_redis(connection, lane, seq, time_ms)?,
    };
    let Some((size, checkpoint)) = covering else { return Ok(Found::NotSealed) };
    let before = tree_before(connection, keys, &pages, lane, seq)?;
    let index = seq.saturating_sub(1);
    let Some(mut builder) = ProofBuilder::new(index, size) else { return Ok(Found::NoRecord) };
    if size.saturating_sub(before.size()) > MAX_HASHED || !builder.begin_behind(&before, index) {
        return Ok(Found::TooMuch);
    }
    let leaves = Leaves { lane, next: before.size() + 1, size, builder: &mut builder, give_up };
    if !leaves.push_all(connection, &mut pages)? {
        return Ok(Found::TooMuch);
    }
    let Some(path) = builder.finish() else { return Ok(Found::TooMuch) };
    Ok(Found::Proof(Box::new(Proof::new(lane, seq, &record, size, &path, &checkpoint))))
}

/// How many records of a lane a checkpoint covers, where that is the one looked for.
fn covers(note: &str, lane: &LaneId, seq: u64) -> Option<u64> {
    // Most do not name it, and need not be taken apart.
    if !note.contains(lane.as_str()) {
        return None;
    }
    let checkpoint = Checkpoint::parse(note::text_of(note).ok()?).ok()?;
    checkpoint.lane(lane).map(|listed| listed.head.seq).filter(|size| *size >= seq)
}

fn covering_in_redis(
    connection: &mut Connection,
    lane: &LaneId,
    seq: u64,
    time_ms: u64,
) -> Result<Option<(u64, String)>, HistoryError> {
    let begin = EntryId { ms: time_ms.saturating_sub(CLOCK_SLACK_MS), seq: 0 };
    // First near its time, then all: a clock may have been wrong.
    for from in [Some(begin), None] {
        let (mut after, mut looked_at) = (from, 0);
        while looked_at < MAX_CHECKPOINTS {
            let page = checkpoints::after(connection, after, PAGE_CHECKPOINTS)?;
            let Some((last, _)) = page.last() else { break };
            (after, looked_at) = (Some(*last), looked_at + page.len());
            if let Some(found) =
                page.into_iter().find_map(|(_, note)| Some((covers(&note, lane, seq)?, note)))
            {
                return Ok(Some(found));
            }
        }
    }
    Ok(None)
}

fn covering_in_archive(
    pages: &mut Pages,
    lane: &LaneId,
    seq: u64,
    from: Option<Place>,
    give_up: Instant,
) -> Result<Option<(u64, String)>, HistoryError> {
    // It stands behind the record.
    let Some(mut at) = from else { return Ok(None) };
    while let Turned::Page(page) = pages.turn(false, Some(at), Look::All, give_up)? {
        at = page.to;
        if let Some(found) = page.notes.into_iter().find_map(|note| Some((covers(&note, lane, seq)?, note))) {
            return Ok(Some(found));
        }
        if Instant::now() >= give_up {
            break;
        }
    }
    Ok(None)
}

/// The largest tree of the lane that is known before the record: nobody's word is taken for it, for the proof is checked.
fn tree_before(
    connection: &mut Connection,
    keys: &StoreKeys,
    pages: &Pages,
    lane: &LaneId,
    seq: u64,
) -> Result<Frontier, HistoryError> {
    let of_files = pages.tree_before(lane, seq)?;
    let noted = archived::of(connection, keys, &[lane])?.remove(lane).filter(|tree| tree.size() < seq);
    Ok(noted.filter(|noted| noted.size() > of_files.size()).unwrap_or(of_files))
}

/// The leaves of a lane, from one of them to the last that a checkpoint covers.
struct Leaves<'a> {
    lane: &'a LaneId,
    next: u64,
    size: u64,
    builder: &'a mut ProofBuilder,
    give_up: Instant,
}

impl Leaves<'_> {
    /// Hands them to the builder; `false`: some are not there, or it took too long.
    fn push_all(mut self, connection: &mut Connection, pages: &mut Pages) -> Result<bool, HistoryError> {
        let oldest = trail::oldest_block(connection, self.lane)?.map(|block| block.first_seq);
        if oldest.is_none_or(|oldest| oldest > self.next) {
            let mut at = None;
            while self.next <= self.size {
                let look = Look::Lane(self.lane.as_str(), self.next);
                let Turned::Page(page) = pages.turn(false, at, look, self.give_up)? else { break };
                at = Some(page.to);
                for (seq, record) in records(&page, self.lane) {
                    self.push(seq, record);
                }
                if Instant::now() >= self.give_up {
                    return Ok(false);
                }
            }
        }
        let mut behind = match trail::block_at(connection, self.lane, self.next)? {
            Some(block) => block.first_seq.saturating_sub(1),
            None => return Ok(self.next > self.size),
        };
        while self.next <= self.size {
            let blocks = trail::blocks_behind(connection, self.lane, behind, PAGE_BLOCKS)?;
            let Some(last) = blocks.last().map(|block| block.first_seq) else { break };
            for block in &blocks {
                let records = split_block(&block.bytes).unwrap_or_default();
                (block.first_seq..).zip(records).for_each(|(seq, record)| self.push(seq, record));
            }
            behind = last;
            if Instant::now() >= self.give_up {
                return Ok(false);
            }
        }
        Ok(self.next > self.size)
    }

    fn push(&mut self, seq: u64, record: &[u8]) {
        if seq == self.next && seq <= self.size {
            self.builder.push(leaf_hash(record));
            self.next += 1;
        }
    }
}
