//! The records of the lanes in Redis, merged by time, in either direction: a page of each lane that is being read in memory.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use crate::audit::lane::{first_record, split_block};
use crate::audit::{LaneId, View};
use crate::store::trail::{self, StoredBlock};
use crate::store::{Connection, StoreError};

/// Most lanes that are read: those of the newest server runs.
pub(super) const MAX_LANES: usize = 4_096;
/// Blocks of a lane's first page; each further one has twice as many …
const FIRST_PAGE: usize = 8;
/// … up to so many.
const LAST_PAGE: usize = 128;
/// A search by time ends when it is this close, in records.
const NEAR: u64 = 512;

/// Where a record stands among those of all lanes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) time_us: u64,
    pub(super) lane: LaneId,
    pub(super) seq: u64,
}

impl Key {
    /// Whether a record is behind this one.
    pub(super) fn is_before(&self, record: &View<'_>, lane: &LaneId) -> bool {
        // Within a lane the sequence counts, whatever the clock did.
        if self.lane == *lane {
            return record.seq > self.seq;
        }
        (self.time_us, &self.lane, self.seq) < (record.time_us, lane, record.seq)
    }
}

/// The records of all lanes in Redis.
pub(super) struct Lanes {
    backward: bool,
    readers: Vec<Reader>,
    /// The next record of each lane that is being read.
    heap: BinaryHeap<Next>,
    /// The oldest record of each lane in Redis.
    pub(super) oldest: BTreeMap<LaneId, Key>,
}

/// The first comes out first.
#[derive(PartialEq, Eq)]
enum Next {
    Forward(Reverse<(u64, usize)>),
    Backward((u64, usize)),
}

impl Next {
    fn at(&self) -> usize {
        match self {
            Self::Forward(Reverse((_, at))) | Self::Backward((_, at)) => *at,
        }
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self, other) {
            (Self::Forward(a), Self::Forward(b)) => a.cmp(b),
            (Self::Backward(a), Self::Backward(b)) => a.cmp(b),
            // One search has one direction.
            _ => std::cmp::Ordering::Equal,
        }
    }
}

/// One lane that is being read.
struct Reader {
    lane: LaneId,
    /// The next record is behind, or before, this one.
    position: u64,
    /// Going forward: where the block begins that was read last.
    block: Option<u64>,
    page: VecDeque<StoredBlock>,
    page_blocks: usize,
    /// The records of the block that is being read, the next one last.
    records: Vec<Vec<u8>>,
}

impl Lanes {
    /// Begins behind `after`, or, going backward, before it; without it at the end that comes first. Going forward, records
    /// up to `known`, of each lane, are left out.
    pub(super) fn open(
        connection: &mut Connection,
        backward: bool,
        after: Option<&Key>,
        known: &BTreeMap<LaneId, u64>,
    ) -> Result<Self, StoreError> {
        let mut lanes = trail::registered(connection)?;
        // Their names begin with the time of their server's run.
        lanes.reverse();
        lanes.truncate(MAX_LANES);
        let bounds = trail::bounds(connection, &lanes)?;
        let mut all =
            Self { backward, readers: Vec::new(), heap: BinaryHeap::new(), oldest: BTreeMap::new() };
        for (lane, bounds) in lanes.into_iter().zip(bounds) {
            let Some((first, last)) = bounds else { continue };
            let (first_us, last_us) = (time_of(&first), last_time_of(&last));
            let oldest = Key { time_us: first_us, lane: lane.clone(), seq: first.first_seq };
            let _ = all.oldest.insert(lane.clone(), oldest);
            let end = last.last_seq().unwrap_or(last.first_seq);
            let position = match after {
                None if backward => end + 1,
                None => 0,
                Some(after) if after.lane == lane => after.seq,
                Some(after) if backward && last_us < after.time_us => end + 1,
                Some(after) if backward && first_us > after.time_us => continue,
                Some(after) if !backward && last_us < after.time_us => continue,
                Some(after) if !backward && first_us > after.time_us => 0,
                // Some of what is read there is on the other side of it, and is left out one by one.
                Some(after) if backward => {
                    seek(connection, &lane, (first.first_seq, end), after.time_us + 1)?.1
                }
                Some(after) => seek(connection, &lane, (first.first_seq, end), after.time_us)?.0,
            };
            let known = if backward { 0 } else { known.get(&lane).copied().unwrap_or(0) };
            all.add(connection, Reader::new(lane, position.max(known)), after)?;
        }
        Ok(all)
    }

    fn add(
        &mut self,
        connection: &mut Connection,
        mut reader: Reader,
        after: Option<&Key>,
    ) -> Result<(), StoreError> {
        loop {
            let Some(key) = reader.peek(connection, self.backward)? else { return Ok(()) };
            let is_past = match after {
                // Within a lane the sequence counts, whatever the clock did.
                Some(after) if after.lane == key.lane => {
                    if self.backward {
                        key.seq < after.seq
                    } else {
                        key.seq > after.seq
                    }
                }
                Some(after) if self.backward => key < *after,
                Some(after) => key > *after,
                None => true,
            };
            if is_past {
                self.heap.push(self.next_of(key.time_us, self.readers.len()));
                self.readers.push(reader);
                return Ok(());
            }
            drop(reader.records.pop());
        }
    }

    fn next_of(&self, time_us: u64, at: usize) -> Next {
        if self.backward { Next::Backward((time_us, at)) } else { Next::Forward(Reverse((time_us, at))) }
    }

    /// The next record; `None` at the end.
    pub(super) fn next(
        &mut self,
        connection: &mut Connection,
    ) -> Result<Option<(LaneId, Vec<u8>)>, StoreError> {
        let Some(at) = self.heap.pop().map(|next| next.at()) else { return Ok(None) };
        let Some(reader) = self.readers.get_mut(at) else { return Ok(None) };
        let record = reader.records.pop().unwrap_or_default();
        let lane = reader.lane.clone();
        if let Some(key) = reader.peek(connection, self.backward)? {
            let next = self.next_of(key.time_us, at);
            self.heap.push(next);
        }
        Ok(Some((lane, record)))
    }
}

impl Reader {
    fn new(lane: LaneId, position: u64) -> Self {
        Self {
            lane,
            position,
            block: None,
            page: VecDeque::new(),
            page_blocks: FIRST_PAGE,
            records: Vec::new(),
        }
    }

    /// The next record's place; reads on where needed.
    fn peek(&mut self, connection: &mut Connection, backward: bool) -> Result<Option<Key>, StoreError> {
        loop {
            if let Some(record) = self.records.last() {
                if let Some(view) = View::decode(record) {
                    return Ok(Some(Key { time_us: view.time_us, lane: self.lane.clone(), seq: view.seq }));
                }
                // Bytes of somebody else: `mas audit verify` names them.
                drop(self.records.pop());
                continue;
            }
            if self.page.is_empty() {
                self.fill(connection, backward)?;
            }
            let Some(block) = self.page.pop_front() else { return Ok(None) };
            let (first, position) = (block.first_seq, self.position);
            let records = split_block(&block.bytes).unwrap_or_default();
            let numbered = (first..).zip(records);
            let wanted = numbered.filter(|(seq, _)| if backward { *seq < position } else { *seq > position });
            let mut records: Vec<(u64, Vec<u8>)> =
                wanted.map(|(seq, record)| (seq, record.to_vec())).collect();
            self.position = match backward {
                true => first,
                false => records.last().map_or(position.max(first), |(seq, _)| *seq),
            };
            if !backward {
                records.reverse();
            }
            self.records = records.into_iter().map(|(_, record)| record).collect();
        }
    }

    fn fill(&mut self, connection: &mut Connection, backward: bool) -> Result<(), StoreError> {
        let count = self.page_blocks;
        self.page_blocks = (count * 2).min(LAST_PAGE);
        if backward {
            if self.position > 1 {
                self.page = trail::blocks_before(connection, &self.lane, self.position, count)?.into();
            }
            return Ok(());
        }
        let mut blocks = Vec::new();
        let behind = match self.block {
            Some(block) => block,
            // The block that holds the record may go on behind it.
            None => match trail::block_at(connection, &self.lane, self.position)? {
                Some(block) => {
                    let first = block.first_seq;
                    blocks.push(block);
                    first
                }
                None => 0,
            },
        };
        blocks.extend(trail::blocks_behind(connection, &self.lane, behind, count)?);
        self.block = blocks.last().map(|block| block.first_seq).or(self.block);
        self.page = blocks.into();
        Ok(())
    }
}

/// Two records of a lane, not far from each other: what is before the first one is of before this time, and the second one, and
/// what is behind it, is not.
fn seek(
    connection: &mut Connection,
    lane: &LaneId,
    (first, last): (u64, u64),
    time_us: u64,
) -> Result<(u64, u64), StoreError> {
    let (mut low, mut high) = (first.saturating_sub(1), last + 1);
    while high - low > NEAR {
        let middle = low + (high - low) / 2;
        match trail::block_at(connection, lane, middle)? {
            Some(block) if block.first_seq > low && time_of(&block) < time_us => low = block.first_seq,
            Some(block) if block.first_seq > low => high = block.first_seq,
            // One block reaches over all of that.
            _ => break,
        }
    }
    Ok((low, high))
}

/// Time of a block's first record; 0 where it is no block.
fn time_of(block: &StoredBlock) -> u64 {
    first_record(&block.bytes).and_then(View::time_of).unwrap_or(0)
}

fn last_time_of(block: &StoredBlock) -> u64 {
    let records = split_block(&block.bytes).unwrap_or_default();
    records.last().and_then(|record| View::time_of(record)).unwrap_or(0)
}
