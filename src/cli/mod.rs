//! What the two programs have in common: commands, exit codes, logging.

pub mod admin;
pub mod agents;
pub mod audit;
pub mod certs;
pub mod check;
pub mod demo;
pub mod dlp;
pub mod dlq;
pub mod doctor;
pub mod exit;
mod facts;
pub mod foreign;
pub mod inbox;
pub mod logging;
pub mod migrate;
pub mod operator;
pub mod policy;
pub mod policy_replay;
pub mod run;
mod scaffold;
pub mod state;
pub mod status;
pub mod tap;
pub mod text;
