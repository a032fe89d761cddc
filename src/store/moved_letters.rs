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

/// Letters that are held at once, at most …
pub const HELD_LETTERS: u64 = 256;
/// … and their bytes, but for one letter.
pub const HELD_BYTES: u64 = 8 * 1024 * 1024;
/// Longest letter that is moved: more than a server writes.
pub const MAX_LETTER_BYTES: u64 = 16 * 1024 * 1024;

/// Ids and bytes of letters, without the letters.
const SIZES: &str = "local sizes = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])) do
    local bytes = 0
    for _, part in ipairs(entry[2]) do bytes = bytes + #part end
    sizes[#sizes + 1] = entry[1]
    sizes[#sizes + 1] = bytes
end
return sizes";

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

/// Letters that this server holds.
#[derive(Debug)]
pub struct Held {
    /// At most [`HELD_LETTERS`] and [`HELD_BYTES`], but for one; none above [`MAX_LETTER_BYTES`]: these stay in Redis.
    pub letters: Vec<RawLetter>,
    /// The last letter that was looked at; `None`: there was none.
    pub last: Option<EntryId>,
}

/// The oldest letters behind `after`, at most `most`, as far as nobody else deals with them. Their holds are watched:
/// [`remove`] removes nothing once another one has taken one of them on.
pub fn hold_oldest(
    connection: &mut Connection,
    own: &str,
    after: Option<EntryId>,
    most: u64,
) -> Result<Held, StoreError> {
    let from = after.map_or_else(|| "-".to_owned(), |id| format!("({id}"));
    let most = most.min(HELD_LETTERS).to_string();
    let sizes = connection.command("EVAL", &[SIZES, "1", keys::DEAD_LETTERS, &from, &most])?;
    let Value::Array(sizes) = sizes else {
        return Err(unexpected("EVAL", &sizes));
    };
    let (mut chosen, mut bytes, mut last) = (Vec::new(), 0, None);
    let (pairs, _) = sizes.as_chunks::<2>();
    for [id, size] in pairs {
        let id = answers::text(id).and_then(EntryId::parse).ok_or_else(|| unexpected("EVAL", id))?;
        let size = answers::int(size).unwrap_or(u64::MAX);
        if size <= MAX_LETTER_BYTES {
            if !chosen.is_empty() && bytes + size > HELD_BYTES {
                break;
            }
            bytes += size;
            chosen.push(id);
        }
        last = Some(id);
    }
    let ids = take_holds(connection, own, &chosen)?;
    if ids.is_empty() {
        return Ok(Held { letters: Vec::new(), last });
    }
    let mut batch = Batch::new();
    let _ = batch.command("WATCH");
    for id in &ids {
        let _ = batch.arg(hold_key(*id));
    }
    for id in &ids {
        let _ = batch.command("GET");
        let _ = batch.arg(hold_key(*id));
    }
    // Behind the hold: whoever had a letter before may have dealt with it. One by one: those between them may be of any length.
    for id in &ids {
        let _ = batch.command("XRANGE");
        let _ = batch.arg(keys::DEAD_LETTERS).arg(*id).arg(*id);
    }
    let mut answers = connection.run(&mut batch)?.into_iter().skip(1);
    let holders: Vec<Value> = answers.by_ref().take(ids.len()).collect();
    let mut letters = Vec::new();
    for (holder, letter) in holders.iter().zip(answers) {
        if answers::text(holder) == Some(own) {
            letters.extend(read(letter)?);
        }
    }
    if letters.is_empty() {
        let _ = connection.command("UNWATCH", &[])?;
    }
    Ok(Held { letters, last })
}

/// Takes the holds of these letters, as far as they are free, or this server's already; of which.
fn take_holds(connection: &mut Connection, own: &str, ids: &[EntryId]) -> Result<Vec<EntryId>, StoreError> {
    let mut batch = Batch::new();
    for id in ids {
        let key = hold_key(*id);
        let _ = batch.command("SET");
        let _ = batch.arg(&key).arg(own).arg("NX").arg("PX").arg(HOLD_MS);
        let _ = batch.command("GET");
        let _ = batch.arg(&key);
    }
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    let answers = connection.run(&mut batch)?;
    let (pairs, _) = answers.as_chunks::<2>();
    let mut taken = Vec::new();
    for (id, [set, holder]) in ids.iter().zip(pairs) {
        if answers::error_code(set).is_some() {
            return Err(unexpected("SET", set));
        }
        if answers::text(holder) == Some(own) {
            taken.push(*id);
        }
    }
    Ok(taken)
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
        Some(Value::Array(done)) => match done.iter().find(|one| answers::error_code(one).is_some()) {
            Some(error) => Err(unexpected("XDEL", error)),
            None => Ok(true),
        },
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
