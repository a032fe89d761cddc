//! The tamper-evident trail: who asked for what, what was decided, by which rule, under which policy.
//!
//! * [`record`]: one decision as canonical bytes.
//! * [`lane`]: an append-only tree of records with one writer for its whole life.
//! * [`merkle`]: how records, lanes and checkpoints are hashed.
//! * [`checkpoint`]: the heads of all lanes at one time, under one signature.
//! * [`board`]: the heads of a running server's lanes.
//! * [`note`], [`keys`]: the form of signatures; which key signed when.
//! * [`attest`]: tags on what is stored, which only who has the store key can make.
//! * [`proof`]: receipts, and the path from a record to a signed checkpoint.
//! * [`segment`]: the file format of exports and archives.
//! * [`operator`]: events of the server itself.
//! * [`tally`]: what was put on record, counted.
//! * [`tap`], [`json`]: what the copy in a file is made of.
//! * [`watchers`]: who sees decisions as they are committed.
//! * [`verify`]: reads lanes back and finds what was altered.
//!
//! Nothing here does I/O: the store writes a lane's block in the same transaction as the effects it
//! describes, and the checkpointer writes checkpoints.

pub mod attest;
pub mod board;
pub mod checkpoint;
pub mod json;
pub mod keys;
pub mod lane;
pub mod merkle;
pub mod note;
pub mod operator;
pub mod proof;
pub mod record;
pub mod segment;
pub mod tally;
pub mod tap;
pub mod verify;
pub mod watchers;

pub use attest::StoreKeys;
pub use board::Board;
pub use checkpoint::Checkpoint;
pub use keys::KeyHistory;
pub use lane::{Block, Lane, LaneId};
pub use operator::OperatorEvent;
pub use record::{Action, Decision, Fields, Record, View};
pub use tap::Tap;
