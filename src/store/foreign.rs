//! What somebody else has put into Redis: put aside with its bytes, looked through and removed by operators.

use redis::Value;
use sha2::{Digest, Sha256};

use super::answers::{self, EntryId, text};
use super::attested::Foreign;
use super::connection::{Batch, Connection, StoreError};
use super::keys;

/// Things that are kept; the oldest beyond them are trimmed.
pub const MAX_FOREIGN: u64 = 10_000;
/// Bytes and parts of one thing that are kept; of a longer one only its digest.
const MAX_BYTES: usize = 4 * 1024 * 1024;
const MAX_PARTS: usize = 4096;
/// Things read in one step.
const PAGE: usize = 16;

/// Something that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutAside {
    /// Its entry.
    pub id: EntryId,
    /// Where it was found.
    pub key: String,
    /// Which entry it was there; empty where it was none.
    pub entry: String,
    /// When it was put aside (Unix milliseconds).
    pub time_ms: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub digest: String,
    /// Its fields, names and values in turn; of a string its value alone; none where they were too long.
    pub bytes: Vec<Vec<u8>>,
}

impl Foreign {
    /// SHA-256 of its bytes, each part behind its length.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in &self.bytes {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }
}

/// Adds the arguments of the XADD that puts something aside. Its command was started by the caller.
pub fn arguments(batch: &mut Batch, foreign: &Foreign, time_ms: u64) {
    let entry = foreign.entry.map(|entry| entry.to_text()).unwrap_or_default();
    let _ = batch.arg(keys::FOREIGN).arg("MAXLEN").arg("~").arg(MAX_FOREIGN).arg("*");
    let _ = batch.arg("key").arg(&foreign.key).arg("entry").arg(entry).arg("time_ms").arg(time_ms);
    let _ = batch.arg("digest").arg(crate::ids::hex(&foreign.digest()));
    let bytes: usize = foreign.bytes.iter().map(Vec::len).sum();
    if bytes <= MAX_BYTES && foreign.bytes.len() <= MAX_PARTS {
        for bytes in &foreign.bytes {
            let _ = batch.arg("bytes").arg(bytes.as_slice());
        }
    }
}

/// The next things behind `after`, oldest first; none: there are no more.
pub fn list(connection: &mut Connection, after: Option<EntryId>) -> Result<Vec<PutAside>, StoreError> {
    let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
    let answer = connection.command("XRANGE", &[keys::FOREIGN, &from, "+", "COUNT", &PAGE.to_string()])?;
    parse(answer)
}

/// One of them.
pub fn one(connection: &mut Connection, id: EntryId) -> Result<Option<PutAside>, StoreError> {
    let id = id.to_string();
    Ok(parse(connection.command("XRANGE", &[keys::FOREIGN, &id, &id])?)?.pop())
}

/// Adds what removes one of them for good.
pub fn remove(batch: &mut Batch, id: EntryId) {
    let _ = batch.command("XDEL");
    let _ = batch.arg(keys::FOREIGN).arg(id);
}

fn parse(answer: Value) -> Result<Vec<PutAside>, StoreError> {
    let unexpected = || StoreError::Unexpected { command: "XRANGE", answer: "no list of entries".to_owned() };
    let items = match answer {
        Value::Array(items) => items,
        Value::ServerError(error) => {
            return Err(StoreError::Unexpected { command: "XRANGE", answer: format!("{error:?}") });
        }
        _ => return Err(unexpected()),
    };
    let read = |item: Value| answers::entry(item).map(|(id, fields)| read(id, fields)).ok_or_else(unexpected);
    items.into_iter().map(read).collect()
}

fn read(id: EntryId, fields: Vec<Value>) -> PutAside {
    let mut found = PutAside {
        id,
        key: String::new(),
        entry: String::new(),
        time_ms: id.ms,
        digest: String::new(),
        bytes: Vec::new(),
    };
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        let owned = |value: &Value| text(value).unwrap_or_default().to_owned();
        match text(&name) {
            Some("key") => found.key = owned(&value),
            Some("entry") => found.entry = owned(&value),
            Some("digest") => found.digest = owned(&value),
            Some("time_ms") => found.time_ms = answers::int(&value).unwrap_or(id.ms),
            Some("bytes") => {
                if let Value::BulkString(bytes) = value {
                    found.bytes.push(bytes);
                }
            }
            _ => {}
        }
    }
    found
}
