//! A record, and the path from it to a signed checkpoint.

use std::ops::ControlFlow;

use uuid::Uuid;

use super::chain::made_after_us;
use super::error::HistoryError;
use super::records::each_record;
use super::source::{Range, Source};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::lane::split_block;
use crate::audit::merkle::{ProofBuilder, leaf_hash};
use crate::audit::note;
use crate::audit::proof::Proof;
use crate::audit::segment::{Attested, Item};
use crate::audit::{Action, LaneId};

/// Where the decision on a message stands.
pub fn find(source: &mut Source, id: Uuid) -> Result<Option<(LaneId, u64)>, HistoryError> {
    let mut found = None;
    let range = Range { from_us: made_after_us(id), to_us: None, messages: &[*id.as_bytes()], whole: false };
    each_record::<HistoryError>(source, range, &mut |lane, record| {
        let decides = matches!(record.action, Action::Send | Action::Request | Action::Reply);
        if decides && record.message_id == Some(id) {
            found = Some((lane.clone(), record.seq));
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

/// The first checkpoint over the record, and how many records of its lane it covers.
pub fn covering(
    source: &mut Source,
    lane: &LaneId,
    sequence: u64,
) -> Result<Option<(u64, String)>, HistoryError> {
    let mut found = None;
    let _ = source.read::<HistoryError>(Range::ALL, &mut |item| {
        let Item::Checkpoint { note } = item else {
            return Ok(ControlFlow::Continue(()));
        };
        let checkpoint = note::text_of(note).ok().and_then(|text| Checkpoint::parse(text).ok());
        let head = checkpoint.as_ref().and_then(|checkpoint| checkpoint.lane(lane));
        match head.filter(|head| head.head.seq >= sequence) {
            Some(head) => {
                found = Some((head.head.seq, note.clone().into_owned()));
                Ok(ControlFlow::Break(()))
            }
            None => Ok(ControlFlow::Continue(())),
        }
    })?;
    Ok(found)
}

/// Reads the lane up to `size` and puts the proof together, in memory for one path.
pub fn build(
    source: &mut Source,
    lane: &LaneId,
    sequence: u64,
    size: u64,
    note: &str,
) -> Result<Option<Proof>, HistoryError> {
    let Some(mut builder) = sequence.checked_sub(1).and_then(|index| ProofBuilder::new(index, size)) else {
        return Err(HistoryError::Asked(format!("--sequence {sequence}: expected 1 to {size}")));
    };
    let (mut next, mut record) = (1, None);
    let _ = source.read::<HistoryError>(Range::ALL, &mut |item| {
        let Item::Block { lane: name, first, bytes, attested, .. } = item else {
            return Ok(ControlFlow::Continue(()));
        };
        if name.as_ref() != lane.as_str() {
            return Ok(ControlFlow::Continue(()));
        }
        if *attested == Attested::Foreign && *first <= sequence {
            return Err(HistoryError::Asked(format!(
                "no server's key vouches for record {sequence} of lane {lane}: it was taken over, or put there by \
                 somebody else"
            )));
        }
        if *first != next {
            return Ok(ControlFlow::Break(()));
        }
        for part in split_block(bytes).unwrap_or_default() {
            if next == sequence {
                record = Some(part.to_vec());
            }
            if next <= size {
                builder.push(leaf_hash(part));
            }
            next += 1;
        }
        Ok(if next > size { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(record
        .zip(builder.finish())
        .map(|(record, path)| Proof::new(lane, sequence, &record, size, &path, note)))
}
