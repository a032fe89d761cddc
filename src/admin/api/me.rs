//! Who asks, as the server knows it.

use serde_json::json;

use super::asked::Asked;
use super::problem::Answered;
use crate::admin::http::{Remote, Request};
use crate::admin::operators::Who;

/// `GET /api/v1/me`
pub(super) fn route(request: &Request, who: &Who) -> Answered {
    let _ = Asked::of(request, &[])?;
    Ok(match who {
        // Whoever is on this machine may read everything, and change nothing.
        Who::Local => json!({"name": null, "role": "auditor", "from": "loopback"}),
        Who::Owner(user) => json!({"name": user, "role": "operator", "from": "socket"}),
        Who::Operator(operator) => {
            let from = match request.peer().remote {
                Remote::User(_) => "socket",
                Remote::Addr(_) => "certificate",
            };
            json!({"name": operator.name, "role": operator.role.as_str(), "from": from})
        }
    })
}
