//! One transaction in the making.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use uuid::Uuid;

use super::facts::{Facts, PendingRequest};
use super::written::Written;
use crate::audit::{Action, Decision, Fields, Lane, StoreKeys};
use crate::certs::Revocations;
use crate::clock::Now;
use crate::dlp::Scratch;
use crate::envelope::MAX_MESSAGE_TYPE_BYTES;
use crate::ids::{AgentId, AgentMap, CorrelationId, InstanceId};
use crate::policy::{Breaker, Counted};
use crate::quarantine::Quarantine;
use crate::refusal::Refusal;
use crate::shard::desk::delivery::DeliveryId;
use crate::shard::desk::outcome::{Accepted, CommitResult, Discovered, Found, Receipt, Told};
use crate::shard::desk::settings::Settings;
use crate::shard::desk::shared::Shared;
use crate::shard::desk::spans::CallSpan;
use crate::shard::inbox::Inbox;
use crate::store::news::News;
use crate::store::pipeline::{Effect, Multi};
use crate::store::{Batch, answers, keys};

/// How long a silent agent's counts are kept, in seconds: the longest window and a bucket.
const RATE_TTL_S: u64 = 7200;

/// A decision that awaits its commit.
pub(crate) struct Decided {
    /// What the caller will be told.
    pub ruling: Ruling,
    /// The messages that it has counted against their sender's rate.
    pub counted: Vec<Counted>,
    /// Where a decision on a message is on record.
    pub receipt: Option<Receipt>,
    /// What the sender is told of a message that was refused.
    pub told: Option<Box<Told>>,
    /// Which effects of the transaction carry it out.
    pub effects: Range<usize>,
}

/// Allowed, and what that yields once it is committed; or refused.
pub(crate) type Ruling = Result<Success, Refusal>;

/// What an allowed job yields once it is committed.
pub(crate) enum Success {
    /// A message was queued for the agent.
    Queued { accepted: Accepted, target: AgentId },
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
    /// A handler's work is done; its messages are the parts.
    Committed { result: CommitResult, parts: Vec<Success> },
    /// The state was changed; its version after that.
    Changed { version: u64 },
    /// The agents to show.
    Discovered(Vec<Arc<Discovered>>),
    /// Which of the transaction's reads has the state's fields and its version.
    State { read: usize },
    /// Done.
    Done,
    /// The session may open.
    Opened,
}

impl Success {
    /// The messages that a job sent.
    pub(crate) fn parts(&self) -> &[Self] {
        match self {
            Self::Committed { parts, .. } => parts,
            other => std::slice::from_ref(other),
        }
    }
}

/// What a transaction adds to one inbox.
#[derive(Debug, Default)]
pub(crate) struct Added {
    /// Messages to the shared inbox.
    pub messages: usize,
    /// The largest of them, in bytes.
    pub max_bytes: usize,
    /// What they take in Redis.
    pub shared_bytes: u64,
    /// Instances whose own inboxes get replies, and what each takes in Redis.
    pub replies: Vec<(InstanceId, u64)>,
}

/// Whose messages were counted, and what all servers together have counted.
pub(crate) type Counts = Vec<(AgentId, Effect<Option<u64>>)>;

/// A state that is read.
pub(crate) struct StateRead {
    pub agent: AgentId,
    pub tag: Effect<Option<String>>,
    pub fields: Effect<Option<Vec<(String, String)>>>,
    pub version: Effect<Option<u64>>,
}

/// One transaction in the making.
pub(crate) struct Transaction<'a> {
    pub shared: &'a Shared,
    pub settings: &'a Settings,
    pub now: Now,
    pub lane: &'a mut Lane,
    pub multi: Multi<'a>,
    pub inboxes: &'a AgentMap<Inbox>,
    pub facts: Facts,
    /// What it adds to inboxes.
    pub added: AgentMap<Added>,
    pub(super) revoked: Arc<Revocations>,
    pub(super) quarantine: Arc<Quarantine>,
    /// Requests that replies of this round have answered.
    pub(super) consumed: HashSet<CorrelationId>,
    /// Deliveries that commits of this round have acknowledged.
    pub(super) committed: HashSet<(AgentId, InstanceId, DeliveryId)>,
    /// Sessions that this round opens.
    pub(super) opening: Vec<(AgentId, InstanceId)>,
    /// Breakers that admitted a trial in this round.
    pub(super) trials: AgentMap<Breaker>,
    /// States that are read, and which of them is an agent's as it is now.
    pub state_reads: Vec<StateRead>,
    pub(super) state_read_of: AgentMap<usize>,
    /// How many messages were counted in this round, by sender.
    senders: BTreeMap<AgentId, u32>,
    /// The counts of the current job.
    pub(super) counted: Vec<Counted>,
    /// Where the current job's decision is on record.
    pub(super) receipt: Option<Receipt>,
    /// What is told of the current job's message that was refused; of a commit's first.
    pub(super) told: Option<Box<Told>>,
    pub(super) scratch: &'a mut Scratch,
    /// For tags on what is stored.
    pub keys: &'a StoreKeys,
    /// The messages that it adds to inboxes.
    pub written: Written,
    /// What is traced of its decisions.
    pub spans: Vec<CallSpan>,
    /// What the last one is attested by.
    pub(super) attest: String,
}

/// What a transaction reads and writes.
pub(crate) struct Inputs<'a> {
    pub shared: &'a Shared,
    pub settings: &'a Settings,
    pub inboxes: &'a AgentMap<Inbox>,
    pub lane: &'a mut Lane,
    pub batch: &'a mut Batch,
    pub scratch: &'a mut Scratch,
    /// For tags on what is stored.
    pub keys: &'a StoreKeys,
    /// How many messages it will write, as far as is known.
    pub messages: usize,
    /// Whether it must be carried out although Redis' memory is full.
    pub essential: bool,
}

impl<'a> Transaction<'a> {
    /// Begins a transaction in the batch.
    pub(crate) fn begin(inputs: Inputs<'a>, facts: Facts, now: Now) -> Self {
        let Inputs { shared, settings, inboxes, lane, batch, scratch, keys, messages, essential } = inputs;
        Self {
            shared,
            settings,
            now,
            lane,
            multi: if essential { Multi::begin_essential(batch) } else { Multi::begin(batch) },
            inboxes,
            facts,
            added: AgentMap::default(),
            revoked: shared.revoked(),
            quarantine: shared.quarantine(),
            consumed: HashSet::new(),
            committed: HashSet::new(),
            opening: Vec::new(),
            trials: AgentMap::default(),
            state_reads: Vec::new(),
            state_read_of: AgentMap::default(),
            senders: BTreeMap::new(),
            counted: Vec::new(),
            receipt: None,
            told: None,
            scratch,
            keys,
            written: Written::with_room(messages),
            spans: Vec::new(),
            attest: String::new(),
        }
    }

    /// Starts the next effect; its arguments follow.
    pub(crate) fn effect(&mut self, command: &str) -> &mut Batch {
        self.multi.effect(command)
    }

    /// Tells the other servers, if this happens.
    pub(crate) fn publish(&mut self, news: &News) {
        let _ = self.effect("PUBLISH").arg(keys::NEWS).arg(news.to_text());
    }

    /// Adds a record of the policy in force; its sequence in the lane.
    pub(crate) fn record(&mut self, action: Action, decision: Decision, fields: &Fields<'_>) -> u64 {
        let fields = Fields { policy_version: self.settings.policy.version(), ..*fields };
        self.lane.append(self.now, action, decision, &fields).seq
    }

    /// Records a decision on a message; its receipt goes to who asked. Its sequence in the lane.
    pub(crate) fn record_counted(&mut self, action: Action, decision: Decision, fields: &Fields<'_>) -> u64 {
        let policy = &self.settings.policy;
        let fields = Fields { policy_version: policy.version(), ..*fields };
        let place = self.lane.append_counted(self.now, action, decision, &fields);
        self.receipt =
            Some(Receipt { lane: self.lane.id().clone(), place, policy_version: *policy.version() });
        place.seq
    }

    /// A message was refused, and is on record under this id.
    pub(super) fn refuse(&mut self, refusal: Refusal, message_id: Uuid, found: Vec<Found>) -> Ruling {
        // A commit's other messages are refused for one.
        if self.told.is_none() && refusal != Refusal::COMMIT_REFUSED {
            self.told = Some(Box::new(Told { message_id, receipt: self.receipt.clone(), found }));
        }
        Err(refusal)
    }

    /// A message counts against its sender's rate.
    pub(super) fn count(&mut self, sender: &AgentId, counted: Counted) {
        *self.senders.entry(sender.clone()).or_default() += 1;
        self.counted.push(counted);
    }

    /// The transaction adds something to this agent's inboxes.
    pub(super) fn adds_to(&mut self, agent: &AgentId) -> &mut Added {
        self.added.entry(agent.clone()).or_default()
    }

    /// Messages and bytes that this transaction adds to the target's shared inbox.
    pub(super) fn added_to(&self, target: &str) -> (u64, u64) {
        self.added.get(target).map_or((0, 0), |added| (added.messages as u64, added.shared_bytes))
    }

    /// Bytes of replies that this transaction adds for an instance.
    pub(super) fn replied_to(&self, target: &str, instance: &InstanceId) -> u64 {
        let replies = self.added.get(target).into_iter().flat_map(|added| &added.replies);
        replies.filter(|(to, _)| to == instance).map(|(_, bytes)| *bytes).sum()
    }

    /// Adds what the senders of this round have sent to the counts that all servers share, so that
    /// neither a restart nor another server forgets it.
    pub(crate) fn store_counts(&mut self) -> Counts {
        let minute = self.now.unix_minute();
        let mut stored = Vec::with_capacity(self.senders.len());
        for (sender, count) in std::mem::take(&mut self.senders) {
            let key = keys::rate(&sender, minute / 60);
            let total = self.multi.ask("HINCRBY", |value| answers::int(&value));
            let _ = self.multi.args().arg(&key).arg(minute).arg(count);
            let _ = self.effect("EXPIRE").arg(&key).arg(RATE_TTL_S);
            stored.push((sender, total));
        }
        stored
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
