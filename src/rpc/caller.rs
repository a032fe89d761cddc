//! Who is calling: what the certificate of the call's connection says, checked against the allowlist, the
//! certificate's dates and the deny-list at every call.

use std::sync::Arc;

use grpcio::RpcContext;

use crate::clock::Now;
use crate::gate::{Credit, Peer, Peers};
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
    /// Not looked at, and counted already: nothing is recorded of it alone.
    pub unseen: bool,
}

impl Stranger {
    /// One that is put on record.
    pub(super) fn new(refusal: Refusal, identity: Option<Arc<Identity>>) -> Self {
        Self { refusal, identity, unseen: false }
    }
}

/// A caller who may ask.
pub(super) struct Admitted {
    pub identity: Arc<Identity>,
    pub peer: Arc<Peer>,
}

/// When somebody may ask again who was refused too often, in milliseconds.
const RETRY_AFTER_MS: u64 = 1000;

/// What those are told who were refused too often.
pub(super) const TOO_OFTEN: Refusal = Refusal::RATE_LIMITED.retry_after(Some(RETRY_AFTER_MS));

impl Callers {
    pub(super) fn new(shared: Arc<Shared>, peers: Arc<Peers>) -> Self {
        Self { shared, peers }
    }

    /// The allowlisted identity behind this call.
    pub(super) fn identify(&self, ctx: &RpcContext<'_>) -> Result<Admitted, Stranger> {
        // A connection that was cut may leave calls behind: they are nobody's.
        let peer =
            self.peers.named(&ctx.peer()).ok_or_else(|| self.stranger(Refusal::INVALID_CERTIFICATE, None))?;
        let identity = match &peer.identity {
            Ok(identity) => identity.clone(),
            Err(refusal) => return Err(self.stranger(*refusal, None)),
        };
        match refusal(&self.shared, &identity) {
            None => Ok(Admitted { identity, peer }),
            Some(refusal) => Err(self.stranger(refusal, Some(identity))),
        }
    }

    /// Somebody who is not allowed: all of those share what may be recorded of them.
    fn stranger(&self, refusal: Refusal, identity: Option<Arc<Identity>>) -> Stranger {
        Stranger { refusal, identity, unseen: !self.peers.may_record_stranger(Now::mono_us()) }
    }

    /// Credit for what a call may be refused.
    pub(super) fn credit(&self, peer: &Arc<Peer>, count: usize) -> Option<Credit> {
        self.peers.credit(peer, count, Now::mono_us())
    }

    /// Whether one more discovery may be made.
    pub(super) fn may_discover(&self, peer: &Peer) -> bool {
        self.peers.may_discover(peer, Now::mono_us())
    }

    /// Whether one more session may be opened.
    pub(super) fn may_open(&self, peer: &Peer) -> bool {
        self.peers.may_open(peer, Now::mono_us())
    }
}

/// Why that identity may not be here now.
pub(super) fn refusal(shared: &Shared, identity: &Identity) -> Option<Refusal> {
    let settings = shared.settings();
    if settings.policy.agent(identity.agent.as_str()).is_none() {
        Some(Refusal::AGENT_NOT_ALLOWLISTED)
    } else if settings.is_shut_out(&identity.agent, &shared.quarantine()) {
        Some(Refusal::QUARANTINED)
    } else if !identity.is_current(Now::read()) {
        Some(Refusal::INVALID_CERTIFICATE)
    } else if identity.is_revoked(&shared.revoked()) {
        Some(Refusal::CERTIFICATE_REVOKED)
    } else {
        None
    }
}
