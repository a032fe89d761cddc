//! What the two programs have in common: commands, exit codes, logging.

pub mod certs;
pub mod exit;
pub mod logging;
