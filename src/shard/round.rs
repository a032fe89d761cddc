//! One round trip: gather what decisions depend on, decide, commit decisions with their effects and
//! records in one transaction, and answer. What follows in the same pipeline is in [`flow`](super::flow).
//! Hot path.

use super::decide::{Decided, Transaction};
use super::gather::{Clear, Gathered, Letter};
use super::job::Job;
use super::worker::{STALL_MS, Worker};
use crate::clock::Now;
use crate::ids::AgentId;
use crate::policy::Counted;
use crate::refusal::Refusal;
use crate::store::answers::{self};
use crate::store::{StoreError, Value, servers, trail};

/// Attempts when a watched fact changed between reading and committing.
const MAX_CONFLICTS: usize = 16;

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
                // It may have happened.
                keep_counted(&mut decided);
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
                    self.put_back(clears);
                    self.apply_tail(tail, answers, now);
                    return Ok(attempt);
                }
            }
            keep_counted(&mut decided);
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
                card.sent().learn(total, now);
            }
        }
    }

    fn put_back(&mut self, clears: Vec<Clear>) {
        self.clears.extend(clears.into_iter().map(|clear| (clear.agent, clear.instance)));
    }
}

/// What was decided counts against its senders; dropped, it would not.
fn keep_counted(decided: &mut [Decided]) {
    decided.iter_mut().flat_map(|decided| decided.counted.drain(..)).for_each(Counted::keep);
}
