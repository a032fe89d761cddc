//! The running server.

use super::finding::{Code, Findings};
use crate::checkpoint::IDLE_INTERVALS;
use crate::cli::facts::samples::Samples;
use crate::cli::facts::server::{Server, Told};
use crate::cli::text::time_text;
use crate::config::Config;
use crate::ids::hex;

/// Intervals after which a checkpoint is due whatever happens, and what it may be late.
const CHECKPOINT_INTERVALS: u64 = IDLE_INTERVALS + 10;
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
