//! What completion-queue threads and workers share: jobs and their outcomes, sessions, mailboxes, the directory, the
//! settings in force. Knows no worker and no inbox.
//!
//! * [`job`], [`outcome`], [`answer`]: work, its result, and the way back to the caller.
//! * [`mailbox`], [`turns`], [`control`]: the way to a worker, and who comes next.
//! * [`session`], [`outbox`], [`delivery`]: one agent process' stream.
//! * [`directory`], [`peers`]: the connected instances, on this server and on others; the other servers.
//! * [`listing`]: what Discover is answered from.
//! * [`spans`]: what is traced of messages.
//! * [`stored`]: the bytes of the inboxes.
//! * [`troubles`]: what does not work now.
//! * [`key_ring`]: the store keys in force.
//! * [`meters`]: what workers measure of themselves.
//! * [`settings`], [`shared`]: the configuration in force, and everything else that all threads see.

pub mod answer;
pub mod control;
pub mod delivery;
pub mod directory;
pub mod job;
pub mod key_ring;
pub mod listing;
pub mod mailbox;
pub mod meters;
pub mod outbox;
pub mod outcome;
pub mod peers;
pub mod session;
pub mod session_key;
pub mod settings;
pub mod shared;
pub mod spans;
pub mod stored;
pub mod troubles;
pub mod turns;

/// The sending side of a worker's mailbox.
pub type WorkerMailbox = mailbox::Mailbox<job::Job, control::Control>;
