//! A Redis, a server and certificates of their own, in a temporary folder.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use mas::agent::Credentials;
use mas::certs::{Authority, agent_files, ca_file};
use mas::ids::AgentId;
use mas::runner::{Fsync, ManagedRedis, server_binary};

type AnyError = Box<dyn std::error::Error>;

/// What a measurement runs against; gone when dropped.
pub(crate) struct World {
    server: Child,
    /// Where the server listens.
    pub(crate) addr: String,
    dir: PathBuf,
    _redis: ManagedRedis,
}

/// The sender of a pair.
pub(crate) fn sender(pair: usize) -> String {
    format!("s{pair}")
}

/// The receiver of a pair.
pub(crate) fn receiver(pair: usize) -> String {
    format!("r{pair}")
}

impl World {
    /// Starts everything for so many pairs of agents.
    pub(crate) fn start(pairs: usize, threads: u16) -> Result<Self, AnyError> {
        let dir = std::env::temp_dir().join(format!("mas-loadgen-{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        let certs = dir.join("certs");
        let authority = Authority::open_or_create(&certs, 2)?;
        let _ = authority.issue_server(&["localhost".to_owned(), "127.0.0.1".to_owned()], 2)?;
        let mut agents = String::new();
        let mut permissions = String::new();
        for pair in 0..pairs {
            for name in [sender(pair), receiver(pair)] {
                let _ = authority.issue_agent(&AgentId::parse(&name).ok_or("agent id")?, 2)?;
                agents.push_str(&format!("  - {{agent_id: {name}}}\n"));
            }
            let (from, to) = (sender(pair), receiver(pair));
            permissions.push_str(&format!("  - {{type: allow, sender: {from}, targets: [{to}]}}\n"));
        }
        let redis = ManagedRedis::start(&dir.join("redis"), Fsync::EverySecond)?;
        let config = dir.join("mas.yaml");
        std::fs::write(
            &config,
            format!(
                "tls_ca_path: certs/ca.pem\ntls_server_cert_path: certs/server.pem\n\
                 tls_server_key_path: certs/server.key\nlimits: {{max_streams_per_connection: 100000, max_queue_len: 10000000}}\n\
                 gateway: {{redis: {{url: '{}'}}, features: {{rbac: true}}, rate_limit: {{per_minute: 4000000000, per_hour: 4000000000}}}}\npermissions:\n{permissions}agents:\n{agents}",
                redis.url()
            ),
        )?;
        let mut server = Command::new(server_binary()?)
            .args(["--listen", "127.0.0.1:0", "--threads", &threads.to_string(), "--config"])
            .arg(&config)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let mut line = String::new();
        let stdout = server.stdout.take().ok_or("the server has no stdout")?;
        let _ = BufReader::new(stdout).read_line(&mut line)?;
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        let addr = ready
            .get("listen_addr")
            .and_then(|addr| addr.as_str())
            .ok_or("no address in the ready line")?
            .to_owned();
        Ok(Self { server, addr, dir, _redis: redis })
    }

    /// The certificates of one agent.
    pub(crate) fn credentials(&self, agent: &str) -> Result<Credentials, AnyError> {
        let certs: &Path = &self.dir.join("certs");
        let files = agent_files(certs, &AgentId::parse(agent).ok_or("agent id")?);
        Ok(Credentials::from_files(ca_file(certs), files.cert, files.key)?)
    }

    /// CPU that the server has used, in seconds.
    pub(crate) fn server_cpu_s(&self) -> Result<f64, AnyError> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.server.id()))?;
        let (_, fields) = stat.rsplit_once(')').ok_or("stat")?;
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>())
            .sum::<Result<u64, _>>()?;
        // USER_HZ is 100 on Linux.
        Ok(ticks as f64 / 100.0)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The folder goes with it: nothing has to be finished.
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
