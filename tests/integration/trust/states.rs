//! States that somebody else has changed, deleted or rolled back.

use super::{Scene, kinds};
use crate::support::until;

const STATE: &str = "agent.state:alpha";
const VERSION: &str = "agent.state_version:alpha";
const TAG: &str = "agent.state_tag:alpha";

/// Nothing is read from the state and nothing is written to it; that is on record, once.
#[track_caller]
fn refused(scene: &Scene, what: &str) {
    for again in 0..2 {
        let refused = scene.alpha.state().unwrap_err();
        assert_eq!(
            (refused.code.as_str(), refused.details.as_str()),
            ("FAILED_PRECONDITION", "state_foreign"),
            "{what}"
        );
        let refused = scene.alpha.update_state(&[("x", "y")]).unwrap_err();
        assert_eq!(refused.details, "state_foreign", "{what} {again}");
    }
    let (code, report) = scene.verify(&[]);
    assert_eq!(code, 3, "{what}: {report}");
    assert!(kinds(&report).contains(&"not_attested"), "{what}: {report}");
}

#[test]
fn a_state_that_somebody_else_has_changed_is_not_used() {
    let scene = Scene::new();
    let changes: [(&str, &[&[&str]]); 9] = [
        ("a field changed", &[&["HSET", STATE, "a", "evil"]]),
        ("a field added", &[&["HSET", STATE, "c", "evil"]]),
        ("a field removed", &[&["HDEL", STATE, "a"]]),
        ("all of it removed", &[&["DEL", STATE]]),
        ("its version raised", &[&["INCR", VERSION]]),
        ("its version gone", &[&["DEL", VERSION]]),
        ("its tag gone", &[&["DEL", TAG]]),
        ("its tag of another form", &[&["SET", TAG, "x"]]),
        ("state and tag gone", &[&["DEL", STATE, TAG]]),
    ];
    for (at, (what, commands)) in changes.iter().enumerate() {
        scene.alpha.reset_state().unwrap();
        scene.alpha.update_state(&[("a", "1"), ("b", "2")]).unwrap();
        assert_eq!(scene.alpha.state().unwrap().len(), 2, "{what}");
        for words in *commands {
            let _ = scene.redis(words);
        }
        refused(&scene, what);
        let records = scene.put_aside(at + 1);
        assert_eq!(records[at].target, STATE, "{what}");
    }
    // A reset begins anew, whatever is in its places.
    for words in [
        ["SET", VERSION, "abc"].as_slice(),
        &["SET", VERSION, "18446744073709551615"],
        &["SET", TAG, "1 temporary 1 00 00"],
        &["SET", STATE, "no hash"],
    ] {
        scene.alpha.reset_state().unwrap();
        scene.alpha.update_state(&[("a", "1")]).unwrap();
        let _ = scene.redis(words);
        assert_eq!(scene.alpha.state().unwrap_err().details, "state_foreign", "{words:?}");
        scene.alpha.reset_state().unwrap();
        assert!(scene.alpha.state().unwrap().is_empty(), "{words:?}");
    }
    // A kept state that is made to look as if it had run out.
    scene.alpha.update_state(&[("a", "1")]).unwrap();
    let tag: String = scene.world.redis.query(&["GET", TAG]);
    let _ = scene.redis(&["DEL", STATE]);
    let _ = scene.redis(&["SET", TAG, &tag.replace("kept", "temporary")]);
    assert_eq!(scene.alpha.state().unwrap_err().details, "state_foreign");
    scene.alpha.reset_state().unwrap();
    scene.alpha.update_state(&[("a", "1")]).unwrap();
    assert_eq!(scene.alpha.state().unwrap()["a"], "1");
    scene.goes_on(1);
}

#[test]
fn another_agents_state_is_foreign_and_an_operator_may_accept_one() {
    let scene = Scene::new();
    scene.beta.update_state(&[("secret", "of beta")]).unwrap();
    let _ = scene.redis(&["COPY", "agent.state:beta", STATE]);
    let _ = scene.redis(&["COPY", "agent.state_version:beta", VERSION]);
    let _ = scene.redis(&["COPY", "agent.state_tag:beta", TAG]);
    refused(&scene, "copied");
    assert_eq!(scene.world.mas(&["state", "set", "alpha", "a=1"]).status.code(), Some(1));
    let said = String::from_utf8(scene.world.mas(&["state", "get", "alpha"]).stderr).unwrap();
    assert!(said.contains("somebody else"), "{said}");
    let digest = said.trim().rsplit(' ').next().unwrap();
    let accept =
        |digest: &str| scene.world.mas(&["state", "accept", "alpha", "--sha256", digest]).status.code();
    assert_eq!(accept(&"0".repeat(64)), Some(1));
    assert_eq!(accept(digest), Some(0));
    assert_eq!(scene.alpha.state().unwrap()["secret"], "of beta");
    scene.alpha.update_state(&[("more", "1")]).unwrap();
    assert_eq!(scene.alpha.state().unwrap().len(), 2);
    scene.world.assert_intact();
}

#[test]
fn a_state_that_is_rolled_back_as_a_whole_shows_in_the_trail() {
    let scene = Scene::new();
    scene.alpha.update_state(&[("a", "1")]).unwrap();
    for key in [STATE, VERSION, TAG] {
        let _ = scene.redis(&["COPY", key, &format!("old.{key}")]);
    }
    scene.alpha.update_state(&[("a", "2")]).unwrap();
    scene.world.assert_intact();
    for key in [STATE, VERSION, TAG] {
        let _ = scene.redis(&["COPY", &format!("old.{key}"), key, "REPLACE"]);
        let _ = scene.redis(&["DEL", &format!("old.{key}")]);
    }
    until("the trail says so", || {
        let (code, report) = scene.verify(&[]);
        code == 3 && kinds(&report) == ["state_rolled_back"]
    });
}

#[test]
fn a_state_that_runs_out_is_gone_and_not_foreign() {
    let scene = Scene::new();
    let request = mas::protocol::UpdateStateRequest {
        updates: [("a".to_owned(), "1".to_owned())].into(),
        ttl_ms: 50,
        ..Default::default()
    };
    scene.alpha.change_state(&request).unwrap();
    until("it has run out", || scene.alpha.state().unwrap().is_empty());
    scene.alpha.update_state(&[("b", "2")]).unwrap();
    assert_eq!(scene.alpha.state().unwrap().len(), 1);
    scene.world.assert_intact();
}
