//! Callers are told what was decided and committed.

use std::sync::Arc;

use super::super::Worker;
use crate::audit::attest::NotOurs;
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};
use crate::refusal::Refusal;
use crate::shard::desk::answer::Answer;
use crate::shard::desk::control::Control;
use crate::shard::desk::job::{Caller, CommitJob, Job, MessageJob, ReplyJob};
use crate::shard::desk::outcome::{Accepted, Declined};
use crate::shard::desk::session::Session;
use crate::shard::inbox::Gone;
use crate::shard::txn::event::Event;
use crate::shard::txn::transaction::{Decided, StateRead, Success};
use crate::store::pipeline::Effects;
use crate::store::states::Stored;

/// A state that was read.
pub(super) struct StateSeen {
    fields: Result<Vec<(String, String)>, Refusal>,
    version: u64,
    bytes: usize,
}

impl Worker {
    /// The states that a transaction has read.
    pub(super) fn states_seen(&mut self, reads: Vec<StateRead>, effects: &mut Effects) -> Vec<StateSeen> {
        reads.into_iter().map(|read| self.state_seen(read, effects)).collect()
    }

    fn state_seen(
        &mut self,
        StateRead { agent, fields, version, tag }: StateRead,
        effects: &mut Effects,
    ) -> StateSeen {
        let (fields, version, tag) =
            (effects.take(fields), effects.take(version).unwrap_or(0), effects.take(tag));
        // Something else is under its key: no state that a server has stored.
        let stored = Stored { fields: fields.unwrap_or_default(), version, tag };
        let checked = stored.check(&self.keys, &agent);
        let bytes = stored.fields.iter().map(|(field, value)| field.len() + value.len()).sum();
        match checked {
            Ok(_) => {
                self.states.is_ours_again(&agent);
                StateSeen { fields: Ok(stored.fields), version, bytes }
            }
            Err(NotOurs::UnknownKey) => {
                // For the next round.
                drop(self.shared.key_ring.look_for_more(Now::read()));
                StateSeen { fields: Err(Refusal::STORAGE_UNAVAILABLE), version, bytes: 0 }
            }
            Err(NotOurs::Foreign) => {
                self.found_foreign_state(&agent, stored.fields);
                StateSeen { fields: Err(Refusal::STATE_FOREIGN), version, bytes: 0 }
            }
        }
    }

    /// Tells every caller.
    pub(super) fn answer(
        &mut self,
        jobs: Vec<Job>,
        decided: Vec<Decided>,
        (read, effects, assured): (&[StateSeen], &mut Effects, bool),
        now: Now,
    ) {
        for (job, Decided { ruling, counted, receipt, told, effects: own }) in jobs.into_iter().zip(decided) {
            counted.into_iter().for_each(crate::policy::Counted::keep);
            let success = match ruling {
                Ok(success) => success,
                Err(refusal) => {
                    if matches!(refusal, Refusal::QUEUE_FULL | Refusal::COMMIT_REFUSED) {
                        self.weigh_targets(&job, now);
                    }
                    job.fail(Declined { refusal, receipt, told });
                    continue;
                }
            };
            if let Some(code) = effects.refused(&own) {
                let error = code.to_owned();
                self.effect_failed(&job, &success, &error);
                job.fail(Refusal::STORAGE_UNAVAILABLE);
                continue;
            }
            self.succeeded(job, success, receipt, (read, assured), now);
        }
    }

    /// An inbox is full by what is known: sizes are estimates where others add and take too.
    fn weigh_targets(&mut self, job: &Job, now: Now) {
        for agent in job.posts().filter_map(|post| AgentId::parse(&post.target)) {
            if self.inboxes.contains_key(&agent) {
                self.weigh(&agent, now);
            } else {
                self.shared.tell_news(&agent.clone(), Control::Weigh(agent));
            }
        }
    }

    fn succeeded(
        &mut self,
        job: Job,
        success: Success,
        receipt: Option<crate::shard::desk::outcome::Receipt>,
        (read, assured): (&[StateSeen], bool),
        now: Now,
    ) {
        let woken = match (job, success) {
            (Job::Message(MessageJob { answer, .. }), Success::Queued { accepted, target, .. }) => {
                self.admitted(&target, now);
                answer.done(Accepted { receipt, ..accepted }, assured)
            }
            (Job::Message(MessageJob { answer, .. }), Success::Repeated(accepted)) => {
                answer.done(Accepted { receipt, ..accepted }, assured)
            }
            (Job::Reply(ReplyJob { answer, .. }), Success::Replied { accepted, target, instance, .. }) => {
                self.expect_return(&target, instance, now);
                answer.done(Accepted { receipt, ..accepted }, assured)
            }
            (Job::Commit(job), Success::Committed { result, parts }) => {
                self.committed(&job, parts, now);
                job.answer.done(result, assured)
            }
            (Job::Discover { caller, answer, .. }, Success::Discovered(found)) => {
                let bytes = found.iter().map(|agent| agent.bytes()).sum();
                self.tell_large(answer, &caller, bytes, || found)
            }
            (Job::StateGet { caller, answer }, Success::State { read: at }) => match read.get(at) {
                Some(StateSeen { fields: Ok(fields), version, bytes }) => {
                    self.shared.states.note(&caller.identity.agent, *bytes as u64);
                    self.tell_large(answer, &caller, *bytes, || (fields.clone(), *version))
                }
                Some(StateSeen { fields: Err(refusal), .. }) => answer.put(Err((*refusal).into())),
                None => answer.put(Err(Refusal::STORAGE_UNAVAILABLE.into())),
            },
            (Job::StateUpdate { answer, .. }, Success::Changed { version }) => answer.done(version, assured),
            (Job::StateReset { answer, .. }, Success::Done) => answer.done((), assured),
            (Job::Open(session), Success::Opened) => {
                self.opened(&session, now);
                None
            }
            (job, _) => {
                job.fail(Refusal::STORAGE_UNAVAILABLE);
                None
            }
        };
        self.sessions.wake_later(woken);
    }

    /// Answers, unless too much is on its way to that agent already, which is counted.
    fn tell_large<T>(
        &self,
        answer: Answer<T>,
        caller: &Caller,
        bytes: usize,
        done: impl FnOnce() -> T,
    ) -> Option<Arc<Session>> {
        match answer.reserve(bytes) {
            Some(answering) => answer.put_large(done(), answering),
            None => {
                let agent = caller.identity.agent.as_str();
                self.shared.report.unseen(agent, Refusal::OVERLOADED.detail, Now::mono_us());
                answer.put(Err(Refusal::OVERLOADED.into()))
            }
        }
    }

    fn admitted(&mut self, target: &AgentId, now: Now) {
        if let (Some(config), Some(inbox)) = (self.settings.policy.breaker(), self.inboxes.get_mut(target)) {
            inbox.breaker.admitted(config, now.mono_ms);
        }
    }

    /// A commit happened: its delivery is done with, and its messages are on their way.
    fn committed(&mut self, job: &CommitJob, parts: Vec<Success>, now: Now) {
        let agent = &job.caller.identity.agent;
        if let (Some(delivery), Some(inbox)) = (job.delivery, self.inboxes.get_mut(agent)) {
            if let Some(held) = inbox.committed(&job.instance, delivery) {
                inbox.handling.add(&self.link.meter, now.mono_ms.saturating_sub(held.handed_ms));
            }
            self.traced.settle(&self.shared, (agent, delivery), ("ack", ""), now);
            self.handler_succeeded(agent, now);
            self.agenda.ready.insert(agent.clone());
        }
        for part in parts {
            match part {
                Success::Queued { target, .. } => self.admitted(&target, now),
                Success::Replied { target, instance, .. } => self.expect_return(&target, instance, now),
                _ => {}
            }
        }
    }

    /// A reply waits for an instance that may never come back.
    fn expect_return(&mut self, agent: &AgentId, instance: InstanceId, now: Now) {
        let clear_at_ms = now.mono_ms + self.grace_ms();
        if let Some(inbox) = self.inboxes.get_mut(agent)
            && inbox.consumer(&instance).is_none()
        {
            let _ = inbox.gone.entry(instance).or_insert(Gone { since_ms: None, clear_at_ms });
            self.schedule(agent);
        }
    }

    /// The record says allowed, the store said no: that too goes on record, and a request whose reply was
    /// not stored can still be answered.
    fn effect_failed(&mut self, job: &Job, success: &Success, error: &str) {
        log::error!(
            code = "effect_refused", worker = self.index;
            "worker {}: Redis refused an effect: {error}", self.index
        );
        let committed = matches!(job, Job::Commit(_));
        for part in success.parts() {
            let (message_id, agent) = match part {
                Success::Queued { accepted, target, .. } => {
                    if let Some(inbox) = self.inboxes.get_mut(target) {
                        inbox.not_added();
                    }
                    if committed {
                        // Part of it may be there.
                        let _ = self.agenda.measure.insert(target.clone());
                    }
                    (Some(accepted.message_id), target.to_string())
                }
                Success::Replied { accepted, target, correlation_id, pending, ttl_ms, .. } => {
                    self.ledger.push(Event::Unanswered {
                        correlation_id: *correlation_id,
                        pending: pending.clone(),
                        ttl_ms: *ttl_ms,
                    });
                    (Some(accepted.message_id), target.to_string())
                }
                _ => (None, String::new()),
            };
            self.ledger.push(Event::EffectFailed { message_id, agent, error: error.to_owned() });
        }
    }
}
