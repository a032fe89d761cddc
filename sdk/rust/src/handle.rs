//! What an agent can do: shared by the agent, its handlers and the program's threads.

use std::sync::Arc;

use crate::answers::Peer;
use crate::calls::{Calls, from_now};
use crate::error::AgentError;
use crate::protocol::{DISCOVER, DiscoverRequest};

/// What an agent can do, from any thread and inside handlers ([`Message::agent`](crate::Message::agent)). Once the agent is shut down, calls
/// fail as not connected.
#[derive(Clone)]
pub struct Handle {
    pub(crate) calls: Arc<Calls>,
}

impl Handle {
    /// The id that the server read from the certificate; empty before the first session.
    pub fn agent_id(&self) -> String {
        self.calls.session.agent_id()
    }

    /// This process's instance id.
    pub fn instance_id(&self) -> &str {
        &self.calls.session.instance
    }

    /// Whether the session is open right now.
    pub fn is_connected(&self) -> bool {
        self.calls.session.open().is_some()
    }

    /// Has [`Agent::wait`](crate::Agent::wait) and [`Agent::run`](crate::Agent::run) return, from wherever it is called: a handler that ends its program.
    pub fn stop(&self) {
        self.calls.session.ask_to_end();
    }

    /// Calls that wait in the agent because as many are under way as the server takes at a time.
    pub fn backlog(&self) -> usize {
        self.calls.submissions.backlog()
    }

    /// Connected agents that this one may message and that offer any of `capabilities` (empty: all).
    pub fn discover(&self, capabilities: &[&str]) -> Result<Vec<Peer>, AgentError> {
        let request = DiscoverRequest {
            capabilities: capabilities.iter().map(|&c| c.to_owned()).collect(),
            ..DiscoverRequest::new()
        };
        let response = self.calls.read("discover", &DISCOVER, &request, from_now(self.calls.call_timeout))?;
        response.agents.into_iter().map(Peer::read).collect()
    }
}
