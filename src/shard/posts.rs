//! What happens to messages, replies and commits: judged first, then recorded and carried out. Hot path.
//!
//! Judging changes nothing but the counts of the rate limit, so that a commit can be judged as a whole
//! before any of it is carried out.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::decide::{Outcome, PendingRequest, Success, Transaction, cut};
use super::job::{
    Accepted, Caller, CommitJob, Committed, Kind, MessageJob, Outgoing, Post, ReplyJob, Response, StateChange,
};
use super::presence::owned_by;
use crate::audit::record::REPETITION_RULE;
use crate::audit::{Action, Decision, Fields};
use crate::envelope::{Envelope, Trace, new_message_id};
use crate::ids::{AgentId, CorrelationId, InstanceId};
use crate::policy::{Breaker, Circuit, Counted, Message, Policy, RuleName, Verdict, check_payload};
use crate::refusal::Refusal;
use crate::store::keys;

/// Messages that one commit may hold.
const MAX_COMMIT_MESSAGES: usize = 64;
/// Longest time to live of a state, in milliseconds: a year. Redis refuses what it cannot add to its clock, and does
/// so after the other commands of the transaction have been carried out.
const MAX_STATE_TTL_MS: u64 = 366 * 86_400_000;

/// What was decided on a message, ready for the record.
pub(super) struct Judged {
    decision: Decision,
    rule: RuleName,
    refusal: Option<Refusal>,
    findings: String,
    redacted: Option<String>,
    /// Counted against its sender's rate, unless this is dropped.
    counted: Option<Counted>,
}

impl Judged {
    fn new(policy: &Policy, verdict: Verdict) -> Self {
        Self {
            decision: verdict.decision,
            rule: verdict.rule.name(),
            refusal: verdict.refusal(),
            counted: verdict.counted,
            findings: verdict.findings.as_ref().map(|scan| policy.describe(scan)).unwrap_or_default(),
            redacted: verdict.findings.and_then(|scan| scan.redacted),
        }
    }

    /// Refused before the pipeline, or behind it.
    fn refused(refusal: Refusal) -> Self {
        Self {
            decision: Decision::Refused,
            rule: RuleName::default(),
            refusal: Some(refusal),
            counted: None,
            findings: String::new(),
            redacted: None,
        }
    }
}

/// Where a reply goes.
#[derive(Debug, Clone)]
pub(super) struct Addressee {
    agent: AgentId,
    instance: InstanceId,
    pending: PendingRequest,
    ttl_ms: u64,
}

/// A message that was accepted under an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Remembered {
    message_id: Uuid,
    correlation_id: Option<CorrelationId>,
    /// What was sent: the same key with another message is a mistake.
    digest: [u8; 32],
}

impl Remembered {
    fn to_text(&self) -> String {
        let correlation = self.correlation_id.map(|id| id.to_string()).unwrap_or_default();
        format!("{} {correlation} {}", self.message_id.simple(), crate::ids::hex(&self.digest))
    }

    /// Reads it back; `None` for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let message_id = Uuid::parse_str(words.next()?).ok()?;
        let correlation_id = match words.next()? {
            "" => None,
            id => Some(CorrelationId::parse(id)?),
        };
        let digest = words.next()?;
        // Compared as text would do too; bytes are half as long.
        let bytes: Option<Vec<u8>> = (0..digest.len() / 2)
            .map(|at| u8::from_str_radix(digest.get(at * 2..at * 2 + 2)?, 16).ok())
            .collect();
        Some(Self { message_id, correlation_id, digest: bytes?.try_into().ok()? })
    }

    fn digest_of(post: &Post) -> [u8; 32] {
        let mut digest = Sha256::new();
        for part in [&post.target, &post.message_type, &post.data_json] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        digest.update([u8::from(post.request_ttl_s.is_some())]);
        digest.finalize().into()
    }
}

/// Who sends: the parts that every message of a job shares.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    caller: &'a Caller,
    instance: &'a InstanceId,
    trace: Option<&'a Trace>,
}

impl Sender<'_> {
    fn agent(&self) -> &AgentId {
        &self.caller.identity.agent
    }
}

impl Transaction<'_> {
    // --- one message ----------------------------------------------------------------------------

    pub(super) fn message(&mut self, job: &MessageJob) -> Outcome {
        let sender = Sender { caller: &job.caller, instance: &job.instance, trace: job.trace.as_ref() };
        match self.remembered(sender.agent(), &job.post) {
            Ok(None) => {}
            Ok(Some(remembered)) => return self.repeat(sender, &job.post, &remembered),
            Err(refusal) => {
                let judged = Judged::refused(refusal);
                self.record_post(sender, &job.post, &judged, new_message_id(), None);
                return Err(refusal);
            }
        }
        let judged = self.judge_post(sender, &job.post);
        self.post(sender, &job.post, judged)
    }

    /// What became of the first message with this key, if this is not the first.
    fn remembered(&self, sender: &AgentId, post: &Post) -> Result<Option<Remembered>, Refusal> {
        let Some(key) = &post.idempotency_key else {
            return Ok(None);
        };
        let found = self.facts.remembered.get(&(sender.clone(), key.clone()));
        match found {
            Some(Some(remembered)) if remembered.digest == Remembered::digest_of(post) => {
                Ok(Some(remembered.clone()))
            }
            Some(Some(_)) => Err(Refusal::IDEMPOTENCY_KEY_REUSED),
            Some(None) | None => Ok(None),
        }
    }

    /// A repetition: the first one's answer, and no effect.
    fn repeat(&mut self, sender: Sender<'_>, post: &Post, first: &Remembered) -> Outcome {
        let judged = Judged {
            decision: Decision::Allowed,
            rule: REPETITION_RULE.into(),
            refusal: None,
            counted: None,
            findings: String::new(),
            redacted: None,
        };
        self.record_post(sender, post, &judged, first.message_id, first.correlation_id);
        Ok(Success::Repeated(Accepted {
            message_id: first.message_id,
            correlation_id: first.correlation_id,
            receipt: None,
        }))
    }

    fn judge_post(&mut self, sender: Sender<'_>, post: &Post) -> Judged {
        let settings = self.settings;
        if let Err(refusal) = check_payload(&settings.limits, &post.message_type, &post.data_json) {
            return Judged::refused(refusal);
        }
        let inbox = self.inboxes.get(post.target.as_str());
        // Open, as far as this round is concerned, where another worker or server makes the trials.
        let elsewhere = self.facts.trials_elsewhere.contains(post.target.as_str())
            || (inbox.is_none() && self.shared.is_circuit_open(&post.target));
        let waiting = elsewhere.then(|| Breaker::reopened(self.now.mono_ms));
        let breaker =
            waiting.as_ref().or(self.trials.get(post.target.as_str())).or(inbox.map(|inbox| &inbox.breaker));
        let message = Message {
            sender: sender.agent(),
            target: &post.target,
            message_type: &post.message_type,
            data_json: &post.data_json,
        };
        let verdict = settings.policy.check(message, breaker, self.now, self.scratch);
        let mut judged = Judged::new(&settings.policy, verdict);
        if judged.refusal.is_some() {
            return judged;
        }
        if let Err(refusal) = self.check_room(&post.target) {
            (judged.decision, judged.refusal) = (Decision::Refused, Some(refusal));
            return judged;
        }
        // In half-open the next message of this round has to wait for this trial.
        if let (Some(config), Some(breaker), Some(inbox)) = (settings.policy.breaker(), breaker, inbox)
            && breaker.circuit(config, self.now.mono_ms) == Circuit::HalfOpen
        {
            let mut breaker = breaker.clone();
            breaker.admitted(config, self.now.mono_ms);
            let _ = self.trials.insert(inbox.agent.clone(), breaker);
        }
        judged
    }

    /// Whether the target's inbox takes one more.
    fn check_room(&self, target: &str) -> Result<(), Refusal> {
        let len = match self.inboxes.get(target) {
            Some(inbox) => inbox.len,
            // Another worker's inbox: its length was read for this round.
            None => self.facts.lengths.get(target).copied().unwrap_or(0),
        };
        let waiting = len + self.queued.get(target).copied().unwrap_or(0);
        if waiting >= self.settings.limits.max_queue_len {
            return Err(Refusal::QUEUE_FULL);
        }
        let offline = || AgentId::parse(target).is_none_or(|agent| !self.shared.directory.is_active(&agent));
        if !self.settings.delivery.queue_offline && offline() {
            return Err(Refusal::TARGET_OFFLINE);
        }
        Ok(())
    }

    fn record_post(
        &mut self,
        sender: Sender<'_>,
        post: &Post,
        judged: &Judged,
        message_id: Uuid,
        correlation_id: Option<CorrelationId>,
    ) {
        let action = if post.request_ttl_s.is_some() { Action::Request } else { Action::Send };
        self.record_counted(
            action,
            judged.decision,
            &Fields {
                agent: sender.agent().as_str(),
                instance: sender.instance.as_str(),
                fingerprint: &sender.caller.identity.fingerprint,
                message_id: Some(message_id),
                message_type: cut(&post.message_type),
                target: cut(&post.target),
                correlation_id,
                payload_digest: &payload_digest(&post.data_json),
                payload_len: post.data_json.len() as u32,
                rule: &judged.rule,
                reason: judged.refusal.map_or("", |r| r.detail),
                findings: &judged.findings,
                ..Fields::default()
            },
        );
    }

    /// Records the decision on a message and carries it out.
    fn post(&mut self, sender: Sender<'_>, post: &Post, mut judged: Judged) -> Outcome {
        let message_id = new_message_id();
        let correlation_id = post.request_ttl_s.map(|_| CorrelationId::new(sender.agent()));
        if let Some(counted) = judged.counted.take() {
            self.count(sender.agent(), counted);
        }
        self.record_post(sender, post, &judged, message_id, correlation_id);
        if let Some(refusal) = judged.refusal {
            return Err(refusal);
        }
        let Some(card) = self.settings.policy.agent(&post.target) else {
            return Err(Refusal::NOT_AUTHORIZED);
        };
        let target = card.id.clone();
        *self.queued.entry(target.clone()).or_default() += 1;
        let envelope = Envelope {
            sender: sender.agent(),
            sender_instance: sender.instance,
            target: &target,
            message_type: &post.message_type,
            data_json: judged.redacted.as_deref().unwrap_or(&post.data_json),
            message_id,
            correlation_id,
            expects_reply: correlation_id.is_some(),
            reply_to_instance: None,
            trace: sender.trace,
        };
        let now_ms = self.now.unix_us / 1000;
        let expires_ms = (post.ttl_ms > 0).then(|| now_ms.saturating_add(post.ttl_ms));
        let not_before_ms = (post.not_before_ms > now_ms).then_some(post.not_before_ms);
        let inboxes = self.inboxes;
        let bytes = match inboxes.get(&target) {
            Some(inbox) => self.append(&inbox.stream, &envelope),
            None => self.append(&keys::inbox(&target), &envelope),
        };
        for (field, value) in [(keys::EXPIRES_FIELD, expires_ms), (keys::NOT_BEFORE_FIELD, not_before_ms)] {
            if let Some(value) = value {
                let _ = self.batch.arg(field).arg(value);
            }
        }
        if let (Some(correlation_id), Some(ttl_s)) = (correlation_id, post.request_ttl_s) {
            let pending = PendingRequest {
                sender_id: sender.agent().to_string(),
                sender_instance_id: sender.instance.to_string(),
                target_id: target.to_string(),
                message_id: message_id.to_string(),
            };
            self.pend(&correlation_id, &pending, ttl_s * 1000);
        }
        if let Some(key) = &post.idempotency_key {
            let remembered = Remembered { message_id, correlation_id, digest: Remembered::digest_of(post) };
            self.effect("SET");
            let _ = self
                .batch
                .arg(keys::idempotency(sender.agent(), key))
                .arg(remembered.to_text())
                .arg("PX")
                .arg(self.settings.delivery.idempotency_window_s * 1000);
            let _ = self.facts.remembered.insert((sender.agent().clone(), key.clone()), Some(remembered));
        }
        let accepted = Accepted { message_id, correlation_id, receipt: None };
        Ok(Success::Queued { accepted, target, bytes })
    }

    /// Adds the envelope to a stream; its size in bytes.
    fn append(&mut self, stream: &str, envelope: &Envelope<'_>) -> usize {
        self.json.clear();
        envelope.write_json(self.now, &mut self.json);
        self.effect("XADD");
        let _ = self.batch.arg(stream).arg("*").arg(keys::ENVELOPE_FIELD).arg(&self.json);
        self.json.len()
    }

    pub(super) fn pend(&mut self, correlation_id: &CorrelationId, pending: &PendingRequest, ttl_ms: u64) {
        self.effect("SET");
        let _ = self
            .batch
            .arg(keys::pending_request(correlation_id))
            // A struct of strings always serializes.
            .arg(serde_json::to_string(pending).unwrap_or_default())
            .arg("PX")
            .arg(ttl_ms);
    }

    // --- one reply -------------------------------------------------------------------------------

    pub(super) fn reply(&mut self, job: &ReplyJob) -> Outcome {
        let sender = Sender { caller: &job.caller, instance: &job.instance, trace: job.trace.as_ref() };
        let addressee = self.addressee(sender, &job.response);
        let judged = self.judge_reply(&addressee, &job.response);
        self.respond(sender, &job.response, addressee.ok(), judged)
    }

    fn judge_reply(&mut self, addressee: &Result<Addressee, Refusal>, response: &Response) -> Judged {
        match addressee {
            Ok(_) => {
                let policy = &self.settings.policy;
                let verdict = policy.check_reply(&response.message_type, &response.data_json, self.scratch);
                Judged::new(policy, verdict)
            }
            Err(refusal) => {
                let mut judged = Judged::refused(*refusal);
                if *refusal == Refusal::REPLY_SENDER_MISMATCH {
                    judged.decision = Decision::AuthzDenied;
                }
                judged
            }
        }
    }

    /// A pending request is itself the permission to reply; only an accepted reply consumes it.
    fn addressee(&self, sender: Sender<'_>, response: &Response) -> Result<Addressee, Refusal> {
        let unknown = Refusal::UNKNOWN_CORRELATION_ID;
        if self.consumed.contains(&response.correlation_id) {
            return Err(unknown);
        }
        let fact = self.facts.pending.get(&response.correlation_id).and_then(Option::as_ref);
        let (pending, ttl_ms) = fact.ok_or(unknown)?;
        if pending.target_id != sender.agent().as_str() {
            return Err(Refusal::REPLY_SENDER_MISMATCH);
        }
        check_payload(&self.settings.limits, &response.message_type, &response.data_json)?;
        let card = self.settings.policy.agent(&pending.sender_id).ok_or(unknown)?;
        let instance = InstanceId::parse(&pending.sender_instance_id).ok_or(unknown)?;
        Ok(Addressee { agent: card.id.clone(), instance, pending: pending.clone(), ttl_ms: *ttl_ms })
    }

    /// Records the decision on a reply and carries it out.
    fn respond(
        &mut self,
        sender: Sender<'_>,
        response: &Response,
        addressee: Option<Addressee>,
        judged: Judged,
    ) -> Outcome {
        let message_id = new_message_id();
        let (target, instance) =
            addressee.as_ref().map_or(("", ""), |to| (to.agent.as_str(), to.instance.as_str()));
        self.record_counted(
            Action::Reply,
            judged.decision,
            &Fields {
                agent: sender.agent().as_str(),
                instance: sender.instance.as_str(),
                fingerprint: &sender.caller.identity.fingerprint,
                message_id: Some(message_id),
                message_type: cut(&response.message_type),
                target,
                target_instance: instance,
                correlation_id: Some(response.correlation_id),
                payload_digest: &payload_digest(&response.data_json),
                payload_len: response.data_json.len() as u32,
                rule: &judged.rule,
                reason: judged.refusal.map_or("", |r| r.detail),
                findings: &judged.findings,
                ..Fields::default()
            },
        );
        if let Some(refusal) = judged.refusal {
            return Err(refusal);
        }
        let Some(Addressee { agent: target, instance, pending, ttl_ms }) = addressee else {
            return Err(Refusal::UNKNOWN_CORRELATION_ID);
        };
        let _ = self.consumed.insert(response.correlation_id);
        let envelope = Envelope {
            sender: sender.agent(),
            sender_instance: sender.instance,
            target: &target,
            message_type: &response.message_type,
            data_json: judged.redacted.as_deref().unwrap_or(&response.data_json),
            message_id,
            correlation_id: Some(response.correlation_id),
            expects_reply: false,
            reply_to_instance: Some(&instance),
            trace: sender.trace,
        };
        let _ = self.append(&keys::instance_inbox(&target, &instance), &envelope);
        self.effect("DEL");
        let _ = self.batch.arg(keys::pending_request(&response.correlation_id));
        if !self.shared.directory.has(&target, &instance) {
            // Registered, so that the reply is cleared away if the instance never comes back.
            self.effect("HSETNX");
            let _ =
                self.batch.arg(keys::instances(&target)).arg(instance.as_str()).arg(self.now.unix_us / 1000);
        }
        let correlation_id = response.correlation_id;
        let accepted = Accepted { message_id, correlation_id: Some(correlation_id), receipt: None };
        Ok(Success::Replied { accepted, target, instance, correlation_id, pending, ttl_ms })
    }

    // --- a commit --------------------------------------------------------------------------------

    pub(super) fn commit(&mut self, job: &CommitJob) -> Outcome {
        let sender = Sender { caller: &job.caller, instance: &job.instance, trace: None };
        let handled = self.check_commit(job);
        let mut judged = Vec::with_capacity(job.messages.len());
        for message in &job.messages {
            judged.push(match message {
                Outgoing::Post(post) => match self.remembered(sender.agent(), post) {
                    Ok(_) => (self.judge_post(sender, post), None),
                    Err(refusal) => (Judged::refused(refusal), None),
                },
                Outgoing::Response(response) => {
                    let addressee = self.addressee(sender, response);
                    (self.judge_reply(&addressee, response), addressee.ok())
                }
            });
        }
        let refusal = match &handled {
            Err(refusal) => Some(*refusal),
            Ok(_) => judged.iter().find_map(|(judged, _)| judged.refusal),
        };
        let mut results = Vec::with_capacity(job.messages.len());
        let mut parts = Vec::new();
        for (message, (mut judged, addressee)) in job.messages.iter().zip(judged) {
            if refusal.is_some() && judged.refusal.is_none() {
                judged.decision = Decision::Refused;
                judged.refusal = Some(Refusal::COMMIT_REFUSED);
                // What is not sent does not count.
                judged.counted = None;
            }
            let part = match message {
                Outgoing::Post(post) => self.post(sender, post, judged),
                Outgoing::Response(response) => self.respond(sender, response, addressee, judged),
            };
            let receipt = self.receipt.take();
            if let Ok(part) = part {
                let accepted = match &part {
                    Success::Queued { accepted, .. } | Success::Replied { accepted, .. } => accepted.clone(),
                    _ => continue,
                };
                results.push(Accepted { receipt, ..accepted });
                parts.push(part);
            }
        }
        self.record_commit(sender, job, handled.as_ref().ok().copied().flatten(), refusal, &results);
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let (version, version_at) = self.change_state(sender.agent(), &job.change);
        if let Some(delivery) = job.delivery {
            let stream = match delivery.place {
                super::session::Place::Shared => keys::inbox(sender.agent()),
                super::session::Place::Own => keys::instance_inbox(sender.agent(), sender.instance),
            };
            self.effect("XDEL");
            let _ = self.batch.arg(&stream).arg(delivery.entry);
            self.effect("XACK");
            let _ = self.batch.arg(&stream).arg(keys::GROUP).arg(delivery.entry);
        }
        let kind = |message: &Outgoing| match message {
            Outgoing::Post(post) if post.request_ttl_s.is_some() => Kind::Requested,
            Outgoing::Post(_) => Kind::Sent,
            Outgoing::Response(_) => Kind::Replied,
        };
        let kinds = job.messages.iter().map(kind).collect();
        Ok(Success::Committed {
            committed: Committed { messages: results, kinds, version },
            version_at,
            parts,
        })
    }

    /// Whether the commit's delivery and state are as it expects; which message it handled.
    fn check_commit(&self, job: &CommitJob) -> Result<Option<(Uuid, u32)>, Refusal> {
        if job.messages.len() > MAX_COMMIT_MESSAGES {
            return Err(Refusal::TOO_MANY_MESSAGES);
        }
        let agent = &job.caller.identity.agent;
        let handled = match job.delivery {
            None => None,
            Some(delivery) => {
                let held = self.inboxes.get(agent).and_then(|inbox| inbox.held(&job.instance, delivery));
                let key = (agent.clone(), job.instance.clone(), delivery);
                if held.is_none() || self.committed.contains(&key) {
                    return Err(Refusal::DELIVERY_NOT_HELD);
                }
                held
            }
        };
        self.check_state(agent, &job.change)?;
        Ok(handled)
    }

    fn record_commit(
        &mut self,
        sender: Sender<'_>,
        job: &CommitJob,
        handled: Option<(Uuid, u32)>,
        refusal: Option<Refusal>,
        results: &[Accepted],
    ) {
        let (agent, instance) = (sender.agent(), sender.instance);
        let sent: Vec<(Uuid, u8)> = results.iter().map(|accepted| (accepted.message_id, 0)).collect();
        self.record_counted(
            Action::Commit,
            if refusal.is_some() { Decision::Refused } else { Decision::Allowed },
            &Fields {
                agent: agent.as_str(),
                instance: instance.as_str(),
                fingerprint: &sender.caller.identity.fingerprint,
                message_id: handled.map(|(id, _)| id),
                attempt: handled.map_or(0, |(_, attempt)| attempt),
                reason: refusal.map_or("", |refusal| refusal.detail),
                messages: &sent,
                ..Fields::default()
            },
        );
        if let (Some((id, attempt)), Some(delivery), None) = (handled, job.delivery, refusal) {
            let acked = [(id, u8::try_from(attempt).unwrap_or(u8::MAX))];
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

    /// Marks an instance as this server's.
    pub(super) fn own(&mut self, agent: &AgentId, instance: &InstanceId) {
        self.effect("HSET");
        let owner = owned_by(&self.shared.server);
        let _ = self.batch.arg(keys::instances(agent)).arg(instance.as_str()).arg(owner);
    }

    // --- state -----------------------------------------------------------------------------------

    /// Whether a change of an agent's state may be made.
    pub(super) fn check_state(&self, agent: &AgentId, change: &StateChange) -> Result<(), Refusal> {
        if change.is_empty() {
            return Ok(());
        }
        if change.ttl_ms > MAX_STATE_TTL_MS {
            return Err(Refusal::INVALID_TTL);
        }
        let Some(state) = self.facts.states.get(agent) else {
            return Err(Refusal::STORAGE_UNAVAILABLE);
        };
        if change.expected_version.is_some_and(|expected| expected != state.version) {
            return Err(Refusal::VERSION_MISMATCH);
        }
        let limits = &self.settings.limits;
        let mut sizes = state.sizes.clone();
        for (field, value) in &change.updates {
            let _ = sizes.insert(field.clone(), value.len());
        }
        let bytes: usize = sizes.iter().map(|(field, size)| field.len() + size).sum();
        if sizes.len() > limits.max_state_fields || bytes > limits.max_state_bytes {
            return Err(Refusal::STATE_TOO_LARGE);
        }
        Ok(())
    }

    /// Makes a change that was checked: the version after it, and where Redis will say so; 0 and nowhere
    /// for a change of nothing.
    pub(super) fn change_state(&mut self, agent: &AgentId, change: &StateChange) -> (u64, Option<usize>) {
        if change.is_empty() {
            return (0, None);
        }
        let version = self.facts.states.get(agent).map_or(0, |state| state.version);
        if change.updates.is_empty() {
            return (version, None);
        }
        self.effect("HSET");
        let _ = self.batch.arg(keys::state(agent));
        for (field, value) in &change.updates {
            let _ = self.batch.arg(field).arg(value);
        }
        if change.ttl_ms > 0 {
            self.effect("PEXPIRE");
            let _ = self.batch.arg(keys::state(agent)).arg(change.ttl_ms);
        }
        let at = self.effects;
        self.effect("INCR");
        let _ = self.batch.arg(keys::state_version(agent));
        if let Some(state) = self.facts.states.get_mut(agent) {
            state.version = version + 1;
            for (field, value) in &change.updates {
                let _ = state.sizes.insert(field.clone(), value.len());
            }
        }
        (version + 1, Some(at))
    }
}

fn payload_digest(data_json: &str) -> [u8; 32] {
    Sha256::digest(data_json.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_reads_back() {
        let agent = AgentId::parse("a").unwrap();
        for correlation_id in [None, Some(CorrelationId::new(&agent))] {
            let post = Post { data_json: "{}".to_owned(), ..Post::default() };
            let digest = Remembered::digest_of(&post);
            let remembered = Remembered { message_id: new_message_id(), correlation_id, digest };
            assert_eq!(Remembered::parse(&remembered.to_text()), Some(remembered));
        }
        assert_eq!(Remembered::parse("x"), None);
        assert_eq!(Remembered::parse(""), None);
    }
}
