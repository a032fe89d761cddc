//! The trail as it is read afterwards, by commands and by the admin listener: from the live Redis, from files, or from archives
//! and what is still in Redis behind them as one.
//!
//! * `source`: where a trail is read from, in the order in which it is verified.
//! * `records`: its records one by one.
//! * `filter`, `when`: which of them are wanted; times as people write them.
//! * `chain`: one message's life.
//! * `proving`: a record, and the path from it to a signed checkpoint.

pub mod chain;
mod error;
pub mod filter;
pub mod proving;
pub mod records;
pub mod source;
pub mod when;

pub use error::HistoryError;
