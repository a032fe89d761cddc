//! Every key this program touches. Only validated ids become part of a key, and none of them can hold
//! `:`, so no two of these can collide.

use crate::audit::LaneId;
use crate::ids::{AgentId, CorrelationId, InstanceId, ServerId};

/// The consumer group on every delivery stream.
pub const GROUP: &str = "agents";
/// Value of an intact fence key.
pub const FENCE_OPEN: &str = "open";
/// Value of a void server's fence key.
pub const FENCED: &str = "fenced";
/// The one field of a delivery stream entry.
pub const ENVELOPE_FIELD: &str = "envelope";
/// Beside it, where its sender set an end: when the message expires, in Unix milliseconds.
pub const EXPIRES_FIELD: &str = "expires_ms";
/// Beside it, where its sender set a beginning: when it may be delivered first, in Unix milliseconds.
pub const NOT_BEFORE_FIELD: &str = "not_before_ms";
/// Beside it, five words: the tag (base64), where in the envelope the payload begins and ends, the sequence of the record
/// that allowed it, that record's lane. Of a dead letter without the second and third.
pub const ATTEST_FIELD: &str = "attest";
/// The servers on this Redis: a hash, server id → its process (JSON).
pub const SERVERS: &str = "mas.servers";
/// The channel on which servers tell all others.
pub const NEWS: &str = "mas.news";
/// What somebody else has put into Redis, put aside: a stream.
pub const FOREIGN: &str = "mas.foreign";
/// Which store key's tags are in this Redis: the id of its log's first one.
pub const STORE_KEY: &str = "mas.store_key";
/// Who is shut out: a tag, and one document (JSON).
pub const QUARANTINE: &str = "mas.quarantine";
/// The dead letters of all agents.
pub const DEAD_LETTERS: &str = "dlq:messages";
/// Registry of audit lanes: a hash, lane id → when and by whom it was opened (JSON).
pub const LANES: &str = "audit:lanes";
/// Prefix of the lanes' streams.
pub const LANE_PREFIX: &str = "audit:lane:";

/// Lanes of before the log's beginning: a hash, lane id → where it ended when it was taken over, and a tag.
pub const TAKEN_OVER: &str = "audit:taken_over";

/// How far the trail was archived: a hash, lane id → the tree behind its last archived record, and a tag; and which archives
/// there are.
pub const ARCHIVED: &str = "audit:archived";
/// Who archives (JSON); runs out by itself.
pub const ARCHIVER: &str = "audit:archiver";

/// Signed checkpoints over the lanes' heads: a stream.
pub const CHECKPOINTS: &str = "audit:checkpoints";

/// Which connection of a server run writes its checkpoints: changed with each, and watched.
pub fn checkpoint_turn(boot: &str) -> String {
    format!("mas.turn:{boot}")
}

/// Prefix of the delivery streams.
pub const INBOX_PREFIX: &str = "agent.stream:";

/// Messages for an agent, shared by its instances.
pub fn inbox(agent: &AgentId) -> String {
    format!("{INBOX_PREFIX}{agent}")
}

/// Replies for one instance.
pub fn instance_inbox(agent: &AgentId, instance: &InstanceId) -> String {
    format!("{INBOX_PREFIX}{agent}:{instance}")
}

/// The consumer name of an instance in [`GROUP`].
pub fn consumer(agent: &AgentId, instance: &InstanceId) -> String {
    format!("{agent}-{instance}")
}

/// That a server is to stop (JSON behind a tag); runs out by itself.
pub fn drain(server: &ServerId) -> String {
    format!("mas.drain:{server}")
}

/// A server's lease: there as long as it lives.
pub fn server_lease(server: &ServerId) -> String {
    format!("mas.server:{server}")
}

/// Whether a server may commit: its workers watch it.
pub fn fence(server: &ServerId) -> String {
    format!("mas.fence:{server}")
}

/// How a server says that it is: JSON behind a tag; runs out by itself.
pub fn report(server: &ServerId) -> String {
    format!("mas.report:{server}")
}

/// What a server has counted, in the same form.
pub fn counts(server: &ServerId) -> String {
    format!("mas.counts:{server}")
}

/// What the last verification of the trail has found, in the same form.
pub const VERIFIED: &str = "mas.verified";

/// The channel on which the others tell one server.
pub fn news_for(server: &ServerId) -> String {
    format!("{NEWS}:{server}")
}

/// Held by the one server that does a thing which any could do; runs out by itself.
pub fn once(thing: &str) -> String {
    format!("mas.once:{thing}")
}

/// The instances of an agent that have, or had, an instance inbox: a hash, instance id → the server it is
/// connected to (`s:` and its id), else when it left (Unix milliseconds).
pub fn instances(agent: &AgentId) -> String {
    format!("agent.instances:{agent}")
}

/// The agent's record for tools: id, capabilities, metadata, status, registered_at.
pub fn agent(agent: &AgentId) -> String {
    format!("agent:{agent}")
}

/// The agent's state.
pub fn state(agent: &AgentId) -> String {
    format!("{STATE_PREFIX}{agent}")
}

/// Prefix of the tags of the agents' states.
pub const STATE_TAG_PREFIX: &str = "agent.state_tag:";

/// The tag of an agent's state, with what it is over.
pub fn state_tag(agent: &AgentId) -> String {
    format!("{STATE_TAG_PREFIX}{agent}")
}

/// Prefix of the counters of their changes.
pub const STATE_VERSION_PREFIX: &str = "agent.state_version:";

/// Prefix of the agents' states.
pub const STATE_PREFIX: &str = "agent.state:";

/// Counts the changes of an agent's state; outlives the state, so that no version comes twice.
pub fn state_version(agent: &AgentId) -> String {
    format!("{STATE_VERSION_PREFIX}{agent}")
}

/// Prefix of what idempotency keys remember.
pub const IDEMPOTENCY_PREFIX: &str = "mas.idempotency:";

/// What became of a message with an idempotency key.
pub fn idempotency(sender: &AgentId, key: &str) -> String {
    format!("{IDEMPOTENCY_PREFIX}{sender}:{key}")
}

/// Prefix of unanswered requests.
pub const PENDING_REQUEST_PREFIX: &str = "mas.pending_request:";

/// An unanswered request.
pub fn pending_request(id: &CorrelationId) -> String {
    format!("{PENDING_REQUEST_PREFIX}{id}")
}

/// A target's circuit breaker while it is not closed: a hash, `state` and `since_ms`.
pub fn circuit(agent: &AgentId) -> String {
    format!("circuit:{agent}")
}

/// What an agent has sent in an hour (Unix hours), on all servers: a hash, minute (Unix minutes) → messages. The
/// Python server keeps sorted sets under `:minute` and `:hour`.
pub fn rate(agent: &AgentId, hour: u64) -> String {
    format!("ratelimit:{agent}:{hour}")
}

/// An audit lane's stream.
pub fn lane(id: &LaneId) -> String {
    format!("{LANE_PREFIX}{id}")
}
