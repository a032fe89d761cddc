//! What a match does to the message.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a match does to the message, from the mildest to the most restrictive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Nothing; the type is not looked for.
    #[default]
    Allow,
    /// The message passes and the finding is recorded.
    Alert,
    /// The message passes with the matched characters replaced.
    Redact,
    /// The message is refused.
    Block,
}

impl Action {
    /// The name in the configuration and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Alert => "alert",
            Self::Redact => "redact",
            Self::Block => "block",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
