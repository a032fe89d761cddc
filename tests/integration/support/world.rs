//! A world: a folder with a certificate authority, a Redis, and the configuration of a server.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mas::archive::{ArchiveError, Part, Reading, Wanted};
use mas::audit::segment::Item;
use mas::audit::{Record, StoreKeys};
use mas::certs::{Authority, agent_files, ca_file};
use mas::ids::AgentId;
use mas::key_files::StoreKeyFile;
use mas::store::attested::{Message, OnRecord};
use mas::store::keys::ATTEST_FIELD;
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{Client, Gate, PATIENCE, Process, Redis};

/// Entries of a lane: id, then field names and bytes.
pub type Blocks = Vec<(String, Vec<(String, Vec<u8>)>)>;

/// The `agents` and `permissions` of a configuration, in YAML.
type YamlAgents = &'static str;

/// alpha and beta may talk, gamma and delta are there; nobody else may do anything.
const PAIR: YamlAgents = "\
permissions:
  - {type: allow_bidirectional, agents: [alpha, beta]}
agents:
  - {agent_id: alpha, capabilities: [plan]}
  - {agent_id: beta, capabilities: [work, rest], metadata: {level: 3}}
  - {agent_id: gamma}
  - {agent_id: delta}
";

/// Most tests are not about rates.
const UNLIMITED: &str = "rate_limit: {per_minute: 1000000, per_hour: 10000000}";

pub struct World {
    pub redis: Redis,
    pub authority: Authority,
    agents: String,
    settings: String,
    admin: String,
    gateway: String,
    /// The inside of `gateway.redis`, where it is not the default.
    redis_settings: Option<String>,
    // Dropped last.
    dir: TempDir,
}

pub struct Server {
    process: Process,
    pub addr: String,
    /// Of its admin listener.
    pub admin: Option<String>,
}

impl World {
    /// The program under test.
    pub const SERVER: &str = env!("CARGO_BIN_EXE_mas-server");
    /// The agents and permissions of [`World::new`].
    pub const PAIR: YamlAgents = PAIR;
    /// Four agents, `s0` to `s3`, each of which may send to both of two others, `r0` and `r1`.
    pub const FOUR_TO_TWO: YamlAgents = "\
permissions:
  - {type: allow_broadcast, sender: s0, receivers: [r0, r1]}
  - {type: allow_broadcast, sender: s1, receivers: [r0, r1]}
  - {type: allow_broadcast, sender: s2, receivers: [r0, r1]}
  - {type: allow_broadcast, sender: s3, receivers: [r0, r1]}
agents: [{agent_id: s0}, {agent_id: s1}, {agent_id: s2}, {agent_id: s3}, {agent_id: r0}, {agent_id: r1}]
";

    pub fn new() -> Self {
        Self::with(PAIR, "delivery: {reclaim_idle_ms: 300}\n")
    }

    /// With other agents and permissions, and further settings.
    pub fn with(agents: &str, settings: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("mas").tempdir_in("/tmp").unwrap();
        let authority = Authority::create(&dir.path().join("certs"), 30).unwrap();
        authority.issue_server(&["localhost".to_owned(), "127.0.0.1".to_owned()], 30).unwrap();
        let redis = Redis::start(&dir.path().join("redis"));
        let world = Self {
            redis,
            authority,
            agents: agents.to_owned(),
            settings: settings.to_owned(),
            admin: "null".to_owned(),
            gateway: UNLIMITED.to_owned(),
            redis_settings: None,
            dir,
        };
        world.write_config();
        world
    }

    /// Replaces the `gateway` settings beside Redis, as the inside of a YAML flow mapping.
    pub fn set_gateway(&mut self, gateway: &str) {
        gateway.clone_into(&mut self.gateway);
        self.write_config();
    }

    /// Replaces the `gateway.redis` settings, as the inside of a YAML flow mapping.
    pub fn set_redis(&mut self, settings: &str) {
        self.redis_settings = Some(settings.to_owned());
        self.write_config();
    }

    /// Where the admin listener of the servers to come is: `host:port`, or `null`.
    pub fn set_admin(&mut self, addr: &str) {
        addr.clone_into(&mut self.admin);
        self.write_config();
    }

    /// Replaces the further settings.
    pub fn set_settings(&mut self, settings: &str) {
        settings.clone_into(&mut self.settings);
        self.write_config();
    }

    /// Replaces agents and permissions.
    pub fn set_agents(&mut self, agents: &str) {
        agents.clone_into(&mut self.agents);
        self.write_config();
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn certs(&self) -> PathBuf {
        self.path().join("certs")
    }

    pub fn config_path(&self) -> PathBuf {
        self.path().join("mas.yaml")
    }

    fn write_config(&self) {
        let default = || format!("url: '{}', socket_timeout: 2", self.redis.url());
        self.write_config_as(&self.config_path(), &self.redis_settings.clone().unwrap_or_else(default));
    }

    /// The same configuration with other `gateway.redis` settings, in another file of the world's folder.
    pub fn write_config_as(&self, path: &Path, redis: &str) {
        let text = format!(
            "server_listen_addr: 127.0.0.1:0\nadmin_listen_addr: {}\ntls_ca_path: certs/ca.pem\ntls_server_cert_path: certs/server.pem\n\
             tls_server_key_path: certs/server.key\ngateway: {{redis: {{{redis}}}, {}}}\n{}{}",
            self.admin, self.gateway, self.settings, self.agents
        );
        std::fs::write(path, text).unwrap();
    }

    pub fn server(&self) -> Server {
        self.server_on("127.0.0.1:0")
    }

    pub fn server_on(&self, addr: &str) -> Server {
        self.server_by(Command::new(World::SERVER), addr, &self.config_path())
    }

    /// A server with so many worker threads, and with `redis` as the inside of its `gateway.redis`.
    pub fn server_with(&self, threads: usize, redis: &str) -> Server {
        static CONFIGS: AtomicUsize = AtomicUsize::new(0);
        let name = format!("mas-{}.yaml", CONFIGS.fetch_add(1, Ordering::Relaxed));
        let config = self.path().join(name);
        self.write_config_as(&config, redis);
        let mut command = Command::new(World::SERVER);
        command.args(["--threads", &threads.to_string(), "--listen", "127.0.0.1:0", "--config"]);
        Server::start(command.arg(config).stderr(self.log()))
    }

    /// A server that reaches Redis through `gate`.
    pub fn server_behind(&self, gate: &Gate) -> Server {
        self.server_with(2, &format!("url: '{}', socket_timeout: 2", gate.url()))
    }

    /// A gate to this world's Redis.
    pub fn gate(&self, name: &str) -> Gate {
        Gate::start(&self.path().join(name), &self.redis)
    }

    /// A server that `command` starts, which lacks the arguments.
    pub fn server_by(&self, mut command: Command, addr: &str, config: &Path) -> Server {
        command.args(["--threads", "2", "--listen", addr, "--config"]).arg(config);
        Server::start(command.stderr(self.log()))
    }

    fn log_path(&self) -> PathBuf {
        self.path().join("server.log")
    }

    /// Where the server's log goes: to a file, or to whoever looks at a failed test.
    fn log(&self) -> Stdio {
        if std::env::var_os("MAS_TEST_LOG").is_some() {
            return Stdio::inherit();
        }
        std::fs::File::options().create(true).append(true).open(self.log_path()).unwrap().into()
    }

    /// What the server has logged so far.
    pub fn logged(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// A `mas` command with this world's configuration, run to its end.
    pub fn mas(&self, args: &[&str]) -> Output {
        self.mas_command(args).output().unwrap()
    }

    /// A `mas` command with this world's configuration.
    pub fn mas_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mas"));
        command.args(args).current_dir(self.path()).env_remove("MAS_CONFIG_FILE");
        command
    }

    /// A server run to its end: one that does not start.
    pub fn mas_server(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_mas-server"))
            .args(args)
            .current_dir(self.path())
            .env_remove("MAS_CONFIG_FILE")
            .output()
            .unwrap()
    }

    /// A client with a certificate of that agent.
    pub fn client(&self, server: &Server, agent: &str) -> Client {
        let (cert, key) = self.certificate(agent);
        self.client_with(server, cert, key)
    }

    pub fn client_with(&self, server: &Server, cert: Vec<u8>, key: Vec<u8>) -> Client {
        Client::new(&server.addr, std::fs::read(ca_file(&self.certs())).unwrap(), Some((cert, key)))
    }

    pub fn certificate(&self, agent: &str) -> (Vec<u8>, Vec<u8>) {
        let id = AgentId::parse(agent).unwrap();
        let files = agent_files(&self.certs(), &id);
        if !files.cert.exists() {
            self.authority.issue_agent(&id, 30).unwrap();
        }
        (std::fs::read(files.cert).unwrap(), std::fs::read(files.key).unwrap())
    }

    /// The keys whose tags are on what servers store.
    pub fn store_keys(&self) -> StoreKeys {
        let file = StoreKeyFile::new(&self.path().join("keys/store.key"));
        file.load(u64::MAX).unwrap().expect("a server has started").keys
    }

    /// The fields of an inbox's entry as a server of this world writes it: each time another one.
    pub fn entry_fields(&self, stream: &str, envelope: &str) -> Vec<(&'static str, Vec<u8>)> {
        static RECORDS: AtomicUsize = AtomicUsize::new(1);
        let message = Message::whole(stream, envelope);
        let seq = RECORDS.fetch_add(1, Ordering::Relaxed) as u64;
        let mut attest = String::new();
        message.attest(&self.store_keys(), OnRecord { lane: "another-w0-c1", seq }, None, &mut attest);
        vec![("envelope", envelope.as_bytes().to_vec()), (ATTEST_FIELD, attest.into_bytes())]
    }

    /// Adds an entry to an inbox as a server of this world does.
    pub fn add_entry(&self, stream: &str, envelope: &str) -> String {
        let mut command = redis::cmd("XADD");
        command.arg(stream).arg("*");
        for (name, value) in self.entry_fields(stream, envelope) {
            command.arg(name).arg(value);
        }
        command.query(&mut self.redis.connection()).unwrap()
    }

    /// What `mas audit verify` says: its exit code and its JSON.
    pub fn verify(&self) -> (i32, serde_json::Value) {
        let output = self.mas(&["audit", "verify", "--json"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text:?} {said}"));
        (output.status.code().unwrap(), report)
    }

    #[track_caller]
    pub fn assert_intact(&self) {
        let (code, report) = self.verify();
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["intact"], true);
    }

    /// Where the record that admits a message is: the lane's key, and its block's id.
    pub fn block_of(&self, message_id: &str) -> (String, String) {
        for lane in self.redis.keys().into_iter().filter(|key| key.starts_with("audit:lane:")) {
            let blocks: Blocks = self.redis.query(&["XRANGE", &lane, "-", "+"]);
            for (id, fields) in blocks {
                let parts = mas::audit::lane::split_block(&fields[0].1).unwrap();
                let mut records = parts.into_iter().map(|part| Record::decode(part).unwrap());
                if records.any(|record| record.message_id.is_some_and(|m| m.to_string() == message_id)) {
                    return (lane, id);
                }
            }
        }
        panic!("no record of {message_id}");
    }

    /// Every audit record, by time: those in the archive, and those in Redis behind them.
    pub fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        let mut known: HashMap<String, u64> = HashMap::new();
        let mut take = |lane: &str, first: u64, bytes: &[u8]| {
            let parts = mas::audit::lane::split_block(bytes).unwrap();
            let last = first + parts.len() as u64 - 1;
            let known = known.entry(lane.to_owned()).or_default();
            if last > *known {
                *known = last;
                records.extend(parts.into_iter().map(|part| Record::decode(part).unwrap()));
            }
        };
        // What leaves Redis while it is read is on disk before: so that is read once more, at the end.
        let archived = |take: &mut dyn FnMut(&str, u64, &[u8])| {
            let folders = ["audit-archive", "archive"].map(|name| self.path().join(name));
            let Some(mut reading) = Reading::open(&folders).unwrap() else { return };
            let all = Wanted { whole: true, ..Wanted::default() };
            let read = reading.read::<ArchiveError>(all, &mut |part| {
                if let Part::Item(Item::Block { lane, first, bytes, .. }) = part {
                    take(lane, *first, bytes);
                }
                Ok(ControlFlow::Continue(()))
            });
            let _ = read.unwrap();
        };
        archived(&mut take);
        let mut live = Vec::new();
        for key in self.redis.keys() {
            if let Some(lane) = key.strip_prefix("audit:lane:") {
                let blocks: Blocks = self.redis.query(&["XRANGE", &key, "-", "+"]);
                live.extend(blocks.into_iter().map(|(id, fields)| (lane.to_owned(), id, fields)));
            }
        }
        archived(&mut take);
        for (lane, id, fields) in live {
            let first = id.split_once('-').unwrap().0.parse().unwrap();
            take(&lane, first, &fields[0].1);
        }
        records.sort_by_key(|record| record.time_us);
        records
    }
}

impl Server {
    pub fn start(command: &mut Command) -> Self {
        let mut process = Process::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let stdout = process.child().stdout.take().unwrap();
        let (sender, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let line = line.recv_timeout(PATIENCE).expect("a ready line");
        let ready: serde_json::Value =
            serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert_eq!(ready["event"], "mas.server.ready");
        assert_eq!(ready["pid"], process.pid());
        let admin = ready["admin_addr"].as_str().map(str::to_owned);
        Self { addr: ready["listen_addr"].as_str().unwrap().to_owned(), admin, process }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn kill(&mut self) {
        self.process.kill();
    }

    pub fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// CPU that the server uses while nothing is asked of it, in hundredths of a second.
    pub fn cpu_ticks_during(&self, span: Duration) -> u64 {
        let ticks = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
            let fields = stat.rsplit_once(')').unwrap().1.split_whitespace();
            fields.skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum::<u64>()
        };
        let (before, end) = (ticks(), Instant::now() + span);
        while Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(50));
        }
        ticks() - before
    }

    /// SIGSTOP, and every thread of it stands still.
    pub fn halt(&self) {
        self.process.halt();
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until it is gone, however.
    pub fn wait_killed(&mut self) {
        let _ = self.process.wait();
    }

    pub fn has_ended(&mut self) -> bool {
        self.process.has_ended()
    }

    /// How it ends by itself.
    pub fn wait_code(&mut self) -> Option<i32> {
        self.process.wait().code()
    }

    /// SIGTERM, and out in order.
    pub fn stop(&mut self) {
        self.process.signal(Signal::SIGTERM);
        assert_eq!(self.process.wait().code(), Some(0));
    }
}
