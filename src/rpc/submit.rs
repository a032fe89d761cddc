//! Calls on a session's stream: the same jobs as the unary calls make, with the session as caller.

use std::sync::Arc;

use super::convert;
use super::gateway::Gateway;
use crate::audit::Action;
use crate::protocol::submission::Call;
use crate::protocol::{Commit, Submission};
use crate::refusal::Refusal;
use crate::shard::desk::answer::Answer;
use crate::shard::desk::delivery::DeliveryId;
use crate::shard::desk::job::{
    Caller, CommitJob, Job, MessageJob, Outgoing, RefusedJob, ReplyJob, StateChange,
};
use crate::shard::desk::outbox::Outbound;
use crate::shard::desk::outcome::{Accepted, MessageKind, Outcome};
use crate::shard::desk::session::Session;

/// Puts one submission into the mailbox of the worker that decides it; ringing is the caller's.
pub(super) fn submit(gateway: &Gateway, session: &Arc<Session>, submission: Submission) {
    let reference = submission.reference;
    match submission.call {
        Some(Call::Send(content)) => {
            let about = (content.target_id.clone(), content.message_type.clone());
            match convert::send(content) {
                Ok(post) => {
                    post_job(gateway, session, reference, post, |a| Outcome::Accepted(MessageKind::Sent, a));
                }
                Err(refusal) => refuse(gateway, session, reference, Action::Send, about, refusal),
            }
        }
        Some(Call::Request(content)) => {
            let about = (content.target_id.clone(), content.message_type.clone());
            match convert::request(content) {
                Ok(post) => {
                    post_job(gateway, session, reference, post, |a| {
                        Outcome::Accepted(MessageKind::Requested, a)
                    });
                }
                Err(refusal) => refuse(gateway, session, reference, Action::Request, about, refusal),
            }
        }
        Some(Call::Reply(content)) => {
            let about = (String::new(), content.message_type.clone());
            match convert::reply(content) {
                Ok(response) => {
                    // To the requester's worker: it owns the inbox that the reply goes to.
                    let hash = response.correlation_id.route_hash();
                    let answer = answer(session, reference, |accepted| {
                        Outcome::Accepted(MessageKind::Replied, accepted)
                    });
                    let (caller, instance) = (caller(session), session.instance.clone());
                    let job = ReplyJob { caller, instance, response, trace: None, answer };
                    gateway.shards.queue(hash, Job::Reply(job));
                }
                Err(refusal) => refuse(gateway, session, reference, Action::Reply, about, refusal),
            }
        }
        Some(Call::Commit(content)) => match commit(session, reference, content) {
            Ok(job) => gateway.shards.queue(session.identity.agent.route_hash(), Job::Commit(job)),
            Err(refusal) => {
                refuse(gateway, session, reference, Action::Commit, Default::default(), refusal);
            }
        },
        None => {
            let refusal = Refusal::MALFORMED_REQUEST;
            refuse(gateway, session, reference, Action::Send, Default::default(), refusal);
        }
    }
}

fn post_job(
    gateway: &Gateway,
    session: &Arc<Session>,
    reference: u64,
    post: crate::shard::desk::job::Post,
    name: fn(Accepted) -> Outcome,
) {
    let hash = convert::route(&session.identity.agent, &post.target);
    let (caller, instance) = (caller(session), session.instance.clone());
    let answer = answer(session, reference, name);
    gateway.shards.queue(hash, Job::Message(MessageJob { caller, instance, post, trace: None, answer }));
}

fn commit(session: &Arc<Session>, reference: u64, content: Commit) -> Result<CommitJob, Refusal> {
    let delivery = if content.delivery_id.is_empty() {
        None
    } else {
        Some(DeliveryId::parse(&content.delivery_id).ok_or(Refusal::DELIVERY_NOT_HELD)?)
    };
    let messages: Vec<Outgoing> = content
        .messages
        .into_iter()
        .map(|message| convert::outgoing(message.call))
        .collect::<Result<_, _>>()?;
    Ok(CommitJob {
        caller: caller(session),
        instance: session.instance.clone(),
        delivery,
        change: StateChange {
            updates: content.updates.into_iter().collect(),
            expected_version: content.expected_version,
            ttl_ms: 0,
        },
        messages,
        answer: answer(session, reference, Outcome::Committed),
    })
}

fn caller(session: &Arc<Session>) -> Caller {
    Caller { identity: session.identity.clone(), instance: Some(session.instance.clone()) }
}

fn answer<T>(session: &Arc<Session>, reference: u64, name: fn(T) -> Outcome) -> Answer<T> {
    Answer::Stream { session: session.clone(), reference, name }
}

/// Has the refusal recorded; the client is told afterwards.
fn refuse(
    gateway: &Gateway,
    session: &Arc<Session>,
    reference: u64,
    action: Action,
    (target, message_type): (String, String),
    refusal: Refusal,
) {
    let identity = &session.identity;
    let to = session.clone();
    let job = RefusedJob {
        action,
        agent: identity.agent.to_string(),
        instance: session.instance.to_string(),
        fingerprint: Some(identity.fingerprint),
        target,
        message_type,
        refusal,
        answer: Box::new(move |declined| {
            to.send(Outbound::Result { reference, outcome: Outcome::Declined(declined) });
        }),
    };
    gateway.shards.queue(identity.agent.route_hash(), Job::Refused(job));
}
