//! The unary calls: identity, shapes, session, then a job for a worker. The answer comes from there.

use std::sync::Arc;

use grpcio::{Metadata, RpcContext, UnarySink};
use protobuf::Message;

use super::answer::{detailed, retry_after};
use super::caller::{Admitted, Stranger, TOO_OFTEN};
use super::convert;
use super::gateway::Gateway;
use super::sending::Sending;
use super::status::status;
use crate::audit::Action;
use crate::content::Trace;
use crate::gate::{Answering, Credit};
use crate::ids::InstanceId;
use crate::protocol::{
    AgentRecord, DiscoverRequest, DiscoverResponse, GetStateRequest, GetStateResponse, ReplyRequest,
    ReplyResponse, RequestRequest, RequestResponse, ResetStateRequest, ResetStateResponse, SendRequest,
    SendResponse, Untrusted, UpdateStateRequest, UpdateStateResponse,
};
use crate::refusal::Refusal;
use crate::shard::desk::answer::{Answer, Waiting};
use crate::shard::desk::job::{Caller, Job, MessageJob, Post, RefusedJob, ReplyJob, Response, StateChange};
use crate::shard::desk::outcome::{Accepted, Declined, Discovered};

/// What a call is about, for the record of its refusal.
#[derive(Default)]
struct About {
    instance: String,
    target: String,
    message_type: String,
}

/// A call that waits for its answer; no task runs for it meanwhile.
struct Unanswered<T, R: Send + 'static> {
    sink: Option<UnarySink<R>>,
    convert: fn(T) -> R,
}

impl<T, R: Send + 'static> Unanswered<T, R> {
    /// Called by the worker, and sent from its thread. The sink's future must run to its end: dropping it cancels the
    /// call.
    fn answer(mut self, result: Result<T, Declined>, answering: Option<Answering>) {
        let Some(mut sink) = self.sink.take() else { return };
        let sent = match result {
            Ok(success) => sink.success((self.convert)(success)),
            Err(declined) => {
                if let Some(headers) = retry_after(declined.refusal) {
                    sink.set_headers(headers);
                }
                sink.fail(detailed(&declined))
            }
        };
        Sending::start(sent, answering);
    }
}

impl<T, R: Send + 'static> Drop for Unanswered<T, R> {
    fn drop(&mut self) {
        // The worker stopped with the job in its mailbox.
        if let Some(sink) = self.sink.take() {
            Sending::start(sink.fail(status(Refusal::SERVER_STOPPING)), None);
        }
    }
}

/// What the worker answers a call with.
fn respond<T: Send + 'static, R: Send + 'static>(sink: UnarySink<R>, convert: fn(T) -> R) -> Waiting<T> {
    let unanswered = Unanswered { sink: Some(sink), convert };
    Box::new(move |result, answering| unanswered.answer(result, answering))
}

impl Gateway {
    /// Who calls, and the request's content; a refusal otherwise.
    fn admit<'r, Q>(
        &self,
        ctx: &RpcContext<'_>,
        request: &'r Untrusted<Q>,
        action: Action,
    ) -> Result<(Caller, &'r Q, Credit), Stranger> {
        let Admitted { identity, peer } = self.callers.identify(ctx)?;
        let too_many = action == Action::Discover && !self.callers.may_discover(&peer);
        let Some(credit) = self.callers.credit(&peer, 1).filter(|_| !too_many) else {
            return Err(Stranger { refusal: TOO_OFTEN, identity: Some(identity), unseen: true });
        };
        match &request.0 {
            Some(content) => Ok((Caller { identity, instance: None }, content, credit)),
            None => {
                credit.spend();
                Err(Stranger::new(Refusal::MALFORMED_REQUEST, Some(identity)))
            }
        }
    }

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
        ctx: &RpcContext<'_>,
        request: Untrusted<Q>,
        action: Action,
        answer: Waiting<T>,
        about: impl Fn(&Q) -> About,
    ) -> Option<(Caller, InstanceId, Q, (About, Waiting<T>, Credit))> {
        let (caller, credit) = match self.admit(ctx, &request, action) {
            Ok((caller, _, credit)) => (caller, credit),
            Err(stranger) => {
                self.refuse_call(action, stranger, &About::default(), answer);
                return None;
            }
        };
        let content = request.0?;
        let about = about(&content);
        match self.session(&caller, &about.instance) {
            Ok(instance) => Some((caller, instance, content, (about, answer, credit))),
            Err(refusal) => {
                credit.spend();
                let stranger = Stranger::new(refusal, Some(caller.identity));
                self.refuse_call(action, stranger, &about, answer);
                None
            }
        }
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
        if stranger.unseen {
            return answer(stranger.refusal.into());
        }
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
        let answer = Box::new(move |declined| answer(Err(declined), None));
        self.refuse(action, stranger, &about.instance, &about.target, &about.message_type, answer);
    }
}

/// Enough of a stranger's text for the record.
fn bounded(text: &str) -> String {
    text.chars().take(crate::envelope::MAX_MESSAGE_TYPE_BYTES).collect()
}

fn header<'m>(headers: &'m Metadata, name: &str) -> Option<&'m [u8]> {
    headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn trace(ctx: &RpcContext<'_>) -> Option<Trace> {
    let headers = ctx.request_headers();
    Trace::from_headers(header(headers, "traceparent"), header(headers, "tracestate"))
}

pub(super) fn send(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<SendRequest>,
    sink: UnarySink<SendResponse>,
) {
    let answer = respond(sink, convert::send_response);
    let about = |content: &SendRequest| About {
        instance: content.instance_id.clone(),
        target: content.target_id.clone(),
        message_type: content.message_type.clone(),
    };
    message(gateway, &ctx, request, Action::Send, answer, about, convert::send);
}

pub(super) fn request(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<RequestRequest>,
    sink: UnarySink<RequestResponse>,
) {
    let answer = respond(sink, convert::request_response);
    let about = |content: &RequestRequest| About {
        instance: content.instance_id.clone(),
        target: content.target_id.clone(),
        message_type: content.message_type.clone(),
    };
    message(gateway, &ctx, request, Action::Request, answer, about, convert::request);
}

/// Send and Request: to the target's worker.
fn message<Q>(
    gateway: &Gateway,
    ctx: &RpcContext<'_>,
    request: Untrusted<Q>,
    action: Action,
    answer: Waiting<Accepted>,
    about: impl Fn(&Q) -> About,
    convert: impl FnOnce(Q) -> Result<Post, Refusal>,
) {
    let Some((caller, instance, content, about)) = gateway.speaker(ctx, request, action, answer, about)
    else {
        return;
    };
    let (about, answer, credit) = about;
    match convert(content) {
        Ok(post) => {
            let hash = convert::route(&caller.identity.agent, &post.target);
            let post = Post { trace: trace(ctx).or(post.trace), ..post };
            let answer = Answer::call(answer, credit);
            gateway.shards.submit(hash, Job::Message(MessageJob { caller, instance, post, answer }));
        }
        Err(refusal) => {
            credit.spend();
            let stranger = Stranger::new(refusal, Some(caller.identity));
            gateway.refuse_call(action, stranger, &about, answer);
        }
    }
}

pub(super) fn reply(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<ReplyRequest>,
    sink: UnarySink<ReplyResponse>,
) {
    let answer = respond(sink, convert::reply_response);
    let about = |content: &ReplyRequest| About {
        instance: content.instance_id.clone(),
        target: String::new(),
        message_type: content.message_type.clone(),
    };
    let Some((caller, instance, content, (about, answer, credit))) =
        gateway.speaker(&ctx, request, Action::Reply, answer, about)
    else {
        return;
    };
    match convert::reply(content) {
        Ok(response) => {
            // To the requester's worker: it owns the inbox that the reply goes to.
            let hash = response.correlation_id.route_hash();
            let response = Response { trace: trace(&ctx).or(response.trace), ..response };
            let answer = Answer::call(answer, credit);
            gateway.shards.submit(hash, Job::Reply(ReplyJob { caller, instance, response, answer }));
        }
        Err(refusal) => {
            credit.spend();
            let stranger = Stranger::new(refusal, Some(caller.identity));
            gateway.refuse_call(Action::Reply, stranger, &about, answer);
        }
    }
}

pub(super) fn discover(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<DiscoverRequest>,
    sink: UnarySink<DiscoverResponse>,
) {
    let answer = respond(sink, |found: Vec<Arc<Discovered>>| DiscoverResponse {
        agents: found
            .into_iter()
            .map(|agent| AgentRecord {
                agent_id: agent.agent.to_string(),
                capabilities: agent.capabilities.clone(),
                metadata_json: agent.metadata_json.clone(),
                status: "ACTIVE".to_owned(),
                ..AgentRecord::default()
            })
            .collect(),
        ..DiscoverResponse::default()
    });
    owned(gateway, &ctx, request, Action::Discover, answer, |caller, content, answer| Job::Discover {
        caller,
        capabilities: content.capabilities,
        answer,
    });
}

pub(super) fn get_state(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<GetStateRequest>,
    sink: UnarySink<GetStateResponse>,
) {
    let answer = respond(sink, |(fields, version): (Vec<(String, String)>, u64)| GetStateResponse {
        state: fields.into_iter().collect(),
        version,
        ..GetStateResponse::default()
    });
    owned(gateway, &ctx, request, Action::StateGet, answer, |caller, _, answer| Job::StateGet {
        caller,
        answer,
    });
}

pub(super) fn update_state(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<UpdateStateRequest>,
    sink: UnarySink<UpdateStateResponse>,
) {
    let answer = respond(sink, |version| UpdateStateResponse { version, ..UpdateStateResponse::default() });
    owned(gateway, &ctx, request, Action::StateUpdate, answer, |caller, content, answer| Job::StateUpdate {
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
    ctx: RpcContext<'_>,
    request: Untrusted<ResetStateRequest>,
    sink: UnarySink<ResetStateResponse>,
) {
    let answer = respond(sink, |()| ResetStateResponse::default());
    owned(gateway, &ctx, request, Action::StateReset, answer, |caller, _, answer| Job::StateReset {
        caller,
        answer,
    });
}

/// A call about the caller's own affairs: its own worker does it.
fn owned<Q: Message, T: Send + 'static>(
    gateway: &Gateway,
    ctx: &RpcContext<'_>,
    request: Untrusted<Q>,
    action: Action,
    answer: Waiting<T>,
    job: impl FnOnce(Caller, Q, Answer<T>) -> Job,
) {
    let (caller, credit) = match gateway.admit(ctx, &request, action) {
        Ok((caller, _, credit)) => (caller, credit),
        Err(stranger) => return gateway.refuse_call(action, stranger, &About::default(), answer),
    };
    let Some(content) = request.0 else { return };
    let hash = caller.identity.agent.route_hash();
    gateway.shards.submit(hash, job(caller, content, Answer::call(answer, credit)));
}
