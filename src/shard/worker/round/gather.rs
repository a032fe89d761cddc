//! Facts that the decisions of a round depend on: read in one round trip, which a round without them does not make, and
//! watched, so that they hold until the round commits.

use std::collections::{BTreeSet, HashSet};

use super::super::Worker;
use super::super::adopt::server_ids;
use super::super::agenda::Scan;
use super::plan::{Letter, Plan};
use crate::clock::Now;
use crate::ids::{AgentId, CorrelationId, InstanceId, ServerId};
use crate::policy::Circuit;
use crate::shard::desk::job::Job;
use crate::shard::inbox::entry::EntryKey;
use crate::shard::txn::facts::{Facts, PendingRequest, Remembered, StateFact};
use crate::store::answers::{self, PendingEntry, StreamEntry};
use crate::store::owners::{self, Owner};
use crate::store::pipeline::{Answers, Asked};
use crate::store::{Batch, StoreError, Value, claims, keys};

/// Lines of a pending entries list read in one round, per scan.
pub(super) const SCAN_PAGE: usize = 256;
/// How long a thing that one server has undertaken is left to it, in milliseconds.
const DUTY_MS: u64 = 60_000;
/// Unread replies of a gone instance that go to the dead letters in one round.
const CLEAR_PAGE: usize = 64;

/// A plan, and what its decisions depend on.
pub(super) struct Gathered {
    pub plan: Plan,
    pub facts: Facts,
    /// The envelopes of the plan's dead letters, and whether this server writes them.
    pub letters: Vec<FoundLetter>,
    /// The remains of the plan's gone instances.
    pub remains: Vec<Remains>,
    /// The pages that the plan's scans read.
    pub pages: Vec<Page>,
    /// Whether keys are watched.
    pub watching: bool,
}

/// A dead letter with its payload.
pub(super) struct FoundLetter {
    pub letter: Letter,
    /// `None`: the message is not in its stream any more.
    pub envelope: Option<String>,
    /// Whether this server writes it.
    pub ours: bool,
}

/// The remains of a gone instance.
pub(super) struct Remains {
    /// Whether this server clears them: no server has the instance, and none has undertaken it.
    pub ours: bool,
    /// Its unread replies.
    pub unread: Vec<StreamEntry>,
    /// Nothing of it is pending in the shared inbox.
    pub consumer_free: bool,
}

/// What a scan read.
pub(super) enum Page {
    /// These pending entries.
    Lines(Vec<PendingEntry>),
    /// There is no such group.
    NoGroup,
    /// Something else.
    Unknown,
}

/// The questions of one round.
struct Questions {
    pending: Vec<(CorrelationId, Asked<Option<PendingRequest>>, Asked<Option<u64>>)>,
    states: Vec<(AgentId, Asked<StateSizes>, Asked<Option<u64>>)>,
    remembered: Vec<((AgentId, String), Asked<Option<Remembered>>)>,
    lengths: Vec<(AgentId, Asked<Option<u64>>)>,
    holders: Vec<((AgentId, EntryKey), Asked<Option<String>>)>,
    instances: Vec<(AgentId, Asked<Vec<(InstanceId, Owner)>>)>,
    servers: Option<Asked<HashSet<ServerId>>>,
    pages: Vec<Asked<Page>>,
    letters: Vec<(Asked<Option<StreamEntry>>, Option<Asked<Option<String>>>)>,
    remains: Vec<(Asked<bool>, Asked<Vec<StreamEntry>>, Option<Asked<Option<String>>>)>,
    trials: Vec<(AgentId, Asked<Option<String>>)>,
}

type StateSizes = std::collections::HashMap<String, usize>;

/// What a round's jobs and business name.
struct Subjects {
    answered: Vec<CorrelationId>,
    states: Vec<AgentId>,
    keyed: Vec<(AgentId, String)>,
    present: BTreeSet<AgentId>,
}

impl Subjects {
    fn is_empty(&self) -> bool {
        self.answered.is_empty() && self.states.is_empty() && self.keyed.is_empty() && self.present.is_empty()
    }
}

impl Worker {
    /// Reads what the plan's decisions depend on.
    pub(super) fn gather(&mut self, plan: Plan) -> Result<Gathered, (Plan, StoreError)> {
        self.link.batch.clear();
        let subjects = self.subjects(&plan);
        let watching = !subjects.is_empty();
        if watching {
            watch(&mut self.link.batch, &subjects, &plan.clears);
        }
        let questions = self.ask(&plan, &subjects);
        if self.link.batch.is_empty() {
            let facts = Facts::default();
            let (letters, remains, pages) = (Vec::new(), Vec::new(), Vec::new());
            return Ok(Gathered { plan, facts, letters, remains, pages, watching });
        }
        match self.read_batch() {
            Ok(answers) => Ok(self.read(plan, questions, answers, watching)),
            Err(error) => Err((plan, error)),
        }
    }

    fn subjects(&self, plan: &Plan) -> Subjects {
        let jobs = &plan.jobs;
        let opening = jobs.iter().filter_map(Job::as_open).map(|session| &session.identity.agent);
        let events = self.ledger.events().iter().take(plan.events);
        let cleared = plan.clears.iter().map(|(agent, _)| agent);
        let states: BTreeSet<&AgentId> = jobs.iter().filter_map(Job::changed_state).collect();
        Subjects {
            answered: jobs.iter().flat_map(Job::answered).collect(),
            states: states.into_iter().cloned().collect(),
            keyed: keyed(jobs),
            present: opening
                .chain(events.filter_map(|event| event.of_instance()))
                .chain(cleared)
                .cloned()
                .collect(),
        }
    }

    fn ask(&mut self, plan: &Plan, subjects: &Subjects) -> Questions {
        let has_peers = self.shared.has_peers();
        let lengths = self.homes_elsewhere(&plan.jobs);
        let holders = self.uncertain(&plan.jobs);
        let trials = if has_peers { self.trials(&plan.jobs, Now::read()) } else { Vec::new() };
        let server = self.shared.server.clone();
        let batch = &mut self.link.batch;
        Questions {
            pending: subjects.answered.iter().map(|id| ask_pending(batch, id)).collect(),
            states: subjects.states.iter().map(|agent| ask_state(batch, agent)).collect(),
            remembered: subjects.keyed.iter().map(|key| ask_remembered(batch, key)).collect(),
            lengths: lengths.into_iter().map(|agent| ask_length(batch, agent)).collect(),
            holders: holders.into_iter().map(|entry| ask_holder(batch, entry)).collect(),
            instances: subjects.present.iter().map(|agent| ask_instances(batch, agent)).collect(),
            servers: (!subjects.present.is_empty()).then(|| {
                let asked = batch.ask("HKEYS", server_ids);
                let _ = batch.arg(keys::SERVERS);
                asked
            }),
            pages: plan.scans.iter().map(|scan| ask_page(batch, scan)).collect(),
            letters: plan
                .letters
                .iter()
                .map(|Letter { stream, letter, .. }| {
                    let entry = batch.ask("XRANGE", first_entry);
                    let _ = batch.arg(stream).arg(letter.key.entry).arg(letter.key.entry);
                    let thing = format!("{stream}:{}", letter.key.entry);
                    (entry, has_peers.then(|| undertake(batch, &thing, &server)))
                })
                .collect(),
            remains: plan
                .clears
                .iter()
                .map(|(agent, instance)| {
                    let (free, unread) = ask_remains(batch, agent, instance);
                    let thing = keys::instance_inbox(agent, instance);
                    (free, unread, has_peers.then(|| undertake(batch, &thing, &server)))
                })
                .collect(),
            trials: trials
                .into_iter()
                .map(|agent| {
                    let duty = undertake(batch, &keys::circuit(&agent), &server);
                    (agent, duty)
                })
                .collect(),
        }
    }

    fn read(&self, plan: Plan, questions: Questions, mut answers: Answers, watching: bool) -> Gathered {
        let mut facts = Facts::default();
        let own = |duty: Option<String>| duty.as_deref() == Some(self.shared.server.as_str());
        for (id, pending, ttl) in questions.pending {
            let ttl_ms = answers.take(ttl).unwrap_or(0);
            let fact = answers.take(pending).map(|pending| (pending, ttl_ms));
            let _ = facts.pending.insert(id, fact);
        }
        for (agent, sizes, version) in questions.states {
            let (sizes, version) = (answers.take(sizes), answers.take(version).unwrap_or(0));
            let _ = facts.states.insert(agent, StateFact { sizes, version });
        }
        for (key, remembered) in questions.remembered {
            let _ = facts.remembered.insert(key, answers.take(remembered));
        }
        for (agent, length) in questions.lengths {
            let _ = facts.lengths.insert(agent, answers.take(length).unwrap_or(0));
        }
        for (entry, holder) in questions.holders {
            let _ = facts.holders.insert(entry, answers.take(holder));
        }
        for (agent, instances) in questions.instances {
            let _ = facts.presence.instances.insert(agent, answers.take(instances));
        }
        if let Some(servers) = questions.servers {
            facts.presence.servers = answers.take(servers);
        }
        let pages = questions.pages.into_iter().map(|page| answers.take(page)).collect();
        let mut letters = Vec::with_capacity(plan.letters.len());
        for (letter, (entry, duty)) in plan.letters.iter().zip(questions.letters) {
            let envelope = answers.take(entry).and_then(|entry| entry.envelope);
            let ours = duty.is_none_or(|duty| own(answers.take(duty)));
            let Letter { agent, stream, letter } = letter;
            let letter = Letter { agent: agent.clone(), stream: stream.clone(), letter: letter.clone() };
            letters.push(FoundLetter { letter, envelope, ours });
        }
        let mut remains = Vec::with_capacity(plan.clears.len());
        for ((agent, instance), (free, unread, duty)) in plan.clears.iter().zip(questions.remains) {
            let undertaken = duty.is_none_or(|duty| own(answers.take(duty)));
            let ours = undertaken && !facts.presence.elsewhere(agent, instance, &self.shared.server);
            let (consumer_free, unread) = (answers.take(free), answers.take(unread));
            remains.push(Remains { ours, unread, consumer_free });
        }
        for (agent, duty) in questions.trials {
            if !own(answers.take(duty)) {
                let _ = facts.trials_elsewhere.insert(agent);
            }
        }
        Gathered { plan, facts, letters, remains, pages, watching }
    }

    /// Targets of this round's commits whose inboxes are another worker's.
    fn homes_elsewhere(&self, jobs: &[Job]) -> Vec<AgentId> {
        let commits = jobs.iter().filter(|job| matches!(job, Job::Commit(_)));
        let targets: BTreeSet<&str> = commits.flat_map(Job::posts).map(|post| post.target.as_str()).collect();
        let foreign = targets.into_iter().filter(|target| !self.inboxes.contains_key(*target));
        let policy = &self.settings.policy;
        foreign.filter_map(|target| policy.agent(target)).map(|card| card.id.clone()).collect()
    }

    /// Deliveries that commits of this round acknowledge, of inboxes whose pending entries have not been compared since
    /// the last connect: a transaction whose answer was lost may have settled them.
    fn uncertain(&self, jobs: &[Job]) -> Vec<(AgentId, EntryKey)> {
        let commits = jobs.iter().filter_map(|job| match job {
            Job::Commit(job) => Some((job, job.delivery?)),
            _ => None,
        });
        let entries = commits.filter_map(|(job, delivery)| {
            let agent = &job.caller.identity.agent;
            let inbox = self.inboxes.get(agent).filter(|inbox| !inbox.verified)?;
            Some((inbox.agent.clone(), EntryKey::of(&job.instance, delivery.source, delivery.entry)))
        });
        entries.collect()
    }

    /// Targets whose half-open circuits may let one message of this round through.
    fn trials(&self, jobs: &[Job], now: Now) -> Vec<AgentId> {
        let Some(config) = self.settings.policy.breaker() else {
            return Vec::new();
        };
        let targets =
            jobs.iter().flat_map(Job::posts).filter_map(|post| self.inboxes.get(post.target.as_str()));
        let half_open =
            targets.filter(|inbox| inbox.breaker.circuit(config, now.mono_ms) == Circuit::HalfOpen);
        let trials: BTreeSet<AgentId> = half_open.map(|inbox| inbox.agent.clone()).collect();
        trials.into_iter().collect()
    }
}

/// Watches everything that a decision of this round depends on.
fn watch(batch: &mut Batch, subjects: &Subjects, clears: &[(AgentId, InstanceId)]) {
    let _ = batch.command("WATCH");
    for id in &subjects.answered {
        let _ = batch.arg(keys::pending_request(id));
    }
    for agent in &subjects.states {
        let _ = batch.arg(keys::state(agent)).arg(keys::state_version(agent));
    }
    for (sender, key) in &subjects.keyed {
        let _ = batch.arg(keys::idempotency(sender, key));
    }
    for agent in &subjects.present {
        let _ = batch.arg(keys::instances(agent));
    }
    for (agent, instance) in clears {
        // A reply that comes while it is looked at must not be cleared away.
        let _ = batch.arg(keys::instance_inbox(agent, instance));
    }
}

/// Senders and keys of messages that may be repetitions.
fn keyed(jobs: &[Job]) -> Vec<(AgentId, String)> {
    let keys_of = |job: &Job| -> Vec<(AgentId, String)> {
        let Some(sender) = job.sender() else {
            return Vec::new();
        };
        job.posts().filter_map(|post| Some((sender.clone(), post.idempotency_key.clone()?))).collect()
    };
    jobs.iter().flat_map(keys_of).collect()
}

fn number(answer: Value) -> Option<u64> {
    answers::int(&answer)
}

fn string(answer: Value) -> Option<String> {
    answers::text(&answer).map(str::to_owned)
}

fn first_entry(answer: Value) -> Option<StreamEntry> {
    answers::entries(answer)?.into_iter().next()
}

fn ask_pending(
    batch: &mut Batch,
    id: &CorrelationId,
) -> (CorrelationId, Asked<Option<PendingRequest>>, Asked<Option<u64>>) {
    let pending = batch.ask("GET", |answer| serde_json::from_str(answers::text(&answer)?).ok());
    let _ = batch.arg(keys::pending_request(id));
    let ttl = batch.ask("PTTL", number);
    let _ = batch.arg(keys::pending_request(id));
    (*id, pending, ttl)
}

fn ask_state(batch: &mut Batch, agent: &AgentId) -> (AgentId, Asked<StateSizes>, Asked<Option<u64>>) {
    let sizes = batch.ask("HGETALL", |answer| {
        let fields = answers::pairs(answer).unwrap_or_default();
        fields.into_iter().map(|(field, value)| (field, value.len())).collect()
    });
    let _ = batch.arg(keys::state(agent));
    let version = batch.ask("GET", number);
    let _ = batch.arg(keys::state_version(agent));
    (agent.clone(), sizes, version)
}

fn ask_remembered(
    batch: &mut Batch,
    (sender, key): &(AgentId, String),
) -> ((AgentId, String), Asked<Option<Remembered>>) {
    let remembered = batch.ask("GET", |answer| Remembered::parse(answers::text(&answer)?));
    let _ = batch.arg(keys::idempotency(sender, key));
    ((sender.clone(), key.clone()), remembered)
}

fn ask_length(batch: &mut Batch, agent: AgentId) -> (AgentId, Asked<Option<u64>>) {
    let length = batch.ask("XLEN", number);
    let _ = batch.arg(keys::inbox(&agent));
    (agent, length)
}

fn ask_holder(
    batch: &mut Batch,
    (agent, key): (AgentId, EntryKey),
) -> ((AgentId, EntryKey), Asked<Option<String>>) {
    let stream = match &key.owner {
        Some(instance) => keys::instance_inbox(&agent, instance),
        None => keys::inbox(&agent),
    };
    let holder = batch.ask("XPENDING", claims::holder);
    let _ = batch.arg(stream).arg(keys::GROUP).arg(key.entry).arg(key.entry).arg(1);
    ((agent, key), holder)
}

fn ask_instances(batch: &mut Batch, agent: &AgentId) -> (AgentId, Asked<Vec<(InstanceId, Owner)>>) {
    let instances = batch.ask("HGETALL", owners::instances);
    let _ = batch.arg(keys::instances(agent));
    (agent.clone(), instances)
}

fn ask_page(batch: &mut Batch, scan: &Scan) -> Asked<Page> {
    let stream = match &scan.owner {
        Some(instance) => keys::instance_inbox(&scan.agent, instance),
        None => keys::inbox(&scan.agent),
    };
    let from = scan.after.map_or_else(|| "-".to_owned(), |(entry, _)| format!("({entry}"));
    let page = batch.ask("XPENDING", |answer| match answers::pending(&answer) {
        Some(lines) => Page::Lines(lines),
        None if answers::error_code(&answer) == Some("NOGROUP") => Page::NoGroup,
        None => Page::Unknown,
    });
    let _ = batch.arg(stream).arg(keys::GROUP).arg(from).arg("+").arg(SCAN_PAGE);
    page
}

fn ask_remains(
    batch: &mut Batch,
    agent: &AgentId,
    instance: &InstanceId,
) -> (Asked<bool>, Asked<Vec<StreamEntry>>) {
    let free = batch.ask("XPENDING", |answer| match &answer {
        Value::Array(lines) => lines.is_empty(),
        // No stream or no group: nothing is pending.
        other => answers::error_code(other) == Some("NOGROUP"),
    });
    let _ = batch.arg(keys::inbox(agent)).arg(keys::GROUP).arg("-").arg("+").arg(1);
    let _ = batch.arg(keys::consumer(agent, instance));
    let unread = batch.ask("XRANGE", |answer| answers::entries(answer).unwrap_or_default());
    let _ = batch.arg(keys::instance_inbox(agent, instance)).arg("-").arg("+");
    let _ = batch.arg("COUNT").arg(CLEAR_PAGE);
    (free, unread)
}

/// Adds the commands by which one of several servers undertakes a thing that any could do; the answer names it.
fn undertake(batch: &mut Batch, thing: &str, server: &ServerId) -> Asked<Option<String>> {
    let key = keys::once(thing);
    let _ = batch.command("SET");
    let _ = batch.arg(&key).arg(server.as_str()).arg("NX").arg("PX").arg(DUTY_MS);
    let holder = batch.ask("GET", string);
    let _ = batch.arg(&key);
    holder
}
