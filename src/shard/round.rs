//! One round trip: gather what decisions depend on, decide, commit decisions with their effects and
//! records in one transaction, and answer. What follows in the same pipeline is in [`flow`](super::flow).
//! Hot path.

use std::collections::BTreeSet;

use super::decide::{Decided, Facts, PendingRequest, StateFact, Success, Transaction};
use super::flow::parts;
use super::inbox::{DeadLetter, EntryKey, MAX_ATTEMPTS_REASON};
use super::job::{Accepted, CommitJob, Committed, Control, Declined, Job, MessageJob, ReplyJob};
use super::notes::Note;
use super::posts::Remembered;
use super::presence;
use super::worker::{STALL_MS, Scan, Worker};
use crate::clock::Now;
use crate::ids::{AgentId, CorrelationId, InstanceId, ServerId};
use crate::policy::Circuit;
use crate::refusal::Refusal;
use crate::store::answers::{self, StreamEntry};
use crate::store::{StoreError, Value, keys, servers, trail};

/// Attempts when a watched fact changed between reading and committing.
const MAX_CONFLICTS: usize = 16;
/// Lines of a pending entries list read in one round, per scan.
const SCAN_PAGE: usize = 256;
/// Scans made in one round.
const MAX_SCANS: usize = 16;
/// Dead letters written in one round.
const MAX_LETTERS: usize = 64;
/// Gone instances cleared in one round.
const MAX_CLEARS: usize = 16;
/// How long a thing that one server has taken on is left to it, in milliseconds.
const ONCE_MS: u64 = 60_000;
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

/// A gone instance, and what is left of it.
struct Clear {
    agent: AgentId,
    instance: InstanceId,
    /// Its own inbox holds replies: they go first, the rest follows later.
    unread: bool,
    /// Nobody else clears it, and no server has it.
    ours: bool,
    /// Nothing of it is pending in the shared inbox.
    consumer_free: bool,
}

enum Attempt {
    Committed {
        decided: Vec<Decided>,
        values: Vec<Value>,
        /// Whether it is as durable as the configuration asks.
        assured: bool,
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
        self.commit(jobs, now);
        // Each writer once, however much there is for it.
        for session in self.to_wake.drain(..) {
            session.outbox.wake();
        }
    }

    fn commit(&mut self, jobs: Vec<Job>, now: Now) {
        for _ in 0..MAX_CONFLICTS {
            let refusal = match self.attempt(&jobs, now) {
                Ok(Attempt::Committed { decided, values, assured }) => {
                    self.answer(jobs, decided, values, assured, now);
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
        log::warn!("worker {}: watched keys kept changing; {} jobs refused", self.index, jobs.len());
        for job in jobs {
            job.fail(Refusal::STORAGE_UNAVAILABLE);
        }
    }

    fn attempt(&mut self, jobs: &[Job], now: Now) -> Result<Attempt, Failure> {
        let stalled = now.mono_ms < self.stalled_until_ms;
        let notes = if stalled { 0 } else { self.notes.len() };
        let gathered = self.gather(jobs, notes, now, stalled).map_err(Failure::Before)?;
        self.batch.clear();
        let mut tail = if stalled { Vec::new() } else { self.make_groups() };

        let Gathered { facts, letters, clears, watching } = gathered;
        // What moves in this round takes acknowledged entries along: these go on record before.
        let leaving = self.custody.has_acks() && !self.ready.is_empty();
        let custody = !stalled && (self.stopping || leaving || self.custody.is_due(now));
        let transacts = !jobs.is_empty() || notes > 0 || custody || !letters.is_empty() || !clears.is_empty();
        if transacts || stalled {
            // A transaction is made anyway: acknowledgements go with it.
            self.acking.drain(..).for_each(|agent| self.ready.insert(agent));
        }
        let mut decided = Vec::with_capacity(jobs.len());
        let mut letter_effects = Vec::with_capacity(letters.len());
        let mut exec = None;
        if transacts {
            let _ = self.batch.command("MULTI");
            let mut transaction = Transaction::new(
                (&self.shared, &self.settings),
                now,
                &mut self.lane,
                &mut self.batch,
                &self.inboxes,
                facts,
                &mut self.scratch,
            );
            self.custody.record(transaction.lane, now);
            for note in self.notes.iter().take(notes) {
                transaction.note(note);
            }
            for Letter { agent, stream, letter, envelope } in &letters {
                let first = transaction.effects;
                transaction.dead_letter(agent, stream, letter, envelope.as_deref());
                letter_effects.push(first..transaction.effects);
            }
            let clearable = |clear: &&Clear| clear.ours && !clear.unread;
            for Clear { agent, instance, consumer_free, .. } in clears.iter().filter(clearable) {
                transaction.clear_instance(agent, instance, *consumer_free);
            }
            for job in jobs {
                decided.push(transaction.decide(job));
            }
            let counts = transaction.store_counts();
            let block_at = transaction.effects;
            let has_block = match self.lane.block() {
                Some(block) => {
                    let _ = trail::append(&mut self.batch, block);
                    true
                }
                None => false,
            };
            exec = Some((self.batch.command("EXEC"), has_block.then_some(block_at), counts));
        } else if watching {
            let _ = self.batch.command("UNWATCH");
        }
        self.expect_deliveries(&decided);
        self.tell_peers(&decided);
        self.add_tail(now, &mut tail);
        if self.batch.is_empty() && !self.unassured {
            return Ok(Attempt::Committed { decided, values: Vec::new(), assured: true });
        }
        let fence_at = servers::watch_fence(&mut self.batch, &self.shared.server);
        // Last, so that nothing stands behind it; only where something was committed, or is handed on that
        // another connection may have committed just now.
        let moves = tail.iter().any(|(_, step)| step.moves());
        let waits = exec.is_some() || moves || self.unassured;
        let waited = waits.then(|| self.assurance.wait(&mut self.batch)).flatten();

        let mut answers = match self.run_batch() {
            Ok(answers) => answers,
            Err(error) => {
                self.tail_lost(tail);
                self.put_back(clears);
                return Err(Failure::Unknown(error));
            }
        };
        if let Some(answer) = answers.get(fence_at) {
            self.check_fence(answer);
        }
        let assured = match waited {
            Some(at) => {
                let assured = self.assurance.holds(answers.get(at).unwrap_or_default());
                self.note_assurance(assured);
                assured
            }
            None => true,
        };
        let mut values = Vec::new();
        if let Some((at, block_at, counts)) = exec {
            let result = answers.get_mut(at).map(std::mem::take).unwrap_or_default();
            match self.executed(result, &answers) {
                Ok(executed) => values = executed,
                Err(attempt) => {
                    self.lane.discard();
                    self.expect_no_deliveries(&decided);
                    self.take_back(&decided);
                    self.put_back(clears);
                    self.apply_tail(tail, answers, now);
                    return Ok(attempt);
                }
            }
            if let Some(code) = block_at.and_then(|at| values.get(at)).and_then(answers::error_code) {
                // The lane's key is not ours any more: go on in a new lane, and say that nothing is sure.
                let answer = code.to_owned();
                self.put_back(clears);
                self.apply_tail(tail, answers, now);
                let command = "appending to the audit lane";
                return Err(Failure::Unknown(StoreError::Unexpected { command, answer }));
            }
            if let Some((tap, _)) = &self.shared.tap {
                let (first_seq, bytes) = self.lane.waiting();
                tap.offer(self.lane.id(), first_seq, bytes);
            }
            if assured {
                self.lane.confirm();
                self.slot.publish(self.lane.id(), self.lane.assured());
            } else {
                self.lane.confirm_unassured();
            }
            drop(self.notes.drain(..notes));
            self.custody.clear();
            self.learn_counts(&counts, &values, now);
            self.settle_letters(letters, &letter_effects, &values, now);
            self.settle_clears(clears, now);
        }
        if !assured {
            tail = self.withhold(tail, now);
        }
        self.apply_tail(tail, answers, now);
        Ok(Attempt::Committed { decided, values, assured })
    }

    /// Says once that commits are not as durable as they must be, and once that they are again.
    fn note_assurance(&mut self, assured: bool) {
        if std::mem::replace(&mut self.unassured, !assured) != assured {
            return;
        }
        if assured {
            self.suspect_all();
            log::warn!("worker {}: commits are as durable as configured again", self.index);
        } else {
            log::error!(
                "worker {}: commits are in Redis, and not as durable as configured ({:?}): callers are told \
                 commit_unknown, and nothing is delivered",
                self.index,
                self.shared.durability
            );
        }
    }

    pub(super) fn run_batch(&mut self) -> Result<Vec<Value>, StoreError> {
        match &mut self.connection {
            Some(connection) => connection.run(&mut self.batch),
            None => Err(StoreError::Unexpected {
                command: "a batch",
                answer: "there is no connection".to_owned(),
            }),
        }
    }

    /// The effects' answers, or why the transaction did not happen.
    fn executed(&mut self, result: Value, answers: &[Value]) -> Result<Vec<Value>, Attempt> {
        match result {
            Value::Array(values) => {
                if std::mem::take(&mut self.refused) {
                    log::warn!("worker {}: Redis takes transactions again", self.index);
                }
                Ok(values)
            }
            Value::Nil => Err(Attempt::Conflict),
            other => {
                // Once, not per message that meets the same.
                if !std::mem::replace(&mut self.refused, true) {
                    let cause = answers.iter().find(|a| answers::error_code(a).is_some()).unwrap_or(&other);
                    log::error!("worker {}: Redis refuses transactions: {cause:?}", self.index);
                }
                Err(Attempt::Refused)
            }
        }
    }

    /// What other servers have counted for the senders of this round counts here too.
    fn learn_counts(&self, counts: &[(AgentId, usize)], values: &[Value], now: Now) {
        for (sender, at) in counts {
            if let (Some(card), Some(total)) = (
                self.settings.policy.agent(sender.as_str()),
                values.get(*at).and_then(answers::int).and_then(|total| u32::try_from(total).ok()),
            ) {
                card.sent().learn(total, now.unix_s());
            }
        }
    }

    /// What did not happen does not count against its sender.
    fn take_back(&self, decided: &[Decided]) {
        for agent in decided.iter().flat_map(|decision| &decision.counted) {
            if let Some(card) = self.settings.policy.agent(agent.as_str()) {
                card.sent().take_back();
            }
        }
    }

    fn put_back(&mut self, clears: Vec<Clear>) {
        self.clears.extend(clears.into_iter().map(|clear| (clear.agent, clear.instance)));
    }

    // --- gather ----------------------------------------------------------------------------------

    fn gather(
        &mut self,
        jobs: &[Job],
        notes: usize,
        now: Now,
        stalled: bool,
    ) -> Result<Gathered, StoreError> {
        let mut gathered = Gathered::default();
        self.batch.clear();
        let scans: Vec<Scan> = self.scans.drain(..self.scans.len().min(MAX_SCANS)).collect();
        let letters = if stalled { Vec::new() } else { self.take_letters() };
        let clears = if stalled { Vec::new() } else { self.take_clears(jobs) };
        let has_peers = self.shared.has_peers();

        let answered: Vec<CorrelationId> = jobs.iter().flat_map(Job::answered).collect();
        let states: Vec<&AgentId> = jobs.iter().filter_map(Job::changed_state).collect();
        let keyed = keyed(jobs);
        let elsewhere = self.homes_elsewhere(jobs);
        let present = self.present(jobs, notes, &clears);
        gathered.watching =
            !answered.is_empty() || !states.is_empty() || !present.is_empty() || !keyed.is_empty();
        if gathered.watching {
            let _ = self.batch.command("WATCH");
            for id in &answered {
                let _ = self.batch.arg(keys::pending_request(id));
            }
            for agent in &states {
                let _ = self.batch.arg(keys::state(agent)).arg(keys::state_version(agent));
            }
            for (sender, key) in &keyed {
                let _ = self.batch.arg(keys::idempotency(sender, key));
            }
            for agent in &present {
                let _ = self.batch.arg(keys::instances(agent));
            }
        }
        for id in &answered {
            for command in ["GET", "PTTL"] {
                let _ = self.batch.command(command);
                let _ = self.batch.arg(keys::pending_request(id));
            }
        }
        for agent in &states {
            let _ = self.batch.command("HGETALL");
            let _ = self.batch.arg(keys::state(agent));
            let _ = self.batch.command("GET");
            let _ = self.batch.arg(keys::state_version(agent));
        }
        for (sender, key) in &keyed {
            let _ = self.batch.command("GET");
            let _ = self.batch.arg(keys::idempotency(sender, key));
        }
        for agent in &elsewhere {
            let _ = self.batch.command("XLEN");
            let _ = self.batch.arg(keys::inbox(agent));
        }
        for agent in &present {
            let _ = self.batch.command("HGETALL");
            let _ = self.batch.arg(keys::instances(agent));
        }
        if !present.is_empty() {
            let _ = self.batch.command("HKEYS");
            let _ = self.batch.arg(keys::SERVERS);
        }
        for scan in &scans {
            self.add_scan(scan);
        }
        for (_, stream, letter) in &letters {
            let _ = self.batch.command("XRANGE");
            let _ = self.batch.arg(stream).arg(letter.key.entry).arg(letter.key.entry);
            if has_peers {
                self.take_on(&format!("{stream}:{}", letter.key.entry));
            }
        }
        for (agent, instance) in &clears {
            let _ = self.batch.command("XPENDING");
            let _ = self.batch.arg(keys::inbox(agent)).arg(keys::GROUP).arg("-").arg("+").arg(1);
            let _ = self.batch.arg(keys::consumer(agent, instance));
            let _ = self.batch.command("XRANGE");
            let _ = self.batch.arg(keys::instance_inbox(agent, instance)).arg("-").arg("+");
            let _ = self.batch.arg("COUNT").arg(CLEAR_PAGE);
            if has_peers {
                self.take_on(&keys::instance_inbox(agent, instance));
            }
        }
        let trials = if has_peers { self.trials(jobs, now) } else { Vec::new() };
        for agent in &trials {
            self.take_on(&keys::circuit(agent));
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
        for id in &answered {
            let (pending, ttl) = (found.next(), found.next());
            let pending = pending.as_ref().and_then(parse_pending);
            let ttl_ms = ttl.as_ref().and_then(answers::int).unwrap_or(0);
            let fact = pending.map(|pending| (pending, ttl_ms));
            let _ = gathered.facts.pending.insert(*id, fact);
        }
        for agent in &states {
            let fields = found.next().and_then(answers::pairs).unwrap_or_default();
            let sizes = fields.into_iter().map(|(field, value)| (field, value.len())).collect();
            let version = found.next().as_ref().and_then(answers::int).unwrap_or(0);
            let _ = gathered.facts.states.insert((*agent).clone(), StateFact { sizes, version });
        }
        for key in keyed {
            let stored = found.next();
            let remembered = stored.as_ref().and_then(answers::text).and_then(Remembered::parse);
            let _ = gathered.facts.remembered.insert(key, remembered);
        }
        for agent in elsewhere {
            let length = found.next().as_ref().and_then(answers::int).unwrap_or(0);
            let _ = gathered.facts.lengths.insert(agent, length);
        }
        for agent in &present {
            let known = found.next().as_ref().map(presence::instances).unwrap_or_default();
            let _ = gathered.facts.presence.instances.insert(agent.clone(), known);
        }
        if !present.is_empty()
            && let Some(Value::Array(ids)) = found.next()
        {
            let ids = ids.iter().filter_map(answers::text).filter_map(ServerId::parse);
            gathered.facts.presence.servers = ids.collect();
        }
        for scan in scans {
            if let Some(value) = found.next() {
                self.scanned(scan, &value, now);
            }
        }
        for (agent, stream, letter) in letters {
            let entry =
                found.next().and_then(answers::entries).and_then(|entries| entries.into_iter().next());
            let ours = !has_peers || self.taken_on(&mut found);
            if ours {
                let envelope = entry.and_then(|entry| entry.envelope);
                gathered.letters.push(Letter { agent, stream, letter, envelope });
            } else if let Some(inbox) = self.inboxes.get_mut(&agent) {
                // Another server buries it.
                inbox.dead.retain(|other| other.key != letter.key);
                inbox.removed(&letter.key);
            }
        }
        for (agent, instance) in clears {
            let (pending, own) = (found.next(), found.next());
            let free = !has_peers || self.taken_on(&mut found);
            let ours = free && !gathered.facts.presence.elsewhere(&agent, &instance, &self.shared.server);
            self.found_remains(&mut gathered, agent, instance, ours, pending, own);
        }
        for agent in trials {
            if !self.taken_on(&mut found) {
                let _ = gathered.facts.trials_elsewhere.insert(agent);
            }
        }
        Ok(gathered)
    }

    /// Targets of this round's commits whose inboxes are another worker's.
    fn homes_elsewhere(&self, jobs: &[Job]) -> Vec<AgentId> {
        let commits = jobs.iter().filter(|job| matches!(job, Job::Commit(_)));
        let targets: BTreeSet<&str> = commits.flat_map(Job::posts).map(|post| post.target.as_str()).collect();
        let foreign = targets.into_iter().filter(|target| !self.inboxes.contains_key(*target));
        let policy = &self.settings.policy;
        foreign.filter_map(|target| policy.agent(target)).map(|card| card.id.clone()).collect()
    }

    /// Agents whose instances matter in this round: sessions open, end, or are cleared away.
    fn present(&self, jobs: &[Job], notes: usize, clears: &[(AgentId, InstanceId)]) -> BTreeSet<AgentId> {
        let opening = jobs.iter().filter_map(Job::as_open).map(|session| &session.identity.agent);
        let ending = self.notes.iter().take(notes).filter_map(Note::left);
        let cleared = clears.iter().map(|(agent, _)| agent);
        opening.chain(ending).chain(cleared).cloned().collect()
    }

    /// Targets whose half-open circuits may let one message of this round through.
    fn trials(&self, jobs: &[Job], now: Now) -> Vec<AgentId> {
        let Some(config) = self.settings.policy.breaker() else {
            return Vec::new();
        };
        let targets =
            jobs.iter().flat_map(Job::posts).filter_map(|post| self.inboxes.get(post.target.as_str()));
        let mut trials: Vec<AgentId> = targets
            .filter(|inbox| inbox.breaker.circuit(config, now.mono_ms) == Circuit::HalfOpen)
            .map(|inbox| inbox.agent.clone())
            .collect();
        trials.sort();
        trials.dedup();
        trials
    }

    /// Adds the commands by which one of several servers takes a thing on.
    fn take_on(&mut self, thing: &str) {
        let key = keys::once(thing);
        let own = self.shared.server.as_str();
        let _ = self.batch.command("SET");
        let _ = self.batch.arg(&key).arg(own).arg("NX").arg("PX").arg(ONCE_MS);
        let _ = self.batch.command("GET");
        let _ = self.batch.arg(&key);
    }

    /// Whether it was this one.
    fn taken_on(&self, found: &mut impl Iterator<Item = Value>) -> bool {
        drop(found.next());
        found.next().as_ref().and_then(answers::text) == Some(self.shared.server.as_str())
    }

    fn add_scan(&mut self, scan: &Scan) {
        let stream = match &scan.owner {
            Some(instance) => keys::instance_inbox(&scan.agent, instance),
            None => keys::inbox(&scan.agent),
        };
        let from = scan.after.map_or_else(|| "-".to_owned(), |entry| format!("({entry}"));
        let _ = self.batch.command("XPENDING");
        let _ = self.batch.arg(stream).arg(keys::GROUP).arg(from).arg("+").arg(SCAN_PAGE);
    }

    fn scanned(&mut self, scan: Scan, value: &Value, now: Now) {
        let Some(inbox) = self.inboxes.get_mut(&scan.agent) else {
            return;
        };
        if answers::error_code(value) == Some("NOGROUP") {
            inbox.forget(scan.owner.as_ref());
            let _ = self.regroup.insert(scan.agent);
            return;
        }
        let Some(lines) = answers::pending(value) else {
            log::error!("{}: XPENDING answered {value:?}", inbox.stream);
            return;
        };
        let directory = &self.shared.directory;
        for line in &lines {
            // What a session on another server holds is that server's.
            if inbox.holder_of(line).is_some_and(|holder| directory.is_elsewhere(&scan.agent, &holder)) {
                continue;
            }
            inbox.adopt(scan.owner.as_ref(), line, now.mono_ms, &self.settings.delivery);
        }
        self.ready.insert(scan.agent.clone());
        // The sweep goes on where a scan stops at the bound.
        if lines.len() == SCAN_PAGE && inbox.tracked() < super::inbox::MAX_TRACKED_ENTRIES {
            let after = lines.last().map(|line| line.id);
            self.scans.push_back(Scan { after, ..scan });
        }
    }

    fn take_letters(&mut self) -> Vec<(AgentId, String, DeadLetter)> {
        let mut letters = Vec::new();
        for agent in &self.dying {
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

    /// The next gone instances to clear, but for those that are back or about to be.
    fn take_clears(&mut self, jobs: &[Job]) -> Vec<(AgentId, InstanceId)> {
        let count = self.clears.len().min(MAX_CLEARS);
        let mut taken = Vec::with_capacity(count);
        for _ in 0..count {
            let Some((agent, instance)) = self.clears.pop_front() else {
                break;
            };
            let opening = jobs.iter().any(
                |job| matches!(job, Job::Open(s) if s.identity.agent == agent && s.instance == instance),
            );
            let connected = self.inboxes.get(&agent).is_some_and(|inbox| inbox.slot(&instance).is_some());
            if opening {
                self.clears.push_back((agent, instance));
            } else if !connected {
                taken.push((agent, instance));
            }
        }
        taken
    }

    fn found_remains(
        &mut self,
        gathered: &mut Gathered,
        agent: AgentId,
        instance: InstanceId,
        ours: bool,
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
        gathered.clears.push(Clear {
            agent: agent.clone(),
            instance: instance.clone(),
            unread: !unread.is_empty(),
            ours,
            consumer_free,
        });
        if !ours {
            return;
        }
        let stream = keys::instance_inbox(&agent, &instance);
        for StreamEntry { id, envelope, .. } in unread {
            let letter = DeadLetter {
                key: EntryKey { owner: Some(instance.clone()), entry: id },
                holder: instance.clone(),
                attempts: 0,
                reason: "instance_gone".to_owned(),
                history: Vec::new(),
            };
            gathered.letters.push(Letter { agent: agent.clone(), stream: stream.clone(), letter, envelope });
        }
    }

    // --- settle ----------------------------------------------------------------------------------

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
            // It is in the dead letters: out of the inbox with it, as if it had been acknowledged. A crash in
            // between leaves it in both, never in neither.
            if letter.reason == MAX_ATTEMPTS_REASON {
                self.handler_failed(&agent, &letter.reason, now);
            }
            if let Some(inbox) = self.inboxes.get_mut(&agent) {
                inbox.dead.retain(|other| other.key != letter.key);
                if inbox.dead.is_empty() {
                    let _ = self.dying.remove(&agent);
                }
                inbox.acked.push(letter.key);
                self.ready.insert(agent);
            }
        }
    }

    fn settle_clears(&mut self, clears: Vec<Clear>, now: Now) {
        let again_at_ms = now.mono_ms + self.grace_ms();
        for Clear { agent, instance, unread, ours, consumer_free } in clears {
            let Some(inbox) = self.inboxes.get_mut(&agent) else {
                continue;
            };
            if !ours {
                inbox.cleared(&instance);
            } else if unread {
                // Once its replies are out of its inbox.
                let _ = inbox.gone.insert(instance, now.mono_ms + STALL_MS);
            } else if consumer_free {
                inbox.cleared(&instance);
            } else {
                // Its share of the inbox waits for another instance; the consumer is needed until then.
                let _ = inbox.gone.insert(instance, again_at_ms);
            }
            self.schedule(&agent);
        }
    }

    /// Tells every caller what was decided and committed.
    fn answer(
        &mut self,
        jobs: Vec<Job>,
        decided: Vec<Decided>,
        mut values: Vec<Value>,
        assured: bool,
        now: Now,
    ) {
        for (job, Decided { outcome, effects, receipt, .. }) in jobs.into_iter().zip(decided) {
            let success = match outcome {
                Ok(success) => success,
                Err(refusal) => {
                    job.fail(Declined { refusal, receipt });
                    continue;
                }
            };
            if let Some(error) = failed(&values, &effects) {
                self.effect_failed(&job, success, error);
                job.fail(Refusal::STORAGE_UNAVAILABLE);
                continue;
            }
            let version = |at: Option<usize>, otherwise: u64| {
                at.and_then(|at| values.get(at)).and_then(answers::int).unwrap_or(otherwise)
            };
            match (job, success) {
                (Job::Message(MessageJob { answer, .. }), Success::Queued { accepted, target, .. }) => {
                    self.admitted(&target, now);
                    self.to_wake.extend(answer.done(Accepted { receipt, ..accepted }, assured));
                }
                (Job::Message(MessageJob { answer, .. }), Success::Repeated(accepted)) => {
                    self.to_wake.extend(answer.done(Accepted { receipt, ..accepted }, assured));
                }
                (
                    Job::Reply(ReplyJob { answer, .. }),
                    Success::Replied { accepted, target, instance, .. },
                ) => {
                    self.expect_return(&target, instance, now);
                    self.to_wake.extend(answer.done(Accepted { receipt, ..accepted }, assured));
                }
                (Job::Commit(job), Success::Committed { committed, version_at, parts }) => {
                    let version = version(version_at, committed.version);
                    self.committed(&job, parts, now);
                    self.to_wake.extend(job.answer.done(Committed { version, ..committed }, assured));
                }
                (Job::Discover { answer, .. }, Success::Discovered(found)) => answer.send(Ok(found)),
                (Job::StateGet { answer, .. }, Success::State) => {
                    let version = version(Some(effects.start + 1), 0);
                    let value = values.get_mut(effects.start).map(std::mem::take).unwrap_or_default();
                    let fields = answers::pairs(value).ok_or(Refusal::STORAGE_UNAVAILABLE.into());
                    answer.send(fields.map(|fields| (fields, version)));
                }
                (Job::StateUpdate { answer, .. }, Success::Changed { version: known, version_at }) => {
                    self.to_wake.extend(answer.done(version(version_at, known), assured));
                }
                (Job::StateReset { answer, .. }, Success::Done) => {
                    self.to_wake.extend(answer.done((), assured));
                }
                (Job::Open(session), Success::Opened) => self.opened(&session, now),
                (job, _) => job.fail(Refusal::STORAGE_UNAVAILABLE),
            }
        }
    }

    fn admitted(&mut self, target: &AgentId, now: Now) {
        if let (Some(config), Some(inbox)) = (self.settings.policy.breaker(), self.inboxes.get_mut(target)) {
            inbox.breaker.admitted(config, now.mono_ms);
        }
    }

    /// A commit happened: its delivery is done with, and its messages are on their way.
    fn committed(&mut self, job: &CommitJob, parts: Vec<Success>, now: Now) {
        let agent = &job.caller.identity.agent;
        if let (Some(delivery), Some(inbox)) = (job.delivery, self.inboxes.get_mut(agent)) {
            inbox.committed(&job.instance, delivery);
            self.handler_succeeded(agent, now);
            self.ready.insert(agent.clone());
        }
        for part in parts {
            match part {
                Success::Queued { target, .. } => {
                    self.admitted(&target, now);
                    self.tell_home(target);
                }
                Success::Replied { target, instance, .. } => {
                    self.expect_return(&target, instance, now);
                    self.tell_home(target);
                }
                _ => {}
            }
        }
    }

    /// The inbox of another worker holds something new.
    fn tell_home(&self, agent: AgentId) {
        if !self.inboxes.contains_key(&agent) {
            self.shared.tell(&agent.clone(), Control::News(agent));
        }
    }

    /// A reply waits for an instance that may never come back.
    fn expect_return(&mut self, agent: &AgentId, instance: InstanceId, now: Now) {
        let clear_at_ms = now.mono_ms + self.grace_ms();
        if let Some(inbox) = self.inboxes.get_mut(agent)
            && inbox.slot(&instance).is_none()
        {
            let _ = inbox.gone.entry(instance).or_insert(clear_at_ms);
            self.schedule(agent);
        }
    }

    /// The record says allowed, the store said no: that too goes on record, and a request whose reply was
    /// not stored can still be answered.
    fn effect_failed(&mut self, job: &Job, success: Success, error: String) {
        log::error!("worker {}: Redis refused an effect: {error}", self.index);
        let committed = matches!(job, Job::Commit(_));
        for part in parts(&success) {
            match part {
                Success::Queued { accepted, target, .. } => {
                    if let Some(inbox) = self.inboxes.get_mut(target) {
                        inbox.not_added();
                    }
                    if committed {
                        // Part of it may be there.
                        let _ = self.measure.insert(target.clone());
                    }
                    let (message_id, agent) = (Some(accepted.message_id), target.to_string());
                    self.notes.push(Note::EffectFailed { message_id, agent, error: error.clone() });
                }
                Success::Replied { accepted, target, correlation_id, pending, ttl_ms, .. } => {
                    self.notes.push(Note::Unanswered {
                        correlation_id: *correlation_id,
                        pending: pending.clone(),
                        ttl_ms: *ttl_ms,
                    });
                    let (message_id, agent) = (Some(accepted.message_id), target.to_string());
                    self.notes.push(Note::EffectFailed { message_id, agent, error: error.clone() });
                }
                _ => {
                    let (message_id, agent) = (None, String::new());
                    self.notes.push(Note::EffectFailed { message_id, agent, error: error.clone() });
                }
            }
        }
    }
}

/// Senders and keys of messages that may be repetitions.
fn keyed(jobs: &[Job]) -> Vec<(AgentId, String)> {
    let keys_of = |job: &Job| -> Vec<(AgentId, String)> {
        let Some(sender) = job.sender() else {
            return Vec::new();
        };
        job.posts().filter_map(|post| Some((sender.clone(), post.idempotency_key.clone()?))).collect()
    };
    jobs.iter().flat_map(keys_of).collect()
}

/// The first refused effect among these. A consumer group that exists already is what was wanted.
fn failed(values: &[Value], effects: &std::ops::Range<usize>) -> Option<String> {
    let code = |value| answers::error_code(value).filter(|code| *code != "BUSYGROUP").map(str::to_owned);
    values.get(effects.clone())?.iter().find_map(code)
}

fn parse_pending(value: &Value) -> Option<PendingRequest> {
    serde_json::from_str(answers::text(value)?).ok()
}
