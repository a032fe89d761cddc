//! A commit: acknowledgement, state and messages of one handler, whole or not at all.

use std::collections::HashMap;

use uuid::Uuid;

use super::facts::Remembered;
use super::judge::Judged;
use super::parties::{Addressee, Sender};
use super::state::version_rule;
use super::transaction::{Ruling, Success, Transaction};
use crate::audit::{Action, Decision, Fields};
use crate::ids::AgentId;
use crate::refusal::Refusal;
use crate::shard::desk::delivery::DeliveryId;
use crate::shard::desk::job::{CommitJob, MAX_COMMIT_MESSAGES, Outgoing, Post};
use crate::shard::desk::outcome::{Accepted, CommitResult, MessageKind};
use crate::shard::inbox::Held;
use crate::shard::inbox::entry::EntryKey;
use crate::store::keys;

/// The verdict on one message of a commit.
enum Verdict {
    /// On a message that is new, as far as is known.
    Post(Judged),
    /// On a message that was accepted before, under the same key.
    Repetition(Remembered),
    /// On a reply.
    Response(Judged, Option<Addressee>),
}

impl Verdict {
    fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Post(judged) | Self::Response(judged, _) => judged.refusal,
            Self::Repetition(_) => None,
        }
    }
}

impl Transaction<'_> {
    /// Decides a commit and carries it out. All messages are judged before any of it is carried out.
    pub(super) fn commit(&mut self, job: &CommitJob) -> Ruling {
        let sender = Sender { caller: &job.caller, instance: &job.instance, trace: None };
        let handled = self.check_commit(job);
        let mut verdicts = Vec::with_capacity(job.messages.len());
        let mut digests = HashMap::new();
        for message in &job.messages {
            verdicts.push(self.judge_outgoing(sender, message, &mut digests));
        }
        let refusal = match &handled {
            Err(refusal) => Some(*refusal),
            Ok(_) => verdicts.iter().find_map(Verdict::refusal),
        };
        let (results, parts) = self.carry_out(sender, job, verdicts, refusal.is_some());
        if handled.is_err() {
            // It is not refused for one of its messages.
            self.told = None;
        }
        self.record_commit(sender, job, handled.ok().flatten(), refusal, &results);
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let version = self.change_state(sender.agent(), &job.change);
        if let Some(delivery) = job.delivery {
            let key = EntryKey::of(sender.instance, delivery.source, delivery.entry);
            let stream = match &key.owner {
                None => keys::inbox(sender.agent()),
                Some(instance) => keys::instance_inbox(sender.agent(), instance),
            };
            let _ = self.effect("XDEL").arg(&stream).arg(delivery.entry);
            let _ = self.effect("XACK").arg(&stream).arg(keys::GROUP).arg(delivery.entry);
        }
        let kinds = job.messages.iter().map(kind).collect();
        let result = CommitResult { messages: results, kinds, version };
        Ok(Success::Committed { result, parts })
    }

    fn judge_outgoing<'m>(
        &mut self,
        sender: Sender<'_>,
        message: &'m Outgoing,
        digests: &mut HashMap<&'m str, [u8; 32]>,
    ) -> Verdict {
        let post = match message {
            Outgoing::Post(post) => post,
            Outgoing::Response(response) => {
                let addressee = self.addressee(sender, response);
                let judged = self.judge_reply(sender, &addressee, response);
                return Verdict::Response(judged, addressee.ok());
            }
        };
        if let Some(key) = post.idempotency_key.as_deref() {
            let digest = Remembered::digest_of(post);
            if *digests.entry(key).or_insert(digest) != digest {
                return Verdict::Post(Judged::refused(Refusal::IDEMPOTENCY_KEY_REUSED));
            }
        }
        match self.remembered(sender.agent(), post) {
            Ok(None) => Verdict::Post(self.judge_post(sender, post)),
            Ok(Some(first)) => Verdict::Repetition(first),
            Err(refusal) => Verdict::Post(Judged::refused(refusal)),
        }
    }

    /// Records the decision on each message and, unless the commit is refused, sends them: their results, and those
    /// parts that are new.
    fn carry_out(
        &mut self,
        sender: Sender<'_>,
        job: &CommitJob,
        verdicts: Vec<Verdict>,
        refused: bool,
    ) -> (Vec<Accepted>, Vec<Success>) {
        let mut results = Vec::with_capacity(job.messages.len());
        let mut parts = Vec::new();
        for (message, verdict) in job.messages.iter().zip(verdicts) {
            let trace = match message {
                Outgoing::Post(post) => post.trace.as_ref(),
                Outgoing::Response(response) => response.trace.as_ref(),
            };
            let sender = Sender { trace, ..sender };
            let ruling = match (message, verdict) {
                (Outgoing::Post(post), Verdict::Post(judged)) => {
                    self.post_part(sender, post, unless(refused, judged))
                }
                (Outgoing::Post(post), Verdict::Repetition(first)) => self.repeat(sender, post, &first),
                (Outgoing::Response(response), Verdict::Response(judged, addressee)) => {
                    self.respond(sender, response, addressee, unless(refused, judged))
                }
                // Verdicts are in the order of the messages.
                (Outgoing::Post(_), Verdict::Response(..)) | (Outgoing::Response(_), _) => continue,
            };
            let receipt = self.receipt.take();
            match ruling {
                Ok(Success::Repeated(accepted)) => results.push(Accepted { receipt, ..accepted }),
                Ok(part) => {
                    if let Success::Queued { accepted, .. } | Success::Replied { accepted, .. } = &part {
                        results.push(Accepted { receipt, ..accepted.clone() });
                        parts.push(part);
                    }
                }
                Err(_) => {}
            }
        }
        (results, parts)
    }

    /// A message of a commit; the same key may stand in it twice.
    fn post_part(&mut self, sender: Sender<'_>, post: &Post, judged: Judged) -> Ruling {
        match self.remembered(sender.agent(), post) {
            Ok(Some(first)) if judged.refusal.is_none() => self.repeat(sender, post, &first),
            _ => self.post(sender, post, judged),
        }
    }

    /// Whether the commit's delivery and state are as it expects; the delivery that it handled.
    fn check_commit(&self, job: &CommitJob) -> Result<Option<Held>, Refusal> {
        if job.messages.len() > MAX_COMMIT_MESSAGES {
            return Err(Refusal::TOO_MANY_MESSAGES);
        }
        let agent = &job.caller.identity.agent;
        let handled = match job.delivery {
            None => None,
            Some(delivery) => Some(self.check_delivery(agent, job, delivery)?),
        };
        self.check_state(agent, &job.change)?;
        Ok(handled)
    }

    /// A delivery is settled once, by the session that holds it.
    fn check_delivery(
        &self,
        agent: &AgentId,
        job: &CommitJob,
        delivery: DeliveryId,
    ) -> Result<Held, Refusal> {
        let held = self.inboxes.get(agent).and_then(|inbox| inbox.held(&job.instance, delivery));
        let held = held.ok_or(Refusal::DELIVERY_NOT_HELD)?;
        if self.committed.contains(&(agent.clone(), job.instance.clone(), delivery)) {
            return Err(Refusal::DELIVERY_NOT_HELD);
        }
        // Redis was asked where memory is not certain.
        let key = EntryKey::of(&job.instance, delivery.source, delivery.entry);
        match self.facts.holders.get(&(agent.clone(), key)) {
            Some(holder) if holder.as_deref() != Some(keys::consumer(agent, &job.instance).as_str()) => {
                Err(Refusal::DELIVERY_NOT_HELD)
            }
            Some(_) | None => Ok(held),
        }
    }

    fn record_commit(
        &mut self,
        sender: Sender<'_>,
        job: &CommitJob,
        handled: Option<Held>,
        refusal: Option<Refusal>,
        results: &[Accepted],
    ) {
        let (agent, instance) = (sender.agent(), sender.instance);
        let changes = refusal.is_none() && !job.change.updates.is_empty();
        let version = self
            .facts
            .states
            .get(agent)
            .filter(|_| changes)
            .map_or(0, |state| state.version.saturating_add(1));
        let rule = version_rule(version);
        let sent: Vec<(Uuid, u8)> = results.iter().map(|accepted| (accepted.message_id, 0)).collect();
        let _ = self.record_counted(
            Action::Commit,
            if refusal.is_some() { Decision::Refused } else { Decision::Allowed },
            &Fields {
                agent: agent.as_str(),
                instance: instance.as_str(),
                fingerprint: &sender.caller.identity.fingerprint,
                message_id: handled.map(|held| held.message_id),
                attempt: handled.map_or(0, |held| held.attempt),
                reason: refusal.map_or("", |refusal| refusal.detail),
                rule: &rule,
                messages: &sent,
                ..Fields::default()
            },
        );
        if let (Some(held), Some(delivery), None) = (handled, job.delivery, refusal) {
            let acked = [(held.message_id, u8::try_from(held.attempt).unwrap_or(u8::MAX))];
            let fields = Fields {
                agent: agent.as_str(),
                instance: instance.as_str(),
                messages: &acked,
                ..Fields::default()
            };
            let _ = self.lane.append(self.now, Action::Acked, Decision::Event, &fields);
            let _ = self.committed.insert((agent.clone(), instance.clone(), delivery));
        }
    }
}

/// The verdict, or, where the commit is refused for another part's sake, that: nothing of it is sent, or counts.
fn unless(refused: bool, judged: Judged) -> Judged {
    if !refused || judged.refusal.is_some() {
        return judged;
    }
    Judged { decision: Decision::Refused, refusal: Some(Refusal::COMMIT_REFUSED), counted: None, ..judged }
}

fn kind(message: &Outgoing) -> MessageKind {
    match message {
        Outgoing::Post(post) if post.request_ttl_s.is_some() => MessageKind::Requested,
        Outgoing::Post(_) => MessageKind::Sent,
        Outgoing::Response(_) => MessageKind::Replied,
    }
}
