//! The wire protocol: generated messages and the method table of both service paths.

// Generated code: its style is not ours to lint.
#[allow(
    clippy::all,
    clippy::panic,
    clippy::semicolon_if_nothing_returned,
    clippy::unwrap_used,
    missing_docs,
    rustdoc::all,
    unreachable_pub,
    unused_qualifications
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/proto/mod.rs"));
}

use grpcio::{Marshaller, Method, MethodType, pb_de, pb_ser};
use protobuf::Message;

pub use generated::errors::{RetryInfo, Status};
pub use generated::health::health_check_response::ServingStatus;
pub use generated::health::{HealthCheckRequest, HealthCheckResponse};
pub use generated::runtime::*;

/// A message that a stranger sent: `None` when its bytes are no such message, so that the handler can
/// answer INVALID_ARGUMENT and have it recorded, where gRPC itself would answer INTERNAL.
pub struct Untrusted<T>(pub Option<T>);

fn untrusted_de<T: Message>(reader: grpcio::MessageReader) -> grpcio::Result<Untrusted<T>> {
    Ok(Untrusted(pb_de(reader).ok()))
}

fn untrusted_ser<T: Message>(message: &Untrusted<T>, buffer: &mut grpcio::GrpcSlice) -> grpcio::Result<()> {
    match &message.0 {
        Some(message) => pb_ser(message, buffer),
        None => Err(grpcio::Error::Codec("no message".into())),
    }
}

/// One RPC as a server sees it (untrusted request) and as a client sees it.
pub struct Rpc<Q, R> {
    /// For `ServiceBuilder`.
    pub server: Method<Untrusted<Q>, R>,
    /// For `Client`.
    pub client: Method<Q, R>,
}

const fn rpc<Q: Message, R: Message>(name: &'static str, duplex: bool) -> Rpc<Q, R> {
    const fn ty(duplex: bool) -> MethodType {
        if duplex { MethodType::Duplex } else { MethodType::Unary }
    }
    Rpc {
        server: Method {
            ty: ty(duplex),
            name,
            req_mar: Marshaller { ser: untrusted_ser, de: untrusted_de },
            resp_mar: Marshaller { ser: pb_ser, de: pb_de },
        },
        client: Method {
            ty: ty(duplex),
            name,
            req_mar: Marshaller { ser: pb_ser, de: pb_de },
            resp_mar: Marshaller { ser: pb_ser, de: pb_de },
        },
    }
}

/// All RPCs under one service path.
pub struct Methods {
    /// The path.
    pub service: &'static str,
    /// Bidirectional stream of a session.
    pub transport: Rpc<ClientEvent, ServerEvent>,
    /// One message to one agent.
    pub send: Rpc<SendRequest, SendResponse>,
    /// A message that expects a reply.
    pub request: Rpc<RequestRequest, RequestResponse>,
    /// The reply to a request.
    pub reply: Rpc<ReplyRequest, ReplyResponse>,
    /// Which agents the caller may message.
    pub discover: Rpc<DiscoverRequest, DiscoverResponse>,
    /// The caller's own state.
    pub get_state: Rpc<GetStateRequest, GetStateResponse>,
    /// Sets fields of the caller's own state.
    pub update_state: Rpc<UpdateStateRequest, UpdateStateResponse>,
    /// Removes the caller's own state.
    pub reset_state: Rpc<ResetStateRequest, ResetStateResponse>,
}

macro_rules! methods {
    ($service:literal) => {
        Methods {
            service: $service,
            transport: rpc(concat!("/", $service, "/Transport"), true),
            send: rpc(concat!("/", $service, "/Send"), false),
            request: rpc(concat!("/", $service, "/Request"), false),
            reply: rpc(concat!("/", $service, "/Reply"), false),
            discover: rpc(concat!("/", $service, "/Discover"), false),
            get_state: rpc(concat!("/", $service, "/GetState"), false),
            update_state: rpc(concat!("/", $service, "/UpdateState"), false),
            reset_state: rpc(concat!("/", $service, "/ResetState"), false),
        }
    };
}

/// The service path of 0.5 clients and of our own.
pub static RUNTIME_V1: Methods = methods!("mas.runtime.v1.RuntimeService");
/// The service path of 0.4 clients: same methods, same messages.
pub static MAS_V1: Methods = methods!("mas.v1.MasService");
/// Whether the server serves, as gRPC's standard health service asks it.
pub static HEALTH_CHECK: Rpc<HealthCheckRequest, HealthCheckResponse> =
    rpc("/grpc.health.v1.Health/Check", false);
