//! A server that is about to stop has its sessions move to other servers: one after the other gets no further messages, and
//! ends with `server_stopping` once it holds nothing; its connection ends with it. What is left when the server stops ends then.

use super::Worker;
use super::agenda::Timer;
use crate::clock::Now;
use crate::refusal::Refusal;
use crate::shard::desk::control::SessionName;

/// How often sessions are looked at while they move, in milliseconds.
const STEP_MS: u64 = 50;

impl Worker {
    /// Sessions move from `from_ms` on, and all of them are asked to by `until_ms` (monotonic milliseconds).
    pub(super) fn begin_to_move(&mut self, from_ms: u64, until_ms: u64) {
        // A later order may be in more of a hurry; the steps that it began go on.
        let known_ms = self.moves_until_ms;
        self.moves_until_ms = Some(known_ms.map_or(until_ms, |known_ms| known_ms.min(until_ms)));
        if known_ms.is_none() {
            self.agenda.set_timer(from_ms, Timer::Move);
        }
    }

    /// The next sessions get no further messages; those that hold nothing end.
    pub(super) fn move_due(&mut self, now: Now) {
        let Some(until_ms) = self.moves_until_ms else {
            return;
        };
        self.agenda.set_timer(now.mono_ms + STEP_MS, Timer::Move);
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
        for name in idle {
            self.close(&name, now, "server_stopping", Some(Refusal::SERVER_STOPPING));
        }
        // Acknowledgements that nothing waits for are taken up.
        for inbox in self.inboxes.values() {
            let of_inbox = |key| SessionName { agent: inbox.agent.clone(), key };
            self.retired.extend(inbox.retired().into_iter().map(of_inbox));
        }
        for name in std::mem::take(&mut self.retired) {
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
