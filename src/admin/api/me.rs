//! Who asks, as the server knows it.

use serde_json::json;

use super::asked::Asked;
use super::core::Answered;
use crate::admin::http::Request;
use crate::admin::operators::Who;

/// `GET /api/v1/me`
pub(super) fn route(request: &Request, who: &Who) -> Answered {
    let _ = Asked::of(request, &[])?;
    Ok(match who {
        // Whoever is on this machine may read everything, and change nothing.
        Who::Local => json!({"name": null, "role": "auditor", "from": "loopback"}),
        Who::Operator(operator) => {
            json!({"name": operator.name, "role": operator.role.as_str(), "from": "certificate"})
        }
    })
}

/// `GET /api/v1/commands`: what whoever asks may post.
pub(super) fn commands(request: &Request, who: &Who) -> Answered {
    let _ = Asked::of(request, &[])?;
    let (by, role) = match who {
        Who::Local => (None, None),
        Who::Operator(operator) => (Some(&operator.name), Some(operator.role.as_str())),
    };
    Ok(json!({"by": by, "role": role, "commands": []}))
}
