//! What Redis knows of the archives of its trail: how far each lane was archived, by whom last, and who archives now. So a
//! server that was away while another one archived goes on behind it, and no one takes what left in order for lost.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use redis::Value;
use serde::{Deserialize, Serialize};

use super::answers::{self, EntryId, text};
use super::attested;
use super::connection::{Batch, Connection, StoreError};
use super::keys;
use super::trail::unexpected;
use crate::audit::LaneId;
use crate::audit::attest::StoreKeys;
use crate::audit::merkle::Frontier;
use crate::ids::ServerId;

/// How long a server archives without a sign of life before another one does.
pub const ARCHIVER_LEASE_MS: u64 = 30_000;
/// Lanes that are remembered; the oldest ones are forgotten. One of them has some hundred bytes.
const MAX_LANES: u64 = 20_000;
/// Field of what was archived last.
const NEWEST: &str = "newest";
/// How the fields of archives begin.
const PLACE: &str = "at ";

/// Takes the right to archive, or keeps it; returns who has it, nothing where the server is fenced.
const TAKE: &str = "if redis.call('GET', KEYS[2]) ~= ARGV[3] then return '' end
local held = redis.call('GET', KEYS[1])
if held == false or held == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]
end
return held";

/// Who archives, and where. Of the servers that share a folder the lock in it says which one does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archiver {
    /// The host's name.
    pub host: String,
    /// The folder on it.
    pub dir: String,
    /// This boot of it, which two hosts of one name do not share.
    pub machine: String,
    /// Records that Redis holds at most, as that server is configured.
    pub max_records: u64,
}

/// How far the trail was archived.
#[derive(Debug, Clone, Default)]
pub struct Archived {
    /// The lanes' trees behind their last archived records.
    pub lanes: BTreeMap<LaneId, Frontier>,
    /// Id in Redis of the newest checkpoint that was archived.
    pub newest: Option<EntryId>,
    /// The number of the newest segment, on whichever host; 0: none.
    pub segment: u64,
    /// The archives that there are, as `host:folder`, with the newest segment in each.
    pub places: BTreeMap<String, u64>,
}

/// Who may archive.
#[derive(Debug)]
pub enum Right {
    /// This server.
    Own,
    /// Another one.
    Other(Archiver),
    /// Not this server: others have declared it void.
    Fenced,
}

/// Takes the right to archive, or keeps it.
pub fn take_right(
    connection: &mut Connection,
    server: &ServerId,
    archiver: &Archiver,
) -> Result<Right, StoreError> {
    let own = serde_json::to_string(archiver).unwrap_or_default();
    let lease = ARCHIVER_LEASE_MS.to_string();
    let args = [TAKE, "2", keys::ARCHIVER, &keys::fence(server), &own, &lease, keys::FENCE_OPEN];
    let held = connection.command("EVAL", &args)?;
    let held = text(&held).ok_or_else(|| unexpected("EVAL", &held))?;
    if held.is_empty() {
        return Ok(Right::Fenced);
    }
    if held == own {
        return Ok(Right::Own);
    }
    // Whatever somebody has put there: it runs out.
    Ok(Right::Other(serde_json::from_str(held).unwrap_or_else(|_| Archiver {
        host: "another host".to_owned(),
        dir: String::new(),
        machine: String::new(),
        max_records: 0,
    })))
}

/// Gives the right up.
pub fn leave_right(connection: &mut Connection) -> Result<(), StoreError> {
    connection.command("DEL", &[keys::ARCHIVER]).map(drop)
}

/// How far the trail was archived. What has no tag is left out.
pub fn read(connection: &mut Connection, store_keys: &StoreKeys) -> Result<Archived, StoreError> {
    let stored = answers::pairs(connection.command("HGETALL", &[keys::ARCHIVED])?);
    let stored = stored.ok_or_else(|| unexpected("HGETALL", &Value::Nil))?;
    let mut archived = Archived::default();
    for (field, value) in stored {
        let Some((value, tag)) = value.rsplit_once(' ') else { continue };
        if attested::check_archived(store_keys, &field, value, tag).is_err() {
            continue;
        }
        if field == NEWEST {
            let mut words = value.split(' ');
            archived.segment = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            archived.newest = words.next().and_then(EntryId::parse);
        } else if let Some(place) = field.strip_prefix(PLACE) {
            let _ = archived.places.insert(place.to_owned(), value.parse().unwrap_or(0));
        } else if let Some(tree) = tree(value) {
            let _ = archived.lanes.insert(LaneId::from_stored(&field), tree);
        }
    }
    Ok(archived)
}

/// Writes how far these lanes are archived now.
pub fn write(
    connection: &mut Connection,
    store_keys: &StoreKeys,
    archiver: &Archiver,
    archived: &Archived,
) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    let _ = batch.command("HSET");
    let _ = batch.arg(keys::ARCHIVED);
    let mut field = |field: &str, value: String| {
        let tag = attested::archived_tag(store_keys, field, &value);
        let _ = batch.arg(field).arg(format!("{value} {tag}"));
    };
    for (lane, tree) in &archived.lanes {
        let nodes: Vec<String> = tree.nodes().iter().map(|node| BASE64.encode(node)).collect();
        field(lane.as_str(), format!("{} {}", tree.size(), nodes.join(",")));
    }
    let newest = archived.newest.unwrap_or(EntryId::ZERO);
    field(NEWEST, format!("{} {newest}", archived.segment));
    field(&format!("{PLACE}{}:{}", archiver.host, archiver.dir), archived.segment.to_string());
    drop(connection.run(&mut batch)?);
    forget(connection)
}

/// Forgets the oldest lanes, where there are too many.
fn forget(connection: &mut Connection) -> Result<(), StoreError> {
    let count = answers::int(&connection.command("HLEN", &[keys::ARCHIVED])?).unwrap_or(0);
    if count <= MAX_LANES {
        return Ok(());
    }
    let Value::Array(names) = connection.command("HKEYS", &[keys::ARCHIVED])? else {
        return Err(unexpected("HKEYS", &Value::Nil));
    };
    // Lanes are named by their runs, and these by their times.
    let is_lane = |name: &&str| *name != NEWEST && !name.starts_with(PLACE);
    let mut lanes: Vec<&str> = names.iter().filter_map(text).filter(is_lane).collect();
    lanes.sort_unstable();
    let mut batch = Batch::new();
    let _ = batch.command("HDEL");
    let _ = batch.arg(keys::ARCHIVED);
    for lane in lanes.iter().take((count - MAX_LANES / 2) as usize) {
        let _ = batch.arg(*lane);
    }
    drop(connection.run(&mut batch)?);
    Ok(())
}

fn tree(value: &str) -> Option<Frontier> {
    let (size, nodes) = value.split_once(' ')?;
    let node = |text: &str| BASE64.decode(text).ok()?.try_into().ok();
    let nodes = nodes.split(',').filter(|text| !text.is_empty()).map(node).collect::<Option<Vec<_>>>()?;
    Frontier::from_parts(size.parse().ok()?, nodes)
}
