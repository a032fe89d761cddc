from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ClientEvent(_message.Message):
    __slots__ = ("hello", "ack", "nack", "heartbeat", "submit", "acks")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    NACK_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    SUBMIT_FIELD_NUMBER: _ClassVar[int]
    ACKS_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    ack: Ack
    nack: Nack
    heartbeat: Heartbeat
    submit: Submit
    acks: Acks
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., nack: _Optional[_Union[Nack, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., submit: _Optional[_Union[Submit, _Mapping]] = ..., acks: _Optional[_Union[Acks, _Mapping]] = ...) -> None: ...

class ServerEvent(_message.Message):
    __slots__ = ("welcome", "delivery", "error", "results", "deliveries", "request_failed")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FAILED_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    delivery: Delivery
    error: ServerError
    results: Results
    deliveries: Deliveries
    request_failed: RequestFailed
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., delivery: _Optional[_Union[Delivery, _Mapping]] = ..., error: _Optional[_Union[ServerError, _Mapping]] = ..., results: _Optional[_Union[Results, _Mapping]] = ..., deliveries: _Optional[_Union[Deliveries, _Mapping]] = ..., request_failed: _Optional[_Union[RequestFailed, _Mapping]] = ...) -> None: ...

class RequestFailed(_message.Message):
    __slots__ = ("correlation_id", "message_id", "reason")
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    correlation_id: str
    message_id: str
    reason: str
    def __init__(self, correlation_id: _Optional[str] = ..., message_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("instance_id", "features")
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    instance_id: str
    features: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, instance_id: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("agent_id", "instance_id", "features", "max_submissions", "max_event_bytes")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    MAX_SUBMISSIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_EVENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    instance_id: str
    features: _containers.RepeatedScalarFieldContainer[str]
    max_submissions: int
    max_event_bytes: int
    def __init__(self, agent_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., features: _Optional[_Iterable[str]] = ..., max_submissions: _Optional[int] = ..., max_event_bytes: _Optional[int] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("delivery_id", "envelope_json", "attempt")
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    ENVELOPE_JSON_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    delivery_id: str
    envelope_json: str
    attempt: int
    def __init__(self, delivery_id: _Optional[str] = ..., envelope_json: _Optional[str] = ..., attempt: _Optional[int] = ...) -> None: ...

class Deliveries(_message.Message):
    __slots__ = ("deliveries",)
    DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    deliveries: _containers.RepeatedCompositeFieldContainer[Delivery]
    def __init__(self, deliveries: _Optional[_Iterable[_Union[Delivery, _Mapping]]] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("delivery_id",)
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    delivery_id: str
    def __init__(self, delivery_id: _Optional[str] = ...) -> None: ...

class Acks(_message.Message):
    __slots__ = ("delivery_ids",)
    DELIVERY_IDS_FIELD_NUMBER: _ClassVar[int]
    delivery_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, delivery_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Nack(_message.Message):
    __slots__ = ("delivery_id", "reason", "retryable", "retry_after_ms")
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    delivery_id: str
    reason: str
    retryable: bool
    retry_after_ms: int
    def __init__(self, delivery_id: _Optional[str] = ..., reason: _Optional[str] = ..., retryable: bool = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerError(_message.Message):
    __slots__ = ("code", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class Receipt(_message.Message):
    __slots__ = ("lane", "sequence", "record_hash", "policy_version", "sender_sequence", "message_id")
    LANE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RECORD_HASH_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SENDER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    lane: str
    sequence: int
    record_hash: bytes
    policy_version: bytes
    sender_sequence: int
    message_id: str
    def __init__(self, lane: _Optional[str] = ..., sequence: _Optional[int] = ..., record_hash: _Optional[bytes] = ..., policy_version: _Optional[bytes] = ..., sender_sequence: _Optional[int] = ..., message_id: _Optional[str] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("type", "pointer", "action")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    POINTER_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    type: str
    pointer: str
    action: str
    def __init__(self, type: _Optional[str] = ..., pointer: _Optional[str] = ..., action: _Optional[str] = ...) -> None: ...

class Findings(_message.Message):
    __slots__ = ("findings",)
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...

class SendRequest(_message.Message):
    __slots__ = ("target_id", "message_type", "data_json", "instance_id", "idempotency_key", "ttl_ms", "not_before_ms", "idempotency_window_ms", "traceparent", "tracestate")
    TARGET_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_JSON_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    target_id: str
    message_type: str
    data_json: str
    instance_id: str
    idempotency_key: str
    ttl_ms: int
    not_before_ms: int
    idempotency_window_ms: int
    traceparent: str
    tracestate: str
    def __init__(self, target_id: _Optional[str] = ..., message_type: _Optional[str] = ..., data_json: _Optional[str] = ..., instance_id: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., ttl_ms: _Optional[int] = ..., not_before_ms: _Optional[int] = ..., idempotency_window_ms: _Optional[int] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class SendResponse(_message.Message):
    __slots__ = ("message_id", "receipt", "findings")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    receipt: Receipt
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, message_id: _Optional[str] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...

class RequestRequest(_message.Message):
    __slots__ = ("target_id", "message_type", "data_json", "timeout_ms", "instance_id", "idempotency_key", "ttl_ms", "not_before_ms", "idempotency_window_ms", "traceparent", "tracestate")
    TARGET_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_JSON_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    NOT_BEFORE_MS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    target_id: str
    message_type: str
    data_json: str
    timeout_ms: int
    instance_id: str
    idempotency_key: str
    ttl_ms: int
    not_before_ms: int
    idempotency_window_ms: int
    traceparent: str
    tracestate: str
    def __init__(self, target_id: _Optional[str] = ..., message_type: _Optional[str] = ..., data_json: _Optional[str] = ..., timeout_ms: _Optional[int] = ..., instance_id: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., ttl_ms: _Optional[int] = ..., not_before_ms: _Optional[int] = ..., idempotency_window_ms: _Optional[int] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class RequestResponse(_message.Message):
    __slots__ = ("message_id", "correlation_id", "receipt", "findings")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    correlation_id: str
    receipt: Receipt
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, message_id: _Optional[str] = ..., correlation_id: _Optional[str] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...

class ReplyRequest(_message.Message):
    __slots__ = ("correlation_id", "message_type", "data_json", "instance_id", "traceparent", "tracestate")
    CORRELATION_ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_TYPE_FIELD_NUMBER: _ClassVar[int]
    DATA_JSON_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    correlation_id: str
    message_type: str
    data_json: str
    instance_id: str
    traceparent: str
    tracestate: str
    def __init__(self, correlation_id: _Optional[str] = ..., message_type: _Optional[str] = ..., data_json: _Optional[str] = ..., instance_id: _Optional[str] = ..., traceparent: _Optional[str] = ..., tracestate: _Optional[str] = ...) -> None: ...

class ReplyResponse(_message.Message):
    __slots__ = ("message_id", "receipt", "findings")
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    receipt: Receipt
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, message_id: _Optional[str] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...

class Submit(_message.Message):
    __slots__ = ("submissions",)
    SUBMISSIONS_FIELD_NUMBER: _ClassVar[int]
    submissions: _containers.RepeatedCompositeFieldContainer[Submission]
    def __init__(self, submissions: _Optional[_Iterable[_Union[Submission, _Mapping]]] = ...) -> None: ...

class Submission(_message.Message):
    __slots__ = ("reference", "send", "request", "reply", "commit")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    SEND_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    reference: int
    send: SendRequest
    request: RequestRequest
    reply: ReplyRequest
    commit: Commit
    def __init__(self, reference: _Optional[int] = ..., send: _Optional[_Union[SendRequest, _Mapping]] = ..., request: _Optional[_Union[RequestRequest, _Mapping]] = ..., reply: _Optional[_Union[ReplyRequest, _Mapping]] = ..., commit: _Optional[_Union[Commit, _Mapping]] = ...) -> None: ...

class Commit(_message.Message):
    __slots__ = ("delivery_id", "updates", "expected_version", "messages")
    class UpdatesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    DELIVERY_ID_FIELD_NUMBER: _ClassVar[int]
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    delivery_id: str
    updates: _containers.ScalarMap[str, str]
    expected_version: int
    messages: _containers.RepeatedCompositeFieldContainer[Submission]
    def __init__(self, delivery_id: _Optional[str] = ..., updates: _Optional[_Mapping[str, str]] = ..., expected_version: _Optional[int] = ..., messages: _Optional[_Iterable[_Union[Submission, _Mapping]]] = ...) -> None: ...

class CommitResponse(_message.Message):
    __slots__ = ("results", "version")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SubmissionResult]
    version: int
    def __init__(self, results: _Optional[_Iterable[_Union[SubmissionResult, _Mapping]]] = ..., version: _Optional[int] = ...) -> None: ...

class Results(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[SubmissionResult]
    def __init__(self, results: _Optional[_Iterable[_Union[SubmissionResult, _Mapping]]] = ...) -> None: ...

class SubmissionResult(_message.Message):
    __slots__ = ("reference", "send", "request", "reply", "commit", "failure")
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    SEND_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    reference: int
    send: SendResponse
    request: RequestResponse
    reply: ReplyResponse
    commit: CommitResponse
    failure: Failure
    def __init__(self, reference: _Optional[int] = ..., send: _Optional[_Union[SendResponse, _Mapping]] = ..., request: _Optional[_Union[RequestResponse, _Mapping]] = ..., reply: _Optional[_Union[ReplyResponse, _Mapping]] = ..., commit: _Optional[_Union[CommitResponse, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("code", "detail", "retry_after_ms", "receipt", "findings")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    code: int
    detail: str
    retry_after_ms: int
    receipt: Receipt
    findings: _containers.RepeatedCompositeFieldContainer[Finding]
    def __init__(self, code: _Optional[int] = ..., detail: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., receipt: _Optional[_Union[Receipt, _Mapping]] = ..., findings: _Optional[_Iterable[_Union[Finding, _Mapping]]] = ...) -> None: ...

class DiscoverRequest(_message.Message):
    __slots__ = ("capabilities",)
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, capabilities: _Optional[_Iterable[str]] = ...) -> None: ...

class AgentRecord(_message.Message):
    __slots__ = ("agent_id", "capabilities", "metadata_json", "status")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    CAPABILITIES_FIELD_NUMBER: _ClassVar[int]
    METADATA_JSON_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    capabilities: _containers.RepeatedScalarFieldContainer[str]
    metadata_json: str
    status: str
    def __init__(self, agent_id: _Optional[str] = ..., capabilities: _Optional[_Iterable[str]] = ..., metadata_json: _Optional[str] = ..., status: _Optional[str] = ...) -> None: ...

class DiscoverResponse(_message.Message):
    __slots__ = ("agents",)
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedCompositeFieldContainer[AgentRecord]
    def __init__(self, agents: _Optional[_Iterable[_Union[AgentRecord, _Mapping]]] = ...) -> None: ...

class GetStateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStateResponse(_message.Message):
    __slots__ = ("state", "version")
    class StateEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    state: _containers.ScalarMap[str, str]
    version: int
    def __init__(self, state: _Optional[_Mapping[str, str]] = ..., version: _Optional[int] = ...) -> None: ...

class UpdateStateRequest(_message.Message):
    __slots__ = ("updates", "expected_version", "ttl_ms")
    class UpdatesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    UPDATES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_VERSION_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    updates: _containers.ScalarMap[str, str]
    expected_version: int
    ttl_ms: int
    def __init__(self, updates: _Optional[_Mapping[str, str]] = ..., expected_version: _Optional[int] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class UpdateStateResponse(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: int
    def __init__(self, version: _Optional[int] = ...) -> None: ...

class ResetStateRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResetStateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
