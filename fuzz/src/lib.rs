//! The modules that read what strangers send, and the gate with what it needs, without the rest of the server: its gRPC
//! core would have to be built again for a fuzz target, and no target needs it.

#![allow(dead_code, unused_imports, unreachable_pub)] // The server uses what the targets do not.

#[path = "../../src/content.rs"]
pub mod content;
#[path = "../../src/dlp/mod.rs"]
pub mod dlp;
#[path = "../../src/json.rs"]
pub mod json;

/// Where connections come in.
#[path = "../../src/gate/mod.rs"]
pub mod gate;

// What the gate needs: who shows which certificate, and what is on record of it.
#[path = "../../src/clock.rs"]
pub mod clock;
#[path = "../../src/identity.rs"]
pub mod identity;
#[path = "../../src/ids.rs"]
pub mod ids;
#[path = "../../src/refusal.rs"]
pub mod refusal;
// For identities' deny-lists; it makes the certificates of a target too.
#[path = "../../src/certs/mod.rs"]
pub mod certs;
// For its bounds and the files of its TLS.
#[path = "../../src/config/mod.rs"]
pub mod config;
// For the files that these name.
#[path = "../../src/files.rs"]
pub mod files;

/// Of the trail, the forms of what the gate reports.
#[path = "../../src/audit"]
pub mod audit {
    pub mod operator;
    pub mod record;

    pub use operator::OperatorEvent;
    pub use record::Action;
}

/// What administrators' clients send.
#[path = "../../src/admin"]
pub mod admin {
    pub mod http {
        pub mod host;
        pub mod intake;
        pub mod limits;
        pub mod refused;
        pub mod request;
        mod scan;
        pub mod socket;
        mod target;
    }
}
/// Of the policy, the section that the configuration has of it.
#[path = "../../src/policy"]
pub mod policy {
    mod rate_limit;

    pub use rate_limit::RateLimit;
}

pub mod play;
