//! The wire protocol as a client needs it: generated messages and the methods.

// Generated code: its style is not ours to lint.
#[allow(
    clippy::all,
    clippy::panic,
    clippy::semicolon_if_nothing_returned,
    clippy::unwrap_used,
    dead_code,
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

pub(crate) use generated::errors::{RetryInfo, Status};
pub(crate) use generated::runtime::*;

const fn method<Q: Message, R: Message>(name: &'static str, ty: MethodType) -> Method<Q, R> {
    Method {
        ty,
        name,
        req_mar: Marshaller { ser: pb_ser, de: pb_de },
        resp_mar: Marshaller { ser: pb_ser, de: pb_de },
    }
}

macro_rules! path {
    ($name:literal) => {
        concat!("/mas.runtime.v1.RuntimeService/", $name)
    };
}

pub(crate) static TRANSPORT: Method<ClientEvent, ServerEvent> =
    method(path!("Transport"), MethodType::Duplex);
pub(crate) static SEND: Method<SendRequest, SendResponse> = method(path!("Send"), MethodType::Unary);
pub(crate) static REQUEST: Method<RequestRequest, RequestResponse> =
    method(path!("Request"), MethodType::Unary);
pub(crate) static REPLY: Method<ReplyRequest, ReplyResponse> = method(path!("Reply"), MethodType::Unary);
pub(crate) static DISCOVER: Method<DiscoverRequest, DiscoverResponse> =
    method(path!("Discover"), MethodType::Unary);
pub(crate) static GET_STATE: Method<GetStateRequest, GetStateResponse> =
    method(path!("GetState"), MethodType::Unary);
pub(crate) static UPDATE_STATE: Method<UpdateStateRequest, UpdateStateResponse> =
    method(path!("UpdateState"), MethodType::Unary);
pub(crate) static RESET_STATE: Method<ResetStateRequest, ResetStateResponse> =
    method(path!("ResetState"), MethodType::Unary);
