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
//!
//! Where the application has set OpenTelemetry's global providers, calls and handlers are spans and metrics of theirs, by the
//! conventions for messaging: `docs/telemetry.md`.

mod answers;
mod builder;
mod calls;
mod commit;
mod connected;
mod error;
mod handlers;
mod message;
mod outbox;
mod payload;
mod receipts;
mod received;
mod stream;
mod submit;
mod tracing;

pub use answers::{Committed, Peer};
pub use builder::{Builder, Credentials, keep_alive};
pub use commit::Commit;
pub use connected::Agent;
pub use error::{AgentError, HandlerError};
pub use message::Message;
pub use tracing::TraceParent;

/// What a server's decision can be proved with: [`Builder::keep_receipts`] hands them out, and
/// [`Receipt::check`] holds a proof against one, offline.
pub use crate::audit::keys::KeyHistory;
pub use crate::audit::proof::{Proof, ProofError, Proven, Receipt};
