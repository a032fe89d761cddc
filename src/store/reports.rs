//! What servers say of themselves for the other ones on the same Redis: one key each, with a tag, that runs out by itself. Redis
//! is a place where others can write: what has no tag that fits is told apart and not used.

use redis::Value;

use super::answers::{self, text};
use super::attested;
use super::connection::{Batch, Connection, StoreError};
use super::keys;
use crate::audit::StoreKeys;
use crate::audit::attest::NotOurs;
use crate::ids::ServerId;

/// How long a report is there, in milliseconds: a server that has none is gone, or does not reach Redis.
pub const REPORT_MS: u64 = 15_000;
/// Longest report, in bytes.
pub const MAX_REPORT_BYTES: usize = 256 * 1024;
/// What stands before it: the tag and a space.
const TAG_CHARS: usize = crate::audit::attest::TAG_BYTES * 2 + 1;
/// Longest text of a verification's result, in bytes.
const MAX_RESULT_BYTES: usize = 4 * 1024;

/// What is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// How the server is.
    Status,
    /// What it has counted.
    Counts,
}

impl Kind {
    fn key(self, server: &ServerId) -> String {
        match self {
            Self::Status => keys::report(server),
            Self::Counts => keys::counts(server),
        }
    }
}

/// A report that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How old it is by Redis' clock, in milliseconds.
    pub age_ms: u64,
    /// What the server says.
    pub text: String,
}

/// Why there is no report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoReport {
    /// There is none.
    #[error("no report for more than {} seconds: it hangs, or does not reach Redis", REPORT_MS / 1000)]
    Missing,
    /// Somebody else has put something there.
    #[error("its report has no tag that fits: somebody else than a server wrote it")]
    NotOurs,
    /// Its tag was made with a store key that is not known here.
    #[error("its report has the tag of a store key that is not known here: copy the store keys to this host")]
    UnknownKey,
}

/// Adds the command that puts a report there; one that is too long is not. `false`: it is too long.
#[must_use]
pub fn publish(
    batch: &mut Batch,
    store_keys: &StoreKeys,
    server: &ServerId,
    kind: Kind,
    report: &str,
) -> bool {
    if report.len() > MAX_REPORT_BYTES {
        return false;
    }
    let key = kind.key(server);
    let tag = attested::report_tag(store_keys, &key, report);
    let _ = batch.command("SET");
    let _ = batch.arg(&key).arg(format!("{tag} {report}")).arg("PX").arg(REPORT_MS);
    true
}

/// Adds the command that keeps a report as it is.
pub fn keep(batch: &mut Batch, server: &ServerId, kind: Kind) {
    let _ = batch.command("PEXPIRE");
    let _ = batch.arg(kind.key(server)).arg(REPORT_MS);
}

/// Reads the reports of these servers, in order.
pub fn read(
    connection: &mut Connection,
    store_keys: &StoreKeys,
    kind: Kind,
    servers: &[ServerId],
) -> Result<Vec<Result<Report, NoReport>>, StoreError> {
    let mut batch = Batch::new();
    for server in servers {
        let key = kind.key(server);
        // Somebody may have put there whatever they like, of any length.
        let _ = batch.command("GETRANGE");
        let _ = batch.arg(&key).arg(0).arg(TAG_CHARS + MAX_REPORT_BYTES);
        let _ = batch.command("PTTL");
        let _ = batch.arg(&key);
    }
    let mut answers = connection.run(&mut batch)?.into_iter();
    let mut next = || answers.next().unwrap_or_default();
    Ok(servers.iter().map(|server| check(store_keys, &kind.key(server), &next(), &next())).collect())
}

fn check(store_keys: &StoreKeys, key: &str, value: &Value, ttl: &Value) -> Result<Report, NoReport> {
    if matches!(value, Value::BulkString(bytes) if bytes.is_empty()) {
        return Err(NoReport::Missing);
    }
    let stored = text(value).ok_or(NoReport::NotOurs)?;
    let (tag, report) = stored.split_once(' ').ok_or(NoReport::NotOurs)?;
    attested::check_report(store_keys, key, report, tag).map_err(|why| match why {
        NotOurs::Foreign => NoReport::NotOurs,
        NotOurs::UnknownKey => NoReport::UnknownKey,
    })?;
    let left_ms = answers::int(ttl).unwrap_or(0);
    Ok(Report { age_ms: REPORT_MS.saturating_sub(left_ms), text: report.to_owned() })
}

/// Notes what a verification of the trail has found, in place of what was noted before.
pub fn note_verified(
    connection: &mut Connection,
    store_keys: &StoreKeys,
    result: &str,
) -> Result<(), StoreError> {
    let tag = attested::report_tag(store_keys, keys::VERIFIED, result);
    connection.command("SET", &[keys::VERIFIED, &format!("{tag} {result}")]).map(drop)
}

/// What the last verification of the trail has found; nothing, where none was noted.
pub fn verified(
    connection: &mut Connection,
    store_keys: &StoreKeys,
) -> Result<Option<Result<String, NoReport>>, StoreError> {
    let most = (TAG_CHARS + MAX_RESULT_BYTES).to_string();
    let mut batch = Batch::new();
    let _ = batch.command("GETRANGE");
    let _ = batch.arg(keys::VERIFIED).arg(0).arg(most);
    let value = connection.run(&mut batch)?.pop().unwrap_or_default();
    Ok(match check(store_keys, keys::VERIFIED, &value, &Value::Nil) {
        Err(NoReport::Missing) => None,
        found => Some(found.map(|report| report.text)),
    })
}
