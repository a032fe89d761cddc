//! Calls on a session's stream: the same jobs as the unary calls make, with the session as caller.

use std::sync::Arc;

use super::caller::TOO_OFTEN;
use super::convert;
use super::gateway::Gateway;
use crate::audit::Action;
use crate::gate::{Credit, Peer};
use crate::protocol::submission::Call;
use crate::protocol::{Commit, Submission};
use crate::refusal::Refusal;
use crate::shard::desk::answer::Answer;
use crate::shard::desk::delivery::DeliveryId;
use crate::shard::desk::job::{
    Caller, CommitJob, Job, MAX_COMMIT_MESSAGES, MessageJob, Outgoing, RefusedJob, ReplyJob, StateChange,
};
use crate::shard::desk::outbox::Outbound;
use crate::shard::desk::outcome::{Accepted, MessageKind, Outcome};
use crate::shard::desk::session::Session;

/// Puts one submission into the mailbox of the worker that decides it; ringing is the caller's.
pub(super) fn submit(gateway: &Gateway, peer: &Arc<Peer>, session: &Arc<Session>, submission: Submission) {
    let reference = submission.reference;
    let Some(credit) = gateway.callers.credit(peer, cost(&submission)) else {
        let outcome = Outcome::Declined(TOO_OFTEN.into());
        return session.send(Outbound::Result { reference, outcome });
    };
    match submission.call {
        Some(Call::Send(content)) => {
            let about = (content.target_id.clone(), content.message_type.clone());
            match convert::send(content) {
                Ok(post) => {
                    post_job(gateway, session, reference, post, credit, |a| {
                        Outcome::Accepted(MessageKind::Sent, a)
                    });
                }
                Err(refusal) => refuse(gateway, session, reference, Action::Send, about, refusal, credit),
            }
        }
        Some(Call::Request(content)) => {
            let about = (content.target_id.clone(), content.message_type.clone());
            match convert::request(content) {
                Ok(post) => {
                    post_job(gateway, session, reference, post, credit, |a| {
                        Outcome::Accepted(MessageKind::Requested, a)
                    });
                }
                Err(refusal) => refuse(gateway, session, reference, Action::Request, about, refusal, credit),
            }
        }
        Some(Call::Reply(content)) => {
            let about = (String::new(), content.message_type.clone());
            match convert::reply(content) {
                Ok(response) => {
                    // To the requester's worker: it owns the inbox that the reply goes to.
                    let hash = response.correlation_id.route_hash();
                    let name = |accepted| Outcome::Accepted(MessageKind::Replied, accepted);
                    let answer = Answer::stream(session.clone(), reference, name, credit);
                    let (caller, instance) = (caller(session), session.instance.clone());
                    let job = ReplyJob { caller, instance, response, answer };
                    gateway.shards.queue(hash, Job::Reply(job));
                }
                Err(refusal) => refuse(gateway, session, reference, Action::Reply, about, refusal, credit),
            }
        }
        Some(Call::Commit(content)) => match commit(content) {
            Ok((delivery, change, messages)) => {
                let answer = Answer::stream(session.clone(), reference, Outcome::Committed, credit);
                let (caller, instance) = (caller(session), session.instance.clone());
                let job = CommitJob { caller, instance, delivery, change, messages, answer };
                gateway.shards.queue(session.identity.agent.route_hash(), Job::Commit(job));
            }
            Err(refusal) => {
                refuse(gateway, session, reference, Action::Commit, Default::default(), refusal, credit);
            }
        },
        None => {
            let refusal = Refusal::MALFORMED_REQUEST;
            refuse(gateway, session, reference, Action::Send, Default::default(), refusal, credit);
        }
    }
}

/// How many refusals may come of it.
fn cost(submission: &Submission) -> usize {
    match &submission.call {
        Some(Call::Commit(commit)) => 1 + commit.messages.len().min(MAX_COMMIT_MESSAGES),
        _ => 1,
    }
}

fn post_job(
    gateway: &Gateway,
    session: &Arc<Session>,
    reference: u64,
    post: crate::shard::desk::job::Post,
    credit: Credit,
    name: fn(Accepted) -> Outcome,
) {
    let hash = convert::route(&session.identity.agent, &post.target);
    let (caller, instance) = (caller(session), session.instance.clone());
    let answer = Answer::stream(session.clone(), reference, name, credit);
    gateway.shards.queue(hash, Job::Message(MessageJob { caller, instance, post, answer }));
}

/// The delivery that was handled, the state's part, and what is sent.
type Handled = (Option<DeliveryId>, StateChange, Vec<Outgoing>);

fn commit(content: Commit) -> Result<Handled, Refusal> {
    // Before any of them is judged: each judgement is on record.
    if content.messages.len() > MAX_COMMIT_MESSAGES {
        return Err(Refusal::TOO_MANY_MESSAGES);
    }
    let delivery = if content.delivery_id.is_empty() {
        None
    } else {
        Some(DeliveryId::parse(&content.delivery_id).ok_or(Refusal::DELIVERY_NOT_HELD)?)
    };
    let messages = content.messages.into_iter().map(|message| convert::outgoing(message.call));
    let messages = messages.collect::<Result<_, _>>()?;
    let change = StateChange {
        updates: content.updates.into_iter().collect(),
        expected_version: content.expected_version,
        ttl_ms: 0,
    };
    Ok((delivery, change, messages))
}

fn caller(session: &Arc<Session>) -> Caller {
    Caller { identity: session.identity.clone(), instance: Some(session.instance.clone()) }
}

/// Has the refusal recorded; the client is told afterwards.
fn refuse(
    gateway: &Gateway,
    session: &Arc<Session>,
    reference: u64,
    action: Action,
    (target, message_type): (String, String),
    refusal: Refusal,
    credit: Credit,
) {
    credit.spend();
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
