//! What a sender may ask for beside delivery: no second effect of a retry, an end, a beginning, a version.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mas::protocol::{RequestRequest, SendRequest, UpdateStateRequest};

use crate::support::{World, until};

const QUIET: Duration = Duration::from_millis(300);

fn to_beta(data_json: &str) -> SendRequest {
    SendRequest {
        target_id: "beta".to_owned(),
        message_type: "test".to_owned(),
        data_json: data_json.to_owned(),
        instance_id: "a".to_owned(),
        ..SendRequest::default()
    }
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

#[test]
fn a_retry_with_the_same_key_has_one_effect() {
    let world = World::new();
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let keyed = SendRequest { idempotency_key: "order-1".to_owned(), ..to_beta("{\"n\":1}") };
    let first = alpha.send_raw(&keyed).unwrap();
    let again = alpha.send_raw(&keyed).unwrap();
    assert_eq!(again.message_id, first.message_id);
    assert_ne!(again.receipt.sequence, first.receipt.sequence, "the repetition is on record too");
    assert_eq!(b.take().message_id(), first.message_id);
    assert!(b.next_within(QUIET).is_none());
    // The same key for something else is a mistake.
    let other = SendRequest { idempotency_key: "order-1".to_owned(), ..to_beta("{\"n\":2}") };
    assert_eq!(alpha.send_raw(&other).unwrap_err().details, "idempotency_key_reused");
    // Another sender's keys are its own.
    let gamma = SendRequest { idempotency_key: "bad key".to_owned(), ..to_beta("{}") };
    assert_eq!(alpha.send_raw(&gamma).unwrap_err().details, "invalid_idempotency_key");
    // A request's retry names the same correlation.
    let request = RequestRequest {
        target_id: "beta".to_owned(),
        instance_id: "a".to_owned(),
        idempotency_key: "ask-1".to_owned(),
        ..RequestRequest::default()
    };
    let asked = alpha.request_raw(&request).unwrap();
    // It survives the server.
    server.kill();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let again = alpha.request_raw(&request).unwrap();
    assert_eq!((again.message_id, again.correlation_id), (asked.message_id, asked.correlation_id));
    assert_eq!(alpha.send_raw(&keyed).unwrap().message_id, first.message_id);
    world.assert_intact();
}

#[test]
fn retries_at_the_same_time_have_one_effect() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let ids: Vec<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let keyed = SendRequest { idempotency_key: "once".to_owned(), ..to_beta("{}") };
                    alpha.send_raw(&keyed).unwrap().message_id
                })
            })
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    b.take();
    assert!(b.next_within(QUIET).is_none());
}

#[test]
fn a_message_is_delivered_within_its_time_or_buried() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    alpha.send_raw(&SendRequest { ttl_ms: 50, ..to_beta("{\"late\":true}") }).unwrap();
    alpha.send_raw(&SendRequest { ttl_ms: 60_000, ..to_beta("{\"late\":false}") }).unwrap();
    let over = Instant::now() + Duration::from_millis(60);
    until("the first one's time is over", || Instant::now() > over);
    let b = beta.session("b");
    assert_eq!(b.take().data()["late"], false);
    until("the other one is a dead letter", || world.redis.len("dlq:messages") == 1);
    let letters: Vec<(String, Vec<String>)> = world.redis.query(&["XRANGE", "dlq:messages", "-", "+"]);
    assert!(letters[0].1.iter().any(|field| field == "expired"), "{letters:?}");
    until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
    // Its handlers did not fail.
    assert!(alpha.send("a", "beta", "{}").is_ok());
}

#[test]
fn a_message_waits_for_its_beginning() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let at = unix_ms() + 700;
    alpha.send_raw(&SendRequest { not_before_ms: at, ..to_beta("{\"n\":1}") }).unwrap();
    alpha.send("a", "beta", "{\"n\":2}").unwrap();
    assert_eq!(b.take().data()["n"], 2, "it does not hold up the others");
    let delivered = b.take();
    assert_eq!(delivered.data()["n"], 1);
    assert!(unix_ms() >= at, "not before its time");
    assert_eq!(delivered.attempt, 1);
    until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
    let far = SendRequest { not_before_ms: unix_ms() + 40 * 86_400_000, ..to_beta("{}") };
    assert_eq!(alpha.send_raw(&far).unwrap_err().details, "invalid_not_before");
}

#[test]
fn a_waiting_message_survives_the_server() {
    let world = World::new();
    let mut server = world.server();
    let at = unix_ms() + 1500;
    {
        let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
        let (_a, b) = (alpha.session("a"), beta.session("b"));
        alpha.send_raw(&SendRequest { not_before_ms: at, ..to_beta("{\"n\":1}") }).unwrap();
        assert!(b.next_within(QUIET).is_none());
        server.kill();
    }
    let server = world.server();
    let b = world.client(&server, "beta").session("b");
    assert_eq!(b.take().data()["n"], 1);
    assert!(unix_ms() >= at);
}

#[test]
fn a_state_changes_only_from_the_version_that_is_expected() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let set = |value: &str, expected_version| UpdateStateRequest {
        updates: [("x".to_owned(), value.to_owned())].into(),
        expected_version,
        ..UpdateStateRequest::default()
    };
    assert_eq!(alpha.versioned_state().unwrap().version, 0);
    assert_eq!(alpha.change_state(&set("1", Some(0))).unwrap(), 1);
    assert_eq!(alpha.change_state(&set("2", None)).unwrap(), 2);
    let conflict = alpha.change_state(&set("3", Some(1))).unwrap_err();
    assert_eq!((conflict.code.as_str(), conflict.details.as_str()), ("ABORTED", "version_mismatch"));
    let state = alpha.versioned_state().unwrap();
    assert_eq!((state.version, state.state["x"].as_str()), (2, "2"));
    // Of many at the same time one is first, on whichever server.
    let other_server = world.server();
    let other = world.client(&other_server, "alpha");
    let won = std::thread::scope(|scope| {
        let tries: Vec<_> = [&alpha, &other]
            .into_iter()
            .cycle()
            .take(8)
            .map(|client| scope.spawn(|| client.change_state(&set("4", Some(2))).is_ok()))
            .collect();
        tries.into_iter().filter(|_| true).map(|t| t.join().unwrap()).filter(|won| *won).count()
    });
    assert_eq!(won, 1);
    // A reset is a change: no version comes twice.
    alpha.reset_state().unwrap();
    assert_eq!(alpha.versioned_state().unwrap().version, 4);
    let gone = UpdateStateRequest { ttl_ms: 100, ..set("5", None) };
    assert_eq!(alpha.change_state(&gone).unwrap(), 5);
    until("the state is gone", || alpha.state().unwrap().is_empty());
}
