//! Refusals as gRPC statuses.

use grpcio::{RpcStatus, RpcStatusCode};

use crate::refusal::{Kind, Refusal};

/// The one place where a refusal becomes a gRPC status.
pub(super) fn code(refusal: Refusal) -> RpcStatusCode {
    match refusal.kind {
        Kind::Unauthenticated => RpcStatusCode::UNAUTHENTICATED,
        Kind::InvalidArgument => RpcStatusCode::INVALID_ARGUMENT,
        Kind::PermissionDenied => RpcStatusCode::PERMISSION_DENIED,
        Kind::FailedPrecondition => RpcStatusCode::FAILED_PRECONDITION,
        Kind::ResourceExhausted => RpcStatusCode::RESOURCE_EXHAUSTED,
        Kind::Aborted => RpcStatusCode::ABORTED,
        Kind::Unavailable => RpcStatusCode::UNAVAILABLE,
    }
}

/// The status of a refused call.
pub(super) fn status(refusal: Refusal) -> RpcStatus {
    RpcStatus::with_message(code(refusal), refusal.detail.to_owned())
}
