//! What lies in files: configuration, certificates, keys, the anchor, and room on their disks.

use super::finding::{Code, Findings};
use crate::audit::checkpoint::Checkpoint;
use crate::audit::note;
use crate::cli::facts::certificates::{self, Certificate};
use crate::cli::facts::seals::{self, Signature};
use crate::cli::facts::server::Server;
use crate::cli::text::time_text;
use crate::clock::Now;
use crate::config::Config;
use crate::disks::Room;
use crate::key_files::{KeyFiles, StoreKeyFile};
use crate::store::Connection;
use crate::store::checkpoints::{self, Newest};

/// Days before its end that a certificate is named.
const CERTIFICATE_DAYS: i64 = 14;
/// Checkpoints that may be in Redis and not in the anchor yet while this is looked at.
const AHEAD: u64 = 10;
/// Bits of a mode by which others than the owner get at a key of the audit trail: a server refuses it then.
const NOT_OWNER: u32 = 0o077;
const SECONDS_PER_DAY: i64 = 86_400;

pub(super) fn configuration(findings: &mut Findings, config: &Config) {
    for warning in &config.warnings {
        findings.add(
            Code::ConfigurationNotice,
            warning.clone(),
            format!("look at that key in {}", config.path.display()),
        );
    }
    if let Err(error) = crate::material::check(config) {
        findings.add(
            Code::TlsUnusable,
            error.to_string(),
            "`mas certs issue` makes certificates anew; `mas-server --check-config` tries them",
        );
    }
}

pub(super) fn certificates(findings: &mut Findings, config: &Config, server: &Server) {
    let now_s = (Now::read().unix_us / 1_000_000) as i64;
    let known = certificates::look(config);
    for certificate in &known {
        one_certificate(findings, certificate, now_s);
    }
    for (name, loaded_s) in server.told().map(|told| told.certificates()).unwrap_or_default() {
        let file = known.iter().find(|certificate| certificate.whose == name);
        let Some(file_s) = file.and_then(|file| crate::certs::ends(&file.path)) else { continue };
        if file_s != loaded_s {
            let time = |end_s: i64| time_text(end_s.max(0).unsigned_abs().saturating_mul(1_000_000));
            findings.add(
                Code::CertificateStale,
                format!("{name}: in force until {}; that of the file until {}", time(loaded_s), time(file_s)),
                "send SIGHUP to the server: `kill -HUP PID`",
            );
        }
    }
}

fn one_certificate(findings: &mut Findings, certificate: &Certificate, now_s: i64) {
    let whose = &certificate.whose;
    let renew = match whose.split_once(' ') {
        Some(("agent", id)) => format!("`mas certs issue {id}` makes a new one; give it to the agent"),
        Some(("operator", name)) => format!("`mas certs issue --operator {name}` makes a new one"),
        _ if whose == "ca" => {
            "make a new authority with `mas certs init` in another folder, issue all certificates anew, and change \
             the paths in the configuration"
                .to_owned()
        }
        _ => "`mas certs issue --help` says how to make a new one; then send SIGHUP to the server".to_owned(),
    };
    match (&certificate.said, crate::certs::ends(&certificate.path)) {
        (Ok(said), Some(end_s)) => {
            let evidence = format!("{whose} ({}): ends {}", certificate.path.display(), said.not_after);
            if end_s <= now_s {
                findings.add(Code::CertificateExpired, evidence, renew);
            } else if (end_s - now_s) / SECONDS_PER_DAY < CERTIFICATE_DAYS {
                let days = (end_s - now_s) / SECONDS_PER_DAY;
                findings.add(Code::CertificateEnds, format!("{evidence}, in {days} days"), renew);
            }
        }
        (Err(why), _) => findings.add(Code::CertificateUnusable, format!("{whose}: {why}"), renew),
        // Replaced between two looks.
        (Ok(_), None) => {}
    }
    if let (Some(key), Some(problem)) = (&certificate.key, &certificate.key_problem) {
        findings.add(
            Code::KeyExposed,
            format!("{} {problem}", key.display()),
            format!("chmod 600 {}", key.display()),
        );
    }
}

pub(super) fn keys(findings: &mut Findings, config: &Config) {
    let audit = &config.audit;
    let signing = KeyFiles::new(&audit.signing_key_path);
    let has_history = signing.history_path().exists();
    match StoreKeyFile::new(&audit.store_key_path).load(Now::read().unix_us / 1000) {
        Ok(Some(_)) => {}
        // Before the first start there is neither.
        Ok(None) if !has_history => {}
        Ok(None) => findings.add(
            Code::StoreKeyUnusable,
            format!("{}: there is no such file", audit.store_key_path.display()),
            "copy it from a host that has it, or from a backup: what Redis holds cannot be used without it",
        ),
        Err(error) => findings.add(
            Code::StoreKeyUnusable,
            error.to_string(),
            format!("run this as the server's user; chmod 600 {}", audit.store_key_path.display()),
        ),
    }
    let private = signing.private_path();
    let problem = match signing.read_history() {
        Err(error) => Some(error.to_string()),
        Ok(None) => None,
        Ok(Some(_)) => certificates::exposed(private, NOT_OWNER)
            .map(|problem| format!("{} {problem}", private.display())),
    };
    if let Some(problem) = problem {
        findings.add(
            Code::SigningKeyUnusable,
            problem,
            format!("chmod 600 {}, or bring it back from a backup", private.display()),
        );
    }
}

pub(super) fn anchor(findings: &mut Findings, config: &Config, redis: Option<&mut Connection>) {
    let Some(path) = &config.audit.anchor_path else {
        return findings.add(
            Code::NoAnchor,
            "gateway.audit.anchor_path is null",
            "set it: without an anchor a trail that was cut short cannot be told from a shorter one",
        );
    };
    let keys = seals::keys(config);
    // Before the first start there is none.
    if keys.is_none() && !path.exists() {
        return;
    }
    let seal = match seals::in_anchor(path, keys.as_ref()) {
        Ok(Some(seal)) => seal,
        Ok(None) => {
            let evidence = format!("{}: no checkpoint in it", path.display());
            return findings.add(Code::AnchorUnusable, evidence, "bring it back from a backup");
        }
        Err(why) => {
            let remedy =
                "see to it that the server's user can read and write it; `mas audit verify` says more";
            return findings.add(Code::AnchorUnusable, why, remedy);
        }
    };
    if let Signature::Bad(why) = &seal.signature {
        findings.add(
            Code::SignatureWrong,
            format!("{}: {why}", path.display()),
            "`mas audit verify` says from where on; keep the file",
        );
    }
    let Some(connection) = redis else { return };
    let boot = seal.checkpoint.boot;
    let parsed = |note: &str| note::text_of(note).ok().and_then(|text| Checkpoint::parse(text).ok());
    let newest = checkpoints::newest_where(connection, |note| {
        parsed(note).is_some_and(|checkpoint| checkpoint.boot == boot)
    });
    if let Ok(Newest::Found(note)) = newest
        && let Some(there) = parsed(&note)
        && there.counter > seal.checkpoint.counter + AHEAD
    {
        findings.add(
            Code::AnchorBehind,
            format!(
                "server run {}: checkpoint {} is the newest in {}, and {} in Redis",
                boot.simple(),
                seal.checkpoint.counter,
                path.display(),
                there.counter
            ),
            "somebody has put an older file there, or cut it: bring the newer one back; `mas audit verify` compares them",
        );
    }
}

/// Room where the trail is written.
pub(super) fn disks(findings: &mut Findings, config: &Config) {
    let audit = &config.audit;
    if let Some(dir) = audit.archive() {
        // A server makes one that is not there.
        if dir.exists()
            && let Err(error) = std::fs::read_dir(dir)
        {
            findings.add(
                Code::ArchiveUnusable,
                format!("gateway.audit.archive_dir ({}): {error}", dir.display()),
                "see to it that it is a folder that the server's user can read and write",
            );
        }
    }
    for (key, folder) in audit.places() {
        let Some(room) = Room::at(&folder) else { continue };
        let Room { percent, bytes } = room;
        let evidence = format!("{key} ({}): {percent} % free, {bytes} bytes", folder.display());
        let remedy = "make room: move the oldest closed segments and older files of the anchor elsewhere (docs/history.md)";
        if room.is_full() {
            findings.add(Code::DiskFull, evidence, remedy);
        } else if room.is_low() {
            findings.add(Code::DiskLow, evidence, remedy);
        }
    }
}
