//! A connected agent: its calls, its handlers, its stream.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::answers::Peer;
use super::calls::Calls;
use super::error::AgentError;
use super::handlers::Pool;
use super::message::Message;
use super::payload::to_json;
use super::stream::Stream;

/// How long a shutdown waits for the server to end the stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connected agent. Dropping it shuts it down.
pub struct Agent {
    pub(super) calls: Arc<Calls>,
    pub(super) stream: Stream,
    pub(super) pool: Pool,
    pub(super) drain_timeout: Duration,
}

impl Agent {
    /// The id that the server read from the certificate.
    pub fn agent_id(&self) -> String {
        self.calls.session.agent_id()
    }

    /// This process's instance id.
    pub fn instance_id(&self) -> &str {
        &self.calls.session.instance
    }

    /// Sends one message and returns its id: it is stored and on record. Repeated under one key until its
    /// outcome is known, so it is sent once.
    pub fn send<T: Serialize>(
        &self,
        target: &str,
        message_type: &str,
        data: &T,
    ) -> Result<String, AgentError> {
        self.calls.send(target, message_type, &to_json(data)?)
    }

    /// Sends a request and waits for its reply.
    pub fn request<T: Serialize>(
        &self,
        target: &str,
        message_type: &str,
        data: &T,
        timeout: Duration,
    ) -> Result<Message, AgentError> {
        let reply = self.calls.request(target, message_type, &to_json(data)?, timeout)?;
        Ok(Message::new(reply, &self.calls))
    }

    /// Connected agents that this one may message and that offer any of `capabilities` (empty: all).
    pub fn discover(&self, capabilities: &[&str]) -> Result<Vec<Peer>, AgentError> {
        self.calls.discover(capabilities)
    }

    /// This agent's state: strings under string fields.
    pub fn state(&self) -> Result<HashMap<String, String>, AgentError> {
        self.calls.get_state()
    }

    /// Sets fields of this agent's state.
    pub fn update_state(&self, updates: &[(&str, &str)]) -> Result<(), AgentError> {
        self.calls.update_state(updates)
    }

    /// Removes this agent's state.
    pub fn reset_state(&self) -> Result<(), AgentError> {
        self.calls.reset_state()
    }

    /// Whether the session is open right now.
    pub fn is_connected(&self) -> bool {
        self.calls.session.is_open()
    }

    /// Finishes the messages that have arrived, within the drain timeout, then ends the session.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.pool.drain(Instant::now() + self.drain_timeout);
        self.calls.session.begin_stop();
        // The last acknowledgements and the half-close have time of their own.
        self.stream.close(Instant::now() + CLOSE_TIMEOUT);
    }
}
