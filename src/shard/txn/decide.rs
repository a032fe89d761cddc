//! One job, decided: the dispatcher.

use super::transaction::{Decided, Transaction};
use crate::audit::Action;
use crate::shard::desk::job::{Caller, Job};

impl Transaction<'_> {
    /// Decides one job and records the decision.
    // A frame of its own, which profiles and `bench/server/instructions` find.
    #[inline(never)]
    pub(crate) fn decide(&mut self, job: &Job) -> Decided {
        let first = self.multi.len();
        let standing = caller(job).map_or(Ok(()), |(_, caller)| self.check_identity(&caller.identity));
        let ruling = match (standing, job) {
            (Ok(()), Job::Message(job)) => self.message(job),
            (Ok(()), Job::Reply(job)) => self.reply(job),
            (Ok(()), Job::Commit(job)) => self.commit(job),
            (Ok(()), Job::Discover { caller, capabilities, .. }) => self.discover(caller, capabilities),
            (Ok(()), Job::StateGet { caller, .. }) => self.state_get(caller),
            (Ok(()), Job::StateUpdate { caller, change, .. }) => self.state_update(caller, change),
            (Ok(()), Job::StateReset { caller, .. }) => self.state_reset(caller),
            (Ok(()), Job::Open(session)) => self.open(session),
            (_, Job::Refused(job)) => self.refused(job),
            (Err(refusal), job) => match caller(job) {
                Some((action, caller)) => self.turn_away(action, caller, refusal),
                None => Err(refusal),
            },
        };
        Decided {
            ruling,
            counted: std::mem::take(&mut self.counted),
            receipt: self.receipt.take(),
            told: self.told.take(),
            effects: first..self.multi.len(),
        }
    }
}

/// Whose certificate must be good for this job, and what it asks for. A session that opens is looked at by itself.
fn caller(job: &Job) -> Option<(Action, &Caller)> {
    match job {
        Job::Message(job) if job.post.request_ttl_s.is_some() => Some((Action::Request, &job.caller)),
        Job::Message(job) => Some((Action::Send, &job.caller)),
        Job::Reply(job) => Some((Action::Reply, &job.caller)),
        Job::Commit(job) => Some((Action::Commit, &job.caller)),
        Job::Discover { caller, .. } => Some((Action::Discover, caller)),
        Job::StateGet { caller, .. } => Some((Action::StateGet, caller)),
        Job::StateUpdate { caller, .. } => Some((Action::StateUpdate, caller)),
        Job::StateReset { caller, .. } => Some((Action::StateReset, caller)),
        Job::Open(_) | Job::Refused(_) => None,
    }
}
