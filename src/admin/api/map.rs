//! Who may, who does, who was refused.

use serde_json::{Value as Json, json};

use super::asked::Asked;
use super::core::{Answered, Api};
use crate::admin::counts;
use crate::admin::http::Request;
use crate::clock::Now;

/// `GET /api/v1/map`
pub(super) fn route(api: &Api, request: &Request) -> Answered {
    let _ = Asked::of(request, &[])?;
    let allowed = api.rules.allowed(&api.sources.shards.shared().settings());
    let counts = api.counts();
    let edges = counts.edges.iter().filter_map(|((from, to), decisions)| {
        // Of agents that a reload has taken out nothing is shown.
        Some(json!([allowed.at(from)?, allowed.at(to)?, counts::json(Some(decisions))]))
    });
    Ok(json!({
        "time_unix_ms": Now::read().unix_us / 1000,
        "agents": allowed.agents.iter().map(|agent| agent.as_str()).collect::<Vec<_>>(),
        "allowed": allowed.rows,
        "edges": edges.collect::<Vec<Json>>(),
        "other": counts::json(Some(&counts.other)),
        "since_unix_ms": api.sources.place.started_ms,
        "cut": allowed.cut,
    }))
}
