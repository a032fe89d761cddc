//! The unary calls: identity, shapes, session, then a job for a worker. The answer comes from there.

use std::sync::Arc;

use protobuf::Message;

use super::caller::Stranger;
use super::convert;
use super::gateway::Gateway;
use super::received::{Head, Open, Waiting};
use crate::audit::Action;
use crate::identity::Identity;
use crate::ids::InstanceId;
use crate::protocol::{
    AgentRecord, DiscoverRequest, DiscoverResponse, GetStateRequest, GetStateResponse, ReplyRequest,
    ReplyResponse, RequestRequest, RequestResponse, ResetStateRequest, ResetStateResponse, SendRequest,
    SendResponse, Untrusted, UpdateStateRequest, UpdateStateResponse,
};
use crate::refusal::Refusal;
use crate::shard::desk::answer::Answer;
use crate::shard::desk::job::{Caller, Job, MessageJob, Post, RefusedJob, ReplyJob, StateChange};
use crate::shard::desk::outcome::{Accepted, Declined};

/// What a call is about, for the record of its refusal.
#[derive(Default)]
struct About {
    instance: String,
    target: String,
    message_type: String,
}

impl Gateway {
    /// The instance that a message comes from: well-formed, and with a session.
    fn session(&self, caller: &Caller, instance: &str) -> Result<InstanceId, Refusal> {
        let instance = InstanceId::parse(instance).ok_or(Refusal::INVALID_INSTANCE_ID)?;
        let directory = &self.shards.shared().directory;
        if directory.has(&caller.identity.agent, &instance) {
            Ok(instance)
        } else {
            Err(Refusal::SESSION_NOT_CONNECTED)
        }
    }

    /// Who calls and from which instance, and the request's content; otherwise the refusal is on its way.
    #[allow(clippy::type_complexity)] // One tuple, taken apart at once.
    fn speaker<Q, T: Send + 'static>(
        &self,
        identity: Arc<Identity>,
        request: Untrusted<Q>,
        action: Action,
        answer: Waiting<T>,
        about: impl Fn(&Q) -> About,
    ) -> Option<(Caller, InstanceId, Q, (About, Waiting<T>))> {
        let caller = Caller { identity, instance: None };
        let Some(content) = request.0 else {
            self.malformed(action, caller, answer);
            return None;
        };
        let about = about(&content);
        match self.session(&caller, &about.instance) {
            Ok(instance) => Some((caller, instance, content, (about, answer))),
            Err(refusal) => {
                let stranger = Stranger { refusal, identity: Some(caller.identity) };
                self.refuse_call(action, stranger, &about, answer);
                None
            }
        }
    }

    /// The request is no message of its kind.
    fn malformed<T: Send + 'static>(&self, action: Action, caller: Caller, answer: Waiting<T>) {
        let stranger = Stranger { refusal: Refusal::MALFORMED_REQUEST, identity: Some(caller.identity) };
        self.refuse_call(action, stranger, &About::default(), answer);
    }

    /// Has the refusal of a caller recorded who may not even ask.
    pub(super) fn turn_away<T: Send + 'static>(
        &self,
        action: Action,
        stranger: Stranger,
        answer: Waiting<T>,
    ) {
        self.refuse_call(action, stranger, &About::default(), answer);
    }

    /// Has a refusal recorded by a worker; the caller is told afterwards.
    pub(super) fn refuse(
        &self,
        action: Action,
        stranger: Stranger,
        instance: &str,
        target: &str,
        message_type: &str,
        answer: Box<dyn FnOnce(Declined) + Send>,
    ) {
        let hash = stranger.identity.as_ref().map_or(0, |identity| identity.agent.route_hash());
        let job = RefusedJob {
            action,
            agent: stranger.identity.as_ref().map(|i| i.agent.to_string()).unwrap_or_default(),
            instance: bounded(instance),
            fingerprint: stranger.identity.as_ref().map(|i| i.fingerprint),
            target: bounded(target),
            message_type: bounded(message_type),
            refusal: stranger.refusal,
            answer,
        };
        self.shards.submit(hash, Job::Refused(job));
    }

    fn refuse_call<T: Send + 'static>(
        &self,
        action: Action,
        stranger: Stranger,
        about: &About,
        answer: Waiting<T>,
    ) {
        let answer = Box::new(move |declined| answer(Err(declined)));
        self.refuse(action, stranger, &about.instance, &about.target, &about.message_type, answer);
    }
}

/// Enough of a stranger's text for the record.
fn bounded(text: &str) -> String {
    text.chars().take(crate::envelope::MAX_MESSAGE_TYPE_BYTES).collect()
}

pub(super) fn send(
    gateway: &Gateway,
    head: Head,
    request: Untrusted<SendRequest>,
    open: Open<SendRequest, SendResponse>,
) {
    let answer = open.answered_by(convert::send_response);
    let about = |content: &SendRequest| About {
        instance: content.instance_id.clone(),
        target: content.target_id.clone(),
        message_type: content.message_type.clone(),
    };
    message(gateway, head, request, Action::Send, answer, about, convert::send);
}

pub(super) fn request(
    gateway: &Gateway,
    head: Head,
    request: Untrusted<RequestRequest>,
    open: Open<RequestRequest, RequestResponse>,
) {
    let answer = open.answered_by(convert::request_response);
    let about = |content: &RequestRequest| About {
        instance: content.instance_id.clone(),
        target: content.target_id.clone(),
        message_type: content.message_type.clone(),
    };
    message(gateway, head, request, Action::Request, answer, about, convert::request);
}

/// Send and Request: to the target's worker.
fn message<Q>(
    gateway: &Gateway,
    head: Head,
    request: Untrusted<Q>,
    action: Action,
    answer: Waiting<Accepted>,
    about: impl Fn(&Q) -> About,
    convert: impl FnOnce(Q) -> Result<Post, Refusal>,
) {
    let Some((caller, instance, content, about)) =
        gateway.speaker(head.identity, request, action, answer, about)
    else {
        return;
    };
    let (about, answer) = about;
    match convert(content) {
        Ok(post) => {
            let hash = convert::route(&caller.identity.agent, &post.target);
            let (trace, answer) = (head.trace, Answer::Call(answer));
            gateway.shards.submit(hash, Job::Message(MessageJob { caller, instance, post, trace, answer }));
        }
        Err(refusal) => {
            let stranger = Stranger { refusal, identity: Some(caller.identity) };
            gateway.refuse_call(action, stranger, &about, answer);
        }
    }
}

pub(super) fn reply(
    gateway: &Gateway,
    head: Head,
    request: Untrusted<ReplyRequest>,
    open: Open<ReplyRequest, ReplyResponse>,
) {
    let answer = open.answered_by(convert::reply_response);
    let about = |content: &ReplyRequest| About {
        instance: content.instance_id.clone(),
        target: String::new(),
        message_type: content.message_type.clone(),
    };
    let Some((caller, instance, content, (about, answer))) =
        gateway.speaker(head.identity, request, Action::Reply, answer, about)
    else {
        return;
    };
    match convert::reply(content) {
        Ok(response) => {
            // To the requester's worker: it owns the inbox that the reply goes to.
            let hash = response.correlation_id.route_hash();
            let (trace, answer) = (head.trace, Answer::Call(answer));
            gateway.shards.submit(hash, Job::Reply(ReplyJob { caller, instance, response, trace, answer }));
        }
        Err(refusal) => {
            let stranger = Stranger { refusal, identity: Some(caller.identity) };
            gateway.refuse_call(Action::Reply, stranger, &about, answer);
        }
    }
}

pub(super) fn discover(
    gateway: &Gateway,
    head: Head,
    request: Untrusted<DiscoverRequest>,
    open: Open<DiscoverRequest, DiscoverResponse>,
) {
    let answer = open.answered_by(|found: Vec<crate::shard::desk::outcome::Discovered>| DiscoverResponse {
        agents: found
            .into_iter()
            .map(|agent| AgentRecord {
                agent_id: agent.agent.to_string(),
                capabilities: agent.capabilities,
                metadata_json: agent.metadata_json,
                status: "ACTIVE".to_owned(),
                ..AgentRecord::default()
            })
            .collect(),
        ..DiscoverResponse::default()
    });
    owned(gateway, head, request, Action::Discover, answer, |caller, content, answer| Job::Discover {
        caller,
        capabilities: content.capabilities,
        answer,
    });
}

pub(super) fn get_state(
    gateway: &Gateway,
    head: Head,
    request: Untrusted<GetStateRequest>,
    open: Open<GetStateRequest, GetStateResponse>,
) {
    let answer = open.answered_by(|(fields, version): (Vec<(String, String)>, u64)| GetStateResponse {
        state: fields.into_iter().collect(),
        version,
        ..GetStateResponse::default()
    });
    owned(gateway, head, request, Action::StateGet, answer, |caller, _, answer| Job::StateGet {
        caller,
        answer,
    });
}

pub(super) fn update_state(
    gateway: &Gateway,
    head: Head,
    request: Untrusted<UpdateStateRequest>,
    open: Open<UpdateStateRequest, UpdateStateResponse>,
) {
    let answer =
        open.answered_by(|version| UpdateStateResponse { version, ..UpdateStateResponse::default() });
    owned(gateway, head, request, Action::StateUpdate, answer, |caller, content, answer| Job::StateUpdate {
        caller,
        change: StateChange {
            updates: content.updates.into_iter().collect(),
            expected_version: content.expected_version,
            ttl_ms: content.ttl_ms,
        },
        answer,
    });
}

pub(super) fn reset_state(
    gateway: &Gateway,
    head: Head,
    request: Untrusted<ResetStateRequest>,
    open: Open<ResetStateRequest, ResetStateResponse>,
) {
    let answer = open.answered_by(|()| ResetStateResponse::default());
    owned(gateway, head, request, Action::StateReset, answer, |caller, _, answer| Job::StateReset {
        caller,
        answer,
    });
}

/// A call about the caller's own affairs: its own worker does it.
fn owned<Q: Message, T: Send + 'static>(
    gateway: &Gateway,
    head: Head,
    request: Untrusted<Q>,
    action: Action,
    answer: Waiting<T>,
    job: impl FnOnce(Caller, Q, Answer<T>) -> Job,
) {
    let caller = Caller { identity: head.identity, instance: None };
    let Some(content) = request.0 else { return gateway.malformed(action, caller, answer) };
    let hash = caller.identity.agent.route_hash();
    gateway.shards.submit(hash, job(caller, content, Answer::Call(answer)));
}
