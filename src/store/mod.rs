//! Redis, and nothing of Redis elsewhere: key names, connections, batches of commands, and reading
//! their answers.

pub mod answers;
pub mod checkpoints;
pub mod connection;
pub mod entries;
pub mod keys;
pub mod news;
pub mod servers;
pub mod trail;
pub mod walk;

pub use connection::{Batch, Connection, StoreError};
pub use redis::Value;
