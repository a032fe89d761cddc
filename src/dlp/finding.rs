//! What a scan finds.

use std::fmt;
use std::sync::Arc;

use super::action::Action;
use super::kinds::{Class, Kind};

/// Most findings a scan lists; further ones are counted.
pub const MAX_FINDINGS: usize = 256;
/// Longest text that is kept of a match for its digest, in bytes.
pub const MAX_DIGEST_INPUT: usize = 4 * 1024;
/// One match. What was matched is in none of its printable forms.
#[derive(Clone, PartialEq, Eq)]
pub struct Finding {
    /// The type of data.
    pub kind: Arc<str>,
    /// The rule: a custom rule's id, or `default.` and the type.
    pub rule: Arc<str>,
    /// RFC 6901 pointer to the member; for a match in a key, to the member of that key. Keys in the path
    /// that are findings themselves are shown redacted. For a text beside the payload the name of its place (`message_type`, `tracestate`).
    pub pointer: String,
    /// Where the match begins, in characters of the decoded string (of the key, when it is in one).
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// What the rule demands, or the exception.
    pub action: Action,
    /// The name of the exception that says so.
    pub exception: Option<Arc<str>>,
    /// True when the match is in the key, not in the value.
    pub in_key: bool,
    pub(super) text: Box<[u8]>,
}

impl Finding {
    /// The matched text in a form that is the same however it was written (folded, of numbers only the
    /// digits), cut at [`MAX_DIGEST_INPUT`]. For a keyed digest; it must not be stored or shown.
    pub fn digest_input(&self) -> &[u8] {
        &self.text
    }
}

impl fmt::Debug for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finding")
            .field("kind", &self.kind)
            .field("rule", &self.rule)
            .field("pointer", &self.pointer)
            .field("start", &self.start)
            .field("end", &self.end)
            .field("action", &self.action)
            .field("exception", &self.exception)
            .field("in_key", &self.in_key)
            .finish_non_exhaustive()
    }
}

/// The outcome of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Scan {
    /// The most restrictive action among the matches. A match that would have to be redacted but cannot
    /// be, because it is in the message type or there are too many, blocks.
    pub action: Action,
    /// The first [`MAX_FINDINGS`] matches, the most restrictive first, then in the order of the payload.
    pub findings: Vec<Finding>,
    /// How many more there are; at least so many when the message is blocked anyway.
    pub further: usize,
    /// The names of the exceptions that were used, each once.
    pub exceptions: Vec<Arc<str>>,
    /// With [`Action::Redact`]: the payload with the matched characters replaced, every other byte as it
    /// was.
    pub redacted: Option<String>,
    /// True when the budget of work was used up before all of the message was looked at.
    pub truncated: bool,
}

/// A rule as findings name it.
#[derive(Debug, Clone)]
pub(super) struct RuleInfo {
    pub(super) kind: Arc<str>,
    pub(super) id: Arc<str>,
    pub(super) action: Action,
    pub(super) class: Class,
    pub(super) built_in: Option<Kind>,
}
