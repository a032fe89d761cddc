//! `mas doctor`: what is wrong with an installation, in order of harm, each with what was seen and what to do.

mod files;
pub(super) mod finding;
mod server;
mod store;

use std::io::Write;

use clap::Args;

use super::admin::AdminArgs;
use super::exit::Exit;
use super::facts::redis::RedisFacts;
use super::facts::server::Server;
use crate::config::Config;
use finding::{Code, Findings};

const EXAMPLES: &str = "\
Looks at the configuration, certificates, keys, the anchor, the archive and its disk, Redis, inboxes, dead letters, circuits, clocks
and the running server. Changes nothing. Exit codes: 0 nothing is wrong, 1 something is.

Examples:
  mas doctor
  mas doctor --config /etc/mas/mas.yaml --admin 127.0.0.1:9464
  mas doctor --json | jq -r '.findings[] | .code'";

/// Arguments of `mas doctor`.
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct DoctorArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// One JSON object instead of text.
    #[arg(long)]
    json: bool,
}

/// Runs the command: exit code 1 where something is wrong.
pub fn run(args: &DoctorArgs) -> Exit {
    let findings = examine(&args.admin);
    let text = if args.json { format!("{}\n", findings.json()) } else { findings.text() };
    if let Err(error) = std::io::stdout().lock().write_all(text.as_bytes()) {
        eprintln!("mas doctor: {error}");
        return Exit::Failed;
    }
    if findings.is_well() { Exit::Done } else { Exit::Failed }
}

/// Looks at everything.
pub(super) fn examine(admin: &AdminArgs) -> Findings {
    let mut findings = Findings::default();
    let server = Server::look(admin);
    match admin.configuration() {
        Ok(config) => with_configuration(&mut findings, &config, &server),
        Err(trouble) => {
            findings.add(
                Code::ConfigurationInvalid,
                trouble.to_string(),
                "correct the file, then try `mas-server --check-config`; or name another one with --config FILE",
            );
            // Where to ask stands in the file, too.
            if !matches!(server, Server::NotAsked(_)) {
                server::look(&mut findings, None, &server, None);
            }
        }
    }
    findings.sorted()
}

fn with_configuration(findings: &mut Findings, config: &Config, server: &Server) {
    files::configuration(findings, config);
    files::certificates(findings, config, server);
    files::keys(findings, config);
    files::disks(findings, config);
    let mut redis = match RedisFacts::look(config) {
        Ok(facts) => Some(facts),
        Err(error) => {
            findings.add(
                Code::RedisUnreachable,
                error.to_string(),
                "start Redis, or correct gateway.redis.url; `mas check redis` tries it again",
            );
            None
        }
    };
    let mut alive = None;
    if let Some(facts) = &mut redis {
        store::redis(findings, facts);
        match store::contents(findings, config, facts, server) {
            Ok(any_alive) => alive = Some(any_alive),
            Err(error) => findings.add(
                Code::RedisUnreachable,
                format!("it answered at first, and then: {error}"),
                "look at Redis' log; `mas check redis` tries it again",
            ),
        }
    }
    files::anchor(findings, config, redis.as_mut().map(|facts| &mut facts.connection));
    server::look(findings, Some(config), server, alive);
}
