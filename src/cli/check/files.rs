//! Checks of what lies in files: certificates, the anchor.

use std::path::Path;

use super::args::CheckArgs;
use super::outcome::{Bounds, Outcome, Status, Unit, settled};
use crate::checkpoint::IDLE_INTERVALS;
use crate::cli::facts::certificates as facts;
use crate::cli::facts::seals::{self, Signature};
use crate::cli::facts::server::Server;
use crate::cli::text::time_text;
use crate::clock::Now;
use crate::config::Config;

const CERTIFICATES: &str = "certs";
const ANCHOR: &str = "anchor";
/// Days that a certificate has left.
const CERTIFICATE_DAYS: (f64, f64) = (14.0, 3.0);
const SECONDS_PER_DAY: f64 = 86_400.0;
/// Ages of the newest checkpoint beyond the intervals that a server which has nothing to seal leaves out.
const WARN_INTERVALS: u64 = IDLE_INTERVALS + 10;
const CRITICAL_INTERVALS: u64 = 3 * IDLE_INTERVALS + 20;

/// Ages of the newest checkpoint that are a warning, and critical, in seconds.
pub(super) fn checkpoint_ages(interval_ms: u64) -> (f64, f64) {
    let seconds = |intervals: u64| intervals.saturating_mul(interval_ms) as f64 / 1000.0;
    (seconds(WARN_INTERVALS), seconds(CRITICAL_INTERVALS))
}

pub(super) fn certificates(args: &CheckArgs) -> Outcome {
    settled(CERTIFICATES, look_at_certificates(args))
}

fn look_at_certificates(args: &CheckArgs) -> Result<Outcome, String> {
    let bounds = args.bounds(Unit::Days, true, CERTIFICATE_DAYS)?;
    let server = Server::look(&args.admin);
    let certificates = match (args.admin.configuration(), server.told()) {
        (Ok(config), _) => facts::look(&config),
        // Without the files the server's word is left.
        (Err(_), Some(_)) => Vec::new(),
        (Err(trouble), None) => return Err(trouble.to_string()),
    };
    let mut outcome = Outcome::new(CERTIFICATES);
    let now_s = Now::read().unix_us as f64 / 1e6;
    let mut found: Vec<(f64, String, String)> = Vec::new();
    for certificate in &certificates {
        match (&certificate.said, certs_end(&certificate.path)) {
            (Ok(said), Some(end_s)) => {
                let what =
                    format!("{} ({}) ends {}", certificate.whose, certificate.path.display(), said.not_after);
                found.push(((end_s - now_s) / SECONDS_PER_DAY, certificate.whose.clone(), what));
            }
            (Err(why), _) => outcome.found(Status::Critical, &format!("{}: {why}", certificate.whose)),
            (Ok(_), None) => {
                outcome
                    .found(Status::Unknown, &format!("{} has changed meanwhile", certificate.path.display()));
            }
        }
        if let (Some(key), Some(problem)) = (&certificate.key, &certificate.key_problem) {
            outcome.found(Status::Warning, &format!("{} {problem}", key.display()));
        }
    }
    for (name, end_s) in server.told().map(|told| told.certificates()).unwrap_or_default() {
        let end = time_text(end_s.max(0).unsigned_abs().saturating_mul(1_000_000));
        let what = format!("{name}, as the running server has loaded it, ends {end}");
        found.push(((end_s as f64 - now_s) / SECONDS_PER_DAY, format!("{name} in force"), what));
    }
    // Who ends first is said first.
    found.sort_by(|(a, ..), (b, ..)| a.total_cmp(b));
    for (days, name, what) in &found {
        let status = outcome.value(name, *days, Unit::Days, Some(bounds));
        let is_over = if *days < 0.0 { ": it is over" } else { "" };
        outcome.found(status, &format!("{what}, in {} days{is_over}", days.floor()));
    }
    Ok(outcome)
}

fn certs_end(path: &Path) -> Option<f64> {
    crate::certs::ends(path).map(|end_s| end_s as f64)
}

pub(super) fn anchor(args: &CheckArgs) -> Outcome {
    settled(ANCHOR, look_at_anchor(args))
}

fn look_at_anchor(args: &CheckArgs) -> Result<Outcome, String> {
    let config = args.admin.configuration().map_err(|trouble| trouble.to_string())?;
    let bounds = args.bounds(Unit::Seconds, false, checkpoint_ages(config.audit.checkpoint_interval_ms))?;
    let mut outcome = Outcome::new(ANCHOR);
    let Some(path) = &config.audit.anchor_path else {
        outcome.found(
            Status::Warning,
            "gateway.audit.anchor_path is null: a trail that was cut short cannot be told from a shorter one",
        );
        return Ok(outcome);
    };
    outcome_of_anchor(&mut outcome, &config, path, bounds);
    Ok(outcome)
}

fn outcome_of_anchor(outcome: &mut Outcome, config: &Config, path: &Path, bounds: Bounds) {
    let seal = match seals::in_anchor(path, seals::keys(config).as_ref()) {
        Err(why) => return outcome.found(Status::Critical, &why),
        Ok(None) => {
            return outcome.found(Status::Critical, &format!("{}: no checkpoint in it", path.display()));
        }
        Ok(Some(seal)) => seal,
    };
    let age_s = Now::read().unix_us as f64 / 1e6 - seal.checkpoint.time_ms as f64 / 1000.0;
    let status = outcome.value("checkpoint age", age_s, Unit::Seconds, Some(bounds));
    let (counter, time) = (seal.checkpoint.counter, time_text(seal.checkpoint.time_ms.saturating_mul(1000)));
    outcome.found(
        status,
        &format!(
            "{}: newest checkpoint of {time} (number {counter}), {age_s:.0} seconds ago",
            path.display()
        ),
    );
    signature(outcome, &seal.signature);
}

/// What the signature of the newest checkpoint is worth.
pub(super) fn signature(outcome: &mut Outcome, signature: &Signature) {
    match signature {
        Signature::Good => {}
        Signature::Unknown => {
            outcome.found(Status::Ok, "the signature was not checked: this log's public key is not at hand");
        }
        Signature::Bad(why) => {
            outcome.found(Status::Critical, &format!("the newest checkpoint's signature is wrong: {why}"));
        }
    }
}
