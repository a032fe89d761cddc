//! Which path is answered by what, and to whom.

use std::sync::Arc;

use ::http::StatusCode;
use ::http::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::api::Api;
use super::commands::Commands;
use super::events::{Events, Wanted};
use super::exposition::Format;
use super::health;
use super::http::{Answer, Content, Method, Peer, Request, Service};
use super::metrics;
use super::notes::notes;
use super::operators::{self, Who};
use super::page;
use super::sources::Sources;

/// Longest body of who may only read, in bytes.
const READERS_BODY_BYTES: usize = 16 * 1024;

/// The service behind the listener.
pub(super) struct Routes {
    sources: Arc<Sources>,
    api: Api,
    with_tls: bool,
    commands: Commands,
}

impl Routes {
    pub(super) fn new(sources: Arc<Sources>, with_tls: bool) -> Self {
        Self { api: Api::new(sources.clone()), sources, with_tls, commands: Commands::default() }
    }

    /// Who asks; the error is what it is told.
    fn who(&self, peer: &Peer) -> Result<Who, &'static str> {
        who(peer, &self.sources, self.with_tls)
    }

    /// Whoever may connect may ask whether the server is ready; the reasons are for operators.
    fn readyz(&self, request: &Request) -> Content {
        let (shards, seen) = (&self.sources.shards, self.sources.seen());
        let checks = health::ready(shards, &seen, &self.sources.reloaded().certificates);
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
        let notes = if verbose { notes(&self.sources.gather_known()) } else { Vec::new() };
        for note in notes {
            text.push_str(&format!("[!] {note}\n"));
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
                let (peer, sources, with_tls) = (request.peer().clone(), self.sources.clone(), self.with_tls);
                let may_go_on = move || who(&peer, &sources, with_tls).is_ok_and(|who| who.may_see_records());
                Answer::Events(Box::new(Events::new(self.sources.clone(), wanted, Box::new(may_go_on))))
            }
            Err(why) => refused(StatusCode::BAD_REQUEST, &why).into(),
        }
    }

    fn metrics(&self, request: &Request) -> Content {
        let format = Format::asked(request.header("accept"));
        let mut status = self.sources.gather();
        // Where Redis does not answer these are absent; that it does not is told beside.
        status.trail = self.sources.trail().ok();
        match metrics::write(status, format) {
            Ok(text) => Content::new(StatusCode::OK, HeaderValue::from_static(format.content_type()), text),
            Err(error) => {
                log::error!(code = "metrics_unwritten"; "the metrics could not be written: {error}");
                Content::text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n")
            }
        }
    }
}

fn who(peer: &Peer, sources: &Sources, with_tls: bool) -> Result<Who, &'static str> {
    let (reloaded, revoked) = (sources.reloaded(), sources.shards.shared().revoked());
    operators::who(peer, &reloaded.config.operators, &revoked, with_tls)
}

fn refused(status: StatusCode, why: &str) -> Content {
    Content::json(status, json!({"error": why}).to_string())
}

impl Service for Routes {
    fn body_bytes(&self, peer: &Peer) -> usize {
        // Who may change nothing has nothing long to say.
        match self.who(peer) {
            Ok(who) if who.may_change() => usize::MAX,
            Ok(_) | Err(_) => READERS_BODY_BYTES,
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        let path = request.path();
        // Probes need no certificate's name: whoever passed the handshake may ask.
        if path == "/healthz" {
            return Content::text(StatusCode::OK, "ok\n").into();
        }
        if path == "/readyz" {
            return self.readyz(request).into();
        }
        // A page of another site cannot read the answers, and must not have them made either. It may have a link to this one.
        let page = page::content(path);
        if page.is_none()
            && request.header("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"))
        {
            return refused(StatusCode::FORBIDDEN, "another site may not ask").into();
        }
        let who = match self.who(request.peer()) {
            Ok(who) => who,
            Err(why) => return refused(StatusCode::FORBIDDEN, why).into(),
        };
        if path == "/api/v1/commands" {
            return match request.method() {
                Method::Post => {
                    let config = &self.sources.reloaded().config;
                    self.commands.post(request, &who, config, &self.sources.shards)
                }
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
            "/api/v1/status" => Content::json(StatusCode::OK, format!("{}\n", self.sources.gather().json())),
            "/api/v1/events" => return self.events(request, &who),
            _ => match page.or_else(|| self.api.answer(request, &who)) {
                Some(content) => content,
                None => refused(StatusCode::NOT_FOUND, "there is no such page"),
            },
        }
        .into()
    }
}
