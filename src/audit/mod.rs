//! The tamper-evident trail: who asked for what, what was decided, by which rule, under which policy.
//!
//! * [`record`]: one decision as canonical bytes.
//! * [`lane`]: an append-only tree of records with one writer for its whole life.
//! * [`merkle`]: how records, lanes and checkpoints are hashed.
//! * [`verify`]: reads lanes back and finds what was altered.
//!
//! Nothing here does I/O: the store writes a lane's block in the same transaction as the effects it
//! describes. Signed checkpoints over the lane heads will sit beside [`lane`].

pub mod lane;
pub mod merkle;
pub mod record;
pub mod verify;

pub use lane::{Block, Lane, LaneId};
pub use record::{Action, Decision, Fields, Record};
