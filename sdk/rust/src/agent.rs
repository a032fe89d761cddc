//! A connected agent: its calls, its handlers, its connection.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::connection::Connection;
use crate::error::AgentError;
use crate::handle::Handle;
use crate::handlers::Pool;
use crate::session::Ended;

/// How long a shutdown waits for the server to end the stream.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connected agent. Dropping it shuts it down. Its calls are those of its [`Handle`].
pub struct Agent {
    pub(crate) handle: Handle,
    pub(crate) connection: Connection,
    pub(crate) pool: Pool,
    pub(crate) drain_timeout: Duration,
}

impl Deref for Agent {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

impl Agent {
    /// Returns when the agent has ended: with the refusal that ended it.
    pub fn wait(&self) -> Result<(), AgentError> {
        match self.handle.calls.session.wait_ended() {
            Ended::Stopped | Ended::Asked => Ok(()),
            Ended::Refused(refusal) => Err(AgentError::Refused(refusal)),
        }
    }

    /// Works until SIGTERM or SIGINT, then shuts down; a second signal ends the process at once. The body of a program.
    pub fn run(self) -> Result<(), AgentError> {
        let setup = |error: std::io::Error| AgentError::Setup(format!("signals cannot be handled: {error}"));
        let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(setup)?;
        let over = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            let _ = signal_hook::flag::register_conditional_default(signal, over.clone()).map_err(setup)?;
        }
        let (handle, close) = (self.handle.clone(), signals.handle());
        let watch = std::thread::Builder::new().name("agent-signals".to_owned()).spawn(move || {
            let mut forever = signals.forever();
            if forever.next().is_some() {
                handle.calls.session.ask_to_end();
            }
            if let Some(signal) = forever.next() {
                std::process::exit(128 + signal);
            }
        });
        drop(watch.map_err(setup)?);
        let ended = self.wait();
        drop(self);
        close.close();
        // Whatever the program does afterwards, signals end it again.
        over.store(true, Ordering::SeqCst);
        ended
    }

    /// Takes no further messages, lets those that arrived be handled within the drain timeout, then ends the session.
    /// What is not finished by then stays with the server.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.pool.drain(Instant::now() + self.drain_timeout, &self.handle.calls);
        self.handle.calls.session.begin_stop();
        // The last acknowledgements and the half-close have time of their own.
        self.connection.close(Instant::now() + CLOSE_TIMEOUT);
    }
}
