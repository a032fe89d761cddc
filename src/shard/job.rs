//! What completion-queue threads ask of a worker. A job is answered only after its audit record and its
//! effects are committed.

use std::sync::Arc;

use futures_channel::oneshot;
use uuid::Uuid;

use super::Settings;
use super::notes::OperatorEvent;
use super::session::Session;
use crate::audit::lane::Place;
use crate::audit::{Action, LaneId};
use crate::envelope::Trace;
use crate::identity::Identity;
use crate::ids::{AgentId, CorrelationId, InstanceId, ServerId};
use crate::refusal::Refusal;

/// Where a job's outcome goes.
pub type Answer<T> = oneshot::Sender<Result<T, Declined>>;

/// A refusal, and where it is on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// What the caller is told.
    pub refusal: Refusal,
    /// Absent where the store could not record.
    pub receipt: Option<Receipt>,
}

impl From<Refusal> for Declined {
    fn from(refusal: Refusal) -> Self {
        Self { refusal, receipt: None }
    }
}

/// Where a decision is on record: the caller's proof of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The lane.
    pub lane: LaneId,
    /// The record.
    pub place: Place,
    /// Digest of the configuration that decided.
    pub policy_version: [u8; 32],
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// From the certificate; allowlisted.
    pub identity: Arc<Identity>,
    /// The instance with a session, where the call names one.
    pub instance: Option<InstanceId>,
}

/// An accepted Send, Request or Reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub message_id: Uuid,
    /// For a request, the id that its reply will carry.
    pub correlation_id: Option<CorrelationId>,
    /// Where the decision is on record.
    pub receipt: Option<Receipt>,
}

/// One agent that Discover shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// The agent.
    pub agent: AgentId,
    /// What it offers.
    pub capabilities: Vec<String>,
    /// JSON text of an object.
    pub metadata_json: String,
}

/// Work for a worker.
pub enum Job {
    /// Send or Request.
    Message(MessageJob),
    /// Reply.
    Reply(ReplyJob),
    /// Discover.
    Discover {
        /// Who asks.
        caller: Caller,
        /// Any of these; empty: all.
        capabilities: Vec<String>,
        /// Where the list goes.
        answer: Answer<Vec<Discovered>>,
    },
    /// GetState.
    StateGet {
        /// Whose state.
        caller: Caller,
        /// Where the fields go.
        answer: Answer<Vec<(String, String)>>,
    },
    /// UpdateState.
    StateUpdate {
        /// Whose state.
        caller: Caller,
        /// Fields to set.
        updates: Vec<(String, String)>,
        /// Where the outcome goes.
        answer: Answer<()>,
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

/// Send or Request.
pub struct MessageJob {
    /// Who sends.
    pub caller: Caller,
    /// The sending instance, which has a session.
    pub instance: InstanceId,
    /// Whom it is for, as the sender gave it.
    pub target: String,
    /// Free text of the sender.
    pub message_type: String,
    /// The payload, not yet checked.
    pub data_json: String,
    /// For a request: how long it may be answered, in seconds.
    pub request_ttl_s: Option<u64>,
    /// Trace context.
    pub trace: Option<Trace>,
    /// Where the outcome goes.
    pub answer: Answer<Accepted>,
}

/// Reply.
pub struct ReplyJob {
    /// Who replies.
    pub caller: Caller,
    /// The replying instance, which has a session.
    pub instance: InstanceId,
    /// The request that is answered.
    pub correlation_id: CorrelationId,
    /// Free text of the sender.
    pub message_type: String,
    /// The payload, not yet checked.
    pub data_json: String,
    /// Trace context.
    pub trace: Option<Trace>,
    /// Where the outcome goes.
    pub answer: Answer<Accepted>,
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

impl Job {
    /// Bytes that this job holds beyond its own size.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Message(job) => job.data_json.len() + job.message_type.len() + job.target.len(),
            Self::Reply(job) => job.data_json.len() + job.message_type.len(),
            Self::StateUpdate { updates, .. } => {
                updates.iter().map(|(field, value)| field.len() + value.len()).sum()
            }
            Self::Refused(job) => job.target.len() + job.message_type.len() + job.instance.len(),
            Self::Discover { capabilities, .. } => capabilities.iter().map(String::len).sum(),
            Self::StateGet { .. } | Self::StateReset { .. } | Self::Open(_) => 0,
        }
    }

    /// The reply, if it is one.
    pub fn as_reply(&self) -> Option<&ReplyJob> {
        match self {
            Self::Reply(reply) => Some(reply),
            _ => None,
        }
    }

    /// Whose state it updates, if it does.
    pub fn updated_state(&self) -> Option<&AgentId> {
        match self {
            Self::StateUpdate { caller, .. } => Some(&caller.identity.agent),
            _ => None,
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
        // A caller that is gone needs no answer.
        match self {
            Self::Message(MessageJob { answer, .. }) | Self::Reply(ReplyJob { answer, .. }) => {
                let _ = answer.send(Err(declined));
            }
            Self::Discover { answer, .. } => {
                let _ = answer.send(Err(declined));
            }
            Self::StateGet { answer, .. } => {
                let _ = answer.send(Err(declined));
            }
            Self::StateUpdate { answer, .. } | Self::StateReset { answer, .. } => {
                let _ = answer.send(Err(declined));
            }
            Self::Open(session) => session.end(Some(declined.refusal)),
            Self::Refused(job) => (job.answer)(declined),
        }
    }
}

/// What a worker must hear whatever its load.
pub enum Control {
    /// The session has acks or nacks waiting.
    Events(Arc<Session>),
    /// The session's stream ended.
    Closed(Arc<Session>),
    /// An agent's inbox holds something that another server put there.
    News(AgentId),
    /// An instance of the agent left another server.
    Left(AgentId, InstanceId),
    /// An instance of the agent was on a server that is gone.
    Orphaned(AgentId, InstanceId, ServerId),
    /// An agent's circuit opened, or closed, on another server.
    Circuit(AgentId, bool),
    /// A handler of the agent failed on another server.
    Failed(AgentId),
    /// News of other servers may have been missed.
    LookOver,
    /// Decide by these settings from now on.
    Reload(Arc<Settings>),
    /// Put this on record with the next commit.
    Record(OperatorEvent),
    /// Finish what was accepted, end all sessions, stop.
    Stop,
}
