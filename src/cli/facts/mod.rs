//! What commands find out about an installation: from its configuration, its files, its Redis and its running server.
//! `mas check` holds it against thresholds, `mas doctor` says what is wrong with it, `mas bundle` packs it.

pub(super) mod certificates;
pub(super) mod redis;
pub(super) mod samples;
pub(super) mod seals;
pub(super) mod server;
