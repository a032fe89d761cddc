//! The questions by which a round reads what its decisions depend on. Each is written in one place, together with what
//! reads its answer.

use std::collections::HashSet;

use super::plan::DueLetter;
use crate::audit::StoreKeys;
use crate::ids::{AgentId, CorrelationId, InstanceId, ServerId};
use crate::shard::inbox::entry::EntryKey;
use crate::shard::txn::facts::{Facts, PendingRequest, Remembered};
use crate::shard::worker::adopt::server_ids;
use crate::shard::worker::agenda::Scan;
use crate::store::answers::{self, PendingEntry, WholeEntry};
use crate::store::owners::{self, Owner};
use crate::store::pipeline::{Answers, Asked};
use crate::store::states::{self, Stored};
use crate::store::{Batch, Value, claims, keys};

/// Lines of a pending entries list read in one round, per scan.
pub(super) const SCAN_PAGE: usize = 256;
/// How long a thing that one server has undertaken is left to it, in milliseconds.
const DUTY_MS: u64 = 60_000;
/// Unread replies of a gone instance that go to the dead letters in one round.
const CLEAR_PAGE: usize = 64;

/// What a scan read.
pub(super) enum Page {
    /// These pending entries.
    Lines(Vec<PendingEntry>),
    /// There is no such group.
    NoGroup,
    /// Something else.
    Unknown,
}

/// Subjects, each with a question about it.
type About<S, T> = Vec<(S, Asked<T>)>;

/// The questions of one round.
pub(super) struct Questions {
    pub facts: FactQuestions,
    pub states: Vec<StateQuestion>,
    pub pages: Vec<Asked<Page>>,
    pub letters: Vec<LetterQuestion>,
    pub remains: Vec<RemainsQuestion>,
}

/// The questions whose answers are facts.
pub(super) struct FactQuestions {
    pub pending: Vec<RequestQuestion>,
    pub remembered: About<(AgentId, String), Option<Vec<u8>>>,
    pub lengths: About<AgentId, Option<u64>>,
    pub holders: About<(AgentId, EntryKey), Option<String>>,
    pub instances: About<AgentId, Vec<(InstanceId, Owner)>>,
    pub servers: Option<Asked<HashSet<ServerId>>>,
    pub trials: About<AgentId, Option<ServerId>>,
}

/// About a request that was not answered yet.
pub(super) struct RequestQuestion {
    id: CorrelationId,
    request: Asked<Option<Vec<u8>>>,
    ttl_ms: Asked<Option<u64>>,
}

/// About an agent's state.
pub(super) struct StateQuestion {
    agent: AgentId,
    asked: StateAsked,
}

/// What is asked about it.
enum StateAsked {
    /// All of it.
    Whole(Asked<Option<Stored>>),
    /// Its version and how many fields it has: the rest is known, if these are as they were.
    Outline(Asked<Option<u64>>, Asked<Option<u64>>),
}

/// What was answered about a state.
pub(super) enum StateAnswer {
    /// The state; `None`: Redis did not say.
    State(Option<Stored>),
    /// Its version and its number of fields.
    Outline(u64, u64),
}

/// About a message that goes to the dead letters. `duty`: who writes it, where several servers could.
pub(super) struct LetterQuestion {
    pub entry: Asked<Option<WholeEntry>>,
    pub duty: Option<Asked<Option<ServerId>>>,
}

/// About the remains of a gone instance. `duty`: who clears them, where several servers could.
pub(super) struct RemainsQuestion {
    pub consumer_free: Asked<bool>,
    pub unread: Asked<Vec<WholeEntry>>,
    pub duty: Option<Asked<Option<ServerId>>>,
}

/// Writes questions.
pub(super) struct Questioner<'a> {
    pub batch: &'a mut Batch,
    pub server: &'a ServerId,
    pub has_peers: bool,
}

impl FactQuestions {
    /// Reads the answers. What no server has stored is no fact.
    pub(super) fn read(self, answers: &mut Answers, server: &ServerId, keys: &StoreKeys) -> Facts {
        let mut facts = Facts::default();
        for RequestQuestion { id, request, ttl_ms } in self.pending {
            let ttl_ms = answers.take(ttl_ms).unwrap_or(0);
            let stored = answers.take(request);
            let read = stored.as_deref().map(|bytes| PendingRequest::read(keys, &id, bytes));
            let request = facts.ours(read, || keys::pending_request(&id), stored.as_deref());
            let _ = facts.pending.insert(id, request.map(|request| (request, ttl_ms)));
        }
        for ((sender, key), asked) in self.remembered {
            let stored = answers.take(asked);
            let read = stored.as_deref().map(|bytes| Remembered::read(keys, &sender, &key, bytes));
            let remembered = facts.ours(read, || keys::idempotency(&sender, &key), stored.as_deref());
            let _ = facts.remembered.insert((sender, key), remembered);
        }
        let lengths = self.lengths.into_iter();
        facts.lengths.extend(lengths.map(|(agent, asked)| (agent, answers.take(asked).unwrap_or(0))));
        let holders = self.holders.into_iter();
        facts.holders.extend(holders.map(|(entry, asked)| (entry, answers.take(asked))));
        let instances = self.instances.into_iter();
        facts.presence.instances.extend(instances.map(|(agent, asked)| (agent, answers.take(asked))));
        if let Some(asked) = self.servers {
            facts.presence.servers = answers.take(asked);
        }
        for (agent, duty) in self.trials {
            if answers.take(duty).as_ref() != Some(server) {
                let _ = facts.trials_elsewhere.insert(agent);
            }
        }
        facts
    }
}

impl StateQuestion {
    /// Reads the answers.
    pub(super) fn read(self, answers: &mut Answers) -> (AgentId, StateAnswer) {
        let answer = match self.asked {
            StateAsked::Whole(stored) => StateAnswer::State(answers.take(stored)),
            StateAsked::Outline(version, fields) => {
                StateAnswer::Outline(answers.take(version).unwrap_or(0), answers.take(fields).unwrap_or(0))
            }
        };
        (self.agent, answer)
    }
}

impl Questioner<'_> {
    pub(super) fn request(&mut self, id: &CorrelationId) -> RequestQuestion {
        let batch = &mut *self.batch;
        let request = batch.ask("GET", stored_bytes);
        let _ = batch.arg(keys::pending_request(id));
        let ttl_ms = batch.ask("PTTL", number);
        let _ = batch.arg(keys::pending_request(id));
        RequestQuestion { id: *id, request, ttl_ms }
    }

    /// `known`: what it was after its last change is known.
    pub(super) fn state(&mut self, agent: &AgentId, known: bool) -> StateQuestion {
        let batch = &mut *self.batch;
        let asked = if known {
            let version = batch.ask("GET", number);
            let _ = batch.arg(keys::state_version(agent));
            let fields = batch.ask("HLEN", number);
            let _ = batch.arg(keys::state(agent));
            StateAsked::Outline(version, fields)
        } else {
            StateAsked::Whole(states::ask_whole(batch, agent))
        };
        StateQuestion { agent: agent.clone(), asked }
    }

    pub(super) fn remembered(
        &mut self,
        key: (AgentId, String),
    ) -> ((AgentId, String), Asked<Option<Vec<u8>>>) {
        let asked = self.batch.ask("GET", stored_bytes);
        let _ = self.batch.arg(keys::idempotency(&key.0, &key.1));
        (key, asked)
    }

    pub(super) fn length(&mut self, agent: AgentId) -> (AgentId, Asked<Option<u64>>) {
        let asked = self.batch.ask("XLEN", number);
        let _ = self.batch.arg(keys::inbox(&agent));
        (agent, asked)
    }

    pub(super) fn holder(
        &mut self,
        (agent, key): (AgentId, EntryKey),
    ) -> ((AgentId, EntryKey), Asked<Option<String>>) {
        let asked = self.batch.ask("XPENDING", claims::holder);
        let _ = self.batch.arg(stream_of(&agent, key.owner.as_ref())).arg(keys::GROUP);
        let _ = self.batch.arg(key.entry).arg(key.entry).arg(1);
        ((agent, key), asked)
    }

    pub(super) fn instances(&mut self, agent: AgentId) -> (AgentId, Asked<Vec<(InstanceId, Owner)>>) {
        let asked = self.batch.ask("HGETALL", owners::instances);
        let _ = self.batch.arg(keys::instances(&agent));
        (agent, asked)
    }

    pub(super) fn servers(&mut self) -> Asked<HashSet<ServerId>> {
        let asked = self.batch.ask("HKEYS", server_ids);
        let _ = self.batch.arg(keys::SERVERS);
        asked
    }

    pub(super) fn trial(&mut self, agent: AgentId) -> (AgentId, Asked<Option<ServerId>>) {
        let duty = self.undertake(&keys::circuit(&agent));
        (agent, duty)
    }

    pub(super) fn page(&mut self, scan: &Scan) -> Asked<Page> {
        let from = scan.after.map_or_else(|| "-".to_owned(), |(entry, _)| format!("({entry}"));
        let page = self.batch.ask("XPENDING", |answer| match answers::pending(&answer) {
            Some(lines) => Page::Lines(lines),
            None if answers::error_code(&answer) == Some("NOGROUP") => Page::NoGroup,
            None => Page::Unknown,
        });
        let _ = self.batch.arg(stream_of(&scan.agent, scan.owner.as_ref())).arg(keys::GROUP);
        let _ = self.batch.arg(from).arg("+").arg(SCAN_PAGE);
        page
    }

    pub(super) fn letter(&mut self, DueLetter { stream, letter, .. }: &DueLetter) -> LetterQuestion {
        let entry = self.batch.ask("XRANGE", first_entry);
        let _ = self.batch.arg(stream).arg(letter.key.entry).arg(letter.key.entry);
        let thing = format!("{stream}:{}", letter.key.entry);
        LetterQuestion { entry, duty: self.undertake_among_peers(&thing) }
    }

    pub(super) fn remains(&mut self, agent: &AgentId, instance: &InstanceId) -> RemainsQuestion {
        let batch = &mut *self.batch;
        let consumer_free = batch.ask("XPENDING", |answer| match &answer {
            Value::Array(lines) => lines.is_empty(),
            // No stream or no group: nothing is pending.
            other => answers::error_code(other) == Some("NOGROUP"),
        });
        let _ = batch.arg(keys::inbox(agent)).arg(keys::GROUP).arg("-").arg("+").arg(1);
        let _ = batch.arg(keys::consumer(agent, instance));
        let unread = batch.ask("XRANGE", |answer| answers::whole_entries(answer).unwrap_or_default());
        let _ = batch.arg(keys::instance_inbox(agent, instance)).arg("-").arg("+");
        let _ = batch.arg("COUNT").arg(CLEAR_PAGE);
        let duty = self.undertake_among_peers(&keys::instance_inbox(agent, instance));
        RemainsQuestion { consumer_free, unread, duty }
    }

    fn undertake_among_peers(&mut self, thing: &str) -> Option<Asked<Option<ServerId>>> {
        self.has_peers.then(|| self.undertake(thing))
    }

    /// Undertakes a thing that any of several servers could do, unless another has; the answer names who does it.
    fn undertake(&mut self, thing: &str) -> Asked<Option<ServerId>> {
        let key = keys::once(thing);
        let _ = self.batch.command("SET");
        let _ = self.batch.arg(&key).arg(self.server.as_str()).arg("NX").arg("PX").arg(DUTY_MS);
        let undertaken = self.batch.ask("GET", |answer| ServerId::parse(answers::text(&answer)?));
        let _ = self.batch.arg(&key);
        undertaken
    }
}

/// The stream of an agent's shared inbox, or of the instance's own.
fn stream_of(agent: &AgentId, owner: Option<&InstanceId>) -> String {
    match owner {
        Some(instance) => keys::instance_inbox(agent, instance),
        None => keys::inbox(agent),
    }
}

fn number(answer: Value) -> Option<u64> {
    answers::int(&answer)
}

fn first_entry(answer: Value) -> Option<WholeEntry> {
    answers::whole_entries(answer)?.into_iter().next()
}

fn stored_bytes(answer: Value) -> Option<Vec<u8>> {
    match answer {
        Value::BulkString(bytes) => Some(bytes),
        _ => None,
    }
}
