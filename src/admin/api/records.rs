//! Records of the trail, searched for a part at a time.

use serde_json::{Value as Json, json};

use super::asked::Asked;
use super::core::{Answered, Api};
use super::problem::Problem;
use crate::admin::http::Request;
use crate::audit::json::record_json;
use crate::audit::{Action, Decision, LaneId, View};
use crate::history::filter::Filter;
use crate::history::search::{Cursor, Part, Query, search};
use crate::history::source;
use crate::ids::unhex;

/// Most records of one answer, and how many there are where nothing is said.
const MAX_LIMIT: usize = 500;
const LIMIT: usize = 100;

/// The parameters.
const KNOWN: [&str; 13] = [
    "agent",
    "from",
    "to",
    "action",
    "decision",
    "message",
    "correlation",
    "violation",
    "since",
    "until",
    "order",
    "limit",
    "cursor",
];

/// `GET /api/v1/records`
pub(super) fn route(api: &Api, request: &Request) -> Answered {
    let asked = Asked::of(request, &KNOWN)?;
    let (query, cursor) = (query(&asked)?, cursor(&asked)?);
    let limit = asked.number("limit", 1..=MAX_LIMIT, LIMIT)?;
    let folders = api.archive_folders();
    let (records, part, elsewhere) = api.searches.run(&api.sources, |connection| {
        let mut records: Vec<Json> = Vec::new();
        let mut take = |lane: &LaneId, record: &View<'_>| records.push(record_json(lane, record));
        let part = search(connection, &folders, &query, (cursor.as_ref(), limit), &mut take)?;
        let elsewhere = match part.next {
            Some(_) => Vec::new(),
            None => source::elsewhere_of(connection, &api.store_keys(), &folders, &api.own_archive())?,
        };
        Ok((records, part, elsewhere))
    })?;
    let Part { looked_at, reached_us, next, unlisted } = part;
    let complete = next.is_none() && elsewhere.is_empty() && !unlisted;
    Ok(json!({
        "records": records, "looked_at": looked_at, "reached_unix_us": reached_us,
        "next": next.map(|next| next.to_string()), "complete": complete, "elsewhere": elsewhere,
    }))
}

fn query(asked: &Asked<'_>) -> Result<Query, Problem> {
    let names = |name: &str| -> Result<Vec<String>, Problem> {
        Ok(asked.list(name)?.into_iter().map(str::to_owned).collect())
    };
    let correlation = match asked.text("correlation") {
        None => None,
        Some(text) => Some(correlation(text).ok_or_else(|| {
            Problem::Asked(format!("correlation={text:?}: expected 32 hexadecimal digits"))
        })?),
    };
    let oldest_first = match asked.text("order") {
        None | Some("newest") => false,
        Some("oldest") => true,
        Some(other) => return Err(Problem::Asked(format!("order={other:?}: expected newest or oldest"))),
    };
    let filter = Filter {
        sender: None,
        target: None,
        decisions: asked.among("decision", Decision::ALL, |decision| decision.as_str())?,
        actions: asked.among("action", Action::ALL, |action| action.as_str())?,
        message_id: asked.parsed("message", "the id of a message")?,
        violation: asked.text("violation").map(str::to_owned),
    };
    let (since_us, until_us) = (asked.time("since")?, asked.time("until")?);
    if let (Some(since_us), Some(until_us)) = (since_us, until_us)
        && since_us >= until_us
    {
        return Err(Problem::Asked("since is not before until".to_owned()));
    }
    Ok(Query {
        agents: names("agent")?,
        from: names("from")?,
        to: names("to")?,
        filter,
        correlation,
        since_us,
        until_us,
        oldest_first,
    })
}

/// A correlation id.
pub(super) fn correlation(text: &str) -> Option<[u8; 16]> {
    unhex(text)?.try_into().ok()
}

fn cursor(asked: &Asked<'_>) -> Result<Option<Cursor>, Problem> {
    let Some(text) = asked.text("cursor") else { return Ok(None) };
    let wrong = || Problem::Asked("cursor is none that an answer has given as `next`".to_owned());
    Cursor::parse(text).map(Some).ok_or_else(wrong)
}
