//! What a measurement runs against: a Redis, a server and certificates of its own in a temporary folder, or
//! somebody else's server.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mas::certs::{AGENT_URI_PREFIX, Authority, CustomLeaf, San, agent_files, agents_folder};
use mas::ids::AgentId;
use mas::runner::{Fsync, ManagedRedis, server_binary};

use crate::AnyError;
use crate::agents::Agents;
use crate::fleet::Watched;
use crate::guard::Guard;
use crate::process::Process;

/// Validity of the certificates.
const CERT_DAYS: u32 = 2;
/// How long the server may take until it listens; with many agents it reads a long file first.
const READY_PATIENCE: Duration = Duration::from_secs(60);

/// A temporary folder, removed when dropped, and what sees to that when this process is killed.
pub(crate) struct Folder {
    path: PathBuf,
    guard: Guard,
}

impl Folder {
    pub(crate) fn new() -> Result<Self, AnyError> {
        let path = std::env::temp_dir().join(format!("mas-loadgen-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let guard = Guard::start(&path)?;
        Ok(Self { path, guard })
    }

    /// A process that lives with the folder.
    pub(crate) fn watch(&mut self, pid: u32) -> Result<(), AnyError> {
        self.guard.watch(pid)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("loadgen: {} cannot be removed: {error}", self.path.display());
        }
    }
}

/// How a spawned server is set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    /// Worker threads.
    pub(crate) threads: u16,
    /// Accepted means fsynced, and Redis fsyncs before it answers.
    pub(crate) fsynced: bool,
    /// Permission rules in all; the agents' own come first, the others concern nobody who sends.
    pub(crate) rules: usize,
}

/// Certificates for a server on this machine and for `agents`, in a folder laid out as `mas certs` does.
pub(crate) fn make_certs(dir: &Path, agents: &[String]) -> Result<(), AnyError> {
    let authority = Authority::open_or_create(dir, CERT_DAYS)?;
    let _ = authority.issue_server(&["localhost".to_owned(), "127.0.0.1".to_owned()], CERT_DAYS)?;
    std::fs::create_dir_all(agents_folder(dir))?;
    for name in agents {
        let id = AgentId::parse(name).ok_or_else(|| format!("{name:?} is no agent id"))?;
        let uri = San::Uri(format!("{AGENT_URI_PREFIX}{id}"));
        // Not through `issue_agent`: it has every file on the disk before it goes on, which for thousands of
        // agents takes minutes and is of no use here.
        let leaf = CustomLeaf { common_name: Some(id.to_string()), ..CustomLeaf::client(vec![uri]) };
        let (cert, key) = authority.issue_custom(leaf)?;
        let files = agent_files(dir, &id);
        std::fs::write(files.cert, cert)?;
        std::fs::write(files.key, key)?;
    }
    Ok(())
}

/// A Redis of one's own, stopped when dropped.
pub(crate) struct Redis {
    managed: ManagedRedis,
    /// Its version.
    pub(crate) version: String,
}

impl Redis {
    /// Starts one in `folder`.
    pub(crate) fn start(folder: &mut Folder, fsync: Fsync) -> Result<Self, AnyError> {
        let managed = ManagedRedis::start(&folder.path().join("redis"), fsync)?;
        if let Some(pid) = managed.pid() {
            folder.watch(pid)?;
        }
        let mut connection = redis::Client::open(managed.url())?.get_connection()?;
        let info: redis::InfoDict = redis::cmd("INFO").arg("server").query(&mut connection)?;
        let version = info.get("redis_version").unwrap_or_else(|| "unknown".to_owned());
        Ok(Self { managed, version })
    }

    pub(crate) fn url(&self) -> String {
        self.managed.url()
    }

    pub(crate) fn pid(&self) -> Result<u32, AnyError> {
        self.managed.pid().ok_or_else(|| "the Redis has no process id".into())
    }
}

/// A Redis and a server for some agents. Dropped, the server is killed, Redis stopped, the folder removed.
pub(crate) struct World {
    // In the order in which they end.
    server: Process,
    /// Its store.
    pub(crate) redis: Redis,
    /// Where the server listens.
    pub(crate) addr: String,
    /// The server's version, as its ready line says.
    pub(crate) version: String,
    folder: Folder,
}

impl World {
    /// Starts everything.
    pub(crate) fn start(agents: &Agents, setup: Setup) -> Result<Self, AnyError> {
        let mut folder = Folder::new()?;
        let dir = folder.path().to_path_buf();
        make_certs(&dir.join("certs"), &agents.names)?;
        let fsync = if setup.fsynced { Fsync::Always } else { Fsync::EverySecond };
        let redis = Redis::start(&mut folder, fsync)?;
        let config = dir.join("mas.yaml");
        std::fs::write(&config, mas_yaml(agents, setup, &redis.url())?)?;
        let mut command = Command::new(server_binary()?);
        let _ = command
            .args(["--listen", "127.0.0.1:0", "--threads", &setup.threads.to_string(), "--config"])
            .arg(&config)
            .stderr(Stdio::inherit())
            // Its own notes of sessions that come and go are no news here.
            .env("RUST_LOG", "error");
        let mut server = Process::start("the server", &mut command)?;
        folder.watch(server.pid())?;
        let line = server.line(READY_PATIENCE)?;
        let ready: serde_json::Value = serde_json::from_str(&line)?;
        let text = |key: &str| {
            let value = ready.get(key).and_then(|value| value.as_str());
            value.map(str::to_owned).ok_or_else(|| format!("no {key} in the ready line {line:?}"))
        };
        let (addr, version) = (text("listen_addr")?, text("version")?);
        Ok(Self { server, redis, addr, version, folder })
    }

    /// The folder of the certificates.
    pub(crate) fn certs(&self) -> PathBuf {
        self.folder.path().join("certs")
    }

    /// The server's process id.
    pub(crate) fn server_pid(&self) -> u32 {
        self.server.pid()
    }

    /// An error when the server has ended: what was measured then is worth nothing.
    pub(crate) fn check(&mut self) -> Result<(), AnyError> {
        self.server.check()
    }

    /// Both processes.
    pub(crate) fn watched(&self) -> Result<Watched, AnyError> {
        Ok(Watched { server: Some(self.server_pid()), redis: Some(self.redis.pid()?) })
    }
}

/// The server's configuration: every stage on, rates that nobody reaches.
fn mas_yaml(agents: &Agents, setup: Setup, redis_url: &str) -> Result<String, AnyError> {
    let mode = if setup.fsynced { "fsynced" } else { "accepted" };
    let mut yaml = format!(
        "tls_ca_path: certs/ca.pem\n\
         tls_server_cert_path: certs/server.pem\n\
         tls_server_key_path: certs/server.key\n\
         limits: {{max_streams_per_connection: 100000, max_queue_len: 10000000}}\n\
         delivery: {{max_in_flight: 1000}}\n\
         gateway:\n  \
           redis: {{url: '{redis_url}', durability: {{mode: {mode}}}}}\n  \
           features: {{dlp: true, rbac: true, circuit_breaker: true}}\n  \
           rate_limit: {{per_minute: 4000000000, per_hour: 4000000000}}\n\
         permissions:\n"
    );
    let mut rules = 0;
    for (sender, targets) in &agents.rules {
        writeln!(yaml, "  - {{type: allow, sender: {sender}, targets: [{}]}}", targets.join(", "))?;
        rules += 1;
    }
    // Between agents that take no part: what is looked up grows, what is decided stays.
    let extra = setup.rules.saturating_sub(rules);
    for number in 0..extra {
        writeln!(yaml, "  - {{type: allow, sender: idle-{number}, targets: [idle-{}]}}", number + 1)?;
    }
    if rules + extra == 0 {
        yaml.push_str("  []\n");
    }
    yaml.push_str("agents:\n");
    for name in &agents.names {
        writeln!(yaml, "  - {{agent_id: {name}}}")?;
    }
    if extra > 0 {
        for number in 0..=extra {
            writeln!(yaml, "  - {{agent_id: idle-{number}}}")?;
        }
    }
    Ok(yaml)
}
