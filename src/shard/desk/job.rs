//! What completion-queue threads ask of a worker. A job is answered only after its audit record and its
//! effects are committed.

use std::sync::Arc;

use super::answer::Answer;
use super::delivery::DeliveryId;
use super::outcome::{Accepted, CommitResult, Declined, Discovered};
use super::session::Session;
use crate::audit::Action;
use crate::content::{Content, Trace};
use crate::identity::Identity;
use crate::ids::{AgentId, CorrelationId, InstanceId};
use crate::refusal::Refusal;

/// What a message of a commit costs beside its bytes.
const MESSAGE_BYTES: usize = 512;
/// Messages that one commit may hold.
pub const MAX_COMMIT_MESSAGES: usize = 64;

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// From the certificate; allowlisted.
    pub identity: Arc<Identity>,
    /// The instance with a session, where the call names one.
    pub instance: Option<InstanceId>,
}

/// Work for a worker.
pub enum Job {
    /// Send or Request.
    Message(MessageJob),
    /// Reply.
    Reply(ReplyJob),
    /// One handler's work, whole.
    Commit(CommitJob),
    /// Discover.
    Discover {
        /// Who asks.
        caller: Caller,
        /// Any of these; empty: all.
        capabilities: Vec<String>,
        /// Where the list goes.
        answer: Answer<Vec<Arc<Discovered>>>,
    },
    /// GetState.
    StateGet {
        /// Whose state.
        caller: Caller,
        /// Where the fields and their version go.
        answer: Answer<(Vec<(String, String)>, u64)>,
    },
    /// UpdateState.
    StateUpdate {
        /// Whose state.
        caller: Caller,
        /// What to set.
        change: StateChange,
        /// Where the new version goes.
        answer: Answer<u64>,
    },
    /// ResetState.
    StateReset {
        /// Whose state.
        caller: Caller,
        /// Where the outcome goes.
        answer: Answer<()>,
    },
    /// A session asks to be opened; it is told through its own stream.
    Open(Arc<Session>),
    /// Refused before a worker was needed; recorded, then answered.
    Refused(RefusedJob),
}

/// A change of an agent's state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateChange {
    /// Fields to set.
    pub updates: Vec<(String, String)>,
    /// Only if the state has this version.
    pub expected_version: Option<u64>,
    /// The whole state is gone after this, in milliseconds; 0: as it was.
    pub ttl_ms: u64,
}

impl StateChange {
    /// Whether there is nothing to do and nothing to check.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A message to an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Post {
    /// Whom it is for, as the sender gave it.
    pub target: String,
    /// Free text of the sender.
    pub message_type: String,
    /// The payload, not yet checked.
    pub data_json: String,
    /// For a request: how long it may be answered, in seconds.
    pub request_ttl_s: Option<u64>,
    /// A repetition with the same key has no second effect.
    pub idempotency_key: Option<String>,
    /// How long that key has to be remembered, in milliseconds; 0: as long as the server remembers any.
    pub idempotency_window_ms: u64,
    /// Not delivered later than this after its acceptance, in milliseconds; 0: no end.
    pub ttl_ms: u64,
    /// Not delivered before this time, in Unix milliseconds; 0: at once.
    pub not_before_ms: u64,
    /// Trace context.
    pub trace: Option<Trace>,
}

impl Post {
    /// What is searched and delivered.
    pub fn content(&self) -> Content<'_> {
        Content { message_type: &self.message_type, data_json: &self.data_json, trace: self.trace.as_ref() }
    }
}

/// A reply to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The request that is answered.
    pub correlation_id: CorrelationId,
    /// Free text of the sender.
    pub message_type: String,
    /// The payload, not yet checked.
    pub data_json: String,
    /// Trace context.
    pub trace: Option<Trace>,
}

impl Response {
    /// What is searched and delivered.
    pub fn content(&self) -> Content<'_> {
        Content { message_type: &self.message_type, data_json: &self.data_json, trace: self.trace.as_ref() }
    }
}

/// One message of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outgoing {
    /// Send or Request.
    Post(Post),
    /// Reply.
    Response(Response),
}

/// Send or Request.
pub struct MessageJob {
    /// Who sends.
    pub caller: Caller,
    /// The sending instance, which has a session.
    pub instance: InstanceId,
    /// What.
    pub post: Post,
    /// Where the outcome goes.
    pub answer: Answer<Accepted>,
}

/// Reply.
pub struct ReplyJob {
    /// Who replies.
    pub caller: Caller,
    /// The replying instance, which has a session.
    pub instance: InstanceId,
    /// What.
    pub response: Response,
    /// Where the outcome goes.
    pub answer: Answer<Accepted>,
}

/// One handler's work: acknowledgement, state and messages, all or nothing.
pub struct CommitJob {
    /// Whose.
    pub caller: Caller,
    /// The instance, which has a session here.
    pub instance: InstanceId,
    /// The delivery that was handled.
    pub delivery: Option<DeliveryId>,
    /// The state's part.
    pub change: StateChange,
    /// What it sends, in this order.
    pub messages: Vec<Outgoing>,
    /// Where the outcome goes.
    pub answer: Answer<CommitResult>,
}

/// A call that was refused on arrival.
pub struct RefusedJob {
    /// What was asked for.
    pub action: Action,
    /// The agent, where the certificate names one.
    pub agent: String,
    /// The instance as the caller gave it.
    pub instance: String,
    /// SHA-256 of the certificate, where one could be read.
    pub fingerprint: Option<[u8; 32]>,
    /// Whom it was for, as the sender gave it.
    pub target: String,
    /// The type as the sender gave it.
    pub message_type: String,
    /// Why it is refused.
    pub refusal: Refusal,
    /// Called with what the caller is to be told.
    pub answer: Box<dyn FnOnce(Declined) + Send>,
}

impl Post {
    fn bytes(&self) -> usize {
        self.data_json.len() + self.message_type.len() + self.target.len()
    }
}

impl Response {
    fn bytes(&self) -> usize {
        self.data_json.len() + self.message_type.len()
    }
}

impl Job {
    /// Whether a consumer needs it to drain its inbox.
    pub fn is_essential(&self) -> bool {
        self.as_open().is_some()
    }

    /// Bytes that this job holds beyond its own size.
    pub fn payload_bytes(&self) -> usize {
        let fields = |updates: &[(String, String)]| -> usize {
            updates.iter().map(|(field, value)| field.len() + value.len()).sum()
        };
        match self {
            Self::Message(job) => job.post.bytes(),
            Self::Reply(job) => job.response.bytes(),
            Self::Commit(job) => {
                let messages = job.messages.iter().map(|message| match message {
                    Outgoing::Post(post) => post.bytes(),
                    Outgoing::Response(response) => response.bytes(),
                });
                // Each message is judged and recorded by itself.
                job.messages.len() * MESSAGE_BYTES + messages.sum::<usize>() + fields(&job.change.updates)
            }
            Self::StateUpdate { change, .. } => fields(&change.updates),
            Self::Refused(job) => job.target.len() + job.message_type.len() + job.instance.len(),
            Self::Discover { capabilities, .. } => capabilities.iter().map(String::len).sum(),
            Self::StateGet { .. } | Self::StateReset { .. } | Self::Open(_) => 0,
        }
    }

    /// The messages that it sends.
    pub fn posts(&self) -> impl Iterator<Item = &Post> {
        let (one, many) = match self {
            Self::Message(job) => (Some(&job.post), &[][..]),
            Self::Commit(job) => (None, job.messages.as_slice()),
            _ => (None, &[][..]),
        };
        one.into_iter().chain(many.iter().filter_map(|message| match message {
            Outgoing::Post(post) => Some(post),
            Outgoing::Response(_) => None,
        }))
    }

    /// The requests that it answers.
    pub fn answered(&self) -> impl Iterator<Item = CorrelationId> {
        let (one, many) = match self {
            Self::Reply(job) => (Some(job.response.correlation_id), &[][..]),
            Self::Commit(job) => (None, job.messages.as_slice()),
            _ => (None, &[][..]),
        };
        one.into_iter().chain(many.iter().filter_map(|message| match message {
            Outgoing::Response(response) => Some(response.correlation_id),
            Outgoing::Post(_) => None,
        }))
    }

    /// Who sends, if it sends something.
    pub fn sender(&self) -> Option<&AgentId> {
        match self {
            Self::Message(job) => Some(&job.caller.identity.agent),
            Self::Commit(job) => Some(&job.caller.identity.agent),
            _ => None,
        }
    }

    /// Whose state it changes, if it does.
    pub fn changed_state(&self) -> Option<&AgentId> {
        match self {
            Self::StateUpdate { caller, .. } | Self::StateReset { caller, .. } => {
                Some(&caller.identity.agent)
            }
            Self::Commit(job) if !job.change.is_empty() => Some(&job.caller.identity.agent),
            _ => None,
        }
    }

    /// Whether it adds to what Redis holds, beside its record: a commit that only acknowledges does not.
    pub fn takes_room(&self) -> bool {
        match self {
            Self::Message(_) | Self::Reply(_) => true,
            Self::StateUpdate { change, .. } => !change.updates.is_empty(),
            Self::Commit(job) => !job.messages.is_empty() || !job.change.updates.is_empty(),
            Self::Discover { .. }
            | Self::StateGet { .. }
            | Self::StateReset { .. }
            | Self::Open(_)
            | Self::Refused(_) => false,
        }
    }

    /// Who asks; empty for one whose certificate names nobody.
    pub fn agent(&self) -> &str {
        match self {
            Self::Message(MessageJob { caller, .. })
            | Self::Reply(ReplyJob { caller, .. })
            | Self::Commit(CommitJob { caller, .. })
            | Self::Discover { caller, .. }
            | Self::StateGet { caller, .. }
            | Self::StateUpdate { caller, .. }
            | Self::StateReset { caller, .. } => caller.identity.agent.as_str(),
            Self::Open(session) => session.identity.agent.as_str(),
            Self::Refused(job) => &job.agent,
        }
    }

    /// The session that it opens, if it does.
    pub fn as_open(&self) -> Option<&Arc<Session>> {
        match self {
            Self::Open(session) => Some(session),
            _ => None,
        }
    }

    /// Answers with a refusal that the store's condition forces, recorded or not.
    pub fn fail(self, declined: impl Into<Declined>) {
        let declined = declined.into();
        match self {
            Self::Message(MessageJob { answer, .. }) | Self::Reply(ReplyJob { answer, .. }) => {
                answer.send(Err(declined));
            }
            Self::Commit(job) => job.answer.send(Err(declined)),
            Self::Discover { answer, .. } => answer.send(Err(declined)),
            Self::StateGet { answer, .. } => answer.send(Err(declined)),
            Self::StateUpdate { answer, .. } => answer.send(Err(declined)),
            Self::StateReset { answer, .. } => answer.send(Err(declined)),
            Self::Open(session) => session.end(Some(declined.refusal)),
            Self::Refused(job) => (job.answer)(declined),
        }
    }
}
