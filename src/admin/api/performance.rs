//! How fast the server was.

use super::asked::Asked;
use super::core::{Answered, Api};
use crate::admin::http::Request;
use crate::admin::performance::MAX_POINTS;

/// `GET /api/v1/performance`
pub(super) fn route(api: &Api, request: &Request) -> Answered {
    let asked = Asked::of(request, &["seconds"])?;
    let seconds = asked.number("seconds", 1..=MAX_POINTS, MAX_POINTS)?;
    Ok(api.sources.history.json(api.sources.shards.shared().server.as_str(), seconds))
}
