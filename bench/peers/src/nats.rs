//! NATS JetStream: file storage, mutual TLS, publish acks awaited, durable pull consumers with explicit acks.
//!
//! Each receiver has a stream of its own, as an agent of the MAS server has an inbox of its own; the stream
//! drops a message when it is acknowledged (work queue), as that inbox does. Everything else is the server's
//! and the client library's default.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::AnyError;
use crate::drive::{
    self, ACK_PATIENCE, DRAIN_PATIENCE, Inbox, LOOK_INTERVAL, Load, Outcome, Receiver, Sender,
};
use crate::folder::Folder;
use crate::process::{End, Process, Program};

/// How long the server may take until it listens.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long one question to it may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// Measures a server of its own that syncs every `sync_interval`.
pub(crate) async fn measure(
    program: &Path,
    sync_interval: &str,
    pairs: usize,
    load: Load,
    folder: &mut Folder,
) -> Result<Outcome, AnyError> {
    let server = Server::start(program, sync_interval, folder).await?;
    let (mut senders, mut receivers, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..pairs {
        let receiving = server.connect().await?;
        let context = context(receiving.clone());
        let subject = format!("agent.r{index}");
        let stream = context
            .create_stream(Config {
                name: format!("r{index}"),
                subjects: vec![subject.clone()],
                storage: StorageType::File,
                retention: RetentionPolicy::WorkQueue,
                ..Config::default()
            })
            .await?;
        let consumer = stream
            .create_consumer(pull::Config {
                durable_name: Some("agent".to_owned()),
                ack_policy: AckPolicy::Explicit,
                ..pull::Config::default()
            })
            .await?;
        receivers.push(NatsReceiver { client: receiving, consumer });
        streams.push(stream);
        senders.push(NatsSender { context: context_of_sender(server.connect().await?), subject });
    }
    let mut outcome = drive::run(senders, receivers, load, ("nats-server", server.process.pid())).await?;
    outcome.left = Some(left(&streams).await?);
    Ok(outcome)
}

fn context(client: Client) -> Context {
    ContextBuilder::new().timeout(ANSWER_PATIENCE).build(client)
}

fn context_of_sender(client: Client) -> Context {
    ContextBuilder::new().timeout(ACK_PATIENCE).build(client)
}

/// Messages that the streams still hold, when acks under way have had their time.
async fn left(streams: &[jetstream::stream::Stream]) -> Result<u64, AnyError> {
    let give_up = Instant::now() + DRAIN_PATIENCE;
    loop {
        let mut left = 0;
        for stream in streams {
            left += stream.get_info().await?.state.messages;
        }
        if left == 0 || Instant::now() >= give_up {
            return Ok(left);
        }
        sleep(LOOK_INTERVAL).await;
    }
}

struct NatsSender {
    context: Context,
    subject: String,
}

impl Sender for NatsSender {
    async fn send(&self, payload: Vec<u8>) -> Result<(), AnyError> {
        let ack = self.context.publish(self.subject.clone(), payload.into()).await?;
        let _ = ack.await?;
        Ok(())
    }
}

struct NatsReceiver {
    client: Client,
    consumer: PullConsumer,
}

impl Receiver for NatsReceiver {
    async fn receive(self, inbox: Inbox, mut leave: watch::Receiver<bool>) -> Result<(), AnyError> {
        let mut messages = self.consumer.messages().await?;
        loop {
            tokio::select! {
                message = messages.next() => {
                    let message = message.ok_or("the consumer's stream ended")??;
                    inbox.take(&message.payload);
                    message.ack().await?;
                }
                // The other end is gone only when the run is.
                _ = leave.changed() => break,
            }
        }
        timeout(ANSWER_PATIENCE, self.client.flush()).await.map_err(|_| "acks cannot be written")??;
        Ok(())
    }
}

/// A server in a folder of its own, ended when dropped.
struct Server {
    process: Process,
    address: String,
    certs: Certs,
}

impl Server {
    async fn start(program: &Path, sync_interval: &str, folder: &mut Folder) -> Result<Self, AnyError> {
        let dir = folder.part()?;
        let certs = Certs::make(&dir)?;
        let file = dir.join("nats.conf");
        std::fs::write(&file, configuration(&dir, &certs, sync_interval))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&file);
        let program = Program {
            label: "nats-server",
            command: &mut command,
            dir: &dir,
            marker: &dir,
            end: End::Kill,
            stdout: None,
        };
        let mut process = Process::start(program, folder)?;
        let address = listening(&mut process, &dir).await?;
        Ok(Self { process, address, certs })
    }

    async fn connect(&self) -> Result<Client, AnyError> {
        let certs = &self.certs;
        let options = ConnectOptions::new()
            .require_tls(true)
            .add_root_certificates(certs.ca.clone())
            .add_client_certificate(certs.client.clone(), certs.client_key.clone())
            .connection_timeout(ANSWER_PATIENCE);
        let client = timeout(START_PATIENCE, options.connect(format!("tls://{}", self.address)));
        Ok(client.await.map_err(|_| "nats-server takes no connection")??)
    }
}

/// The server picks a free port itself, and says which in a file.
async fn listening(process: &mut Process, dir: &Path) -> Result<String, AnyError> {
    let file = dir.join(format!("nats-server_{}.ports", process.pid()));
    let give_up = Instant::now() + START_PATIENCE;
    loop {
        process.check()?;
        // Not there yet, or not whole yet.
        let ports = std::fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        if let Some(ports) = ports {
            let ports: serde_json::Value = ports;
            let url = ports.pointer("/nats/0").and_then(serde_json::Value::as_str).unwrap_or_default();
            return match url.split_once("://") {
                Some((_, address)) => Ok(address.to_owned()),
                None => Err(process.failure("does not say where it listens")),
            };
        }
        if Instant::now() >= give_up {
            return Err(process.failure(&format!("did not listen within {START_PATIENCE:?}")));
        }
        sleep(LOOK_INTERVAL).await;
    }
}

fn configuration(dir: &Path, certs: &Certs, sync_interval: &str) -> String {
    let (dir, ca) = (dir.display(), certs.ca.display());
    let (cert, key) = (certs.server.display(), certs.server_key.display());
    format!(
        r#"host: "127.0.0.1"
port: -1
ports_file_dir: "{dir}"
tls {{
  cert_file: "{cert}"
  key_file: "{key}"
  ca_file: "{ca}"
  verify: true
}}
jetstream {{
  store_dir: "{dir}/store"
  sync_interval: "{sync_interval}"
}}
"#
    )
}

/// Certificate files.
struct Certs {
    ca: PathBuf,
    server: PathBuf,
    server_key: PathBuf,
    client: PathBuf,
    client_key: PathBuf,
}

impl Certs {
    /// An authority, and a certificate each for the server and the clients.
    fn make(dir: &Path) -> Result<Self, AnyError> {
        let certs = Self {
            ca: dir.join("ca.pem"),
            server: dir.join("server.pem"),
            server_key: dir.join("server.key"),
            client: dir.join("client.pem"),
            client_key: dir.join("client.key"),
        };
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "peers");
        let key = KeyPair::generate()?;
        std::fs::write(&certs.ca, params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        let leaf =
            |names: Vec<String>, usage, name: &str, cert: &Path, file: &Path| -> Result<(), AnyError> {
                let mut params = CertificateParams::new(names)?;
                params.extended_key_usages = vec![usage];
                params.distinguished_name.push(DnType::CommonName, name);
                let key = KeyPair::generate()?;
                std::fs::write(cert, params.signed_by(&key, &issuer)?.pem())?;
                std::fs::write(file, key.serialize_pem())?;
                Ok(())
            };
        let hosts = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        leaf(hosts, ExtendedKeyUsagePurpose::ServerAuth, "nats", &certs.server, &certs.server_key)?;
        leaf(Vec::new(), ExtendedKeyUsagePurpose::ClientAuth, "agent", &certs.client, &certs.client_key)?;
        Ok(certs)
    }
}
