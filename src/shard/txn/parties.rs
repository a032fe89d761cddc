//! Who sends, and to whom a reply goes.

use super::facts::PendingRequest;
use crate::content::Trace;
use crate::ids::{AgentId, InstanceId};
use crate::shard::desk::job::Caller;

/// Who sends: the parts that every message of a job shares.
#[derive(Clone, Copy)]
pub(super) struct Sender<'a> {
    pub caller: &'a Caller,
    pub instance: &'a InstanceId,
    pub trace: Option<&'a Trace>,
}

impl Sender<'_> {
    pub(super) fn agent(&self) -> &AgentId {
        &self.caller.identity.agent
    }
}

/// Where a reply goes.
#[derive(Debug, Clone)]
pub(super) struct Addressee {
    pub agent: AgentId,
    pub instance: InstanceId,
    pub pending: PendingRequest,
    pub ttl_ms: u64,
}
