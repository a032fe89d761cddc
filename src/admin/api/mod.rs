//! What is told as JSON under `/api/v1/`, a file for each topic. `docs/admin-api.md` is the contract.
//!
//! * `core`, `views`: what topics need; what Redis said last.
//! * `asked`: parameters, and what is wrong with them.
//! * `problem`: why there is no answer.
//! * `allowed`: who may send to whom, worked out once for each configuration.
//! * `searches`: what searches the trail or the dead letters, and how many at once.
//! * `records`, `messages`, `proofs`, `letters`: what is on record; not for readers.
//! * `fleet`, `agents`, `map`, `policy`, `performance`, `audit`, `me`: how servers, agents and the trail are.

mod agents;
mod allowed;
mod asked;
mod audit;
mod core;
mod fleet;
mod letters;
mod map;
mod me;
mod messages;
mod performance;
mod policy;
mod problem;
mod proofs;
mod records;
mod searches;
mod views;

use ::http::StatusCode;

use super::http::{Content, Request};
use super::operators::Who;
use problem::Problem;

pub(super) use core::Api;

/// What stands before each path.
const PREFIX: &str = "/api/v1/";

/// Answers a request; `None`: there is no such path.
pub(super) fn answer(api: &Api, request: &Request, who: &Who) -> Option<Content> {
    let path = request.path().strip_prefix(PREFIX)?;
    let (topic, rest) = path.split_once('/').map_or((path, None), |(topic, rest)| (topic, Some(rest)));
    let is_on_record = matches!(topic, "records" | "messages" | "proofs" | "dead-letters");
    if is_on_record && !who.may_see_records() {
        let why = "a reader does not see what is on record; an auditor or operator does";
        return Some(Problem::Forbidden(why).content());
    }
    let answered = match (topic, rest) {
        ("records", None) => records::route(api, request),
        ("messages", Some(id)) => messages::route(api, request, id),
        ("proofs", Some(place)) => match place.split_once('/') {
            Some((lane, seq)) => proofs::route(api, request, lane, seq),
            None => return None,
        },
        ("dead-letters", id) => letters::route(api, request, id),
        ("fleet", None) => fleet::route(api, request),
        ("agents", rest) => agents::route(api, request, rest),
        ("map", None) => map::route(api, request),
        ("policy", rest) => policy::route(api, request, rest)?,
        ("performance", None) => performance::route(api, request),
        ("audit", None) => audit::route(api, request),
        ("me", None) => me::route(request, who),
        ("commands", None) => me::commands(request, who),
        _ => return None,
    };
    Some(match answered {
        Ok(json) => Content::json(StatusCode::OK, format!("{json}\n")),
        Err(problem) => problem.content(),
    })
}
