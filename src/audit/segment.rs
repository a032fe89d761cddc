//! The file format of exports and of archived segments: what is in Redis, as lines of JSON that any tool
//! can read and that prove as much as the original does. Pure: reads and writes streams that it is given.
//!
//! ```text
//! {"mas_audit_segment":1,"kind":"archive","number":7,"made_us":…,"from_us":null,"to_us":null}
//! {"lane":"…","registered":"…","size":512,"nodes":["base64",…]}
//! {"lane":"…","first":513,"records":["base64",…],"root":"base64"}
//! {"note":"a signed checkpoint"}
//! {"end":{"lines":4,"records":16,"sha256":"hex of all lines before this one"}}
//! ```
//!
//! Order is part of the format, so that it is verified in one pass and in constant memory: a lane's line
//! stands before its blocks; its blocks stand in their order; **a checkpoint stands behind the blocks that it
//! covers and before those that it does not.** A file that does not begin at a lane's first record says
//! what the tree was before (`size`, `nodes`: the roots of its complete subtrees, largest first).
//! Records are bytes, never fields: what is hashed is what is stored. Version 1, which exports have, writes them in base64;
//! version 2, which archives have, in hexadecimal: equal bytes look equal wherever they stand, which suits a compressor.
//! In an archive a note may name its id in Redis (`"id":"1700000000000-0"`), and the file that is being filled has no last
//! line yet.

mod format;
mod lines;
mod reader;
mod writer;

pub use format::{Attested, End, Header, Item, MAX_LINE_BYTES, MAX_NOTE_BYTES, SegmentError, SegmentKind};
pub use lines::Running;
pub use reader::SegmentReader;
pub use writer::SegmentWriter;

#[cfg(test)]
mod tests;
