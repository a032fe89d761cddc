//! Redis, and nothing of Redis elsewhere: key names, connections, batches of commands, and reading
//! their answers.

pub mod answers;
pub mod archived;
pub mod attested;
pub mod checkpoints;
mod claim_script;
pub mod claims;
pub mod connection;
pub mod dead_letters;
pub mod details;
pub mod emptying;
pub mod endpoint;
pub mod entries;
pub mod essential;
pub mod fitness;
pub mod foreign;
pub mod info;
pub mod joining;
pub mod keys;
pub mod letter_pages;
pub mod moved_letters;
pub mod news;
pub mod older;
pub mod orders;
pub mod overview;
pub mod owners;
pub mod pipeline;
mod primary;
pub mod reports;
pub mod servers;
pub mod states;
pub mod trail;
pub mod trail_ends;
pub mod waiting;
pub mod walk;
mod wire;

pub use connection::{Batch, Connection, StoreError};
pub use endpoint::Endpoint;
pub use redis::Value;
