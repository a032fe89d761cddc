//! The records of a trail, one by one.

use std::ops::ControlFlow;

use super::error::ReadError;
use super::source::{Range, Source};
use crate::audit::lane::split_block;
use crate::audit::segment::Item;
use crate::audit::{LaneId, View};

/// Takes a record; it may end the reading.
pub type OnRecord<'a, E> = dyn FnMut(&LaneId, &View<'_>) -> Result<ControlFlow<()>, E> + 'a;

/// Hands out the records of a range, unverified; in no strict order across lanes.
pub fn each_record<E: ReadError>(
    source: &mut Source,
    range: Range<'_>,
    on: &mut OnRecord<'_, E>,
) -> Result<(), E> {
    let mut lane = LaneId::from_stored("");
    let _ = source.read::<E>(range, &mut |item| {
        let Item::Block { lane: name, bytes, .. } = item else {
            return Ok(ControlFlow::Continue(()));
        };
        if lane.as_str() != name.as_ref() {
            lane = LaneId::from_stored(name);
        }
        for record in split_block(bytes).unwrap_or_default().into_iter().filter_map(View::decode) {
            if range.holds(record.time_us) && on(&lane, &record)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(())
}
