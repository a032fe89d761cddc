//! What Redis knows of the archives of its trail: how far each lane was archived, by whom last, and who archives now. So a
//! server that was away while another one archived goes on behind it, and no one takes what left in order for lost.

use std::collections::BTreeMap;

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

/// Gives the right up, where this server has it.
const LEAVE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return ''";

/// Notes how far the trail is archived, where this server has the right to archive.
const NOTE: &str = "if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1";
/// Fields that one command writes.
const NOTE_STEP: usize = 500;

/// Numbers of segments, in stretches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers(Vec<(u64, u64)>);

impl Numbers {
    /// Adds one that is larger than all others, or the last one again.
    pub fn push(&mut self, number: u64) {
        match self.0.last_mut() {
            Some((_, last)) if *last >= number => {}
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => self.0.push((number, number)),
        }
    }

    /// Whether it is among them.
    pub fn contains(&self, number: u64) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn to_text(&self) -> String {
        let stretches: Vec<String> = self.0.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        stretches.join(",")
    }

    fn parse(text: &str) -> Option<Self> {
        let stretch = |text: &str| {
            let (first, last) = text.split_once('-')?;
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        Some(Self(text.split(',').map(stretch).collect::<Option<_>>()?))
    }
}

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

impl Archiver {
    /// Names its folder among all archives of this Redis.
    fn place(&self) -> String {
        format!("{PLACE}{}:{}", self.host, self.dir)
    }

    /// As it stands in Redis.
    fn to_text(&self) -> String {
        // Three texts and a number have a JSON form.
        serde_json::to_string(self).unwrap_or_default()
    }
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
    /// The archives that there are, as `host:folder`, with the segments in each.
    pub places: BTreeMap<String, Numbers>,
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
    let own = archiver.to_text();
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

/// Who archives now, as far as it can be read: whoever can write to Redis can say so.
pub fn archiver(connection: &mut Connection) -> Result<Option<Archiver>, StoreError> {
    let held = connection.command("GET", &[keys::ARCHIVER])?;
    Ok(text(&held).and_then(|held| serde_json::from_str(held).ok()))
}

/// Gives the right up, where this server has it.
pub fn leave_right(connection: &mut Connection, archiver: &Archiver) -> Result<(), StoreError> {
    connection.command("EVAL", &[LEAVE, "1", keys::ARCHIVER, &archiver.to_text()]).map(drop)
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
            let _ = archived.places.insert(place.to_owned(), Numbers::parse(value).unwrap_or_default());
        } else if let Some(tree) = tree(value) {
            let _ = archived.lanes.insert(LaneId::from_stored(&field), tree);
        }
    }
    Ok(archived)
}

/// The id in Redis of the newest checkpoint that was archived. What has no tag is none.
pub fn newest(connection: &mut Connection, store_keys: &StoreKeys) -> Result<Option<EntryId>, StoreError> {
    let stored = connection.command("HGET", &[keys::ARCHIVED, NEWEST])?;
    let Some((value, tag)) = text(&stored).and_then(|stored| stored.rsplit_once(' ')) else {
        return Ok(None);
    };
    let is_ours = attested::check_archived(store_keys, NEWEST, value, tag).is_ok();
    Ok(value.split_once(' ').filter(|_| is_ours).and_then(|(_, id)| EntryId::parse(id)))
}

/// How far these lanes were archived. What has no tag is left out.
pub fn of(
    connection: &mut Connection,
    store_keys: &StoreKeys,
    lanes: &[&LaneId],
) -> Result<BTreeMap<LaneId, Frontier>, StoreError> {
    let mut archived = BTreeMap::new();
    for page in lanes.chunks(NOTE_STEP) {
        let mut batch = Batch::new();
        let _ = batch.command("HMGET");
        let _ = batch.arg(keys::ARCHIVED);
        for lane in page {
            let _ = batch.arg(lane.as_str());
        }
        let answer = connection.run(&mut batch)?.pop().unwrap_or(Value::Nil);
        let Value::Array(values) = answer else { return Err(unexpected("HMGET", &answer)) };
        for (lane, value) in page.iter().zip(&values) {
            let Some((value, tag)) = text(value).and_then(|value| value.rsplit_once(' ')) else { continue };
            let is_ours = attested::check_archived(store_keys, lane.as_str(), value, tag).is_ok();
            if let Some(tree) = tree(value).filter(|_| is_ours) {
                let _ = archived.insert((*lane).clone(), tree);
            }
        }
    }
    Ok(archived)
}

/// Notes how far these lanes are archived now, and which segments are in this server's folder. `false`: another server has the
/// right to archive by now, and nothing more was noted.
pub fn write(
    connection: &mut Connection,
    store_keys: &StoreKeys,
    archiver: &Archiver,
    archived: &Archived,
    numbers: &Numbers,
) -> Result<bool, StoreError> {
    let lane = |(lane, tree): (&LaneId, &Frontier)| {
        let nodes: Vec<String> = tree.node_texts().collect();
        (lane.to_string(), format!("{} {}", tree.size(), nodes.join(",")))
    };
    let mut fields: Vec<(String, String)> = archived.lanes.iter().map(lane).collect();
    let newest = archived.newest.unwrap_or(EntryId::ZERO);
    fields.push((archiver.place(), numbers.to_text()));
    // Last: where it is there, so is everything.
    fields.push((NEWEST.to_owned(), format!("{} {newest}", archived.segment)));
    let own = archiver.to_text();
    for step in fields.chunks(NOTE_STEP) {
        let mut batch = Batch::new();
        let _ = batch.command("EVAL");
        let _ = batch.arg(NOTE).arg("2").arg(keys::ARCHIVED).arg(keys::ARCHIVER).arg(&own);
        for (field, value) in step {
            let tag = attested::archived_tag(store_keys, field, value);
            let _ = batch.arg(field).arg(format!("{value} {tag}"));
        }
        let answer = connection.run(&mut batch)?.pop().unwrap_or(Value::Nil);
        match answers::int(&answer) {
            Some(1) => {}
            Some(0) => return Ok(false),
            _ => return Err(unexpected("EVAL", &answer)),
        }
    }
    forget(connection).map(|()| true)
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
    Frontier::from_texts(size.parse().ok()?, nodes.split(',').filter(|text| !text.is_empty()))
}
