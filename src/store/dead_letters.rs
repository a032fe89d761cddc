//! The dead letters of all agents: one stream, written by workers, looked through and emptied by operators.
//!
//! An operator's hold on one letter is a key of its own, watched until the letter is gone: watching the
//! stream would conflict with every letter that a server adds meanwhile.

use redis::Value;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::answers::{self, EntryId, text};
use super::attested::{LetterText, Message, OnRecord};
use super::connection::{Batch, Connection, StoreError};
use super::keys;
use super::news::News;
use crate::audit::StoreKeys;
use crate::envelope::message_id_of;
use crate::ids::{AgentId, InstanceId, ServerId};

/// Failed deliveries of which a letter tells, the last ones.
pub const MAX_HISTORY: usize = 5;
/// Letters read in one step: each may be as long as the longest message.
const PAGE: usize = 64;
/// How long an operator may take with one letter before it is anybody's again, in milliseconds.
pub(super) const HOLD_MS: u64 = 60_000;

/// One failed delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Which delivery of the message, from 1.
    pub attempt: u32,
    /// Why it failed.
    pub reason: String,
}

/// A letter that is to be added.
#[derive(Debug, Clone, Copy)]
pub struct Burial<'a> {
    /// The message.
    pub envelope: &'a str,
    /// Whose inbox it was in.
    pub agent: &'a AgentId,
    /// Who held it last.
    pub instance: &'a InstanceId,
    /// Why it is here.
    pub reason: &'a str,
    /// Deliveries it had.
    pub attempts: u32,
    /// The failed ones, the last [`MAX_HISTORY`].
    pub history: &'a [Failure],
    /// The stream it was in.
    pub stream: &'a str,
    /// Its entry there.
    pub entry: EntryId,
    /// When it was added (Unix milliseconds).
    pub time_ms: u64,
}

/// A stored letter. What a foreign writer left out is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its entry.
    pub id: EntryId,
    /// The message; `None` where there is none.
    pub envelope: Option<String>,
    /// Whose inbox it was in.
    pub agent: String,
    /// Who held it last.
    pub instance: String,
    /// Why it is here.
    pub reason: String,
    /// Deliveries it had.
    pub attempts: u32,
    /// The failed ones, oldest first.
    pub history: Vec<Failure>,
    /// The stream it was in.
    pub stream: String,
    /// When it was added (Unix milliseconds).
    pub time_ms: u64,
    /// Its tag, and the record of its burial.
    attest: Vec<u8>,
    /// Its failed deliveries, and its time, as they are stored.
    history_json: String,
    stated_ms: u64,
}

/// Which letters are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those of this agent.
    pub agent: Option<AgentId>,
    /// Those with this reason.
    pub reason: Option<String>,
    /// Those of this message.
    pub message: Option<Uuid>,
    /// Those added then or later (Unix milliseconds).
    pub from_ms: Option<u64>,
    /// Those added then or earlier (Unix milliseconds).
    pub to_ms: Option<u64>,
}

/// Letters that were looked for.
#[derive(Debug, Default)]
pub struct Found {
    /// At most as many as were asked for, oldest first.
    pub letters: Vec<Letter>,
    /// Where to go on; `None`: there are no more.
    pub after: Option<EntryId>,
}

/// Whether a letter can be dealt with.
#[derive(Debug)]
pub enum Held {
    /// It is this operator's for a while.
    Ours(Box<Letter>),
    /// There is no such letter (any more).
    Gone,
    /// Another operator deals with it.
    Taken,
}

/// Where a letter goes back to, or why it cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The agent's shared inbox, or one instance's own.
    Inbox {
        /// The stream.
        stream: String,
        /// Whose.
        agent: AgentId,
        /// The instance, where it is its own.
        instance: Option<InstanceId>,
    },
    /// The instance it was for is gone.
    InstanceGone(InstanceId),
    /// The inbox holds that many messages already.
    Full(u64),
    /// Something else is under the inbox's key: Redis says what.
    Foreign(String),
    /// The letter names no inbox of its agent, or has no message.
    Unknown,
}

impl Letter {
    /// Which message it is.
    pub fn message_id(&self) -> Option<Uuid> {
        self.envelope.as_deref().and_then(message_id_of)
    }

    /// Whether a server, or an operator's command, has put it here.
    pub fn is_ours(&self, keys: &StoreKeys) -> bool {
        let Some(envelope) = &self.envelope else { return false };
        let text = LetterText {
            envelope,
            agent: &self.agent,
            instance: &self.instance,
            reason: &self.reason,
            attempts: self.attempts,
            history: &self.history_json,
            stream: &self.stream,
            time_ms: self.stated_ms,
        };
        text.check(keys, &self.attest).is_ok()
    }

    pub(super) fn read(id: EntryId, fields: Vec<Value>) -> Self {
        let mut letter = Self {
            id,
            envelope: None,
            agent: String::new(),
            instance: String::new(),
            reason: String::new(),
            attempts: 0,
            history: Vec::new(),
            stream: String::new(),
            time_ms: id.ms,
            attest: Vec::new(),
            history_json: String::new(),
            stated_ms: 0,
        };
        let mut fields = fields.iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            let owned = || text(value).unwrap_or_default().to_owned();
            match text(name) {
                Some(keys::ENVELOPE_FIELD) => letter.envelope = text(value).map(str::to_owned),
                Some("agent_id") => letter.agent = owned(),
                Some("instance_id") => letter.instance = owned(),
                Some("reason") => letter.reason = owned(),
                Some("attempts") => {
                    letter.attempts = answers::int(value).and_then(|n| n.try_into().ok()).unwrap_or(0);
                }
                Some("history") => {
                    // Absent in letters of older versions.
                    letter.history_json = owned();
                    letter.history = serde_json::from_str(&letter.history_json).unwrap_or_default();
                }
                Some(keys::ATTEST_FIELD) => {
                    if let Value::BulkString(bytes) = value {
                        letter.attest.clone_from(bytes);
                    }
                }
                Some("stream") => letter.stream = owned(),
                Some("time_ms") => {
                    letter.stated_ms = answers::int(value).unwrap_or(0);
                    letter.time_ms = if letter.stated_ms == 0 { id.ms } else { letter.stated_ms };
                }
                _ => {}
            }
        }
        letter
    }
}

impl Filter {
    /// Whether it leaves anything out.
    pub fn is_empty(&self) -> bool {
        self.agent.is_none()
            && self.reason.is_none()
            && self.message.is_none()
            && self.from_ms.is_none()
            && self.to_ms.is_none()
    }

    /// Whether it lets a letter through.
    pub fn fits(&self, letter: &Letter) -> bool {
        let is_in_time = self.from_ms.is_none_or(|from_ms| letter.id.ms >= from_ms)
            && self.to_ms.is_none_or(|to_ms| letter.id.ms <= to_ms);
        is_in_time && self.fits_but_for_time(letter)
    }

    fn fits_but_for_time(&self, letter: &Letter) -> bool {
        self.agent.as_ref().is_none_or(|agent| agent.as_str() == letter.agent)
            && self.reason.as_ref().is_none_or(|reason| *reason == letter.reason)
            && self.message.is_none_or(|message| letter.message_id() == Some(message))
    }
}

/// Adds the arguments of the XADD that stores a letter, which `on` records. Its command was started by the caller.
pub fn arguments(batch: &mut Batch, keys: &StoreKeys, burial: &Burial<'_>, on: OnRecord<'_>) {
    // Numbers and strings always serialize.
    let history = serde_json::to_string(burial.history).unwrap_or_default();
    let letter = LetterText {
        envelope: burial.envelope,
        agent: burial.agent.as_str(),
        instance: burial.instance.as_str(),
        reason: burial.reason,
        attempts: burial.attempts,
        history: &history,
        stream: burial.stream,
        time_ms: burial.time_ms,
    };
    let mut attest = String::new();
    letter.attest(keys, on, &mut attest);
    let _ = batch.arg(keys::DEAD_LETTERS).arg("*");
    let _ = batch.arg(keys::ENVELOPE_FIELD).arg(burial.envelope);
    let _ = batch.arg("agent_id").arg(burial.agent.as_str());
    let _ = batch.arg("instance_id").arg(burial.instance.as_str());
    let _ = batch.arg("reason").arg(burial.reason);
    let _ = batch.arg("attempts").arg(burial.attempts);
    let _ = batch.arg("history").arg(&history);
    let _ = batch.arg("stream").arg(burial.stream);
    let _ = batch.arg("entry").arg(burial.entry);
    let _ = batch.arg("time_ms").arg(burial.time_ms);
    let _ = batch.arg(keys::ATTEST_FIELD).arg(attest.as_str());
}

/// The next letters behind the entry `after` that the filter lets through, at most `limit`.
pub fn find(
    connection: &mut Connection,
    filter: &Filter,
    after: Option<EntryId>,
    limit: usize,
) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let mut from = match (after, filter.from_ms) {
        (Some(id), from_ms) if from_ms.is_none_or(|from_ms| from_ms <= id.ms) => format!("({id}"),
        (_, Some(from_ms)) => from_ms.to_string(),
        (_, None) => "-".to_owned(),
    };
    let to = filter.to_ms.map_or_else(|| "+".to_owned(), |to_ms| to_ms.to_string());
    let page = PAGE.to_string();
    loop {
        let letters =
            parse(connection.command("XRANGE", &[keys::DEAD_LETTERS, &from, &to, "COUNT", &page])?)?;
        let more = letters.len() == PAGE;
        for letter in letters {
            if found.letters.len() == limit {
                found.after = found.letters.last().map(|last| last.id);
                return Ok(found);
            }
            from = format!("({}", letter.id);
            if filter.fits_but_for_time(&letter) {
                found.letters.push(letter);
            }
        }
        if !more {
            return Ok(found);
        }
    }
}

/// The newest letter there is.
pub fn newest(connection: &mut Connection) -> Result<Option<EntryId>, StoreError> {
    let answer = connection.command("XREVRANGE", &[keys::DEAD_LETTERS, "+", "-", "COUNT", "1"])?;
    Ok(parse(answer)?.pop().map(|letter| letter.id))
}

/// One letter.
pub fn letter(connection: &mut Connection, id: EntryId) -> Result<Option<Letter>, StoreError> {
    let id = id.to_string();
    Ok(parse(connection.command("XRANGE", &[keys::DEAD_LETTERS, &id, &id])?)?.pop())
}

/// Takes a letter on for `own`, so that nobody else deals with it, and watches that it stays so.
pub fn hold(connection: &mut Connection, id: EntryId, own: &str) -> Result<Held, StoreError> {
    let key = hold_key(id);
    let mut batch = Batch::new();
    let _ = batch.command("SET");
    let _ = batch.arg(&key).arg(own).arg("NX").arg("PX").arg(HOLD_MS);
    let _ = batch.command("WATCH");
    let _ = batch.arg(&key);
    let _ = batch.command("GET");
    let _ = batch.arg(&key);
    // Read behind the hold: whoever had it before may have dealt with the letter.
    let _ = batch.command("XRANGE");
    let _ = batch.arg(keys::DEAD_LETTERS).arg(id).arg(id);
    let mut answers = connection.run(&mut batch)?;
    if let Some(Value::ServerError(error)) = answers.first() {
        let answer = format!("{error:?}");
        return Err(StoreError::Unexpected { command: "taking a dead letter on", answer });
    }
    let letter = parse(answers.pop().unwrap_or_default())?.pop();
    let ours = answers.pop().as_ref().and_then(text) == Some(own);
    Ok(match letter {
        None => Held::Gone,
        Some(letter) if ours => Held::Ours(Box::new(letter)),
        Some(_) => Held::Taken,
    })
}

/// Gives up what [`hold`] took and watched.
pub fn release(connection: &mut Connection, id: EntryId, own: &str) -> Result<(), StoreError> {
    let key = hold_key(id);
    let _ = connection.command("UNWATCH", &[])?;
    if text(&connection.command("GET", &[&key])?) == Some(own) {
        let _ = connection.command("DEL", &[&key])?;
    }
    Ok(())
}

/// Where a letter came from, and whether it can go back there. An instance's own inbox counts only while
/// that instance exists, which is watched from here on.
pub fn origin(connection: &mut Connection, letter: &Letter, max_len: u64) -> Result<Origin, StoreError> {
    let (Some(agent), Some(_)) = (AgentId::parse(&letter.agent), &letter.envelope) else {
        return Ok(Origin::Unknown);
    };
    let shared = keys::inbox(&agent);
    // Nothing but an inbox of this agent, whatever the letter says.
    let instance = match letter.stream.strip_prefix(&shared) {
        Some("") => None,
        Some(rest) => match rest.strip_prefix(':').and_then(InstanceId::parse) {
            Some(instance) => Some(instance),
            None => return Ok(Origin::Unknown),
        },
        None => return Ok(Origin::Unknown),
    };
    if let Some(instance) = &instance {
        let known = keys::instances(&agent);
        let _ = connection.command("WATCH", &[&known])?;
        let exists = connection.command("HEXISTS", &[&known, instance.as_str()])?;
        if answers::int(&exists) != Some(1) {
            return Ok(Origin::InstanceGone(instance.clone()));
        }
    }
    let stream = letter.stream.clone();
    // MULTI does not roll back: the letter must not go where its message cannot.
    match text(&connection.command("TYPE", &[&stream])?) {
        Some("none") => {}
        Some("stream") => {
            let len = answers::int(&connection.command("XLEN", &[&stream])?).unwrap_or(0);
            if len >= max_len {
                return Ok(Origin::Full(len));
            }
        }
        other => return Ok(Origin::Foreign(other.unwrap_or_default().to_owned())),
    }
    Ok(Origin::Inbox { stream, agent, instance })
}

/// The servers that are to be told.
pub fn servers(connection: &mut Connection) -> Result<Vec<ServerId>, StoreError> {
    match connection.command("HKEYS", &[keys::SERVERS])? {
        Value::Array(ids) => Ok(ids.iter().filter_map(text).filter_map(ServerId::parse).collect()),
        other => Err(unexpected("HKEYS", &other)),
    }
}

/// Adds what puts a held letter back as a new entry of its stream, which `on` records, and wakes the servers.
pub fn redrive(
    batch: &mut Batch,
    (letter, agent, stream): (&Letter, &AgentId, &str),
    servers: &[ServerId],
    keys: &StoreKeys,
    on: OnRecord<'_>,
) {
    let _ = batch.command("XADD");
    let envelope = letter.envelope.as_deref().unwrap_or_default();
    let mut attest = String::new();
    Message::whole(stream, envelope).attest(keys, on, None, &mut attest);
    let _ = batch.arg(stream).arg("*").arg(keys::ENVELOPE_FIELD).arg(envelope);
    let _ = batch.arg(keys::ATTEST_FIELD).arg(attest.as_str());
    remove(batch, letter.id);
    let news = News::Inboxes(vec![agent.clone()]).to_text();
    for server in servers {
        let _ = batch.command("PUBLISH");
        let _ = batch.arg(keys::news_for(server)).arg(&news);
    }
}

/// Adds what removes a held letter.
pub fn remove(batch: &mut Batch, id: EntryId) {
    let _ = batch.command("XDEL");
    let _ = batch.arg(keys::DEAD_LETTERS).arg(id);
    let _ = batch.command("DEL");
    let _ = batch.arg(hold_key(id));
}

pub(super) fn hold_key(id: EntryId) -> String {
    keys::once(&format!("{}:{id}", keys::DEAD_LETTERS))
}

pub(super) fn parse(answer: Value) -> Result<Vec<Letter>, StoreError> {
    let Value::Array(items) = answer else {
        return Err(unexpected("XRANGE", &answer));
    };
    items
        .into_iter()
        .map(|item| {
            let (id, fields) = answers::entry(item).ok_or_else(|| unexpected("XRANGE", &Value::Nil))?;
            Ok(Letter::read(id, fields))
        })
        .collect()
}

fn unexpected(command: &'static str, answer: &Value) -> StoreError {
    StoreError::Unexpected { command, answer: format!("{answer:?}").chars().take(200).collect() }
}
