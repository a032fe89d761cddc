//! MAS server: a secure, centralised multi-agent runtime.
//!
//! Agents talk to one another only through the server, over gRPC with mandatory mutual TLS. The server
//! reads identity from the client certificate, allows nothing that `mas.yaml` does not allow, writes a
//! tamper-evident record of every decision, and delivers at least once through Redis Streams.
//!
//! ARCHITECTURE.md has the map and the life of one message.

// One exception: `rpc/core.rs` hands a descriptor to gRPC.
#![deny(unsafe_code)]

pub mod admin;
pub mod archive;
pub mod audit;
pub mod certs;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod config;
pub mod content;
pub mod denylist;
pub mod disks;
pub mod dlp;
pub mod envelope;
mod files;
pub mod gate;
pub mod history;
pub mod identity;
pub mod ids;
pub mod json;
pub mod key_files;
pub mod material;
pub mod operation;
pub mod orders;
mod otlp;
pub mod policy;
pub mod protocol;
pub mod quarantine;
pub mod refusal;
pub mod rpc;
pub mod runner;
pub mod server;
pub mod shard;
pub mod sink;
pub mod store;
mod takeover;
pub mod telemetry;
