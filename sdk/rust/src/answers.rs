//! What calls return to the program.

use crate::error::AgentError;
use crate::protocol::AgentRecord;

/// Another agent, as Discover shows it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
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

impl Peer {
    pub(crate) fn read(record: AgentRecord) -> Result<Self, AgentError> {
        let metadata = if record.metadata_json.is_empty() { "{}" } else { &record.metadata_json };
        Ok(Self {
            metadata: serde_json::from_str(metadata).map_err(AgentError::Payload)?,
            agent_id: record.agent_id,
            capabilities: record.capabilities,
            status: record.status,
        })
    }
}
