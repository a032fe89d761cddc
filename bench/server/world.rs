//! A Redis, a server and certificates of their own, in a temporary folder.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use mas::certs::{Authority, agent_files, ca_file};
use mas::ids::AgentId;
use mas::runner::{Fsync, ManagedRedis};
use mas_agent::Credentials;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::AnyError;

pub(crate) const SENDER: &str = "sender";
pub(crate) const RECEIVER: &str = "receiver";

/// Where the server and its Redis run; gone when dropped.
pub(crate) struct World {
    server: Child,
    /// Where the server listens.
    pub(crate) addr: String,
    dir: PathBuf,
    _redis: ManagedRedis,
}

impl World {
    /// Starts the server with everything on, by this command line. One worker: which one an agent lives on makes
    /// no difference then.
    pub(crate) fn start(command: &[String], telemetry: Option<f64>) -> Result<Self, AnyError> {
        let dir = std::env::temp_dir().join(format!("mas-server-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let certs = dir.join("certs");
        let authority = Authority::open_or_create(&certs, 2)?;
        let _ = authority.issue_server(&["localhost".to_owned(), "127.0.0.1".to_owned()], 2)?;
        for name in [SENDER, RECEIVER] {
            let _ = authority.issue_agent(&AgentId::parse(name).ok_or("agent id")?, 2)?;
        }
        let redis = ManagedRedis::start(&dir.join("redis"), Fsync::EverySecond)?;
        let config = dir.join("mas.yaml");
        let telemetry = telemetry.map(|ratio| {
            format!(
                "  telemetry: {{enabled: true, otlp_endpoint: 'http://127.0.0.1:9', sample_ratio: {ratio}, export_metrics: false}}\n"
            )
        });
        // What happens by the clock would count, the more the slower the server runs.
        std::fs::write(
            &config,
            format!(
                "admin_listen_addr: null\ntls_ca_path: certs/ca.pem\ntls_server_cert_path: certs/server.pem\n\
                 tls_server_key_path: certs/server.key\n\
                 gateway:\n  redis: {{url: '{}'}}\n  features: {{rbac: true}}\n\
                 \x20 rate_limit: {{per_minute: 4000000000, per_hour: 4000000000}}\n\
                 \x20 audit: {{checkpoint_interval_ms: 60000}}\n{}\
                 permissions:\n  - {{type: allow, sender: {SENDER}, targets: [{RECEIVER}]}}\n\
                 agents:\n  - {{agent_id: {SENDER}}}\n  - {{agent_id: {RECEIVER}}}\n",
                redis.url(),
                telemetry.unwrap_or_default()
            ),
        )?;
        let (program, before) = command.split_first().ok_or("no server")?;
        let mut server = Command::new(program)
            .args(before)
            .args(["--listen", "127.0.0.1:0", "--threads", "1", "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let stdout = server.stdout.take().ok_or("the server has no stdout")?;
        let _ = BufReader::new(stdout).read_line(&mut line)?;
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        let addr = ready.get("listen_addr").and_then(|addr| addr.as_str()).ok_or("no address")?.to_owned();
        Ok(Self { server, addr, dir, _redis: redis })
    }

    /// The certificates of one agent.
    pub(crate) fn credentials(&self, agent: &str) -> Result<Credentials, AnyError> {
        let certs = self.dir.join("certs");
        let files = agent_files(&certs, &AgentId::parse(agent).ok_or("agent id")?);
        Ok(Credentials::from_files(ca_file(&certs), files.cert, files.key)?)
    }

    /// Stops the server in order, so that its counts are written.
    pub(crate) fn stop(mut self) -> Result<(), AnyError> {
        kill(Pid::from_raw(i32::try_from(self.server.id())?), Signal::SIGTERM)?;
        let status = self.server.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the server ended with {status}").into()) }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
