//! `mas certs`: the CA and its certificates from the command line.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::certs::{
    self, AGENT_URI_PREFIX, Authority, CA_DAYS, CertsError, Description, Fingerprint, LEAF_DAYS, MAX_DAYS,
    Revocations, Revoked, San, Serial, describe,
};
use crate::ids::AgentId;

/// Hosts that the server's certificate names unless told otherwise.
const DEFAULT_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Makes, renews, lists and revokes certificates.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Make a CA and the server's certificate; what is there is kept
    Init(InitArgs),
    /// Issue certificates for agents, operators or the server; issuing again renews
    Issue(IssueArgs),
    /// List all certificates
    Show(ShowArgs),
    /// Put an agent or a certificate on the list of those no longer accepted
    Revoke(RevokeArgs),
}

/// Arguments of `mas certs init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder of the CA
    #[arg(long)]
    dir: PathBuf,
    /// Host name or IP address of the server; may be repeated
    #[arg(long = "name", value_name = "HOST", value_parser = host_name, default_values = DEFAULT_NAMES)]
    names: Vec<String>,
    /// Days that the server's certificate is valid for
    #[arg(long, default_value_t = LEAF_DAYS, value_parser = days())]
    days: u32,
    /// Days that the CA is valid for
    #[arg(long, value_name = "DAYS", default_value_t = CA_DAYS, value_parser = days())]
    ca_days: u32,
}

/// Arguments of `mas certs issue`.
#[derive(Debug, Args)]
pub struct IssueArgs {
    /// Folder of the CA
    #[arg(long)]
    dir: PathBuf,
    /// Agents to issue certificates for
    #[arg(
        value_name = "AGENT_ID",
        value_parser = agent_id,
        required_unless_present_any = ["server", "operators"],
        conflicts_with = "server"
    )]
    agents: Vec<AgentId>,
    /// Issue the certificate of an operator of the server, by the name that `operators:` has; may be repeated
    #[arg(long = "operator", value_name = "NAME", conflicts_with = "server")]
    operators: Vec<String>,
    /// Issue the server's certificate instead
    #[arg(long)]
    server: bool,
    /// Host name or IP address of the server; may be repeated [default: those it has now]
    #[arg(
        long = "name",
        value_name = "HOST",
        value_parser = host_name,
        requires = "server",
        conflicts_with_all = ["agents", "operators"]
    )]
    names: Vec<String>,
    /// Days that the certificates are valid for
    #[arg(long, default_value_t = LEAF_DAYS, value_parser = days())]
    days: u32,
}

/// Arguments of `mas certs show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Folder of the CA
    #[arg(long)]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Arguments of `mas certs revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Folder of the CA
    #[arg(long)]
    dir: PathBuf,
    #[command(flatten)]
    what: RevokeWhat,
}

/// What to revoke: exactly one of them.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RevokeWhat {
    /// Every certificate of this agent, future ones included
    #[arg(long, value_name = "ID", value_parser = agent_id)]
    agent: Option<AgentId>,
    /// The certificate with this SHA-256 fingerprint
    #[arg(long, value_name = "HEX", value_parser = fingerprint)]
    fingerprint: Option<Fingerprint>,
    /// The certificate with this serial number
    #[arg(long, value_name = "HEX", value_parser = serial)]
    serial: Option<Serial>,
    /// The certificate in this file
    #[arg(long, value_name = "CERT.pem")]
    file: Option<PathBuf>,
}

/// One certificate of the folder.
#[derive(Debug, Serialize)]
struct Listed {
    /// Relative to the folder.
    file: String,
    #[serde(flatten)]
    description: Description,
    revoked: bool,
}

/// Runs the command and prints what was done.
///
/// # Errors
/// What the CA or its folder refused. Whatever was done before that is printed all the same.
pub fn run(command: CertsCommand) -> Result<(), CertsError> {
    let mut lines = Vec::new();
    let outcome = execute(command, &mut lines);
    let printed = print(&lines);
    outcome.and(printed)
}

fn execute(command: CertsCommand, lines: &mut Vec<String>) -> Result<(), CertsError> {
    match command {
        CertsCommand::Init(args) => init(&args, lines),
        CertsCommand::Issue(args) => issue(&args, lines),
        CertsCommand::Show(args) => show(&args, lines),
        CertsCommand::Revoke(args) => revoke(args, lines),
    }
}

fn init(args: &InitArgs, lines: &mut Vec<String>) -> Result<(), CertsError> {
    let ca = certs::ca_file(&args.dir);
    let had_ca = ca.exists();
    let authority = Authority::open_or_create(&args.dir, args.ca_days)?;
    let verb = if had_ca { "kept" } else { "created" };
    lines.push(told(verb, "CA", &ca)?);

    let server = certs::server_files(&args.dir);
    if server.cert.exists() && server.key.exists() {
        lines.push(told("kept", "server", &server.cert)?);
        lines.push("  renew it or change its names with `mas certs issue --server`".to_owned());
    } else {
        let paths = authority.issue_server(&args.names, args.days)?;
        lines.push(told("issued", "server", &paths.cert)?);
    }
    Ok(())
}

fn issue(args: &IssueArgs, lines: &mut Vec<String>) -> Result<(), CertsError> {
    let authority = Authority::open(&args.dir)?;
    let verb = |path: &Path| if path.exists() { "renewed" } else { "issued" };
    if args.server {
        let verb = verb(&certs::server_files(&args.dir).cert);
        let names = server_names(args)?;
        let paths = authority.issue_server(&names, args.days)?;
        lines.push(told(verb, "server", &paths.cert)?);
        return Ok(());
    }
    for name in &args.operators {
        let verb = verb(&certs::operator_files(&args.dir, name).cert);
        let paths = authority.issue_operator(name, args.days)?;
        lines.push(told(verb, &format!("operator {name}"), &paths.cert)?);
    }
    let revoked = Revocations::load(&certs::revoked_file(&args.dir))?;
    for id in &args.agents {
        let verb = verb(&certs::agent_files(&args.dir, id).cert);
        let paths = authority.issue_agent(id, args.days)?;
        lines.push(told(verb, &format!("agent {id}"), &paths.cert)?);
        if revoked.contains_agent(id) {
            lines.push(format!("  but agent {id} is revoked: no certificate of it is accepted"));
        }
    }
    Ok(())
}

/// The names that a renewed server certificate gets: those asked for, else those it had.
fn server_names(args: &IssueArgs) -> Result<Vec<String>, CertsError> {
    let mut names = args.names.clone();
    let cert = certs::server_files(&args.dir).cert;
    if names.is_empty() && cert.exists() {
        let said = describe(&cert)?;
        let hosts =
            said.sans.iter().filter_map(|san| san.strip_prefix("DNS:").or_else(|| san.strip_prefix("IP:")));
        names.extend(hosts.map(str::to_owned));
    }
    if names.is_empty() {
        names.extend(DEFAULT_NAMES.map(str::to_owned));
    }
    Ok(names)
}

fn show(args: &ShowArgs, lines: &mut Vec<String>) -> Result<(), CertsError> {
    let listed = list(&args.dir)?;
    if args.json {
        let json = serde_json::to_string_pretty(&listed).map_err(|error| CertsError::Io {
            action: "write",
            path: PathBuf::from("standard output"),
            source: error.into(),
        })?;
        lines.push(json);
    } else if listed.is_empty() {
        lines.push(format!("no certificates in {}", args.dir.display()));
    } else {
        lines.extend(table(&listed));
    }
    Ok(())
}

fn revoke(args: RevokeArgs, lines: &mut Vec<String>) -> Result<(), CertsError> {
    let RevokeWhat { agent, fingerprint, serial, file } = args.what;
    // The parser lets exactly one through.
    let mut entries = Vec::new();
    entries.extend(agent.map(|id| (format!("agent {id}"), Revoked::Agent(id))));
    entries.extend(fingerprint.map(|f| (format!("fingerprint {f}"), Revoked::Fingerprint(f))));
    entries.extend(serial.map(|s| (format!("serial {s}"), Revoked::Serial(s))));
    if let Some(path) = file {
        let fingerprint = describe(&path)?.fingerprint;
        let what = format!("{} (fingerprint {fingerprint})", path.display());
        entries.push((what, Revoked::Fingerprint(fingerprint)));
    }
    for (what, entry) in entries {
        let new = certs::revoke(&args.dir, entry)?;
        let verb = if new { "revoked" } else { "was revoked already:" };
        lines.push(format!("{verb} {what}"));
    }
    Ok(())
}

/// One line about a certificate that was just made or found.
fn told(verb: &str, whose: &str, cert: &Path) -> Result<String, CertsError> {
    let said = describe(cert)?;
    let path = cert.display();
    let until = date(&said.not_after);
    Ok(format!("{verb} {whose}: {path}, valid until {until}"))
}

/// All certificates below `dir`: the CA's, the server's, then operators' and agents' by name.
fn list(dir: &Path) -> Result<Vec<Listed>, CertsError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| CertsError::Io { action: "read", path, source }
    };
    // A folder that is not there is a mistake, one without certificates is not.
    dir.metadata().map_err(unreadable(dir))?;
    let revoked = Revocations::load(&certs::revoked_file(dir))?;
    let mut paths = vec![certs::ca_file(dir), certs::server_files(dir).cert];
    paths.retain(|path| path.exists());
    for folder in [certs::operators_folder(dir), certs::agents_folder(dir)] {
        if !folder.exists() {
            continue;
        }
        let mut found = Vec::new();
        for entry in folder.read_dir().map_err(unreadable(&folder))? {
            let path = entry.map_err(unreadable(&folder))?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                found.push(path);
            }
        }
        found.sort();
        paths.extend(found);
    }
    paths.iter().map(|path| listed(dir, path, &revoked)).collect()
}

fn listed(dir: &Path, path: &Path, revoked: &Revocations) -> Result<Listed, CertsError> {
    let description = describe(path)?;
    let agent = description
        .sans
        .iter()
        .filter_map(|san| san.strip_prefix("URI:")?.strip_prefix(AGENT_URI_PREFIX))
        .find_map(AgentId::parse);
    let revoked = revoked.contains(&description.fingerprint, &description.serial, agent.as_ref());
    let file = path.strip_prefix(dir).unwrap_or(path).display().to_string();
    Ok(Listed { file, description, revoked })
}

/// Lines of a table, columns padded to their widest cell. The longest column comes last.
fn table(listed: &[Listed]) -> Vec<String> {
    let head = ["FILE", "IDENTITY", "SERIAL", "NOT AFTER", "DAYS LEFT", "STATUS", "FINGERPRINT"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(listed.iter().map(cells));
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 7]| {
        let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn cells(listed: &Listed) -> [String; 7] {
    let said = &listed.description;
    // The kind of a name shows from its form; a certificate without names goes by its subject.
    let names: Vec<&str> =
        said.sans.iter().map(|san| san.split_once(':').map_or(san.as_str(), |(_, name)| name)).collect();
    let identity = if names.is_empty() { said.subject.clone() } else { names.join(", ") };
    let status = if listed.revoked {
        "revoked"
    } else if said.days_left < 0 {
        "expired"
    } else {
        "ok"
    };
    [
        printable(&listed.file),
        printable(&identity),
        said.serial.to_string(),
        date(&said.not_after).to_owned(),
        said.days_left.to_string(),
        status.to_owned(),
        said.fingerprint.to_string(),
    ]
}

/// Control characters of a certificate must not reach the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// The day of an RFC 3339 time.
fn date(rfc3339: &str) -> &str {
    rfc3339.split_once('T').map_or(rfc3339, |(day, _)| day)
}

fn print(lines: &[String]) -> Result<(), CertsError> {
    let mut out = io::stdout().lock();
    let written = lines.iter().try_for_each(|line| writeln!(out, "{line}")).and_then(|()| out.flush());
    match written {
        Ok(()) => Ok(()),
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(source) => {
            Err(CertsError::Io { action: "write", path: PathBuf::from("standard output"), source })
        }
    }
}

fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS))
}

fn host_name(text: &str) -> Result<String, String> {
    San::host(text).ok_or("expected a DNS name or an IP address")?;
    Ok(text.to_owned())
}

fn agent_id(text: &str) -> Result<AgentId, String> {
    AgentId::parse(text).ok_or_else(|| "expected 1 to 64 of A-Z a-z 0-9 _ -".to_owned())
}

fn fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::parse(text).ok_or_else(|| "expected 64 hexadecimal digits".to_owned())
}

fn serial(text: &str) -> Result<Serial, String> {
    Serial::parse(text).ok_or_else(|| "expected up to 40 hexadecimal digits".to_owned())
}

#[cfg(test)]
mod tests;
