//! Dead letters in Redis: why each died, and, masked by the rules in force, what it says.

use serde_json::json;

use super::asked::Asked;
use super::needs::Api;
use super::problem::{Answered, Problem};
use crate::admin::http::Request;
use crate::ids::AgentId;
use crate::operation::shown::{letter_json, masked_json, with};
use crate::store::answers::EntryId;
use crate::store::dead_letters::{self, Filter};
use crate::store::letter_pages::{self, Order};

/// Most letters of one answer, and how many there are where nothing is said.
const MAX_LIMIT: usize = 200;
const LIMIT: usize = 50;
/// Letters that are looked at for one answer.
const MAX_LOOKED_AT: usize = 10_000;

/// `GET /api/v1/dead-letters` and `GET /api/v1/dead-letters/ID`
pub(super) fn route(api: &Api, request: &Request, id: Option<&str>) -> Answered {
    match id {
        None => list(api, request),
        Some(id) => whole(api, request, id),
    }
}

fn list(api: &Api, request: &Request) -> Answered {
    let asked =
        Asked::of(request, &["agent", "reason", "message", "since", "until", "order", "limit", "cursor"])?;
    let order = match asked.text("order") {
        None | Some("newest") => Order::NewestFirst,
        Some("oldest") => Order::OldestFirst,
        Some(other) => return Err(Problem::Asked(format!("order={other:?}: expected newest or oldest"))),
    };
    let agent = match asked.text("agent") {
        None => None,
        Some(name) => Some(
            AgentId::parse(name).ok_or_else(|| Problem::Asked(format!("agent={name:?} is no agent id")))?,
        ),
    };
    let cursor = match asked.text("cursor") {
        None => None,
        Some(text) => {
            let wrong = || Problem::Asked("cursor is none that an answer has given as `next`".to_owned());
            Some(EntryId::parse(text).ok_or_else(wrong)?)
        }
    };
    let filter = Filter {
        agent,
        reason: asked.text("reason").map(str::to_owned),
        message: asked.parsed("message", "the id of a message")?,
        from_ms: asked.time("since")?.map(|us| us.div_ceil(1000)),
        // The filter's end is one of the times that fit.
        to_ms: asked.time("until")?.map(|us| us.div_ceil(1000).saturating_sub(1)),
    };
    let limit = asked.number("limit", 1..=MAX_LIMIT, LIMIT)?;
    let (found, total) = api.searches.run(&api.sources, |connection| {
        let found = letter_pages::look(connection, &filter, order, cursor, (limit, MAX_LOOKED_AT))?;
        Ok((found, letter_pages::count(connection)?))
    })?;
    let keys = api.store_keys();
    let letters = found
        .letters
        .iter()
        .map(|letter| with(letter_json(letter), [("ours", letter.is_ours(&keys).into())]));
    Ok(json!({
        "letters": letters.collect::<Vec<_>>(), "looked_at": found.looked_at,
        "next": found.after.map(|id| id.to_string()), "total": total,
    }))
}

fn whole(api: &Api, request: &Request, id: &str) -> Answered {
    let _ = Asked::of(request, &[])?;
    let wrong = || Problem::Asked(format!("{id:?} is no id of a dead letter"));
    let entry = EntryId::parse(id).ok_or_else(wrong)?;
    let letter = api.searches.run(&api.sources, |connection| Ok(dead_letters::letter(connection, entry)?))?;
    let letter = letter.ok_or_else(|| Problem::Missing(format!("there is no dead letter {id} in Redis")))?;
    let reloaded = api.sources.reloaded();
    let json = masked_json(&letter, reloaded.config.dlp.as_deref());
    Ok(with(json, [("ours", letter.is_ours(&api.store_keys()).into())]))
}
