//! What a worker has to do without being asked: inboxes to look at, scans, groups to make, instances to clear,
//! timers; and the one answer to whether there is work, and how long the worker may sleep.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashSet, VecDeque};

use super::ready::Ready;
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};
use crate::shard::desk::session_key::SessionKey;
use crate::store::answers::EntryId;

/// Longest sleep; a safety net, every event rings the doorbell.
const MAX_SLEEP_MS: u64 = 60_000;
/// Wait after Redis refused a dead letter or a consumer group, in milliseconds.
const REFUSED_MS: u64 = 250;
/// How often the inbox of a connected agent is compared with Redis for anything missed.
const SWEEP_MS: u64 = 30_000;
/// Inboxes that one step of the sweep compares. Small, so that the traffic beside it does not notice; the steps are
/// spread over the whole time.
const SWEEP_STEP: usize = 32;

/// A look into Redis' list of pending entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scan {
    pub agent: AgentId,
    /// The instance whose own inbox is scanned; `None`: the shared one.
    pub owner: Option<InstanceId>,
    /// The entries after this one, and the number of the scan; `None`: it begins.
    pub after: Option<(EntryId, u32)>,
}

/// A due time's business.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// Entries of this inbox are due, or something of a gone instance is to be cleared.
    Inbox(AgentId),
    /// Certificates run out.
    Expiry,
    /// A stream that was ended and may still hang.
    Cut(SessionKey),
    /// The sweep's next step.
    Sweep,
    /// Sessions that are to move to other servers.
    Move,
}

/// The safety net: in turn, every inbox that somebody is connected to.
#[derive(Debug)]
struct Sweep {
    left: VecDeque<AgentId>,
    step_ms: u64,
}

/// What the rest of a worker says when it asks for the next thing to do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// There is a connection.
    pub connected: bool,
    /// When to try to connect again, if that has a time.
    pub retry_at_ms: Option<u64>,
    /// Redis refuses everything; it is tried again at this time.
    pub paused_until_ms: u64,
    /// Events wait for the record.
    pub events: bool,
    /// When deliveries and acknowledgements must be on record.
    pub custody_due_ms: Option<u64>,
}

/// When there is something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// Now.
    Now,
    /// At this time (monotonic milliseconds), unless something happens before.
    At(u64),
}

/// When sessions move, monotonic milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moves {
    /// The next step.
    pub next_ms: u64,
    /// All of them are asked by then.
    pub until_ms: u64,
}

/// What a worker has to do without being asked.
#[derive(Debug)]
pub(super) struct Agenda {
    /// Inboxes to look at in the next rounds.
    pub ready: Ready,
    /// Inboxes with nothing to move but acknowledgements: these wait for the next transaction.
    pub acking: Vec<AgentId>,
    /// Inboxes whose consumer groups must be made again.
    pub regroup: HashSet<AgentId>,
    /// Inboxes whose bytes are to be asked for.
    pub(super) weigh: HashSet<AgentId>,
    /// Inboxes whose length is to be read.
    pub measure: HashSet<AgentId>,
    /// Agents with dead letters to write.
    pub dying: BTreeSet<AgentId>,
    /// Gone instances whose remains are to be cleared.
    pub clears: VecDeque<(AgentId, InstanceId)>,
    /// Everything that other servers tell must be read from Redis again.
    pub resync: bool,
    /// Agents that are no longer configured, until nothing of them is under way.
    pub retired: BTreeSet<AgentId>,
    /// Redis refused a dead letter or a consumer group: none is tried before this time, in milliseconds.
    refused_until_ms: u64,
    scans: VecDeque<Scan>,
    timers: BinaryHeap<Reverse<(u64, Timer)>>,
    /// Sessions move to other servers.
    pub moves: Option<Moves>,
    sweep: Sweep,
    watches_expiry: bool,
}

impl Default for Agenda {
    fn default() -> Self {
        Self {
            weigh: HashSet::new(),
            ready: Ready::default(),
            acking: Vec::new(),
            regroup: HashSet::new(),
            measure: HashSet::new(),
            dying: BTreeSet::new(),
            clears: VecDeque::new(),
            resync: false,
            retired: BTreeSet::new(),
            refused_until_ms: 0,
            scans: VecDeque::new(),
            timers: BinaryHeap::new(),
            moves: None,
            sweep: Sweep { left: VecDeque::new(), step_ms: SWEEP_MS },
            watches_expiry: false,
        }
    }
}

impl Agenda {
    /// When there is something to do: the one answer for the loop and its sleep.
    pub(super) fn wake(&self, now: Now, standing: Standing) -> Wake {
        let mut at_ms = now.mono_ms + MAX_SLEEP_MS;
        if let Some(Reverse((timer_ms, _))) = self.timers.peek() {
            at_ms = at_ms.min(*timer_ms);
        }
        if !standing.connected {
            // Nothing but timers and another attempt.
            return later(now, at_ms.min(standing.retry_at_ms.unwrap_or(at_ms)));
        }
        let moves = !self.ready.is_empty() || !self.scans.is_empty() || self.resync;
        if now.mono_ms < standing.paused_until_ms {
            return later(now, at_ms.min(standing.paused_until_ms));
        }
        if moves || standing.events || !self.clears.is_empty() {
            return Wake::Now;
        }
        if !self.dying.is_empty() || !self.regroup.is_empty() {
            at_ms = at_ms.min(self.refused_until_ms);
        }
        later(now, at_ms.min(standing.custody_due_ms.unwrap_or(at_ms)))
    }

    /// Redis refused a dead letter or a consumer group.
    pub(super) fn refused(&mut self, now: Now) {
        self.refused_until_ms = now.mono_ms + REFUSED_MS;
    }

    /// Whether dead letters may be written and groups made.
    pub(super) fn may_repair(&self, now: Now) -> bool {
        now.mono_ms >= self.refused_until_ms
    }

    /// Adds a scan, unless the same one waits already.
    pub(super) fn scan(&mut self, scan: Scan) {
        if !self.scans.contains(&scan) {
            self.scans.push_back(scan);
        }
    }

    /// Scans an inbox from its start: the shared one (`None`) or an instance's own.
    pub(super) fn scan_from_start(&mut self, agent: &AgentId, owner: Option<InstanceId>) {
        let same = |scan: &Scan| scan.agent == *agent && scan.owner == owner;
        // One that is under way covers only the rest.
        if !self.scans.iter().any(|scan| same(scan) && scan.after.is_none()) {
            self.scans.push_back(Scan { agent: agent.clone(), owner, after: None });
        }
    }

    /// The next scans.
    pub(super) fn take_scans(&mut self, count: usize) -> Vec<Scan> {
        self.scans.drain(..self.scans.len().min(count)).collect()
    }

    pub(super) fn set_timer(&mut self, at_ms: u64, timer: Timer) {
        self.timers.push(Reverse((at_ms, timer)));
    }

    /// The next timer that has run out.
    pub(super) fn next_timer(&mut self, now: Now) -> Option<Timer> {
        let Reverse((at_ms, _)) = self.timers.peek()?;
        if *at_ms > now.mono_ms {
            return None;
        }
        self.timers.pop().map(|Reverse((_, timer))| timer)
    }

    /// Looks at certificates in this many milliseconds, unless a look is due already.
    pub(super) fn watch_expiry(&mut self, at_ms: u64) {
        if !std::mem::replace(&mut self.watches_expiry, true) {
            self.set_timer(at_ms, Timer::Expiry);
        }
    }

    /// No look at certificates is due.
    pub(super) fn expiry_seen(&mut self) {
        self.watches_expiry = false;
    }

    /// The agents of the sweep's next step. `open`: every agent that somebody is connected to.
    pub(super) fn next_sweep(&mut self, open: impl FnOnce() -> Vec<AgentId>) -> Vec<AgentId> {
        if self.sweep.left.is_empty() {
            self.sweep.left.extend(open());
            let steps = self.sweep.left.len().div_ceil(SWEEP_STEP).max(1);
            // Never without a pause, however many there are.
            self.sweep.step_ms = (SWEEP_MS / steps as u64).max(1);
        }
        self.sweep.left.drain(..self.sweep.left.len().min(SWEEP_STEP)).collect()
    }

    /// Has the sweep go on.
    pub(super) fn set_sweep(&mut self, now: Now) {
        self.set_timer(now.mono_ms + self.sweep.step_ms, Timer::Sweep);
    }
}

fn later(now: Now, at_ms: u64) -> Wake {
    if at_ms <= now.mono_ms { Wake::Now } else { Wake::At(at_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Now = Now { unix_us: 0, mono_ms: 1000 };

    fn up() -> Standing {
        Standing {
            connected: true,
            retry_at_ms: None,
            paused_until_ms: 0,
            events: false,
            custody_due_ms: None,
        }
    }

    fn agent() -> AgentId {
        AgentId::parse("a").unwrap()
    }

    #[test]
    fn a_worker_sleeps_until_the_first_thing_that_is_due() {
        let mut agenda = Agenda::default();
        assert_eq!(agenda.wake(NOW, up()), Wake::At(61_000));
        agenda.set_timer(5000, Timer::Sweep);
        assert_eq!(agenda.wake(NOW, up()), Wake::At(5000));
        assert_eq!(agenda.wake(NOW, Standing { custody_due_ms: Some(1020), ..up() }), Wake::At(1020));
        assert_eq!(agenda.wake(NOW, Standing { events: true, ..up() }), Wake::Now);
        agenda.ready.insert(agent());
        assert_eq!(agenda.wake(NOW, up()), Wake::Now);
    }

    #[test]
    fn without_redis_nothing_is_due_but_another_attempt() {
        let mut agenda = Agenda::default();
        agenda.ready.insert(agent());
        let down = Standing { connected: false, retry_at_ms: Some(1200), events: true, ..up() };
        assert_eq!(agenda.wake(NOW, down), Wake::At(1200));
    }

    #[test]
    fn while_redis_refuses_everything_rounds_have_a_pace() {
        let mut agenda = Agenda::default();
        agenda.ready.insert(agent());
        let paused = Standing { paused_until_ms: 1020, events: true, ..up() };
        assert_eq!(agenda.wake(NOW, paused), Wake::At(1020));
    }

    #[test]
    fn a_refused_dead_letter_waits() {
        let mut agenda = Agenda::default();
        let _ = agenda.dying.insert(agent());
        assert_eq!(agenda.wake(NOW, up()), Wake::Now);
        agenda.refused(NOW);
        assert!(!agenda.may_repair(NOW));
        assert_eq!(agenda.wake(NOW, up()), Wake::At(1250));
    }

    #[test]
    fn the_same_scan_waits_once() {
        let mut agenda = Agenda::default();
        for _ in 0..3 {
            agenda.scan_from_start(&agent(), None);
        }
        assert_eq!(agenda.take_scans(10).len(), 1);
    }
}
