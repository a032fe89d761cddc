//! Emptying an inbox by hand: messages that no connected instance has are taken by a consumer of the operator's own,
//! and only what it holds moves to the dead letters. So nothing is taken from who works on it, and nothing is moved
//! that a server has handed on meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;
use uuid::Uuid;

use super::answers::{self, StreamEntry};
use super::attested::{self, Foreign, OnRecord};
use super::claims::{self, Claimed, Parties, Wanted};
use super::connection::{Batch, Connection, StoreError};
use super::dead_letters::{self, Burial};
use super::fitness;
use super::keys;
use super::news::News;
use super::overview;
use super::owners::{self, Owner};
use crate::audit::StoreKeys;
use crate::audit::attest::NotOurs;
use crate::ids::{AgentId, InstanceId, ServerId};

/// Messages taken in one step: each may be as long as the longest message.
const PAGE: u64 = 16;
/// How long an operator may take with one step before another one may empty the same inbox, in milliseconds.
const HOLD_MS: &str = "60000";
/// Characters that tell one operator's consumer from another's.
const HAND_CHARS: usize = 16;
/// Why a letter is among the dead.
pub const REASON: &str = "emptied";

/// A message that was taken.
#[derive(Debug)]
pub struct Taken {
    /// Its entry in the inbox.
    pub entry: StreamEntry,
    /// How often it was delivered.
    pub attempts: u32,
}

/// Messages that were taken, by who has put them there.
#[derive(Debug)]
pub struct Sorted {
    /// A server.
    pub ours: Vec<Taken>,
    /// Somebody else; as they are stored.
    pub foreign: Vec<(Taken, Foreign)>,
}

/// Whether an inbox may be emptied.
#[derive(Debug)]
pub enum Begun<'a> {
    /// It is this operator's; so many messages are in it.
    Holding(Emptying<'a>, u64),
    /// There is none.
    NoInbox,
    /// Redis has no room for dead letters.
    NoRoom,
    /// Another operator empties it.
    Taken,
}

/// One agent's inbox on its way to be empty.
#[derive(Debug)]
pub struct Emptying<'a> {
    agent: &'a AgentId,
    stream: String,
    /// The operator as a consumer.
    hand: InstanceId,
    servers: BTreeSet<ServerId>,
    /// What this operator holds while it goes on.
    hold: String,
    /// Pending entries before this one were looked at.
    after: Option<String>,
}

impl<'a> Emptying<'a> {
    /// Begins, as a consumer whose name no other has.
    pub fn begin(connection: &mut Connection, agent: &'a AgentId) -> Result<Begun<'a>, StoreError> {
        let stream = keys::inbox(agent);
        let kind = connection.command("TYPE", &[&stream])?;
        if answers::text(&kind) != Some("stream") {
            return Ok(Begun::NoInbox);
        }
        // A letter takes room before its message gives it back.
        let info = connection.command("INFO", &["memory"])?;
        if fitness::memory(&info).is_some_and(|memory| memory.is_full(false)) {
            return Ok(Begun::NoRoom);
        }
        // It exists where an instance was connected before; else the server makes it later, and finds this one.
        let mut batch = Batch::new();
        let _ = batch.command("XGROUP");
        let _ = batch.arg("CREATE").arg(&stream).arg(keys::GROUP).arg("0");
        let _ = connection.run(&mut batch)?;
        let name = Uuid::new_v4().simple().to_string();
        let hand = name.get(..HAND_CHARS).and_then(|name| InstanceId::parse(&format!("operator-{name}")));
        let Some(hand) = hand else { return Ok(Begun::Taken) };
        let hold = keys::once(&format!("{stream}:emptied"));
        let held = connection.command("SET", &[&hold, hand.as_str(), "NX", "PX", HOLD_MS])?;
        if held == Value::Nil {
            return Ok(Begun::Taken);
        }
        let servers = overview::servers(connection)?;
        let waiting = answers::int(&connection.command("XLEN", &[&stream])?).unwrap_or(0);
        Ok(Begun::Holding(Self { agent, stream, hand, servers, hold, after: None }, waiting))
    }

    /// Watches that this operator still holds the inbox; a transaction that follows is refused where another one does.
    pub fn watch(&self, connection: &mut Connection) -> Result<bool, StoreError> {
        let _ = connection.command("WATCH", &[&self.hold])?;
        let holder = connection.command("GET", &[&self.hold])?;
        Ok(answers::text(&holder) == Some(self.hand.as_str()))
    }

    /// The inbox.
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Whether some of the messages have tags of a key that is not at hand.
    pub fn needs_other_keys(&self, taken: &[Taken], keys: &StoreKeys) -> bool {
        let unknown = |taken: &Taken| {
            attested::check_entry(keys, &self.stream, &taken.entry) == Err(NotOurs::UnknownKey)
        };
        taken.iter().any(unknown)
    }

    /// Those of the messages that were taken which no server has put there, as they are stored.
    pub fn foreign(
        &self,
        connection: &mut Connection,
        taken: Vec<Taken>,
        keys: &StoreKeys,
    ) -> Result<Sorted, StoreError> {
        let (ours, others): (Vec<Taken>, Vec<Taken>) = taken
            .into_iter()
            .partition(|taken| attested::check_entry(keys, &self.stream, &taken.entry).is_ok());
        let mut foreign = Vec::with_capacity(others.len());
        for taken in others {
            let id = taken.entry.id.to_text();
            let answer = connection.command("XRANGE", &[&self.stream, &id, &id])?;
            let whole = answers::whole_entries(answer).and_then(|entries| entries.into_iter().next());
            let bytes = whole.map(|whole| whole.fields).unwrap_or_default();
            let entry = Some(taken.entry.id);
            foreign.push((taken, Foreign { key: self.stream.clone(), entry, bytes }));
        }
        Ok(Sorted { ours, foreign })
    }

    /// Takes the next messages, at most `most`; none: there are no more.
    pub fn take(&mut self, connection: &mut Connection, most: u64) -> Result<Vec<Taken>, StoreError> {
        let page = most.clamp(1, PAGE).to_string();
        loop {
            match self.take_pending(connection, &page)? {
                None => return self.take_unread(connection, &page),
                Some(taken) if taken.is_empty() => {}
                Some(taken) => return Ok(taken),
            }
        }
    }

    /// Takes pending messages of instances that are not connected; `None`: all were looked at.
    fn take_pending(
        &mut self,
        connection: &mut Connection,
        page: &str,
    ) -> Result<Option<Vec<Taken>>, StoreError> {
        let from = self.after.as_deref().map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        let answer = connection.command("XPENDING", &[&self.stream, keys::GROUP, &from, "+", page])?;
        let lines = answers::pending(&answer).ok_or_else(|| unexpected("XPENDING", &answer))?;
        let Some(last) = lines.last() else { return Ok(None) };
        self.after = Some(last.id.to_string());
        let known = owners::instances(connection.command("HGETALL", &[&keys::instances(self.agent)])?);
        let is_connected = |owner: &Owner| matches!(owner, Owner::Server(s) if self.servers.contains(s));
        let connected: BTreeSet<String> = known
            .iter()
            .filter(|(_, owner)| is_connected(owner))
            .map(|(instance, _)| keys::consumer(self.agent, instance))
            .collect();
        let prefix = format!("{}-", self.agent);
        let mut held: BTreeMap<InstanceId, Vec<Wanted>> = BTreeMap::new();
        for line in lines.iter().filter(|line| !connected.contains(&line.consumer)) {
            let Some(holder) = line.consumer.strip_prefix(&prefix).and_then(InstanceId::parse) else {
                continue;
            };
            let (delivery, stored) = (line.deliveries, line.deliveries);
            held.entry(holder).or_default().push(Wanted { entry: line.id, delivery, stored });
        }
        // No server: who is connected anywhere keeps what it has.
        let (server, consumer) = (ServerId::new(), keys::consumer(self.agent, &self.hand));
        let mut taken = Vec::new();
        for (holder, entries) in held {
            let parties =
                Parties { agent: self.agent, holder: &holder, consumer: &consumer, server: &server };
            let mut batch = Batch::new();
            claims::claim_alone(&mut batch, &self.stream, parties, &entries);
            let answer = connection.run(&mut batch)?.pop().unwrap_or_default();
            let claimed = claims::read(answer)
                .map_err(|answer| StoreError::Unexpected { command: "claiming by hand", answer })?;
            for claimed in claimed {
                if let Claimed::Taken(entry, attempts) = claimed {
                    taken.push(Taken { entry, attempts });
                }
            }
        }
        Ok(Some(taken))
    }

    fn take_unread(&self, connection: &mut Connection, page: &str) -> Result<Vec<Taken>, StoreError> {
        let consumer = keys::consumer(self.agent, &self.hand);
        let words = ["GROUP", keys::GROUP, &consumer, "COUNT", page, "STREAMS", &self.stream, ">"];
        let answer = connection.command("XREADGROUP", &words)?;
        let shown = format!("{answer:?}").chars().take(200).collect();
        let entries = answers::read_one_stream(answer)
            .ok_or(StoreError::Unexpected { command: "XREADGROUP", answer: shown })?;
        Ok(entries.into_iter().map(|entry| Taken { entry, attempts: 0 }).collect())
    }

    /// Adds what moves messages that were taken to the dead letters, and tells the servers. `records`: where in the lane
    /// each of them is on record, in their order.
    pub fn bury(
        &self,
        batch: &mut Batch,
        taken: &[Taken],
        time_ms: u64,
        keys: &StoreKeys,
        (lane, records): (&str, &[u64]),
    ) {
        for (Taken { entry, attempts }, seq) in taken.iter().zip(records) {
            if let Some(envelope) = &entry.envelope {
                let burial = Burial {
                    envelope,
                    agent: self.agent,
                    instance: &self.hand,
                    reason: REASON,
                    attempts: *attempts,
                    history: &[],
                    stream: &self.stream,
                    entry: entry.id,
                    time_ms,
                };
                let _ = batch.command("XADD");
                dead_letters::arguments(batch, keys, &burial, OnRecord { lane, seq: *seq });
            }
        }
        self.take_out(batch, taken);
    }

    /// Adds what takes messages out of the inbox that are elsewhere now, and tells the servers.
    pub fn take_out(&self, batch: &mut Batch, taken: &[Taken]) {
        for (command, group) in [("XDEL", None), ("XACK", Some(keys::GROUP))] {
            let _ = batch.command(command);
            let _ = batch.arg(&self.stream);
            if let Some(group) = group {
                let _ = batch.arg(group);
            }
            for Taken { entry, .. } in taken {
                let _ = batch.arg(entry.id);
            }
        }
        let _ = batch.command("SET");
        let _ = batch.arg(&self.hold).arg(self.hand.as_str()).arg("PX").arg(HOLD_MS);
        let news = News::Taken(self.agent.clone(), taken.len() as u64).to_text();
        for server in &self.servers {
            let _ = batch.command("PUBLISH");
            let _ = batch.arg(keys::news_for(server)).arg(&news);
        }
    }

    /// Leaves nothing of the operator's consumer behind; what it could not move stays pending, and reaches an instance.
    /// How many messages the inbox has yet.
    pub fn end(self, connection: &mut Connection) -> Result<u64, StoreError> {
        if self.watch(connection)? {
            let _ = connection.command("DEL", &[&self.hold])?;
        }
        let _ = connection.command("UNWATCH", &[])?;
        let consumer = keys::consumer(self.agent, &self.hand);
        let left = connection.command("XPENDING", &[&self.stream, keys::GROUP, "-", "+", "1", &consumer])?;
        if matches!(&left, Value::Array(lines) if lines.is_empty()) {
            let _ = connection.command("XGROUP", &["DELCONSUMER", &self.stream, keys::GROUP, &consumer])?;
        }
        Ok(answers::int(&connection.command("XLEN", &[&self.stream])?).unwrap_or(0))
    }
}

fn unexpected(command: &'static str, answer: &Value) -> StoreError {
    StoreError::Unexpected { command, answer: format!("{answer:?}").chars().take(200).collect() }
}
