//! What a verification has found is noted in Redis, with a tag: all servers show it, on whichever host it ran, and nobody who
//! has no store key can put another result there.

use nix::unistd::Uid;
use serde_json::json;

use super::source::{SourceArgs, config};
use super::trouble::Trouble;
use crate::audit::verify::Report;
use crate::cli::operator;
use crate::clock::Now;
use crate::key_files::host_name;
use crate::operation::user_name;
use crate::store::{Endpoint, reports};

/// Notes it, where it was the live Redis that was verified, with what the configuration says.
pub(super) fn note(args: &SourceArgs, report: &Report) -> Result<(), Trouble> {
    if !args.export.is_empty() || !args.archive.is_empty() || args.no_store_key {
        return Ok(());
    }
    let config = config(args)?;
    // Who may not read the keys may verify all the same; it is not noted.
    let Ok(keys) = operator::store_keys(&config) else { return Ok(()) };
    let result = match (report.is_intact(), report.not_shown.is_empty()) {
        (false, _) => "damaged",
        (true, false) => "verified_in_part",
        (true, true) => "verified",
    };
    let text = json!({
        "result": result, "time_unix_ms": Now::read().unix_us / 1000,
        "by": format!("{}@{}", user_name(Uid::current()), host_name()), "records": report.records,
        "problems": report.damages.len() as u64 + report.further_damages,
        "newest_checkpoint_unix_ms": report.newest_checkpoint_ms, "version": env!("CARGO_PKG_VERSION"),
    });
    let noted = Endpoint::new(&config.redis)
        .open()
        .and_then(|mut connection| reports::note_verified(&mut connection, &keys, &text.to_string()));
    if let Err(error) = noted {
        eprintln!("mas audit: the result was not noted for the servers to show: {error}");
    }
    Ok(())
}
