//! The lanes of operators' commands, found while the server runs: the next checkpoint covers them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use uuid::Uuid;

use crate::audit::lane::{Head, first_record};
use crate::audit::{Action, LaneId, StoreKeys, View};
use crate::clock::Now;
use crate::store::{Connection, Endpoint, StoreError, trail};

use super::start::end_of;

/// Lanes that are looked at with one checkpoint.
const MAX_LOOKED_AT: usize = 64;
/// Lanes that may wait for a look, and names of lanes that are remembered; of further ones the next start takes care.
const MAX_OPEN: usize = 1024;
const MAX_KNOWN: usize = 100_000;
/// Looks after which the registry is read although it has as many lanes as before.
const LOOKS: u32 = 10;
/// Longest round trip: a checkpoint must not wait long for a Redis that hangs.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(1);
/// How long a lane whose command has not ended it may be silent, in milliseconds: the command was killed.
const SILENT_MS: u64 = 600_000;

/// Lanes that this server does not write, and may have to cover.
pub(super) struct Hands {
    endpoint: Endpoint,
    connection: Option<Connection>,
    /// The run of this server, as its lanes begin: their heads are on the board.
    boot: String,
    /// Lanes in the registry when it was read last, and looks since.
    registered: u64,
    looks: u32,
    known: HashSet<LaneId>,
    open: BTreeMap<LaneId, Seen>,
    /// The lane that was looked at last: the others come first.
    last: Option<LaneId>,
    /// Lanes that have ended, not handed out yet.
    ended: Vec<(LaneId, Head)>,
}

/// A lane that may grow yet.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    seq: u64,
    since_ms: u64,
}

impl Hands {
    /// `known`: the lanes that the start has seen; of these, `open` may grow yet.
    pub(super) fn new(
        endpoint: &Endpoint,
        boot: Uuid,
        known: HashSet<LaneId>,
        open: BTreeSet<LaneId>,
        now: Now,
    ) -> Self {
        let seen = Seen { seq: 0, since_ms: now.mono_ms };
        Self {
            endpoint: endpoint.within(MAX_ROUND_TRIP),
            connection: None,
            boot: boot.simple().to_string(),
            registered: 0,
            looks: 0,
            last: None,
            ended: Vec::new(),
            known,
            open: open.into_iter().map(|lane| (lane, seen)).collect(),
        }
    }

    /// The lanes that have ended since the last look, and where. Redis may be away: they are found later.
    pub(super) fn look(&mut self, keys: &StoreKeys, now: Now) -> Vec<(LaneId, Head)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match self.endpoint.open() {
                Ok(connection) => connection,
                Err(_) => return Vec::new(),
            },
        };
        match self.read(&mut connection, keys, now) {
            Ok(ended) => {
                self.connection = Some(connection);
                ended
            }
            Err(error) => {
                log::debug!(
                    code = "operators_lanes_unread";
                    "operators' lanes could not be looked at: {error}"
                );
                Vec::new()
            }
        }
    }

    fn read(
        &mut self,
        connection: &mut Connection,
        keys: &StoreKeys,
        now: Now,
    ) -> Result<Vec<(LaneId, Head)>, StoreError> {
        let registered = trail::registered_count(connection)?;
        self.looks += 1;
        if registered != self.registered || self.looks >= LOOKS {
            for lane in trail::operators_lanes(connection)? {
                let has_room = self.known.len() < MAX_KNOWN && self.open.len() < MAX_OPEN;
                if lane.boot() != self.boot && has_room && self.known.insert(lane.clone()) {
                    let _ = self.open.insert(lane, Seen { seq: 0, since_ms: now.mono_ms });
                }
            }
            (self.registered, self.looks) = (registered, 0);
        }
        for lane in self.next_lanes() {
            self.last = Some(lane.clone());
            let end = match end_of(connection, keys, &lane) {
                Ok(end) => end,
                // Something else is under that key.
                Err(StoreError::Unexpected { .. }) => {
                    let _ = self.open.remove(&lane);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let seq = end.head.map_or(0, |head| head.seq);
            let seen = self.open.entry(lane.clone()).or_default();
            if seq > seen.seq {
                *seen = Seen { seq, since_ms: now.mono_ms };
            }
            if !end.closed && now.mono_ms < seen.since_ms + SILENT_MS {
                continue;
            }
            // Whatever the registry says: the lane itself must begin as a command's does.
            if let Some(head) = end.head
                && is_operators(connection, keys, &lane)?
            {
                self.ended.push((lane.clone(), head));
            }
            let _ = self.open.remove(&lane);
        }
        Ok(std::mem::take(&mut self.ended))
    }

    /// The lanes that are looked at now: those behind the last one, then from the first one on.
    fn next_lanes(&self) -> Vec<LaneId> {
        let from = |lane: &&LaneId| self.last.as_ref().is_none_or(|last| *lane > last);
        let (behind, before): (Vec<&LaneId>, Vec<&LaneId>) = self.open.keys().partition(from);
        behind.into_iter().chain(before).take(MAX_LOOKED_AT).cloned().collect()
    }
}

/// Whether an operator's command, or the first start, has written a lane, as its first record says.
pub(super) fn is_operators(
    connection: &mut Connection,
    keys: &StoreKeys,
    lane: &LaneId,
) -> Result<bool, StoreError> {
    let oldest = trail::oldest_block(connection, lane)?.filter(|block| block.check(keys, lane).is_ok());
    let first = oldest.as_ref().and_then(|block| View::decode(first_record(&block.bytes)?));
    Ok(first.is_some_and(|first| {
        first.action == Action::LaneOpened && matches!(first.reason, "operator" | "takeover")
    }))
}
