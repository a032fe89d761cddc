//! Where the lanes in Redis begin and end, for an operator.

use redis::Value;

use super::answers;
use super::connection::{Connection, StoreError};
use super::keys;
use super::trail::{bounds, unexpected};
use crate::audit::LaneId;

/// Most lanes: those of the newest runs.
const MAX_LANES: usize = 1_000;

/// The lanes in Redis.
#[derive(Debug, Default)]
pub struct Ends {
    /// The newest runs first.
    pub lanes: Vec<End>,
    /// Whether there are more.
    pub cut: bool,
}

/// One lane.
#[derive(Debug)]
pub struct End {
    /// Which.
    pub lane: LaneId,
    /// The server that has begun it.
    pub server: Option<String>,
    /// Or the operator.
    pub operator: Option<String>,
    /// When it was begun, Unix microseconds.
    pub opened_us: Option<u64>,
    /// Its oldest record in Redis; 0: it has none there.
    pub first: u64,
    /// Its newest one.
    pub last: u64,
}

/// What the registry says of a lane.
#[derive(Default, serde::Deserialize)]
struct Description {
    #[serde(default)]
    server: Option<String>,
    #[serde(default)]
    operator: Option<String>,
    #[serde(default)]
    opened_unix_us: Option<u64>,
}

/// Looks at the lanes in the registry.
pub fn read(connection: &mut Connection) -> Result<Ends, StoreError> {
    let registry = answers::pairs(connection.command("HGETALL", &[keys::LANES])?);
    let mut registry = registry.ok_or_else(|| unexpected("HGETALL", &Value::Nil))?;
    // Their names begin with the time of their run.
    registry.sort_by(|(a, _), (b, _)| b.cmp(a));
    let cut = registry.len() > MAX_LANES;
    registry.truncate(MAX_LANES);
    let lanes: Vec<LaneId> = registry.iter().map(|(lane, _)| LaneId::from_stored(lane)).collect();
    let bounds = bounds(connection, &lanes)?;
    let end = |((lane, (_, text)), bounds): ((LaneId, (String, String)), Option<_>)| {
        let bounds: Option<(super::trail::StoredBlock, super::trail::StoredBlock)> = bounds;
        let described: Description = serde_json::from_str(&text).unwrap_or_default();
        let (first, last) = bounds
            .map_or((0, 0), |(first, last)| (first.first_seq, last.last_seq().unwrap_or(last.first_seq)));
        let Description { server, operator, opened_unix_us: opened_us } = described;
        End { lane, server, operator, opened_us, first, last }
    };
    Ok(Ends { lanes: lanes.into_iter().zip(registry).zip(bounds).map(end).collect(), cut })
}
