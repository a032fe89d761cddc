//! A commit is one effect: whoever else had the delivery, and however often it is said.

use std::time::Duration;

use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;
use mas::protocol::{Commit, SendRequest, Submission, UpdateStateRequest};

use super::{QUIET, commit, commit_of, send_numbers, send_to};
use crate::support::{Delivered, Gate, Session, World, until, within};

type Committed = Result<Vec<String>, String>;

#[derive(Clone, Copy)]
enum First {
    Returned,
    Heir,
    Neither,
}

/// `i` on one server got a delivery and left; `j` on the other one has it by now; `i` returns. Both commit.
fn of_two_commits_one_is_done(first: First) {
    let world = World::new();
    let (one, two) = (world.server(), world.server());
    let alpha = world.client(&one, "alpha");
    let a = alpha.session("a");
    let here = world.client(&one, "beta");
    let i = here.session("i");
    send_numbers(&alpha, "a", "beta", 1..2);
    let at_i = i.next();
    let j = world.client(&two, "beta").session("j");
    drop(i);
    let at_j = j.next();
    assert_eq!(at_j.message_id(), at_i.message_id());
    let mut back = None;
    until("i is back", || {
        back = here.try_session("i").ok();
        back.is_some()
    });
    let i = back.unwrap();
    // It may get the message again, or not.
    let at_i = i.next_within(QUIET).unwrap_or(at_i);
    let by = |session: &Session, delivered: &Delivered, who: &str| {
        commit(session, &commit_of(delivered, "alpha", &format!("{{\"by\":\"{who}\"}}")))
    };
    let (done_i, done_j): (Committed, Committed) = match first {
        First::Returned => {
            let done = by(&i, &at_i, "i");
            (done, by(&j, &at_j, "j"))
        }
        First::Heir => {
            let done = by(&j, &at_j, "j");
            (by(&i, &at_i, "i"), done)
        }
        First::Neither => std::thread::scope(|scope| {
            let other = scope.spawn(|| by(&j, &at_j, "j"));
            (by(&i, &at_i, "i"), other.join().unwrap())
        }),
    };
    let (done, refused): (Vec<Committed>, Vec<Committed>) =
        [done_i, done_j].into_iter().partition(Result::is_ok);
    assert_eq!(refused, [Err("delivery_not_held".to_owned())], "the others: {done:?}");
    a.take();
    assert!(a.next_within(QUIET).is_none(), "both had effects");
    until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
    world.assert_intact();
}

#[test]
fn of_two_instances_commits_of_a_delivery_one_is_done_when_the_former_holder_is_first() {
    of_two_commits_one_is_done(First::Returned);
}

#[test]
fn of_two_instances_commits_of_a_delivery_one_is_done_when_the_new_holder_is_first() {
    of_two_commits_one_is_done(First::Heir);
}

#[test]
fn of_two_instances_commits_of_a_delivery_one_is_done_when_they_come_at_once() {
    of_two_commits_one_is_done(First::Neither);
}

/// A commit whose outcome is unknown and that Redis has carried out, then the same again. `lose` says it the
/// first time and has the answer lost.
fn a_repeated_commit_has_one_effect(
    socket_timeout: &str,
    lose: impl FnOnce(&World, &Gate, &Session, &Commit),
) {
    // One delivery at a time: whatever keeps a credit shows.
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 300, max_in_flight: 1}\n");
    let gate = world.gate("gate.sock");
    let redis = format!("url: '{}', socket_timeout: {socket_timeout}", gate.url());
    let server = world.server_with(2, &redis);
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    send_numbers(&alpha, "a", "beta", 1..3);
    let work = b.next();
    let said = commit_of(&work, "alpha", "{\"result\":1}");
    lose(&world, &gate, &b, &said);
    let mut repeated = Err(String::new());
    until("the store answers", || {
        repeated = commit(&b, &said);
        !matches!(&repeated, Err(why) if ["storage_unavailable", "commit_unknown"].contains(&why.as_str()))
    });
    let result = a.take();
    assert!(a.next_within(QUIET).is_none(), "a second effect; the repeated commit: {repeated:?}");
    match &repeated {
        Ok(sent) => assert_eq!(*sent, [result.message_id()], "the first one's outcome"),
        Err(why) => assert_eq!(why, "delivery_not_held"),
    }
    let next = b.next_within(Duration::from_secs(5)).expect("the credit for the next delivery");
    assert_eq!(next.data()["n"], 2);
    b.ack(&next.id);
    until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
    world.assert_intact();
}

#[test]
fn a_commit_that_is_repeated_after_its_answer_was_lost_has_one_effect() {
    a_repeated_commit_has_one_effect("2", |_, gate, b, said| {
        gate.lose_answer(&["XDEL\r\n", "EXEC\r\n", "agent.stream:alpha\r\n"]);
        assert_eq!(commit(b, said), Err("commit_unknown".to_owned()));
        gate.wait_lost();
    });
}

#[test]
fn a_commit_that_is_repeated_after_redis_hung_has_one_effect() {
    a_repeated_commit_has_one_effect("1", |world, _, b, said| {
        world.redis.halt();
        let answer = commit(b, said);
        world.redis.proceed();
        assert_eq!(answer, Err("commit_unknown".to_owned()));
    });
}

fn keyed(key: &str, data_json: &str) -> SendRequest {
    SendRequest { idempotency_key: key.to_owned(), ..send_to("beta", data_json) }
}

/// A commit of nothing but messages.
fn sends(messages: &[SendRequest]) -> Commit {
    let one =
        |send: &SendRequest| Submission { call: Some(Call::Send(send.clone())), ..Submission::default() };
    Commit { messages: messages.iter().map(one).collect(), ..Commit::default() }
}

#[test]
fn a_keyed_message_in_two_commits_is_one_message() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let order = keyed("order-1", "{\"n\":1}");
    let first = commit(&a, &sends(std::slice::from_ref(&order))).unwrap();
    let again = commit(&a, &sends(&[keyed("other", "{\"n\":2}"), order.clone()])).unwrap();
    assert_eq!(b.take().message_id(), first[0]);
    assert_eq!(again[1], first[0], "the first message's id");
    assert_eq!(b.take().message_id(), again[0]);
    assert!(b.next_within(QUIET).is_none(), "a second effect");
    // Whichever way it is said.
    let Outcome::Send(sent) = a.call(Call::Send(order)) else { panic!("not sent") };
    assert_eq!(sent.message_id, first[0]);
    let reused = commit(&a, &sends(&[keyed("order-1", "{\"n\":9}")]));
    assert_eq!(reused, Err("idempotency_key_reused".to_owned()));
    world.assert_intact();
}

#[test]
fn a_message_that_was_sent_with_a_key_is_not_sent_again_by_a_commit() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let order = keyed("order-1", "{\"n\":1}");
    let Outcome::Send(sent) = a.call(Call::Send(order.clone())) else { panic!("not sent") };
    assert_eq!(commit(&a, &sends(&[order])).unwrap(), [sent.message_id.as_str()]);
    // Twice in one.
    let twice = commit(&a, &sends(&[keyed("order-2", "{}"), keyed("order-2", "{}")])).unwrap();
    assert_eq!(twice[0], twice[1]);
    assert_eq!([b.take(), b.take()].map(|d| d.message_id().to_owned()), [sent.message_id, twice[0].clone()]);
    assert!(b.next_within(QUIET).is_none(), "a second effect");
    world.assert_intact();
}

#[test]
fn an_endless_time_to_live_of_a_state_is_refused_and_changes_nothing() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    alpha.update_state(&[("x", "1")]).unwrap();
    let before = alpha.versioned_state().unwrap();
    for ttl_ms in [i64::MAX as u64, u64::MAX] {
        let endless = UpdateStateRequest {
            updates: [("x".to_owned(), "2".to_owned())].into(),
            ttl_ms,
            ..UpdateStateRequest::default()
        };
        assert_eq!(alpha.change_state(&endless).unwrap_err().details, "invalid_ttl");
    }
    let after = alpha.versioned_state().unwrap();
    assert_eq!((after.version, &after.state["x"]), (before.version, &before.state["x"]));
    let failed = |record: &mas::audit::Record| record.action.as_str() == "effect_failed";
    within(Duration::from_secs(1), "nothing failed", || !world.records().iter().any(failed));
    world.assert_intact();
}
