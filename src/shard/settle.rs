//! What follows a commit: callers are told, and what the worker remembers follows what Redis holds now.

use super::decide::{Decided, Success};
use super::flow::parts;
use super::gather::{Clear, Letter};
use super::inbox::MAX_ATTEMPTS_REASON;
use super::job::{Accepted, CommitJob, Committed, Control, Declined, Job, MessageJob, ReplyJob};
use super::notes::Note;
use super::worker::{STALL_MS, Worker};
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};
use crate::refusal::Refusal;
use crate::store::Value;
use crate::store::answers::{self};

impl Worker {
    pub(super) fn settle_letters(
        &mut self,
        letters: Vec<Letter>,
        effects: &[std::ops::Range<usize>],
        values: &[Value],
        now: Now,
    ) {
        for (Letter { agent, letter, .. }, effects) in letters.into_iter().zip(effects) {
            if let Some(error) = failed(values, effects) {
                log::error!("agent {agent}: a dead letter could not be stored: {error}");
                self.stalled_until_ms = now.mono_ms + STALL_MS;
                continue;
            }
            // It is in the dead letters: out of the inbox with it, as if it had been acknowledged. A crash in
            // between leaves it in both, never in neither.
            if letter.reason == MAX_ATTEMPTS_REASON {
                self.handler_failed(&agent, &letter.reason, now);
            }
            if let Some(inbox) = self.inboxes.get_mut(&agent) {
                inbox.dead.retain(|other| other.key != letter.key);
                if inbox.dead.is_empty() {
                    let _ = self.dying.remove(&agent);
                }
                inbox.acked.push(letter.key);
                self.ready.insert(agent);
            }
        }
    }

    pub(super) fn settle_clears(&mut self, clears: Vec<Clear>, now: Now) {
        let again_at_ms = now.mono_ms + self.grace_ms();
        for Clear { agent, instance, unread, ours, consumer_free } in clears {
            let Some(inbox) = self.inboxes.get_mut(&agent) else {
                continue;
            };
            if !ours {
                inbox.cleared(&instance);
            } else if unread {
                // Once its replies are out of its inbox.
                let _ = inbox.gone.insert(instance, now.mono_ms + STALL_MS);
            } else if consumer_free {
                inbox.cleared(&instance);
            } else {
                // Its share of the inbox waits for another instance; the consumer is needed until then.
                let _ = inbox.gone.insert(instance, again_at_ms);
            }
            self.schedule(&agent);
        }
    }

    /// Tells every caller what was decided and committed.
    pub(super) fn answer(
        &mut self,
        jobs: Vec<Job>,
        decided: Vec<Decided>,
        mut values: Vec<Value>,
        assured: bool,
        now: Now,
    ) {
        for (job, Decided { outcome, effects, receipt, .. }) in jobs.into_iter().zip(decided) {
            let success = match outcome {
                Ok(success) => success,
                Err(refusal) => {
                    job.fail(Declined { refusal, receipt });
                    continue;
                }
            };
            if let Some(error) = failed(&values, &effects) {
                self.effect_failed(&job, success, error);
                job.fail(Refusal::STORAGE_UNAVAILABLE);
                continue;
            }
            let version = |at: Option<usize>, otherwise: u64| {
                at.and_then(|at| values.get(at)).and_then(answers::int).unwrap_or(otherwise)
            };
            match (job, success) {
                (Job::Message(MessageJob { answer, .. }), Success::Queued { accepted, target, .. }) => {
                    self.admitted(&target, now);
                    self.to_wake.extend(answer.done(Accepted { receipt, ..accepted }, assured));
                }
                (Job::Message(MessageJob { answer, .. }), Success::Repeated(accepted)) => {
                    self.to_wake.extend(answer.done(Accepted { receipt, ..accepted }, assured));
                }
                (
                    Job::Reply(ReplyJob { answer, .. }),
                    Success::Replied { accepted, target, instance, .. },
                ) => {
                    self.expect_return(&target, instance, now);
                    self.to_wake.extend(answer.done(Accepted { receipt, ..accepted }, assured));
                }
                (Job::Commit(job), Success::Committed { committed, version_at, parts }) => {
                    let version = version(version_at, committed.version);
                    self.committed(&job, parts, now);
                    self.to_wake.extend(job.answer.done(Committed { version, ..committed }, assured));
                }
                (Job::Discover { answer, .. }, Success::Discovered(found)) => answer.send(Ok(found)),
                (Job::StateGet { answer, .. }, Success::State) => {
                    let version = version(Some(effects.start + 1), 0);
                    let value = values.get_mut(effects.start).map(std::mem::take).unwrap_or_default();
                    let fields = answers::pairs(value).ok_or(Refusal::STORAGE_UNAVAILABLE.into());
                    answer.send(fields.map(|fields| (fields, version)));
                }
                (Job::StateUpdate { answer, .. }, Success::Changed { version: known, version_at }) => {
                    self.to_wake.extend(answer.done(version(version_at, known), assured));
                }
                (Job::StateReset { answer, .. }, Success::Done) => {
                    self.to_wake.extend(answer.done((), assured));
                }
                (Job::Open(session), Success::Opened) => self.opened(&session, now),
                (job, _) => job.fail(Refusal::STORAGE_UNAVAILABLE),
            }
        }
    }

    pub(super) fn admitted(&mut self, target: &AgentId, now: Now) {
        if let (Some(config), Some(inbox)) = (self.settings.policy.breaker(), self.inboxes.get_mut(target)) {
            inbox.breaker.admitted(config, now.mono_ms);
        }
    }

    /// A commit happened: its delivery is done with, and its messages are on their way.
    pub(super) fn committed(&mut self, job: &CommitJob, parts: Vec<Success>, now: Now) {
        let agent = &job.caller.identity.agent;
        if let (Some(delivery), Some(inbox)) = (job.delivery, self.inboxes.get_mut(agent)) {
            inbox.committed(&job.instance, delivery);
            self.handler_succeeded(agent, now);
            self.ready.insert(agent.clone());
        }
        for part in parts {
            match part {
                Success::Queued { target, .. } => {
                    self.admitted(&target, now);
                    self.tell_home(target);
                }
                Success::Replied { target, instance, .. } => {
                    self.expect_return(&target, instance, now);
                    self.tell_home(target);
                }
                _ => {}
            }
        }
    }

    /// The inbox of another worker holds something new.
    pub(super) fn tell_home(&self, agent: AgentId) {
        if !self.inboxes.contains_key(&agent) {
            self.shared.tell(&agent.clone(), Control::News(agent));
        }
    }

    /// A reply waits for an instance that may never come back.
    pub(super) fn expect_return(&mut self, agent: &AgentId, instance: InstanceId, now: Now) {
        let clear_at_ms = now.mono_ms + self.grace_ms();
        if let Some(inbox) = self.inboxes.get_mut(agent)
            && inbox.slot(&instance).is_none()
        {
            let _ = inbox.gone.entry(instance).or_insert(clear_at_ms);
            self.schedule(agent);
        }
    }

    /// The record says allowed, the store said no: that too goes on record, and a request whose reply was
    /// not stored can still be answered.
    pub(super) fn effect_failed(&mut self, job: &Job, success: Success, error: String) {
        log::error!("worker {}: Redis refused an effect: {error}", self.index);
        let committed = matches!(job, Job::Commit(_));
        for part in parts(&success) {
            match part {
                Success::Queued { accepted, target, .. } => {
                    if let Some(inbox) = self.inboxes.get_mut(target) {
                        inbox.not_added();
                    }
                    if committed {
                        // Part of it may be there.
                        let _ = self.measure.insert(target.clone());
                    }
                    let (message_id, agent) = (Some(accepted.message_id), target.to_string());
                    self.notes.push(Note::EffectFailed { message_id, agent, error: error.clone() });
                }
                Success::Replied { accepted, target, correlation_id, pending, ttl_ms, .. } => {
                    self.notes.push(Note::Unanswered {
                        correlation_id: *correlation_id,
                        pending: pending.clone(),
                        ttl_ms: *ttl_ms,
                    });
                    let (message_id, agent) = (Some(accepted.message_id), target.to_string());
                    self.notes.push(Note::EffectFailed { message_id, agent, error: error.clone() });
                }
                _ => {
                    let (message_id, agent) = (None, String::new());
                    self.notes.push(Note::EffectFailed { message_id, agent, error: error.clone() });
                }
            }
        }
    }
}

/// The first refused effect among these. A consumer group that exists already is what was wanted.
pub(super) fn failed(values: &[Value], effects: &std::ops::Range<usize>) -> Option<String> {
    let code = |value| answers::error_code(value).filter(|code| *code != "BUSYGROUP").map(str::to_owned);
    values.get(effects.clone())?.iter().find_map(code)
}
