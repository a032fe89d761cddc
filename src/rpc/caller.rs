//! Who is calling, from the certificate of the connection; parsed once per certificate, checked against
//! the allowlist and the certificate's dates at every call.

use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use grpcio::RpcContext;

use super::memory::Memory;
use crate::clock::Now;
use crate::identity::Identity;
use crate::refusal::Refusal;
use crate::shard::desk::shared::Shared;

/// Certificates whose reading is remembered, in each of two generations: as many agents may call in turn, and none is
/// read twice. Both together: some 1 KiB a certificate with a P-256 key, 2 KiB with an RSA key, so 32 to 64 MiB; with
/// certificates of [`MAX_CACHED_PEM_BYTES`] 512 MiB.
const MAX_CACHED: usize = 16_384;
/// Longest certificate chain element that is remembered, in bytes.
const MAX_CACHED_PEM_BYTES: usize = 16 * 1024;
/// The property in which gRPC hands over the verified leaf certificate.
const PEM_PROPERTY: &str = "x509_pem_cert";

type Reading = Result<Arc<Identity>, Refusal>;

/// Reads callers' identities.
pub(super) struct Callers {
    shared: Arc<Shared>,
    /// Keyed by the certificate itself, so that no two can be mistaken for each other.
    known: RwLock<Memory<Box<[u8]>, Reading>>,
}

/// A caller that is turned away, with what is known of it for the record.
pub(super) struct Stranger {
    /// Why.
    pub refusal: Refusal,
    /// The identity, when the certificate gives one.
    pub identity: Option<Arc<Identity>>,
}

impl Callers {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, known: RwLock::new(Memory::new(MAX_CACHED)) }
    }

    /// The allowlisted identity behind this call.
    pub(super) fn identify(&self, ctx: &RpcContext<'_>) -> Result<Arc<Identity>, Stranger> {
        let stranger = |refusal| Stranger { refusal, identity: None };
        // The handshake demands a certificate: without one there is no call.
        let auth = ctx.auth_context().ok_or(stranger(Refusal::INVALID_CERTIFICATE))?;
        let property = auth
            .into_iter()
            .find(|property| property.name() == PEM_PROPERTY)
            .ok_or(stranger(Refusal::INVALID_CERTIFICATE))?;
        let identity = self.read(property.value()).map_err(stranger)?;
        let refusal = if self.shared.settings().policy.agent(identity.agent.as_str()).is_none() {
            Refusal::AGENT_NOT_ALLOWLISTED
        } else if !identity.is_current(Now::read()) {
            Refusal::INVALID_CERTIFICATE
        } else if identity.is_revoked(&self.shared.revoked()) {
            Refusal::CERTIFICATE_REVOKED
        } else {
            return Ok(identity);
        };
        Err(Stranger { refusal, identity: Some(identity) })
    }

    fn read(&self, pem: &[u8]) -> Reading {
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(reading) = known.get(pem) {
                return reading.clone();
            }
        }
        if pem.len() > MAX_CACHED_PEM_BYTES {
            return Identity::from_pem(pem).map(Arc::new);
        }
        if let Some(reading) = self.known_mut().recall(pem) {
            return reading.clone();
        }
        let reading = Identity::from_pem(pem).map(Arc::new);
        self.known_mut().insert(pem.into(), reading.clone());
        reading
    }

    fn known_mut(&self) -> RwLockWriteGuard<'_, Memory<Box<[u8]>, Reading>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}
