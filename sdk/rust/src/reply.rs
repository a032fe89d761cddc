//! The reply to a request.

use crate::calls::{Calls, from_now};
use crate::error::AgentError;
use crate::protocol::submission::Call;
use crate::protocol::submission_result::Outcome;
use crate::protocol::{REPLY, ReplyRequest};
use crate::receipts::Sent;
use crate::wire::{in_words, receipt};

/// The reply to a request of `target`'s; `None`: nobody waits for it any more.
pub(crate) fn reply(
    calls: &Calls,
    target: &str,
    correlation_id: &str,
    message_type: &str,
    data_json: String,
) -> Result<Option<Sent>, AgentError> {
    let what = in_words("reply", target, message_type);
    let mut operation = calls.tracing.sending("reply", target, correlation_id, false);
    let (traceparent, tracestate) = operation.headers();
    let request = ReplyRequest {
        traceparent,
        tracestate,
        correlation_id: correlation_id.to_owned(),
        message_type: message_type.to_owned(),
        data_json,
        instance_id: calls.session.instance.clone(),
        ..ReplyRequest::new()
    };
    let give_up = from_now(calls.call_timeout);
    let response = calls.until(
        &what,
        give_up,
        |_| false,
        |open| {
            calls.message(
                (&what, open, give_up),
                (&REPLY, &request, request.data_json.len()),
                || Call::Reply(request.clone()),
                |outcome| if let Outcome::Reply(response) = outcome { Some(response) } else { None },
                |receipts, response| receipts.keep(receipt(&response.receipt, &response.message_id).as_ref()),
            )
        },
    );
    match response.inspect_err(|error| operation.failed(error)) {
        Ok(response) => {
            operation.accepted(&response.message_id, "", response.receipt.as_ref());
            Ok(Some(Sent::new(response.message_id, response.receipt.as_ref(), &response.findings)))
        }
        Err(error) if is_late(&error) => {
            log::warn!(code = "reply_late"; "nobody waits any more for the reply {message_type:?} to {target}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether a reply was refused because its request is answered, expired or given up.
pub(crate) fn is_late(error: &AgentError) -> bool {
    error.detail() == Some("unknown_correlation_id")
}
