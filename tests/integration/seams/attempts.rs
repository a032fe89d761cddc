//! Each delivery of a message has an id of its own: what is said of an earlier one changes nothing.

use std::time::Duration;

use super::{commit, commit_of, send_numbers};
use crate::support::{Client, Delivered, Session, World, until, within};

/// Long enough for what must not happen.
const QUIET: Duration = Duration::from_millis(400);

/// What a handler says too late; whether it was answered as it must be.
type Late = (&'static str, fn(&Session, &Delivered) -> bool);

const LATE: [Late; 5] = [
    ("an ack", |session, first| {
        session.ack(&first.id);
        true
    }),
    ("an ack among others", |session, first| {
        session.ack_all(vec!["1-0".to_owned(), first.id.clone()]);
        true
    }),
    ("a nack", |session, first| {
        session.nack(&first.id, "late", true);
        true
    }),
    ("a nack for good", |session, first| {
        session.nack(&first.id, "late", false);
        true
    }),
    ("a commit", |session, first| {
        let late = commit_of(first, "alpha", "{\"late\":true}");
        commit(session, &late) == Err("delivery_not_held".to_owned())
    }),
];

/// A session that takes the place of one that ended.
fn returned(client: &Client, instance: &str) -> Session {
    let mut back = None;
    until("the instance is back", || {
        back = client.try_session(instance).ok();
        back.is_some()
    });
    back.unwrap()
}

/// How attempt 1 ended, with attempt 2 at the same instance: a session and both deliveries.
type Again<'a> = &'a dyn Fn(&World, &Client, &Client) -> (Session, Delivered, Delivered);

/// What late answers to the first delivery did to the second one: must be nothing.
fn effects_of_late_answers(again: Again<'_>) -> Vec<String> {
    let mut effects = Vec::new();
    for (name, say) in LATE {
        let world = World::with(
            World::PAIR,
            "delivery: {reclaim_idle_ms: 60000, max_attempts: 5, retry_backoff_ms: [10]}\n",
        );
        let server = world.server();
        let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
        let a = alpha.session("a");
        send_numbers(&alpha, "a", "beta", 1..2);
        let (b, first, second) = again(&world, &alpha, &beta);
        assert_eq!((second.message_id(), second.attempt), (first.message_id(), 2));
        let answered = say(&b, &first);
        // What it says next is heard after it.
        send_numbers(&alpha, "a", "beta", 2..3);
        let marker = b.next();
        if marker.data()["n"] == 1 {
            effects.push(format!("{name}: delivered again"));
            continue;
        }
        b.ack(&marker.id);
        within(Duration::from_secs(5), "the marker is acknowledged", || {
            world.redis.len("agent.stream:beta") < 2 && world.redis.pending("agent.stream:beta").len() < 2
        });
        let held = world.redis.pending("agent.stream:beta").len();
        let letters = world.redis.len("dlq:messages");
        let more = b.next_within(QUIET).map(|delivered| delivered.attempt);
        let sent = a.next_within(Duration::from_millis(50)).is_some();
        if (answered, held, letters, more, sent) != (true, 1, 0, None, false) {
            effects.push(format!(
                "{name}: answered as it must be: {answered}, held: {held}, dead letters: {letters}, \
                 attempt again: {more:?}, its message sent: {sent}"
            ));
            continue;
        }
        b.ack(&second.id);
        until("attempt 2 is acknowledged", || world.redis.len("agent.stream:beta") == 0);
        world.assert_intact();
    }
    effects
}

#[test]
fn answers_from_before_a_reconnect_change_nothing_of_the_next_delivery() {
    let effects = effects_of_late_answers(&|_, _, beta| {
        let session = beta.session("b");
        let first = session.next();
        drop(session);
        let b = returned(beta, "b");
        let second = b.next();
        (b, first, second)
    });
    assert!(effects.is_empty(), "{effects:#?}");
}

#[test]
fn answers_to_a_delivery_that_was_refused_change_nothing_of_the_next_one() {
    let effects = effects_of_late_answers(&|_, _, beta| {
        let b = beta.session("b");
        let first = b.next();
        b.nack(&first.id, "not_now", true);
        let second = b.next();
        (b, first, second)
    });
    assert!(effects.is_empty(), "{effects:#?}");
}

#[test]
fn two_deliveries_of_a_message_have_different_ids() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 60000, retry_backoff_ms: [10]}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let asked = alpha.request("a", "beta", "{}", 10_000).unwrap();
    let asking = b.next();
    assert_eq!(asking.correlation_id(), asked);
    beta.reply("b", &asked, "{\"ok\":true}").unwrap();
    let answer = a.next();
    // The shared inbox and an instance's own.
    for (session, client, instance, first) in [(b, &beta, "b", asking), (a, &alpha, "a", answer)] {
        session.nack(&first.id, "not_now", true);
        let second = session.next();
        drop(session);
        let session = returned(client, instance);
        let third = session.next();
        assert_eq!((first.attempt, second.attempt, third.attempt), (1, 2, 3));
        let ids = [&first.id, &second.id, &third.id];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
        let streams = [format!("agent.stream:{}", ["alpha:a", "beta"][usize::from(instance == "b")])];
        for (entry, _) in streams.iter().flat_map(|stream| world.redis.entries(stream)) {
            assert!(ids.iter().all(|id| **id != entry && **id != format!("r{entry}")), "an entry's: {ids:?}");
        }
        session.ack(&third.id);
        until("it is gone", || world.redis.len(&streams[0]) == 0);
    }
}

#[test]
fn a_late_answer_of_one_instance_changes_nothing_of_anothers_delivery() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 100}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    let b1 = beta.session("b1");
    send_numbers(&alpha, "a", "beta", 1..2);
    let first = b1.next();
    drop(b1);
    let b2 = world.client(&server, "beta").session("b2");
    let second = b2.next();
    assert_ne!(first.id, second.id);
    let b1 = returned(&beta, "b1");
    b1.nack(&first.id, "late", false);
    b1.ack(&first.id);
    assert!(b1.next_within(QUIET).is_none() && b2.next_within(QUIET).is_none());
    assert_eq!(world.redis.pending("agent.stream:beta").len(), 1);
    assert_eq!(world.redis.len("dlq:messages"), 0);
    b2.ack(&second.id);
    until("it is gone", || world.redis.len("agent.stream:beta") == 0);
}
