//! The log: events with codes that do not change, in text and as JSON.

mod events;
mod knocks;
mod table;
