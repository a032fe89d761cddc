//! The trail as it is read afterwards, by commands and by the admin listener: from the live Redis, from files, or from archives
//! and what is still in Redis behind them as one.
//!
//! * `source`: where a trail is read from, in the order in which it is verified.
//! * `records`: its records one by one.
//! * `filter`, `when`: which of them are wanted; times as people write them.
//! * `search`, `lanes`: for a part of it at a time, in either direction.
//! * `chain`: one message's life.
//! * `proving`: a record, and the path from it to a signed checkpoint; `lookup`: the same in bounded work.

pub mod chain;
mod error;
pub mod filter;
mod lanes;
pub mod lookup;
pub mod proving;
pub mod records;
pub mod search;
pub mod source;
pub mod when;

pub use error::HistoryError;
