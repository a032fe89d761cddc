//! The server as its owner has it: start and stop.

use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::accept::{Acceptor, Running};
use super::connection::Shared;
use super::counters::Counters;
use super::host::Hosts;
use super::knocks::Knocks;
use super::limits::Limits;
use super::places::Places;
use super::service::Service;
use super::socket::Socket;
use super::tls::Tls;

/// How long before the deadline of a stop connections are cut that have not ended: a quarter of the time, at most
/// this.
const LONGEST_CUT: Duration = Duration::from_millis(500);
/// How long a server that is dropped waits for its threads.
const DROP_PATIENCE: Duration = Duration::from_secs(1);

/// A server that runs; it stops when it is dropped.
pub struct HttpServer {
    places: Arc<Places>,
    counters: Arc<Counters>,
    bell: EventFd,
    acceptor: Option<JoinHandle<Vec<Running>>>,
}

impl HttpServer {
    /// Accepts connections on `listener`, with TLS where there is a configuration for it, and has their requests
    /// answered by `service`.
    ///
    /// # Errors
    /// `InvalidInput` where `limits.hosts` has what is neither a name nor an address; or no thread, no descriptor.
    pub fn start(
        listener: impl Into<Socket>,
        tls: Option<Arc<Tls>>,
        service: Arc<dyn Service>,
        limits: Limits,
    ) -> Result<Self> {
        let not_a_host = |text| {
            Error::new(ErrorKind::InvalidInput, format!("{text:?} is neither a host's name nor an address"))
        };
        let hosts = Arc::new(Hosts::new(&limits.hosts).map_err(not_a_host)?);
        let counters = Arc::new(Counters::default());
        let places = Places::new(&limits, counters.clone());
        let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let shared = Arc::new(Shared {
            service,
            tls,
            limits,
            hosts,
            counters: counters.clone(),
            knocks: Knocks::default(),
        });
        let acceptor = Acceptor::new(listener.into(), &bell, shared, places.clone())?;
        let thread = Builder::new().name("admin-accept".to_owned()).spawn(move || acceptor.run())?;
        Ok(Self { places, counters, bell, acceptor: Some(thread) })
    }

    /// What it has counted.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Stops: accepts nothing more, ends streams and idle connections at once, and lets requests be answered that
    /// have begun, until shortly before the deadline; then it ends all connections, and joins their threads. Returns
    /// false where the service still held threads at the deadline: they are left to themselves.
    pub fn stop(mut self, deadline: Instant) -> bool {
        self.end(deadline)
    }

    fn end(&mut self, deadline: Instant) -> bool {
        let Some(acceptor) = self.acceptor.take() else { return true };
        let left = deadline.saturating_duration_since(Instant::now());
        let cut = deadline.checked_sub((left / 4).min(LONGEST_CUT)).unwrap_or(deadline);
        self.places.stop();
        // A full counter has rung already.
        let _ = self.bell.write(1);
        let running = acceptor.join().unwrap_or_else(|_| {
            log::error!(
                code = "thread_panicked", part = "admin-accept";
                "the thread that accepts administrators' connections had panicked"
            );
            Vec::new()
        });
        if !self.places.wait_empty(cut) {
            self.places.cut();
        }
        let all_ended = self.places.wait_empty(deadline);
        for Running { id, thread } in running {
            if self.places.has(id) {
                log::warn!(
                    code = "admin_answer_unfinished";
                    "the answer to an administrator's request is still being made: its thread is left to itself"
                );
            } else if thread.join().is_err() {
                log::error!(
                    code = "thread_panicked", part = "admin-http";
                    "a thread of an administrator's connection had panicked"
                );
            }
        }
        all_ended
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        let _ = self.end(Instant::now() + DROP_PATIENCE);
    }
}
