//! Messages to a collector: generated from `proto/otlp/otlp.proto`.

// Generated code: its style is not ours to lint.
#[allow(
    clippy::all,
    clippy::panic,
    clippy::semicolon_if_nothing_returned,
    clippy::unwrap_used,
    missing_docs,
    rustdoc::all,
    unreachable_pub,
    unused_qualifications
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/otlp/mod.rs"));
}

pub(crate) use generated::otlp::*;
