//! What a caller is told when something is refused: a status and a detail string. The strings are part
//! of the contract with clients. Nothing of the inside (keys, commands, errors of libraries) is in them.

/// The status family of a refusal; `rpc` maps it to gRPC's codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No acceptable identity.
    Unauthenticated,
    /// The request itself is wrong.
    InvalidArgument,
    /// A rule forbids it.
    PermissionDenied,
    /// Not now, not in this state.
    FailedPrecondition,
    /// A bound is reached.
    ResourceExhausted,
    /// Somebody else was faster.
    Aborted,
    /// Try again.
    Unavailable,
}

/// One refusal of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Its status family.
    pub kind: Kind,
    /// Its detail string.
    pub detail: &'static str,
    /// When trying again may help, in milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Refusal {
    /// The same refusal with a time after which trying again may help.
    #[must_use]
    pub const fn retry_after(self, retry_after_ms: Option<u64>) -> Self {
        Self { retry_after_ms, ..self }
    }
}

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $kind:ident, $detail:literal;)+) => {
        impl Refusal {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)+];
            $($(#[$doc])* pub const $name: Self = Self { kind: Kind::$kind, detail: $detail, retry_after_ms: None };)+
        }
    };
}

refusals! {
    /// The certificate has no subject alternative name.
    MISSING_SPIFFE_SAN = Unauthenticated, "missing_spiffe_san";
    /// Not exactly one SPIFFE URI among the names.
    INVALID_SPIFFE_SAN = Unauthenticated, "invalid_spiffe_san";
    /// Another trust domain, path or a malformed id.
    INVALID_SPIFFE_FORMAT = Unauthenticated, "invalid_spiffe_format";
    /// Not usable by an agent now: expired, not yet valid, a CA, wrong key usage.
    INVALID_CERTIFICATE = Unauthenticated, "invalid_certificate";
    /// The deny-list names the certificate or its agent.
    CERTIFICATE_REVOKED = Unauthenticated, "certificate_revoked";
    /// A valid identity that is not in `agents`.
    AGENT_NOT_ALLOWLISTED = Unauthenticated, "agent_not_allowlisted";
    /// An operator has shut out the agent.
    QUARANTINED = PermissionDenied, "quarantined";
    /// Transport ended before its first event.
    MISSING_HELLO = InvalidArgument, "missing_hello";
    /// The first event of Transport was not Hello.
    EXPECTED_HELLO = InvalidArgument, "expected_hello";
    /// The instance id has a wrong shape.
    INVALID_INSTANCE_ID = InvalidArgument, "invalid_instance_id";
    /// The same agent and instance has a session already.
    INSTANCE_ALREADY_CONNECTED = FailedPrecondition, "instance_already_connected";
    /// The agent has as many sessions as `limits.max_sessions_per_agent` allows.
    TOO_MANY_SESSIONS = ResourceExhausted, "too_many_sessions";
    /// Send, Request or Reply from an instance without a Transport session.
    SESSION_NOT_CONNECTED = FailedPrecondition, "session_not_connected";
    /// The bytes of the request are no such protobuf message.
    MALFORMED_REQUEST = InvalidArgument, "malformed_request";
    /// `message_type` is longer than the bound.
    INVALID_MESSAGE_TYPE = InvalidArgument, "invalid_message_type";
    /// `data_json` is not acceptable JSON.
    INVALID_JSON = InvalidArgument, "invalid_json";
    /// `data_json` is JSON, but no object.
    PAYLOAD_MUST_BE_OBJECT = InvalidArgument, "payload_must_be_object";
    /// `data_json` is longer than `limits.max_message_bytes`.
    MESSAGE_TOO_LARGE = ResourceExhausted, "message_too_large";
    /// Not allowed, blocked, unknown or empty target: all look the same.
    NOT_AUTHORIZED = PermissionDenied, "not_authorized";
    /// The target is offline and `delivery.queue_offline` is false.
    TARGET_OFFLINE = FailedPrecondition, "target_offline";
    /// The target's inbox holds `limits.max_queue_len` messages or `max_queue_bytes` bytes, or as many bytes as Redis has
    /// room left for.
    QUEUE_FULL = ResourceExhausted, "queue_full";
    /// Too many messages of this sender.
    RATE_LIMITED = ResourceExhausted, "rate_limited";
    /// The target fails too often.
    CIRCUIT_OPEN = FailedPrecondition, "circuit_open";
    /// Sensitive data in the payload.
    DLP_BLOCKED = PermissionDenied, "dlp_blocked";
    /// Reply without a correlation id.
    MISSING_CORRELATION_ID = InvalidArgument, "missing_correlation_id";
    /// No pending request has this correlation id.
    UNKNOWN_CORRELATION_ID = InvalidArgument, "unknown_correlation_id";
    /// The request was addressed to another agent.
    REPLY_SENDER_MISMATCH = PermissionDenied, "reply_sender_mismatch";
    /// The state would exceed `limits.max_state_bytes` or `max_state_fields`.
    STATE_TOO_LARGE = ResourceExhausted, "state_too_large";
    /// The state has another version than the caller expects.
    VERSION_MISMATCH = Aborted, "version_mismatch";
    /// The state in Redis is not what servers have stored: somebody else has changed it. A reset makes a new one; an
    /// operator may look at it, and accept it.
    STATE_FOREIGN = FailedPrecondition, "state_foreign";
    /// `idempotency_key` is not 1 to 64 characters of `[A-Za-z0-9_-]`.
    INVALID_IDEMPOTENCY_KEY = InvalidArgument, "invalid_idempotency_key";
    /// The key was used for another message.
    IDEMPOTENCY_KEY_REUSED = InvalidArgument, "idempotency_key_reused";
    /// `not_before_ms` is too far ahead.
    INVALID_NOT_BEFORE = InvalidArgument, "invalid_not_before";
    /// A state's `ttl_ms` is longer than a year.
    INVALID_TTL = InvalidArgument, "invalid_ttl";
    /// A commit names a delivery that the session does not hold: it may be with another instance.
    DELIVERY_NOT_HELD = FailedPrecondition, "delivery_not_held";
    /// Another message of the same commit was refused.
    COMMIT_REFUSED = FailedPrecondition, "commit_refused";
    /// A commit holds more messages than it may.
    TOO_MANY_MESSAGES = InvalidArgument, "too_many_messages";
    /// More submissions under way than Welcome allowed.
    TOO_MANY_SUBMISSIONS = ResourceExhausted, "too_many_submissions";
    /// More work than the server can queue; try again.
    OVERLOADED = Unavailable, "overloaded";
    /// The store cannot take it now; nothing happened; try again.
    STORAGE_UNAVAILABLE = Unavailable, "storage_unavailable";
    /// The store has too little room for more; what is there is delivered and acknowledged.
    STORAGE_FULL = ResourceExhausted, "storage_full";
    /// The connection to the store broke while committing, or what makes it durable did not happen in time: it
    /// may or may not have happened.
    COMMIT_UNKNOWN = Unavailable, "commit_unknown";
    /// No checkpoint of the audit trail can be written: nothing is accepted that cannot be sealed.
    AUDIT_UNAVAILABLE = Unavailable, "audit_unavailable";
    /// The audit trail holds `gateway.audit.max_records` and cannot be archived.
    AUDIT_FULL = ResourceExhausted, "audit_full";
    /// The server is stopping; connect again.
    SERVER_STOPPING = Unavailable, "server_stopping";
}
