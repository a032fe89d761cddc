//! Agents that send, each message until its outcome is known.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mas::protocol::{RequestRequest, SendRequest};

use super::actors::Member;
use super::history::{Accepted, History, now_us};
use crate::support::{Client, Refused};

/// How long a call is repeated before its outcome is called unknown.
pub const CALL_PATIENCE: Duration = Duration::from_secs(25);

/// What a call that was accepted came back with.
struct Taken {
    message_id: String,
    correlation_id: Option<String>,
    receipt: (String, u64),
}

/// One message of a sender.
struct Letter<'m> {
    member: &'m Member,
    target: &'static str,
    data_json: String,
    key: String,
    is_request: bool,
}

impl Letter<'_> {
    fn call(&self, client: &Client) -> Result<Taken, Refused> {
        let (target_id, data_json) = (self.target.to_owned(), self.data_json.clone());
        let (instance_id, idempotency_key) = (self.member.instance.clone(), self.key.clone());
        if self.is_request {
            let request = RequestRequest {
                target_id,
                data_json,
                instance_id,
                idempotency_key,
                ..RequestRequest::default()
            };
            client.request_raw(&request).map(|answer| Taken {
                message_id: answer.message_id,
                correlation_id: Some(answer.correlation_id),
                receipt: (answer.receipt.lane.clone(), answer.receipt.sequence),
            })
        } else {
            let request =
                SendRequest { target_id, data_json, instance_id, idempotency_key, ..SendRequest::default() };
            client.send_raw(&request).map(|answer| Taken {
                message_id: answer.message_id,
                correlation_id: None,
                receipt: (answer.receipt.lane.clone(), answer.receipt.sequence),
            })
        }
    }
}

impl Member {
    /// Sends, each message until its outcome is known.
    pub fn keep_sending(&self, history: &History, sending: &AtomicBool) {
        let mut number = 0u64;
        while sending.load(Ordering::SeqCst) {
            if !self.is_connected() {
                std::thread::park_timeout(Duration::from_millis(2));
                continue;
            }
            number += 1;
            let target = ["r0", "r1"][(number % 2) as usize];
            if number.is_multiple_of(50) {
                // What is not allowed must never arrive.
                let refused = self.client().send(&self.instance, "vault", "{}");
                if let Err(refused) = refused {
                    history.note(|seen| *seen.refused.entry(refused.details).or_default() += 1);
                }
            }
            self.send_one(history, target, number);
            std::thread::park_timeout(Duration::from_micros(500));
        }
    }

    fn send_one(&self, history: &History, target: &'static str, number: u64) {
        let letter = Letter {
            member: self,
            target,
            data_json: format!("{{\"n\":{number}}}"),
            key: format!("{}-{}-{number}", self.agent, std::process::id()),
            is_request: number.is_multiple_of(4),
        };
        let give_up = Instant::now() + CALL_PATIENCE;
        let mut tries = 0usize;
        loop {
            // The other server knows the session too, mostly.
            let client = if tries % 3 == 2 { self.other_client() } else { self.client() };
            match letter.call(client) {
                Ok(taken) => {
                    history.note(|seen| {
                        seen.retried += tries;
                        seen.accepted.push(Accepted {
                            message_id: taken.message_id,
                            sender: self.agent.clone(),
                            instance: self.instance.clone(),
                            target: target.to_owned(),
                            correlation_id: taken.correlation_id,
                            receipt: taken.receipt,
                            at_us: now_us(),
                        });
                    });
                    return;
                }
                Err(refused) => {
                    let again = refused.code != "INVALID_ARGUMENT" && refused.code != "PERMISSION_DENIED";
                    if refused.details == "rate_limited" {
                        history.note(|seen| seen.limited.push((self.agent.clone(), now_us())));
                    }
                    if !again {
                        history.note(|seen| *seen.refused.entry(refused.details).or_default() += 1);
                        return;
                    }
                    if Instant::now() >= give_up {
                        history.note(|seen| seen.unknown += 1);
                        return;
                    }
                    tries += 1;
                    std::thread::park_timeout(Duration::from_millis(5));
                }
            }
        }
    }
}
