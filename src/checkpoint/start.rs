//! What a start finds in Redis: whether it is what the anchor says it was, and which lanes are there, which
//! the boot's first checkpoint covers.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use uuid::Uuid;

use crate::audit::OperatorEvent;
use crate::audit::checkpoint::{Checkpoint, LaneHead};
use crate::audit::lane::{Head, split_block};
use crate::audit::{Action, LaneId, StoreKeys, View};
use crate::store::trail::StoredBlock;
use crate::store::{Connection, StoreError, trail};

/// Blocks at a lane's end that are looked through for the last one that a server wrote.
const MAX_FOREIGN_BLOCKS: usize = 1024;

/// What the newest checkpoint of the anchor says, and Redis does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    lane: LaneId,
    /// Records that the anchor knows of.
    anchored: u64,
    found: Found,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Nothing,
    /// So many records.
    Fewer(u64),
    /// As many, and another root over them.
    Other,
}

impl Missing {
    /// For the log and for the record.
    pub(super) fn event(&self) -> OperatorEvent {
        let found = match self.found {
            Found::Nothing => "none".to_owned(),
            Found::Fewer(records) => format!("{records}"),
            Found::Other => "as many, with another root".to_owned(),
        };
        OperatorEvent {
            action: Action::TrailDiffers,
            target: self.lane.to_string(),
            rule: format!("records anchored: {}, in Redis: {found}", self.anchored),
            reason: "trail_rolled_back".to_owned(),
            pending: None,
        }
    }
}

/// The lanes of the newest checkpoint that Redis does not hold as they were; `archived` are those whose
/// records left it in order, each with the last that did.
pub(super) fn compare(
    connection: &mut Connection,
    newest: &Checkpoint,
    archived: &BTreeMap<LaneId, u64>,
) -> Result<Vec<Missing>, StoreError> {
    let mut missing = Vec::new();
    for LaneHead { lane, head } in &newest.lanes {
        if head.seq == 0 || archived.get(lane).is_some_and(|last| *last >= head.seq) {
            continue;
        }
        let block = trail::block_at(connection, lane, head.seq)?;
        // Heads are taken between transactions: the block ends where the checkpoint says.
        let found = match block.as_ref().map(|block| (block.last_seq(), &block.hash)) {
            None => Found::Nothing,
            Some((Some(last), _)) if last < head.seq => Found::Fewer(last),
            Some((Some(last), hash)) if last == head.seq && *hash == head.hash => continue,
            Some(_) => Found::Other,
        };
        missing.push(Missing { lane: lane.clone(), anchored: head.seq, found });
    }
    Ok(missing)
}

/// Where a lane ends, as far as servers and operators' commands have written it.
#[derive(Debug, Default)]
pub(super) struct End {
    /// The last block that has a tag; `None`: there is none.
    pub head: Option<Head>,
    /// Blocks behind the head that somebody else has put there, or that an earlier version wrote.
    pub foreign: usize,
    /// Whether its writer has ended it.
    pub closed: bool,
}

/// Where a lane ends.
pub(super) fn end_of(
    connection: &mut Connection,
    keys: &StoreKeys,
    lane: &LaneId,
) -> Result<End, StoreError> {
    let mut end = End::default();
    let mut count = 1;
    loop {
        let blocks = trail::newest_blocks(connection, lane, count)?;
        end.foreign = blocks.iter().take_while(|block| block.check(keys, lane).is_err()).count();
        if let Some(block) = blocks.get(end.foreign) {
            end.head = head_of(block);
            end.closed = is_closed(&block.bytes);
            return Ok(end);
        }
        // None of these: perhaps one before them.
        if blocks.len() < count || count >= MAX_FOREIGN_BLOCKS {
            return Ok(end);
        }
        count = MAX_FOREIGN_BLOCKS;
    }
}

/// Where a block ends. Bytes that are none are for `mas audit verify` to judge.
fn head_of(block: &StoredBlock) -> Option<Head> {
    Some(Head { seq: block.last_seq()?, hash: block.hash.as_slice().try_into().ok()? })
}

fn is_closed(block: &[u8]) -> bool {
    let records = split_block(block).unwrap_or_default();
    records.last().and_then(|bytes| View::decode(bytes)).is_some_and(|last| last.action == Action::LaneClosed)
}

/// The lanes that Redis holds and this boot does not write.
#[derive(Debug, Default)]
pub(super) struct Existing {
    /// All of them.
    pub all: HashSet<LaneId>,
    /// As far as servers and operators' commands have written them.
    pub heads: BTreeMap<LaneId, Head>,
    /// Those that may grow yet.
    pub open: BTreeSet<LaneId>,
    /// Those with blocks that have no tag, and how many at their end.
    pub foreign: BTreeMap<LaneId, usize>,
}

/// The lanes that Redis holds and this boot does not write.
pub(super) fn existing(
    connection: &mut Connection,
    keys: &StoreKeys,
    boot: Uuid,
) -> Result<Existing, StoreError> {
    let boot = boot.simple().to_string();
    let taken_over = trail::taken_over(connection, keys)?;
    let mut found = Existing::default();
    for lane in trail::lanes(connection)?.existing {
        if lane.boot() == boot {
            continue;
        }
        if let Some(head) = taken_over.get(&lane)
            && let Ok(blocks) = trail::newest_blocks(connection, &lane, 1)
            && blocks.first().and_then(head_of).as_ref() == Some(head)
        {
            // Of before the log's beginning, as it was then.
            let _ = found.all.insert(lane);
            continue;
        }
        let end = match end_of(connection, keys, &lane) {
            Ok(end) => end,
            // Something else is under that key.
            Err(StoreError::Unexpected { .. }) => End { foreign: 1, ..End::default() },
            Err(error) => return Err(error),
        };
        if end.foreign > 0 {
            let _ = found.foreign.insert(lane.clone(), end.foreign);
        }
        if !end.closed {
            let _ = found.open.insert(lane.clone());
        }
        let _ = found.all.insert(lane.clone());
        if let Some(head) = end.head {
            let _ = found.heads.insert(lane, head);
        }
    }
    Ok(found)
}

/// What the record says of blocks that have no tag.
pub(super) fn foreign_event(lane: &LaneId, blocks: usize) -> OperatorEvent {
    OperatorEvent {
        action: Action::TrailDiffers,
        target: lane.to_string(),
        rule: format!(
            "blocks at its end without a server's tag: {blocks}{}",
            if blocks < MAX_FOREIGN_BLOCKS { "" } else { " or more" }
        ),
        reason: "not_written_by_a_server".to_owned(),
        pending: None,
    }
}
