//! Who is calling: what the certificate of the call's connection says, checked against the allowlist, the
//! certificate's dates and the deny-list at every call.

use std::sync::Arc;

use grpcio::RpcContext;

use crate::clock::Now;
use crate::gate::Peers;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::shard::desk::shared::Shared;

/// Finds callers' identities.
pub(super) struct Callers {
    shared: Arc<Shared>,
    peers: Arc<Peers>,
}

/// A caller that is turned away, with what is known of it for the record.
pub(super) struct Stranger {
    /// Why.
    pub refusal: Refusal,
    /// The identity, when the certificate gives one.
    pub identity: Option<Arc<Identity>>,
}

impl Callers {
    pub(super) fn new(shared: Arc<Shared>, peers: Arc<Peers>) -> Self {
        Self { shared, peers }
    }

    /// The allowlisted identity behind this call.
    pub(super) fn identify(&self, ctx: &RpcContext<'_>) -> Result<Arc<Identity>, Stranger> {
        let stranger = |refusal| Stranger { refusal, identity: None };
        // A connection that was cut may leave calls behind: they are nobody's.
        let peer = self.peers.named(&ctx.peer()).ok_or(stranger(Refusal::INVALID_CERTIFICATE))?;
        let identity = peer.identity.clone().map_err(stranger)?;
        match refusal(&self.shared, &identity) {
            None => Ok(identity),
            Some(refusal) => Err(Stranger { refusal, identity: Some(identity) }),
        }
    }
}

/// Why that identity may not be here now.
pub(super) fn refusal(shared: &Shared, identity: &Identity) -> Option<Refusal> {
    if shared.settings().policy.agent(identity.agent.as_str()).is_none() {
        Some(Refusal::AGENT_NOT_ALLOWLISTED)
    } else if !identity.is_current(Now::read()) {
        Some(Refusal::INVALID_CERTIFICATE)
    } else if identity.is_revoked(&shared.revoked()) {
        Some(Refusal::CERTIFICATE_REVOKED)
    } else {
        None
    }
}
