//! Why something was found, or was not: each candidate with its evidence, for people.

use super::kinds::Kind;

/// A candidate that was judged.
#[derive(Debug, Clone)]
pub(super) struct Judged {
    /// The rule that it was judged by.
    pub(super) rule: String,
    pub(super) kind: Kind,
    /// Its place in the buffer.
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) total: i32,
    pub(super) evidence: Vec<(&'static str, i32)>,
}
