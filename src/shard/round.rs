//! One round trip: gather what decisions depend on, decide, commit decisions with their effects and
//! records in one transaction, then acknowledge, claim and read in the same pipeline, and apply the
//! answers. Hot path.

use super::decide::{Decided, Facts, Note, PendingRequest, Success, Transaction};
use super::inbox::{Claim, DeadLetter, EntryKey, Read};
use super::job::{Job, MessageJob, ReplyJob};
use super::session::{Outbound, Place};
use super::worker::{STALL_MS, Scan, Worker};
use crate::clock::Now;
use crate::ids::{AgentId, InstanceId};
use crate::refusal::Refusal;
use crate::store::answers::{self, StreamEntry};
use crate::store::{StoreError, Value, keys, trail};

/// Attempts when a watched fact changed between reading and committing.
const MAX_CONFLICTS: usize = 3;
/// Inboxes looked at in one round.
const MAX_INBOXES: usize = 256;
/// Lines of a pending entries list read in one round, per scan.
const SCAN_PAGE: usize = 256;
/// Scans made in one round.
const MAX_SCANS: usize = 16;
/// Dead letters written in one round.
const MAX_LETTERS: usize = 64;
/// Gone instances cleared in one round.
const MAX_CLEARS: usize = 16;
/// Unread replies of a gone instance that go to the dead letters in one round.
const CLEAR_PAGE: usize = 64;

/// What the first round trip found.
#[derive(Default)]
struct Gathered {
    facts: Facts,
    letters: Vec<Letter>,
    clears: Vec<Clear>,
    watching: bool,
}

/// A dead letter with its payload.
struct Letter {
    agent: AgentId,
    stream: String,
    letter: DeadLetter,
    envelope: Option<String>,
}

/// A gone instance whose own inbox is empty.
struct Clear {
    agent: AgentId,
    instance: InstanceId,
    /// Nothing of it is pending in the shared inbox.
    consumer_free: bool,
}

/// What follows the transaction in the pipeline.
enum Tail {
    Acked { agent: AgentId, keys: Vec<EntryKey> },
    Claimed { agent: AgentId, claim: Claim },
    Read { agent: AgentId, read: Read },
    Length { agent: AgentId },
}

enum Attempt {
    Committed {
        decided: Vec<Decided>,
        values: Vec<Value>,
    },
    /// A watched key changed: read again, decide again.
    Conflict,
    /// Redis refused the transaction as a whole.
    Refused,
}

/// Where an attempt failed: before anything could have been committed, or not.
enum Failure {
    Before(StoreError),
    Unknown(StoreError),
}

impl Worker {
    /// Decides and commits `jobs`, moves what can move, answers everybody.
    pub(super) fn round(&mut self, jobs: Vec<Job>, now: Now) {
        for _ in 0..MAX_CONFLICTS {
            let refusal = match self.attempt(&jobs, now) {
                Ok(Attempt::Committed { decided, values }) => {
                    self.answer(jobs, decided, values, now);
                    return;
                }
                Ok(Attempt::Conflict) => continue,
                Ok(Attempt::Refused) => {
                    self.stalled_until_ms = now.mono_ms + STALL_MS;
                    Refusal::STORAGE_UNAVAILABLE
                }
                Err(Failure::Before(error)) => {
                    self.disconnect(&error, now);
                    Refusal::STORAGE_UNAVAILABLE
                }
                Err(Failure::Unknown(error)) => {
                    self.disconnect(&error, now);
                    Refusal::COMMIT_UNKNOWN
                }
            };
            for job in jobs {
                job.fail(refusal);
            }
            return;
        }
        log::warn!(
            "worker {}: watched keys kept changing; {} jobs refused",
            self.index,
            jobs.len()
        );
        for job in jobs {
            job.fail(Refusal::STORAGE_UNAVAILABLE);
        }
    }

    fn attempt(&mut self, jobs: &[Job], now: Now) -> Result<Attempt, Failure> {
        let stalled = now.mono_ms < self.stalled_until_ms;
        let gathered = self.gather(jobs, now, stalled).map_err(Failure::Before)?;
        self.batch.clear();
        let mut tail = self.make_groups(jobs);

        let Gathered {
            facts,
            letters,
            clears,
            watching,
        } = gathered;
        let notes = if stalled { 0 } else { self.notes.len() };
        let transacts = !jobs.is_empty() || notes > 0 || !letters.is_empty() || !clears.is_empty();
        let mut decided = Vec::with_capacity(jobs.len());
        let mut letter_effects = Vec::with_capacity(letters.len());
        let mut exec = None;
        if transacts {
            let _ = self.batch.command("MULTI");
            let mut transaction = Transaction::new(
                &self.shared,
                now,
                &mut self.lane,
                &mut self.batch,
                &self.inboxes,
                facts,
            );
            for note in &self.notes[..notes] {
                transaction.note(note);
            }
            for Letter {
                agent,
                stream,
                letter,
                envelope,
            } in &letters
            {
                let first = transaction.effects;
                transaction.dead_letter(agent, stream, letter, envelope.as_deref());
                letter_effects.push(first..transaction.effects);
            }
            for Clear {
                agent,
                instance,
                consumer_free,
            } in &clears
            {
                transaction.clear_instance(agent, instance, *consumer_free);
            }
            for job in jobs {
                decided.push(transaction.decide(job));
            }
            if let Some(block) = self.lane.block() {
                let _ = trail::append(&mut self.batch, self.lane.id(), block);
            }
            exec = Some(self.batch.command("EXEC"));
        } else if watching {
            let _ = self.batch.command("UNWATCH");
        }
        self.expect_deliveries(&decided);
        self.add_tail(now, &mut tail);
        if self.batch.is_empty() {
            return Ok(Attempt::Committed {
                decided,
                values: Vec::new(),
            });
        }

        let mut answers = match self.run_batch() {
            Ok(answers) => answers,
            Err(error) => {
                self.tail_lost(tail);
                return Err(Failure::Unknown(error));
            }
        };
        let committed = match exec {
            None => Some(Vec::new()),
            Some(at) => {
                let result = answers.get_mut(at).map(std::mem::take).unwrap_or_default();
                match self.executed(result, &answers) {
                    Ok(values) => Some(values),
                    Err(conflict) => {
                        self.lane.discard();
                        self.expect_no_deliveries(&decided);
                        self.apply_tail(tail, answers, now);
                        return Ok(if conflict {
                            Attempt::Conflict
                        } else {
                            Attempt::Refused
                        });
                    }
                }
            }
        };
        let values = committed.unwrap_or_default();
        if transacts {
            self.lane.confirm();
            drop(self.notes.drain(..notes));
            self.settle_letters(letters, &letter_effects, &values, now);
            self.settle_clears(clears, now);
        }
        self.apply_tail(tail, answers, now);
        Ok(Attempt::Committed { decided, values })
    }

    fn run_batch(&mut self) -> Result<Vec<Value>, StoreError> {
        match &mut self.connection {
            Some(connection) => connection.run(&mut self.batch),
            None => Err(StoreError::Unexpected {
                command: "a batch",
                answer: "there is no connection".to_owned(),
            }),
        }
    }

    /// The effects' answers, or whether it was a conflict that kept the transaction from happening.
    fn executed(&self, result: Value, answers: &[Value]) -> Result<Vec<Value>, bool> {
        match result {
            Value::Array(values) => {
                if let Some(code) = values.last().and_then(answers::error_code) {
                    log::error!("worker {}: the audit block was refused: {code}", self.index);
                }
                Ok(values)
            }
            Value::Nil => Err(true),
            other => {
                let cause = answers
                    .iter()
                    .find(|a| answers::error_code(a).is_some())
                    .unwrap_or(&other);
                log::error!(
                    "worker {}: Redis refused a transaction: {cause:?}",
                    self.index
                );
                Err(false)
            }
        }
    }

    // --- gather ----------------------------------------------------------------------------------

    fn gather(&mut self, jobs: &[Job], now: Now, stalled: bool) -> Result<Gathered, StoreError> {
        let mut gathered = Gathered::default();
        self.batch.clear();
        let mut replies: Vec<&ReplyJob> = Vec::new();
        let mut states: Vec<&AgentId> = Vec::new();
        for job in jobs {
            match job {
                Job::Reply(reply) => replies.push(reply),
                Job::StateUpdate { caller, .. } => states.push(&caller.identity.agent),
                Job::Message(_)
                | Job::Discover { .. }
                | Job::StateGet { .. }
                | Job::StateReset { .. }
                | Job::Open(_)
                | Job::Refused(_) => {}
            }
        }
        gathered.watching = !replies.is_empty() || !states.is_empty();
        if gathered.watching {
            let _ = self.batch.command("WATCH");
            for reply in &replies {
                let _ = self.batch.arg(keys::pending_request(&reply.correlation_id));
            }
            for agent in &states {
                let _ = self.batch.arg(keys::state(agent));
            }
            for reply in &replies {
                let _ = self.batch.command("GET");
                let _ = self.batch.arg(keys::pending_request(&reply.correlation_id));
            }
            for agent in &states {
                let _ = self.batch.command("HGETALL");
                let _ = self.batch.arg(keys::state(agent));
            }
        }
        let scans: Vec<Scan> = self
            .scans
            .drain(..self.scans.len().min(MAX_SCANS))
            .collect();
        for scan in &scans {
            self.add_scan(scan);
        }
        let letters = if stalled {
            Vec::new()
        } else {
            self.take_letters()
        };
        for (_, stream, letter) in &letters {
            let _ = self.batch.command("XRANGE");
            let _ = self
                .batch
                .arg(stream)
                .arg(letter.key.entry)
                .arg(letter.key.entry);
        }
        let clears = if stalled {
            Vec::new()
        } else {
            self.take_clears()
        };
        for (agent, instance) in &clears {
            let _ = self.batch.command("XPENDING");
            let _ = self
                .batch
                .arg(keys::inbox(agent))
                .arg(keys::GROUP)
                .arg("-")
                .arg("+")
                .arg(1);
            let _ = self.batch.arg(keys::consumer(agent, instance));
            let _ = self.batch.command("XRANGE");
            let _ = self
                .batch
                .arg(keys::instance_inbox(agent, instance))
                .arg("-")
                .arg("+");
            let _ = self.batch.arg("COUNT").arg(CLEAR_PAGE);
        }
        if self.batch.is_empty() {
            return Ok(gathered);
        }

        let found = match self.run_batch() {
            Ok(answers) => answers,
            Err(error) => {
                self.scans.extend(scans);
                self.clears.extend(clears);
                return Err(error);
            }
        };
        let mut found = found.into_iter();
        if gathered.watching {
            drop(found.next());
        }
        for (reply, value) in replies.iter().zip(found.by_ref()) {
            let _ = gathered
                .facts
                .pending
                .insert(reply.correlation_id, parse_pending(&value));
        }
        for (agent, value) in states.iter().zip(found.by_ref()) {
            let fields = answers::pairs(value).unwrap_or_default();
            let sizes = fields
                .into_iter()
                .map(|(field, value)| (field, value.len()))
                .collect();
            let _ = gathered.facts.states.insert((*agent).clone(), sizes);
        }
        for (scan, value) in scans.into_iter().zip(found.by_ref()) {
            self.scanned(scan, &value, now);
        }
        for ((agent, stream, letter), value) in letters.into_iter().zip(found.by_ref()) {
            let entry = answers::entries(value).and_then(|entries| entries.into_iter().next());
            let envelope = entry.and_then(|entry| entry.envelope);
            gathered.letters.push(Letter {
                agent,
                stream,
                letter,
                envelope,
            });
        }
        for (agent, instance) in clears {
            let (pending, own) = (found.next(), found.next());
            self.found_remains(&mut gathered, agent, instance, pending, own);
        }
        Ok(gathered)
    }

    fn add_scan(&mut self, scan: &Scan) {
        let stream = match &scan.owner {
            Some(instance) => keys::instance_inbox(&scan.agent, instance),
            None => keys::inbox(&scan.agent),
        };
        let from = scan
            .after
            .map_or_else(|| "-".to_owned(), |entry| format!("({entry}"));
        let _ = self.batch.command("XPENDING");
        let _ = self
            .batch
            .arg(stream)
            .arg(keys::GROUP)
            .arg(from)
            .arg("+")
            .arg(SCAN_PAGE);
    }

    fn scanned(&mut self, scan: Scan, value: &Value, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(&scan.agent) else {
            return;
        };
        if answers::error_code(value) == Some("NOGROUP") {
            let _ = self.regroup.insert(scan.agent);
            return;
        }
        let Some(lines) = answers::pending(value) else {
            log::error!("{}: XPENDING answered {value:?}", inbox.stream);
            return;
        };
        for line in &lines {
            inbox.adopt(
                scan.owner.as_ref(),
                line,
                now.mono_ms,
                &self.shared.delivery,
            );
        }
        let _ = self.ready.insert(scan.agent.clone());
        // The sweep goes on where a scan stops at the bound.
        if lines.len() == SCAN_PAGE && inbox.tracked() < super::inbox::MAX_TRACKED_ENTRIES {
            let after = lines.last().map(|line| line.id);
            self.scans.push_back(Scan { after, ..scan });
        }
    }

    fn take_letters(&mut self) -> Vec<(AgentId, String, DeadLetter)> {
        let mut letters = Vec::new();
        for agent in &self.ready {
            let Some(inbox) = self.inboxes.get(agent) else {
                continue;
            };
            for letter in &inbox.dead {
                if letters.len() == MAX_LETTERS {
                    return letters;
                }
                letters.push((agent.clone(), inbox.stream_of(&letter.key), letter.clone()));
            }
        }
        letters
    }

    fn take_clears(&mut self) -> Vec<(AgentId, InstanceId)> {
        let count = self.clears.len().min(MAX_CLEARS);
        let taken: Vec<(AgentId, InstanceId)> = self.clears.drain(..count).collect();
        let connected = |(agent, instance): &(AgentId, InstanceId)| {
            self.inboxes
                .get(agent)
                .is_some_and(|inbox| inbox.slot(instance).is_some())
        };
        taken.into_iter().filter(|gone| !connected(gone)).collect()
    }

    fn found_remains(
        &mut self,
        gathered: &mut Gathered,
        agent: AgentId,
        instance: InstanceId,
        pending: Option<Value>,
        own: Option<Value>,
    ) {
        let consumer_free = match &pending {
            Some(Value::Array(lines)) => lines.is_empty(),
            // No stream or no group: nothing is pending.
            Some(value) => answers::error_code(value) == Some("NOGROUP"),
            None => false,
        };
        let unread = own.and_then(answers::entries).unwrap_or_default();
        if unread.is_empty() {
            gathered.clears.push(Clear {
                agent,
                instance,
                consumer_free,
            });
            return;
        }
        let stream = keys::instance_inbox(&agent, &instance);
        for StreamEntry { id, envelope } in unread {
            let letter = DeadLetter {
                key: EntryKey {
                    owner: Some(instance.clone()),
                    entry: id,
                },
                holder: instance.clone(),
                attempts: 0,
                reason: "instance_gone".to_owned(),
            };
            gathered.letters.push(Letter {
                agent: agent.clone(),
                stream: stream.clone(),
                letter,
                envelope,
            });
        }
        self.clears.push_back((agent, instance));
    }

    // --- pipeline around the transaction -----------------------------------------------------------

    /// Makes the consumer groups that sessions about to open, or inboxes that lost theirs, need. A group
    /// that exists already is what was wanted.
    fn make_groups(&mut self, jobs: &[Job]) -> Vec<(usize, Tail)> {
        let mut tail = Vec::new();
        let mut streams: Vec<String> = Vec::new();
        for job in jobs {
            if let Job::Open(session) = job {
                streams.push(keys::inbox(&session.identity.agent));
                streams.push(keys::instance_inbox(
                    &session.identity.agent,
                    &session.instance,
                ));
            }
        }
        for agent in std::mem::take(&mut self.regroup) {
            let Some(inbox) = self.inboxes.get_mut(&agent) else {
                continue;
            };
            streams.push(inbox.stream.clone());
            streams.extend(inbox.slots().iter().map(|slot| slot.own_stream.clone()));
            let at = self.batch.command("XLEN");
            let _ = self.batch.arg(&inbox.stream);
            tail.push((
                at,
                Tail::Length {
                    agent: agent.clone(),
                },
            ));
            let _ = self.ready.insert(agent);
        }
        for stream in streams {
            let _ = self.batch.command("XGROUP");
            let _ = self
                .batch
                .arg("CREATE")
                .arg(stream)
                .arg(keys::GROUP)
                .arg("0")
                .arg("MKSTREAM");
        }
        tail
    }

    /// What the transaction adds is read back in the same pipeline.
    fn expect_deliveries(&mut self, decided: &[Decided]) {
        for decision in decided {
            match &decision.outcome {
                Ok(Success::Queued { target, .. }) => {
                    if let Some(inbox) = self.inboxes.get_mut(target) {
                        inbox.added();
                        let _ = self.ready.insert(target.clone());
                    }
                }
                Ok(Success::Replied {
                    target, instance, ..
                }) => {
                    if let Some(inbox) = self.inboxes.get_mut(target) {
                        inbox.own_news(instance);
                        let _ = self.ready.insert(target.clone());
                    }
                }
                Ok(Success::Discovered(_) | Success::State | Success::Done | Success::Opened)
                | Err(_) => {}
            }
        }
    }

    fn expect_no_deliveries(&mut self, decided: &[Decided]) {
        for decision in decided {
            if let Ok(Success::Queued { target, .. }) = &decision.outcome
                && let Some(inbox) = self.inboxes.get_mut(target)
            {
                inbox.not_added();
            }
        }
    }

    /// Acknowledges, claims and reads for the inboxes that have something to move.
    fn add_tail(&mut self, now: Now, tail: &mut Vec<(usize, Tail)>) {
        let agents: Vec<AgentId> = self.ready.iter().take(MAX_INBOXES).cloned().collect();
        for agent in agents {
            let _ = self.ready.remove(&agent);
            let Some(inbox) = self.inboxes.get_mut(&agent) else {
                continue;
            };
            let batch = &mut self.batch;
            let mut acked = std::mem::take(&mut inbox.acked);
            acked.sort_by(|a, b| a.owner.cmp(&b.owner));
            for group in acked.chunk_by(|a, b| a.owner == b.owner) {
                let Some(first) = group.first() else {
                    continue;
                };
                let stream = inbox.stream_of(first);
                // XDEL first: a crash in between leaves a pending entry without a message, which the next
                // claim removes; the other way round would leave a message that nobody removes.
                let at = batch.command("XDEL");
                let _ = batch.arg(&stream);
                for key in group {
                    let _ = batch.arg(key.entry);
                }
                let _ = batch.command("XACK");
                let _ = batch.arg(&stream).arg(keys::GROUP);
                for key in group {
                    let _ = batch.arg(key.entry);
                }
                tail.push((
                    at,
                    Tail::Acked {
                        agent: agent.clone(),
                        keys: group.to_vec(),
                    },
                ));
            }
            for claim in inbox.due(now.mono_ms, &self.shared.delivery) {
                let Some(slot) = inbox.slot(&claim.instance) else {
                    continue;
                };
                let stream = match claim.place {
                    Place::Shared => &inbox.stream,
                    Place::Own => &slot.own_stream,
                };
                let at = batch.command("XCLAIM");
                let _ = batch
                    .arg(stream)
                    .arg(keys::GROUP)
                    .arg(&slot.consumer)
                    .arg(0);
                for entry in &claim.entries {
                    let _ = batch.arg(*entry);
                }
                tail.push((
                    at,
                    Tail::Claimed {
                        agent: agent.clone(),
                        claim,
                    },
                ));
            }
            for read in inbox.reads(&self.shared.delivery) {
                let Some(slot) = inbox.slot(&read.instance) else {
                    continue;
                };
                let stream = match read.place {
                    Place::Shared => &inbox.stream,
                    Place::Own => &slot.own_stream,
                };
                let at = batch.command("XREADGROUP");
                let _ = batch.arg("GROUP").arg(keys::GROUP).arg(&slot.consumer);
                let _ = batch
                    .arg("COUNT")
                    .arg(read.count)
                    .arg("STREAMS")
                    .arg(stream)
                    .arg(">");
                tail.push((
                    at,
                    Tail::Read {
                        agent: agent.clone(),
                        read,
                    },
                ));
            }
            self.schedule(&agent);
        }
    }

    // --- apply -----------------------------------------------------------------------------------

    fn apply_tail(&mut self, tail: Vec<(usize, Tail)>, mut answers: Vec<Value>, now: Now) {
        for (at, step) in tail {
            let value = answers.get_mut(at).map(std::mem::take).unwrap_or_default();
            let agent = match step {
                Tail::Acked { agent, keys } => {
                    self.acked(&agent, keys, &value, answers.get(at + 1));
                    agent
                }
                Tail::Claimed { agent, claim } => {
                    self.claimed(&agent, &claim, value, now);
                    agent
                }
                Tail::Read { agent, read } => {
                    self.delivered(&agent, &read, value);
                    agent
                }
                Tail::Length { agent } => {
                    if let (Some(inbox), Some(len)) =
                        (self.inboxes.get_mut(&agent), answers::int(&value))
                    {
                        inbox.len = len;
                    }
                    agent
                }
            };
            let delivery = &self.shared.delivery;
            if self
                .inboxes
                .get(&agent)
                .is_some_and(|inbox| inbox.has_work(now.mono_ms, delivery))
            {
                let _ = self.ready.insert(agent.clone());
            }
            self.schedule(&agent);
        }
    }

    /// The connection broke: acknowledgements are sent again. Claims are undone with the connection, and
    /// reads whose answers were lost are found by the scan that follows the next connect.
    fn tail_lost(&mut self, tail: Vec<(usize, Tail)>) {
        for (_, step) in tail {
            match step {
                Tail::Acked { agent, keys } => {
                    if let Some(inbox) = self.inboxes.get_mut(&agent) {
                        inbox.acked.extend(keys);
                        let _ = self.ready.insert(agent);
                    }
                }
                Tail::Length { agent } => {
                    let _ = self.regroup.insert(agent);
                }
                Tail::Claimed { .. } | Tail::Read { .. } => {}
            }
        }
    }

    fn acked(
        &mut self,
        agent: &AgentId,
        keys: Vec<EntryKey>,
        deleted: &Value,
        acked: Option<&Value>,
    ) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        for answer in [Some(deleted), acked].into_iter().flatten() {
            if let Some(code) = answers::error_code(answer) {
                log::error!("{}: Redis refused an acknowledgement: {code}", inbox.stream);
            }
        }
        for key in &keys {
            inbox.removed(key);
        }
    }

    fn claimed(&mut self, agent: &AgentId, claim: &Claim, value: Value, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        if let Some(code) = answers::error_code(&value) {
            log::error!("{}: Redis refused a claim: {code}", inbox.stream);
            let lost_group = code == "NOGROUP";
            for entry in &claim.entries {
                inbox.not_delivered(
                    &claim.instance,
                    claim.place,
                    *entry,
                    lost_group,
                    now.mono_ms + STALL_MS,
                );
            }
            if lost_group {
                let _ = self.regroup.insert(agent.clone());
            }
            return;
        }
        let mut returned = answers::entries(value).unwrap_or_default();
        let session = inbox.slot(&claim.instance).map(|slot| slot.session.clone());
        for entry in &claim.entries {
            let found = returned
                .iter()
                .position(|e| e.id == *entry)
                .map(|at| returned.swap_remove(at));
            match (found, &session) {
                (
                    Some(StreamEntry {
                        id,
                        envelope: Some(envelope),
                    }),
                    Some(session),
                ) => {
                    inbox.delivered_again(&claim.instance, claim.place, id, envelope.len());
                    let key = super::session::DeliveryId {
                        place: claim.place,
                        entry: id,
                    };
                    session.send(Outbound::Delivery { id: key, envelope });
                }
                // Deleted meanwhile: nothing is left to deliver.
                (None | Some(StreamEntry { envelope: None, .. }), _) => {
                    inbox.not_delivered(&claim.instance, claim.place, *entry, true, now.mono_ms);
                }
                (Some(_), None) => {
                    inbox.not_delivered(&claim.instance, claim.place, *entry, false, now.mono_ms);
                }
            }
        }
    }

    fn delivered(&mut self, agent: &AgentId, read: &Read, value: Value) {
        let Some(inbox) = self.inboxes.get_mut(agent) else {
            return;
        };
        if let Some(code) = answers::error_code(&value) {
            if code == "NOGROUP" {
                log::warn!(
                    "{}: its consumer group is gone; it is made again",
                    inbox.stream
                );
                inbox.forget();
                let _ = self.regroup.insert(agent.clone());
            } else {
                log::error!("{}: Redis refused a read: {code}", inbox.stream);
                inbox.read_answered(&read.instance, read.place, 1, 0);
            }
            return;
        }
        let Some(entries) = answers::read_one_stream(value) else {
            log::error!("{}: XREADGROUP answered in an unknown shape", inbox.stream);
            inbox.read_answered(&read.instance, read.place, 1, 0);
            return;
        };
        inbox.read_answered(&read.instance, read.place, read.count, entries.len());
        let Some(session) = inbox.slot(&read.instance).map(|slot| slot.session.clone()) else {
            return;
        };
        for StreamEntry { id, envelope } in entries {
            let bytes = envelope.as_ref().map_or(0, String::len);
            inbox.delivered_new(&read.instance, read.place, id, bytes);
            let id = super::session::DeliveryId {
                place: read.place,
                entry: id,
            };
            match envelope {
                Some(envelope) => session.send(Outbound::Delivery { id, envelope }),
                // Not written by this server: nobody can handle it.
                None => {
                    let now_ms = Now::read().mono_ms;
                    let reason = "no_envelope";
                    let _ = inbox.nack(
                        &read.instance,
                        id,
                        reason,
                        false,
                        now_ms,
                        &self.shared.delivery,
                    );
                }
            }
        }
    }

    fn settle_letters(
        &mut self,
        letters: Vec<Letter>,
        effects: &[std::ops::Range<usize>],
        values: &[Value],
        now: Now,
    ) {
        for (Letter { agent, letter, .. }, effects) in letters.into_iter().zip(effects) {
            if let Some(error) = failed(values, effects) {
                log::error!("agent {agent}: a dead letter could not be stored: {error}");
                self.stalled_until_ms = now.mono_ms + STALL_MS;
                continue;
            }
            if let Some(inbox) = self.inboxes.get_mut(&agent) {
                inbox.removed(&letter.key);
                inbox.dead.retain(|other| other.key != letter.key);
            }
        }
    }

    fn settle_clears(&mut self, clears: Vec<Clear>, now: Now) {
        let again_at_ms = now.mono_ms + self.grace_ms();
        for Clear {
            agent,
            instance,
            consumer_free,
        } in clears
        {
            if !consumer_free && let Some(inbox) = self.inboxes.get_mut(&agent) {
                // Its share of the inbox waits for another instance; the consumer is needed until then.
                let _ = inbox.gone.insert(instance, again_at_ms);
                self.schedule(&agent);
            }
        }
    }

    /// Tells every caller what was decided and committed.
    fn answer(&mut self, jobs: Vec<Job>, decided: Vec<Decided>, mut values: Vec<Value>, now: Now) {
        for (job, Decided { outcome, effects }) in jobs.into_iter().zip(decided) {
            let success = match outcome {
                Ok(success) => success,
                Err(refusal) => {
                    job.fail(refusal);
                    continue;
                }
            };
            if let Some(error) = failed(&values, &effects) {
                self.effect_failed(&success, error);
                job.fail(Refusal::STORAGE_UNAVAILABLE);
                continue;
            }
            // A caller that is gone needs no answer.
            match (job, success) {
                (Job::Message(MessageJob { answer, .. }), Success::Queued { accepted, .. })
                | (Job::Reply(ReplyJob { answer, .. }), Success::Replied { accepted, .. }) => {
                    let _ = answer.send(Ok(accepted));
                }
                (Job::Discover { answer, .. }, Success::Discovered(found)) => {
                    let _ = answer.send(Ok(found));
                }
                (Job::StateGet { answer, .. }, Success::State) => {
                    let value = values
                        .get_mut(effects.start)
                        .map(std::mem::take)
                        .unwrap_or_default();
                    let _ = answer.send(answers::pairs(value).ok_or(Refusal::STORAGE_UNAVAILABLE));
                }
                (
                    Job::StateUpdate { answer, .. } | Job::StateReset { answer, .. },
                    Success::Done,
                ) => {
                    let _ = answer.send(Ok(()));
                }
                (Job::Open(session), Success::Opened) => self.opened(&session, now),
                (job, _) => job.fail(Refusal::STORAGE_UNAVAILABLE),
            }
        }
    }

    /// The record says allowed, the store said no: that too goes on record.
    fn effect_failed(&mut self, success: &Success, error: String) {
        log::error!("worker {}: Redis refused an effect: {error}", self.index);
        let (message_id, agent) = match success {
            Success::Queued { accepted, target } => {
                if let Some(inbox) = self.inboxes.get_mut(target) {
                    inbox.not_added();
                }
                (Some(accepted.message_id), target.to_string())
            }
            Success::Replied {
                accepted, target, ..
            } => (Some(accepted.message_id), target.to_string()),
            Success::Discovered(_) | Success::State | Success::Done | Success::Opened => {
                (None, String::new())
            }
        };
        self.notes.push(Note::EffectFailed {
            message_id,
            agent,
            error,
        });
    }
}

/// The first refused effect among these.
fn failed(values: &[Value], effects: &std::ops::Range<usize>) -> Option<String> {
    values
        .get(effects.clone())?
        .iter()
        .find_map(|value| answers::error_code(value).map(str::to_owned))
}

fn parse_pending(value: &Value) -> Option<PendingRequest> {
    serde_json::from_str(answers::text(value)?).ok()
}
