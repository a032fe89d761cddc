//! The client side: an agent as a Rust program, for plain threads.
//!
//! ```no_run
//! use std::time::Duration;
//! use mas::agent::{Agent, Credentials};
//!
//! #[derive(serde::Deserialize)]
//! struct Add { a: i64, b: i64 }
//!
//! let agent = Agent::builder("127.0.0.1:50051", Credentials::from_files("ca.pem", "a.pem", "a.key")?)
//!     .instance("i0")
//!     .on("add", |message, add: Add| {
//!         message.reply("sum", &serde_json::json!({"sum": add.a + add.b}))?;
//!         Ok(())
//!     })
//!     .connect()?;
//! agent.send("other", "greeting", &serde_json::json!({"text": "hello"}))?;
//! let reply = agent.request("adder", "add", &serde_json::json!({"a": 1, "b": 2}), Duration::from_secs(5))?;
//! println!("{}", reply.data());
//! agent.shutdown();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A message is acknowledged after its handler returned `Ok`; delivery is at least once, so a handler
//! may see a message again after a crash. A lost connection is made again with backoff; handlers that
//! run meanwhile go on, and what they finished is not handled twice by this process.

mod builder;
mod calls;
mod commit;
mod error;
mod handlers;
mod message;
mod receipts;
mod stream;
mod submit;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use builder::{Builder, Credentials, keep_alive};
pub use commit::{Commit, Committed};
pub use error::{AgentError, HandlerError};
pub use message::Message;

/// What a server's decision can be proved with: [`Builder::keep_receipts`] hands them out, and
/// [`Receipt::check`] holds a proof against one, offline.
pub use crate::audit::keys::KeyHistory;
pub use crate::audit::proof::{Proof, ProofError, Proven, Receipt};

use calls::Calls;
use handlers::Pool;
use stream::Stream;

/// How long a shutdown waits for the server to end the stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Another agent, as Discover shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// Its id.
    pub agent_id: String,
    /// What it offers.
    pub capabilities: Vec<String>,
    /// Its metadata, a JSON object.
    pub metadata: serde_json::Value,
    /// `ACTIVE`.
    pub status: String,
}

/// A connected agent. Dropping it shuts it down.
pub struct Agent {
    calls: Arc<Calls>,
    stream: Stream,
    pool: Pool,
    drain_timeout: Duration,
}

impl Agent {
    /// Starts describing an agent that connects to `addr` (`host:port`).
    pub fn builder(addr: &str, credentials: Credentials) -> Builder {
        Builder::new(addr, credentials)
    }

    /// Describes an agent from the environment that the runner gives its processes.
    pub fn builder_from_env() -> Result<Builder, AgentError> {
        Builder::from_env()
    }

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
        self.calls.request(target, message_type, &to_json(data)?, timeout)
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

fn to_json<T: Serialize>(data: &T) -> Result<String, AgentError> {
    serde_json::to_string(data).map_err(AgentError::Payload)
}
