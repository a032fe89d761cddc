//! What one round is about: jobs, and what the agenda has due.

use super::super::Worker;
use super::super::agenda::Scan;
use super::super::ready::Ready;
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};
use crate::shard::desk::job::Job;
use crate::shard::inbox::entry::DeadLetter;

/// Inboxes whose entries move in one round.
const MAX_INBOXES: usize = 256;
/// Scans made in one round.
const MAX_SCANS: usize = 64;
/// Dead letters written in one round.
const MAX_LETTERS: usize = 64;
/// Gone instances cleared in one round.
const MAX_CLEARS: usize = 16;

/// A dead letter to write.
#[derive(Clone)]
pub(super) struct DueLetter {
    pub agent: AgentId,
    pub stream: String,
    pub letter: DeadLetter,
}

/// What one round is about.
pub(super) struct Plan {
    pub jobs: Vec<Job>,
    pub scans: Vec<Scan>,
    pub letters: Vec<DueLetter>,
    pub clears: Vec<(AgentId, InstanceId)>,
    /// Events of the ledger that go on record.
    pub events: usize,
    /// Whether deliveries and acknowledgements must go on record.
    pub custody: bool,
    /// Inboxes whose entries may move, beside those that get something in this round.
    pub moving: Ready,
    /// Whether entries move at all.
    pub moves: bool,
    /// Redis refuses transactions, and this is what it must carry out all the same if its memory is full.
    pub essential: bool,
    /// Inboxes whose groups are made again.
    pub groups: Vec<AgentId>,
}

impl Worker {
    /// Takes what is due off the agenda. `moves`: whether entries are acknowledged, claimed and read.
    pub(super) fn plan(&mut self, jobs: Vec<Job>, now: Now, moves: bool) -> Plan {
        let refused = now.mono_ms < self.link.stalled_until_ms();
        let essential = refused && jobs.iter().all(Job::is_essential);
        let stalled = refused && !essential;
        // What moves takes acknowledged entries along: these go on record before.
        let leaving = self.ledger.custody.has_acks() && !self.agenda.ready.is_empty();
        let custody = &self.ledger.custody;
        let custody = !stalled && (self.stopping || leaving || custody.is_full() || custody.is_due(now));
        let may_repair = !stalled && self.agenda.may_repair(now);
        let letters = if may_repair { self.due_letters() } else { Vec::new() };
        // What is watched while they are cleared away, a script does not watch.
        let clears = if refused { Vec::new() } else { self.due_clears(&jobs) };
        let groups: Vec<AgentId> =
            if may_repair { self.agenda.regroup.drain().collect() } else { Vec::new() };
        for agent in &groups {
            let _ = self.agenda.measure.insert(agent.clone());
            self.agenda.ready.insert(agent.clone());
        }
        let events = if stalled { 0 } else { self.ledger.events().len() };
        let transacts =
            !jobs.is_empty() || events > 0 || custody || !letters.is_empty() || !clears.is_empty();
        if transacts || refused {
            // A transaction is made anyway: acknowledgements go with it.
            let agenda = &mut self.agenda;
            agenda.acking.drain(..).for_each(|agent| agenda.ready.insert(agent));
        }
        let moving = if moves { self.agenda.ready.take(MAX_INBOXES) } else { Ready::default() };
        let scans = self.agenda.take_scans(MAX_SCANS);
        Plan { jobs, scans, letters, clears, events, custody, moving, moves, essential, groups }
    }

    /// Dead letters to write; they stay in their inboxes until they are written.
    fn due_letters(&self) -> Vec<DueLetter> {
        let dying = self.agenda.dying.iter().filter_map(|agent| self.inboxes.get(agent));
        let letters = dying.flat_map(|inbox| inbox.dead.iter().map(move |letter| (inbox, letter)));
        letters
            .take(MAX_LETTERS)
            .map(|(inbox, letter)| DueLetter {
                agent: inbox.agent.clone(),
                stream: inbox.stream_of(letter.key.owner.as_ref()),
                letter: letter.clone(),
            })
            .collect()
    }

    /// The next gone instances to clear, but for those that are back or about to be.
    fn due_clears(&mut self, jobs: &[Job]) -> Vec<(AgentId, InstanceId)> {
        let count = self.agenda.clears.len().min(MAX_CLEARS);
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            let Some((agent, instance)) = self.agenda.clears.pop_front() else {
                break;
            };
            let opens = |job: &Job| {
                job.as_open().is_some_and(|s| s.identity.agent == agent && s.instance == instance)
            };
            let connected = self.inboxes.get(&agent).is_some_and(|inbox| inbox.consumer(&instance).is_some());
            if jobs.iter().any(opens) {
                self.agenda.clears.push_back((agent, instance));
            } else if !connected {
                taken.push((agent, instance));
            }
        }
        taken
    }

    /// A round did not happen: its business is due again. The jobs are left to the caller.
    pub(super) fn give_back(&mut self, plan: Plan) -> Vec<Job> {
        for scan in plan.scans {
            self.agenda.scan(scan);
        }
        self.agenda.clears.extend(plan.clears);
        self.agenda.regroup.extend(plan.groups);
        for agent in plan.moving.iter() {
            self.agenda.ready.insert(agent.clone());
        }
        plan.jobs
    }
}
