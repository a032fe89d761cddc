//! What is promised where two things meet: two servers, a server and Redis, memory and Redis, two
//! deliveries of the same message. Each test is named after its promise.

mod attempts;
mod commits;
mod delivery;
mod fence;
mod instances;
mod neighbours;
mod replies;
mod room;
mod servers;
mod sessions;
mod store;
mod vanished;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mas::protocol::SendRequest;
use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;
use mas::protocol::{Commit, Submission};

use crate::support::{Client, Delivered, Session, World};

/// Long enough to see that nothing comes; most worlds here reclaim after 300 ms.
const QUIET: Duration = Duration::from_millis(900);

/// Longer than servers take to look at one another.
const KNOWN: Duration = Duration::from_millis(2000);

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

fn send_to(target: &str, data_json: &str) -> SendRequest {
    SendRequest {
        target_id: target.to_owned(),
        message_type: "test".to_owned(),
        data_json: data_json.to_owned(),
        ..SendRequest::default()
    }
}

/// Sends `{"n": n}` for each of the numbers.
fn send_numbers(client: &Client, instance: &str, target: &str, numbers: std::ops::Range<u64>) {
    for n in numbers {
        client.send(instance, target, &format!("{{\"n\":{n}}}")).unwrap();
    }
}

/// A commit of a delivery that sends one message to `target`.
fn commit_of(delivery: &Delivered, target: &str, data_json: &str) -> Commit {
    let call = Some(Call::Send(send_to(target, data_json)));
    Commit {
        delivery_id: delivery.id.clone(),
        messages: vec![Submission { call, ..Submission::default() }],
        ..Commit::default()
    }
}

/// Commits: the ids of the messages that it sent, or why it was refused.
fn commit(session: &Session, commit: &Commit) -> Result<Vec<String>, String> {
    match session.call(Call::Commit(commit.clone())) {
        Outcome::Commit(done) => {
            let sent = |outcome| match outcome {
                Outcome::Send(sent) => sent.message_id,
                other => panic!("no send: {other:?}"),
            };
            Ok(done.results.into_iter().map(|result| sent(result.outcome.unwrap())).collect())
        }
        Outcome::Failure(failure) => Err(failure.detail),
        other => panic!("no commit: {other:?}"),
    }
}

/// What an instance's entry says.
fn instance_entry(world: &World, agent: &str, instance: &str) -> Option<String> {
    world.redis.query(&["HGET", &format!("agent.instances:{agent}"), instance])
}
