//! Agents for MAS server, for plain threads.
//!
//! Agents talk to one another only through the server, which reads who they are from their certificates, allows what its
//! configuration allows, and puts every decision on record. `docs/clients.md` of the server lists what this library promises.
//!
//! ```no_run
//! use std::time::Duration;
//! use mas_agent::{Agent, Credentials};
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
//!
//! A call that fails inside a handler can be handed on with `?`: what passes by itself, such as a rate limit, has the message
//! delivered again and counts as nobody's failure; see [`HandlerError`].
//!
//! Where the application has set OpenTelemetry's global providers, calls and handlers are spans and metrics of theirs, by the
//! conventions for messaging.

#![forbid(unsafe_code)]

mod agent;
mod answers;
mod builder;
mod calls;
mod commit;
mod connection;
mod credentials;
mod error;
mod failure;
mod handle;
mod handlers;
mod message;
mod outbox;
mod outgoing;
mod protocol;
mod receipts;
mod received;
mod refusal;
mod replies;
mod reply;
mod session;
mod state;
mod submit;
mod tracing;
mod wire;

pub use agent::Agent;
pub use answers::Peer;
pub use builder::Builder;
pub use commit::{Commit, Committed, PendingReply};
pub use connection::keep_alive;
pub use credentials::{Credentials, Pem};
pub use error::{AgentError, HandlerError, NoReply};
pub use handle::Handle;
pub use message::Message;
pub use outgoing::Outgoing;
pub use receipts::{Finding, Receipt, Sent};
pub use refusal::Refusal;
pub use session::Event;
pub use state::{State, StateUpdate};
pub use tracing::TraceParent;

/// The examples of the readme compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
