//! Callers are told what was decided and committed.

use super::super::Worker;
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};
use crate::refusal::Refusal;
use crate::shard::desk::control::Control;
use crate::shard::desk::job::{CommitJob, Job, MessageJob, ReplyJob};
use crate::shard::desk::outcome::{Accepted, CommitResult, Declined, Discovered};
use crate::shard::inbox::Gone;
use crate::shard::txn::event::Event;
use crate::shard::txn::transaction::{Decided, Success};
use crate::store::pipeline::Effects;

impl Worker {
    /// Tells every caller.
    pub(super) fn answer(
        &mut self,
        jobs: Vec<Job>,
        decided: Vec<Decided>,
        effects: &mut Effects,
        assured: bool,
        now: Now,
    ) {
        for (job, Decided { ruling, counted, receipt, effects: own }) in jobs.into_iter().zip(decided) {
            counted.into_iter().for_each(crate::policy::Counted::keep);
            let success = match ruling {
                Ok(success) => success,
                Err(refusal) => {
                    job.fail(Declined { refusal, receipt });
                    continue;
                }
            };
            if let Some(code) = effects.refused(&own) {
                let error = code.to_owned();
                self.effect_failed(&job, &success, &error);
                job.fail(Refusal::STORAGE_UNAVAILABLE);
                continue;
            }
            self.succeeded(job, success, receipt, (effects, assured), now);
        }
    }

    fn succeeded(
        &mut self,
        job: Job,
        success: Success,
        receipt: Option<crate::shard::desk::outcome::Receipt>,
        (effects, assured): (&mut Effects, bool),
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
            (Job::Commit(job), Success::Committed { result, version, parts }) => {
                let version = version.and_then(|told| effects.take(told)).unwrap_or(result.version);
                self.committed(&job, parts, now);
                job.answer.done(CommitResult { version, ..result }, assured)
            }
            (Job::Discover { answer, .. }, Success::Discovered(found)) => {
                let bytes = found.iter().map(Discovered::bytes).sum();
                answer.put_large(found, bytes)
            }
            (Job::StateGet { caller, answer }, Success::State { fields, version }) => {
                let version = effects.take(version).unwrap_or(0);
                match effects.take(fields) {
                    Some(fields) => {
                        let bytes = fields.iter().map(|(field, value)| field.len() + value.len()).sum();
                        self.shared.states.note(&caller.identity.agent, bytes as u64);
                        answer.put_large((fields, version), bytes)
                    }
                    None => answer.put(Err(Refusal::STORAGE_UNAVAILABLE.into())),
                }
            }
            (Job::StateUpdate { answer, .. }, Success::Changed { version, told }) => {
                answer.done(told.and_then(|told| effects.take(told)).unwrap_or(version), assured)
            }
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

    fn admitted(&mut self, target: &AgentId, now: Now) {
        if let (Some(config), Some(inbox)) = (self.settings.policy.breaker(), self.inboxes.get_mut(target)) {
            inbox.breaker.admitted(config, now.mono_ms);
        }
    }

    /// A commit happened: its delivery is done with, and its messages are on their way.
    fn committed(&mut self, job: &CommitJob, parts: Vec<Success>, now: Now) {
        let agent = &job.caller.identity.agent;
        if let (Some(delivery), Some(inbox)) = (job.delivery, self.inboxes.get_mut(agent)) {
            inbox.committed(&job.instance, delivery);
            self.handler_succeeded(agent, now);
            self.agenda.ready.insert(agent.clone());
        }
        for part in parts {
            match part {
                Success::Queued { target, bytes, .. } => {
                    self.admitted(&target, now);
                    self.tell_home(target, true, bytes);
                }
                Success::Replied { target, instance, bytes, .. } => {
                    self.expect_return(&target, instance, now);
                    self.tell_home(target, false, bytes);
                }
                _ => {}
            }
        }
    }

    /// The inbox of another worker holds something new.
    fn tell_home(&self, agent: AgentId, shared: bool, bytes: u64) {
        if !self.inboxes.contains_key(&agent) {
            self.shared.tell_news(&agent.clone(), Control::Grown { agent, shared, bytes });
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
        log::error!("worker {}: Redis refused an effect: {error}", self.index);
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
