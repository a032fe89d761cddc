//! What is meant by what somebody types: a message, a request by its correlation id, or a record by its receipt.

use std::ops::ControlFlow;

use serde_json::Value as Json;
use uuid::Uuid;

use super::text::record_line;
use super::trouble::Trouble;
use crate::audit::json::record_json;
use crate::history::chain::made_after_us;
use crate::history::records::each_record;
use crate::history::source::{Range, Source};

/// An id as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// Of a message, or of a request and its reply.
    Id(Uuid),
    /// A record: its lane, and its place there.
    Receipt(String, u64),
}

/// What it is.
pub(super) enum Meant {
    /// This message.
    Message(Uuid),
    /// A record that is about no message: as text, and as JSON.
    Record(String, Json),
    /// Nothing that is on record.
    Nothing,
}

impl Subject {
    /// Reads it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if let Some((lane, seq)) = text.rsplit_once(':')
            && !lane.is_empty()
        {
            return match seq.parse() {
                Ok(seq) if seq > 0 => Ok(Self::Receipt(lane.to_owned(), seq)),
                _ => Err("expected LANE:SEQ, as receipts have it, with SEQ from 1".to_owned()),
            };
        }
        Uuid::parse_str(text).map(Self::Id).map_err(|_| {
            "expected the id of a message, a correlation id, or a receipt as LANE:SEQ".to_owned()
        })
    }

    /// Looks it up.
    pub(super) fn look_up(&self, source: &mut Source) -> Result<Meant, Trouble> {
        match self {
            Self::Id(id) if is_message(source, *id)? => Ok(Meant::Message(*id)),
            Self::Id(id) => request(source, *id),
            Self::Receipt(lane, seq) => record(source, lane, *seq),
        }
    }
}

/// Whether anything is on record of a message with that id.
fn is_message(source: &mut Source, id: Uuid) -> Result<bool, Trouble> {
    let messages = [*id.as_bytes()];
    let range = Range { from_us: made_after_us(id), to_us: None, messages: &messages, whole: false };
    let mut found = false;
    each_record::<Trouble>(source, range, &mut |_, record| {
        found = record.message_id == Some(id);
        Ok(if found { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(found)
}

/// The first message with that correlation id: the request.
fn request(source: &mut Source, id: Uuid) -> Result<Meant, Trouble> {
    let mut first: Option<(u64, Uuid)> = None;
    let messages = [*id.as_bytes()];
    let range = Range { from_us: None, to_us: None, messages: &messages, whole: false };
    each_record::<Trouble>(source, range, &mut |_, record| {
        if record.correlation_id == Some(id.as_bytes())
            && let Some(message_id) = record.message_id
            && first.is_none_or(|(time_us, _)| record.time_us < time_us)
        {
            first = Some((record.time_us, message_id));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(first.map_or(Meant::Nothing, |(_, message_id)| Meant::Message(message_id)))
}

fn record(source: &mut Source, lane: &str, seq: u64) -> Result<Meant, Trouble> {
    let mut found = Meant::Nothing;
    each_record::<Trouble>(source, Range::ALL, &mut |name, record| {
        if record.seq != seq || name.as_str() != lane {
            return Ok(ControlFlow::Continue(()));
        }
        found = match record.message_id {
            Some(message_id) => Meant::Message(message_id),
            None => Meant::Record(record_line(record), record_json(name, record)),
        };
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_kinds_of_ids_are_told_apart() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_eq!(Subject::parse(id), Ok(Subject::Id(Uuid::parse_str(id).unwrap())));
        assert_eq!(Subject::parse(&id.replace('-', "")), Subject::parse(id));
        assert_eq!(Subject::parse("x-w0-c1:7"), Ok(Subject::Receipt("x-w0-c1".to_owned(), 7)));
        for bad in ["", "x", ":7", "x:", "x:0", "x:-1", "x:y"] {
            assert!(Subject::parse(bad).is_err(), "{bad:?}");
        }
    }
}
