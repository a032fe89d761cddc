//! The rules in force, and what they would decide.

use serde_json::{Value as Json, json};

use super::asked::Asked;
use super::core::{Answered, Api};
use super::problem::Problem;
use crate::admin::http::Request;
use crate::ids::hex;
use crate::policy::explain::{self, Explained};
use crate::policy::readable;

/// Most permissions that are shown.
const MAX_PERMISSIONS: usize = 5_000;
/// Most roles, and agents with limits of their own.
const MAX_ROLES: usize = 1_000;
/// Most operators.
const MAX_OPERATORS: usize = 1_000;

/// `GET /api/v1/policy` and `GET /api/v1/policy/explain`; `None`: there is no such path.
pub(super) fn route(api: &Api, request: &Request, rest: Option<&str>) -> Option<Answered> {
    match rest {
        None => Some(rules(api, request)),
        Some("explain") => Some(explain(api, request)),
        Some(_) => None,
    }
}

fn rules(api: &Api, request: &Request) -> Answered {
    let _ = Asked::of(request, &[])?;
    let reloaded = api.sources.reloaded();
    let config = &reloaded.config;
    let permissions =
        (0..config.permissions.len().min(MAX_PERMISSIONS)).filter_map(|at| readable::permission(config, at));
    let mut roles = readable::roles(config);
    let mut limits: Vec<Json> = readable::own_rate_limits(config).take(MAX_ROLES + 1).collect();
    let cut =
        config.permissions.len() > MAX_PERMISSIONS || roles.len() > MAX_ROLES || limits.len() > MAX_ROLES;
    roles.truncate(MAX_ROLES);
    limits.truncate(MAX_ROLES);
    let operators = config.operators.iter().take(MAX_OPERATORS);
    Ok(json!({
        "policy_version": hex(&config.digest),
        "rules_digest": reloaded.rules_digest,
        "loaded_unix_ms": api.sources.shards.shared().loaded_ms(),
        "path": config.path.display().to_string(),
        "features": readable::features(config),
        "permissions": permissions.collect::<Vec<_>>(),
        "roles": roles,
        "limits": readable::limits(config),
        "rate_limit": readable::rate_limit(config.rate_limit),
        "rate_limits_of_agents": limits,
        "delivery": readable::delivery(config),
        "circuit_breaker": readable::circuit_breaker(config),
        "dlp": readable::dlp(config),
        "operators": operators
            .map(|operator| json!({"name": operator.name, "role": operator.role.as_str()}))
            .collect::<Vec<_>>(),
        "cut": cut,
    }))
}

fn explain(api: &Api, request: &Request) -> Answered {
    let asked = Asked::of(request, &["from", "to", "type", "data"])?;
    let required = |name: &str| {
        asked.text(name).ok_or_else(|| Problem::Asked(format!("{name} is required: the id of an agent")))
    };
    let message = explain::Asked {
        from: required("from")?,
        to: required("to")?,
        message_type: asked.text("type").unwrap_or_default(),
        data_json: asked.text("data").unwrap_or("{}"),
    };
    Ok(Explained::of(&api.sources.reloaded().config, message).json())
}
