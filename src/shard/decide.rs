//! What happens to each job: the checks in their order, the audit record, and the commands that carry
//! the decision out, all added to one transaction. Hot path: runs once per message, inline in a worker.
//!
//! Nothing in memory changes here. A decision becomes true when the transaction commits, and may be made
//! again when it does not.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::inbox::Inbox;
use super::job::{Accepted, Caller, Committed, Discovered, Job, Receipt, RefusedJob, StateChange};
use super::posts::Remembered;
use super::presence::Presence;
use super::session::{DeliveryId, Session};
use super::{Settings, Shared};
use crate::audit::{Action, Decision, Fields, Lane};
use crate::clock::Now;
use crate::dlp::Scratch;
use crate::envelope::MAX_MESSAGE_TYPE_BYTES;
use crate::ids::{AgentId, AgentMap, CorrelationId, InstanceId};
use crate::policy::{Breaker, Counted};
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
    /// States that are changed in this round.
    pub states: AgentMap<StateFact>,
    /// What became of messages with the idempotency keys of this round, by sender and key.
    pub remembered: HashMap<(AgentId, String), Option<Remembered>>,
    /// Lengths of other workers' inboxes that commits of this round send to.
    pub lengths: AgentMap<u64>,
    /// Which server has which instance of the agents whose sessions open or end.
    pub presence: Presence,
    /// Targets whose next trial another server makes.
    pub trials_elsewhere: HashSet<AgentId>,
}

/// A state as it is before a change.
#[derive(Debug, Clone, Default)]
pub(super) struct StateFact {
    /// Sizes of its fields.
    pub sizes: HashMap<String, usize>,
    /// How often it was changed.
    pub version: u64,
}

/// A decision that awaits its commit.
pub(super) struct Decided {
    /// What the caller will be told.
    pub outcome: Result<Success, Refusal>,
    /// Its messages count against their sender; taken back if it does not happen.
    pub counted: Vec<Counted>,
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
        correlation_id: CorrelationId,
        pending: PendingRequest,
        ttl_ms: u64,
    },
    /// A repetition of a message that was accepted before.
    Repeated(Accepted),
    /// A handler's work is done; its messages are the parts. Where an effect's answer holds the state's
    /// version, it is there.
    Committed { committed: Committed, version_at: Option<usize>, parts: Vec<Success> },
    /// The state was changed; its version, which an effect's answer holds too.
    Changed { version: u64, version_at: Option<usize> },
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
    pub inboxes: &'a AgentMap<Inbox>,
    pub facts: Facts,
    pub effects: usize,
    pub(super) queued: AgentMap<u64>,
    pub(super) consumed: HashSet<CorrelationId>,
    /// Deliveries that commits of this round have acknowledged.
    pub(super) committed: HashSet<(AgentId, InstanceId, DeliveryId)>,
    opening: Vec<(AgentId, InstanceId)>,
    /// Breakers that admitted a trial in this round.
    pub(super) trials: AgentMap<Breaker>,
    /// How many messages were counted in this round, by sender.
    pub(super) senders: BTreeMap<AgentId, u32>,
    /// The messages that the current job has counted.
    counted: Vec<Counted>,
    /// Where the current job's decision is on record.
    pub(super) receipt: Option<Receipt>,
    pub(super) scratch: &'a mut Scratch,
    /// The envelope that was written last.
    pub(super) json: String,
}

pub(super) type Outcome = Result<Success, Refusal>;

impl<'a> Transaction<'a> {
    pub(super) fn new(
        (shared, settings): (&'a Shared, &'a Settings),
        now: Now,
        lane: &'a mut Lane,
        batch: &'a mut Batch,
        inboxes: &'a AgentMap<Inbox>,
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
            queued: AgentMap::default(),
            consumed: HashSet::new(),
            opening: Vec::new(),
            trials: AgentMap::default(),
            senders: BTreeMap::new(),
            counted: Vec::new(),
            committed: HashSet::new(),
            receipt: None,
            scratch,
            json: String::new(),
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
    pub(super) fn record_counted(&mut self, action: Action, decision: Decision, fields: &Fields<'_>) {
        let policy = &self.settings.policy;
        let fields = Fields { policy_version: policy.version(), ..*fields };
        let place = self.lane.append_counted(self.now, action, decision, &fields);
        self.receipt =
            Some(Receipt { lane: self.lane.id().clone(), place, policy_version: *policy.version() });
    }

    /// A message counts against its sender's rate.
    pub(super) fn count(&mut self, sender: &AgentId, counted: Counted) {
        *self.senders.entry(sender.clone()).or_default() += 1;
        self.counted.push(counted);
    }

    /// Decides one job and records the decision.
    pub(super) fn decide(&mut self, job: &Job) -> Decided {
        let first = self.effects;
        let outcome = match job {
            Job::Message(job) => self.message(job),
            Job::Reply(job) => self.reply(job),
            Job::Commit(job) => self.commit(job),
            Job::Discover { caller, capabilities, .. } => self.discover(caller, capabilities),
            Job::StateGet { caller, .. } => {
                self.effect("HGETALL");
                let _ = self.batch.arg(keys::state(&caller.identity.agent));
                self.effect("GET");
                let _ = self.batch.arg(keys::state_version(&caller.identity.agent));
                self.state_record(caller, Action::StateGet, &Ok(Success::State), 0);
                Ok(Success::State)
            }
            Job::StateUpdate { caller, change, .. } => self.state_update(caller, change),
            Job::StateReset { caller, .. } => {
                self.effect("DEL");
                let _ = self.batch.arg(keys::state(&caller.identity.agent));
                self.effect("INCR");
                let _ = self.batch.arg(keys::state_version(&caller.identity.agent));
                if let Some(state) = self.facts.states.get_mut(&caller.identity.agent) {
                    *state = StateFact { version: state.version + 1, ..StateFact::default() };
                }
                self.state_record(caller, Action::StateReset, &Ok(Success::Done), 0);
                Ok(Success::Done)
            }
            Job::Open(session) => self.open(session),
            Job::Refused(job) => self.refused(job),
        };
        Decided {
            outcome,
            counted: std::mem::take(&mut self.counted),
            receipt: self.receipt.take(),
            effects: first..self.effects,
        }
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

    fn state_update(&mut self, caller: &Caller, change: &StateChange) -> Outcome {
        let agent = &caller.identity.agent;
        let outcome = self.check_state(agent, change).map(|()| Success::Done);
        let written: usize = change.updates.iter().map(|(field, value)| field.len() + value.len()).sum();
        self.state_record(caller, Action::StateUpdate, &outcome, written);
        let _ = outcome?;
        let (version, version_at) = self.change_state(agent, change);
        Ok(Success::Changed { version, version_at })
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
            self.own(agent, &session.instance);
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
            | crate::refusal::Kind::Aborted
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
