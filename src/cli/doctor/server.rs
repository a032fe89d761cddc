//! The running server.

use serde_json::Value as Json;

use super::finding::{Code, Findings};
use crate::checkpoint::IDLE_INTERVALS;
use crate::cli::facts::samples::Samples;
use crate::cli::facts::server::{Server, Told};
use crate::cli::text::time_text;
use crate::config::Config;
use crate::ids::hex;

/// Intervals after which a checkpoint is due whatever happens, and what it may be late.
const CHECKPOINT_INTERVALS: u64 = IDLE_INTERVALS + 10;
/// So long after one server took up a quarantine the others have it, too, in milliseconds.
const QUARANTINE_MS: u64 = 4_000;
/// Share of descriptors in use that is worth a word, in percent.
const DESCRIPTORS_PERCENT: f64 = 80.0;

/// `alive`: whether Redis says that some server runs; `None`: it cannot be asked.
pub(super) fn look(findings: &mut Findings, config: Option<&Config>, server: &Server, alive: Option<bool>) {
    match (server, alive) {
        (Server::Told(told), _) => of_told(findings, config, told),
        (Server::NotAsked(why), Some(true) | None) => findings.add(
            Code::ServerNotAsked,
            why.clone(),
            "name its admin listener with --admin HOST:PORT: its ready line says where it is",
        ),
        (Server::Silent(why), Some(true)) => findings.add(
            Code::AdminUnreachable,
            why.clone(),
            "is it on another host, or at another address? --admin HOST:PORT names it; --cert and --key show who asks",
        ),
        (Server::Silent(why) | Server::NotAsked(why), Some(false) | None) => findings.add(
            Code::ServerDown,
            match alive {
                Some(_) => format!("{why}; and Redis knows of none that lives"),
                None => why.clone(),
            },
            "start it: `systemctl start mas-server`, `mas-server --config FILE` or `mas run`",
        ),
    }
}

fn of_told(findings: &mut Findings, config: Option<&Config>, told: &Told) {
    for (name, problem) in told.problems() {
        findings.add(
            Code::ServerNotReady,
            format!("{name}: {problem}"),
            "docs/metrics.md says what each check means; `mas status` shows when it is over",
        );
    }
    for (code, why) in told.troubles() {
        let evidence = format!("{code}: {why}");
        if code == "trail_rolled_back" {
            findings.add(
                Code::TrailRolledBack,
                evidence,
                "`mas audit verify` says where; `mas audit acknowledge` puts it on record once it is understood",
            );
        } else {
            let remedy = "docs/metrics.md says what to do (Codes of `mas_trouble`)";
            findings.add(Code::ServerTrouble, evidence, remedy);
        }
    }
    if let Some(config) = config {
        configuration(findings, config, told);
        checkpoint(findings, config, told);
    }
    descriptors(findings, told);
    quarantine(findings, told);
    agents_certificates(findings, told);
}

/// Who is shut out, and which servers of the fleet do not know.
fn quarantine(findings: &mut Findings, told: &Told) {
    for (whom, by) in told.quarantine() {
        let name = match whom.split_once(':') {
            Some(("agent", agent)) => agent.to_owned(),
            Some((_, capability)) => format!("--capability {capability}"),
            None => "--all".to_owned(),
        };
        findings.add(
            Code::Quarantined,
            format!("{whom}: by {by}"),
            format!("when it may come back: `mas release {name} --reason …`"),
        );
    }
    let Ok(fleet) = told.asker.json("/api/v1/fleet") else { return };
    let servers = fleet.get("servers").and_then(Json::as_array).into_iter().flatten();
    let known: Vec<(&str, u64, bool)> = servers
        .filter_map(|server| {
            let status = server.get("status")?;
            let number = |name: &str| status.get(name).and_then(Json::as_u64);
            // All look twice a second, and tell once a second.
            let since_ms =
                number("time_unix_ms")?.saturating_sub(number("quarantine_taken_unix_ms").unwrap_or(0));
            Some((server.get("server")?.as_str()?, number("quarantine_version")?, since_ms > QUARANTINE_MS))
        })
        .collect();
    let in_force = known.iter().filter(|(.., settled)| *settled).map(|(_, version, _)| *version).max();
    let newest = in_force.unwrap_or(0);
    for (server, version, _) in known.into_iter().filter(|(_, version, _)| *version < newest) {
        findings.add(
            Code::QuarantineNotFollowed,
            format!("server {server} has version {version} of the quarantine, the newest is {newest}"),
            "ask again in some seconds; if it stays, look at that server's log for \"quarantine\", or stop it: \
             `mas drain SERVER`",
        );
    }
}

/// Agents that connect with certificates that have ended, or will soon.
fn agents_certificates(findings: &mut Findings, told: &Told) {
    let now_s = told.time_ms().and_then(|now_ms| i64::try_from(now_ms / 1000).ok()).unwrap_or(i64::MAX);
    for (agent, end_s) in told.agents_certificates() {
        let end = time_text(u64::try_from(end_s).unwrap_or(0).saturating_mul(1_000_000));
        let (code, ends) = match end_s < now_s {
            true => (Code::AgentCertificateEnded, "ended"),
            false => (Code::CertificateEnds, "ends"),
        };
        findings.add(
            code,
            format!("the certificate that {agent} connects with {ends} at {end}"),
            format!("`mas certs issue {agent}` makes another one; then have it connect again"),
        );
    }
}

fn configuration(findings: &mut Findings, config: &Config, told: &Told) {
    let running = told.of("policy_version").as_str().unwrap_or_default();
    let file = hex(&config.digest);
    if running != file {
        let short = |digest: &str| digest.chars().take(12).collect::<String>();
        findings.add(
            Code::ConfigurationStale,
            format!("in force: {}; {}: {}", short(running), config.path.display(), short(&file)),
            "send SIGHUP to the server to put the file in force: `kill -HUP PID`; or name its own file with --config",
        );
    }
}

fn checkpoint(findings: &mut Findings, config: &Config, told: &Told) {
    let (Some(made_ms), Some(now_ms)) = (told.checkpoint_ms(), told.time_ms()) else { return };
    let bound_ms = config.audit.checkpoint_interval_ms.saturating_mul(CHECKPOINT_INTERVALS);
    if now_ms.saturating_sub(made_ms) > bound_ms {
        findings.add(
            Code::CheckpointOld,
            format!("the newest checkpoint is of {}", time_text(made_ms.saturating_mul(1000))),
            "look at the disk of the anchor, and at the server's log for \"checkpoint\"",
        );
    }
}

fn descriptors(findings: &mut Findings, told: &Told) {
    let Ok((200, page)) = told.asker.text("/metrics") else { return };
    let samples = Samples::parse(&page);
    let (open, max) = (samples.value("process_open_fds"), samples.value("process_max_fds"));
    let (Some(open), Some(max)) = (open, max) else { return };
    if max > 0.0 && open * 100.0 / max >= DESCRIPTORS_PERCENT {
        findings.add(
            Code::DescriptorsLow,
            format!("{open} of {max} descriptors are open; a connection takes three"),
            "raise LimitNOFILE of the server's unit, or `ulimit -n`, and start it again",
        );
    }
}
