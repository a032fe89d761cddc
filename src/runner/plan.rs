//! From the configuration to the processes: which programs, arguments and variables.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::child::ChildSpec;
use super::error::RunnerError;
use super::guard::SERVER_LABEL;
use super::options::RunOptions;
use crate::config::{Agent, Config, Program, Restart};

/// Names the interpreter of Python agents whose entry names none.
pub const PYTHON_VARIABLE: &str = "MAS_PYTHON";
/// The interpreter when nothing names one.
pub const DEFAULT_PYTHON: &str = "python3";
/// Makes an agent of a class.
const LAUNCHER: &str = include_str!("python_agent.py");
/// Where the launcher's text travels.
const LAUNCHER_VARIABLE: &str = "MAS_LAUNCHER";
/// Runs it; a class path follows.
const START_LAUNCHER: &str =
    "import os; exec(compile(os.environ.pop('MAS_LAUNCHER'), 'mas-launcher', 'exec'))";

/// The server as it is started first: if it ends before it is ready, that is an error.
pub(super) fn server(options: &RunOptions) -> ChildSpec {
    let mut args: Vec<OsString> = vec!["--config".into(), absolute(&options.config.path).into()];
    if let Some(threads) = options.threads {
        args.push("--threads".into());
        args.push(threads.to_string().into());
    }
    ChildSpec {
        label: SERVER_LABEL.to_owned(),
        program: options.server_binary.clone(),
        args,
        env: BTreeMap::new(),
        restart: Restart::Never,
        announces_ready: true,
    }
}

/// The server as it is started again, once it has been ready on `listen_addr`.
pub(super) fn server_again(options: &RunOptions, listen_addr: &str) -> ChildSpec {
    let mut spec = server(options);
    spec.restart = Restart::Always;
    // Agents come back to the address that they know: a port that the system chose must be kept.
    if port(&options.config.listen_addr) == Some(0) {
        spec.args.push("--listen".into());
        spec.args.push(listen_addr.into());
    }
    spec
}

/// All processes of all agents, complete but for the server's address.
pub(super) fn agents(config: &Config) -> Result<Vec<ChildSpec>, RunnerError> {
    let mut specs = Vec::new();
    for agent in config.agents.values() {
        for instance in 0..agent.instances {
            specs.extend(agent_process(config, agent, instance)?);
        }
    }
    Ok(specs)
}

/// Tells an agent's process where the server is, unless its own environment says so already.
pub(super) fn with_server_addr(mut spec: ChildSpec, server_addr: &str) -> ChildSpec {
    spec.env.entry("MAS_SERVER_ADDR".to_owned()).or_insert_with(|| server_addr.into());
    spec
}

/// The address at which this host reaches a server that listens on `listen_addr`: one that listens on
/// every interface is reached through the loopback one.
pub(super) fn reachable(listen_addr: &str) -> String {
    let Ok(mut addr) = listen_addr.parse::<SocketAddr>() else {
        return listen_addr.to_owned();
    };
    if addr.ip().is_unspecified() {
        addr.set_ip(match addr.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    addr.to_string()
}

fn agent_process(config: &Config, agent: &Agent, instance: u32) -> Result<Option<ChildSpec>, RunnerError> {
    let fail = |problem: String| RunnerError::Agent { agent: agent.id.clone(), problem };
    let Start { program, args, env: own } = match &agent.program {
        Program::None => return Ok(None),
        Program::ClassPath(class_path) => python_start(config, agent, class_path),
        Program::Command(words) => match words.split_first() {
            Some((program, args)) if !program.is_empty() => Start {
                program: program_path(&config.path, program),
                args: args.iter().map(OsString::from).collect(),
                env: BTreeMap::new(),
            },
            _ => return Err(fail("command: names no program".to_owned())),
        },
    };
    let file = |key: &str, path: &Option<PathBuf>| match path {
        None => Err(fail(format!("{key} is missing; the runner starts no agent without a certificate"))),
        Some(path) if !path.is_file() => Err(fail(format!("{key}: {} is no file", path.display()))),
        Some(path) => Ok(OsString::from(absolute(path))),
    };
    let instance_id = format!("i{instance}");
    let mut env = BTreeMap::from([
        ("MAS_AGENT_ID".to_owned(), agent.id.as_str().into()),
        ("MAS_INSTANCE_ID".to_owned(), instance_id.clone().into()),
        ("MAS_TLS_CA".to_owned(), absolute(&config.tls.ca).into()),
        ("MAS_TLS_CERT".to_owned(), file("tls_cert_path", &agent.cert)?),
        (
            "MAS_TLS_KEY".to_owned(),
            file("tls_key_path", &agent.key).inspect(|key| warn_if_public(key.as_ref()))?,
        ),
        // What agents in Python print is to be seen when they print it.
        ("PYTHONUNBUFFERED".to_owned(), "1".into()),
    ]);
    env.extend(own);
    // The agent's own variables come last: the operator wrote them for this agent.
    env.extend(agent.env.iter().map(|(name, value)| (name.clone(), value.into())));
    Ok(Some(ChildSpec {
        label: format!("{}/{instance_id}", agent.id),
        program,
        args,
        env,
        restart: agent.restart,
        announces_ready: false,
    }))
}

/// The program of an agent and what it gets beside the variables that every agent gets.
struct Start {
    program: PathBuf,
    args: Vec<OsString>,
    env: BTreeMap<String, OsString>,
}

/// A class for the launcher. Its text travels in a variable, so that no file has to be installed or left
/// behind, and the list of processes shows the class and not the text.
fn python_start(config: &Config, agent: &Agent, class_path: &str) -> Start {
    let from_environment = || std::env::var(PYTHON_VARIABLE).ok().filter(|python| !python.is_empty());
    let program = match &agent.python {
        Some(python) => program_path(&config.path, python),
        None => from_environment().unwrap_or_else(|| DEFAULT_PYTHON.to_owned()).into(),
    };
    let folder = config.path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut env = BTreeMap::from([
        (LAUNCHER_VARIABLE.to_owned(), LAUNCHER.into()),
        ("MAS_CONFIG_DIR".to_owned(), absolute(folder.unwrap_or(Path::new("."))).into()),
        (
            "MAS_INIT_KWARGS".to_owned(),
            serde_json::Value::Object(agent.init_kwargs.clone()).to_string().into(),
        ),
    ]);
    let host = config.listen_addr.rsplit_once(':').map(|(host, _)| host);
    if matches!(host, Some("0.0.0.0" | "[::]" | "*")) {
        // A host name, as the old runner had it: that is what the deployment's certificate names.
        let _ = env.insert("MAS_SERVER_HOST".to_owned(), "localhost".into());
    }
    let args = vec!["-c".into(), START_LAUNCHER.into(), class_path.into()];
    Start { program, args, env }
}

/// A name is looked up in `PATH`; a path is relative to the folder of the configuration.
fn program_path(config: &Path, program: &str) -> PathBuf {
    if !program.contains('/') {
        return PathBuf::from(program);
    }
    let folder = config.parent().unwrap_or(Path::new(""));
    absolute(&folder.join(program))
}

/// Paths are given to other processes, which may have another working directory.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

fn port(addr: &str) -> Option<u16> {
    addr.rsplit_once(':')?.1.parse().ok()
}

/// The server refuses a key of its own that everybody can read; an agent's is its owner's to guard.
fn warn_if_public(key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(key).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o004 != 0 {
        log::warn!(
            code = "key_file_exposed", path:% = key.display();
            "{}: is readable by everybody (mode {:o}); expected 600", key.display(), mode & 0o777
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::tests_support::{config, options};

    fn problem(entry: &str) -> RunnerError {
        let folder = tempfile::tempdir().unwrap();
        agents_of(folder.path(), entry).unwrap_err()
    }

    fn agents_of(folder: &Path, agents_yaml: &str) -> Result<Vec<ChildSpec>, RunnerError> {
        agents(&config(folder, &format!("agents: [{agents_yaml}]\n")))
    }

    #[test]
    fn each_instance_gets_its_identity() {
        let folder = tempfile::tempdir().unwrap();
        let specs = agents_of(
            folder.path(),
            "{agent_id: a, command: [./bin/a, -v], instances: 2, env: {COLOUR: red}, \
              tls_cert_path: a.pem, tls_key_path: a.key}, {agent_id: b}",
        )
        .unwrap();
        let labels: Vec<_> = specs.iter().map(|spec| spec.label.as_str()).collect();
        assert_eq!(labels, ["a/i0", "a/i1"]);
        let spec = with_server_addr(specs[1].clone(), "127.0.0.1:5");
        assert_eq!(spec.program, folder.path().join("bin/a"));
        assert_eq!(spec.args, ["-v"]);
        assert_eq!(spec.env["MAS_SERVER_ADDR"], "127.0.0.1:5");
        assert_eq!(spec.env["MAS_AGENT_ID"], "a");
        assert_eq!(spec.env["MAS_INSTANCE_ID"], "i1");
        assert_eq!(spec.env["MAS_TLS_CA"], folder.path().join("ca.pem"));
        assert_eq!(spec.env["MAS_TLS_KEY"], folder.path().join("a.key"));
        assert_eq!(spec.env["COLOUR"], "red");
    }

    #[test]
    fn a_class_gets_the_launcher_and_its_arguments() {
        let folder = tempfile::tempdir().unwrap();
        let specs = agents_of(
            folder.path(),
            "{agent_id: a, class_path: 'pkg.mod:Worker', python: venv/bin/python, instances: 2, \
             init_kwargs: {n: 1, names: [x]}, tls_cert_path: a.pem, tls_key_path: a.key}",
        )
        .unwrap();
        let spec = &specs[1];
        assert_eq!(specs.len(), 2);
        assert_eq!(spec.program, folder.path().join("venv/bin/python"));
        assert_eq!(spec.args[2], "pkg.mod:Worker");
        assert_eq!(spec.env["MAS_INIT_KWARGS"], r#"{"n":1,"names":["x"]}"#);
        assert_eq!(spec.env["MAS_CONFIG_DIR"], folder.path());
        assert_eq!(spec.env["MAS_INSTANCE_ID"], "i1");
        assert!(spec.env["MAS_LAUNCHER"].to_str().unwrap().contains("def main"));
    }

    #[test]
    fn a_plain_name_is_left_to_the_path() {
        assert_eq!(program_path(Path::new("/etc/mas.yaml"), "sh"), Path::new("sh"));
        assert_eq!(program_path(Path::new("/etc/mas.yaml"), "/bin/sh"), Path::new("/bin/sh"));
    }

    #[test]
    fn an_agent_that_cannot_be_run_is_a_configuration_error_that_names_it() {
        for (entry, expected) in [
            ("{agent_id: zed, command: [x]}", "agent zed: tls_cert_path is missing"),
            (
                "{agent_id: zed, command: [x], tls_cert_path: a.pem, tls_key_path: no.key}",
                "no.key is no file",
            ),
            ("{agent_id: zed, class_path: 'm:C'}", "agent zed: tls_cert_path is missing"),
            ("{agent_id: zed, command: ['']}", "names no program"),
        ] {
            let error = problem(entry);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.is_configuration());
        }
    }

    #[test]
    fn only_a_port_that_the_system_chose_is_handed_on() {
        let folder = tempfile::tempdir().unwrap();
        let fixed = options(folder.path(), "server_listen_addr: 127.0.0.1:7000\n");
        let free = options(folder.path(), "server_listen_addr: 127.0.0.1:0\n");
        let listen = OsString::from("--listen");
        assert!(!server_again(&fixed, "127.0.0.1:7000").args.contains(&listen));
        let again = server_again(&free, "127.0.0.1:4242");
        assert!(again.args.ends_with(&[listen, "127.0.0.1:4242".into()]));
        assert_eq!(again.restart, Restart::Always);
    }

    #[test]
    fn a_server_on_every_interface_is_reached_through_loopback() {
        assert_eq!(reachable("0.0.0.0:50051"), "127.0.0.1:50051");
        assert_eq!(reachable("[::]:50051"), "[::1]:50051");
        assert_eq!(reachable("10.0.0.1:50051"), "10.0.0.1:50051");
        assert_eq!(reachable("localhost:50051"), "localhost:50051");
    }
}
