//! Facts that the decisions of a round depend on: read in one round trip, which a round without them does not make, and
//! watched, so that they hold until the round commits.

use std::collections::BTreeSet;

use super::super::Worker;
use super::ask::{
    FactQuestions, LetterQuestion, Page, Questioner, Questions, RemainsQuestion, StateAnswer, StateQuestion,
};
use super::plan::{DueLetter, Plan};
use crate::audit::StoreKeys;
use crate::audit::attest::NotOurs;
use crate::clock::Now;
use crate::ids::{AgentId, AgentMap, CorrelationId, InstanceId};
use crate::policy::Circuit;
use crate::shard::desk::job::Job;
use crate::shard::inbox::entry::EntryKey;
use crate::shard::txn::event::Event;
use crate::shard::txn::facts::{Facts, ForeignFact, StateFact};
use crate::shard::worker::adopt::ask_bytes;
use crate::store::answers::{EntryId, WholeEntry};
use crate::store::attested::{self, Foreign};
use crate::store::pipeline::{Answers, Asked};
use crate::store::states::{self, Stored};
use crate::store::{Batch, StoreError, keys};

/// Inboxes whose bytes are asked for in one round.
const MAX_WEIGHED: usize = 16;

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
    pub letter: DueLetter,
    pub body: Body,
    /// Whether this server writes it.
    pub ours: bool,
}

/// What is in a stream where an entry should be.
pub(super) enum Body {
    /// Nothing any more.
    Missing,
    /// This message.
    Ours(String),
    /// What somebody else has put there.
    Foreign(Foreign),
}

/// The remains of a gone instance.
pub(super) struct Remains {
    /// Whether this server clears them: no server has the instance, and none has undertaken it.
    pub ours: bool,
    /// Its unread replies.
    pub unread: Vec<(EntryId, Body)>,
    /// Nothing of it is pending in the shared inbox.
    pub consumer_free: bool,
}

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

/// The questions whose answers are no facts.
type Others = (Vec<Asked<Page>>, Vec<LetterQuestion>, Vec<RemainsQuestion>);

impl Worker {
    /// Reads what the plan's decisions depend on.
    pub(super) fn gather(&mut self, plan: Plan) -> Result<Gathered, Box<(Plan, StoreError)>> {
        self.link.batch.clear();
        let subjects = self.subjects(&plan);
        let watching = !subjects.is_empty();
        if watching {
            watch(&mut self.link.batch, &subjects, &plan.clears);
        }
        let questions = self.ask(&plan, &subjects);
        let weighed = self.ask_weights();
        if self.link.batch.is_empty() {
            let facts = Facts::default();
            let (letters, remains, pages) = (Vec::new(), Vec::new(), Vec::new());
            return Ok(Gathered { plan, facts, letters, remains, pages, watching });
        }
        let (questions, mut answers) = match self.read_batch() {
            Ok(answers) => (questions, answers),
            Err(error) => return Err(Box::new((plan, error))),
        };
        for (agent, asked) in weighed {
            if let Some(inbox) = self.inboxes.get_mut(&agent) {
                // As Redis has it before this round: nothing that follows takes it back.
                inbox.weighed(answers.take(asked));
            }
        }
        let Questions { facts, states, pages, letters, remains } = questions;
        let (states, foreign_states) = match self.read_states(states, &mut answers) {
            Ok(read) => read,
            Err(error) => return Err(Box::new((plan, error))),
        };
        let mut facts = facts.read(&mut answers, &self.shared.server, &self.keys);
        if facts.unreadable {
            // For the next round.
            drop(self.shared.key_ring.look_for_more(Now::read()));
        }
        facts.states = states;
        facts.foreign.extend(foreign_states);
        for ForeignFact { found, .. } in &facts.foreign {
            log::error!(
                code = "foreign_entry", key = found.key.as_str();
                "{} is not what a server has stored: it is put aside", found.key
            );
        }
        let others = (pages, letters, remains);
        Ok(self.read(plan, facts, others, answers, watching))
    }

    /// The states that are changed in this round; those that are not as they are remembered are read as a whole.
    fn read_states(
        &mut self,
        questions: Vec<StateQuestion>,
        answers: &mut Answers,
    ) -> Result<(AgentMap<StateFact>, Vec<ForeignFact>), StoreError> {
        let (mut whole, mut changed, mut states) = (Vec::new(), Vec::new(), AgentMap::default());
        for question in questions {
            match question.read(answers) {
                (agent, StateAnswer::State(stored)) => whole.push((agent, stored)),
                (agent, StateAnswer::Outline(version, fields)) => {
                    let known = self.states.take(&agent, version, fields);
                    match known.filter(|state| state.is_of(&self.keys)) {
                        Some(state) => drop(states.insert(agent, state)),
                        None => changed.push(agent),
                    }
                }
            }
        }
        if !changed.is_empty() {
            self.link.batch.clear();
            let asked: Vec<Asked<Option<Stored>>> =
                changed.iter().map(|agent| states::ask_whole(&mut self.link.batch, agent)).collect();
            let mut answers = self.read_batch()?;
            whole.extend(changed.into_iter().zip(asked).map(|(agent, asked)| (agent, answers.take(asked))));
        }
        let mut foreign = Vec::new();
        for (agent, stored) in whole {
            let unread = || {
                let answer = "no answer of a script".to_owned();
                StoreError::Unexpected { command: "reading a state", answer }
            };
            let stored = stored.ok_or_else(unread)?;
            let fact = StateFact::new(&self.keys, &agent, &stored);
            match fact.not_ours {
                None => self.states.is_ours_again(&agent),
                Some(NotOurs::UnknownKey) => drop(self.shared.key_ring.look_for_more(Now::read())),
                Some(NotOurs::Foreign) if self.states.is_newly_foreign(&agent) => {
                    let (agent, found) = (Some(agent.clone()), foreign_state(&agent, stored.fields));
                    foreign.push(ForeignFact { agent, found, stays: true });
                }
                Some(NotOurs::Foreign) => {}
            }
            let _ = states.insert(agent, fact);
        }
        Ok((states, foreign))
    }

    /// A state that somebody else has changed goes on record, once until it is changed by a server. It stays.
    pub(super) fn found_foreign_state(&mut self, agent: &AgentId, fields: Vec<(String, String)>) {
        let is_new = self.states.is_newly_foreign(agent);
        // What was known of it is no use any more.
        self.states.note_foreign(agent);
        if !is_new {
            return;
        }
        let found = foreign_state(agent, fields);
        log::error!(
            code = "foreign_entry", key = found.key.as_str();
            "{} is not what servers have stored: nothing is done with it", found.key
        );
        self.ledger.push(Event::ForeignState { agent: agent.clone(), found });
    }

    fn ask_weights(&mut self) -> Vec<(AgentId, Asked<Option<u64>>)> {
        let agents: Vec<AgentId> = self.agenda.weigh.iter().take(MAX_WEIGHED).cloned().collect();
        let ask = |agent: AgentId| {
            let _ = self.agenda.weigh.remove(&agent);
            let asked = ask_bytes(&mut self.link.batch, &agent);
            (agent, asked)
        };
        agents.into_iter().map(ask).collect()
    }

    fn questioner(&mut self) -> Questioner<'_> {
        Questioner {
            batch: &mut self.link.batch,
            server: &self.shared.server,
            has_peers: self.shared.has_peers(),
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
                .chain(events.filter_map(|event| event.of_instance()).map(|(agent, _)| agent))
                .chain(cleared)
                .cloned()
                .collect(),
        }
    }

    fn ask(&mut self, plan: &Plan, subjects: &Subjects) -> Questions {
        let trials = if self.shared.has_peers() { self.trials(&plan.jobs, Now::read()) } else { Vec::new() };
        let lengths = self.homes_elsewhere(&plan.jobs);
        let holders = self.uncertain(&plan.jobs);
        let known: Vec<bool> = subjects.states.iter().map(|agent| self.states.knows(agent)).collect();
        let mut ask = self.questioner();
        let states = subjects.states.iter().zip(known).map(|(agent, known)| ask.state(agent, known));
        let states = states.collect();
        let facts = FactQuestions {
            pending: subjects.answered.iter().map(|id| ask.request(id)).collect(),
            remembered: subjects.keyed.iter().map(|key| ask.remembered(key.clone())).collect(),
            lengths: lengths.into_iter().map(|agent| ask.length(agent)).collect(),
            holders: holders.into_iter().map(|entry| ask.holder(entry)).collect(),
            instances: subjects.present.iter().map(|agent| ask.instances(agent.clone())).collect(),
            servers: (!subjects.present.is_empty()).then(|| ask.servers()),
            trials: trials.into_iter().map(|agent| ask.trial(agent)).collect(),
        };
        Questions {
            facts,
            states,
            pages: plan.scans.iter().map(|scan| ask.page(scan)).collect(),
            letters: plan.letters.iter().map(|letter| ask.letter(letter)).collect(),
            remains: plan.clears.iter().map(|(agent, instance)| ask.remains(agent, instance)).collect(),
        }
    }

    fn read(
        &self,
        plan: Plan,
        facts: Facts,
        (pages, letters, remains): Others,
        mut answers: Answers,
        watching: bool,
    ) -> Gathered {
        let server = &self.shared.server;
        let pages = pages.into_iter().map(|page| answers.take(page)).collect();
        let letters = plan.letters.iter().zip(letters).map(|(letter, asked)| FoundLetter {
            letter: letter.clone(),
            body: body(&self.keys, &letter.stream, answers.take(asked.entry)),
            ours: asked.duty.is_none_or(|duty| answers.take(duty).as_ref() == Some(server)),
        });
        let letters = letters.collect();
        let remains = plan.clears.iter().zip(remains).map(|((agent, instance), asked)| {
            let undertaken = asked.duty.is_none_or(|duty| answers.take(duty).as_ref() == Some(server));
            Remains {
                ours: undertaken && !facts.presence.elsewhere(agent, instance, server),
                unread: answers
                    .take(asked.unread)
                    .into_iter()
                    .map(|entry| {
                        let stream = keys::instance_inbox(agent, instance);
                        (entry.entry.id, body(&self.keys, &stream, Some(entry)))
                    })
                    .collect(),
                consumer_free: answers.take(asked.consumer_free),
            }
        });
        let remains = remains.collect();
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

fn foreign_state(agent: &AgentId, fields: Vec<(String, String)>) -> Foreign {
    let bytes = fields.into_iter().flat_map(|(field, value)| [field.into_bytes(), value.into_bytes()]);
    Foreign { key: keys::state(agent), entry: None, bytes: bytes.collect() }
}

/// What stands in a stream where an entry should be.
fn body(keys: &StoreKeys, stream: &str, found: Option<WholeEntry>) -> Body {
    let Some(WholeEntry { entry, fields }) = found else {
        return Body::Missing;
    };
    match attested::check_entry(keys, stream, &entry) {
        Ok(_) => Body::Ours(entry.envelope.unwrap_or_default()),
        Err(_) => Body::Foreign(Foreign { key: stream.to_owned(), entry: Some(entry.id), bytes: fields }),
    }
}

/// Watches everything that a decision of this round depends on.
fn watch(batch: &mut Batch, subjects: &Subjects, clears: &[(AgentId, InstanceId)]) {
    let _ = batch.command("WATCH");
    for id in &subjects.answered {
        let _ = batch.arg(keys::pending_request(id));
    }
    for agent in &subjects.states {
        let _ = batch.arg(keys::state(agent)).arg(keys::state_version(agent)).arg(keys::state_tag(agent));
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
