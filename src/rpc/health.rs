//! gRPC's standard health service, for agents and whatever balances their connections. Whoever may not call the server is
//! not told how it is.

use grpcio::{RpcContext, RpcStatus, RpcStatusCode, Service, ServiceBuilder, UnarySink};

use super::gateway::Gateway;
use super::sending::Sending;
use super::status::status;
use crate::protocol::{
    HEALTH_CHECK, HealthCheckRequest, HealthCheckResponse, MAS_V1, RUNTIME_V1, ServingStatus, Untrusted,
};
use crate::refusal::Refusal;

/// The service, with its one method; a client that wants to be told of changes asks again.
pub(super) fn service(gateway: &Gateway) -> Service {
    let gateway = gateway.clone();
    ServiceBuilder::new()
        .add_unary_handler(&HEALTH_CHECK.server, move |ctx, request, sink| {
            check(&gateway, &ctx, &request, sink);
        })
        .build()
}

fn check(
    gateway: &Gateway,
    ctx: &RpcContext<'_>,
    request: &Untrusted<HealthCheckRequest>,
    sink: UnarySink<HealthCheckResponse>,
) {
    let asked = match (gateway.callers.identify(ctx), &request.0) {
        (Err(stranger), _) => Err(status(stranger.refusal)),
        (Ok(_), None) => Err(status(Refusal::MALFORMED_REQUEST)),
        (Ok(_), Some(content)) if is_served(&content.service) => Ok(()),
        (Ok(_), Some(_)) => {
            Err(RpcStatus::with_message(RpcStatusCode::NOT_FOUND, "unknown service".to_owned()))
        }
    };
    match asked {
        Err(status) => Sending::start(sink.fail(status), None),
        Ok(()) => {
            let status = if gateway.shards.shared().is_serving() {
                ServingStatus::SERVING
            } else {
                ServingStatus::NOT_SERVING
            };
            let answer = HealthCheckResponse { status: status.into(), ..HealthCheckResponse::default() };
            Sending::start(sink.success(answer), None);
        }
    }
}

/// The empty name is the server as a whole.
fn is_served(service: &str) -> bool {
    service.is_empty() || [&RUNTIME_V1, &MAS_V1].iter().any(|methods| methods.service == service)
}
