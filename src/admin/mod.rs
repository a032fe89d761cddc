//! The admin listener: health, readiness, metrics and status over HTTP, for people and tools that operate the server.
//!
//! * [`http`]: the HTTP server; knows nothing of this one.
//! * `watch`: a thread that looks once a second at what nobody else looks at, and tells the other servers.
//! * `fleet`, `counts`: what all servers on one Redis report of themselves.
//! * `performance`: the last quarter of an hour, a point a second.
//! * `trail`: what Redis says of the trail.
//! * `sources`, `recent`, `seen`: where what is told is gathered from.
//! * `health`: whether the server is ready, with every reason.
//! * `metrics`, `process`: what a scrape is told.
//! * `status`: the same for people, as JSON.
//! * `events`, `fleet_events`: decisions as they are committed, here and by the other servers.
//! * `api`: everything else that is told as JSON, a file for each topic; `docs/admin-api.md` is its contract.
//! * `page`: the dashboard.
//! * `routes`: which path is answered by what, and to whom.
//!
//! Nothing here is on the way of a message: counts are the workers' own, and are added up when somebody asks.

mod api;
mod counts;
mod events;
mod fleet;
mod fleet_events;
mod health;
pub mod http;
mod metrics;
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
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ServerConfig;

use crate::certs::describe;
use crate::clock::Now;
use crate::config::{AdminListen, Config, ConfigError};
use crate::gate::Peers;
use crate::key_files::host_name;
use crate::shard::Shards;
use http::{HttpServer, Limits, Tls};
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
    /// A file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Threads, descriptors.
    #[error("the admin listener cannot be opened: {0}")]
    System(#[from] io::Error),
}

/// An address that is listened on, and nobody is answered yet.
pub struct Bound {
    listener: TcpListener,
    host: String,
    addr: SocketAddr,
}

impl Bound {
    /// Binds; `None` where that is off, or where nobody asked for it and the default address is taken.
    pub fn new(config: &Config) -> Result<Option<Self>, AdminError> {
        let (addr, asked) = match &config.admin_listen_addr {
            AdminListen::Off => return Ok(None),
            AdminListen::Default => (AdminListen::DEFAULT_ADDR, false),
            AdminListen::At(addr) => (addr.as_str(), true),
        };
        let listener = match TcpListener::bind(addr) {
            Ok(listener) => listener,
            Err(error) if !asked => {
                log::warn!(
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
    /// What it listens on, with its real port.
    pub addr: String,
    server: HttpServer,
    tls: Option<Arc<Tls>>,
    sources: Arc<Sources>,
    watch: Watch,
}

impl Admin {
    /// Answers whoever asks.
    pub fn start(
        config: &Config,
        Bound { listener, host, addr }: Bound,
        shards: &Arc<Shards>,
        (peers, listen_addr): (&Arc<Peers>, &str),
    ) -> Result<Self, AdminError> {
        // Whoever reaches it from elsewhere shows a certificate, and calls it by the names in the server's own.
        let (tls, names) = match addr.ip().is_loopback() {
            true => (None, Vec::new()),
            false => (Some(Arc::new(Tls::new(operators::tls(config)?))), names(config)),
        };
        let place = Place {
            host: host_name(),
            listen_addr: listen_addr.to_owned(),
            admin_addr: format!("{host}:{}", addr.port()),
            started_ms: Now::read().unix_us / 1000,
        };
        let sources = Arc::new(Sources::new(config, shards.clone(), peers.clone(), place));
        let watch = Watch::start(sources.clone())?;
        let routes = Arc::new(Routes::new(sources.clone(), tls.is_some()));
        let hosts = names.into_iter().chain([host.clone()]).collect();
        let limits = Limits { hosts, ..Limits::default() };
        let server = HttpServer::start(listener, tls.clone(), routes, limits)?;
        sources.count_with(server.counters().clone());
        Ok(Self { addr: format!("{host}:{}", addr.port()), server, tls, sources, watch })
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
    }

    /// What a reload would take up, read and checked; `None` where there is no TLS.
    pub fn read_tls(&self, config: &Config) -> Result<Option<ServerConfig>, ConfigError> {
        self.tls.as_ref().map(|_| operators::tls(config)).transpose()
    }

    /// Ends it.
    pub fn stop(self) {
        if !self.server.stop(Instant::now() + STOP_PATIENCE) {
            log::warn!("an answer of the admin listener was still being made at the stop");
        }
        drop(self.watch);
    }
}

/// The DNS names in the server's certificate.
fn names(config: &Config) -> Vec<String> {
    let sans = describe(&config.tls.cert).map(|description| description.sans).unwrap_or_default();
    let is_name = |name: &&str| !name.contains('*');
    sans.iter().filter_map(|san| san.strip_prefix("DNS:")).filter(is_name).map(str::to_owned).collect()
}
