//! All servers on this Redis.

use std::sync::Arc;

use serde_json::json;

use super::asked::Asked;
use super::core::{Answered, Api};
use crate::admin::fleet::Member;
use crate::admin::http::Request;

/// `GET /api/v1/fleet`
pub(super) fn route(api: &Api, request: &Request) -> Answered {
    let _ = Asked::of(request, &[])?;
    let shared = api.sources.shards.shared();
    let own = api.sources.gather();
    let (time_ms, rules) = (own.now_ms, own.rules_digest.clone());
    let own = Member {
        server: shared.server.clone(),
        trusted: true,
        problem: None,
        age_ms: Some(0),
        status: Some(own.json()),
        is_gone: false,
    };
    // This server tells of itself, whether Redis answers or not.
    let (others, why) = match api.members() {
        Ok(others) => (others, None),
        Err(why) => (Arc::default(), Some(why)),
    };
    let differ = |name: &str, own: &str| {
        others.iter().any(|member| member.status.is_some() && member.text(name) != own)
    };
    let servers = std::iter::once(&own).chain(others.iter());
    Ok(json!({
        "server": shared.server.as_str(),
        "time_unix_ms": time_ms,
        "rules_differ": differ("rules_digest", &rules),
        "versions_differ": differ("version", env!("CARGO_PKG_VERSION")),
        "others_unknown": why,
        "servers": servers.map(|member| member.json(&shared.server)).collect::<Vec<_>>(),
    }))
}
