//! What a worker does at its time: entries that are due, sessions whose certificates run out, the sweep; and how long it
//! may sleep.

use std::cmp::Reverse;
use std::collections::VecDeque;

use super::connect::scans_of;
use super::inbox::Inbox;
use super::worker::{EXPIRY_CHECK_MS, Worker};
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};
use crate::refusal::Refusal;

/// Longest sleep; a safety net, every event rings the doorbell.
const MAX_SLEEP_MS: u64 = 60_000;

/// How often the inbox of a connected agent is looked over for anything missed.
const SWEEP_MS: u64 = 30_000;
/// Inboxes that one step of the sweep looks over. Small, so that the traffic beside it does not notice; the steps are
/// spread over the whole time.
const SWEEP_STEP: usize = 32;

/// The safety net: in turn, every inbox that somebody is connected to.
#[derive(Debug)]
pub(super) struct Sweep {
    left: VecDeque<AgentId>,
    step_ms: u64,
}

impl Default for Sweep {
    fn default() -> Self {
        Self { left: VecDeque::new(), step_ms: SWEEP_MS }
    }
}

/// A due time's business.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Entries of this inbox are due, or something of a gone instance is to be cleared.
    Inbox(AgentId),
    /// Certificates run out.
    Expiry,
    /// A stream that was ended and may still hang.
    Cut(u64),
    /// The sweep's next step.
    Sweep,
}

impl Worker {
    pub(super) fn set_timer(&mut self, at_ms: u64, timer: Timer) {
        self.timers.push(Reverse((at_ms, timer)));
    }

    /// Has an inbox looked at again at a given time, whatever it waits for by itself.
    pub(super) fn look_again(&mut self, agent: &AgentId, at_ms: u64) {
        self.set_timer(at_ms, Timer::Inbox(agent.clone()));
    }

    /// Makes sure the worker wakes when something of this inbox is due.
    pub(super) fn schedule(&mut self, agent: &AgentId) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        let next = inbox.next_due_ms().into_iter().chain(inbox.gone.values().copied()).min();
        if let Some(at_ms) = next
            && inbox.timer_ms.is_none_or(|set| at_ms < set)
        {
            inbox.timer_ms = Some(at_ms);
            self.set_timer(at_ms, Timer::Inbox(agent.clone()));
        }
    }

    pub(super) fn fire_timers(&mut self, now: Now) {
        while let Some(Reverse((at_ms, _))) = self.timers.peek() {
            if *at_ms > now.mono_ms {
                break;
            }
            let Some(Reverse((_, timer))) = self.timers.pop() else {
                break;
            };
            match timer {
                Timer::Inbox(agent) => self.inbox_due(agent, now),
                Timer::Expiry => {
                    self.expire(now);
                    self.watch_expiry(now);
                }
                Timer::Cut(number) => {
                    if let Some(session) = self.ended.remove(&number) {
                        session.cut();
                    }
                }
                Timer::Sweep => {
                    self.sweep();
                    self.set_sweep(now);
                }
            }
        }
    }

    pub(super) fn inbox_due(&mut self, agent: AgentId, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(&agent) else {
            return;
        };
        inbox.timer_ms = None;
        let due: Vec<InstanceId> = inbox
            .gone
            .iter()
            .filter(|(_, at_ms)| **at_ms <= now.mono_ms)
            .map(|(instance, _)| instance.clone())
            .collect();
        for instance in due {
            // Entered again with a later time where it cannot be cleared yet.
            let _ = inbox.gone.remove(&instance);
            self.clears.push_back((agent.clone(), instance));
        }
        self.ready.insert(agent);
    }

    /// Ends the sessions whose certificates have run out or were revoked.
    pub(super) fn expire(&mut self, now: Now) {
        let mut ended = Vec::new();
        let revoked = self.shared.revoked();
        for slot in self.inboxes.values().flat_map(Inbox::slots) {
            let identity = &slot.session.identity;
            if !identity.is_current(now) {
                ended.push((slot.session.clone(), "certificate_expired", Refusal::INVALID_CERTIFICATE));
            } else if identity.is_revoked(&revoked) {
                ended.push((slot.session.clone(), "certificate_revoked", Refusal::CERTIFICATE_REVOKED));
            }
        }
        for (session, reason, refusal) in ended {
            self.close(&session, now, reason, Some(refusal));
        }
    }

    /// Looks at the certificates again as long as there are sessions.
    fn watch_expiry(&mut self, now: Now) {
        self.watches_expiry = self.inboxes.values().any(|inbox| !inbox.slots().is_empty());
        if self.watches_expiry {
            self.set_timer(now.mono_ms + EXPIRY_CHECK_MS, Timer::Expiry);
        }
    }

    /// Has the sweep go on.
    pub(super) fn set_sweep(&mut self, now: Now) {
        self.set_timer(now.mono_ms + self.sweep.step_ms, Timer::Sweep);
    }

    fn sweep(&mut self) {
        if self.sweep.left.is_empty() {
            let open = self.inboxes.values().filter(|inbox| !inbox.slots().is_empty());
            self.sweep.left.extend(open.map(|inbox| inbox.agent.clone()));
            let steps = self.sweep.left.len().div_ceil(SWEEP_STEP).max(1);
            // Never without a pause, however many there are.
            self.sweep.step_ms = (SWEEP_MS / steps as u64).max(1);
        }
        let step: Vec<AgentId> = self.sweep.left.drain(..self.sweep.left.len().min(SWEEP_STEP)).collect();
        for agent in step {
            self.look_at(&agent);
        }
    }

    /// Has what Redis holds of an inbox read anew, if somebody is connected to it.
    pub(super) fn look_at(&mut self, agent: &AgentId) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        if inbox.slots().is_empty() {
            return;
        }
        inbox.suspect();
        self.scans.extend(scans_of(inbox));
        let _ = self.measure.insert(agent.clone());
        self.ready.insert(agent.clone());
    }

    pub(super) fn has_work(&self) -> bool {
        if !self.inlet.jobs.is_empty() || !self.inlet.control.is_empty() || self.stopping {
            return true;
        }
        if self.connection.is_none() {
            return false;
        }
        let now = Now::read();
        let stalled = now.mono_ms < self.stalled_until_ms;
        let custody = self.custody.is_due(now);
        let ready = !self.ready.is_empty() || !self.scans.is_empty() || (custody && !self.acking.is_empty());
        let transacts =
            custody || !self.notes.is_empty() || !self.clears.is_empty() || !self.dying.is_empty();
        ready || (!stalled && (transacts || !self.regroup.is_empty()))
    }

    pub(super) fn sleep_until_ms(&self) -> u64 {
        let now_ms = Now::read().mono_ms;
        let mut until_ms = now_ms + MAX_SLEEP_MS;
        if let Some(Reverse((at_ms, _))) = self.timers.peek() {
            until_ms = until_ms.min(*at_ms);
        }
        if let Some(due_ms) = self.custody.due_ms() {
            until_ms = until_ms.min(due_ms);
        }
        if self.connection.is_none() {
            until_ms = until_ms.min(self.retry_at_ms);
        }
        if self.stalled_until_ms > now_ms {
            until_ms = until_ms.min(self.stalled_until_ms);
        }
        until_ms
    }
}
