//! A unary call as it comes in and is answered. On the wire it is a unary call like any other; the C core is told that
//! its requests are a stream, because it keeps one of a bounded number of places for each unary call whose message has
//! not come, and clients that never send theirs would take them all.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::TryStreamExt;
use grpcio::{ClientStreamingSink, ClientStreamingSinkResult, Metadata, RequestStream, RpcContext};

use super::answer::{detailed, retry_after};
use super::gateway::Gateway;
use super::sending::Sending;
use super::status::status;
use crate::audit::Action;
use crate::envelope::Trace;
use crate::identity::Identity;
use crate::protocol::Untrusted;
use crate::refusal::Refusal;
use crate::shard::desk::outcome::Declined;

/// Where a unary call's outcome goes.
pub(super) type Waiting<T> = Box<dyn FnOnce(Result<T, Declined>) + Send>;

/// What is known of a call before its message comes.
pub(super) struct Head {
    pub identity: Arc<Identity>,
    pub trace: Option<Trace>,
}

/// A call that is not answered yet.
pub(super) struct Open<Q: 'static, R: 'static> {
    sink: ClientStreamingSink<R>,
    /// Dropping it before the answer is out would cancel the call.
    requests: RequestStream<Untrusted<Q>>,
}

/// Waits for the call's message, then hands it on; who may not call is told so at once.
pub(super) fn receive<Q, R>(
    gateway: &Gateway,
    ctx: &RpcContext<'_>,
    requests: RequestStream<Untrusted<Q>>,
    sink: ClientStreamingSink<R>,
    action: Action,
    handle: fn(&Gateway, Head, Untrusted<Q>, Open<Q, R>),
) where
    Q: Send + 'static,
    R: Send + 'static,
{
    let mut open = Open { sink, requests };
    let identity = match gateway.callers.identify(ctx) {
        Ok(identity) => identity,
        Err(stranger) => {
            // Nothing succeeds that is turned away.
            let answer: Waiting<()> = Box::new(move |outcome| {
                if let Err(declined) = outcome {
                    open.fail(&declined);
                }
            });
            return gateway.turn_away(action, stranger, answer);
        }
    };
    let head = Head { identity, trace: trace(ctx) };
    let gateway = gateway.clone();
    Sending::start(Box::pin(async move {
        match open.requests.try_next().await? {
            Some(request) => handle(&gateway, head, request, open),
            // It has ended without one: what an empty message is refused with.
            None => handle(&gateway, head, Untrusted(None), open),
        }
        Ok(())
    }));
}

fn header<'m>(headers: &'m Metadata, name: &str) -> Option<&'m [u8]> {
    headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
}

fn trace(ctx: &RpcContext<'_>) -> Option<Trace> {
    let headers = ctx.request_headers();
    Trace::from_headers(header(headers, "traceparent"), header(headers, "tracestate"))
}

impl<Q: Send + 'static, R: Send + 'static> Open<Q, R> {
    /// What the worker answers this call with.
    pub(super) fn answered_by<T: Send + 'static>(self, convert: fn(T) -> R) -> Waiting<T> {
        let unanswered = Unanswered { open: Some(self), convert };
        Box::new(move |result| unanswered.answer(result))
    }

    fn succeed(self, answer: R) {
        Sending::start(Sent { sent: self.sink.success(answer), _requests: self.requests });
    }

    fn fail(mut self, declined: &Declined) {
        if let Some(headers) = retry_after(declined.refusal) {
            self.sink.set_headers(headers);
        }
        Sending::start(Sent { sent: self.sink.fail(detailed(declined)), _requests: self.requests });
    }
}

/// A call that waits for its answer; no task runs for it meanwhile.
struct Unanswered<T, Q: Send + 'static, R: Send + 'static> {
    open: Option<Open<Q, R>>,
    convert: fn(T) -> R,
}

impl<T, Q: Send + 'static, R: Send + 'static> Unanswered<T, Q, R> {
    /// Called by the worker, and sent from its thread.
    fn answer(mut self, result: Result<T, Declined>) {
        let Some(open) = self.open.take() else { return };
        match result {
            Ok(success) => open.succeed((self.convert)(success)),
            Err(declined) => open.fail(&declined),
        }
    }
}

impl<T, Q: Send + 'static, R: Send + 'static> Drop for Unanswered<T, Q, R> {
    fn drop(&mut self) {
        // The worker stopped with the job in its mailbox.
        if let Some(Open { sink, requests }) = self.open.take() {
            let sent = sink.fail(status(Refusal::SERVER_STOPPING));
            Sending::start(Sent { sent, _requests: requests });
        }
    }
}

/// An answer on its way out. Its future must run to its end, and what it answers live as long: dropping either cancels
/// the call.
struct Sent<Q> {
    sent: ClientStreamingSinkResult,
    _requests: RequestStream<Untrusted<Q>>,
}

impl<Q> Future for Sent<Q> {
    type Output = grpcio::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.sent).poll(context)
    }
}
