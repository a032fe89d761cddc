//! gRPC's server as the gate sees it: connections in clear text are handed to it one by one.

use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use grpcio::Server;

use super::caller::refusal;
use crate::certs::Revocations;
use crate::gate;
use crate::identity::Identity;
use crate::quarantine::Quarantine;
use crate::refusal::Refusal;
use crate::shard::Shards;
use crate::shard::desk::settings::Settings;
use crate::shard::desk::shared::Shared;

/// What decided who is allowed when it was last asked.
type Seen = (Arc<Settings>, Arc<Revocations>, Arc<Quarantine>);

pub(super) struct Core {
    /// Gone when the server stops.
    server: Mutex<Option<Server>>,
    shards: Arc<Shards>,
    seen: Mutex<Seen>,
}

impl Core {
    pub(super) fn new(server: Server, shards: Arc<Shards>) -> Self {
        let shared = shards.shared();
        let seen = Mutex::new(seen(shared));
        Self { server: Mutex::new(Some(server)), shards, seen }
    }

    fn server(&self) -> MutexGuard<'_, Option<Server>> {
        self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where what is turned away is counted.
    pub(super) fn report(&self) -> &Arc<gate::Report> {
        &self.shards.shared().report
    }

    /// The server, to be stopped: no connection reaches it any more.
    pub(super) fn give_up(&self) -> Option<Server> {
        self.server().take()
    }
}

fn seen(shared: &Shared) -> Seen {
    (shared.settings(), shared.revoked(), shared.quarantine())
}

impl gate::Core for Core {
    // The one exception: gRPC takes a descriptor by its number.
    #[allow(unsafe_code)]
    fn take(&self, pair: OwnedFd) {
        if let Some(server) = self.server().as_mut() {
            // SAFETY: a connected stream socket, which nobody else has from here on.
            unsafe { server.add_channel_from_fd(pair.into_raw_fd()) };
        }
    }

    fn refusal(&self, identity: &Identity) -> Option<Refusal> {
        refusal(self.shards.shared(), identity)
    }

    fn record_counts(&self) {
        self.shards.record_unseen(false);
    }

    fn has_changed(&self) -> bool {
        let shared = self.shards.shared();
        let now = seen(shared);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            Arc::ptr_eq(&seen.0, &now.0) && Arc::ptr_eq(&seen.1, &now.1) && Arc::ptr_eq(&seen.2, &now.2);
        *seen = now;
        !same
    }
}
