//! The unary calls: identity, shapes, session, then a job for a worker. The answer comes from there.

use futures_channel::oneshot;
use grpcio::{Metadata, RpcContext, UnarySink};
use protobuf::Message;

use super::Gateway;
use super::answer::{detailed, receipt, retry_after};
use super::caller::Stranger;
use super::status;
use crate::audit::Action;
use crate::envelope::Trace;
use crate::ids::{AgentId, CorrelationId, InstanceId};
use crate::protocol::{
    AgentRecord, DiscoverRequest, DiscoverResponse, GetStateRequest, GetStateResponse, ReplyRequest,
    ReplyResponse, RequestRequest, RequestResponse, ResetStateRequest, ResetStateResponse, SendRequest,
    SendResponse, Untrusted, UpdateStateRequest, UpdateStateResponse,
};
use crate::refusal::Refusal;
use crate::shard::job::{Accepted, Answer, Caller, Declined, Job, MessageJob, RefusedJob, ReplyJob};

/// How long a request may be answered when it does not say, in seconds.
const DEFAULT_REQUEST_TTL_S: u64 = 60;
/// Longest time a request may be answered, in seconds.
const MAX_REQUEST_TTL_S: u64 = 86_400;

/// What a call is about, for the record of its refusal.
#[derive(Default)]
struct About<'a> {
    instance: &'a str,
    target: &'a str,
    message_type: &'a str,
}

/// Sends the worker's answer out. The sink's future must run to its end: dropping it cancels the call.
fn respond<T, R>(
    ctx: &RpcContext<'_>,
    mut sink: UnarySink<R>,
    answer: oneshot::Receiver<Result<T, Declined>>,
    convert: impl FnOnce(T) -> R + Send + 'static,
) where
    T: Send + 'static,
    R: Send + 'static,
{
    ctx.spawn(async move {
        let sent = match answer.await {
            Ok(Ok(success)) => sink.success(convert(success)).await,
            Ok(Err(declined)) => {
                if let Some(headers) = retry_after(declined.refusal) {
                    sink.set_headers(headers);
                }
                sink.fail(detailed(&declined)).await
            }
            // The worker stopped with the job in its mailbox.
            Err(oneshot::Canceled) => sink.fail(status(Refusal::SERVER_STOPPING)).await,
        };
        if let Err(error) = sent {
            log::debug!("an answer did not reach its caller: {error}");
        }
    });
}

impl Gateway {
    /// Who calls, and the request's content; a refusal otherwise.
    fn admit<'r, Q>(
        &self,
        ctx: &RpcContext<'_>,
        request: &'r Untrusted<Q>,
    ) -> Result<(Caller, &'r Q), Stranger> {
        let identity = self.callers.identify(ctx)?;
        match &request.0 {
            Some(content) => Ok((Caller { identity, instance: None }, content)),
            None => Err(Stranger { refusal: Refusal::MALFORMED_REQUEST, identity: Some(identity) }),
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
        about: &About<'_>,
        answer: Answer<T>,
    ) {
        let answer = Box::new(move |declined| drop(answer.send(Err(declined))));
        self.refuse(action, stranger, about.instance, about.target, about.message_type, answer);
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

/// Where a message's job goes: to its target's worker. A target that is no id is refused by the
/// sender's.
fn message_route(caller: &Caller, target: &str) -> u16 {
    AgentId::parse(target).unwrap_or_else(|| caller.identity.agent.clone()).route_hash()
}

pub(super) fn send(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<SendRequest>,
    sink: UnarySink<SendResponse>,
) {
    let (answer, receiver) = oneshot::channel();
    respond(&ctx, sink, receiver, |accepted: Accepted| SendResponse {
        message_id: accepted.message_id.to_string(),
        receipt: receipt(accepted.receipt).into(),
        ..SendResponse::default()
    });
    let (caller, content) = match gateway.admit(&ctx, &request) {
        Ok(admitted) => admitted,
        Err(stranger) => {
            return gateway.refuse_call(Action::Send, stranger, &About::default(), answer);
        }
    };
    let instance = match gateway.session(&caller, &content.instance_id) {
        Ok(instance) => instance,
        Err(refusal) => {
            let about = About {
                instance: &content.instance_id,
                target: &content.target_id,
                message_type: &content.message_type,
            };
            let stranger = Stranger { refusal, identity: Some(caller.identity) };
            return gateway.refuse_call(Action::Send, stranger, &about, answer);
        }
    };
    let hash = message_route(&caller, &content.target_id);
    let Some(content) = request.0 else { return };
    gateway.shards.submit(
        hash,
        Job::Message(MessageJob {
            caller,
            instance,
            target: content.target_id,
            message_type: content.message_type,
            data_json: content.data_json,
            request_ttl_s: None,
            trace: trace(&ctx),
            answer,
        }),
    );
}

pub(super) fn request(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<RequestRequest>,
    sink: UnarySink<RequestResponse>,
) {
    let (answer, receiver) = oneshot::channel();
    respond(&ctx, sink, receiver, |accepted: Accepted| RequestResponse {
        message_id: accepted.message_id.to_string(),
        correlation_id: accepted.correlation_id.map(|id| id.to_string()).unwrap_or_default(),
        receipt: receipt(accepted.receipt).into(),
        ..RequestResponse::default()
    });
    let (caller, content) = match gateway.admit(&ctx, &request) {
        Ok(admitted) => admitted,
        Err(stranger) => {
            return gateway.refuse_call(Action::Request, stranger, &About::default(), answer);
        }
    };
    let instance = match gateway.session(&caller, &content.instance_id) {
        Ok(instance) => instance,
        Err(refusal) => {
            let about = About {
                instance: &content.instance_id,
                target: &content.target_id,
                message_type: &content.message_type,
            };
            let stranger = Stranger { refusal, identity: Some(caller.identity) };
            return gateway.refuse_call(Action::Request, stranger, &about, answer);
        }
    };
    let hash = message_route(&caller, &content.target_id);
    let Some(content) = request.0 else { return };
    gateway.shards.submit(
        hash,
        Job::Message(MessageJob {
            caller,
            instance,
            target: content.target_id,
            message_type: content.message_type,
            data_json: content.data_json,
            request_ttl_s: Some(request_ttl_s(content.timeout_ms)),
            trace: trace(&ctx),
            answer,
        }),
    );
}

/// `ceil(timeout_ms / 1000)`; 0 or less means the default.
fn request_ttl_s(timeout_ms: i32) -> u64 {
    match u64::try_from(timeout_ms) {
        Ok(0) | Err(_) => DEFAULT_REQUEST_TTL_S,
        Ok(timeout_ms) => timeout_ms.div_ceil(1000).min(MAX_REQUEST_TTL_S),
    }
}

pub(super) fn reply(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<ReplyRequest>,
    sink: UnarySink<ReplyResponse>,
) {
    let (answer, receiver) = oneshot::channel();
    respond(&ctx, sink, receiver, |accepted: Accepted| ReplyResponse {
        message_id: accepted.message_id.to_string(),
        receipt: receipt(accepted.receipt).into(),
        ..ReplyResponse::default()
    });
    let (caller, content) = match gateway.admit(&ctx, &request) {
        Ok(admitted) => admitted,
        Err(stranger) => {
            return gateway.refuse_call(Action::Reply, stranger, &About::default(), answer);
        }
    };
    let admitted = gateway.session(&caller, &content.instance_id).and_then(|instance| {
        if content.correlation_id.is_empty() {
            return Err(Refusal::MISSING_CORRELATION_ID);
        }
        let id = CorrelationId::parse(&content.correlation_id).ok_or(Refusal::UNKNOWN_CORRELATION_ID)?;
        Ok((instance, id))
    });
    let (instance, correlation_id) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => {
            let about =
                About { instance: &content.instance_id, target: "", message_type: &content.message_type };
            let stranger = Stranger { refusal, identity: Some(caller.identity) };
            return gateway.refuse_call(Action::Reply, stranger, &about, answer);
        }
    };
    let Some(content) = request.0 else { return };
    // To the requester's worker: it owns the inbox that the reply goes to.
    gateway.shards.submit(
        correlation_id.route_hash(),
        Job::Reply(ReplyJob {
            caller,
            instance,
            correlation_id,
            message_type: content.message_type,
            data_json: content.data_json,
            trace: trace(&ctx),
            answer,
        }),
    );
}

pub(super) fn discover(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<DiscoverRequest>,
    sink: UnarySink<DiscoverResponse>,
) {
    let (answer, receiver) = oneshot::channel();
    respond(&ctx, sink, receiver, |found: Vec<crate::shard::job::Discovered>| DiscoverResponse {
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
    let (answer, receiver) = oneshot::channel();
    respond(&ctx, sink, receiver, |fields: Vec<(String, String)>| GetStateResponse {
        state: fields.into_iter().collect(),
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
    let (answer, receiver) = oneshot::channel();
    respond(&ctx, sink, receiver, |()| UpdateStateResponse::default());
    owned(gateway, &ctx, request, Action::StateUpdate, answer, |caller, content, answer| Job::StateUpdate {
        caller,
        updates: content.updates.into_iter().collect(),
        answer,
    });
}

pub(super) fn reset_state(
    gateway: &Gateway,
    ctx: RpcContext<'_>,
    request: Untrusted<ResetStateRequest>,
    sink: UnarySink<ResetStateResponse>,
) {
    let (answer, receiver) = oneshot::channel();
    respond(&ctx, sink, receiver, |()| ResetStateResponse::default());
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
    answer: Answer<T>,
    job: impl FnOnce(Caller, Q, Answer<T>) -> Job,
) {
    let caller = match gateway.admit(ctx, &request) {
        Ok((caller, _)) => caller,
        Err(stranger) => return gateway.refuse_call(action, stranger, &About::default(), answer),
    };
    let Some(content) = request.0 else { return };
    let hash = caller.identity.agent.route_hash();
    gateway.shards.submit(hash, job(caller, content, answer));
}

#[cfg(test)]
mod tests {
    use super::request_ttl_s;

    #[test]
    fn a_request_timeout_is_rounded_up_and_bounded() {
        assert_eq!(request_ttl_s(0), 60);
        assert_eq!(request_ttl_s(-5), 60);
        assert_eq!(request_ttl_s(1), 1);
        assert_eq!(request_ttl_s(1000), 1);
        assert_eq!(request_ttl_s(1001), 2);
        assert_eq!(request_ttl_s(i32::MAX), 86_400);
    }
}
