//! Redis, and nothing of Redis elsewhere: key names, connections, batches of commands, and reading
//! their answers.

pub mod answers;
pub mod connection;
pub mod entries;
pub mod keys;
pub mod lease;
pub mod trail;
pub mod walk;

pub use connection::{Batch, Connection, StoreError};
pub use redis::Value;
