//! A server that is about to stop has its sessions move to other servers: one after the other gets nothing more, and ends
//! with `server_stopping` once it holds nothing. What is left when the server stops ends with it.

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
        self.moves_until_ms = Some(until_ms);
        self.agenda.set_timer(from_ms, Timer::Move);
    }

    /// The next sessions get nothing more; those that hold nothing end.
    pub(super) fn move_due(&mut self, now: Now) {
        let Some(until_ms) = self.moves_until_ms else {
            return;
        };
        self.shared.move_sessions();
        let names = self.names(|_| true);
        let is_asked = |worker: &Self, name: &SessionName| {
            worker.inboxes.get(&name.agent).is_some_and(|inbox| inbox.is_retired(name.key))
        };
        let steps = (until_ms.saturating_sub(now.mono_ms) / STEP_MS).max(1);
        let to_ask: Vec<&SessionName> = names.iter().filter(|name| !is_asked(self, name)).collect();
        // So many at once that the last are asked in time, and other servers are not overrun before.
        let count = to_ask.len().div_ceil(usize::try_from(steps).unwrap_or(usize::MAX));
        for name in to_ask.into_iter().take(count) {
            if let Some(inbox) = self.inboxes.get_mut(&name.agent) {
                inbox.retire(name.key);
            }
        }
        for name in names.iter().filter(|name| is_asked(self, name)).collect::<Vec<_>>() {
            self.settlements(name, now);
            if self.inboxes.get(&name.agent).is_some_and(|inbox| inbox.is_empty_handed(name.key)) {
                self.close(name, now, "server_stopping", Some(Refusal::SERVER_STOPPING));
            }
        }
        self.agenda.set_timer(now.mono_ms + STEP_MS, Timer::Move);
    }
}
