//! What the other servers on this Redis commit: their lanes, read as they grow. Only blocks with a server's tag.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recent::PATIENCE;
use super::sources::Sources;
use crate::audit::LaneId;
use crate::store::trail::StoredBlock;
use crate::store::{Connection, StoreError, trail, trail_ends};

/// How often it is asked whether lanes have grown.
const LOOK: Duration = Duration::from_millis(250);
/// How often it is asked which lanes there are.
const LIST: Duration = Duration::from_secs(2);
/// Lanes that are read.
const MAX_LANES: usize = 256;
/// Blocks of a lane in one step.
const STEP: usize = 32;
/// Blocks that wait for a reader: what is more is left out and counted.
const MAX_WAITING: usize = 1_024;

/// The other servers' records from now on.
pub(super) struct Others {
    sources: Arc<Sources>,
    connection: Option<Connection>,
    /// The block of each lane that was read last, by its first record.
    lanes: BTreeMap<LaneId, u64>,
    /// When they were listed; `None`: never.
    listed: Option<Instant>,
    looked: Instant,
    waiting: VecDeque<(LaneId, Vec<u8>)>,
    missed: u64,
}

impl Others {
    pub(super) fn new(sources: Arc<Sources>) -> Self {
        Self {
            sources,
            connection: None,
            lanes: BTreeMap::new(),
            listed: None,
            looked: Instant::now(),
            waiting: VecDeque::new(),
            missed: 0,
        }
    }

    /// The next block; asks Redis now and then.
    pub(super) fn next(&mut self, now: Instant) -> Option<(LaneId, Vec<u8>)> {
        let is_due = self.listed.is_none() || now.saturating_duration_since(self.looked) >= LOOK;
        if is_due && self.waiting.is_empty() && self.sources.away().is_none() {
            self.looked = now;
            if let Err(error) = self.look(now) {
                // A connection that lay idle may be broken; the next look makes another one.
                log::debug!(code = "fleet_unread"; "the other servers' records are not read: {error}");
                self.connection = None;
            }
        }
        self.waiting.pop_front()
    }

    /// Blocks that were left out.
    pub(super) fn take_missed(&mut self) -> u64 {
        std::mem::take(&mut self.missed)
    }

    fn look(&mut self, now: Instant) -> Result<(), StoreError> {
        let shared = self.sources.shards.shared();
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => shared.redis.within(PATIENCE).open()?,
        };
        if self.listed.is_none_or(|listed| now.saturating_duration_since(listed) >= LIST) {
            let is_first = self.listed.is_none();
            let own = shared.server.as_str();
            let ends = trail_ends::read(&mut connection)?.lanes;
            let others = ends.into_iter().filter(|end| end.server.as_deref() != Some(own)).take(MAX_LANES);
            let before = std::mem::take(&mut self.lanes);
            for end in others {
                // A lane that has begun since is read from its beginning.
                let from = if is_first { end.last } else { end.first.saturating_sub(1) };
                let from = before.get(&end.lane).copied().unwrap_or(from);
                let _ = self.lanes.insert(end.lane, from);
            }
            self.listed = Some(now);
        }
        let asked: Vec<(LaneId, u64)> = self.lanes.iter().map(|(lane, last)| (lane.clone(), *last)).collect();
        let found = trail::blocks_behind_each(&mut connection, &asked, STEP)?;
        let keys = shared.key_ring.keys();
        for ((lane, _), blocks) in asked.into_iter().zip(found) {
            if let Some(last) = blocks.last()
                && let Some(position) = self.lanes.get_mut(&lane)
            {
                *position = last.first_seq.max(*position);
            }
            for StoredBlock { bytes, .. } in
                blocks.into_iter().filter(|block| block.check(&keys, &lane).is_ok())
            {
                if self.waiting.len() < MAX_WAITING {
                    self.waiting.push_back((lane.clone(), bytes));
                } else {
                    self.missed += 1;
                }
            }
        }
        self.connection = Some(connection);
        Ok(())
    }
}
