//! How commands ask a running server, at its admin listener.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use nix::unistd::Uid;
use serde::Deserialize;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::{Agent, Body, http::Response};

use super::exit::Exit;
use super::socket::{self, Found};
use crate::config::{AdminListen, Config};
use crate::operation::{Command, Done};

/// Longest that a server may take to begin its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where it carries out a command, and waits for the checkpoint that covers it.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer that is read as a whole, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Which server is asked, and as whom.
#[derive(Debug, Clone, Default, Args)]
pub struct AdminArgs {
    /// The configuration of the server; else MAS_CONFIG_FILE, else mas.yaml upward.
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Its admin listener: host:port, or a URL; else the unix socket of the configuration, where a server runs here.
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// The certificate of an operator: for a listener that others can reach.
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its private key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// The authority that the server's certificate comes from; else that of the configuration.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// An argument, the configuration, or a file that they name.
    #[error("{0}")]
    Usage(String),
    /// The server.
    #[error("no answer of {url}: {why}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Why.
        why: String,
    },
    /// It refused to answer.
    #[error("{url}: {status}: {why}")]
    Refused {
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
        /// Its word.
        why: String,
    },
    /// Nobody reads on.
    #[error("the output is closed")]
    Output(#[from] std::io::Error),
}

/// How a command ends.
pub fn exit(command: &str, outcome: Result<Exit, Trouble>) -> Exit {
    match outcome {
        Ok(exit) => exit,
        Err(Trouble::Output(_)) => Exit::Done,
        Err(error) => {
            eprintln!("mas {command}: {error}");
            if matches!(error, Trouble::Usage(_)) { Exit::Usage } else { Exit::Failed }
        }
    }
}

impl AdminArgs {
    /// That of a configuration.
    pub(super) fn of(config: Option<PathBuf>) -> Self {
        Self { config, ..Self::default() }
    }

    /// A way to ask the server, again and again: at its unix socket, where no address is given and one listens there.
    pub(super) fn asker(&self) -> Result<Asker, Trouble> {
        let config = match (&self.admin, &self.ca) {
            (Some(_), Some(_)) => None,
            (Some(_), None) => Config::locate_and_load(self.config.as_deref()).ok(),
            (None, _) => Some(self.configuration()?),
        };
        if let (None, Some(config)) = (&self.admin, &config)
            && let Some(path) = &config.admin_socket.path
        {
            let trusted = trusted(config);
            match socket::find(path, &trusted) {
                Found::Server(_) => return Ok(Asker { way: Way::Socket(path.clone(), trusted) }),
                // Its address is asked.
                Found::Nobody | Found::Unusable(_) => {}
            }
        }
        let base = self.base(config.as_ref())?;
        let agent = self.agent(config.as_ref(), base.starts_with("https://"))?;
        Ok(Asker { way: Way::Addr { agent, base } })
    }

    /// Asks once; the answer is read by the caller.
    pub(super) fn get(&self, path_and_query: &str) -> Result<Response<Body>, Trouble> {
        self.asker()?.get(path_and_query)
    }

    /// Asks once, for JSON.
    pub(super) fn json(&self, path: &str) -> Result<serde_json::Value, Trouble> {
        self.asker()?.json(path)
    }

    /// Has a server carry out a command; `None`: none runs here, and none was named.
    pub(super) fn post(&self, command: &Command, reason: &str) -> Result<Option<Told>, Trouble> {
        let asker = match self.admin {
            Some(_) => self.asker()?,
            None => {
                let config = self.configuration()?;
                let Some(path) = config.admin_socket.path.clone() else { return Ok(None) };
                let trusted = trusted(&config);
                match socket::find(&path, &trusted) {
                    Found::Server(_) => Asker { way: Way::Socket(path, trusted) },
                    Found::Nobody => return Ok(None),
                    // Whoever may not ask must not do it himself unseen; whoever may is not kept from it by a server that hangs.
                    Found::Unusable(why) if Uid::effective().is_root() => {
                        eprintln!(
                            "mas: a server that runs here could not be asked, so this is done without it: {why}"
                        );
                        return Ok(None);
                    }
                    Found::Unusable(why) => {
                        return Err(Trouble::Unreachable { url: format!("unix:{}", path.display()), why });
                    }
                }
            }
        };
        let body = serde_json::json!({"command": command, "reason": reason}).to_string();
        let (url, mut answer) = asker.ask("/api/v1/commands", Some(body.as_bytes()))?;
        let status = answer.status().as_u16();
        let told: Result<Told, _> = serde_json::from_str(&read_text(&url, &mut answer)?);
        match told {
            Ok(told) => Ok(Some(Told { url, status, ..told })),
            Err(error) => {
                Err(Trouble::Refused { url, status, why: format!("no answer to a command: {error}") })
            }
        }
    }

    /// Where the configuration is, where that was said.
    pub(super) fn config_path(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The configuration of the server.
    pub(super) fn configuration(&self) -> Result<Config, Trouble> {
        Config::locate_and_load(self.config.as_deref()).map_err(|error| Trouble::Usage(error.to_string()))
    }

    /// Scheme, host and port.
    fn base(&self, config: Option<&Config>) -> Result<String, Trouble> {
        if let Some(addr) = &self.admin {
            let is_url = addr.starts_with("http://") || addr.starts_with("https://");
            return Ok(if is_url { addr.trim_end_matches('/').to_owned() } else { self.of_addr(addr) });
        }
        match config.map(|config| &config.admin_listen_addr) {
            Some(AdminListen::At(addr)) if addr.ends_with(":0") => Err(Trouble::Usage(
                "admin_listen_addr has port 0: the server's ready line says which one it got (--admin ADDR)"
                    .to_owned(),
            )),
            Some(AdminListen::At(addr)) => Ok(self.of_addr(addr)),
            Some(AdminListen::Default) => Ok(self.of_addr(AdminListen::DEFAULT_ADDR)),
            Some(AdminListen::Off) | None => {
                Err(Trouble::Usage("admin_listen_addr is null: the server does not listen there".to_owned()))
            }
        }
    }

    fn of_addr(&self, addr: &str) -> String {
        let (host, port) = addr.rsplit_once(':').unwrap_or((addr, "9464"));
        // What a server listens on at all of its addresses, it listens on at this one.
        let host = match host {
            "0.0.0.0" => "127.0.0.1",
            "[::]" => "[::1]",
            host => host,
        };
        let is_open = addr.starts_with("127.") || addr.starts_with("[::1]") || addr.starts_with("localhost:");
        let scheme = if is_open && self.cert.is_none() { "http" } else { "https" };
        format!("{scheme}://{host}:{port}")
    }

    fn agent(&self, config: Option<&Config>, with_tls: bool) -> Result<Agent, Trouble> {
        let mut builder = Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .max_redirects(0)
            .timeout_connect(Some(PATIENCE))
            .timeout_recv_response(Some(PATIENCE));
        if with_tls {
            let ca = self.ca.as_deref().or(config.map(|config| config.tls.ca.as_path()));
            let ca =
                ca.ok_or_else(|| Trouble::Usage("https needs --ca FILE, or a configuration".to_owned()))?;
            let roots = RootCerts::from(certificates(ca)?);
            let provider = rustls::crypto::ring::default_provider();
            let mut tls =
                TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(Arc::new(provider));
            if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
                let private = PrivateKey::from_pem(&read(key)?)
                    .map_err(|error| Trouble::Usage(format!("{}: {error}", key.display())))?;
                tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(cert)?, private)));
            }
            builder = builder.tls_config(tls.build());
        }
        Ok(builder.build().into())
    }
}

/// What a server says of a command.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    #[serde(skip)]
    pub(super) url: String,
    #[serde(skip)]
    pub(super) status: u16,
    #[serde(default)]
    pub(super) lines: Vec<serde_json::Value>,
    #[serde(default)]
    pub(super) done: Option<Done>,
    #[serde(default)]
    pub(super) error: Option<String>,
}

/// Asks one server.
pub(super) struct Asker {
    way: Way,
}

enum Way {
    /// The unix socket, and whose servers may listen there.
    Socket(PathBuf, Vec<Uid>),
    Addr {
        agent: Agent,
        /// Scheme, host and port.
        base: String,
    },
}

impl Asker {
    /// Asks; the answer is read by the caller. Anything but 200 is an error.
    pub(super) fn get(&self, path_and_query: &str) -> Result<Response<Body>, Trouble> {
        let (url, mut answer) = self.ask(path_and_query, None)?;
        let status = answer.status().as_u16();
        if status == 200 {
            return Ok(answer);
        }
        let why = answer.body_mut().read_to_string().unwrap_or_default();
        let json: Option<serde_json::Value> = serde_json::from_str(&why).ok();
        let why = json.and_then(|json| Some(json.get("error")?.as_str()?.to_owned())).unwrap_or(why);
        Err(Trouble::Refused { url, status, why: super::text::plain(why.trim()) })
    }

    /// Asks for text, whatever the HTTP status of the answer; that, and the text.
    pub(super) fn text(&self, path: &str) -> Result<(u16, String), Trouble> {
        let (url, mut answer) = self.ask(path, None)?;
        let text = read_text(&url, &mut answer)?;
        Ok((answer.status().as_u16(), text))
    }

    /// Asks for JSON.
    pub(super) fn json(&self, path: &str) -> Result<serde_json::Value, Trouble> {
        let mut answer = self.get(path)?;
        let text = read_text(path, &mut answer)?;
        serde_json::from_str(&text)
            .map_err(|error| Trouble::Unreachable { url: path.to_owned(), why: error.to_string() })
    }

    /// `body`: what is posted.
    fn ask(&self, path_and_query: &str, body: Option<&[u8]>) -> Result<(String, Response<Body>), Trouble> {
        let (url, answer) = match &self.way {
            Way::Socket(path, trusted) => {
                let url = format!("unix:{}{path_and_query}", path.display());
                let answer = match socket::find(path, trusted) {
                    Found::Server(stream) => {
                        socket::ask(stream, path_and_query, body).map_err(|error| error.to_string())
                    }
                    Found::Nobody => Err("nobody listens there any more".to_owned()),
                    Found::Unusable(why) => Err(why),
                };
                (url, answer)
            }
            Way::Addr { agent, base } => {
                let url = format!("{base}{path_and_query}");
                let answer = match body {
                    None => agent.get(&url).call(),
                    Some(body) => {
                        let waits =
                            agent.post(&url).config().timeout_recv_response(Some(COMMAND_PATIENCE)).build();
                        waits.content_type("application/json").send(body)
                    }
                };
                (url, answer.map_err(|error| error.to_string()))
            }
        };
        match answer {
            Ok(answer) => Ok((url, answer)),
            Err(why) => Err(Trouble::Unreachable { url, why }),
        }
    }
}

/// Whose servers may be talked to: root's, this user's, and those of whom the configuration belongs to.
fn trusted(config: &Config) -> Vec<Uid> {
    let owner = std::fs::metadata(&config.path).map(|metadata| Uid::from_raw(metadata.uid()));
    [Uid::from_raw(0), Uid::effective()].into_iter().chain(owner).collect()
}

fn read_text(url: &str, answer: &mut Response<Body>) -> Result<String, Trouble> {
    let mut text = String::new();
    let read = answer.body_mut().as_reader().take(MAX_ANSWER_BYTES).read_to_string(&mut text);
    let _ = read.map_err(|error| Trouble::Unreachable { url: url.to_owned(), why: error.to_string() })?;
    Ok(text)
}

fn read(path: &Path) -> Result<Vec<u8>, Trouble> {
    std::fs::read(path).map_err(|error| Trouble::Usage(format!("{}: {error}", path.display())))
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, Trouble> {
    let found: Vec<Certificate<'static>> = ureq::tls::parse_pem(&read(path)?)
        .filter_map(|item| match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match found.is_empty() {
        true => Err(Trouble::Usage(format!("{}: no certificate in it", path.display()))),
        false => Ok(found),
    }
}
