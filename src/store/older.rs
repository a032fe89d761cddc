//! What an earlier version, or the Python server, has left in Redis: without tags. For taking it over.

use std::collections::{BTreeSet, HashSet};

use super::answers::{self, EntryId, WholeEntry};
use super::attested::{self, LetterText, Message, OnRecord};
use super::connection::{Batch, Connection, StoreError};
use super::keys;
use super::trail::{scan, unexpected};
use crate::audit::StoreKeys;
use crate::audit::attest::NotOurs;
use crate::ids::{AgentId, CorrelationId};

/// Pending entries read in one step.
const PENDING_PAGE: &str = "1000";
/// Replaces a value that is still what was read; its time to live goes on.
const REPLACE: &str = "if redis.call('GET',KEYS[1])==ARGV[1] then \
                       return redis.call('SET',KEYS[1],ARGV[2],'KEEPTTL') end return 0";

/// A stream of messages or of dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its key.
    pub stream: String,
    /// Whose inbox it is; empty for the dead letters.
    pub agent: String,
}

/// All such streams: the inboxes first.
pub fn streams(connection: &mut Connection) -> Result<Vec<Place>, StoreError> {
    let mut inboxes = scan(connection, &format!("{}*", keys::INBOX_PREFIX))?;
    inboxes.sort();
    inboxes.dedup();
    let mut places = Vec::new();
    for stream in inboxes.into_iter().chain([keys::DEAD_LETTERS.to_owned()]) {
        if answers::text(&connection.command("TYPE", &[&stream])?) == Some("stream") {
            let name = stream.strip_prefix(keys::INBOX_PREFIX).unwrap_or_default();
            let agent = name.split_once(':').map_or(name, |(agent, _)| agent).to_owned();
            places.push(Place { stream, agent });
        }
    }
    Ok(places)
}

/// The last entry of a stream.
pub fn last(connection: &mut Connection, stream: &str) -> Result<Option<EntryId>, StoreError> {
    let answer = connection.command("XREVRANGE", &[stream, "+", "-", "COUNT", "1"])?;
    let entries = answers::entries(answer).ok_or_else(|| unexpected("XREVRANGE", &super::Value::Nil))?;
    Ok(entries.first().map(|entry| entry.id))
}

/// What a stream's consumers are done with: acknowledged entries may have stayed in it.
#[derive(Debug, Default)]
pub struct Done {
    /// The last entry that was ever read.
    read_to: Option<EntryId>,
    /// Those of them that are not acknowledged.
    pending: HashSet<EntryId>,
}

impl Done {
    /// Reads it.
    pub fn read(connection: &mut Connection, place: &Place) -> Result<Self, StoreError> {
        let mut done = Self::default();
        if place.is_dead_letters() {
            return Ok(done);
        }
        let groups = connection.command("XINFO", &["GROUPS", &place.stream])?;
        let super::Value::Array(groups) = groups else {
            return Err(unexpected("XINFO", &groups));
        };
        for group in groups {
            let super::Value::Array(cells) = group else { continue };
            // Names and values in turn.
            let mut cells = cells.iter();
            let (mut name, mut read_to) = (None, None);
            while let (Some(field), Some(value)) = (cells.next(), cells.next()) {
                match answers::text(field) {
                    Some("name") => name = answers::text(value),
                    Some("last-delivered-id") => read_to = answers::text(value).and_then(EntryId::parse),
                    _ => {}
                }
            }
            if name == Some(keys::GROUP) {
                done.read_to = read_to;
            }
        }
        let mut from = "-".to_owned();
        while done.read_to.is_some() {
            let args = [place.stream.as_str(), keys::GROUP, &from, "+", PENDING_PAGE];
            let answer = connection.command("XPENDING", &args)?;
            let lines = answers::pending(&answer).ok_or_else(|| unexpected("XPENDING", &answer))?;
            let Some(last) = lines.last() else { break };
            from = format!("({}", last.id);
            done.pending.extend(lines.iter().map(|line| line.id));
        }
        Ok(done)
    }

    /// Whether an entry was read and acknowledged.
    pub fn holds(&self, id: EntryId) -> bool {
        self.read_to.is_some_and(|read_to| id <= read_to) && !self.pending.contains(&id)
    }
}

/// The next entries behind `after`, up to `to`.
pub fn entries(
    connection: &mut Connection,
    stream: &str,
    after: EntryId,
    to: EntryId,
    count: usize,
) -> Result<Vec<WholeEntry>, StoreError> {
    let (from, to, count) = (format!("({after}"), to.to_string(), count.to_string());
    let answer = connection.command("XRANGE", &[stream, &from, &to, "COUNT", &count])?;
    answers::whole_entries(answer).ok_or_else(|| unexpected("XRANGE", &super::Value::Nil))
}

impl Place {
    /// Whether these are dead letters.
    pub fn is_dead_letters(&self) -> bool {
        self.stream == keys::DEAD_LETTERS
    }

    /// Whether an entry has its tag.
    pub fn check(&self, store_keys: &StoreKeys, found: &WholeEntry) -> Result<(), NotOurs> {
        if self.is_dead_letters() {
            let text = LetterFields::of(found);
            let attest = found.entry.attest.as_deref().unwrap_or_default();
            return text.letter(found).check(store_keys, attest).map(drop);
        }
        attested::check_entry(store_keys, &self.stream, &found.entry).map(drop)
    }

    /// Adds an entry once more, with its tag.
    pub fn add(&self, batch: &mut Batch, store_keys: &StoreKeys, found: &WholeEntry, on: OnRecord<'_>) {
        let mut attest = String::new();
        if self.is_dead_letters() {
            LetterFields::of(found).letter(found).attest(store_keys, on, &mut attest);
        } else {
            let message = Message {
                expires_ms: found.entry.expires_ms,
                not_before_ms: found.entry.not_before_ms,
                ..Message::whole(&self.stream, found.entry.envelope.as_deref().unwrap_or_default())
            };
            message.attest(store_keys, on, None, &mut attest);
        }
        let _ = batch.command("XADD");
        let _ = batch.arg(&self.stream).arg("*");
        for pair in found.fields.chunks_exact(2) {
            if let [name, value] = pair
                && name != keys::ATTEST_FIELD.as_bytes()
            {
                let _ = batch.arg(name.as_slice()).arg(value.as_slice());
            }
        }
        let _ = batch.arg(keys::ATTEST_FIELD).arg(attest.as_str());
    }

    /// Adds what removes an entry, whoever holds it.
    pub fn remove(&self, batch: &mut Batch, id: EntryId) {
        let _ = batch.command("XDEL");
        let _ = batch.arg(&self.stream).arg(id);
        if !self.is_dead_letters() {
            let _ = batch.command("XACK");
            let _ = batch.arg(&self.stream).arg(keys::GROUP).arg(id);
        }
    }
}

/// The fields of a dead letter as its reader takes them.
#[derive(Default)]
struct LetterFields {
    agent: String,
    instance: String,
    reason: String,
    attempts: u32,
    history: String,
    stream: String,
    time_ms: u64,
}

impl LetterFields {
    fn of(found: &WholeEntry) -> Self {
        let mut fields = Self::default();
        for pair in found.fields.chunks_exact(2) {
            let [name, value] = pair else { continue };
            let text = || std::str::from_utf8(value).unwrap_or_default().to_owned();
            match name.as_slice() {
                b"agent_id" => fields.agent = text(),
                b"instance_id" => fields.instance = text(),
                b"reason" => fields.reason = text(),
                b"attempts" => fields.attempts = text().parse().unwrap_or(0),
                b"history" => fields.history = text(),
                b"stream" => fields.stream = text(),
                b"time_ms" => fields.time_ms = text().parse().unwrap_or(0),
                _ => {}
            }
        }
        fields
    }

    fn letter<'a>(&'a self, found: &'a WholeEntry) -> LetterText<'a> {
        LetterText {
            envelope: found.entry.envelope.as_deref().unwrap_or_default(),
            agent: &self.agent,
            instance: &self.instance,
            reason: &self.reason,
            attempts: self.attempts,
            history: &self.history,
            stream: &self.stream,
            time_ms: self.time_ms,
        }
    }
}

/// The agents that have states.
pub fn states(connection: &mut Connection) -> Result<Vec<AgentId>, StoreError> {
    let mut found = BTreeSet::new();
    // One that was removed, or has run out, has a version alone.
    for prefix in [keys::STATE_PREFIX, keys::STATE_VERSION_PREFIX] {
        let names = scan(connection, &format!("{prefix}*"))?;
        found.extend(names.iter().filter_map(|key| AgentId::parse(key.strip_prefix(prefix)?)));
    }
    Ok(found.into_iter().collect())
}

/// The keys of pending requests and of what idempotency keys remember.
pub fn value_keys(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let mut found = scan(connection, &format!("{}*", keys::PENDING_REQUEST_PREFIX))?;
    found.extend(scan(connection, &format!("{}*", keys::IDEMPOTENCY_PREFIX))?);
    found.sort();
    found.dedup();
    Ok(found)
}

/// What is under a key, where that is a text.
pub fn value(connection: &mut Connection, key: &str) -> Result<Option<String>, StoreError> {
    if answers::text(&connection.command("TYPE", &[key])?) != Some("string") {
        return Ok(None);
    }
    Ok(answers::text(&connection.command("GET", &[key])?).map(str::to_owned))
}

/// Whether a pending request, or what an idempotency key remembers, has its tag.
pub fn check_value(store_keys: &StoreKeys, key: &str, text: &str) -> Result<(), NotOurs> {
    if let Some(id) = key.strip_prefix(keys::PENDING_REQUEST_PREFIX) {
        let id = CorrelationId::parse(id).ok_or(NotOurs::Foreign)?;
        let request: serde_json::Value = serde_json::from_str(text).map_err(|_| NotOurs::Foreign)?;
        let of = |name: &str| request.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        let says = [of("sender_id"), of("sender_instance_id"), of("target_id"), of("message_id")];
        return attested::check_request(store_keys, &id, says, of("tag"));
    }
    let name = key.strip_prefix(keys::IDEMPOTENCY_PREFIX).and_then(|rest| rest.split_once(':'));
    let (sender, name) = name.ok_or(NotOurs::Foreign)?;
    let sender = AgentId::parse(sender).ok_or(NotOurs::Foreign)?;
    let (text, tag) = text.rsplit_once(' ').ok_or(NotOurs::Foreign)?;
    attested::check_memory(store_keys, &sender, name, text, tag)
}

/// The value with a tag; `None` where it is nothing of ours.
pub fn attested(store_keys: &StoreKeys, key: &str, text: &str) -> Option<String> {
    if let Some(id) = key.strip_prefix(keys::PENDING_REQUEST_PREFIX) {
        let id = CorrelationId::parse(id)?;
        let mut request: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
        let of = |name: &str| request.get(name)?.as_str().map(str::to_owned);
        let says = [of("sender_id")?, of("sender_instance_id")?, of("target_id")?, of("message_id")?];
        let tag = attested::request_tag(store_keys, &id, says.each_ref().map(String::as_str));
        let _ = request.insert("tag".to_owned(), tag.into());
        return serde_json::to_string(&request).ok();
    }
    let (sender, name) = key.strip_prefix(keys::IDEMPOTENCY_PREFIX)?.split_once(':')?;
    let sender = AgentId::parse(sender)?;
    // Behind the first three words is a tag of lost keys.
    let end = text.match_indices(' ').nth(2).map_or(text.len(), |(at, _)| at);
    let text = text.get(..end).filter(|text| text.split(' ').count() == 3)?;
    let tag = attested::memory_tag(store_keys, &sender, name, text);
    Some(format!("{text} {tag}"))
}

/// Adds what replaces a value.
pub fn replace(batch: &mut Batch, key: &str, before: &str, after: &str) {
    let _ = batch.command("EVAL");
    let _ = batch.arg(REPLACE).arg(1).arg(key).arg(before).arg(after);
}
