//! Real redis-server, real mas-server, real certificates, killed for real. Each test has a world of its
//! own in a temporary folder; everything is ended and removed when the world is dropped.

#![forbid(unsafe_code)]
// A panic is how a test fails.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs
)]

mod support;

mod admin;
mod admin_api;
mod agent_tracing;
mod archive;
mod audit;
mod audit_commands;
mod audit_copy;
mod campaign;
mod checkpoints;
mod client;
mod commands;
mod dead_letters;
mod dlp;
mod dlp_policy;
mod durability;
mod edge;
mod endpoints;
mod flow_control;
mod growth;
mod identity;
mod kills;
mod logs;
mod material;
mod message_options;
mod messages;
mod moving;
mod operator;
mod policy;
mod redelivery;
mod redis_faults;
mod requests;
mod rolling_restart;
mod runner;
mod seams;
mod server_faults;
mod servers;
mod sessions;
mod state;
mod steering;
mod structure;
mod submissions;
mod tamper;
mod terminal;
mod trust;
mod volume;
