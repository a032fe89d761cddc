//! The thread that accepts. It makes a thread for each connection that has a place, and never waits for a peer.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use super::answer::Content;
use super::connection::{self, Shared};
use super::counters::add;
use super::limits::Limits;
use super::places::{NoPlace, Places};
use super::refused::Refused;
use super::socket::{Remote, Socket, Stream};

/// How long a process without descriptors or memory waits before it accepts again.
const BREATH: Duration = Duration::from_millis(100);
/// How often such a failure is logged.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Stack of a connection's thread, in bytes.
const STACK_BYTES: usize = 1024 * 1024;

/// Threads that may be about to end, whose places are taken again already.
const ENDING: usize = 8;

/// A connection's thread, and the id of its place.
pub(super) struct Running {
    pub id: u64,
    pub thread: JoinHandle<()>,
}

/// Accepts connections.
pub(super) struct Acceptor {
    listener: Socket,
    set: Epoll,
    shared: Arc<Shared>,
    places: Arc<Places>,
    running: Vec<Running>,
    logged: Option<Instant>,
}

impl Acceptor {
    /// `bell` wakes it when the server stops.
    pub(super) fn new(
        listener: Socket,
        bell: &EventFd,
        shared: Arc<Shared>,
        places: Arc<Places>,
    ) -> std::io::Result<Self> {
        listener.set_nonblocking()?;
        let set = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        set.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        set.add(bell, EpollEvent::new(EpollFlags::EPOLLIN, 1))?;
        Ok(Self { listener, set, shared, places, running: Vec::new(), logged: None })
    }

    /// Accepts until the server stops; returns the threads that it has made.
    pub(super) fn run(mut self) -> Vec<Running> {
        let mut ready = [EpollEvent::empty()];
        while !self.places.stops() {
            match self.listener.accept() {
                Ok((socket, remote)) => self.admit(socket, remote),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // An error is an early end of the wait; nothing else can go wrong with a set of one's own.
                    let _ = self.set.wait(&mut ready, EpollTimeout::NONE);
                }
                Err(error) if is_of_one_client(&error) => {}
                Err(error) => self.failed(&error),
            }
        }
        self.running
    }

    fn admit(&mut self, socket: Stream, remote: Remote) {
        self.running.retain(|running| !running.thread.is_finished());
        let counters = &self.shared.counters;
        if socket.prepare().is_err() {
            return;
        }
        let socket = Arc::new(socket);
        let Limits { connections, streams, .. } = self.shared.limits;
        let has_thread = self.running.len() < connections.saturating_add(streams).saturating_add(ENDING);
        let place = if has_thread { self.places.take(&socket, remote) } else { Err(NoPlace::Full) };
        let place = match place {
            Ok(place) => place,
            Err(NoPlace::Stops) => return,
            Err(NoPlace::Full) => {
                add(&counters.refused_full);
                return self.turn_away(&socket);
            }
            Err(NoPlace::SourceFull) => {
                add(&counters.refused_source);
                return self.turn_away(&socket);
            }
        };
        let (id, shared, own) = (place.id(), self.shared.clone(), socket.clone());
        let serve = move || {
            // Dropped last: whoever waits for the place finds the rest of the thread done.
            let place = place;
            connection::run(own, remote, &shared, &place);
            drop(shared);
        };
        match Builder::new().name("admin-http".to_owned()).stack_size(STACK_BYTES).spawn(serve) {
            Ok(thread) => self.running.push(Running { id, thread }),
            Err(error) => {
                add(&self.shared.counters.refused_thread);
                self.turn_away(&socket);
                self.log(&error);
            }
        }
    }

    /// Tells a client that there is no room for it, as far as that goes without waiting. TLS has no words for that
    /// before a handshake.
    fn turn_away(&self, socket: &Stream) {
        if self.shared.tls.is_some() || socket.set_nonblocking().is_err() {
            return;
        }
        let content: Content = Refused::Full.into();
        let mut socket = socket;
        // What is there is read: closing on unread bytes would take the answer back.
        let _ = socket.read(&mut [0; 4096]);
        let _ = socket.write(&[&content.head(false), content.body()].concat());
        let _ = socket.shutdown(Shutdown::Write);
    }

    /// No descriptors, no memory: trying again at once would only spin.
    fn failed(&mut self, error: &Error) {
        add(&self.shared.counters.accept_failed);
        self.log(error);
        self.places.pause(BREATH);
    }

    fn log(&mut self, error: &Error) {
        if self.logged.is_none_or(|logged| logged.elapsed() >= LOG_EVERY) {
            self.logged = Some(Instant::now());
            log::warn!(
                code = "admin_accept_failed";
                "connections of administrators cannot be accepted: {error}"
            );
        }
    }
}

/// Errors of the connection that would have been accepted.
fn is_of_one_client(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::Interrupted)
}
