//! How a connection to Redis is made: over a socket, TCP or TLS, to where the URL says or to whichever Redis
//! the Sentinels call the primary. Certificates are read, and Sentinels asked, for each connection anew, so a
//! renewed certificate and a failover need no restart.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, RedisError,
    TlsCertificates,
};

use super::answers::text;
use super::connection::{Connection, StoreError};
use super::primary::{Lead, Primary};
use crate::config::{self, RedisTls, Sentinel};
use crate::files::{self, MAX_MATERIAL_BYTES};
use redis::Value;

/// Longest that one Sentinel is waited for: the next one may know.
const SENTINEL_PATIENCE: Duration = Duration::from_millis(500);

/// Where Redis is. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Endpoint {
    address: Arc<Address>,
    timeout: Duration,
}

struct Address {
    url: String,
    tls: RedisTls,
    sentinel: Option<Sentinel>,
    primary: Arc<Primary>,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("Address").field("sentinel", &self.sentinel).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// The configured Redis.
    pub fn new(config: &config::Redis) -> Self {
        let (url, tls, sentinel) = (config.url.clone(), config.tls.clone(), config.sentinel.clone());
        let address = Address { url, tls, sentinel, primary: Arc::default() };
        Self { address: Arc::new(address), timeout: Duration::from_millis(config.timeout_ms) }
    }

    /// A Redis at an address, without anything of a configuration: for tools.
    pub fn at(url: &str, timeout: Duration) -> Self {
        let (url, tls) = (url.to_owned(), RedisTls::default());
        let address = Address { url, tls, sentinel: None, primary: Arc::default() };
        Self { address: Arc::new(address), timeout }
    }

    /// The same, where no step takes longer than `timeout`.
    #[must_use]
    pub fn within(&self, timeout: Duration) -> Self {
        Self { address: self.address.clone(), timeout: self.timeout.min(timeout) }
    }

    /// How long one round trip may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Connects, to the primary where Sentinels are asked.
    pub fn open(&self) -> Result<Connection, StoreError> {
        let (client, lead) = self.find()?;
        let mut connection = Connection::open(&client, self.timeout)?;
        if let Some(lead) = lead {
            // What a Sentinel knows may be old.
            check_role(&mut connection, client.get_connection_info().addr())?;
            connection.led(lead);
        }
        Ok(connection)
    }

    /// Asks the Sentinels, where there are any, which Redis is the primary. Connections that lead to another one refuse to be
    /// used from now on. True where it has changed.
    pub fn look_at_primary(&self) -> bool {
        if self.address.sentinel.is_none() {
            return false;
        }
        // Sentinels that do not answer say nothing.
        let Ok(client) = self.client() else {
            return false;
        };
        self.address.primary.set(client.get_connection_info().addr().to_string())
    }

    /// A client of where Redis is now, and where Sentinels have led to; connects to nothing but Sentinels.
    pub(super) fn find(&self) -> Result<(Client, Option<Lead>), StoreError> {
        // Before they are asked: what they say is newer.
        let lead = self.address.sentinel.is_some().then(|| Lead::new(self.address.primary.clone()));
        let client = self.client()?;
        let lead = lead.map(|lead| lead.to(client.get_connection_info().addr().to_string()));
        Ok((client, lead))
    }

    fn client(&self) -> Result<Client, StoreError> {
        let address = &self.address;
        let info = address.url.as_str().into_connection_info().map_err(StoreError::Unreachable)?;
        let Some(sentinel) = &address.sentinel else {
            return self.client_of(info);
        };
        let mut last = None;
        for (host, port) in sentinel.places() {
            let asked = placed(info.addr(), host.to_owned(), port).into_connection_info();
            let asked = asked.map_err(StoreError::Unreachable);
            match asked.and_then(|sentinel_info| self.ask(sentinel_info, &sentinel.master)) {
                Ok(Some((host, port))) => {
                    let addr = placed(info.addr(), host, port);
                    return self.client_of(info.set_addr(addr));
                }
                Ok(None) => {
                    last = last.or_else(|| Some(no_primary(&format!("{host}:{port} does not know it"))));
                }
                Err(error) => last = Some(no_primary(&format!("{host}:{port}: {error}"))),
            }
        }
        Err(last.unwrap_or_else(|| no_primary("no Sentinel is configured")))
    }

    fn client_of(&self, info: ConnectionInfo) -> Result<Client, StoreError> {
        let RedisTls { ca, cert, key } = &self.address.tls;
        if !matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
            return Client::open(info).map_err(StoreError::Unreachable);
        }
        let root_cert = ca.as_deref().map(read).transpose()?;
        let client_tls = match (cert, key) {
            (Some(cert), Some(key)) => {
                Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? })
            }
            _ => None,
        };
        let certificates = TlsCertificates { client_tls, root_cert };
        Client::build_with_tls(info, certificates).map_err(StoreError::Unreachable)
    }

    /// Where a Sentinel says the primary is.
    fn ask(&self, info: ConnectionInfo, master: &str) -> Result<Option<(String, u16)>, StoreError> {
        let client = self.client_of(info)?;
        let mut connection = Connection::open(&client, self.timeout.min(SENTINEL_PATIENCE))?;
        let answer = connection.command("SENTINEL", &["get-master-addr-by-name", master])?;
        match &answer {
            Value::Nil => Ok(None),
            Value::Array(parts) => match parts.as_slice() {
                [host, port] => match (text(host), text(port).and_then(|port| port.parse().ok())) {
                    (Some(host), Some(port)) => Ok(Some((host.to_owned(), port))),
                    _ => Err(unexpected("SENTINEL", &answer)),
                },
                _ => Err(unexpected("SENTINEL", &answer)),
            },
            _ => Err(unexpected("SENTINEL", &answer)),
        }
    }
}

/// The same kind of address elsewhere.
fn placed(like: &ConnectionAddr, host: String, port: u16) -> ConnectionAddr {
    match like {
        ConnectionAddr::TcpTls { insecure, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: None }
        }
        _ => ConnectionAddr::Tcp(host, port),
    }
}

fn check_role(connection: &mut Connection, addr: &ConnectionAddr) -> Result<(), StoreError> {
    let role = connection.command("ROLE", &[])?;
    let role = match &role {
        Value::Array(parts) => parts.first().and_then(text),
        _ => None,
    };
    match role {
        Some("master") => Ok(()),
        other => Err(no_primary(&format!("{addr} is a {}", other.unwrap_or("stranger")))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    files::read(path, MAX_MATERIAL_BYTES).map_err(|error| {
        let what = format!("{}: {error}", path.display());
        StoreError::Unreachable(RedisError::from((
            ErrorKind::InvalidClientConfig,
            "a file of gateway.redis.tls",
            what,
        )))
    })
}

fn no_primary(why: &str) -> StoreError {
    StoreError::NoPrimary(why.to_owned())
}

fn unexpected(command: &'static str, answer: &Value) -> StoreError {
    StoreError::Unexpected { command, answer: format!("{answer:?}").chars().take(200).collect() }
}
