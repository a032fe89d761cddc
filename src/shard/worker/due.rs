//! What a worker does with an inbox when a time has come: what is due again, what gone instances left, the comparison
//! with Redis.

use super::Worker;
use super::agenda::Timer;
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};
use crate::shard::inbox::{Gone, Inbox};

/// The remains of an instance are cleared away after this many times `reclaim_idle_ms`.
const GRACE_FACTOR: u64 = 2;
/// How often Redis is asked for an inbox's bytes, in milliseconds.
const WEIGH_MS: u64 = 1000;

impl Worker {
    /// How long an instance may be away before the remains of it are cleared, in milliseconds.
    pub(super) fn grace_ms(&self) -> u64 {
        self.settings.delivery.reclaim_idle_ms * GRACE_FACTOR
    }

    /// Schedules another look at this inbox, independent of its own times.
    pub(super) fn look_again(&mut self, agent: &AgentId, at_ms: u64) {
        self.agenda.set_timer(at_ms, Timer::Inbox(agent.clone()));
    }

    /// Makes sure the worker wakes when something of this inbox is due.
    pub(super) fn schedule(&mut self, agent: &AgentId) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        let clears = inbox.gone.values().map(|gone| gone.clear_at_ms);
        let next = inbox.next_due_ms().into_iter().chain(clears).min();
        if let Some(at_ms) = next
            && inbox.timer_ms.is_none_or(|set| at_ms < set)
        {
            inbox.timer_ms = Some(at_ms);
            self.agenda.set_timer(at_ms, Timer::Inbox(agent.clone()));
        }
    }

    pub(super) fn inbox_due(&mut self, agent: AgentId, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(&agent) else {
            return;
        };
        inbox.timer_ms = None;
        inbox.promote(now.mono_ms, &self.settings.delivery);
        let due = |gone: &Gone| gone.clear_at_ms <= now.mono_ms;
        let clears: Vec<InstanceId> =
            inbox.gone.iter().filter(|(_, gone)| due(gone)).map(|(instance, _)| instance.clone()).collect();
        if !clears.is_empty() {
            // Nobody has come for what waits: other servers may hand it on.
            inbox.forget_waiting();
        }
        for instance in clears {
            // Entered again with a later time where it cannot be cleared yet.
            let _ = inbox.gone.remove(&instance);
            self.agenda.clears.push_back((agent.clone(), instance));
        }
        self.note_dying(&agent);
        self.schedule(&agent);
        self.agenda.ready.insert(agent);
    }

    /// Has dead letters of this inbox written.
    pub(super) fn note_dying(&mut self, agent: &AgentId) {
        if self.inboxes.get(agent).is_some_and(|inbox| !inbox.dead.is_empty()) {
            let _ = self.agenda.dying.insert(agent.clone());
        }
    }

    /// The sweep's next step: inboxes with sessions are compared with Redis; those of agents that are no longer
    /// configured are dropped once nothing of them is under way.
    pub(super) fn sweep(&mut self, now: Now) {
        let inboxes = &self.inboxes;
        let open = || {
            let open = inboxes.values().filter(|inbox| !inbox.consumers().is_empty());
            open.map(|inbox| inbox.agent.clone()).collect()
        };
        for agent in self.agenda.next_sweep(open) {
            self.compare(&agent);
        }
        let idle =
            |inbox: &Inbox| inbox.consumers().is_empty() && inbox.leaving.is_empty() && inbox.dead.is_empty();
        for agent in std::mem::take(&mut self.agenda.retired) {
            if self.inboxes.get(&agent).is_some_and(idle) {
                drop(self.inboxes.remove(&agent));
            } else if self.inboxes.contains_key(&agent) {
                let _ = self.agenda.retired.insert(agent);
            }
        }
        self.agenda.set_sweep(now);
    }

    /// Replies were added for instances of an agent; what is read on another server is not followed here.
    pub(super) fn replied(&mut self, agent: &AgentId, replies: &[(InstanceId, u64)]) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        for (instance, bytes) in replies {
            if !self.shared.directory.is_elsewhere(agent, instance) {
                inbox.size.replied(instance, *bytes);
            }
        }
    }

    /// Has Redis asked how many bytes an inbox takes, which is full by what is known.
    pub(super) fn weigh(&mut self, agent: &AgentId, now: Now) {
        if let Some(inbox) = self.inboxes.get_mut(agent)
            && inbox.weighed_ms.is_none_or(|at_ms| now.mono_ms >= at_ms + WEIGH_MS)
        {
            inbox.weighed_ms = Some(now.mono_ms);
            let _ = self.agenda.weigh.insert(agent.clone());
        }
    }

    /// Has an inbox compared with Redis, if somebody is connected to it.
    pub(super) fn compare(&mut self, agent: &AgentId) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        if inbox.consumers().is_empty() {
            return;
        }
        inbox.mark_stale();
        let owners: Vec<InstanceId> =
            inbox.consumers().iter().map(|consumer| consumer.instance.clone()).collect();
        self.agenda.scan_from_start(agent, None);
        for owner in owners {
            self.agenda.scan_from_start(agent, Some(owner));
        }
        let _ = self.agenda.measure.insert(agent.clone());
        self.agenda.ready.insert(agent.clone());
    }
}
