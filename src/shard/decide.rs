//! What happens to each job: the checks in their order, the audit record, and the commands that carry
//! the decision out, all added to one transaction. Hot path: runs once per message, inline in a worker.
//!
//! Nothing in memory changes here. A decision becomes true when the transaction commits, and may be made
//! again when it does not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::inbox::Inbox;
use super::job::{Accepted, Caller, Discovered, Job, MessageJob, Receipt, RefusedJob, ReplyJob};
use super::presence::{Presence, owned_by};
use super::session::Session;
use super::{Settings, Shared};
use crate::audit::{Action, Decision, Fields, Lane};
use crate::clock::Now;
use crate::dlp::Scratch;
use crate::envelope::{Envelope, MAX_MESSAGE_TYPE_BYTES, new_message_id};
use crate::ids::{AgentId, CorrelationId, InstanceId};
use crate::policy::{Breaker, Circuit, Message, Policy, Verdict, check_payload};
use crate::refusal::Refusal;
use crate::store::news::News;
use crate::store::{Batch, keys};

/// An unanswered request, as stored under its correlation id.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct PendingRequest {
    /// Who asked.
    pub sender_id: String,
    /// Which instance asked.
    pub sender_instance_id: String,
    /// Who was asked.
    pub target_id: String,
    /// The asking message.
    pub message_id: String,
}

/// What the decisions of this round depend on, read (and watched) beforehand.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// Unanswered requests that replies of this round name, and how long they still live (milliseconds).
    pub pending: HashMap<CorrelationId, Option<(PendingRequest, u64)>>,
    /// Sizes of the fields of states that are updated in this round.
    pub states: HashMap<AgentId, HashMap<String, usize>>,
    /// Which server has which instance of the agents whose sessions open or end.
    pub presence: Presence,
    /// Targets whose next trial another server makes.
    pub trials_elsewhere: HashSet<AgentId>,
}

/// A decision that awaits its commit.
pub(super) struct Decided {
    /// What the caller will be told.
    pub outcome: Result<Success, Refusal>,
    /// Whose message was counted, to be taken back if it does not happen.
    pub counted: Option<AgentId>,
    /// Where a decision on a message is on record.
    pub receipt: Option<Receipt>,
    /// Which effects of the transaction carry it out: first and one past the last.
    pub effects: std::ops::Range<usize>,
}

/// What an allowed job yields once it is committed.
pub(super) enum Success {
    /// A message of `bytes` was queued for the agent.
    Queued { accepted: Accepted, target: AgentId, bytes: usize },
    /// A reply was queued for the instance; the request is not pending any more.
    Replied {
        accepted: Accepted,
        target: AgentId,
        instance: InstanceId,
        pending: PendingRequest,
        ttl_ms: u64,
    },
    /// The agents to show.
    Discovered(Vec<Discovered>),
    /// The state is in the effect's answer.
    State,
    /// Done.
    Done,
    /// The session may open.
    Opened,
}

/// One transaction in the making.
pub(super) struct Transaction<'a> {
    pub shared: &'a Shared,
    pub settings: &'a Settings,
    pub now: Now,
    pub lane: &'a mut Lane,
    pub batch: &'a mut Batch,
    pub inboxes: &'a HashMap<AgentId, Inbox>,
    pub facts: Facts,
    pub effects: usize,
    queued: HashMap<AgentId, u64>,
    consumed: HashSet<CorrelationId>,
    opening: Vec<(AgentId, InstanceId)>,
    /// Breakers that admitted a trial in this round.
    trials: HashMap<AgentId, Breaker>,
    /// How many messages were counted in this round, by sender.
    pub(super) senders: BTreeMap<AgentId, u32>,
    /// Whose message the current job has counted.
    counted: Option<AgentId>,
    /// Where the current job's decision is on record.
    receipt: Option<Receipt>,
    scratch: &'a mut Scratch,
}

type Outcome = Result<Success, Refusal>;

/// What was decided on a message, ready for the record.
struct Judged {
    decision: Decision,
    rule: String,
    refusal: Option<Refusal>,
    findings: String,
    redacted: Option<String>,
}

impl Judged {
    fn new(policy: &Policy, verdict: Verdict) -> Self {
        Self {
            decision: verdict.decision,
            rule: verdict.rule.to_string(),
            refusal: verdict.refusal(),
            findings: verdict.findings.as_ref().map(|scan| policy.describe(scan)).unwrap_or_default(),
            redacted: verdict.findings.and_then(|scan| scan.redacted),
        }
    }

    /// Refused before the pipeline.
    fn refused(refusal: Refusal) -> Self {
        Self {
            decision: Decision::Refused,
            rule: String::new(),
            refusal: Some(refusal),
            findings: String::new(),
            redacted: None,
        }
    }
}

impl<'a> Transaction<'a> {
    pub(super) fn new(
        (shared, settings): (&'a Shared, &'a Settings),
        now: Now,
        lane: &'a mut Lane,
        batch: &'a mut Batch,
        inboxes: &'a HashMap<AgentId, Inbox>,
        facts: Facts,
        scratch: &'a mut Scratch,
    ) -> Self {
        Self {
            shared,
            settings,
            now,
            lane,
            batch,
            inboxes,
            facts,
            effects: 0,
            queued: HashMap::new(),
            consumed: HashSet::new(),
            opening: Vec::new(),
            trials: HashMap::new(),
            senders: BTreeMap::new(),
            counted: None,
            receipt: None,
            scratch,
        }
    }

    /// Tells the other servers, if this happens.
    pub(super) fn publish(&mut self, news: &News) {
        self.effect("PUBLISH");
        let _ = self.batch.arg(keys::NEWS).arg(news.to_text());
    }

    /// Starts the next effect; its arguments follow on `self.batch`.
    pub(super) fn effect(&mut self, command: &str) {
        let _ = self.batch.command(command);
        self.effects += 1;
    }

    pub(super) fn record(&mut self, action: Action, decision: Decision, fields: &Fields<'_>) {
        let fields = Fields { policy_version: self.settings.policy.version(), ..*fields };
        let _ = self.lane.append(self.now, action, decision, &fields);
    }

    /// Records a decision on a message; its receipt goes to who asked.
    fn record_counted(&mut self, action: Action, decision: Decision, fields: &Fields<'_>) {
        let policy = &self.settings.policy;
        let fields = Fields { policy_version: policy.version(), ..*fields };
        let place = self.lane.append_counted(self.now, action, decision, &fields);
        self.receipt =
            Some(Receipt { lane: self.lane.id().clone(), place, policy_version: *policy.version() });
    }

    /// Decides one job and records the decision.
    pub(super) fn decide(&mut self, job: &Job) -> Decided {
        let first = self.effects;
        let outcome = match job {
            Job::Message(job) => self.message(job),
            Job::Reply(job) => self.reply(job),
            Job::Discover { caller, capabilities, .. } => self.discover(caller, capabilities),
            Job::StateGet { caller, .. } => {
                self.effect("HGETALL");
                let _ = self.batch.arg(keys::state(&caller.identity.agent));
                self.state_record(caller, Action::StateGet, &Ok(Success::State), 0);
                Ok(Success::State)
            }
            Job::StateUpdate { caller, updates, .. } => self.state_update(caller, updates),
            Job::StateReset { caller, .. } => {
                self.effect("DEL");
                let _ = self.batch.arg(keys::state(&caller.identity.agent));
                let _ = self.facts.states.remove(&caller.identity.agent);
                self.state_record(caller, Action::StateReset, &Ok(Success::Done), 0);
                Ok(Success::Done)
            }
            Job::Open(session) => self.open(session),
            Job::Refused(job) => self.refused(job),
        };
        Decided {
            outcome,
            counted: self.counted.take(),
            receipt: self.receipt.take(),
            effects: first..self.effects,
        }
    }

    // --- messages -------------------------------------------------------------------------------

    fn message(&mut self, job: &MessageJob) -> Outcome {
        let agent = &job.caller.identity.agent;
        let message_id = new_message_id();
        let correlation_id = job.request_ttl_s.map(|_| CorrelationId::new(agent));
        let Judged { decision, rule, refusal, findings, redacted } = self.judge_message(job);
        let action = if job.request_ttl_s.is_some() { Action::Request } else { Action::Send };
        self.record_counted(
            action,
            decision,
            &Fields {
                agent: agent.as_str(),
                instance: job.instance.as_str(),
                fingerprint: &job.caller.identity.fingerprint,
                message_id: Some(message_id),
                message_type: cut(&job.message_type),
                target: cut(&job.target),
                correlation_id,
                payload_digest: &payload_digest(&job.data_json),
                payload_len: job.data_json.len() as u32,
                rule: &rule,
                reason: refusal.map_or("", |r| r.detail),
                findings: &findings,
                ..Fields::default()
            },
        );
        if let Some(refusal) = refusal {
            return Err(refusal);
        }
        let Some(card) = self.settings.policy.agent(&job.target) else {
            return Err(Refusal::NOT_AUTHORIZED);
        };
        let target = card.id.clone();
        *self.queued.entry(target.clone()).or_default() += 1;
        let envelope = Envelope {
            sender: agent,
            sender_instance: &job.instance,
            target: &target,
            message_type: &job.message_type,
            data_json: redacted.as_deref().unwrap_or(&job.data_json),
            message_id,
            correlation_id,
            expects_reply: correlation_id.is_some(),
            reply_to_instance: None,
            trace: job.trace.as_ref(),
        };
        let bytes = self.append(&keys::inbox(&target), &envelope);
        if let (Some(correlation_id), Some(ttl_s)) = (correlation_id, job.request_ttl_s) {
            let pending = PendingRequest {
                sender_id: agent.to_string(),
                sender_instance_id: job.instance.to_string(),
                target_id: target.to_string(),
                message_id: message_id.to_string(),
            };
            self.pend(&correlation_id, &pending, ttl_s * 1000);
        }
        Ok(Success::Queued {
            accepted: Accepted { message_id, correlation_id, receipt: None },
            target,
            bytes,
        })
    }

    fn judge_message(&mut self, job: &MessageJob) -> Judged {
        if let Err(refusal) = self.check_payload(&job.message_type, &job.data_json) {
            return Judged::refused(refusal);
        }
        let sender = &job.caller.identity.agent;
        let settings = self.settings;
        let inbox = self.inboxes.get(job.target.as_str());
        // Open, as far as this server is concerned, while another one makes the trial.
        let elsewhere = self.facts.trials_elsewhere.contains(job.target.as_str());
        let waiting = elsewhere.then(|| Breaker::reopened(self.now.mono_ms));
        let breaker =
            waiting.as_ref().or(self.trials.get(job.target.as_str())).or(inbox.map(|inbox| &inbox.breaker));
        let message = Message {
            sender,
            target: &job.target,
            message_type: &job.message_type,
            data_json: &job.data_json,
        };
        let verdict = settings.policy.check(message, breaker, self.now, self.scratch);
        if verdict.counted {
            *self.senders.entry(sender.clone()).or_default() += 1;
            self.counted = Some(sender.clone());
        }
        let mut judged = Judged::new(&settings.policy, verdict);
        if judged.refusal.is_some() {
            return judged;
        }
        if let Err(refusal) = self.check_room(&job.target) {
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

    fn check_payload(&self, message_type: &str, data_json: &str) -> Result<(), Refusal> {
        check_payload(&self.settings.limits, message_type, data_json)
    }

    /// Whether the target's inbox takes one more.
    fn check_room(&self, target: &str) -> Result<(), Refusal> {
        let Some(inbox) = self.inboxes.get(target) else {
            return Ok(());
        };
        let waiting = inbox.len + self.queued.get(target).copied().unwrap_or(0);
        if waiting >= self.settings.limits.max_queue_len {
            return Err(Refusal::QUEUE_FULL);
        }
        if !self.settings.delivery.queue_offline && !self.shared.directory.is_active(&inbox.agent) {
            return Err(Refusal::TARGET_OFFLINE);
        }
        Ok(())
    }

    /// Adds the envelope to a stream; its size in bytes.
    fn append(&mut self, stream: &str, envelope: &Envelope<'_>) -> usize {
        let json = envelope.to_json(self.now);
        self.effect("XADD");
        let _ = self.batch.arg(stream).arg("*").arg(keys::ENVELOPE_FIELD).arg(&json);
        json.len()
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

    fn reply(&mut self, job: &ReplyJob) -> Outcome {
        let agent = &job.caller.identity.agent;
        let message_id = new_message_id();
        let judged = self.judge_reply(job);
        let searched = match &judged {
            Ok(_) => {
                let policy = &self.settings.policy;
                let verdict = policy.check_reply(&job.message_type, &job.data_json, self.scratch);
                Judged::new(policy, verdict)
            }
            Err(refusal) => Judged::refused(*refusal),
        };
        let (target, instance) = match &judged {
            Ok((target, instance, ..)) => (target.as_str(), instance.as_str()),
            Err(_) => ("", ""),
        };
        let mismatch = searched.refusal == Some(Refusal::REPLY_SENDER_MISMATCH);
        self.record_counted(
            Action::Reply,
            if mismatch { Decision::AuthzDenied } else { searched.decision },
            &Fields {
                agent: agent.as_str(),
                instance: job.instance.as_str(),
                fingerprint: &job.caller.identity.fingerprint,
                message_id: Some(message_id),
                message_type: cut(&job.message_type),
                target,
                target_instance: instance,
                correlation_id: Some(job.correlation_id),
                payload_digest: &payload_digest(&job.data_json),
                payload_len: job.data_json.len() as u32,
                rule: &searched.rule,
                reason: searched.refusal.map_or("", |r| r.detail),
                findings: &searched.findings,
                ..Fields::default()
            },
        );
        if let Some(refusal) = searched.refusal {
            return Err(refusal);
        }
        let (target, instance, pending, ttl_ms) = judged?;
        let _ = self.consumed.insert(job.correlation_id);
        let envelope = Envelope {
            sender: agent,
            sender_instance: &job.instance,
            target: &target,
            message_type: &job.message_type,
            data_json: searched.redacted.as_deref().unwrap_or(&job.data_json),
            message_id,
            correlation_id: Some(job.correlation_id),
            expects_reply: false,
            reply_to_instance: Some(&instance),
            trace: job.trace.as_ref(),
        };
        let _ = self.append(&keys::instance_inbox(&target, &instance), &envelope);
        self.effect("DEL");
        let _ = self.batch.arg(keys::pending_request(&job.correlation_id));
        let connected = self.inboxes.get(&target).is_some_and(|i| i.slot(&instance).is_some());
        if !connected {
            // Registered, so that the reply is cleared away if the instance never comes back.
            self.effect("HSETNX");
            let _ =
                self.batch.arg(keys::instances(&target)).arg(instance.as_str()).arg(self.now.unix_us / 1000);
        }
        let accepted = Accepted { message_id, correlation_id: Some(job.correlation_id), receipt: None };
        Ok(Success::Replied { accepted, target, instance, pending, ttl_ms })
    }

    /// A pending request is itself the permission to reply; only an accepted reply consumes it.
    fn judge_reply(&self, job: &ReplyJob) -> Result<(AgentId, InstanceId, PendingRequest, u64), Refusal> {
        let unknown = Refusal::UNKNOWN_CORRELATION_ID;
        if self.consumed.contains(&job.correlation_id) {
            return Err(unknown);
        }
        let fact = self.facts.pending.get(&job.correlation_id).and_then(Option::as_ref);
        let (pending, ttl_ms) = fact.ok_or(unknown)?;
        if pending.target_id != job.caller.identity.agent.as_str() {
            return Err(Refusal::REPLY_SENDER_MISMATCH);
        }
        self.check_payload(&job.message_type, &job.data_json)?;
        let card = self.settings.policy.agent(&pending.sender_id).ok_or(unknown)?;
        let instance = InstanceId::parse(&pending.sender_instance_id).ok_or(unknown)?;
        Ok((card.id.clone(), instance, pending.clone(), *ttl_ms))
    }

    // --- discover and state ----------------------------------------------------------------------

    fn discover(&mut self, caller: &Caller, capabilities: &[String]) -> Outcome {
        let identity = &caller.identity;
        let (shared, policy) = (self.shared, &self.settings.policy);
        let mut found: Vec<Discovered> = policy
            .agents()
            .filter(|card| {
                let offers = capabilities.is_empty()
                    || card.capabilities.iter().any(|offered| capabilities.contains(offered));
                offers
                    && shared.directory.is_active(&card.id)
                    && policy.may_message(&identity.agent, &card.id)
            })
            .map(|card| Discovered {
                agent: card.id.clone(),
                capabilities: card.capabilities.clone(),
                metadata_json: card.metadata_json.clone(),
            })
            .collect();
        found.sort_by(|a, b| a.agent.cmp(&b.agent));
        self.record(
            Action::Discover,
            Decision::Allowed,
            &Fields {
                agent: identity.agent.as_str(),
                fingerprint: &identity.fingerprint,
                ..Fields::default()
            },
        );
        Ok(Success::Discovered(found))
    }

    fn state_update(&mut self, caller: &Caller, updates: &[(String, String)]) -> Outcome {
        let agent = &caller.identity.agent;
        let limits = &self.settings.limits;
        let mut sizes = self.facts.states.get(agent).cloned().unwrap_or_default();
        for (field, value) in updates {
            let _ = sizes.insert(field.clone(), value.len());
        }
        let bytes: usize = sizes.iter().map(|(field, size)| field.len() + size).sum();
        let outcome = if sizes.len() > limits.max_state_fields || bytes > limits.max_state_bytes {
            Err(Refusal::STATE_TOO_LARGE)
        } else {
            Ok(Success::Done)
        };
        let written: usize = updates.iter().map(|(field, value)| field.len() + value.len()).sum();
        self.state_record(caller, Action::StateUpdate, &outcome, written);
        if outcome.is_ok() && !updates.is_empty() {
            self.effect("HSET");
            let _ = self.batch.arg(keys::state(agent));
            for (field, value) in updates {
                let _ = self.batch.arg(field).arg(value);
            }
            let _ = self.facts.states.insert(agent.clone(), sizes);
        }
        outcome
    }

    fn state_record(&mut self, caller: &Caller, action: Action, outcome: &Outcome, bytes: usize) {
        let (decision, reason) = match outcome {
            Ok(_) => (Decision::Allowed, ""),
            Err(refusal) => (Decision::Refused, refusal.detail),
        };
        self.record(
            action,
            decision,
            &Fields {
                agent: caller.identity.agent.as_str(),
                fingerprint: &caller.identity.fingerprint,
                payload_len: bytes as u32,
                reason,
                ..Fields::default()
            },
        );
    }

    // --- sessions and refusals -------------------------------------------------------------------

    fn open(&mut self, session: &Arc<Session>) -> Outcome {
        let agent = &session.identity.agent;
        let key = (agent.clone(), session.instance.clone());
        let inbox = self.inboxes.get(agent);
        let taken = inbox.is_some_and(|i| i.slot(&session.instance).is_some())
            || self.opening.contains(&key)
            || self.facts.presence.elsewhere(agent, &session.instance, &self.shared.server);
        let opening = self.opening.iter().filter(|(a, _)| a == agent).count();
        let open = inbox.map_or(0, |i| i.slots().len()) + opening;
        let outcome = if taken {
            Err(Refusal::INSTANCE_ALREADY_CONNECTED)
        } else if open >= self.settings.limits.max_sessions_per_agent {
            Err(Refusal::TOO_MANY_SESSIONS)
        } else if !session.identity.is_current(self.now) {
            Err(Refusal::INVALID_CERTIFICATE)
        } else {
            Ok(Success::Opened)
        };
        self.record(
            Action::SessionOpen,
            if outcome.is_ok() { Decision::Allowed } else { Decision::Refused },
            &Fields {
                agent: agent.as_str(),
                instance: session.instance.as_str(),
                fingerprint: &session.identity.fingerprint,
                reason: outcome.as_ref().err().map_or("", |r| r.detail),
                ..Fields::default()
            },
        );
        if outcome.is_ok() {
            self.opening.push(key);
            for stream in [keys::inbox(agent), keys::instance_inbox(agent, &session.instance)] {
                self.effect("XGROUP");
                let _ = self.batch.arg("CREATE").arg(stream).arg(keys::GROUP).arg("0").arg("MKSTREAM");
            }
            self.effect("HSET");
            let _ = self.batch.arg(keys::agent(agent)).arg("status").arg("ACTIVE");
            self.effect("HSET");
            let owner = owned_by(&self.shared.server);
            let _ = self.batch.arg(keys::instances(agent)).arg(session.instance.as_str()).arg(owner);
            let (agent, instance) = (agent.clone(), session.instance.clone());
            self.publish(&News::Opened(agent, instance, self.shared.server.clone()));
        }
        outcome
    }

    fn refused(&mut self, job: &RefusedJob) -> Outcome {
        let decision = match job.refusal.kind {
            crate::refusal::Kind::Unauthenticated => Decision::Unauthenticated,
            crate::refusal::Kind::PermissionDenied => Decision::AuthzDenied,
            crate::refusal::Kind::InvalidArgument
            | crate::refusal::Kind::FailedPrecondition
            | crate::refusal::Kind::ResourceExhausted
            | crate::refusal::Kind::Unavailable => Decision::Refused,
        };
        self.record_counted(
            job.action,
            decision,
            &Fields {
                agent: cut(&job.agent),
                instance: cut(&job.instance),
                fingerprint: job.fingerprint.as_ref().map_or(&[], |f| f.as_slice()),
                target: cut(&job.target),
                message_type: cut(&job.message_type),
                reason: job.refusal.detail,
                ..Fields::default()
            },
        );
        Err(job.refusal)
    }
}

/// Text of a stranger as it goes on record: bounded.
pub(super) fn cut(text: &str) -> &str {
    let mut end = text.len().min(MAX_MESSAGE_TYPE_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn payload_digest(data_json: &str) -> [u8; 32] {
    Sha256::digest(data_json.as_bytes()).into()
}
