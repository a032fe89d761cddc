//! Redis Streams and a client as one would write it by hand: no server between, and with that no TLS here, no
//! policy and no audit.
//!
//! A sender has one connection that takes any number of `XADD`s under way; a receiver has one on which it
//! acknowledges and deletes what it has together with asking for more: `XACK`, `XDEL`, `XREADGROUP … BLOCK` in
//! one pipeline. TCP on the loopback, as between machines; the MAS server's own Redis has a unix socket.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Pipeline, cmd, pipe};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::AnyError;
use crate::drive::{self, ACK_PATIENCE, Inbox, LOOK_INTERVAL, Load, Outcome, Receiver, Sender};
use crate::folder::Folder;
use crate::process::{End, Process, Program};

/// How long the server may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// A port that was free may be taken by the time that Redis wants it.
const MAX_STARTS: u32 = 3;
/// How long `XREADGROUP` waits for a message; with that, how late a receiver sees that it is over.
const BLOCK_MS: usize = 200;
const GROUP: &str = "agents";
const CONSUMER: &str = "agent";
const FIELD: &str = "d";

/// Stream, and its entries: id, and one field.
type Read = Option<Vec<(String, Vec<(String, (String, Vec<u8>))>)>>;

/// How a Redis and its receivers are set up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) appendfsync: &'static str,
    pub(crate) pairs: usize,
    /// Messages that one `XREADGROUP` may bring.
    pub(crate) read_count: u16,
}

/// Measures a Redis of its own.
pub(crate) async fn measure(
    program: &Path,
    setup: Setup,
    load: Load,
    folder: &mut Folder,
) -> Result<Outcome, AnyError> {
    let server = Server::start(program, setup.appendfsync, folder).await?;
    let (mut senders, mut receivers, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let mut control = server.connect().await?;
    for index in 0..setup.pairs {
        let key = format!("agent.stream:r{index}");
        let create = ["CREATE", &key, GROUP, "0", "MKSTREAM"];
        let () = cmd("XGROUP").arg(&create).query_async(&mut control).await?;
        senders.push(RedisSender { connection: server.connect().await?, key: key.clone() });
        let connection = server.connect().await?;
        receivers.push(RedisReceiver { connection, key: key.clone(), read_count: setup.read_count });
        keys.push(key);
    }
    let mut outcome = drive::run(senders, receivers, load, ("redis-server", server.process.pid())).await?;
    let mut left = 0;
    for key in keys {
        let length: u64 = cmd("XLEN").arg(key).query_async(&mut control).await?;
        left += length;
    }
    outcome.left = Some(left);
    Ok(outcome)
}

struct RedisSender {
    connection: MultiplexedConnection,
    key: String,
}

impl Sender for RedisSender {
    async fn send(&self, payload: Vec<u8>) -> Result<(), AnyError> {
        // Clones share the connection: what waits at the same time goes out in one write.
        let mut connection = self.connection.clone();
        let mut add = cmd("XADD");
        let () = add.arg(&self.key).arg("*").arg(FIELD).arg(payload).query_async(&mut connection).await?;
        Ok(())
    }
}

struct RedisReceiver {
    connection: MultiplexedConnection,
    key: String,
    read_count: u16,
}

impl RedisReceiver {
    /// A pipeline that acknowledges `ids` and drops them from the stream.
    fn acknowledge(&self, ids: &[String]) -> Pipeline {
        let mut pipeline = pipe();
        if !ids.is_empty() {
            pipeline.cmd("XACK").arg(&self.key).arg(GROUP).arg(ids).ignore();
            pipeline.cmd("XDEL").arg(&self.key).arg(ids).ignore();
        }
        pipeline
    }
}

impl Receiver for RedisReceiver {
    async fn receive(mut self, inbox: Inbox, leave: watch::Receiver<bool>) -> Result<(), AnyError> {
        let mut ids = Vec::new();
        while !*leave.borrow() {
            let mut pipeline = self.acknowledge(&ids);
            pipeline.cmd("XREADGROUP").arg(&["GROUP", GROUP, CONSUMER]);
            pipeline.arg("COUNT").arg(self.read_count).arg("BLOCK").arg(BLOCK_MS);
            pipeline.arg(&["STREAMS", &self.key, ">"]);
            let (read,): (Read,) = pipeline.query_async(&mut self.connection).await?;
            ids.clear();
            for (_, entries) in read.unwrap_or_default() {
                for (id, (_, payload)) in entries {
                    inbox.take(&payload);
                    ids.push(id);
                }
            }
        }
        if !ids.is_empty() {
            let () = self.acknowledge(&ids).query_async(&mut self.connection).await?;
        }
        Ok(())
    }
}

/// A server in a folder of its own, ended when dropped.
struct Server {
    process: Process,
    client: Client,
}

impl Server {
    async fn start(program: &Path, appendfsync: &str, folder: &mut Folder) -> Result<Self, AnyError> {
        let mut starts = 0;
        loop {
            starts += 1;
            match Self::start_once(program, appendfsync, folder).await {
                Err(error) if starts >= MAX_STARTS => return Err(error),
                Err(error) => eprintln!("peers: {error}\npeers: once more"),
                Ok(server) => return Ok(server),
            }
        }
    }

    async fn start_once(program: &Path, appendfsync: &str, folder: &mut Folder) -> Result<Self, AnyError> {
        let dir = folder.part()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let file = dir.join("redis.conf");
        // The same as the MAS server's managed Redis, but for the port.
        let configuration = format!(
            "bind 127.0.0.1\nport {port}\ndir {}\nappendonly yes\nappendfsync {appendfsync}\nsave \"\"\n\
             maxmemory-policy noeviction\ndaemonize no\n",
            dir.display()
        );
        std::fs::write(&file, configuration)?;
        let mut command = Command::new(program);
        command.arg(&file);
        // Redis shows its address instead of its arguments, its working folder stays.
        let process = Process::start(
            Program {
                label: "redis-server",
                command: command.args(["--set-proc-title", "no"]),
                dir: &dir,
                marker: &dir,
                end: End::Kill,
                stdout: None,
            },
            folder,
        )?;
        let client = Client::open(format!("redis://127.0.0.1:{port}"))?;
        let mut server = Self { process, client };
        server.wait_until_it_answers().await?;
        Ok(server)
    }

    async fn wait_until_it_answers(&mut self) -> Result<(), AnyError> {
        let give_up = Instant::now() + START_PATIENCE;
        loop {
            self.process.check()?;
            let problem = match self.pid_of_the_listener().await {
                // Another one's port: ours is about to end.
                Ok(pid) if pid != self.process.pid() => "another Redis listens there".into(),
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if Instant::now() >= give_up {
                return Err(self.process.failure(&format!("does not answer: {problem}")));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    async fn pid_of_the_listener(&self) -> Result<u32, AnyError> {
        let mut connection = self.connect().await?;
        let info: redis::InfoDict = cmd("INFO").arg("server").query_async(&mut connection).await?;
        info.get("process_id").ok_or_else(|| "INFO does not say whose it is".into())
    }

    async fn connect(&self) -> Result<MultiplexedConnection, AnyError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(START_PATIENCE))
            .set_response_timeout(Some(ACK_PATIENCE));
        Ok(self.client.get_multiplexed_async_connection_with_config(&config).await?)
    }
}
