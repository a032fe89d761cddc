//! What a start finds in Redis: whether it is what the anchor says it was, and which lanes are there, which
//! the boot's first checkpoint covers.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::audit::OperatorEvent;
use crate::audit::checkpoint::{Checkpoint, LaneHead};
use crate::audit::lane::Head;
use crate::audit::{Action, LaneId};
use crate::store::{Connection, StoreError, trail};

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

/// The lanes that Redis holds and this boot does not write.
pub(super) fn existing(
    connection: &mut Connection,
    boot: Uuid,
) -> Result<BTreeMap<LaneId, Head>, StoreError> {
    let boot = boot.simple().to_string();
    let mut heads = BTreeMap::new();
    for lane in trail::lanes(connection)?.existing {
        if lane.boot() == boot {
            continue;
        }
        let newest = trail::newest_blocks(connection, &lane, 1)?.pop();
        // A lane without records, or with bytes that are none, is for `mas audit verify` to judge.
        let Some((seq, hash)) =
            newest.and_then(|block| Some((block.last_seq()?, block.hash.try_into().ok()?)))
        else {
            continue;
        };
        let _ = heads.insert(lane, Head { seq, hash });
    }
    Ok(heads)
}
