//! A connected agent: its calls, its handlers, its connection.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::answers::Peer;
use crate::calls::Calls;
use crate::commit::Commit;
use crate::connection::Connection;
use crate::error::AgentError;
use crate::handlers::Pool;
use crate::message::Message;
use crate::outgoing::Outgoing;
use crate::protocol::{DISCOVER, DiscoverRequest};
use crate::receipts::Sent;
use crate::session::Ended;

/// How long a shutdown waits for the server to end the stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connected agent. Dropping it shuts it down. Its calls are those of its [`Handle`].
pub struct Agent {
    pub(crate) handle: Handle,
    pub(crate) connection: Connection,
    pub(crate) pool: Pool,
    pub(crate) drain_timeout: Duration,
}

/// What an agent can do, from any thread and inside handlers ([`Message::agent`]). Once the agent is shut down, calls
/// fail as not connected.
#[derive(Clone)]
pub struct Handle {
    pub(crate) calls: Arc<Calls>,
}

impl Deref for Agent {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
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

    /// Has [`Agent::wait`] and [`Agent::run`] return, from wherever it is called: a handler that ends its program.
    pub fn stop(&self) {
        self.calls.session.ask_to_end();
    }

    /// Calls that wait in the agent because as many are under way as the server takes at a time.
    pub fn backlog(&self) -> usize {
        self.calls.submissions.backlog()
    }

    /// Sends one message: when this returns it is stored and on record. Made again under one key where its answer was
    /// lost, so that it is sent once.
    pub fn send<T: Serialize + ?Sized>(
        &self,
        target: &str,
        message_type: &str,
        data: &T,
    ) -> Result<Sent, AgentError> {
        self.message(target, message_type, data).send()
    }

    /// Sends a request and waits for its reply.
    pub fn request<T: Serialize + ?Sized>(
        &self,
        target: &str,
        message_type: &str,
        data: &T,
        timeout: Duration,
    ) -> Result<Message, AgentError> {
        self.message(target, message_type, data).request(timeout)
    }

    /// Begins a message that carries more than a payload.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn example(agent: &mas_agent::Agent) -> Result<(), mas_agent::AgentError> {
    /// let order = serde_json::json!({"item": "tea"});
    /// agent.message("warehouse", "order", &order).key("order-17").ttl(Duration::from_secs(60)).send()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn message<T: Serialize + ?Sized>(&self, target: &str, message_type: &str, data: &T) -> Outgoing {
        Outgoing::new(self, target, message_type, data)
    }

    /// Begins state and messages as one step, without a message that was handled.
    pub fn commit(&self) -> Commit {
        Commit::new(self, None)
    }

    /// Connected agents that this one may message and that offer any of `capabilities` (empty: all).
    pub fn discover(&self, capabilities: &[&str]) -> Result<Vec<Peer>, AgentError> {
        let request = DiscoverRequest {
            capabilities: capabilities.iter().map(|&c| c.to_owned()).collect(),
            ..DiscoverRequest::new()
        };
        let response = self.calls.read("discover", &DISCOVER, &request)?;
        response.agents.into_iter().map(Peer::read).collect()
    }
}

impl Agent {
    /// Returns when the agent has ended: with the refusal that ended it.
    pub fn wait(&self) -> Result<(), AgentError> {
        match self.handle.calls.session.wait_ended() {
            Ended::Stopped | Ended::Asked => Ok(()),
            Ended::Refused(refusal) => Err(AgentError::Refused(refusal)),
        }
    }

    /// Works until SIGTERM or SIGINT, then shuts down; a second signal ends the process at once. The body of a program.
    pub fn run(self) -> Result<(), AgentError> {
        let setup = |error: std::io::Error| AgentError::Setup(format!("signals cannot be handled: {error}"));
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(setup)?;
        let (handle, close) = (self.handle.clone(), signals.handle());
        let watch = std::thread::Builder::new().name("agent-signals".to_owned()).spawn(move || {
            let mut forever = signals.forever();
            if forever.next().is_some() {
                handle.calls.session.ask_to_end();
            }
            if let Some(signal) = forever.next() {
                std::process::exit(128 + signal);
            }
        });
        drop(watch.map_err(setup)?);
        let ended = self.wait();
        drop(self);
        close.close();
        ended
    }

    /// Takes no further messages, lets those that arrived be handled within the drain timeout, then ends the session.
    /// What is not finished by then stays with the server.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.pool.drain(Instant::now() + self.drain_timeout);
        self.handle.calls.session.begin_stop();
        // The last acknowledgements and the half-close have time of their own.
        self.connection.close(Instant::now() + CLOSE_TIMEOUT);
    }
}
