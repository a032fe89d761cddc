//! The admin listener: health, readiness, metrics and status over HTTP, for people and tools that operate the server.
//!
//! * [`http`]: the HTTP server; knows nothing of this one.
//! * `watch`: a thread that looks once a second at what nobody else looks at, and tells the other servers.
//! * `fleet`, `counts`: what all servers on one Redis report of themselves.
//! * `disks`: a thread that looks at the disks of the trail.
//! * `performance`: the last quarter of an hour, a point a second.
//! * `trail`: what Redis says of the trail.
//! * `sources`, `recent`, `seen`: where what is told is gathered from.
//! * `health`: whether the server is ready, with every reason. `notes`: what keeps single agents from being served.
//! * `metrics`, `exposition`, `process`: what a scrape is told.
//! * `status`: the same for people, as JSON.
//! * `events`, `fleet_events`: decisions as they are committed, here and by the other servers.
//! * `api`: everything else that is told as JSON, a file for each topic; `docs/admin-api.md` is its contract.
//! * `page`: the dashboard.
//! * `local`, `heir`: the unix socket for users of this host, and how it is taken over.
//! * `commands`: what operators have done, by role.
//! * `routes`: which path is answered by what, and to whom.
//!
//! Nothing here is on the way of a message: counts are the workers' own, and are added up when somebody asks.

mod api;
mod commands;
mod counts;
mod disks;
mod events;
mod exposition;
mod fleet;
mod fleet_events;
mod health;
mod heir;
pub mod http;
mod local;
mod metrics;
mod notes;
mod operators;
mod page;
mod performance;
mod process;
mod recent;
mod routes;
mod seen;
mod sources;
mod status;
mod trail;
mod watch;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::certs::describe;
use crate::clock::Now;
use crate::config::{AdminListen, Config, ConfigError};
use crate::gate::Peers;
use crate::key_files::host_name;
use crate::shard::Shards;
use disks::Disks;
use heir::Socket;
use http::{HttpServer, Limits, Tls};
use local::Local;
use routes::Routes;
use sources::Sources;
use status::Place;
use watch::Watch;

/// How long a stop waits for answers that have begun.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no admin listener.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address.
    #[error("admin_listen_addr: cannot listen on {addr}: {source}")]
    Bind {
        /// What was asked for.
        addr: String,
        /// The system's word.
        source: io::Error,
    },
    /// The unix socket.
    #[error("admin_socket_path: cannot listen on {path}: {source}", path = path.display())]
    Socket {
        /// What was asked for.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// A file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Threads, descriptors.
    #[error("the admin listener cannot be opened: {0}")]
    System(#[from] io::Error),
}

/// What is listened on, and nobody is answered yet.
pub struct Bound {
    tcp: Option<BoundAddr>,
    local: Option<Local>,
}

struct BoundAddr {
    listener: TcpListener,
    host: String,
    addr: SocketAddr,
}

impl Bound {
    /// Binds. What nobody asked for is left out where the default cannot be had.
    pub fn new(config: &Config) -> Result<Self, AdminError> {
        let tcp = BoundAddr::new(config)?;
        let local = Local::bind(&config.admin_socket, &config.operators)
            .map_err(|(path, source)| AdminError::Socket { path, source })?;
        Ok(Self { tcp, local })
    }
}

impl BoundAddr {
    fn new(config: &Config) -> Result<Option<Self>, AdminError> {
        let (addr, asked) = match &config.admin_listen_addr {
            AdminListen::Off => return Ok(None),
            AdminListen::Default => (AdminListen::DEFAULT_ADDR, false),
            AdminListen::At(addr) => (addr.as_str(), true),
        };
        let listener = match TcpListener::bind(addr) {
            Ok(listener) => listener,
            Err(error) if !asked => {
                log::warn!(
                    code = "admin_listener_missing", addr;
                    "no admin listener: {addr}, the default of admin_listen_addr, cannot be had: {error}"
                );
                return Ok(None);
            }
            Err(source) => return Err(AdminError::Bind { addr: addr.to_owned(), source }),
        };
        let host = addr.rsplit_once(':').map_or(addr, |(host, _)| host).to_owned();
        let addr = listener.local_addr()?;
        Ok(Some(Self { listener, host, addr }))
    }
}

/// The running listener.
pub struct Admin {
    /// What it listens on, with its real port; `None`: on no address.
    pub addr: Option<String>,
    tcp: Option<HttpServer>,
    local: Socket,
    tls: Option<Arc<Tls>>,
    sources: Arc<Sources>,
    watch: Watch,
    disks: Disks,
}

impl Admin {
    /// Answers whoever asks.
    pub fn start(
        config: &Config,
        Bound { tcp, local }: Bound,
        shards: &Arc<Shards>,
        (peers, listen_addr): (&Arc<Peers>, &str),
    ) -> Result<Self, AdminError> {
        let is_remote = tcp.as_ref().is_some_and(|bound| !bound.addr.ip().is_loopback());
        // Whoever reaches it from elsewhere shows a certificate, and calls it by the names in the server's own.
        let (tls, names) = match is_remote {
            true => (Some(Arc::new(Tls::new(operators::tls(config)?))), names(config)),
            false => (None, Vec::new()),
        };
        let mut addr = None;
        if let Some(bound) = &tcp {
            addr = Some(format!("{}:{}", bound.host, bound.addr.port()));
        }
        let place = Place {
            host: host_name(),
            listen_addr: listen_addr.to_owned(),
            admin_addr: addr.clone().unwrap_or_default(),
            started_ms: Now::read().unix_us / 1000,
        };
        let sources = Arc::new(Sources::new(config, shards.clone(), peers.clone(), place));
        let watch = Watch::start(sources.clone())?;
        let disks = Disks::watch(sources.clone())?;
        let routes = Arc::new(Routes::new(sources.clone(), is_remote));
        let tcp = match tcp {
            Some(BoundAddr { listener, host, .. }) => {
                let limits = Limits { hosts: names.into_iter().chain([host]).collect(), ..Limits::default() };
                Some(HttpServer::start(listener, tls.clone(), routes.clone(), limits)?)
            }
            None => None,
        };
        if let Some(server) = &tcp {
            sources.count_with(server.counters().clone());
        }
        let path = config.admin_socket.path.clone().filter(|_| !config.admin_socket.asked);
        let local = Socket::start(local, path, &routes, &sources)?;
        Ok(Self { addr, tcp, local, tls, sources, watch, disks })
    }

    /// What a scrape is told, whenever it is asked; `None` where it cannot be written.
    pub fn page(&self) -> impl Fn() -> Option<String> + Send + use<> {
        let sources = self.sources.clone();
        move || metrics::write(sources.gather(), exposition::Format::Prometheus).ok()
    }

    /// The server is about to stop: nothing is looked at any more.
    pub fn drain(&self) {
        self.watch.end();
    }

    /// Takes up other certificates, and other operators.
    pub fn reload(&self, config: &Config, tls: Option<ServerConfig>) {
        if let (Some(own), Some(tls)) = (&self.tls, tls) {
            own.replace(tls);
        }
        self.sources.reload(config);
        if let Some((_, file)) = &*self.local.listening()
            && let Err(error) = file.admit(&config.operators)
        {
            log::warn!(
                code = "admin_socket_mode_not_set";
                "admin_socket_path: the file's mode could not be changed: {error}"
            );
        }
    }

    /// What a reload would take up, read and checked; `None` where there is no TLS.
    pub fn read_tls(&self, config: &Config) -> Result<Option<ServerConfig>, ConfigError> {
        self.tls.as_ref().map(|_| operators::tls(config)).transpose()
    }

    /// Ends it.
    pub fn stop(self) {
        let Self { tcp, local, watch, disks, .. } = self;
        let (local, file) = local.end().unzip();
        for server in tcp.into_iter().chain(local) {
            if !server.stop(Instant::now() + STOP_PATIENCE) {
                log::warn!(
                    code = "admin_answer_unfinished";
                    "an answer of the admin listener was still being made at the stop"
                );
            }
        }
        drop((file, watch, disks));
    }
}

/// The DNS names in the server's certificate.
fn names(config: &Config) -> Vec<String> {
    let sans = describe(&config.tls.cert).map(|description| description.sans).unwrap_or_default();
    let is_name = |name: &&str| !name.contains('*');
    sans.iter().filter_map(|san| san.strip_prefix("DNS:")).filter(is_name).map(str::to_owned).collect()
}
