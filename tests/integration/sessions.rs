//! Transport: hello, welcome, one session per instance, and no session that outlives its stream.

use std::time::Duration;

use mas::protocol::ClientEvent;

use crate::support::{Ended, Refused, World, until};

fn active(world: &World, agent: &str) -> bool {
    world.redis.query::<Option<String>>(&["HGET", &format!("agent:{agent}"), "status"]).as_deref()
        == Some("ACTIVE")
}

#[test]
fn the_first_event_must_be_hello() {
    let world = World::new();
    let server = world.server();
    for client in [world.client(&server, "alpha"), world.client(&server, "alpha").v04()] {
        let stream = client.stream();
        stream.half_close();
        assert_eq!(stream.end(), Ended::refused("INVALID_ARGUMENT", "missing_hello"));

        let stream = client.stream();
        stream.heartbeat();
        assert_eq!(stream.end(), Ended::refused("INVALID_ARGUMENT", "expected_hello"));

        let stream = client.stream();
        stream.say_raw(ClientEvent::default());
        assert_eq!(stream.end(), Ended::refused("INVALID_ARGUMENT", "expected_hello"));
    }
}

#[test]
fn an_instance_id_of_a_wrong_shape_is_refused() {
    let world = World::new();
    let server = world.server();
    let client = world.client(&server, "alpha");
    let long = "x".repeat(33);
    for bad in ["", "a b", "a\n", "a:b", "é", "*", long.as_str()] {
        let ended = client.try_session(bad).err();
        assert_eq!(ended, Some(Ended::refused("INVALID_ARGUMENT", "invalid_instance_id")), "{bad:?}");
        let refusal = client.send(bad, "beta", "{}").unwrap_err();
        assert_eq!(refusal.details, "invalid_instance_id", "{bad:?}");
        assert_eq!(refusal.code, "INVALID_ARGUMENT");
    }
    let longest = "x".repeat(32);
    drop(client.session(&longest));
}

#[test]
fn an_instance_has_one_session_and_an_agent_many() {
    let world = World::new();
    let server = world.server();
    let client = world.client(&server, "alpha");
    let first = client.session("i1");
    let second = world.client(&server, "alpha").try_session("i1").err();
    assert_eq!(second, Some(Ended::refused("FAILED_PRECONDITION", "instance_already_connected")));
    drop(client.session("i2"));
    // The refused one did not disturb the first.
    let beta = world.client(&server, "beta");
    let _other = beta.session("b");
    beta.send("b", "alpha", "{}").unwrap();
    first.take();
}

#[test]
fn a_session_count_is_bounded_per_agent() {
    let world = World::with(World::PAIR, "limits: {max_sessions_per_agent: 2}\n");
    let server = world.server();
    let client = world.client(&server, "alpha");
    let (_one, _two) = (client.session("i1"), client.session("i2"));
    let third = client.try_session("i3").err();
    assert_eq!(third, Some(Ended::refused("RESOURCE_EXHAUSTED", "too_many_sessions")));
}

#[test]
fn a_call_needs_a_session_of_its_instance_on_whatever_connection() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let none =
        Refused { code: "FAILED_PRECONDITION".to_owned(), details: "session_not_connected".to_owned() };
    assert_eq!(alpha.send("i1", "beta", "{}"), Err(none));
    let _session = alpha.session("i1");
    let elsewhere = world.client(&server, "alpha");
    elsewhere.send("i1", "beta", "{}").unwrap();
    // Another agent's instance id is not one's own.
    let beta = world.client(&server, "beta");
    assert_eq!(beta.send("i1", "alpha", "{}").unwrap_err().details, "session_not_connected");
    assert_eq!(alpha.request("i2", "beta", "{}", 0).unwrap_err().details, "session_not_connected");
    assert_eq!(alpha.reply("i2", &"0".repeat(32), "{}").unwrap_err().details, "session_not_connected");
}

#[test]
fn a_half_closed_stream_ends_its_session() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let session = alpha.session("i1");
    assert!(active(&world, "alpha"));
    session.half_close();
    assert_eq!(session.end(), Ended::InOrder);
    until("no session", || {
        alpha.send("i1", "beta", "{}").is_err_and(|e| e.details == "session_not_connected")
    });
    until("inactive", || !active(&world, "alpha"));
    // It takes no messages any more: the next session gets them.
    let beta = world.client(&server, "beta");
    let _beta = beta.session("b");
    beta.send("b", "alpha", "{\"n\":1}").unwrap();
    assert_eq!(alpha.session("i1").take().data()["n"], 1);
}

#[test]
fn clients_that_connect_and_vanish_leave_nothing_behind() {
    let world = World::new();
    let server = world.server();
    for n in 0..60 {
        let client = world.client(&server, "alpha");
        let stream = client.stream();
        stream.hello(&format!("v{n}"));
        if n % 2 == 0 {
            // Gone at once, perhaps before the server has heard of it.
            drop(stream);
        } else {
            drop(client.session(&format!("w{n}")));
        }
    }
    until("everybody is gone", || !active(&world, "alpha"));
    let client = world.client(&server, "alpha");
    for n in 0..60 {
        for prefix in ["v", "w"] {
            until("the instance is free", || client.try_session(&format!("{prefix}{n}")).is_ok());
        }
    }
}

#[test]
fn fast_reconnects_leave_a_connected_agent_active() {
    let world = World::new();
    let server = world.server();
    let client = world.client(&server, "alpha");
    for _ in 0..60 {
        let mut session = client.try_session("i1");
        until("reconnected", || {
            if session.is_err() {
                session = client.try_session("i1");
            }
            session.is_ok()
        });
        let session = session.unwrap();
        session.half_close();
        session.end();
    }
    let mut session = None;
    until("connected", || {
        session = client.try_session("i1").ok();
        session.is_some()
    });
    assert!(active(&world, "alpha"));
    client.send("i1", "beta", "{}").unwrap();
}

#[test]
fn second_hellos_heartbeats_and_forged_acks_do_not_end_a_session() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    b.hello("other");
    b.heartbeat();
    b.say_raw(ClientEvent::default());
    for forged in ["", "x", "0-0", "r0-0", "999999999999999999999-1", "1-1\n", "agent.stream:alpha"] {
        b.ack(forged);
        b.nack(forged, "because", true);
    }
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    let delivered = b.next();
    b.ack(&delivered.id);
    b.ack(&delivered.id);
    b.nack(&delivered.id, "too late", true);
    alpha.send("a", "beta", "{\"n\":2}").unwrap();
    assert_eq!(b.take().data()["n"], 2);
    assert!(b.next_within(Duration::from_millis(300)).is_none(), "nothing was delivered again");
}

#[test]
fn what_is_left_of_a_gone_instance_is_cleared_away() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let b = beta.session("b");
    {
        let asker = alpha.session("short");
        let correlation = alpha.request("short", "beta", "{}", 60_000).unwrap();
        asker.half_close();
        asker.end();
        let question = b.take();
        assert_eq!(question.correlation_id(), correlation);
        // The requester is gone; its reply is kept for a while, then it is a dead letter.
        beta.reply("b", &correlation, "{\"late\":true}").unwrap();
    }
    let own = "agent.stream:alpha:short".to_owned();
    until("the own inbox is gone", || !world.redis.keys().contains(&own));
    let letters = world.redis.entries("dlq:messages");
    assert_eq!(letters.len(), 1);
    assert!(letters[0].1.iter().any(|(k, v)| k == "reason" && v == "instance_gone"));
    assert!(letters[0].1.iter().any(|(k, v)| k == "envelope" && v.contains("\"late\":true")));
    until("nothing is registered", || !world.redis.keys().contains(&"agent.instances:alpha".to_owned()));
    let consumers: Vec<Vec<redis::Value>> =
        world.redis.query(&["XINFO", "CONSUMERS", "agent.stream:alpha", "agents"]);
    assert_eq!(consumers.len(), 0);
}

#[test]
fn refused_sessions_leave_no_streams_behind() {
    let world = World::with(World::PAIR, "limits: {max_sessions_per_agent: 1}\n");
    let server = world.server();
    let client = world.client(&server, "alpha");
    let _one = client.session("one");
    // What a server says of itself now and then has nothing to do with it.
    let keys = || {
        let mut keys = world.redis.keys();
        keys.retain(|key| !key.starts_with("mas.counts:") && !key.starts_with("mas.report:"));
        keys
    };
    let before = keys();
    for n in 0..20 {
        client.try_session(&format!("x{n}")).err().unwrap();
    }
    assert_eq!(keys(), before);
}

#[test]
fn a_client_that_never_reads_is_bounded_and_its_session_can_be_ended() {
    let world = World::new();
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    let deaf = beta.deaf_session("b");
    let payload = format!("{{\"x\":\"{}\"}}", "y".repeat(500_000));
    for _ in 0..60 {
        alpha.send("a", "beta", &payload).unwrap();
    }
    // Others are served as ever.
    let gamma_free = world.client(&server, "alpha").session("a2");
    beta.send("b", "alpha", "{}").unwrap();
    drop(gamma_free);
    // 30 MB wait in Redis; what the server holds for the deaf client is bounded by the session's window.
    assert!(server.rss_kib() < 120 * 1024, "{} KiB", server.rss_kib());
    server.stop();
    drop(deaf);
}
