//! Signed checkpoints in Redis: one stream, for all servers on it.

use std::collections::HashSet;

use redis::Value;
use uuid::Uuid;

use super::answers::{self, EntryId};
use super::connection::{Batch, Connection, StoreError};
use super::keys;

/// Field of an entry that holds the note.
pub const NOTE_FIELD: &str = "n";
/// How many of the newest are looked at for one that may be there.
const RECENT: &str = "256";
const RECENT_COUNT: usize = 256;
/// How many are looked through for one at most.
const LOOK_BACK: usize = 64 * RECENT_COUNT;

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Newest {
    /// The note.
    Found(String),
    /// There is none.
    None,
    /// None among those that were looked at.
    TooFarBack,
}

/// How long a run's turn is remembered after its last checkpoint.
const TURN_MS: u64 = 3_600_000;

/// Takes the turn of writing the checkpoints of run `boot`: what another connection of it may still have
/// on its way comes too late once this one has written. Before the first [`append`] of a connection.
pub fn take_turn(connection: &mut Connection, boot: Uuid) -> Result<(), StoreError> {
    connection.command("WATCH", &[&turn(boot)]).map(drop)
}

/// Stores a checkpoint of a turn, and keeps at most about `max_len` of them; its id. `None`: another connection
/// has written since the turn was taken, which begins anew.
pub fn append(
    connection: &mut Connection,
    boot: Uuid,
    note: &str,
    max_len: Option<u64>,
) -> Result<Option<EntryId>, StoreError> {
    let mut batch = Batch::new();
    let _ = batch.command("MULTI");
    let _ = batch.command("XADD");
    let _ = batch.arg(keys::CHECKPOINTS);
    if let Some(max_len) = max_len {
        let _ = batch.arg("MAXLEN").arg("~").arg(max_len);
    }
    let _ = batch.arg("*").arg(NOTE_FIELD).arg(note);
    let _ = batch.command("SET");
    let _ = batch.arg(turn(boot)).arg("taken").arg("PX").arg(TURN_MS);
    let exec_at = batch.command("EXEC");
    let _ = batch.command("WATCH");
    let _ = batch.arg(turn(boot));
    match connection.run(&mut batch)?.get(exec_at) {
        Some(Value::Array(done)) if done.iter().all(|answer| answers::error_code(answer).is_none()) => {
            Ok(done.first().and_then(answers::text).and_then(EntryId::parse))
        }
        Some(Value::Nil) => Ok(None),
        other => {
            Err(StoreError::Unexpected { command: "storing a checkpoint", answer: format!("{other:?}") })
        }
    }
}

/// The run writes no more.
pub fn leave_turn(connection: &mut Connection, boot: Uuid) -> Result<(), StoreError> {
    connection.command("DEL", &[&turn(boot)]).map(drop)
}

fn turn(boot: Uuid) -> String {
    keys::checkpoint_turn(&boot.simple().to_string())
}

/// The newest checkpoint.
pub fn newest(connection: &mut Connection) -> Result<Option<String>, StoreError> {
    let answer = connection.command("XREVRANGE", &[keys::CHECKPOINTS, "+", "-", "COUNT", "1"])?;
    Ok(parse(answer)?.pop().map(|(_, note)| note))
}

/// The newest checkpoints, of all servers.
pub fn recent(connection: &mut Connection) -> Result<HashSet<String>, StoreError> {
    let answer = connection.command("XREVRANGE", &[keys::CHECKPOINTS, "+", "-", "COUNT", RECENT])?;
    Ok(parse(answer)?.into_iter().map(|(_, note)| note).collect())
}

/// The id of a checkpoint among the newest.
pub fn id_of(connection: &mut Connection, note: &str) -> Result<Option<EntryId>, StoreError> {
    let answer = connection.command("XREVRANGE", &[keys::CHECKPOINTS, "+", "-", "COUNT", RECENT])?;
    Ok(parse(answer)?.into_iter().find(|(_, found)| found == note).map(|(id, _)| id))
}

/// The newest checkpoints, newest first.
pub fn newest_page(connection: &mut Connection, count: usize) -> Result<Vec<String>, StoreError> {
    let args = [keys::CHECKPOINTS, "+", "-", "COUNT", &count.to_string()];
    let page = parse(connection.command("XREVRANGE", &args)?)?;
    Ok(page.into_iter().map(|(_, note)| note).collect())
}

/// The newest checkpoint that `is_it` holds for, among the newest 16,384.
pub fn newest_where(connection: &mut Connection, is_it: impl Fn(&str) -> bool) -> Result<Newest, StoreError> {
    let mut to = "+".to_owned();
    for _ in 0..LOOK_BACK / RECENT_COUNT {
        let answer = connection.command("XREVRANGE", &[keys::CHECKPOINTS, &to, "-", "COUNT", RECENT])?;
        let page = parse(answer)?;
        let Some((last, _)) = page.last() else {
            return Ok(Newest::None);
        };
        to = format!("({last}");
        if let Some((_, note)) = page.into_iter().find(|(_, note)| is_it(note)) {
            return Ok(Newest::Found(note));
        }
    }
    Ok(Newest::TooFarBack)
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
