//! What is behind the gate: takes the clear-text ends of its connections, and says who is on the list.

use std::collections::HashSet;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::gate::{Core, Peers};
use crate::identity::Identity;
use crate::ids::AgentId;
use crate::refusal::Refusal;

/// The other end of a connection, and whose it is; the fingerprint of its certificate, where it names an agent.
pub struct Taken {
    pub fingerprint: Option<[u8; 32]>,
    pub pair: UnixStream,
}

pub struct StandIn {
    peers: Mutex<Option<Arc<Peers>>>,
    taken: Mutex<Vec<Taken>>,
    allowed: Mutex<HashSet<AgentId>>,
    /// Nobody looks who may be forgotten: what the gate counts wrongly would be forgotten too.
    pub at_rest: AtomicBool,
    /// Rings when a connection was handed over.
    pub bell: EventFd,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread has panicked: that ends the process")
}

impl StandIn {
    pub fn new() -> Self {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Self {
            peers: Mutex::default(),
            taken: Mutex::default(),
            allowed: Mutex::default(),
            at_rest: AtomicBool::new(false),
            bell: EventFd::from_flags(flags).expect("an event"),
        }
    }

    /// Whose connections are handed over from now on.
    pub fn stand_behind(&self, peers: Option<Arc<Peers>>) {
        *locked(&self.peers) = peers;
    }

    /// What was handed over since this was asked last.
    pub fn taken(&self) -> Vec<Taken> {
        let _ = self.bell.read();
        std::mem::take(&mut locked(&self.taken))
    }

    /// Whether that agent is on the list from now on.
    pub fn allow(&self, agent: &AgentId, on: bool) {
        let mut allowed = locked(&self.allowed);
        let _ = if on { allowed.insert(agent.clone()) } else { allowed.remove(agent) };
    }

    pub fn is_on_list(&self, agent: &AgentId) -> bool {
        locked(&self.allowed).contains(agent)
    }
}

impl Core for StandIn {
    fn take(&self, pair: OwnedFd) {
        let name = format!("fd:{}", pair.as_raw_fd());
        let peer = locked(&self.peers).as_ref().and_then(|peers| peers.named(&name));
        let peer = peer.expect("a connection is known before it is handed over");
        let fingerprint = peer.identity.as_ref().ok().map(|identity| identity.fingerprint);
        locked(&self.taken).push(Taken { fingerprint, pair: UnixStream::from(pair) });
        let _ = self.bell.write(1);
    }

    fn refusal(&self, identity: &Identity) -> Option<Refusal> {
        (!self.is_on_list(&identity.agent)).then_some(Refusal::AGENT_NOT_ALLOWLISTED)
    }

    fn record_counts(&self) {}

    fn has_changed(&self) -> bool {
        !self.at_rest.load(Ordering::Relaxed)
    }
}
