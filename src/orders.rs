//! Looks once a second at what operators have told all servers: who is in quarantine, and whether this server is to stop.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::audit::{Action, OperatorEvent};
use crate::clock::Now;
use crate::quarantine::{Quarantine, Whom};
use crate::shard::Shards;
use crate::shard::desk::troubles::Code;
use crate::store::orders::{self, Drain};
use crate::store::{Connection, StoreError};

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Longest that Redis may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// Longest that a server goes on after it was told to stop, in milliseconds.
pub const MAX_DRAIN_MS: u64 = 600_000;

/// The looking thread; it ends when this is dropped.
pub struct Orders {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Orders {
    /// Looks once, before anybody is let in, and then again and again.
    pub fn start(shards: Arc<Shards>) -> Result<Self, StoreError> {
        let mut look = Look { shards, connection: None, known: Quarantine::default(), stop_at_ms: None };
        look.quarantine()?;
        let (stop, stopped) = channel();
        let looks = move || {
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                look.again();
            }
        };
        let thread = std::thread::Builder::new().name("orders".to_owned()).spawn(looks);
        let thread = thread.map_err(|error| StoreError::Unexpected {
            command: "starting the thread that looks for orders",
            answer: error.to_string(),
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Orders {
    fn drop(&mut self) {
        // Either the thread hears it or it is gone.
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(
                code = "thread_panicked", part = "orders";
                "the thread that looks for orders had panicked"
            );
        }
    }
}

struct Look {
    shards: Arc<Shards>,
    connection: Option<Connection>,
    known: Quarantine,
    /// When this server stops, monotonic milliseconds: it was told to.
    stop_at_ms: Option<u64>,
}

impl Look {
    fn again(&mut self) {
        let looked = self.quarantine().and_then(|()| self.drain());
        let problem = looked.err().map(|error| error.to_string());
        if problem.is_some() {
            self.connection = None;
        }
        self.shards.shared().troubles.set(Code::Quarantine, problem);
        if self.stop_at_ms.is_some_and(|at_ms| Now::read().mono_ms >= at_ms) {
            self.stop_at_ms = None;
            // As an operator would from the shell: the same way down.
            if let Err(error) = kill(Pid::this(), Signal::SIGTERM) {
                log::error!(
                    code = "stop_failed";
                    "this server was told to stop and could not tell itself: {error}"
                );
            }
        }
    }

    fn connection(&mut self) -> Result<Connection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.shards.shared().redis.within(PATIENCE).open(),
        }
    }

    fn quarantine(&mut self) -> Result<(), StoreError> {
        let mut connection = self.connection()?;
        let keys = self.shards.shared().key_ring.keys();
        let read = orders::watch_quarantine(&mut connection, &keys)?;
        let lost: Vec<String> =
            orders::lost(&self.known, &read).into_iter().map(|(whom, _)| whom.to_string()).collect();
        if lost.is_empty() {
            let _ = connection.command("UNWATCH", &[])?;
        } else if orders::put_back(&mut connection, &keys, &orders::lost(&self.known, &read))? {
            log::error!(
                code = "quarantine_restored", whom = lost.join(", ");
                "somebody else has removed from Redis who is in quarantine: put back {}",
                lost.join(", ")
            );
            self.shards.record(OperatorEvent {
                action: Action::Quarantined,
                target: lost.join(" "),
                rule: "put_back".to_owned(),
                reason: "Redis did not hold it any more".to_owned(),
                pending: None,
            });
        }
        self.connection = Some(connection);
        let before: Vec<Whom> = self.known.active().map(|(whom, _)| whom.clone()).collect();
        if self.known.take_up(read.entries) {
            for (whom, entry) in self.known.active().filter(|(whom, _)| !before.contains(whom)) {
                log::warn!(
                    code = "quarantined", whom:%, by = entry.by.as_str();
                    "in quarantine: {whom}, by {}", entry.by
                );
            }
            let is_active = |whom: &Whom| self.known.active().any(|(active, _)| active == whom);
            for whom in before.iter().filter(|whom| !is_active(whom)) {
                log::warn!(code = "quarantine_released", whom:%; "not in quarantine any more: {whom}");
            }
            self.shards.set_quarantine(self.known.clone());
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<(), StoreError> {
        if self.stop_at_ms.is_some() {
            return Ok(());
        }
        let mut connection = self.connection()?;
        let shared = self.shards.shared();
        let keys = shared.key_ring.keys();
        if let Some(Drain { by, after_ms }) = orders::drain(&mut connection, &keys, &shared.server)? {
            log::warn!(code = "drain_ordered", by = by.as_str(); "told to stop by {by}");
            shared.drain();
            self.stop_at_ms = Some(Now::read().mono_ms.saturating_add(after_ms.min(MAX_DRAIN_MS)));
        }
        self.connection = Some(connection);
        Ok(())
    }
}
