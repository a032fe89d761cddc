//! The session as callers see it: open, lost, refused, at its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use grpcio::Client;

use crate::error::AgentError;
use crate::refusal::Refusal;

/// What the program is told of its connection.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A session is open.
    Connected {
        /// The id that the server read from the certificate.
        agent_id: String,
    },
    /// The session is lost, or could not be opened; it is tried again.
    Lost {
        /// Why.
        reason: String,
    },
    /// The server refuses this agent; it is tried again, slowly, unless that is final.
    Refused(Box<Refusal>),
}

/// What an open session's server offers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Offers {
    pub submit: bool,
    pub commit: bool,
    pub idempotency: bool,
    pub times: bool,
    pub versions: bool,
    pub later: bool,
    /// Bytes of one event; 0: not said.
    pub max_event_bytes: u32,
}

impl Offers {
    /// As Welcome lists them. A server that commits has keys, times and versions, too.
    pub(crate) fn read(features: &[String], max_event_bytes: u32) -> Self {
        let lists = |name: &str| features.iter().any(|feature| feature == name);
        let commit = lists("commit");
        Self {
            submit: lists("submit"),
            commit,
            idempotency: commit || lists("idempotency"),
            times: commit || lists("ttl"),
            versions: commit || lists("versions"),
            later: lists("later"),
            max_event_bytes,
        }
    }
}

/// An open session.
#[derive(Clone)]
pub(crate) struct Open {
    pub client: Client,
    pub offers: Offers,
}

/// What the program does with it.
pub(crate) type Tell = dyn Fn(&Event) + Send + Sync;

/// The session of one agent, over all its connections.
pub(crate) struct Session {
    pub instance: String,
    state: Mutex<State>,
    changed: Condvar,
    tell: Option<Arc<Tell>>,
}

#[derive(Default)]
struct State {
    agent_id: String,
    open: Option<Open>,
    /// No further messages are taken, and then: no further connections are made.
    stopping: bool,
    /// Why it is not open, as far as known.
    problem: String,
    /// The server refuses this agent.
    refused: Option<Refusal>,
    /// No further connection will be made.
    ended: bool,
    /// Somebody has asked the program to end.
    asked_to_end: bool,
}

/// Why `wait` returned.
pub(crate) enum Ended {
    Stopped,
    Asked,
    Refused(Box<Refusal>),
}

impl Session {
    pub(crate) fn new(instance: String, tell: Option<Arc<Tell>>) -> Self {
        Self { instance, state: Mutex::default(), changed: Condvar::new(), tell }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: &Event) {
        let Some(tell) = &self.tell else { return };
        if catch_unwind(AssertUnwindSafe(|| tell(event))).is_err() {
            log::error!(code = "listener_panicked"; "what listens to the connection's events panicked");
        }
    }

    pub(crate) fn opened(&self, agent_id: String, open: Open) {
        let again = {
            let mut state = self.lock();
            let again = !state.agent_id.is_empty();
            state.agent_id.clone_from(&agent_id);
            state.open = Some(open);
            state.refused = None;
            again
        };
        self.changed.notify_all();
        let instance = &self.instance;
        if again {
            log::warn!(code = "agent_reconnected"; "{agent_id}/{instance} is connected again");
        } else {
            log::info!(code = "agent_connected"; "{agent_id}/{instance} is connected");
        }
        self.tell(&Event::Connected { agent_id });
    }

    pub(crate) fn lost(&self, problem: String) {
        let was_open = {
            let mut state = self.lock();
            state.problem.clone_from(&problem);
            state.refused = None;
            state.open.take().is_some()
        };
        self.changed.notify_all();
        if was_open {
            log::warn!(code = "agent_lost"; "the connection is lost, and is made again: {problem}");
        } else {
            log::info!(code = "agent_lost"; "not connected: {problem}");
        }
        self.tell(&Event::Lost { reason: problem });
    }

    /// `is_final`: it is not tried again.
    pub(crate) fn refused(&self, refusal: Refusal, is_final: bool) {
        {
            let mut state = self.lock();
            state.open = None;
            state.refused = Some(refusal.clone());
            state.ended |= is_final;
        }
        self.changed.notify_all();
        log::error!(code = "agent_refused"; "the server refuses this agent: {refusal}");
        self.tell(&Event::Refused(Box::new(refusal)));
    }

    pub(crate) fn begin_stop(&self) {
        self.lock().stopping = true;
        self.changed.notify_all();
    }

    pub(crate) fn stopped(&self) {
        let mut state = self.lock();
        state.open = None;
        state.ended = true;
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn ask_to_end(&self) {
        self.lock().asked_to_end = true;
        self.changed.notify_all();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// The open session, if there is one just now.
    pub(crate) fn open(&self) -> Option<Open> {
        self.lock().open.clone()
    }

    pub(crate) fn agent_id(&self) -> String {
        self.lock().agent_id.clone()
    }

    /// Waits `pause`, less when the agent is stopping meanwhile.
    pub(crate) fn pause(&self, pause: Duration) {
        let state = self.lock();
        drop(self.changed.wait_timeout_while(state, pause, |state| !state.stopping));
    }

    /// Waits until something about the session has changed, or until then.
    pub(crate) fn pause_until(&self, give_up: Instant) {
        let left = give_up.saturating_duration_since(Instant::now());
        drop(self.changed.wait_timeout(self.lock(), left));
    }

    /// Wakes whoever waits for a change.
    pub(crate) fn wake(&self) {
        // Nobody is between looking and waiting.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Waits until the session is open. While the server refuses this agent calls wait, too: it may change its mind.
    pub(crate) fn wait_open(&self, give_up: Instant) -> Result<Open, AgentError> {
        self.wait(give_up, false)
    }

    /// Waits for the first session, or for what keeps it from opening.
    pub(crate) fn wait_started(&self, give_up: Instant) -> Result<Open, AgentError> {
        self.wait(give_up, true)
    }

    fn wait(&self, give_up: Instant, refusal_ends_it: bool) -> Result<Open, AgentError> {
        let mut state = self.lock();
        loop {
            if let Some(open) = &state.open {
                return Ok(open.clone());
            }
            if let Some(refusal) = state.refused.as_ref().filter(|_| refusal_ends_it || state.ended) {
                return Err(AgentError::Refused(Box::new(refusal.clone())));
            }
            if state.stopping || state.ended {
                return Err(AgentError::NotConnected("the agent is stopped".to_owned()));
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(AgentError::NotConnected(match &state.refused {
                    Some(refusal) => refusal.to_string(),
                    None if state.problem.is_empty() => "no answer yet".to_owned(),
                    None => state.problem.clone(),
                }));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits until no further connection will be made, or somebody asks the program to end.
    pub(crate) fn wait_ended(&self) -> Ended {
        let mut state = self.lock();
        loop {
            if state.ended {
                return match &state.refused {
                    Some(refusal) if !state.stopping => Ended::Refused(Box::new(refusal.clone())),
                    _ => Ended::Stopped,
                };
            }
            if state.asked_to_end {
                return Ended::Asked;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}
