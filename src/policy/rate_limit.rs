//! How many messages an agent may send: a section of the configuration.

/// Messages per sending agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// In any 60 seconds.
    pub per_minute: u32,
    /// In any 60 minutes.
    pub per_hour: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { per_minute: 100, per_hour: 1000 }
    }
}
