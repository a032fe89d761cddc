//! Signed checkpoints in Redis: one stream, the entry's id made of the checkpoint's time, so that one that
//! was sent twice is stored once.

use redis::Value;

use super::answers::{self, EntryId};
use super::connection::{Batch, Connection, StoreError};
use super::keys;

/// Field of an entry that holds the note.
pub const NOTE_FIELD: &str = "n";

/// What became of a checkpoint that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It is there.
    Yes,
    /// The stream holds later or other entries, which this server did not write.
    Foreign,
    /// Redis did not take it, with what it said.
    Refused(String),
}

/// Stores a checkpoint of that time, and keeps at most about `max_len` of them.
pub fn append(
    connection: &mut Connection,
    time_ms: u64,
    note: &str,
    max_len: Option<u64>,
) -> Result<Stored, StoreError> {
    let id = EntryId { ms: time_ms, seq: 0 };
    let mut batch = Batch::new();
    let _ = batch.command("XADD");
    let _ = batch.arg(keys::CHECKPOINTS);
    if let Some(max_len) = max_len {
        let _ = batch.arg("MAXLEN").arg("~").arg(max_len);
    }
    let _ = batch.arg(id).arg(NOTE_FIELD).arg(note);
    // Whether it was there already: a connection may have broken behind the first attempt.
    let _ = batch.command("XRANGE");
    let _ = batch.arg(keys::CHECKPOINTS).arg(id).arg(id);
    let mut answers = connection.run(&mut batch)?.into_iter();
    let (Some(added), Some(found)) = (answers.next(), answers.next()) else {
        return Err(StoreError::Unexpected { command: "XADD", answer: "nothing".to_owned() });
    };
    let Value::ServerError(error) = &added else {
        return Ok(Stored::Yes);
    };
    let is_there = parse(found).is_ok_and(|notes| notes.iter().any(|(_, stored)| stored == note));
    let later = error.details().is_some_and(|details| details.contains("equal or smaller"));
    Ok(match (is_there, later) {
        (true, _) => Stored::Yes,
        (false, true) => Stored::Foreign,
        (false, false) => Stored::Refused(format!("{error:?}")),
    })
}

/// The newest checkpoint.
pub fn newest(connection: &mut Connection) -> Result<Option<String>, StoreError> {
    let answer = connection.command("XREVRANGE", &[keys::CHECKPOINTS, "+", "-", "COUNT", "1"])?;
    Ok(parse(answer)?.pop().map(|(_, note)| note))
}

/// The next checkpoints after the entry `after`, oldest first; at most `count`.
pub fn after(
    connection: &mut Connection,
    after: Option<EntryId>,
    count: usize,
) -> Result<Vec<(EntryId, String)>, StoreError> {
    let from = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
    let count = count.to_string();
    parse(connection.command("XRANGE", &[keys::CHECKPOINTS, &from, "+", "COUNT", &count])?)
}

/// How many there are.
pub fn count(connection: &mut Connection) -> Result<u64, StoreError> {
    Ok(answers::int(&connection.command("XLEN", &[keys::CHECKPOINTS])?).unwrap_or(0))
}

/// Removes the entry `last` and those before it.
pub fn trim(batch: &mut Batch, last: EntryId) {
    let _ = batch.command("XTRIM");
    let kept_from = EntryId { ms: last.ms, seq: last.seq + 1 };
    let _ = batch.arg(keys::CHECKPOINTS).arg("MINID").arg(kept_from);
}

fn parse(answer: Value) -> Result<Vec<(EntryId, String)>, StoreError> {
    let unexpected = |answer: &Value| StoreError::Unexpected {
        command: "reading checkpoints",
        answer: format!("{answer:?}").chars().take(200).collect(),
    };
    let Value::Array(items) = answer else {
        return Err(unexpected(&answer));
    };
    items
        .into_iter()
        .map(|item| {
            let (id, fields) = answers::entry(item).ok_or_else(|| unexpected(&Value::Nil))?;
            let note = answers::field(fields, NOTE_FIELD).unwrap_or_default();
            // What is no text is no note either; whoever reads it will say so.
            Ok((id, String::from_utf8_lossy(&note).into_owned()))
        })
        .collect()
}
