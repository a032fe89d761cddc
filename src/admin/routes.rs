//! Which path is answered by what, and to whom.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use ::http::StatusCode;
use ::http::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::commands::Commands;
use super::events::{Events, Wanted};
use super::health;
use super::http::{Answer, Content, Counters, Method, Peer, Request, Service};
use super::metrics::{self, Format};
use super::operators::{self, Who};
use super::status::{Inboxes, Sources, Status};
use super::watch::Latest;
use crate::certs;
use crate::config::{Config, Operator};
use crate::gate::Peers;
use crate::shard::Shards;

/// What a browser is shown at the root.
const HOME: &str = "MAS server\n\n/healthz\n/readyz?verbose\n/metrics\n/api/v1/status\n/api/v1/events\n";

/// What a reload may change.
struct Reloaded {
    config: Arc<Config>,
    operators: Vec<Operator>,
    certificates: Vec<(&'static str, i64)>,
}

/// The service behind the listener.
pub(super) struct Routes {
    sources: Sources,
    reloaded: Arc<RwLock<Reloaded>>,
    with_tls: bool,
    commands: Commands,
    counters: OnceLock<Vec<Arc<Counters>>>,
}

impl Routes {
    pub(super) fn new(
        config: &Config,
        shards: Arc<Shards>,
        peers: Arc<Peers>,
        latest: Latest,
        with_tls: bool,
    ) -> Self {
        Self {
            sources: Sources { shards, peers, latest, inboxes: Inboxes::default() },
            reloaded: Arc::new(RwLock::new(reloaded(config))),
            with_tls,
            commands: Commands::default(),
            counters: OnceLock::new(),
        }
    }

    /// What the listeners count of themselves.
    pub(super) fn count_with(&self, counters: Vec<Arc<Counters>>) {
        let _ = self.counters.set(counters);
    }

    pub(super) fn reload(&self, config: &Config) {
        *self.reloaded.write().unwrap_or_else(PoisonError::into_inner) = reloaded(config);
    }

    fn status(&self) -> Status {
        let certificates = self.reloaded.read().unwrap_or_else(PoisonError::into_inner).certificates.clone();
        self.sources.gather(certificates, self.counters.get().cloned().unwrap_or_default())
    }

    /// Who asks; the error is what it is told.
    fn who(&self, peer: &Peer) -> Result<Who, &'static str> {
        who(peer, &self.reloaded, &self.sources.shards, self.with_tls)
    }

    /// Whoever may connect may ask whether the server is ready; the reasons are for operators.
    fn readyz(&self, request: &Request) -> Content {
        let (shards, seen) = (&self.sources.shards, self.sources.seen());
        let checks = health::ready(shards, &seen);
        let is_ready = checks.iter().all(|check| check.problem.is_none());
        let may_see = self.who(request.peer()).is_ok();
        let verbose = may_see && request.param("verbose").is_some();
        let mut text = String::new();
        for check in checks.iter().filter(|_| may_see) {
            match &check.problem {
                Some(problem) => text.push_str(&format!("[-] {}: {problem}\n", check.name)),
                None if verbose => text.push_str(&format!("[+] {}: ok\n", check.name)),
                None => {}
            }
        }
        for trouble in shards.shared().troubles.all().iter().filter(|_| verbose) {
            text.push_str(&format!("[!] {}: {}\n", trouble.code.as_str(), trouble.why));
        }
        text.push_str(if is_ready { "ready\n" } else { "not ready\n" });
        let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Content::text(code, text)
    }

    fn events(&self, request: &Request, asks: &Who) -> Answer {
        if !asks.may_see_records() {
            return refused(
                StatusCode::FORBIDDEN,
                "a reader does not see records; an auditor or operator does",
            )
            .into();
        }
        match Wanted::of(request) {
            Ok(wanted) => {
                let watchers = self.sources.shards.shared().watchers.clone();
                let (peer, reloaded, shards) =
                    (request.peer().clone(), self.reloaded.clone(), self.sources.shards.clone());
                let with_tls = self.with_tls;
                let may_go_on =
                    move || who(&peer, &reloaded, &shards, with_tls).is_ok_and(|who| who.may_see_records());
                Answer::Events(Box::new(Events::new(watchers, wanted, Box::new(may_go_on))))
            }
            Err(why) => refused(StatusCode::BAD_REQUEST, &why).into(),
        }
    }

    /// What a scrape is told, as Prometheus reads it.
    pub(super) fn page(&self) -> Option<String> {
        metrics::write(self.status(), Format::Prometheus).ok()
    }

    fn metrics(&self, request: &Request) -> Content {
        let format = Format::asked(request.header("accept"));
        match metrics::write(self.status(), format) {
            Ok(text) => Content::new(StatusCode::OK, HeaderValue::from_static(format.content_type()), text),
            Err(error) => {
                log::error!("the metrics could not be written: {error}");
                Content::text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n")
            }
        }
    }
}

fn who(
    peer: &Peer,
    reloaded: &RwLock<Reloaded>,
    shards: &Shards,
    with_tls: bool,
) -> Result<Who, &'static str> {
    let reloaded = reloaded.read().unwrap_or_else(PoisonError::into_inner);
    operators::who(peer, &reloaded.operators, &shards.shared().revoked(), with_tls)
}

fn reloaded(config: &Config) -> Reloaded {
    let end = |name, path| certs::ends(path).map(|end_s| (name, end_s));
    let certificates = [end("ca", &config.tls.ca), end("server", &config.tls.cert)];
    Reloaded {
        config: Arc::new(config.clone()),
        operators: config.operators.clone(),
        certificates: certificates.into_iter().flatten().collect(),
    }
}

fn refused(status: StatusCode, why: &str) -> Content {
    Content::json(status, json!({"error": why}).to_string())
}

impl Service for Routes {
    fn answer(&self, request: &Request) -> Answer {
        let path = request.path();
        // Probes need no certificate's name: whoever passed the handshake may ask.
        if path == "/healthz" {
            return Content::text(StatusCode::OK, "ok\n").into();
        }
        if path == "/readyz" {
            return self.readyz(request).into();
        }
        // A page of another site cannot read the answers, and must not have them made either.
        if request.header("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none")) {
            return refused(StatusCode::FORBIDDEN, "another site may not ask").into();
        }
        let who = match self.who(request.peer()) {
            Ok(who) => who,
            Err(why) => return refused(StatusCode::FORBIDDEN, why).into(),
        };
        if path == "/api/v1/commands" {
            let config = self.reloaded.read().unwrap_or_else(PoisonError::into_inner).config.clone();
            return match request.method() {
                Method::Post => self.commands.post(request, &who, &config, &self.sources.shards),
                Method::Get | Method::Head => self.commands.list(&who),
            }
            .into();
        }
        if request.method() == Method::Post {
            let allow = (HeaderName::from_static("allow"), HeaderValue::from_static("GET, HEAD"));
            return refused(StatusCode::METHOD_NOT_ALLOWED, "nothing can be posted here")
                .with(allow.0, allow.1)
                .into();
        }
        match path {
            "/metrics" => self.metrics(request),
            "/api/v1/status" => Content::json(StatusCode::OK, format!("{}\n", self.status().json())),
            "/api/v1/events" => return self.events(request, &who),
            "/" => Content::text(StatusCode::OK, HOME),
            _ => refused(StatusCode::NOT_FOUND, "there is no such page"),
        }
        .into()
    }
}
