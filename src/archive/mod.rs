//! Retention: what Redis holds of the trail beyond half of `gateway.audit.max_records` is copied to segment files on disk, up to
//! a signed checkpoint, synced and read back. What is on disk leaves Redis, oldest first, when Redis holds more than
//! `max_records`; so a reader that comes from the files finds what follows still there. Where nothing is archived, or it
//! cannot keep up, nothing more is admitted. A thread with a Redis connection of its own.
//!
//! Of the servers on one Redis one archives, for all of them: the one that has the right to (a lease in Redis) and the
//! folder's lock. How far it got stands in Redis, with a tag, so another one goes on behind it in a folder of its own.
//!
//! * `folder`: which file is what.
//! * `frames`: compressed parts of a segment, and the list of them.
//! * `filling`: taken from Redis and checked.
//! * `open_segment`: the segment that is being filled: append, close, and what a crash has left.
//! * `index`: the segments that are closed.
//! * `keeping`: an archive that is being written.
//! * `retention`: the thread, and its bounds.
//! * `reading`: segments as commands read them.
//! * `pages`: the same a frame at a time, in either direction.
//! * `letters`: dead letters that were too many for Redis; `letter_mover`: how they get there.
//! * `ahead`: a segment's next items, made ready beside the reader.

mod ahead;
mod error;
mod filling;
mod folder;
mod frames;
mod index;
mod keeping;
mod letter_mover;
mod letters;
mod open_segment;
mod pace;
mod pages;
mod reading;
mod retention;

pub use error::ArchiveError;
pub use frames::message_key;
pub use keeping::archived;
pub use letters::each_letter;
pub use pages::{Look, Page, Pages, Place, Turned};
pub use reading::{Part, Reading, Wanted};
pub use retention::Retention;
