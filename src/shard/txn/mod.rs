//! What happens to each job: the checks in their order, the audit record, and the commands that carry the decision
//! out, all added to one transaction. Hot path: runs once per message, inline in a worker.
//!
//! Nothing in memory changes here. A decision becomes true when the transaction commits, and may be made again when it
//! does not; counts against a sender's rate are taken back when a decision is dropped.
//!
//! * [`facts`]: what decisions depend on. * [`transaction`]: one transaction in the making, and a decision.
//! * `judge`: the pipeline's verdict on a message. * `message`, `reply`, `commit`, `state`, `session`: what jobs do.
//! * [`written`]: the messages that a round adds. * [`event`]: things that happened without a job. * `remains`: dead letters and gone instances.

mod commit;
mod decide;
pub(crate) mod event;
pub(crate) mod facts;
mod judge;
mod message;
mod parties;
mod remains;
mod reply;
mod session;
mod state;
mod tracing;
pub(crate) mod transaction;
pub(crate) mod written;
