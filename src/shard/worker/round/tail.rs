//! What moves behind a round's decisions, in the same transaction: groups made again, acknowledgements, corrected counts,
//! claims, reads. Hot path.

use std::collections::HashSet;

use super::super::ready::Ready;
use crate::ids::{AgentId, InstanceId};
use crate::shard::desk::delivery::Source;
use crate::shard::inbox::Inbox;
use crate::shard::inbox::entry::EntryKey;
use crate::shard::inbox::handout::{Claim, Expected, Read};
use crate::shard::txn::transaction::Transaction;
use crate::store::answers::{self, StreamEntry};
use crate::store::claims::{self, Claimed, Parties, Wanted};
use crate::store::pipeline::Effect;
use crate::store::{Value, keys};

/// Counts that one command corrects.
const MAX_RECOUNTS: usize = 64;
/// Entries that leave a stream with one command: a script has no room for many more arguments.
const MAX_LEAVING: usize = 1000;

/// The code of a refusal, or the answer.
pub(super) type Answered<T> = Result<T, String>;

/// A step behind the decisions.
pub(super) enum Step {
    /// A consumer group was made where it is missing.
    Grouped { agent: AgentId, made: Effect<Answered<()>> },
    /// XDEL, then XACK.
    Left { agent: AgentId, keys: Vec<EntryKey>, deleted: Effect<Answered<u64>>, acked: Effect<Answered<u64>> },
    /// Redis' counts of deliveries were corrected.
    Recounted { agent: AgentId },
    /// XLEN.
    Measured { agent: AgentId, len: Effect<Option<u64>> },
    /// Entries were taken from their holder.
    Claimed { agent: AgentId, claim: Claim, claimed: Effect<Answered<Vec<Claimed>>> },
    /// XREADGROUP.
    Read { agent: AgentId, read: Read, entries: Effect<Answered<Vec<StreamEntry>>> },
    /// Whose turn it is next.
    Turned { agent: AgentId, turn: usize },
}

/// What may move in a round.
pub(super) struct Moving<'a> {
    /// Inboxes whose length is to be read.
    pub measure: &'a HashSet<AgentId>,
    /// Inboxes without a group: they can neither be claimed from nor read.
    pub without_group: &'a HashSet<AgentId>,
    /// Whether messages may be handed on: not while a message that was read might be lost by Redis.
    pub hands_out: bool,
    /// Entries that may be read.
    pub reads: usize,
}

/// Makes the consumer groups of inboxes that lost theirs. A group that exists already was wanted.
pub(super) fn make_groups(transaction: &mut Transaction<'_>, agents: &[AgentId], steps: &mut Vec<Step>) {
    for agent in agents {
        let Some(inbox) = transaction.inboxes.get(agent) else {
            continue;
        };
        let own = inbox.consumers().iter().map(|consumer| &consumer.own_stream);
        for stream in std::iter::once(&inbox.stream).chain(own) {
            let made = transaction.multi.ask("XGROUP", grouped);
            let _ =
                transaction.multi.args().arg("CREATE").arg(stream).arg(keys::GROUP).arg("0").arg("MKSTREAM");
            steps.push(Step::Grouped { agent: agent.clone(), made });
        }
    }
}

impl Moving<'_> {
    /// Adds what moves in the planned inboxes, and in those that the transaction adds to.
    pub(super) fn write(mut self, transaction: &mut Transaction<'_>, planned: &Ready, steps: &mut Vec<Step>) {
        let inboxes = transaction.inboxes;
        for inbox in planned.iter().filter_map(|agent| inboxes.get(agent)) {
            self.inbox(transaction, inbox, steps);
        }
        let added: Vec<&Inbox> = transaction
            .added
            .keys()
            .filter(|agent| !planned.contains(agent))
            .filter_map(|agent| inboxes.get(agent))
            .collect();
        for inbox in added {
            self.inbox(transaction, inbox, steps);
        }
    }

    fn inbox(&mut self, transaction: &mut Transaction<'_>, inbox: &Inbox, steps: &mut Vec<Step>) {
        let agent = &inbox.agent;
        leave(transaction, inbox, steps);
        if self.measure.contains(agent) {
            let len = transaction.multi.ask("XLEN", |answer| answers::int(&answer));
            let _ = transaction.multi.args().arg(&inbox.stream);
            steps.push(Step::Measured { agent: agent.clone(), len });
        }
        if self.without_group.contains(agent) || !self.hands_out {
            return;
        }
        recount(transaction, inbox, steps);
        let config = &transaction.settings.delivery;
        let expected = transaction.added.get(agent).map_or_else(Expected::default, |added| Expected {
            messages: added.messages,
            max_bytes: added.max_bytes,
            replies: &added.replies,
        });
        let handout = inbox.handout(config, expected, self.reads > 0);
        for claim in handout.claims {
            let Some(consumer) = inbox.consumer(&claim.instance) else {
                continue;
            };
            let stream = stream_of(inbox, claim.source, &claim.instance);
            let server = &transaction.shared.server;
            let parties = Parties { agent, holder: &claim.holder, consumer: &consumer.name, server };
            let claimed = claims::claim(&mut transaction.multi, &stream, parties, &claim.entries);
            steps.push(Step::Claimed { agent: agent.clone(), claim, claimed });
        }
        for read in handout.reads {
            let Some(consumer) = inbox.consumer(&read.instance) else {
                continue;
            };
            let stream = match read.source {
                Source::Shared => &inbox.stream,
                Source::Own => &consumer.own_stream,
            };
            self.reads = self.reads.saturating_sub(read.count);
            let entries = transaction.multi.ask("XREADGROUP", read_entries);
            let args = transaction.multi.args();
            let _ = args.arg("GROUP").arg(keys::GROUP).arg(&consumer.name);
            let _ = args.arg("COUNT").arg(read.count).arg("STREAMS").arg(stream).arg(">");
            steps.push(Step::Read { agent: agent.clone(), read, entries });
        }
        if handout.turn != inbox.turn() {
            steps.push(Step::Turned { agent: agent.clone(), turn: handout.turn });
        }
    }
}

fn stream_of(inbox: &Inbox, source: Source, instance: &InstanceId) -> String {
    inbox.stream_of(match source {
        Source::Shared => None,
        Source::Own => Some(instance),
    })
}

/// Acknowledged entries, and those that are in the dead letters, leave their streams.
fn leave(transaction: &mut Transaction<'_>, inbox: &Inbox, steps: &mut Vec<Step>) {
    if inbox.leaving.is_empty() {
        return;
    }
    let mut leaving = inbox.leaving.clone();
    leaving.sort_by(|a, b| a.owner.cmp(&b.owner));
    let groups = leaving.chunk_by(|a, b| a.owner == b.owner);
    for group in groups.flat_map(|group| group.chunks(MAX_LEAVING)) {
        let Some(first) = group.first() else {
            continue;
        };
        let stream = inbox.stream_of(first.owner.as_ref());
        let deleted = transaction.multi.ask("XDEL", counted);
        let _ = transaction.multi.args().arg(&stream);
        let ids = |args: &mut crate::store::Batch| {
            for key in group {
                let _ = args.arg(key.entry);
            }
        };
        ids(transaction.multi.args());
        let acked = transaction.multi.ask("XACK", counted);
        let _ = transaction.multi.args().arg(&stream).arg(keys::GROUP);
        ids(transaction.multi.args());
        steps.push(Step::Left { agent: inbox.agent.clone(), keys: group.to_vec(), deleted, acked });
    }
}

/// Corrects Redis' counts of deliveries.
fn recount(transaction: &mut Transaction<'_>, inbox: &Inbox, steps: &mut Vec<Step>) {
    if inbox.recounts.is_empty() {
        return;
    }
    let agent = &inbox.agent;
    let counted = |key| {
        let (holder, deliveries) = inbox.count_of(key)?;
        let wanted = Wanted { entry: key.entry, delivery: deliveries, stored: deliveries };
        Some((key.owner.as_ref(), holder, wanted))
    };
    let mut counts: Vec<_> = inbox.recounts.iter().filter_map(counted).collect();
    counts.sort_by_key(|(owner, holder, _)| (*owner, *holder));
    // One command for all that one holder has in a stream.
    let of_one = counts.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1));
    for group in of_one.flat_map(|group| group.chunks(MAX_RECOUNTS)) {
        let Some((owner, holder, _)) = group.first() else {
            continue;
        };
        let consumer = keys::consumer(agent, holder);
        let parties = Parties { agent, holder, consumer: &consumer, server: &transaction.shared.server };
        let wanted: Vec<Wanted> = group.iter().map(|(_, _, wanted)| *wanted).collect();
        claims::recount(&mut transaction.multi, &inbox.stream_of(*owner), parties, &wanted);
    }
    steps.push(Step::Recounted { agent: agent.clone() });
}

fn grouped(answer: Value) -> Answered<()> {
    match answers::error_code(&answer) {
        None | Some("BUSYGROUP") => Ok(()),
        Some(code) => Err(code.to_owned()),
    }
}

fn counted(answer: Value) -> Answered<u64> {
    match answers::error_code(&answer) {
        None => Ok(answers::int(&answer).unwrap_or(0)),
        Some(code) => Err(code.to_owned()),
    }
}

fn read_entries(answer: Value) -> Answered<Vec<StreamEntry>> {
    if let Some(code) = answers::error_code(&answer) {
        return Err(code.to_owned());
    }
    answers::read_one_stream(answer).ok_or_else(|| "an answer of an unknown shape".to_owned())
}
