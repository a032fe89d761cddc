//! Takes over the unix socket from another server of the same folder, once that one has ended.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::http::{HttpServer, Limits};
use super::local::{Local, SocketFile};
use super::routes::Routes;
use super::sources::Sources;

/// How often it looks whether the socket is free.
const INTERVAL: Duration = Duration::from_secs(1);
/// Longest body at the unix socket, in bytes: a state may be set there.
const BODY_BYTES: usize = 8 * 1024 * 1024;

/// A socket that is listened on, and its file.
pub(super) type Listening = (HttpServer, SocketFile);

/// The unix socket, once this server has it.
pub(super) struct Socket {
    listening: Arc<Mutex<Option<Listening>>>,
    heir: Option<(Sender<()>, JoinHandle<()>)>,
}

/// Answers at the unix socket.
fn answer(local: Local, routes: &Arc<Routes>, sources: &Sources) -> io::Result<Listening> {
    let (listener, file) = local.split();
    let limits =
        Limits { connections: 16, connections_per_source: 4, body_bytes: BODY_BYTES, ..Limits::default() };
    let server = HttpServer::start(listener, None, routes.clone(), limits)?;
    sources.count_with(server.counters().clone());
    Ok((server, file))
}

impl Socket {
    /// Answers there now, or once nobody else does. `path`: where it may be taken over.
    pub(super) fn start(
        local: Option<Local>,
        path: Option<PathBuf>,
        routes: &Arc<Routes>,
        sources: &Arc<Sources>,
    ) -> io::Result<Self> {
        let first = local.map(|local| answer(local, routes, sources)).transpose()?;
        let has_it = first.is_some();
        let listening = Arc::new(Mutex::new(first));
        let Some(path) = path.filter(|_| !has_it) else { return Ok(Self { listening, heir: None }) };
        let (stop, stopped) = channel();
        let (shared, routes, sources) = (listening.clone(), routes.clone(), sources.clone());
        let wait = move || {
            let mut said = String::new();
            while stopped.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let operators = &sources.reloaded().config.operators;
                let taken = match Local::take_over(&path, operators) {
                    Ok(None) => continue,
                    Ok(Some(local)) => answer(local, &routes, &sources),
                    Err(error) => Err(error),
                };
                match taken {
                    Ok(listening) => {
                        log::info!(
                            code = "admin_socket_taken_over", path:% = path.display();
                            "the unix socket {} is this server's now: nobody else listened there",
                            path.display()
                        );
                        *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(listening);
                        return;
                    }
                    // Once for each reason: it is tried every second.
                    Err(error) if error.to_string() != said => {
                        said = error.to_string();
                        log::warn!(
                            code = "admin_socket_missing", path:% = path.display();
                            "the unix socket {} cannot be taken over: {said}", path.display()
                        );
                    }
                    Err(_) => {}
                }
            }
        };
        let thread = std::thread::Builder::new().name("admin-heir".to_owned()).spawn(wait)?;
        Ok(Self { listening, heir: Some((stop, thread)) })
    }

    /// What is listened on.
    pub(super) fn listening(&self) -> MutexGuard<'_, Option<Listening>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes nothing over any more; what is listened on is for the caller to end.
    pub(super) fn end(mut self) -> Option<Listening> {
        if let Some((stop, thread)) = self.heir.take() {
            drop(stop);
            if thread.join().is_err() {
                log::error!(
                    code = "thread_panicked", part = "heir";
                    "the thread that waits for the unix socket had panicked"
                );
            }
        }
        self.listening().take()
    }
}
