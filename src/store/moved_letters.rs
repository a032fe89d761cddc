//! Dead letters on their way from Redis to files, and back. A letter that is being moved is held, as an operator holds one that
//! is dealt with, so that nobody puts it back meanwhile.

use redis::Value;

use super::answers::{self, EntryId};
use super::connection::{Batch, Connection, StoreError};
use super::dead_letters::{HOLD_MS, Letter, hold_key};
use super::keys;
use super::trail::unexpected;

/// Entries of the stream of which Redis takes the sizes, to estimate that of all.
const SAMPLES: &str = "5";

/// A letter, field by field, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawLetter {
    /// Its entry.
    pub id: EntryId,
    /// Names and values.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl RawLetter {
    /// The letter.
    pub fn letter(&self) -> Letter {
        let value = |bytes: &Vec<u8>| Value::BulkString(bytes.clone());
        let fields = self.fields.iter().flat_map(|(name, stored)| [value(name), value(stored)]);
        Letter::read(self.id, fields.collect())
    }

    /// Bytes of its fields.
    pub fn bytes(&self) -> usize {
        self.fields.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

/// How many letters Redis holds, and about how many bytes they take.
pub fn size(connection: &mut Connection) -> Result<(u64, u64), StoreError> {
    let count = connection.command("XLEN", &[keys::DEAD_LETTERS])?;
    let count = answers::int(&count).ok_or_else(|| unexpected("XLEN", &count))?;
    let bytes = connection.command("MEMORY", &["USAGE", keys::DEAD_LETTERS, "SAMPLES", SAMPLES])?;
    Ok((count, answers::int(&bytes).unwrap_or(0)))
}

/// The oldest letters behind `after`, at most `most`, as far as nobody else deals with them; and the last that was looked at.
/// Their holds are watched: [`remove`] removes nothing once another one has taken a letter on.
pub fn hold_oldest(
    connection: &mut Connection,
    own: &str,
    after: Option<EntryId>,
    most: usize,
) -> Result<(Vec<RawLetter>, Option<EntryId>), StoreError> {
    let from = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
    let range = [keys::DEAD_LETTERS, &from, "+", "COUNT", &most.to_string()];
    let ids: Vec<EntryId> =
        read(connection.command("XRANGE", &range)?)?.iter().map(|letter| letter.id).collect();
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else {
        return Ok((Vec::new(), None));
    };
    let mut batch = Batch::new();
    for id in &ids {
        let key = hold_key(*id);
        let _ = batch.command("SET");
        let _ = batch.arg(&key).arg(own).arg("NX").arg("PX").arg(HOLD_MS);
        let _ = batch.command("WATCH");
        let _ = batch.arg(&key);
    }
    let holds_at = batch.len();
    for id in &ids {
        let _ = batch.command("GET");
        let _ = batch.arg(hold_key(*id));
    }
    // Read again behind the hold: whoever had a letter before may have dealt with it.
    let _ = batch.command("XRANGE");
    let _ = batch.arg(keys::DEAD_LETTERS).arg(*first).arg(*last);
    let mut answers = connection.run(&mut batch)?;
    let mut letters = read(answers.pop().unwrap_or_default())?;
    let holders = ids.iter().zip(answers.get(holds_at..).unwrap_or_default());
    let held: Vec<EntryId> =
        holders.filter(|(_, holder)| answers::text(holder) == Some(own)).map(|(id, _)| *id).collect();
    letters.retain(|letter| held.contains(&letter.id));
    if letters.is_empty() {
        let _ = connection.command("UNWATCH", &[])?;
    }
    Ok((letters, Some(*last)))
}

/// Removes letters that are held, and gives up the holds. `false`: another one has taken one of them on, and none was removed.
pub fn remove(connection: &mut Connection, ids: &[EntryId]) -> Result<bool, StoreError> {
    let mut batch = Batch::new();
    let _ = batch.command("MULTI");
    for id in ids {
        let _ = batch.command("XDEL");
        let _ = batch.arg(keys::DEAD_LETTERS).arg(*id);
        let _ = batch.command("DEL");
        let _ = batch.arg(hold_key(*id));
    }
    let _ = batch.command("EXEC");
    match connection.run(&mut batch)?.pop() {
        Some(Value::Array(_)) => Ok(true),
        Some(Value::Nil) => Ok(false),
        other => Err(unexpected("EXEC", &other.unwrap_or_default())),
    }
}

/// Adds what brings a letter back, as it was, at the end of the others.
pub fn restore(batch: &mut Batch, letter: &RawLetter) {
    let _ = batch.command("XADD");
    let _ = batch.arg(keys::DEAD_LETTERS).arg("*");
    for (name, value) in &letter.fields {
        let _ = batch.arg(name.as_slice()).arg(value.as_slice());
    }
}

fn read(answer: Value) -> Result<Vec<RawLetter>, StoreError> {
    let Value::Array(items) = answer else {
        return Err(unexpected("XRANGE", &answer));
    };
    items
        .into_iter()
        .map(|item| {
            let (id, values) = answers::entry(item).ok_or_else(|| unexpected("XRANGE", &Value::Nil))?;
            let mut values = values.into_iter().map(|value| match value {
                Value::BulkString(bytes) => bytes,
                other => answers::text(&other).unwrap_or_default().as_bytes().to_vec(),
            });
            let mut fields = Vec::new();
            while let (Some(name), Some(value)) = (values.next(), values.next()) {
                fields.push((name, value));
            }
            Ok(RawLetter { id, fields })
        })
        .collect()
}
