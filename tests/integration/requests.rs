//! Request and reply.

use std::time::Duration;

use crate::support::{Refused, World, until};

fn refused(code: &str, details: &str) -> Result<String, Refused> {
    Err(Refused { code: code.to_owned(), details: details.to_owned() })
}

/// alpha may ask beta; beta may send nothing to alpha.
const ONE_WAY: &str = "\
permissions:
  - {type: allow, sender: alpha, targets: [beta]}
agents: [{agent_id: alpha}, {agent_id: beta}, {agent_id: gamma}]
";

#[test]
fn a_pending_request_is_itself_the_permission_to_reply() {
    let world = World::with(ONE_WAY, "");
    let server = world.server();
    for old in [false, true] {
        let client = |agent| {
            let client = world.client(&server, agent);
            if old { client.v04() } else { client }
        };
        let (alpha, beta) = (client("alpha"), client("beta"));
        let suffix = if old { "old" } else { "new" };
        let (a, b) = (alpha.session(suffix), beta.session(suffix));
        let correlation = alpha.request(suffix, "beta", "{\"q\":1}", 5000).unwrap();
        let question = b.take();
        assert_eq!(question.envelope["meta"]["expects_reply"], true);
        assert_eq!(question.correlation_id(), correlation);
        assert_eq!(beta.send(suffix, "alpha", "{}"), refused("PERMISSION_DENIED", "not_authorized"));
        let id = beta.reply(suffix, &correlation, "{\"a\":2}").unwrap();
        let answer = a.take();
        assert_eq!(answer.message_id(), id);
        assert_eq!(answer.envelope["sender_id"], "beta");
        assert_eq!(answer.envelope["target_id"], "alpha");
        assert_eq!(answer.envelope["meta"]["is_reply"], true);
        assert_eq!(answer.envelope["meta"]["reply_to_instance_id"], suffix);
        assert_eq!(answer.correlation_id(), correlation);
        assert_eq!(answer.data()["a"], 2);
    }
    world.assert_intact();
}

#[test]
fn a_refused_reply_does_not_use_the_request_up() {
    let world = World::with(ONE_WAY, "");
    let server = world.server();
    let (alpha, beta, gamma) =
        (world.client(&server, "alpha"), world.client(&server, "beta"), world.client(&server, "gamma"));
    let (a, b, _g) = (alpha.session("a"), beta.session("b"), gamma.session("g"));
    let correlation = alpha.request("a", "beta", "{}", 30_000).unwrap();
    b.take();
    let mismatch = refused("PERMISSION_DENIED", "reply_sender_mismatch");
    assert_eq!(gamma.reply("g", &correlation, "{}"), mismatch);
    assert_eq!(beta.reply("b", &correlation, "{bad"), refused("INVALID_ARGUMENT", "invalid_json"));
    assert_eq!(beta.reply("b", &correlation, "[]"), refused("INVALID_ARGUMENT", "payload_must_be_object"));
    beta.reply("b", &correlation, "{\"clean\":true}").unwrap();
    assert_eq!(a.take().data()["clean"], true);
    assert_eq!(beta.reply("b", &correlation, "{}"), refused("INVALID_ARGUMENT", "unknown_correlation_id"));
}

#[test]
fn correlation_ids_must_exist() {
    let world = World::new();
    let server = world.server();
    let beta = world.client(&server, "beta");
    let _b = beta.session("b");
    assert_eq!(beta.reply("b", "", "{}"), refused("INVALID_ARGUMENT", "missing_correlation_id"));
    let unknown = refused("INVALID_ARGUMENT", "unknown_correlation_id");
    for bad in ["x", "0123456789abcdef0123456789abcdef", "0123456789ABCDEF0123456789ABCDEF", "*", "a:b"] {
        assert_eq!(beta.reply("b", bad, "{}"), unknown, "{bad}");
    }
}

#[test]
fn a_request_expires_after_its_timeout_rounded_up() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, _b) = (alpha.session("a"), beta.session("b"));
    let ttl = |correlation: &str| -> i64 {
        world.redis.query(&["TTL", &format!("mas.pending_request:{correlation}")])
    };
    for (timeout_ms, seconds) in [(0, 60), (-1, 60), (1500, 2), (100_000, 100), (i32::MAX, 86_400)] {
        let correlation = alpha.request("a", "beta", "{}", timeout_ms).unwrap();
        let left = ttl(&correlation);
        assert!((seconds - 1..=seconds).contains(&left), "{timeout_ms}: {left}");
    }
    let correlation = alpha.request("a", "beta", "{}", 1).unwrap();
    until("it expired", || ttl(&correlation) == -2);
    assert_eq!(beta.reply("b", &correlation, "{}"), refused("INVALID_ARGUMENT", "unknown_correlation_id"));
}

#[test]
fn a_reply_goes_to_the_requesting_instance_only() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (one, two, b) = (alpha.session("a1"), alpha.session("a2"), beta.session("b"));
    for n in 0..20 {
        let correlation = alpha.request("a2", "beta", "{}", 5000).unwrap();
        assert_eq!(b.take().correlation_id(), correlation);
        beta.reply("b", &correlation, &format!("{{\"n\":{n}}}")).unwrap();
        assert_eq!(two.take().data()["n"], n);
    }
    assert!(one.next_within(Duration::from_millis(200)).is_none());
}

#[test]
fn of_two_replies_at_once_exactly_one_is_accepted() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let a = alpha.session("a");
    let betas: Vec<_> = (0..4).map(|_| world.client(&server, "beta")).collect();
    let _b = betas[0].session("b");
    for _ in 0..20 {
        let correlation = alpha.request("a", "beta", "{}", 5000).unwrap();
        let accepted: usize = std::thread::scope(|scope| {
            let replies: Vec<_> = betas
                .iter()
                .map(|beta| scope.spawn(|| usize::from(beta.reply("b", &correlation, "{}").is_ok())))
                .collect();
            replies.into_iter().map(|reply| reply.join().unwrap()).sum()
        });
        assert_eq!(accepted, 1);
        a.take();
    }
    assert!(a.next_within(Duration::from_millis(200)).is_none());
}

#[test]
fn a_reply_waits_for_a_requester_that_reconnects() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 5000}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let correlation = alpha.request("a", "beta", "{}", 30_000).unwrap();
    b.take();
    a.half_close();
    a.end();
    beta.reply("b", &correlation, "{\"n\":1}").unwrap();
    let mut back = None;
    until("it is back", || {
        back = alpha.try_session("a").ok();
        back.is_some()
    });
    assert_eq!(back.unwrap().take().correlation_id(), correlation);
}

#[test]
fn a_reply_that_cannot_be_stored_can_be_given_again() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let correlation = alpha.request("a", "beta", "{}", 60_000).unwrap();
    b.take();
    let own = "agent.stream:alpha:a";
    let _: i64 = world.redis.query(&["DEL", own]);
    let _: String = world.redis.query(&["SET", own, "not a stream"]);
    let stored = beta.reply("b", &correlation, "{}");
    assert_eq!(stored, refused("UNAVAILABLE", "storage_unavailable"));
    let _: i64 = world.redis.query(&["DEL", own]);
    until("the request is pending again", || beta.reply("b", &correlation, "{}").is_ok());
}

#[test]
fn a_reply_to_an_instance_that_was_cleared_away_is_cleared_away_too() {
    let world = World::with(World::PAIR, "delivery: {reclaim_idle_ms: 20}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let correlation = alpha.request("a", "beta", "{}", 60_000).unwrap();
    b.take();
    a.half_close();
    a.end();
    let keys = || world.redis.keys();
    until("it is cleared", || !keys().contains(&"agent.instances:alpha".to_owned()));
    beta.reply("b", &correlation, "{}").unwrap();
    until("the reply is a dead letter", || world.redis.keys().contains(&"dlq:messages".to_owned()));
    until("nothing is left", || {
        let keys = keys();
        !keys.contains(&"agent.instances:alpha".to_owned())
            && !keys.contains(&"agent.stream:alpha:a".to_owned())
    });
    assert_eq!(world.redis.len("dlq:messages"), 1);
}
