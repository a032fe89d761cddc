//! The round's transaction, written and not sent: records, effects of every decision, and what moves behind them.
//! Nothing in memory changes here.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::super::Worker;
use super::super::ledger::Ledger;
use super::ask::Page;
use super::deliver::FOREIGN_REASON;
use super::gather::{Body, FoundLetter, Gathered, Remains};
use super::plan::{DueLetter, Plan};
use super::tail::{self, Step};
use crate::clock::Now;
use crate::ids::{AgentId, AgentMap, InstanceId, ServerId};
use crate::shard::desk::job::Job;
use crate::shard::desk::shared::Shared;
use crate::shard::desk::spans::CallSpan;
use crate::shard::inbox::entry::{DeadLetter, EntryKey};
use crate::shard::txn::facts::StateFact;
use crate::shard::txn::transaction::{Added, Counts, Decided, Inputs, StateRead, Transaction};
use crate::shard::txn::written::Written;
use crate::store::news::News;
use crate::store::pipeline::Exec;
use crate::store::{keys, trail};

/// Entries read in one round, over all inboxes; what is left is read in the next.
const MAX_ROUND_READS: usize = 1024;
/// Why a reply dies whose instance never came back.
const INSTANCE_GONE_REASON: &str = "instance_gone";

/// A round that is written and not sent.
pub(super) struct Drafted {
    pub plan: Plan,
    /// The decisions on the plan's jobs.
    pub decided: Vec<Decided>,
    /// What it adds to inboxes, this worker's and others'.
    pub added: AgentMap<Added>,
    pub counts: Counts,
    /// The states that it changes, as they are after it.
    pub states: AgentMap<StateFact>,
    /// The messages that it adds.
    pub written: Written,
    /// What is traced of its decisions.
    pub spans: Vec<CallSpan>,
    /// The states that it reads.
    pub state_reads: Vec<StateRead>,
    /// Dead letters and the effects that store them.
    pub letters: Vec<(FoundLetter, Range<usize>)>,
    pub remains: Vec<Remains>,
    pub pages: Vec<Page>,
    /// What moves.
    pub steps: Vec<Step>,
    /// The transaction, if there is one.
    pub exec: Option<Exec>,
    /// The effect that appends the lane's block.
    pub block: Option<Range<usize>>,
}

impl Worker {
    /// Decides the plan's jobs and writes the round's commands; `None` where there is nothing to send.
    pub(super) fn draft(&mut self, gathered: Gathered, now: Now) -> Option<Drafted> {
        let Gathered { plan, facts, letters, mut remains, pages, watching } = gathered;
        self.link.batch.clear();
        let is_full = self.ledger.custody.is_full();
        let unassured = self.link.is_unassured();
        let essential = plan.essential;
        let link = &mut self.link;
        let mut transaction = Transaction::begin(
            Inputs {
                essential,
                shared: &self.shared,
                settings: &self.settings,
                inboxes: &self.inboxes,
                lane: &mut link.lane,
                batch: &mut link.batch,
                scratch: &mut self.scratch,
                keys: &self.keys,
                messages: plan.jobs.iter().filter(|job| job.takes_room()).count(),
            },
            facts,
            now,
        );
        let letters = write_business(&mut transaction, &self.ledger, &plan, letters, &mut remains);
        let decided: Vec<Decided> = plan.jobs.iter().map(|job| transaction.decide(job)).collect();
        let counts = transaction.store_counts();
        tell_peers(&mut transaction);
        let block = write_block(&mut transaction);
        let mut steps = Vec::new();
        tail::make_groups(&mut transaction, &plan.groups, &mut steps);
        if plan.moves {
            let moving = tail::Moving {
                measure: &self.agenda.measure,
                without_group: &self.agenda.regroup,
                hands_out: !unassured,
                reads: if is_full || unassured { 0 } else { MAX_ROUND_READS },
            };
            moving.write(&mut transaction, &plan.moving, &mut steps);
        }
        let Transaction { multi, added, mut facts, state_reads, written, spans, .. } = transaction;
        let states = std::mem::take(&mut facts.states);
        let exec = if multi.is_empty() {
            // Nothing to do after all.
            link.batch.clear();
            if watching {
                let _ = link.batch.command("UNWATCH");
            }
            None
        } else {
            let guards = if essential {
                let opening = plan.jobs.iter().filter_map(Job::as_open);
                let opening = opening.map(|session| (&session.identity.agent, &session.instance));
                let events = self.ledger.events().iter().take(plan.events);
                facts.presence.guards(opening.chain(events.filter_map(|event| event.of_instance())))
            } else {
                Vec::new()
            };
            Some(multi.exec(&self.shared.server, &guards))
        };
        let nothing_is_sent = exec.is_none() && link.batch.is_empty() && !unassured;
        let drafted = Drafted {
            plan,
            decided,
            added,
            counts,
            states,
            written,
            spans,
            state_reads,
            letters,
            remains,
            pages,
            steps,
            exec,
            block,
        };
        if nothing_is_sent {
            // Only what was read has to be settled.
            self.settle_unsent(drafted, now);
            return None;
        }
        Some(drafted)
    }
}

/// Writes what happened without a job: custody, events, dead letters, remains of gone instances.
fn write_business(
    transaction: &mut Transaction<'_>,
    ledger: &Ledger,
    plan: &Plan,
    letters: Vec<FoundLetter>,
    remains: &mut [Remains],
) -> Vec<(FoundLetter, Range<usize>)> {
    let has_business = !plan.jobs.is_empty()
        || plan.events > 0
        || plan.custody
        || !letters.is_empty()
        || !remains.is_empty();
    if has_business {
        ledger.record_custody(transaction.lane, transaction.now);
    }
    transaction.foreign_facts();
    for event in ledger.events().iter().take(plan.events) {
        transaction.event(event);
    }
    for ((agent, instance), remains) in plan.clears.iter().zip(&*remains) {
        if remains.ours && remains.unread.is_empty() {
            transaction.clear_instance(agent, instance, remains.consumer_free);
        }
    }
    write_letters(transaction, letters, plan, remains)
}

/// Writes dead letters: the plan's, and unread replies of gone instances.
fn write_letters(
    transaction: &mut Transaction<'_>,
    found: Vec<FoundLetter>,
    plan: &Plan,
    remains: &mut [Remains],
) -> Vec<(FoundLetter, Range<usize>)> {
    let unread = plan.clears.iter().zip(remains).filter(|(_, remains)| remains.ours);
    let unread = unread.flat_map(|((agent, instance), remains)| unread_replies(agent, instance, remains));
    let unread: Vec<FoundLetter> = unread.collect();
    let mut letters = Vec::new();
    for found in found.into_iter().chain(unread) {
        let first = transaction.multi.len();
        if found.ours {
            let DueLetter { agent, stream, letter } = &found.letter;
            match &found.body {
                Body::Missing => transaction.dead_letter(agent, stream, letter, None),
                // Its key was not known when it was read: it is delivered after all.
                Body::Ours(_) if letter.reason == FOREIGN_REASON => {}
                Body::Ours(envelope) => transaction.dead_letter(agent, stream, letter, Some(envelope)),
                Body::Foreign(found) => transaction.foreign_entry(agent, &letter.holder, found),
            }
        }
        letters.push((found, first..transaction.multi.len()));
    }
    letters
}

/// The unread replies of a gone instance, as dead letters. Which they are stays in `remains`.
fn unread_replies<'r>(
    agent: &'r AgentId,
    instance: &'r InstanceId,
    remains: &'r mut Remains,
) -> impl Iterator<Item = FoundLetter> + use<'r> {
    remains.unread.iter_mut().map(move |(entry, body)| FoundLetter {
        letter: DueLetter {
            agent: agent.clone(),
            stream: keys::instance_inbox(agent, instance),
            letter: DeadLetter {
                key: EntryKey { owner: Some(instance.clone()), entry: *entry },
                holder: instance.clone(),
                attempts: 0,
                reason: INSTANCE_GONE_REASON.to_owned(),
                history: Vec::new(),
            },
        },
        body: std::mem::replace(body, Body::Missing),
        ours: true,
    })
}

/// Adds the lane's block, in the same transaction as the effects that it describes; with the first one the lane's entry
/// in the registry.
fn write_block(transaction: &mut Transaction<'_>) -> Option<Range<usize>> {
    let is_first = transaction.lane.confirmed().seq == 0;
    let block = transaction.lane.block()?;
    if is_first {
        let (now, server) = (transaction.now, &transaction.shared.server);
        trail::registration_arguments(transaction.multi.effect("HSET"), block.lane, server, now);
    }
    let at = transaction.multi.len();
    trail::block_arguments(transaction.multi.effect("XADD"), transaction.keys, block);
    Some(at..at + 1)
}

/// Tells servers with sessions of an agent that this transaction adds something for it.
fn tell_peers(transaction: &mut Transaction<'_>) {
    if transaction.added.is_empty() {
        return;
    }
    let shared: &Shared = transaction.shared;
    let mut news: BTreeMap<ServerId, BTreeSet<AgentId>> = BTreeMap::new();
    for agent in transaction.added.keys() {
        for server in shared.directory.servers_of(agent) {
            let _ = news.entry(server).or_default().insert(agent.clone());
        }
    }
    for (server, agents) in news {
        let news = News::Inboxes(agents.into_iter().collect());
        let _ = transaction.effect("PUBLISH").arg(keys::news_for(&server)).arg(news.to_text());
    }
}
