//! Messages to a worker that are not work: they are taken whatever its load is.

use std::sync::Arc;

use super::session_key::SessionKey;
use super::settings::Settings;
use crate::audit::OperatorEvent;
use crate::ids::{AgentId, InstanceId, ServerId};
use crate::store::news::Unanswered;

/// Which session of which agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionName {
    /// The agent: its home worker has the session.
    pub agent: AgentId,
    /// The session.
    pub key: SessionKey,
}

/// A message to a worker.
pub enum Control {
    /// The session has acks or nacks for the worker to take.
    Settlements(SessionName),
    /// The session's stream ended.
    Closed(SessionName),
    /// An agent's inbox holds something that another server put there.
    News(AgentId),
    /// Another worker has added to an agent's inbox.
    Grown {
        /// Whose inbox.
        agent: AgentId,
        /// Messages to the shared stream.
        messages: u64,
        /// What they take in Redis.
        bytes: u64,
        /// Replies to instances' own streams, and what each takes there.
        replies: Vec<(InstanceId, u64)>,
    },
    /// An agent's inbox is full by what is known: ask Redis.
    Weigh(AgentId),
    /// An operator has taken so many messages out of an agent's inbox.
    Taken(AgentId, u64),
    /// An instance of this agent has a session on that server now.
    OpenedElsewhere(AgentId, ServerId),
    /// An instance of the agent left another server.
    Left(AgentId, InstanceId),
    /// An instance of the agent was on a server that is gone.
    Orphaned(AgentId, InstanceId, ServerId),
    /// An agent's circuit opened, or closed, on another server.
    Circuit(AgentId, bool),
    /// An operator closes an agent's circuit: by whom, and why.
    CloseCircuit(AgentId, String),
    /// A handler of the agent failed on another server.
    Failed(AgentId),
    /// No reply will come to a request of this agent's.
    Unanswered(Unanswered),
    /// News of other servers may have been missed: read from Redis again what they tell.
    Resync,
    /// Another deny-list is in force: look at the sessions' certificates now.
    CheckCertificates,
    /// Decide by these settings from now on.
    Reload(Arc<Settings>),
    /// Put this on record with the next commit.
    Record(OperatorEvent),
    /// The server is about to stop: have the sessions move to other servers, between these times (monotonic milliseconds).
    Move {
        /// From then on.
        from_ms: u64,
        /// All of them are asked by then.
        until_ms: u64,
    },
    /// Finish what was accepted, end all sessions, stop.
    Stop,
}
