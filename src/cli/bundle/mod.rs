//! `mas bundle`: everything that a report of an error needs, in one file, without a secret in it.

mod mask;
mod records;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use super::admin::AdminArgs;
use super::doctor;
use super::doctor::finding::Code;
use super::exit::Exit;
use super::facts::redis::RedisFacts;
use super::facts::server::{Server, Told};
use super::text::time_text;
use crate::audit::checkpoint::Checkpoint;
use crate::audit::note;
use crate::clock::Now;
use crate::config::{self, Config};
use crate::store::checkpoints;

const HELP: &str = "\
In it: the configuration with secrets masked, what the server says of itself (status, readiness, metrics), what `mas doctor` finds,
versions, the newest records of the audit trail without anything of messages, the newest checkpoints, and Redis' INFO. What
could not be had is said in README.txt. Not in it: payloads, states, dead letters, keys, passwords, values of environment
variables and headers, what data-loss prevention looks for and finds, reasons that agents give, logs.

Examples:
  mas bundle
  mas bundle --config /etc/mas/mas.yaml --output report.tar.gz
  mas bundle --output - | tar tz";

/// The output is standard output.
const STDOUT: &str = "-";
/// Mode of the file: what is in it is for those who look after the server.
const MODE: u32 = 0o600;
/// Checkpoints in it, the newest.
const CHECKPOINTS: usize = 20;
/// Shortest value that is looked for in everything that is packed: shorter ones are parts of other words.
const MIN_SECRET_BYTES: usize = 8;

/// Arguments of `mas bundle`.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub struct BundleArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Where it goes; `-`: to standard output. By default mas-bundle-TIME.tar.gz here. Nothing is overwritten.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the command.
pub fn run(args: &BundleArgs) -> Exit {
    let now = Now::read();
    let output = args.output.clone().unwrap_or_else(|| {
        let time: String = time_text(now.unix_us).chars().filter(char::is_ascii_alphanumeric).collect();
        PathBuf::from(format!("mas-bundle-{time}.tar.gz"))
    });
    let written = gather(&args.admin, now).pack(now).and_then(|bytes| write(&output, &bytes));
    match written {
        Ok(()) => {
            if output.as_os_str() != STDOUT {
                eprintln!("mas bundle: {}: look into it before you hand it on", output.display());
            }
            Exit::Done
        }
        Err(error) => {
            eprintln!("mas bundle: {}: {error}", output.display());
            Exit::Failed
        }
    }
}

fn write(output: &Path, bytes: &[u8]) -> io::Result<()> {
    if output.as_os_str() == STDOUT {
        let mut out = io::stdout().lock();
        return out.write_all(bytes).and_then(|()| out.flush());
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(output)?;
    file.write_all(bytes).and_then(|()| file.sync_all())
}

/// What goes into it.
#[derive(Default)]
struct Bundle {
    /// Names and texts.
    files: Vec<(&'static str, String)>,
    /// What could not be had, and why.
    missing: Vec<(&'static str, String)>,
    /// What must not be in it, wherever it comes from.
    secrets: Vec<String>,
}

fn gather(admin: &AdminArgs, now: Now) -> Bundle {
    let mut bundle = Bundle::default();
    let found = config::locate(admin.config_path()).map_err(|error| error.to_string());
    let text = found.and_then(|path| std::fs::read_to_string(path).map_err(|error| error.to_string()));
    bundle.take(
        "configuration.yaml",
        text.and_then(|text| mask::configuration(&text).map_err(ToOwned::to_owned)),
    );
    // What is wrong with it is said in words of the file, which may be a secret in the wrong place.
    let config = admin.configuration().map_err(|_| "the configuration is not valid, or not there".to_owned());
    if let Ok(config) = &config {
        bundle.secrets = secrets(config);
    }
    let server = Server::look(admin);
    match &server {
        Server::Told(told) => bundle.server(told),
        Server::Silent(why) | Server::NotAsked(why) => {
            let why = match &config {
                Err(why) if matches!(server, Server::NotAsked(_)) => why,
                _ => why,
            };
            for name in ["status.json", "readyz.txt", "metrics.txt"] {
                bundle.missing.push((name, why.clone()));
            }
        }
    }
    let findings = doctor::examine(admin).without_evidence(Code::ConfigurationInvalid);
    bundle.files.push(("doctor.json", format!("{:#}\n", findings.json())));
    bundle.files.push(("versions.json", format!("{:#}\n", versions(&server, now))));
    match config.and_then(|config| {
        let facts = RedisFacts::look(&config).map_err(|error| error.to_string())?;
        Ok((config, facts))
    }) {
        Ok((config, facts)) => bundle.redis(&config, facts),
        Err(why) => {
            for name in ["redis-info.txt", "records.jsonl", "checkpoints.jsonl"] {
                bundle.missing.push((name, why.clone()));
            }
        }
    }
    bundle
}

/// What must not be in it: passwords in URLs, headers, and long values of environment variables.
fn secrets(config: &Config) -> Vec<String> {
    let of_url = |url: &str| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let user = rest.rsplit_once('@').map(|(user, _)| user.to_owned()).unwrap_or_default();
        let password = user.split_once(':').map(|(_, password)| password.to_owned());
        let query = rest.split_once('?').map(|(_, query)| query.to_owned()).unwrap_or_default();
        let values: Vec<String> =
            query.split('&').filter_map(|pair| Some(pair.split_once('=')?.1.to_owned())).collect();
        password.into_iter().chain(values).collect::<Vec<_>>()
    };
    let mut found = of_url(&config.redis.url);
    found.extend(config.telemetry.otlp_endpoint.as_deref().map(of_url).unwrap_or_default());
    found.extend(config.telemetry.headers.values().cloned());
    found.extend(config.agents.values().flat_map(|agent| agent.env.values().cloned()));
    found.retain(|secret| secret.len() >= MIN_SECRET_BYTES);
    found
}

fn versions(server: &Server, now: Now) -> serde_json::Value {
    let system = rustix::system::uname();
    let word = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    json!({
        "mas": env!("CARGO_PKG_VERSION"),
        "server": server.told().map(|told| told.of("version")),
        "policy_version": server.told().map(|told| told.of("policy_version")),
        "system": word(system.sysname()), "release": word(system.release()), "machine": word(system.machine()),
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "time": time_text(now.unix_us),
    })
}

impl Bundle {
    fn take(&mut self, name: &'static str, text: Result<String, String>) {
        match text {
            Ok(text) => self.files.push((name, text)),
            Err(why) => self.missing.push((name, why)),
        }
    }

    fn server(&mut self, told: &Told) {
        self.files.push(("status.json", format!("{:#}\n", told.status)));
        for (name, path) in [("readyz.txt", "/readyz?verbose"), ("metrics.txt", "/metrics")] {
            let answer = told.asker.text(path);
            self.take(name, answer.map(|(_, text)| text).map_err(|trouble| trouble.to_string()));
        }
    }

    fn redis(&mut self, config: &Config, mut facts: RedisFacts) {
        let info = facts.info.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        self.files.push(("redis-info.txt", info));
        let records = records::newest(&mut facts.connection, config).map_err(|error| error.to_string());
        self.take("records.jsonl", records);
        let checkpoints = checkpoints::recent(&mut facts.connection).map(newest_notes);
        self.take("checkpoints.jsonl", checkpoints.map_err(|error| error.to_string()));
    }

    /// Without secrets that came in by a way that nobody thought of.
    fn scrubbed(&self, text: &str) -> String {
        let hide = |text: String, secret: &String| text.replace(secret.as_str(), mask::MASKED);
        self.secrets.iter().fold(text.to_owned(), hide)
    }

    fn pack(&self, now: Now) -> io::Result<Vec<u8>> {
        let mut list = format!("mas bundle of {}\n\n", time_text(now.unix_us));
        for (name, text) in &self.files {
            list.push_str(&format!("{name}: {} bytes\n", text.len()));
        }
        for (name, why) in &self.missing {
            list.push_str(&format!("{name}: not there: {}\n", super::text::plain(why)));
        }
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let seconds = now.unix_us / 1_000_000;
        for (name, text) in
            [("README.txt", &list)].into_iter().chain(self.files.iter().map(|(name, text)| (*name, text)))
        {
            let text = self.scrubbed(text);
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(MODE);
            header.set_mtime(seconds);
            archive.append_data(&mut header, format!("mas-bundle/{name}"), text.as_bytes())?;
        }
        archive.into_inner()?.finish()
    }
}

/// The newest notes, oldest first, one JSON object a line.
fn newest_notes(notes: std::collections::HashSet<String>) -> String {
    let time_ms = |text: &str| {
        let checkpoint = note::text_of(text).ok().and_then(|text| Checkpoint::parse(text).ok());
        checkpoint.map_or(0, |checkpoint| checkpoint.time_ms)
    };
    let mut notes: Vec<(u64, String)> = notes.into_iter().map(|note| (time_ms(&note), note)).collect();
    notes.sort();
    let from = notes.len().saturating_sub(CHECKPOINTS);
    notes.drain(..from);
    notes.into_iter().map(|(_, note)| format!("{}\n", json!({"note": note}))).collect()
}
