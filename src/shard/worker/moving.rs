//! A server that is about to stop has its sessions move to other servers: one after the other gets no further messages, and
//! ends with `server_stopping` once it holds nothing; its connection ends with it. What is left when the server stops ends then.

use std::sync::Arc;

use super::Worker;
use super::agenda::{Moves, Timer};
use crate::clock::Now;
use crate::refusal::Refusal;
use crate::shard::desk::control::SessionName;
use crate::shard::desk::session::Session;

/// How often sessions are looked at while they move, in milliseconds.
const STEP_MS: u64 = 50;

impl Worker {
    /// Sessions move from `from_ms` on, and all of them are asked to by `until_ms` (monotonic milliseconds).
    pub(super) fn begin_to_move(&mut self, from_ms: u64, until_ms: u64) {
        // A later order may be in more of a hurry.
        let moves = self.agenda.moves.unwrap_or(Moves { next_ms: u64::MAX, until_ms });
        if from_ms < moves.next_ms {
            self.agenda.set_timer(from_ms, Timer::Move);
        }
        self.agenda.moves =
            Some(Moves { next_ms: moves.next_ms.min(from_ms), until_ms: moves.until_ms.min(until_ms) });
    }

    /// The next sessions get no further messages; those that hold nothing end.
    pub(super) fn move_due(&mut self, now: Now) {
        let Some(Moves { next_ms, until_ms }) = self.agenda.moves else {
            return;
        };
        // The timer of an earlier order.
        if now.mono_ms < next_ms {
            return;
        }
        let next_ms = now.mono_ms + STEP_MS;
        self.agenda.moves = Some(Moves { next_ms, until_ms });
        self.agenda.set_timer(next_ms, Timer::Move);
        if !self.shared.is_moving() {
            return self.stay();
        }
        let (mut to_ask, mut idle) = (Vec::new(), Vec::new());
        for inbox in self.inboxes.values() {
            let (ask, done) = inbox.to_move();
            let name = |key| SessionName { agent: inbox.agent.clone(), key };
            to_ask.extend(ask.into_iter().map(name));
            idle.extend(done.into_iter().map(name));
        }
        let steps = (until_ms.saturating_sub(now.mono_ms) / STEP_MS).max(1);
        // So many at once that the last are asked in time, and other servers are not overrun before.
        let count = to_ask.len().div_ceil(usize::try_from(steps).unwrap_or(usize::MAX));
        for name in to_ask.into_iter().take(count) {
            if let Some(inbox) = self.inboxes.get_mut(&name.agent) {
                inbox.retire(name.key, true);
            }
        }
        // What was submitted on its stream is answered there, unless more comes without end.
        let is_through = |name: &SessionName| {
            let is_quiet = |session: &Arc<Session>| !session.has_submissions();
            now.mono_ms >= until_ms || self.sessions.get(name.key).is_some_and(is_quiet)
        };
        idle.retain(is_through);
        for name in idle {
            self.close(&name, now, "server_stopping", Some(Refusal::SERVER_STOPPING));
        }
        // Acknowledgements that nothing waits for are taken up.
        let mut retired = Vec::new();
        for inbox in self.inboxes.values() {
            let name = |key| SessionName { agent: inbox.agent.clone(), key };
            retired.extend(inbox.retired().into_iter().map(name));
        }
        for name in retired {
            self.settlements(&name, now);
        }
    }

    /// There is no other server any more: everybody stays.
    fn stay(&mut self) {
        for inbox in self.inboxes.values_mut() {
            for session in inbox.retired() {
                inbox.retire(session, false);
                self.agenda.ready.insert(inbox.agent.clone());
            }
        }
    }
}
