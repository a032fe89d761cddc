//! Send: who may, what passes, what arrives, in which order.

use std::collections::HashMap;

use mas::protocol::SendRequest;
use mas::protocol::submission::Call;
use mas::protocol::submission_result::Outcome;

use crate::support::{Refused, World, until};

fn refused(code: &str, details: &str) -> Result<String, Refused> {
    Err(Refused { code: code.to_owned(), details: details.to_owned() })
}

#[test]
fn a_message_arrives_as_the_contract_describes_it() {
    let world = World::new();
    let server = world.server();
    for old in [false, true] {
        let client = |agent| {
            let client = world.client(&server, agent);
            if old { client.v04() } else { client }
        };
        let (alpha, beta) = (client("alpha"), client("beta"));
        let (_a, b) = (alpha.session("a1"), beta.session("b1"));
        let data = "{\"z\": 1.50, \"a\": \"\\u00e9\", \"n\":12345678901234567890}";
        let id = alpha.send("a1", "beta", data).unwrap();
        let delivered = b.take();
        assert!(delivered.json.contains(data), "the payload's bytes are untouched: {}", delivered.json);
        let envelope = &delivered.envelope;
        assert_eq!(envelope["sender_id"], "alpha");
        assert_eq!(envelope["target_id"], "beta");
        assert_eq!(envelope["message_type"], "test");
        assert_eq!(envelope["message_id"], id.as_str());
        assert!(envelope["timestamp"].is_f64());
        let meta = &envelope["meta"];
        assert_eq!(meta["version"], 1);
        assert_eq!(meta["expects_reply"], false);
        assert_eq!(meta["is_reply"], false);
        assert_eq!(meta["sender_instance_id"], "a1");
        assert!(meta["correlation_id"].is_null() && meta["reply_to_instance_id"].is_null());
        drop((_a, b));
        until("both are free again", || alpha.try_session("a1").is_ok() && beta.try_session("b1").is_ok());
    }
}

#[test]
fn only_a_permitted_target_is_reached_and_all_others_look_alike() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let denied = refused("PERMISSION_DENIED", "not_authorized");
    let long = "x".repeat(1000);
    for target in [
        "gamma",
        "nobody",
        "",
        "alpha",
        "*",
        "a:b",
        "beta\n",
        "beta ",
        "alpha:allowed_targets",
        "stream:beta",
        long.as_str(),
    ] {
        let before = world.redis.keys();
        assert_eq!(alpha.send("a", target, "{}"), denied, "{target:?}");
        assert_eq!(alpha.request("a", target, "{}", 0), denied, "{target:?}");
        assert_eq!(world.redis.keys(), before, "{target:?} made a key");
    }
    let records = world.records();
    let gamma = records.iter().find(|r| r.target == "gamma").unwrap();
    assert_eq!((gamma.decision.as_str(), gamma.rule.as_str()), ("AUTHZ_DENIED", "default_deny"));
    assert!(records.iter().any(|r| r.target == "nobody" && r.rule == "unknown_target"));
    assert!(records.iter().any(|r| r.target == "beta\n"), "on record as it was given");
}

#[test]
fn every_kind_of_permission_means_what_it_says() {
    let world = World::with(
        "permissions:
  - {type: allow_bidirectional, agents: [a, b]}
  - {type: allow_network, agents: [c, d, e]}
  - {type: allow_network, agents: [e, f, a], bidirectional: false}
  - {type: allow_broadcast, sender: g, receivers: [a, b]}
  - {type: allow_wildcard, agent_id: h}
  - {type: allow, sender: b, targets: [c]}
  - {type: deny, sender: h, targets: [a]}
  - {type: deny, sender: c, targets: [e]}
agents: [{agent_id: a}, {agent_id: b}, {agent_id: c}, {agent_id: d}, {agent_id: e}, {agent_id: f}, {agent_id: g}, {agent_id: h}]
",
        "",
    );
    let server = world.server();
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let clients: HashMap<&str, _> = names.iter().map(|name| (*name, world.client(&server, name))).collect();
    let _sessions: Vec<_> = names.iter().map(|name| clients[name].session("i")).collect();
    let mut allowed = Vec::new();
    for from in names {
        for to in names {
            match clients[from].send("i", to, "{}") {
                Ok(_) => allowed.push(format!("{from}{to}")),
                Err(refusal) => assert_eq!(refusal.details, "not_authorized"),
            }
        }
    }
    let expected = "ab ba bc cd dc de ec ed ef fa ga gb hb hc hd he hf hg hh";
    assert_eq!(allowed.join(" "), expected);
}

#[test]
fn a_payload_must_be_one_strict_json_object() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
    let deep_enough = format!("{{\"a\":{}{}}}", "[".repeat(63), "]".repeat(63));
    for bad in [
        "{",
        "nope",
        "{\"a\":NaN}",
        "{\"a\":Infinity}",
        "{\"a\":-Infinity}",
        "{\"a\":1e400}",
        "{\"a\":\"\\ud800\"}",
        "{} x",
        "{\"a\":1,\"a\":2}",
        " ",
        deep.as_str(),
    ] {
        assert_eq!(alpha.send("a", "beta", bad), refused("INVALID_ARGUMENT", "invalid_json"), "{bad}");
    }
    for scalar in ["1", "\"x\"", "[]", "null", "true"] {
        let expected = refused("INVALID_ARGUMENT", "payload_must_be_object");
        assert_eq!(alpha.send("a", "beta", scalar), expected, "{scalar}");
    }
    let beta = world.client(&server, "beta");
    let b = beta.session("b");
    for good in ["", "{}", " {\"a\":1} ", deep_enough.as_str()] {
        alpha.send("a", "beta", good).unwrap();
        assert!(b.take().data().is_object(), "{good}");
    }
    let refusals = world.records().into_iter().filter(|r| r.reason == "invalid_json").count();
    assert_eq!(refusals, 11, "malformed payloads are on record");
}

#[test]
fn what_is_accepted_at_the_size_limit_can_be_received() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let payload = |bytes: usize| format!("{{\"x\":\"{}\"}}", "y".repeat(bytes - 8));
    let limit = 1024 * 1024;
    alpha.send("a", "beta", &payload(limit)).unwrap();
    // The client's own limit is gRPC's default of 4 MiB.
    let delivered = b.take();
    assert_eq!(delivered.data()["x"].as_str().unwrap().len(), limit - 8);
    let over = alpha.send("a", "beta", &payload(limit + 1));
    assert_eq!(over, refused("RESOURCE_EXHAUSTED", "message_too_large"));
    let far_over = alpha.send("a", "beta", &payload(6 * limit)).unwrap_err();
    assert_eq!(far_over.code, "RESOURCE_EXHAUSTED");
    alpha.send("a", "beta", "{\"after\":1}").unwrap();
    assert_eq!(b.take().data()["after"], 1);
}

#[test]
fn an_over_long_message_type_is_refused() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    let request = SendRequest {
        target_id: "beta".to_owned(),
        message_type: "t".repeat(513),
        instance_id: "a".to_owned(),
        ..Default::default()
    };
    assert_eq!(alpha.send_raw(&request).unwrap_err().details, "invalid_message_type");
}

#[test]
fn a_message_to_an_offline_agent_waits_for_its_first_connection() {
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    for n in 0..5 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    let beta = world.client(&server, "beta");
    let b = beta.session("b");
    for n in 0..5 {
        assert_eq!(b.take().data()["n"], n);
    }
}

#[test]
fn where_offline_queueing_is_off_an_offline_agent_is_refused() {
    let world = World::with(World::PAIR, "delivery: {queue_offline: false}\n");
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    assert_eq!(alpha.send("a", "beta", "{}"), refused("FAILED_PRECONDITION", "target_offline"));
    let beta = world.client(&server, "beta");
    let _b = beta.session("b");
    alpha.send("a", "beta", "{}").unwrap();
}

#[test]
fn a_full_inbox_refuses_and_takes_again_when_there_is_room() {
    let world = World::with(World::PAIR, "limits: {max_queue_len: 10}\n");
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    for _ in 0..10 {
        alpha.send("a", "beta", "{}").unwrap();
    }
    assert_eq!(alpha.send("a", "beta", "{}"), refused("RESOURCE_EXHAUSTED", "queue_full"));
    let beta = world.client(&server, "beta");
    let b = beta.session("b");
    b.take();
    until("there is room", || alpha.send("a", "beta", "{}").is_ok());
}

#[test]
fn messages_of_one_sender_arrive_in_their_order() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    for n in 0..2000 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    for n in 0..2000 {
        assert_eq!(b.take().data()["n"], n);
    }
}

#[test]
fn instances_share_the_inbox_and_each_message_goes_to_one() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    let (one, two) = (beta.session("b1"), beta.session("b2"));
    for n in 0..100 {
        alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    let mut seen: Vec<i64> = Vec::new();
    let mut counts = [0, 0];
    until("all hundred", || {
        for (at, session) in [&one, &two].into_iter().enumerate() {
            while let Some(delivered) = session.next_within(std::time::Duration::from_millis(1)) {
                session.ack(&delivered.id);
                seen.push(delivered.data()["n"].as_i64().unwrap());
                counts[at] += 1;
            }
        }
        seen.len() >= 100
    });
    seen.sort_unstable();
    assert_eq!(seen, (0..100).collect::<Vec<_>>());
    assert!(counts[0] >= 30 && counts[1] >= 30, "{counts:?}");
}

#[test]
fn trace_context_is_passed_on() {
    let world = World::new();
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let mut headers = grpcio::MetadataBuilder::new();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    headers.add_str("traceparent", parent).unwrap();
    let request = SendRequest {
        target_id: "beta".to_owned(),
        message_type: "t".to_owned(),
        instance_id: "a".to_owned(),
        ..Default::default()
    };
    let option = grpcio::CallOption::default().headers(headers.build());
    alpha.raw.unary_call(&mas::protocol::RUNTIME_V1.send.client, &request, option).unwrap();
    let delivered = b.take();
    assert_eq!(delivered.envelope["meta"]["traceparent"], parent);
    assert!(delivered.envelope["meta"]["tracestate"].is_null());
}

#[test]
fn a_trace_context_is_searched_like_the_rest_and_stands_on_record() {
    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let world = World::new();
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, b) = (alpha.session("a"), beta.session("b"));
    let send = |parent: &str, state: &str| SendRequest {
        target_id: "beta".to_owned(),
        message_type: "t".to_owned(),
        instance_id: "a".to_owned(),
        traceparent: parent.to_owned(),
        tracestate: state.to_owned(),
        ..SendRequest::default()
    };
    let meta = |parent: &str, state: &str| {
        let Outcome::Send(_) = a.call(Call::Send(send(parent, state))) else { panic!("{parent} {state}") };
        let meta = b.take().envelope["meta"].clone();
        (meta["traceparent"].clone(), meta["tracestate"].clone())
    };
    assert_eq!(meta(PARENT, "congo=t61,rojo=00f0"), (PARENT.into(), "congo=t61,rojo=00f0".into()));
    // What is not in the grammar is left out, and a state without a parent.
    let none = || (serde_json::Value::Null, serde_json::Value::Null);
    assert_eq!(meta("card 4111 1111 1111 1111 cvv 123", "a=1"), none());
    assert_eq!(meta(PARENT, "password hunter2"), (PARENT.into(), serde_json::Value::Null));
    // What is in it is searched.
    let secret = "vendor=ghp_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8";
    let Outcome::Failure(refused) = a.call(Call::Send(send(PARENT, secret))) else { panic!("it was taken") };
    assert_eq!(refused.detail, "dlp_blocked");
    assert_eq!(refused.findings[0].pointer, "tracestate");
    server.stop();
    let traces: Vec<String> = world
        .records()
        .iter()
        .filter(|record| record.action == mas::audit::Action::Send)
        .map(|record| record.trace.clone())
        .collect();
    let with_state = format!("{PARENT} congo=t61,rojo=00f0");
    assert_eq!(traces, [with_state.as_str(), "", PARENT, PARENT]);
    world.assert_intact();
}

#[test]
fn a_request_that_is_no_protobuf_message_is_refused_and_recorded() {
    // gRPC's type of a serializer.
    #[expect(clippy::ptr_arg)]
    fn raw(bytes: &Vec<u8>, buffer: &mut grpcio::GrpcSlice) -> grpcio::Result<()> {
        *buffer = bytes.clone().into();
        Ok(())
    }
    fn none(_: grpcio::MessageReader) -> grpcio::Result<Vec<u8>> {
        Ok(Vec::new())
    }
    let world = World::new();
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
    for name in ["/mas.runtime.v1.RuntimeService/Send", "/mas.v1.MasService/Send"] {
        let method = grpcio::Method {
            ty: grpcio::MethodType::Unary,
            name,
            req_mar: grpcio::Marshaller { ser: raw, de: none },
            resp_mar: grpcio::Marshaller { ser: raw, de: none },
        };
        // Cut off in a field, a wrong wire type, a string that is no UTF-8.
        for bytes in [&b"\x0a\xff"[..], b"\x0f", b"\x0a\x02\xff\xfe"] {
            let answer = alpha.raw.unary_call(&method, &bytes.to_vec(), grpcio::CallOption::default());
            let Err(grpcio::Error::RpcFailure(status)) = answer else {
                panic!("{bytes:?}: {answer:?}");
            };
            assert_eq!(status.code(), grpcio::RpcStatusCode::INVALID_ARGUMENT, "{bytes:?}");
            assert_eq!(status.message(), "malformed_request", "{bytes:?}");
        }
    }
    let refusals =
        world.records().into_iter().filter(|r| r.reason == "malformed_request" && r.agent == "alpha");
    assert_eq!(refusals.count(), 6);
}
