//! Pending requests and what idempotency keys remember, forged, changed or moved.

use mas::protocol::SendRequest;

use super::{Scene, kinds};
use crate::support::until;

fn pending_key(correlation: &str) -> String {
    format!("mas.pending_request:{correlation}")
}

#[test]
fn a_request_that_was_never_made_is_not_answered() {
    let scene = Scene::new();
    let asked = scene.alpha.request("a", "beta", "{}", 60_000).unwrap();
    let request = scene.b.next();
    let key = pending_key(&asked);
    let stored: String = scene.world.redis.query(&["GET", &key]);
    let changes: [(&str, String); 5] = [
        ("without a tag", stored.split_once(",\"tag\"").unwrap().0.to_owned() + "}"),
        ("another who asked", stored.replace("\"sender_id\":\"alpha\"", "\"sender_id\":\"gamma\"")),
        ("another instance", stored.replace("\"sender_instance_id\":\"a\"", "\"sender_instance_id\":\"x\"")),
        ("another message", stored.replace(&request.message_id()[..8], "00000000")),
        ("no text of ours", "nothing".to_owned()),
    ];
    for (at, (what, text)) in changes.iter().enumerate() {
        assert_ne!(text, &stored, "{what}");
        let _ = scene.redis(&["SET", &key, text]);
        let refused = scene.beta.reply("b", &asked, "{}").unwrap_err();
        assert_eq!(refused.details, "unknown_correlation_id", "{what}");
        let record = scene.put_aside(at + 1).pop().unwrap();
        assert_eq!(record.target, key, "{what}");
        let there: i64 = scene.world.redis.query(&["EXISTS", &key]);
        assert_eq!(there, 0, "{what}");
    }
    // A request of another correlation, under this one's key.
    let other = scene.alpha.request("a", "beta", "{}", 60_000).unwrap();
    let second = scene.b.next();
    let of_other: String = scene.world.redis.query(&["GET", &pending_key(&other)]);
    let _ = scene.redis(&["SET", &key, &of_other]);
    assert_eq!(scene.beta.reply("b", &asked, "{}").unwrap_err().details, "unknown_correlation_id");
    let _ = scene.put_aside(changes.len() + 1);
    // What was stored by a server still counts.
    let _ = scene.redis(&["SET", &key, &stored, "PX", "60000"]);
    scene.beta.reply("b", &asked, "{\"real\":1}").unwrap();
    scene.beta.reply("b", &other, "{\"real\":2}").unwrap();
    let replies = [scene.a.next(), scene.a.next()];
    assert_eq!(replies.each_ref().map(|reply| reply.data()["real"].as_u64().unwrap()), [1, 2]);
    replies.iter().for_each(|reply| scene.a.ack(&reply.id));
    [request, second].iter().for_each(|one| scene.b.ack(&one.id));
    scene.goes_on(1);
}

#[test]
fn what_an_idempotency_key_remembers_is_used_only_where_a_server_stored_it() {
    let scene = Scene::new();
    let send = |key: &str| {
        let request = SendRequest {
            instance_id: "a".into(),
            target_id: "beta".into(),
            message_type: "note".into(),
            data_json: "{\"once\":1}".into(),
            idempotency_key: key.into(),
            ..SendRequest::default()
        };
        scene.alpha.send_raw(&request).unwrap().message_id
    };
    let first = send("k");
    scene.b.ack(&scene.b.next().id);
    assert_eq!(send("k"), first, "a repetition");
    let key = "mas.idempotency:alpha:k";
    let stored: String = scene.world.redis.query(&["GET", key]);
    // A memory that was made up would swallow a message.
    let _ = scene.redis(&["SET", "mas.idempotency:alpha:new", &stored]);
    let second = send("new");
    assert_ne!(second, first);
    let delivered = scene.b.next();
    assert_eq!(delivered.message_id(), second);
    scene.b.ack(&delivered.id);
    let record = scene.put_aside(1).pop().unwrap();
    assert_eq!(record.target, "mas.idempotency:alpha:new");
    // It is this message's memory now.
    assert_eq!(send("new"), second);
    until("all is acknowledged", || scene.world.redis.len(super::BETA) == 0);
    let (code, report) = scene.verify(&[]);
    assert_eq!((code, kinds(&report)), (0, vec![]), "{report}");
}
