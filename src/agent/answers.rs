//! What calls return to the program.

/// Another agent, as Discover shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Peer {
    /// Its id.
    pub agent_id: String,
    /// What it offers.
    pub capabilities: Vec<String>,
    /// Its metadata, a JSON object.
    pub metadata: serde_json::Value,
    /// `ACTIVE`.
    pub status: String,
}

/// What a commit did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Ids of its messages, in their order.
    pub message_ids: Vec<String>,
    /// The version of the state afterwards; 0 where it was not touched.
    pub version: u64,
}
