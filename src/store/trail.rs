//! The audit trail's place in Redis: the registry of lanes, and lanes read back in order.

use std::collections::{BTreeMap, HashSet};

use redis::Value;

use super::answers::{self, EntryId, text};
use super::attested;
use super::connection::{Batch, Connection, StoreError};
use super::keys;
use crate::audit::attest::{NotOurs, StoreKeys};
use crate::audit::lane::Head;
use crate::audit::{Block, LaneId};
use crate::clock::Now;
use crate::ids::ServerId;

/// Field of a lane entry that holds the records.
pub const BLOCK_FIELD: &str = "b";
/// Field of a lane entry that holds the lane's root after its last record.
pub const HASH_FIELD: &str = "h";
/// Field of a lane entry that holds its tag.
pub const TAG_FIELD: &str = "t";
/// Blocks read in one step.
pub(super) const PAGE_BLOCKS: usize = 256;

/// One stored block.
#[derive(Debug)]
pub struct StoredBlock {
    /// The entry's id.
    pub id: EntryId,
    /// Sequence of its first record, from its entry id.
    pub first_seq: u64,
    /// The records' bytes.
    pub bytes: Vec<u8>,
    /// The stored hash.
    pub hash: Vec<u8>,
    /// The stored tag.
    pub tag: Vec<u8>,
}

impl StoredBlock {
    /// Sequence of its last record; `None` where its bytes are no block.
    pub fn last_seq(&self) -> Option<u64> {
        let count = crate::audit::lane::split_block(&self.bytes)?.len() as u64;
        (self.first_seq + count).checked_sub(1)
    }

    /// Whether a server, or an operator's command, has written it at this place.
    pub fn check(&self, keys: &StoreKeys, lane: &LaneId) -> Result<(), NotOurs> {
        let last_seq = self.last_seq().ok_or(NotOurs::Foreign)?;
        attested::check_block(keys, lane, (self.first_seq, last_seq), &self.hash, &self.tag)
    }
}

/// The lanes of a trail.
#[derive(Debug)]
pub struct Lanes {
    /// Those with records.
    pub existing: Vec<LaneId>,
    /// Those in the registry, and what it says of each.
    pub registered: BTreeMap<LaneId, String>,
}

/// Adds the command that appends a block to its lane.
pub fn append(batch: &mut Batch, keys: &StoreKeys, block: Block<'_>) -> usize {
    let place = batch.command("XADD");
    block_arguments(batch, keys, block);
    place
}

/// Adds the arguments of the XADD that appends a block. Its command was started by the caller.
pub fn block_arguments(batch: &mut Batch, keys: &StoreKeys, block: Block<'_>) {
    let tag = attested::block_tag(keys, block.lane, (block.first_seq, block.last_seq), block.hash);
    let _ = batch
        .arg(keys::lane(block.lane))
        .arg(format!("{}-0", block.first_seq))
        .arg(BLOCK_FIELD)
        .arg(block.bytes)
        .arg(HASH_FIELD)
        .arg(block.hash.as_slice())
        .arg(TAG_FIELD)
        .arg(tag.as_slice());
}

/// Adds the arguments of the HSET that enters a server's lane into the registry. Its command was started by the caller.
pub fn registration_arguments(batch: &mut Batch, lane: &LaneId, server: &ServerId, now: Now) {
    let description = serde_json::json!({
        "opened_unix_us": now.unix_us,
        "server": server.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    let _ = batch.arg(keys::LANES).arg(lane.as_str()).arg(description.to_string());
}

/// Adds the command that enters a lane into the registry.
pub fn register(batch: &mut Batch, lane: &LaneId, description_json: &str) -> usize {
    let place = batch.command("HSET");
    let _ = batch.arg(keys::LANES).arg(lane.as_str()).arg(description_json);
    place
}

/// The lanes that exist, sorted, and those that the registry lists.
pub fn lanes(connection: &mut Connection) -> Result<Lanes, StoreError> {
    let keys = scan(connection, &format!("{}*", keys::LANE_PREFIX))?;
    let mut existing: Vec<LaneId> =
        keys.iter().filter_map(|key| key.strip_prefix(keys::LANE_PREFIX)).map(LaneId::from_stored).collect();
    let registered: BTreeMap<LaneId, String> = answers::pairs(connection.command("HGETALL", &[keys::LANES])?)
        .ok_or_else(|| unexpected("HGETALL", &Value::Nil))?
        .into_iter()
        .map(|(lane, description)| (LaneId::from_stored(&lane), description))
        .collect();
    existing.sort();
    // It may be shown twice.
    existing.dedup();
    // A lane that was opened between the two looks is in the registry alone.
    let mut opened = Vec::new();
    for lane in registered.keys().filter(|lane| existing.binary_search(lane).is_err()) {
        if answers::int(&connection.command("EXISTS", &[&keys::lane(lane)])?) == Some(1) {
            opened.push(lane.clone());
        }
    }
    existing.extend(opened);
    existing.sort();
    Ok(Lanes { existing, registered })
}

/// The keys that match a pattern; one may be there twice.
pub(super) fn scan(connection: &mut Connection, pattern: &str) -> Result<Vec<String>, StoreError> {
    let mut found = Vec::new();
    let mut cursor = "0".to_owned();
    loop {
        let answer = connection.command("SCAN", &[&cursor, "MATCH", pattern, "COUNT", "1000"])?;
        let Value::Array(parts) = &answer else {
            return Err(unexpected("SCAN", &answer));
        };
        let (Some(next), Some(Value::Array(names))) = (parts.first().and_then(text), parts.get(1)) else {
            return Err(unexpected("SCAN", &answer));
        };
        found.extend(names.iter().filter_map(text).map(str::to_owned));
        cursor = next.to_owned();
        if cursor == "0" {
            return Ok(found);
        }
    }
}

/// The next blocks of a lane after the one that began at `after` (0: from the start); empty at its end.
pub fn blocks(
    connection: &mut Connection,
    lane: &LaneId,
    after: u64,
) -> Result<Vec<StoredBlock>, StoreError> {
    let key = keys::lane(lane);
    let from = if after == 0 { "-".to_owned() } else { format!("({after}-0") };
    let answer = connection.command("XRANGE", &[&key, &from, "+", "COUNT", &PAGE_BLOCKS.to_string()])?;
    parse_blocks(answer)
}

/// The newest blocks of a lane, newest first.
pub fn newest_blocks(
    connection: &mut Connection,
    lane: &LaneId,
    count: usize,
) -> Result<Vec<StoredBlock>, StoreError> {
    let key = keys::lane(lane);
    let answer = connection.command("XREVRANGE", &[&key, "+", "-", "COUNT", &count.to_string()])?;
    parse_blocks(answer)
}

/// Blocks of a lane before the one that begins with record `first`, newest first; at most `count`.
pub fn blocks_before(
    connection: &mut Connection,
    lane: &LaneId,
    first: u64,
    count: usize,
) -> Result<Vec<StoredBlock>, StoreError> {
    let (key, to) = (keys::lane(lane), format!("({first}-0"));
    parse_blocks(connection.command("XREVRANGE", &[&key, &to, "-", "COUNT", &count.to_string()])?)
}

/// The block that holds record `seq` of a lane, or the last one before it.
pub fn block_at(
    connection: &mut Connection,
    lane: &LaneId,
    seq: u64,
) -> Result<Option<StoredBlock>, StoreError> {
    let key = keys::lane(lane);
    let answer = connection.command("XREVRANGE", &[&key, &format!("{seq}-0"), "-", "COUNT", "1"])?;
    Ok(parse_blocks(answer)?.pop())
}

/// The oldest block of a lane.
pub fn oldest_block(connection: &mut Connection, lane: &LaneId) -> Result<Option<StoredBlock>, StoreError> {
    let answer = connection.command("XRANGE", &[&keys::lane(lane), "-", "+", "COUNT", "1"])?;
    Ok(parse_blocks(answer)?.pop())
}

/// At most `count` blocks of a lane behind the one that begins with record `seq`.
pub fn blocks_behind(
    connection: &mut Connection,
    lane: &LaneId,
    seq: u64,
    count: usize,
) -> Result<Vec<StoredBlock>, StoreError> {
    let args = [&keys::lane(lane), &format!("({seq}-0"), "+", "COUNT", &count.to_string()];
    parse_blocks(connection.command("XRANGE", &args)?)
}

/// The next blocks of each of these lanes, behind the one that begins with the record named; in order.
pub fn blocks_behind_each(
    connection: &mut Connection,
    lanes: &[(LaneId, u64)],
    count: usize,
) -> Result<Vec<Vec<StoredBlock>>, StoreError> {
    let mut batch = Batch::new();
    for (lane, seq) in lanes {
        let _ = batch.command("XRANGE");
        let _ = batch.arg(keys::lane(lane)).arg(format!("({seq}-0")).arg("+").arg("COUNT").arg(count);
    }
    connection.run(&mut batch)?.into_iter().map(parse_blocks).collect()
}

/// The oldest and the newest block of each lane, in order; `None`: it has none.
pub fn bounds(
    connection: &mut Connection,
    lanes: &[LaneId],
) -> Result<Vec<Option<(StoredBlock, StoredBlock)>>, StoreError> {
    let mut found = Vec::with_capacity(lanes.len());
    let mut batch = Batch::new();
    for page in lanes.chunks(PAGE_BLOCKS) {
        for lane in page {
            let key = keys::lane(lane);
            let _ = batch.command("XRANGE");
            let _ = batch.arg(&key).arg("-").arg("+").arg("COUNT").arg(1);
            let _ = batch.command("XREVRANGE");
            let _ = batch.arg(&key).arg("+").arg("-").arg("COUNT").arg(1);
        }
        let mut answers = connection.run(&mut batch)?.into_iter();
        for _ in page {
            let mut block = || -> Result<Option<StoredBlock>, StoreError> {
                Ok(parse_blocks(answers.next().unwrap_or_default())?.pop())
            };
            let (first, last) = (block()?, block()?);
            found.push(first.zip(last));
        }
    }
    Ok(found)
}

/// How many records of these lanes Redis holds.
pub fn live_records(connection: &mut Connection, lanes: &[LaneId]) -> Result<u64, StoreError> {
    let mut records = 0;
    for lane in lanes {
        let Some(newest) = newest_blocks(connection, lane, 1)?.pop() else {
            continue;
        };
        let first_seq = oldest_block(connection, lane)?.map_or(newest.first_seq, |block| block.first_seq);
        let last_seq = newest.last_seq().unwrap_or(newest.first_seq);
        records += (last_seq + 1).saturating_sub(first_seq);
    }
    Ok(records)
}

/// The lanes that a server may still write: the registry names its server, and that one is not gone.
pub fn written(connection: &mut Connection) -> Result<Vec<LaneId>, StoreError> {
    #[derive(serde::Deserialize)]
    struct Description {
        server: Option<String>,
    }
    let alive = match connection.command("HKEYS", &[keys::SERVERS])? {
        Value::Array(names) => names.iter().filter_map(text).map(str::to_owned).collect::<HashSet<_>>(),
        other => return Err(unexpected("HKEYS", &other)),
    };
    let registry = connection.command("HGETALL", &[keys::LANES])?;
    let registry = answers::pairs(registry).ok_or_else(|| unexpected("HGETALL", &Value::Nil))?;
    let is_written = |text: &String| {
        let description: Option<Description> = serde_json::from_str(text).ok();
        description.and_then(|found| found.server).is_some_and(|server| alive.contains(&server))
    };
    let lanes = registry.iter().filter(|(_, text)| is_written(text));
    Ok(lanes.map(|(lane, _)| LaneId::from_stored(lane)).collect())
}

/// The lanes in the registry, sorted: those that servers and operators' commands have begun.
pub fn registered(connection: &mut Connection) -> Result<Vec<LaneId>, StoreError> {
    let Value::Array(names) = connection.command("HKEYS", &[keys::LANES])? else {
        return Err(unexpected("HKEYS", &Value::Nil));
    };
    let mut lanes: Vec<LaneId> = names.iter().filter_map(text).map(LaneId::from_stored).collect();
    lanes.sort();
    Ok(lanes)
}

/// How many lanes are in the registry.
pub fn registered_count(connection: &mut Connection) -> Result<u64, StoreError> {
    Ok(answers::int(&connection.command("HLEN", &[keys::LANES])?).unwrap_or(0))
}

/// The lanes in the registry that operators' commands have written.
pub fn operators_lanes(connection: &mut Connection) -> Result<Vec<LaneId>, StoreError> {
    #[derive(serde::Deserialize)]
    struct Description {
        operator: Option<String>,
    }
    let registry = connection.command("HGETALL", &[keys::LANES])?;
    let registry = answers::pairs(registry).ok_or_else(|| unexpected("HGETALL", &Value::Nil))?;
    let is_operators = |text: &String| {
        let description: Option<Description> = serde_json::from_str(text).ok();
        description.is_some_and(|found| found.operator.is_some())
    };
    let lanes = registry.iter().filter(|(_, text)| is_operators(text));
    Ok(lanes.map(|(lane, _)| LaneId::from_stored(lane)).collect())
}

/// Adds the command that notes where a lane of before the log's beginning ended when it was taken over.
pub fn take_over(batch: &mut Batch, store_keys: &StoreKeys, lane: &LaneId, head: &Head) {
    let _ = batch.command("HSET");
    let tag = attested::lane_tag(store_keys, lane, head);
    let value = format!("{} {} {tag}", head.seq, crate::ids::hex(&head.hash));
    let _ = batch.arg(keys::TAKEN_OVER).arg(lane.as_str()).arg(value);
}

/// The lanes that were taken over, and where they ended.
pub fn taken_over(
    connection: &mut Connection,
    store_keys: &StoreKeys,
) -> Result<BTreeMap<LaneId, Head>, StoreError> {
    let stored = answers::pairs(connection.command("HGETALL", &[keys::TAKEN_OVER])?);
    let stored = stored.ok_or_else(|| unexpected("HGETALL", &Value::Nil))?;
    let read = |(lane, value): &(String, String)| {
        let lane = LaneId::from_stored(lane);
        let mut words = value.split(' ');
        let (seq, root, tag) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        let head = Head { seq, hash: crate::ids::unhex(root)?.try_into().ok()? };
        attested::check_lane(store_keys, &lane, &head, tag).ok()?;
        Some((lane, head))
    };
    Ok(stored.iter().filter_map(read).collect())
}

/// What the registry says of a lane.
pub fn registration(connection: &mut Connection, lane: &LaneId) -> Result<Option<String>, StoreError> {
    Ok(text(&connection.command("HGET", &[keys::LANES, lane.as_str()])?).map(str::to_owned))
}

/// Removes a lane's records up to `last`; a lane that is `closed` goes as a whole once none is left.
pub fn trim(connection: &mut Connection, lane: &LaneId, last: u64, closed: bool) -> Result<(), StoreError> {
    let key = keys::lane(lane);
    let _ = connection.command("XTRIM", &[&key, "MINID", &format!("{}-0", last.saturating_add(1))])?;
    if closed && answers::int(&connection.command("XLEN", &[&key])?) == Some(0) {
        let mut batch = Batch::new();
        let _ = batch.command("MULTI");
        let _ = batch.command("DEL");
        let _ = batch.arg(&key);
        let _ = batch.command("HDEL");
        let _ = batch.arg(keys::LANES).arg(lane.as_str());
        let _ = batch.command("EXEC");
        drop(connection.run(&mut batch)?);
    }
    Ok(())
}

pub(super) fn parse_blocks(answer: Value) -> Result<Vec<StoredBlock>, StoreError> {
    let Value::Array(items) = answer else {
        return Err(unexpected("XRANGE", &answer));
    };
    items
        .into_iter()
        .map(|item| {
            let (id, fields) = answers::entry(item).ok_or_else(|| unexpected("XRANGE", &Value::Nil))?;
            let (mut bytes, mut hash, mut tag) = (Vec::new(), Vec::new(), Vec::new());
            let mut fields = fields.into_iter();
            while let (Some(name), Some(Value::BulkString(value))) = (fields.next(), fields.next()) {
                match text(&name) {
                    Some(BLOCK_FIELD) => bytes = value,
                    Some(HASH_FIELD) => hash = value,
                    Some(TAG_FIELD) => tag = value,
                    _ => {}
                }
            }
            // A second part of the id that is not 0 cannot come from a lane's writer.
            let first_seq = if id.seq == 0 { id.ms } else { 0 };
            Ok(StoredBlock { id, first_seq, bytes, hash, tag })
        })
        .collect()
}

pub(super) fn unexpected(command: &'static str, answer: &Value) -> StoreError {
    StoreError::Unexpected { command, answer: format!("{answer:?}").chars().take(200).collect() }
}
