//! What waits in Redis: every entry of every inbox, and the dead letters. For verification; in memory for a
//! page.

use redis::Value;

use super::answers::{self, EntryId};
use super::connection::{Connection, StoreError};
use super::keys;
use super::trail::{scan, unexpected};

/// Entries read in one step; each may be some megabytes.
const PAGE_ENTRIES: usize = 64;

/// Hands out every entry: its stream, its id, and its envelope where it has one.
pub fn each(
    connection: &mut Connection,
    on: &mut dyn FnMut(&str, EntryId, Option<&str>),
) -> Result<(), StoreError> {
    let mut streams = scan(connection, &format!("{}*", keys::INBOX_PREFIX))?;
    streams.sort();
    streams.dedup();
    streams.push(keys::DEAD_LETTERS.to_owned());
    for stream in &streams {
        let mut from = "-".to_owned();
        loop {
            let args = [stream.as_str(), &from, "+", "COUNT", &PAGE_ENTRIES.to_string()];
            let answer = match connection.command("XRANGE", &args) {
                // Not a stream: nothing of ours waits there.
                Err(StoreError::Unexpected { answer, .. }) if answer.contains("WRONGTYPE") => break,
                answer => answer?,
            };
            let entries = answers::entries(answer).ok_or_else(|| unexpected("XRANGE", &Value::Nil))?;
            let Some(last) = entries.last() else {
                break;
            };
            from = format!("({}", last.id);
            for entry in &entries {
                on(stream, entry.id, entry.envelope.as_deref());
            }
        }
    }
    Ok(())
}
