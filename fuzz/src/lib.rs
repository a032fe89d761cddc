//! The modules that read what strangers send, without the rest of the server: its gRPC core would have to
//! be built again for a fuzz target, and no target needs it.

#![allow(dead_code, unused_imports, unreachable_pub)] // The server uses what the targets do not.

#[path = "../../src/dlp/mod.rs"]
pub mod dlp;
#[path = "../../src/json.rs"]
pub mod json;

/// The frames that clients send.
#[path = "../../src/gate"]
pub mod gate {
    pub mod calls;
    mod fields;
    pub mod frames;
}
