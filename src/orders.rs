//! Looks once a second at what operators have told all servers: who is in quarantine, and whether this server is to stop.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::audit::{Action, OperatorEvent};
use crate::clock::Now;
use crate::gate::Peers;
use crate::quarantine::{Entry, Quarantine, Whom};
use crate::shard::Shards;
use crate::shard::desk::troubles::Code;
use crate::store::orders::{self, Drain, MAX_DRAIN_MS, Read};
use crate::store::{Connection, StoreError};

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// A server that goes on for less has its sessions end when it stops, in milliseconds.
const MIN_MOVE_MS: u64 = 1_000;
/// Longest that Redis may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// The looking thread; it ends when this is dropped.
pub struct Orders {
    stop: Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Orders {
    /// Looks once, before anybody is let in, and then again and again.
    pub fn start(shards: Arc<Shards>, peers: Arc<Peers>) -> Result<Self, StoreError> {
        let mut look = Look {
            shards,
            peers,
            moves_from_ms: None,
            connection: None,
            known: Quarantine::default(),
            is_foreign: false,
            ordered: None,
            stop_at_ms: None,
        };
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
    peers: Arc<Peers>,
    /// From when on sessions move to other servers, where there are any, monotonic milliseconds.
    moves_from_ms: Option<u64>,
    connection: Option<Connection>,
    known: Quarantine,
    /// Redis holds something that nobody who may has written, and that was said.
    is_foreign: bool,
    /// What it was told last.
    ordered: Option<Drain>,
    /// When this server stops, monotonic milliseconds: it was told to.
    stop_at_ms: Option<u64>,
}

impl Look {
    fn again(&mut self) {
        // Neither waits for the other: a server stops also where the quarantine cannot be read.
        let problem = match self.quarantine() {
            Ok(problem) => problem,
            Err(error) => Some(error.to_string()),
        };
        self.shards.shared().troubles.set(Code::Quarantine, problem);
        // A Redis that is away has said so already.
        let _ = self.drain();
        // Whoever is refused here must find another server.
        let is_moving = self.moves_from_ms.is_some_and(|from_ms| Now::read().mono_ms >= from_ms);
        let is_moving = is_moving && self.has_others();
        let shared = self.shards.shared();
        shared.move_sessions(is_moving);
        self.peers.close_to_new(is_moving);
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

    /// Whether there is a server that is not told to stop, too.
    fn has_others(&mut self) -> bool {
        let shared = self.shards.shared();
        let (keys, others) = (shared.key_ring.keys(), shared.peers.all());
        let asked = self.connection().and_then(|mut connection| {
            let any = orders::any_stays(&mut connection, &keys, &others)?;
            self.connection = Some(connection);
            Ok(any)
        });
        // A Redis that is away says so itself; nobody is sent anywhere meanwhile.
        asked.unwrap_or(false)
    }

    fn connection(&mut self) -> Result<Connection, StoreError> {
        match self.connection.take() {
            Some(connection) => Ok(connection),
            None => self.shards.shared().redis.within(PATIENCE).open(),
        }
    }

    /// Takes up the newest; what is wrong with what Redis holds, if anything is.
    fn quarantine(&mut self) -> Result<Option<String>, StoreError> {
        let mut connection = self.connection()?;
        let key_ring = &self.shards.shared().key_ring;
        let mut keys = key_ring.keys();
        let mut read = orders::watch_quarantine(&mut connection, &keys)?;
        if read == Read::UnknownKey {
            // An operator may use a key that was added a moment ago.
            keys = key_ring.look_for_more(Now::read());
            read = orders::watch_quarantine(&mut connection, &keys)?;
        }
        let is_lost = match &read {
            Read::Nothing | Read::Foreign => self.known.version > 0,
            Read::Ours(quarantine) => quarantine.version < self.known.version,
            Read::UnknownKey => false,
        };
        if !is_lost {
            let _ = connection.command("UNWATCH", &[])?;
        } else if orders::put_back(&mut connection, &keys, &self.known)? {
            self.was_put_back();
        }
        self.connection = Some(connection);
        Ok(match read {
            Read::Ours(quarantine) => {
                if quarantine.version > self.known.version {
                    self.take_up(quarantine);
                }
                None
            }
            Read::UnknownKey => Some(
                "it has a tag of a store key that is not in this server's file: copy it from another server"
                    .to_owned(),
            ),
            // Where this server knows better it has put that there.
            Read::Foreign if self.known.version == 0 => {
                if !std::mem::replace(&mut self.is_foreign, true) {
                    log::error!(
                        code = "quarantine_foreign";
                        "what Redis holds of the quarantine was written by nobody who may: who was shut out is let in"
                    );
                    self.record(
                        Action::ForeignEntry,
                        "mas.quarantine",
                        "quarantine",
                        "not written by an operator",
                    );
                }
                Some(
                    "it was written by nobody who may: `mas audit query --action quarantined` says who was shut out; \
                     shut them out again"
                        .to_owned(),
                )
            }
            Read::Nothing | Read::Foreign => None,
        })
    }

    fn take_up(&mut self, newest: Quarantine) {
        let before = std::mem::replace(&mut self.known, newest);
        let is_new = |(whom, _): &(&Whom, &Entry)| !before.entries.contains_key(*whom);
        for (whom, entry) in self.known.entries.iter().filter(is_new) {
            log::warn!(
                code = "quarantined", whom:% = whom, by = entry.by.as_str();
                "in quarantine: {whom}, by {}", entry.by
            );
        }
        for whom in before.entries.keys().filter(|whom| !self.known.entries.contains_key(*whom)) {
            log::warn!(code = "quarantine_released", whom:% = whom; "not in quarantine any more: {whom}");
        }
        self.is_foreign = false;
        self.shards.set_quarantine(self.known.clone());
    }

    fn was_put_back(&self) {
        log::error!(
            code = "quarantine_restored", version = self.known.version;
            "somebody else has changed who is in quarantine: version {} was put back", self.known.version
        );
        let rule = format!("put_back, version {}", self.known.version);
        let reason = "Redis did not hold it any more";
        if self.known.entries.is_empty() {
            return self.record(Action::Released, "all", &rule, reason);
        }
        for whom in self.known.entries.keys() {
            self.record(Action::Quarantined, &whom.to_string(), &rule, reason);
        }
    }

    fn record(&self, action: Action, target: &str, rule: &str, reason: &str) {
        self.shards.record(OperatorEvent {
            action,
            target: target.to_owned(),
            rule: rule.to_owned(),
            reason: reason.to_owned(),
            pending: None,
        });
    }

    fn drain(&mut self) -> Result<(), StoreError> {
        let mut connection = self.connection()?;
        let shared = self.shards.shared();
        let keys = shared.key_ring.keys();
        let ordered = orders::drain(&mut connection, &keys, &shared.server)?;
        if let Some(Drain { by, after_ms }) = ordered.as_ref().filter(|_| ordered != self.ordered) {
            log::warn!(code = "drain_ordered", by = by.as_str(); "told to stop by {by}");
            shared.drain();
            let (now_ms, after_ms) = (Now::read().mono_ms, (*after_ms).min(MAX_DRAIN_MS));
            let at_ms = now_ms.saturating_add(after_ms);
            // First whoever spreads the load notices; the last part is for handlers that still work.
            if after_ms >= MIN_MOVE_MS {
                let from_ms = now_ms + after_ms / 4;
                self.moves_from_ms =
                    Some(self.moves_from_ms.map_or(from_ms, |known_ms| known_ms.min(from_ms)));
                self.shards.move_sessions(from_ms, now_ms + after_ms / 2);
            }
            // A second one may be in more of a hurry.
            self.stop_at_ms = Some(self.stop_at_ms.map_or(at_ms, |known_ms| known_ms.min(at_ms)));
            self.ordered = ordered;
        }
        self.connection = Some(connection);
        Ok(())
    }
}
