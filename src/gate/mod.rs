//! The gate: where connections come in. It accepts, ends TLS, knows whose certificate a connection showed, and reads the
//! headers of the frames that clients send, so that what an identity may cost is bounded before gRPC's C core, which
//! cannot defend itself, hears of it. What passes goes to the C core over a socket pair.
//!
//! ```text
//! client -- TCP --> shake-0: accept, handshake, whose certificate
//!                      |  the connection, once
//!                      v
//! client -- TLS --> gate-n: decrypt, frames, budgets -- socket pair --> C core
//!        <-- TLS --         encrypt                  <-- socket pair --
//! ```
//!
//! [`frames`], [`calls`] and `budget` are pure; nothing here knows what a call is.

mod budget;
pub mod calls;
mod conduct;
mod conn;
mod core;
mod fields;
pub mod frames;
mod knock;
mod peers;
mod poll;
mod relay;
mod report;
mod shake;
mod tls;
mod verifier;

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Backlog, listen};
use rustls::ServerConfig;

use crate::config::Limits;
use peers::Bounds;
use poll::Bell;
use relay::{Line, Relay, Told};
use shake::{Around, Current, Shaker};

pub use conduct::{Answering, Credit};
pub use core::Core;
pub use peers::{Peer, Peers, Validity};
pub use report::Report;
pub use tls::{load, warnings};

/// Descriptors of a connection: its socket, and both ends of its pair.
const DESCRIPTORS_EACH: u64 = 3;
/// Descriptors that the rest of the server may need.
const DESCRIPTORS_KEPT: u64 = 256;
/// Connections of all whose identity is not allowed.
const MAX_STRANGERS: usize = 256;
/// Calls of one identity whose message has not come.
const MAX_WAITING_CALLS: usize = 2_048;
/// Calls of one identity that are not over, beside its sessions: as many as others' calls may have to wait for.
const MAX_OPEN_CALLS: usize = 512;
/// Of all whose identity is not allowed.
const MAX_STRANGERS_OPEN: usize = 64;
const MAX_STRANGERS_CALLS: usize = 512;
/// One thread relays for so many cores.
const CORES_PER_RELAY: usize = 4;
/// How far below the other threads handshakes stand.
const SHAKE_NICE: i32 = 10;

/// Why there is no gate.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The address.
    #[error("cannot listen on {addr}: {source}")]
    Bind {
        /// What was asked for.
        addr: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// Threads, descriptors.
    #[error("the gate cannot be opened: {0}")]
    System(#[from] std::io::Error),
}

/// An address that is listened on, and nobody is accepted yet.
pub struct Doorstep {
    listener: TcpListener,
    /// What was bound, with its real port.
    pub addr: String,
    peers: Arc<Peers>,
}

/// A gate that is open.
pub struct Gate {
    current: Arc<Current>,
    over: Arc<AtomicBool>,
    shaker: (JoinHandle<()>, Bell),
    relays: Vec<(JoinHandle<()>, Line)>,
}

impl Doorstep {
    /// Binds.
    pub fn bind(addr: &str, limits: &Limits, report: Arc<Report>) -> Result<Self, GateError> {
        let bind = |source| GateError::Bind { addr: addr.to_owned(), source };
        let listener = TcpListener::bind(addr).map_err(bind)?;
        listener.set_nonblocking(true).map_err(bind)?;
        // Longer than the library's: a fleet that comes back at once waits in it.
        listen(&listener, Backlog::MAXCONN).map_err(|errno| bind(errno.into()))?;
        let port = listener.local_addr().map_err(bind)?.port();
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host);
        let descriptors = raise_descriptors();
        let bounds = Bounds {
            total: connections(descriptors),
            shaking: usize::try_from(shake::max_shaking(descriptors)).unwrap_or(usize::MAX),
            each: limits.max_connections_per_agent,
            strangers: MAX_STRANGERS,
            waiting_calls: MAX_WAITING_CALLS,
            strangers_calls: MAX_STRANGERS_CALLS,
            open_calls: MAX_OPEN_CALLS + limits.max_sessions_per_agent,
            strangers_open: MAX_STRANGERS_OPEN,
            session_opens_per_s: limits.session_opens_per_second,
            refusals_per_s: limits.refusals_per_second,
        };
        log::info!(
            code = "connection_limit", most = bounds.total;
            "up to {} connections, as descriptors allow", bounds.total
        );
        let addr = format!("{host}:{port}");
        Ok(Self { listener, addr, peers: Arc::new(Peers::new(bounds, report)) })
    }

    /// Who is connected.
    pub fn peers(&self) -> &Arc<Peers> {
        &self.peers
    }

    /// Lets connections in.
    pub fn open(self, tls: Arc<ServerConfig>, core: Arc<dyn Core>) -> Result<Gate, GateError> {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        let mut relays = Vec::new();
        for index in 0..cores.len().div_ceil(CORES_PER_RELAY).max(1) {
            // One of them looks whether anybody is not allowed any more.
            let looks_for = (index == 0).then(|| core.clone());
            let (relay, line) = Relay::new(self.peers.clone(), looks_for).map_err(system)?;
            let core = cores.iter().rev().nth(index % cores.len().max(1)).copied();
            let thread = std::thread::Builder::new().name(format!("gate-{index}")).spawn(move || {
                if let Some(core) = core
                    && !core_affinity::set_for_current(core)
                {
                    log::warn!(
                        code = "thread_not_pinned", core = core.id;
                        "gate {index} could not be pinned to core {}", core.id
                    );
                }
                relay.run();
            })?;
            relays.push((thread, line));
        }
        let over = Arc::new(AtomicBool::new(false));
        let current = Arc::new(Mutex::new(tls));
        let around = Around {
            current: current.clone(),
            peers: self.peers,
            core,
            relays: relays.iter().map(|(_, line)| line.clone()).collect(),
            over: over.clone(),
        };
        let (shaker, bell) = Shaker::new(self.listener, around).map_err(system)?;
        let thread = std::thread::Builder::new().name("shake-0".to_owned()).spawn(move || {
            if let Err(error) = rustix::process::nice(SHAKE_NICE) {
                log::warn!(
                    code = "priority_not_set";
                    "handshakes have the priority of everything else: {error}"
                );
            }
            shaker.run();
        })?;
        Ok(Gate { current, over, shaker: (thread, bell), relays })
    }
}

impl Gate {
    /// New handshakes use this.
    pub fn renew(&self, tls: Arc<ServerConfig>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// Lets nobody in any more; who is in goes on.
    pub fn close(self) -> Closed {
        self.over.store(true, Ordering::Release);
        let (thread, bell) = self.shaker;
        bell.ring();
        if thread.join().is_err() {
            log::error!(
                code = "thread_panicked", part = "shake";
                "the thread that shakes hands had panicked"
            );
        }
        Closed { relays: self.relays }
    }
}

/// A gate that lets nobody in any more.
pub struct Closed {
    relays: Vec<(JoinHandle<()>, Line)>,
}

impl Closed {
    /// Passes on what the C core said last, and ends; what takes longer than `patience` is cut.
    pub fn end(self, patience: Duration) {
        for (_, line) in &self.relays {
            line.tell(Told::End(patience));
        }
        for (thread, _) in self.relays {
            if thread.join().is_err() {
                log::error!(
                    code = "thread_panicked", part = "relay";
                    "a thread that relays had panicked"
                );
            }
        }
    }
}

fn system(errno: nix::errno::Errno) -> GateError {
    GateError::System(errno.into())
}

/// Asks for as many descriptors as the process may have: how many that are.
fn raise_descriptors() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(error) => {
            log::warn!(
                code = "descriptors_not_raised", most = soft;
                "the limit of descriptors stays at {soft}: {error}"
            );
            soft
        }
    }
}

fn connections(descriptors: u64) -> usize {
    let left =
        descriptors.saturating_sub(DESCRIPTORS_KEPT + shake::max_shaking(descriptors)) / DESCRIPTORS_EACH;
    usize::try_from(left.max(1)).unwrap_or(usize::MAX)
}
