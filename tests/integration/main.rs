//! Real redis-server, real mas-server, real certificates, killed for real. Each test has a world of its
//! own in a temporary folder; everything is ended and removed when the world is dropped.

mod support;

mod agents;
mod audit;
mod commands;
mod identity;
mod messages;
mod redelivery;
mod redis_faults;
mod requests;
mod server_faults;
mod sessions;
mod state;
mod volume;
