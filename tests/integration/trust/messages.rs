//! Messages, replies and dead letters that nobody was allowed to send, or that were changed or moved.

use super::{BETA, Scene, envelope, field, fresh_id, kinds, pairs};
use crate::support::until;

#[test]
fn a_forged_message_is_put_aside_with_its_bytes_and_the_rest_goes_on() {
    let scene = Scene::new();
    let forged = [envelope(&fresh_id()), envelope("0001"), envelope(&uuid::Uuid::new_v4().to_string())];
    for (count, text) in forged.iter().enumerate() {
        let _ = scene.add(BETA, &[("envelope", text)]);
        scene.goes_on(count as u64);
        let record = scene.put_aside(count + 1).pop().unwrap();
        assert_eq!((record.agent.as_str(), record.target.as_str()), ("beta", BETA));
        let (_, aside) = scene.entries("mas.foreign").pop().unwrap();
        assert!(aside.iter().any(|(_, value)| value == text), "{aside:?}");
    }
    // No entry at all, and one with a tag that is none.
    let _ = scene.add(BETA, &[("x", "y")]);
    let _ = scene.add(BETA, &[("envelope", &envelope(&fresh_id())), ("attest", "AAAA 1 lane")]);
    scene.goes_on(9);
    let _ = scene.put_aside(5);
    assert!(scene.world.redis.entries("dlq:messages").is_empty());
    let listed = scene.world.mas(&["foreign", "list", "--json"]);
    let text = String::from_utf8(listed.stdout).unwrap();
    assert_eq!(text.lines().count(), 5, "{text}");
    scene.world.assert_intact();
}

#[test]
fn a_waiting_message_that_was_changed_or_moved_is_not_delivered() {
    let scene = Scene::new();
    let mut tampered = 0;
    for what in [
        "payload",
        "sender",
        "attest of another",
        "expiry added",
        "not before added",
        "to another inbox",
        "to an instance",
    ] {
        // Two messages whose entries an attacker sees in the stream before they are delivered.
        let (first, second) = two_entries(&scene);
        let text = field(&first, "envelope");
        let changed = match what {
            "payload" => vec![
                ("envelope", text.replace("\"n\":1", "\"n\":7")),
                ("attest", field(&first, "attest").to_owned()),
            ],
            "sender" => vec![
                ("envelope", text.replace("\"sender_id\":\"alpha\"", "\"sender_id\":\"gamma\"")),
                ("attest", field(&first, "attest").to_owned()),
            ],
            "attest of another" => {
                vec![("envelope", text.to_owned()), ("attest", field(&second, "attest").to_owned())]
            }
            "expiry added" => {
                let mut fields = owned(&first);
                fields.push(("expires_ms", "1".to_owned()));
                fields
            }
            "not before added" => {
                let mut fields = owned(&first);
                fields.push(("not_before_ms", "1".to_owned()));
                fields
            }
            _ => owned(&first),
        };
        let fields: Vec<(&str, &str)> = changed.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let stream = match what {
            "to another inbox" => "agent.stream:alpha",
            "to an instance" => "agent.stream:beta:b",
            _ => BETA,
        };
        let _ = scene.add(stream, &fields);
        // Whoever looks at that inbox next, puts it aside.
        scene.beta.send("b", "alpha", "{\"ping\":1}").unwrap();
        let ping = scene.a.next();
        assert_eq!(ping.data()["ping"], 1, "{what}: {ping:?}");
        scene.a.ack(&ping.id);
        if what == "to an instance" {
            // A reply makes the server look at the instance's own inbox.
            let asked = scene.beta.request("b", "alpha", "{}", 10_000).unwrap();
            let request = scene.a.next();
            scene.alpha.reply("a", &asked, "{\"ok\":1}").unwrap();
            scene.a.ack(&request.id);
            let reply = scene.b.next();
            assert_eq!(reply.data()["ok"], 1, "{what}: {reply:?}");
            scene.b.ack(&reply.id);
        }
        scene.goes_on(tampered as u64);
        tampered += 1;
        let _ = scene.put_aside(tampered);
    }
    until("all is acknowledged", || scene.world.redis.len(BETA) == 0);
    scene.world.assert_intact();
}

fn owned(fields: &super::Fields) -> Vec<(&str, String)> {
    fields.iter().map(|(name, value)| (name.as_str(), value.clone())).collect()
}

/// The fields of two messages as they stood in beta's inbox; both are delivered and acknowledged since.
fn two_entries(scene: &Scene) -> (super::Fields, super::Fields) {
    for n in 1..=2 {
        scene.alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
    }
    let held = [scene.b.next(), scene.b.next()];
    let entries = scene.entries(BETA);
    let of = |n: u64| {
        let is_it = |fields: &super::Fields| field(fields, "envelope").contains(&format!("\"n\":{n}"));
        entries.iter().find(|(_, fields)| is_it(fields)).unwrap().1.clone()
    };
    let found = (of(1), of(2));
    held.iter().for_each(|delivered| scene.b.ack(&delivered.id));
    until("both have left", || scene.world.redis.len(BETA) == 0);
    found
}

#[test]
fn a_message_that_is_swapped_while_it_is_pending_is_not_delivered_again() {
    let scene = Scene::new();
    scene.alpha.send("a", "beta", "{\"n\":1}").unwrap();
    let held = scene.b.next();
    let (id, fields) = scene.entries(BETA).pop().unwrap();
    // The same entry id, another payload: the stream is made anew with its group and its pending entry.
    let _ = scene.redis(&["DEL", BETA]);
    let swapped = field(&fields, "envelope").replace("\"n\":1", "\"n\":2");
    let _ = scene.redis(&["XADD", BETA, &id, "envelope", &swapped, "attest", field(&fields, "attest")]);
    let _ = scene.redis(&["XGROUP", "CREATE", BETA, "agents", "0"]);
    let _ = scene.redis(&["XREADGROUP", "GROUP", "agents", "beta-b", "STREAMS", BETA, ">"]);
    scene.b.nack(&held.id, "again", true);
    let _ = scene.put_aside(1);
    scene.goes_on(1);
}

#[test]
fn a_broken_place_for_what_is_put_aside_stops_nothing() {
    let scene = Scene::new();
    let _ = scene.redis(&["SET", "mas.foreign", "no stream"]);
    let _ = scene.add(BETA, &[("envelope", &envelope(&fresh_id()))]);
    scene.goes_on(1);
    until("it is on record", || !scene.foreign_records().is_empty());
    until("it has left", || scene.world.redis.len(BETA) == 0);
    scene.goes_on(2);
    assert_eq!(scene.foreign_records().len(), 1);
}

#[test]
fn a_forged_reply_reaches_nobody() {
    let scene = Scene::new();
    let asked = scene.alpha.request("a", "beta", "{}", 10_000).unwrap();
    let request = scene.b.next();
    let mut forged: serde_json::Value = serde_json::from_str(&envelope(&fresh_id())).unwrap();
    forged["sender_id"] = "beta".into();
    forged["target_id"] = "alpha".into();
    forged["meta"]["correlation_id"] = asked.as_str().into();
    forged["meta"]["is_reply"] = true.into();
    forged["meta"]["reply_to_instance_id"] = "a".into();
    let _ = scene.add("agent.stream:alpha:a", &[("envelope", &forged.to_string())]);
    scene.beta.reply("b", &asked, "{\"real\":1}").unwrap();
    scene.b.ack(&request.id);
    let reply = scene.a.next();
    assert_eq!(reply.data()["real"], 1, "{reply:?}");
    scene.a.ack(&reply.id);
    let record = scene.put_aside(1).pop().unwrap();
    assert_eq!(record.target, "agent.stream:alpha:a");
}

#[test]
fn unread_replies_of_a_gone_instance_that_nobody_wrote_are_put_aside() {
    let scene = Scene::with("delivery: {reclaim_idle_ms: 100}\n");
    let gone = scene.alpha.session("gone");
    drop(gone);
    let _ = scene.add("agent.stream:alpha:gone", &[("envelope", &envelope(&fresh_id()))]);
    let record = scene.put_aside(1).pop().unwrap();
    assert_eq!(record.target, "agent.stream:alpha:gone");
    assert!(scene.world.redis.entries("dlq:messages").is_empty());
}

#[test]
fn a_dead_letter_that_nobody_wrote_is_not_put_back() {
    let scene = Scene::new();
    scene.alpha.send("a", "beta", "{\"dead\":1}").unwrap();
    scene.b.nack(&scene.b.next().id, "no", false);
    until("a dead letter", || scene.world.redis.len("dlq:messages") == 1);
    let (real, fields) = scene.entries("dlq:messages").pop().unwrap();
    let change = |name: &str, value: &str| {
        let mut changed = fields.clone();
        changed.iter_mut().find(|(field, _)| field == name).unwrap().1 = value.to_owned();
        scene.add("dlq:messages", &pairs(&changed))
    };
    let forged = [
        change("stream", "agent.stream:alpha"),
        change("agent_id", "alpha"),
        change("envelope", &envelope(&fresh_id())),
        change("reason", "another"),
        change("attempts", "7"),
        change("attest", "AAAA 1 x"),
        change("time_ms", "7"),
    ];
    let (code, report) = scene.verify(&[]);
    assert_eq!((code, kinds(&report)), (3, vec!["not_attested"; forged.len()]), "{report}");
    for id in &forged {
        let output = scene.world.mas(&["dlq", "redrive", id]);
        assert_eq!(output.status.code(), Some(1), "{id}");
        assert_eq!(scene.world.mas(&["dlq", "drop", id]).status.code(), Some(0), "{id}");
    }
    assert_eq!(scene.world.mas(&["dlq", "redrive", &real]).status.code(), Some(0));
    let again = scene.b.next();
    assert_eq!(again.data()["dead"], 1);
    scene.b.ack(&again.id);
    until("it has left", || scene.world.redis.len(BETA) == 0);
    scene.world.assert_intact();
}

#[test]
fn a_dead_letter_that_somebody_removes_is_named_and_one_that_an_operator_drops_is_not() {
    let scene = Scene::new();
    for n in 0..3 {
        scene.alpha.send("a", "beta", &format!("{{\"n\":{n}}}")).unwrap();
        scene.b.nack(&scene.b.next().id, "no", false);
    }
    until("dead letters", || scene.world.redis.len("dlq:messages") == 3);
    let letters = scene.entries("dlq:messages");
    assert_eq!(scene.world.mas(&["dlq", "drop", &letters[0].0]).status.code(), Some(0));
    scene.world.assert_intact();
    let removed: u64 = scene.world.redis.query(&["XDEL", "dlq:messages", &letters[1].0]);
    assert_eq!(removed, 1);
    let (code, report) = scene.verify(&[]);
    assert_eq!((code, kinds(&report)), (3, vec!["letter_missing"]), "{report}");
    assert!(field(&letters[1].1, "envelope").contains(report["damages"][0]["message"].as_str().unwrap()));
}

#[test]
fn emptying_an_inbox_puts_aside_what_nobody_wrote() {
    let scene = Scene::new();
    drop(scene.world.client(&scene.server, "gamma"));
    let gamma = "agent.stream:gamma";
    let _ = scene.add(gamma, &[("envelope", &envelope(&fresh_id()))]);
    let output = scene.world.mas(&["inbox", "empty", "gamma", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(scene.world.redis.len(gamma), 0);
    assert_eq!(scene.world.redis.len("mas.foreign"), 1);
    assert!(scene.world.redis.entries("dlq:messages").is_empty());
    scene.world.assert_intact();
}

#[test]
fn a_message_that_is_put_back_after_it_was_done_shows_in_the_trail() {
    let scene = Scene::new();
    scene.alpha.send("a", "beta", "{\"n\":1}").unwrap();
    let delivered = scene.b.next();
    let (_, fields) = scene.entries(BETA).pop().unwrap();
    scene.b.ack(&delivered.id);
    until("it has left", || scene.world.redis.len(BETA) == 0);
    let _ = scene.add(BETA, &pairs(&fields));
    let servers: std::collections::HashMap<String, String> =
        scene.world.redis.query(&["HGETALL", "mas.servers"]);
    for id in servers.keys() {
        let _ = scene.redis(&["PUBLISH", &format!("mas.news:{id}"), "inboxes beta"]);
    }
    // It is a message of this very inbox, as a server wrote it: no tag tells it from the first one.
    scene.alpha.send("a", "beta", "{\"n\":2}").unwrap();
    let again = [scene.b.next(), scene.b.next()];
    assert!(again.iter().any(|one| one.message_id() == delivered.message_id()));
    again.iter().for_each(|one| scene.b.ack(&one.id));
    until("both have left", || scene.world.redis.len(BETA) == 0);
    until("the trail says so", || {
        let (code, report) = scene.verify(&[]);
        code == 3 && kinds(&report) == ["replayed"]
    });
}
