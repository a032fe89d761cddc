//! What waits in Redis: every entry of every inbox, and the dead letters. For verification; in memory for a
//! page.

use redis::Value;

use super::answers::{self, WholeEntry};
use super::connection::{Connection, StoreError};
use super::older::{self, Place};
use super::trail::unexpected;

/// Entries read in one step; each may be some megabytes.
const PAGE_ENTRIES: usize = 64;

/// Hands out every entry, with where it is.
pub fn each(connection: &mut Connection, on: &mut dyn FnMut(&Place, &WholeEntry)) -> Result<(), StoreError> {
    for place in older::streams(connection)? {
        let mut from = "-".to_owned();
        loop {
            let args = [place.stream.as_str(), &from, "+", "COUNT", &PAGE_ENTRIES.to_string()];
            let answer = connection.command("XRANGE", &args)?;
            let entries = answers::whole_entries(answer).ok_or_else(|| unexpected("XRANGE", &Value::Nil))?;
            let Some(last) = entries.last() else {
                break;
            };
            from = format!("({}", last.entry.id);
            entries.iter().for_each(|entry| on(&place, entry));
        }
    }
    Ok(())
}
