//! One round trip, as a value that goes through states; each step takes the one before:
//!
//! [`Plan`](plan::Plan) → [`Gathered`](gather::Gathered) → [`Drafted`](draft::Drafted) → [`RoundOutcome`] → settled.
//!
//! Planning takes things off the agenda; gathering reads what decisions depend on; drafting decides and writes the
//! commands, and changes nothing in memory; committing sends them. Settling alone changes memory. A round that does
//! not happen gives back what it took. Hot path.

mod answer;
mod ask;
mod deliver;
mod draft;
mod gather;
mod plan;
mod settle;
mod tail;

use super::Worker;
use crate::clock::Now;
use crate::refusal::Refusal;
use crate::shard::desk::job::Job;
use crate::store::StoreError;
use crate::store::pipeline::{Answers, Effects, Executed};
use draft::Drafted;
use plan::Plan;

/// Attempts at one job whose watched facts change between reading and committing.
const MAX_CONFLICTS: usize = 16;

/// What became of a round.
enum RoundOutcome {
    /// It was carried out. `effects`: of its transaction, if it had one.
    Committed { drafted: Box<Drafted>, effects: Effects, assured: bool },
    /// A watched key had changed: nothing was carried out.
    Conflict(Plan),
    /// Redis refused the transaction as a whole.
    Refused(Plan),
    /// Nothing was sent that could have been carried out.
    Before(Plan, StoreError),
    /// The connection broke while it was under way.
    Unknown(Box<Drafted>, StoreError),
}

impl Worker {
    /// Decides and commits `jobs`, moves what can move, answers everybody.
    pub(super) fn round(&mut self, jobs: Vec<Job>, now: Now) {
        if now.mono_ms < self.link.stalled_until_ms() {
            // Redis refused the last transaction: what may still pass must not share the others' fate.
            let (essential, others): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(Job::is_essential);
            if !others.is_empty() {
                self.rounds(others, now, false);
            }
            self.rounds(essential, now, true);
        } else {
            self.rounds(jobs, now, true);
        }
        // Each writer once, however much there is for it.
        self.sessions.wake();
    }

    /// Commits the jobs in their order. Where a watched key has changed they are split, down to the one whose key it
    /// is, so that the others are decided again once or twice and never refused for its sake.
    fn rounds(&mut self, jobs: Vec<Job>, now: Now, moves: bool) {
        let mut left = vec![jobs];
        let mut conflicts = 0;
        while let Some(jobs) = left.pop() {
            if !self.link.is_up() {
                jobs.into_iter().for_each(|job| self.shared.turn_away(job, Refusal::STORAGE_UNAVAILABLE));
                continue;
            }
            let Some(mut again) = self.attempt(jobs, now, moves) else {
                conflicts = 0;
                continue;
            };
            match again.len() {
                0 => {}
                1 if conflicts < MAX_CONFLICTS => {
                    conflicts += 1;
                    left.push(again);
                }
                1 => {
                    log::warn!(
                        code = "watched_key_kept_changing", worker = self.index;
                        "worker {}: a watched key kept changing; its job is refused", self.index
                    );
                    again
                        .into_iter()
                        .for_each(|job| self.shared.turn_away(job, Refusal::STORAGE_UNAVAILABLE));
                    conflicts = 0;
                }
                count => {
                    left.push(again.split_off(count / 2));
                    left.push(again);
                }
            }
        }
    }

    /// One round trip. The jobs, where a watched key had changed.
    fn attempt(&mut self, jobs: Vec<Job>, now: Now, moves: bool) -> Option<Vec<Job>> {
        self.keys = self.shared.key_ring.keys();
        let plan = self.plan(jobs, now, moves);
        let outcome = match self.gather(plan) {
            Ok(gathered) => {
                let began = Now::mono_us();
                match self.draft(gathered, now) {
                    Some(drafted) => self.measured_commit(drafted, began),
                    None => return None,
                }
            }
            Err(failed) => {
                let (plan, error) = *failed;
                RoundOutcome::Before(plan, error)
            }
        };
        self.settle(outcome, now)
    }

    /// Sends what was drafted, and measures that.
    fn measured_commit(&mut self, drafted: Drafted, began_us: u64) -> RoundOutcome {
        let (jobs, drafted_us) = (drafted.plan.jobs.len() as u64, Now::mono_us());
        let outcome = self.commit(drafted);
        let meter = &self.link.meter;
        if jobs > 0 {
            meter.batch.add(jobs);
            meter.decide_us.add(drafted_us.saturating_sub(began_us));
        }
        meter.commit_us.add(Now::mono_us().saturating_sub(drafted_us));
        outcome
    }

    /// Sends what was drafted.
    fn commit(&mut self, mut drafted: Drafted) -> RoundOutcome {
        if let Err(error) = self.link.check_lead() {
            return RoundOutcome::Before(drafted.plan, error);
        }
        let waits = drafted.exec.is_some() || self.link.is_unassured();
        let (mut answers, assured) = match self.link.finish(waits) {
            Ok(answers) => answers,
            Err(error) => return RoundOutcome::Unknown(Box::new(drafted), error),
        };
        let Some(exec) = drafted.exec.take() else {
            let (drafted, effects) = (Box::new(drafted), Effects::default());
            return RoundOutcome::Committed { drafted, effects, assured };
        };
        let executed = answers.executed(exec);
        if !drafted.plan.essential {
            self.link.note_executed(&executed, &answers);
        }
        match executed {
            Executed::Done(effects) => self.check_block(drafted, effects, assured),
            Executed::Conflict => RoundOutcome::Conflict(drafted.plan),
            Executed::Refused => RoundOutcome::Refused(drafted.plan),
        }
    }

    /// The lane's block must be there: else the lane's key is not this worker's any more, and nothing is sure.
    fn check_block(&mut self, drafted: Drafted, effects: Effects, assured: bool) -> RoundOutcome {
        let refused = drafted.block.clone().and_then(|block| effects.refused(&block).map(str::to_owned));
        match refused {
            Some(answer) => {
                let command = "appending to the audit lane";
                RoundOutcome::Unknown(Box::new(drafted), StoreError::Unexpected { command, answer })
            }
            None => RoundOutcome::Committed { drafted: Box::new(drafted), effects, assured },
        }
    }

    /// Sends a batch that changes nothing.
    fn read_batch(&mut self) -> Result<Answers, StoreError> {
        self.link.run()
    }
}
