//! What is told as JSON under `/api/v1/`, a file for each topic. `docs/admin-api.md` is the contract.
//!
//! * `needs`, `looked`: what all topics need; what Redis said last.
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
mod fleet;
mod letters;
mod looked;
mod map;
mod me;
mod messages;
mod needs;
mod performance;
mod policy;
mod problem;
mod proofs;
mod records;
mod searches;

use ::http::StatusCode;

use super::http::{Content, Request};
use super::operators::Who;
pub(super) use needs::Api;
use problem::Problem;

/// What stands before each path.
const PREFIX: &str = "/api/v1/";

impl Api {
    /// Answers a request; `None`: there is no such path.
    pub(super) fn answer(&self, request: &Request, who: &Who) -> Option<Content> {
        let path = request.path().strip_prefix(PREFIX)?;
        let (topic, rest) = path.split_once('/').map_or((path, None), |(topic, rest)| (topic, Some(rest)));
        let is_on_record = matches!(topic, "records" | "messages" | "proofs" | "dead-letters");
        if is_on_record && !who.may_see_records() {
            let why = "a reader does not see what is on record; an auditor or operator does";
            return Some(Problem::Forbidden(why).content());
        }
        let answered = match (topic, rest) {
            ("records", None) => records::route(self, request),
            ("messages", Some(id)) => messages::route(self, request, id),
            ("proofs", Some(place)) => match place.split_once('/') {
                Some((lane, seq)) => proofs::route(self, request, lane, seq),
                None => return None,
            },
            ("dead-letters", id) => letters::route(self, request, id),
            ("fleet", None) => fleet::route(self, request),
            ("agents", rest) => agents::route(self, request, rest),
            ("map", None) => map::route(self, request),
            ("policy", rest) => policy::route(self, request, rest)?,
            ("performance", None) => performance::route(self, request),
            ("audit", None) => audit::route(self, request),
            ("me", None) => me::route(request, who),
            _ => return None,
        };
        Some(match answered {
            Ok(json) => Content::json(StatusCode::OK, format!("{json}\n")),
            Err(problem) => problem.content(),
        })
    }
}
