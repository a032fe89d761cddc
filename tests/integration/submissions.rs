//! Calls on the Transport stream, and commits.

use std::time::Duration;

use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;
use mas::protocol::{Commit, ReplyRequest, RequestRequest, SendRequest, Submission};

use crate::support::{Ended, World, until};

const QUIET: Duration = Duration::from_millis(300);

fn send(target: &str, data_json: &str) -> Call {
    Call::Send(SendRequest {
        target_id: target.to_owned(),
        message_type: "test".to_owned(),
        data_json: data_json.to_owned(),
        ..SendRequest::default()
    })
}

fn messages(calls: Vec<Call>) -> Vec<Submission> {
    let one = |call| Submission { call: Some(call), ..Submission::default() };
    calls.into_iter().map(one).collect()
}

fn failure(outcome: Outcome) -> String {
    match outcome {
        Outcome::Failure(failure) => {
            assert!(failure.receipt.sequence > 0, "refusals have receipts too");
            failure.detail
        }
        other => panic!("accepted: {other:?}"),
    }
}

#[test]
fn calls_on_the_stream_do_what_unary_calls_do() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let Outcome::Send(sent) = a.call(send("beta", "{\"n\":1}")) else { panic!("not sent") };
    let delivered = b.take();
    assert_eq!(delivered.message_id(), sent.message_id);
    assert_eq!(delivered.attempt, 1);
    assert!(sent.receipt.sequence > 0 && sent.receipt.record_hash.len() == 32);

    let ask = RequestRequest { target_id: "beta".to_owned(), timeout_ms: 5000, ..RequestRequest::default() };
    let Outcome::Request(asked) = a.call(Call::Request(ask)) else { panic!("not asked") };
    assert_eq!(b.take().correlation_id(), asked.correlation_id);
    let answer = ReplyRequest { correlation_id: asked.correlation_id, ..ReplyRequest::default() };
    assert!(matches!(b.call(Call::Reply(answer.clone())), Outcome::Reply(_)));
    assert_eq!(a.take().envelope["meta"]["is_reply"], true);
    assert_eq!(failure(b.call(Call::Reply(answer))), "unknown_correlation_id");

    assert_eq!(failure(a.call(send("gamma", "{}"))), "not_authorized");
    assert_eq!(failure(a.call(send("beta", "[]"))), "payload_must_be_object");
    assert_eq!(failure(a.call(send("beta", "{\"password\":\"hunter2hunter2\"}"))), "dlp_blocked");
    a.submit(vec![Submission { reference: 3, ..Submission::default() }]);
    let result = a.result();
    assert_eq!((result.reference, failure(result.outcome.unwrap())), (3, "malformed_request".to_owned()));
    world.assert_intact();
}

#[test]
fn a_batch_is_answered_whole_and_in_order_per_target() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let a = alpha.session("a");
    let b = beta.stream();
    b.hello_batched("b");
    let batch = (0..500)
        .map(|n| Submission {
            reference: n,
            call: Some(send("beta", &format!("{{\"n\":{n}}}"))),
            ..Submission::default()
        })
        .collect();
    a.submit(batch);
    let mut references: Vec<u64> = (0..500)
        .map(|_| {
            let result = a.result();
            assert!(matches!(result.outcome, Some(Outcome::Send(_))), "{result:?}");
            result.reference
        })
        .collect();
    references.sort_unstable();
    assert_eq!(references, (0..500).collect::<Vec<u64>>());
    let mut ids = Vec::new();
    for n in 0..500 {
        let delivered = b.next();
        assert_eq!(delivered.data()["n"], n);
        ids.push(delivered.id);
        if ids.len() == 100 {
            b.ack_all(std::mem::take(&mut ids));
        }
    }
    until("all are acknowledged", || world.redis.len("agent.stream:beta") == 0);
}

#[test]
fn a_client_that_submits_beyond_its_credit_is_ended() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let a = alpha.session("a");
    for _ in 0..4 {
        let batch = (0..1000)
            .map(|n| Submission { reference: n, call: Some(send("beta", "{}")), ..Submission::default() })
            .collect();
        a.submit(batch);
    }
    assert_eq!(a.end(), Ended::refused("RESOURCE_EXHAUSTED", "too_many_submissions"));
    world.assert_intact();
}

#[test]
fn a_commit_is_done_whole() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"work\":1}").unwrap();
    let work = b.next();
    let commit = Commit {
        delivery_id: work.id,
        updates: [("done".to_owned(), "1".to_owned())].into(),
        expected_version: Some(0),
        messages: messages(vec![send("alpha", "{\"result\":1}"), send("alpha", "{\"result\":2}")]),
        ..Commit::default()
    };
    let Outcome::Commit(done) = b.call(Call::Commit(commit.clone())) else { panic!("no commit") };
    assert_eq!((done.version, done.results.len()), (1, 2));
    assert_eq!(a.take().data()["result"], 1);
    assert_eq!(a.take().data()["result"], 2);
    assert_eq!(beta.state().unwrap()["done"], "1");
    assert_eq!(world.redis.len("agent.stream:beta"), 0, "acknowledged in the same transaction");
    // Done is done.
    assert_eq!(failure(b.call(Call::Commit(commit))), "delivery_not_held");
    drop(b);
    let again = world.client(&server, "beta").session("b2");
    assert!(again.next_within(QUIET).is_none());
    world.assert_intact();
}

#[test]
fn a_commit_that_is_refused_in_part_does_nothing() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    alpha.send("a", "beta", "{\"work\":1}").unwrap();
    let work = b.next();
    let commit = |calls: Vec<Call>, expected_version| Commit {
        delivery_id: work.id.clone(),
        updates: [("done".to_owned(), "1".to_owned())].into(),
        expected_version,
        messages: messages(calls),
        ..Commit::default()
    };
    let forbidden = commit(vec![send("alpha", "{}"), send("gamma", "{}")], None);
    assert_eq!(failure(b.call(Call::Commit(forbidden))), "not_authorized");
    let stale = commit(vec![send("alpha", "{}")], Some(9));
    assert_eq!(failure(b.call(Call::Commit(stale))), "version_mismatch");
    let crowd = commit((0..65).map(|_| send("alpha", "{}")).collect(), None);
    assert_eq!(failure(b.call(Call::Commit(crowd))), "too_many_messages");
    assert!(a.next_within(QUIET).is_none(), "nothing was sent");
    assert!(beta.state().unwrap().is_empty(), "nothing was written");
    assert_eq!(world.redis.len("agent.stream:beta"), 1, "nothing was acknowledged");
    // The delivery is still this session's.
    let Outcome::Commit(_) = b.call(Call::Commit(commit(vec![send("alpha", "{}")], None))) else {
        panic!("no commit")
    };
    a.take();
    until("acknowledged", || world.redis.len("agent.stream:beta") == 0);
    world.assert_intact();
}

#[test]
fn a_commit_reaches_other_workers_and_other_servers() {
    // Enough receivers that some live on the other worker.
    let receivers: Vec<String> = (0..8).map(|n| format!("r{n}")).collect();
    let list = receivers.join(", ");
    let mut agents = format!(
        "permissions:\n  - {{type: allow, sender: alpha, targets: [{list}]}}\nagents:\n  - {{agent_id: alpha}}\n"
    );
    for receiver in &receivers {
        agents.push_str(&format!("  - {{agent_id: {receiver}}}\n"));
    }
    let world = World::with(&agents, "");
    let (one, two) = (world.server(), world.server());
    let alpha = world.client(&one, "alpha");
    let a = alpha.session("a");
    let sessions: Vec<_> = receivers
        .iter()
        .enumerate()
        .map(|(n, receiver)| world.client(if n % 2 == 0 { &one } else { &two }, receiver).session("r"))
        .collect();
    until("the first server has heard of all", || alpha.discover(&[]).unwrap().len() == receivers.len());
    let calls = receivers.iter().map(|receiver| send(receiver, "{\"n\":1}")).collect();
    let commit = Commit { messages: messages(calls), ..Commit::default() };
    let Outcome::Commit(done) = a.call(Call::Commit(commit)) else { panic!("no commit") };
    assert_eq!(done.results.len(), receivers.len());
    for session in &sessions {
        assert_eq!(session.take().data()["n"], 1);
    }
    world.assert_intact();
}
