//! State and Discover.

use std::collections::HashMap;

use crate::support::{Refused, World, until};

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn state_is_kept_per_agent_and_survives_the_server() {
    let world = World::new();
    let mut server = world.server();
    for old in [false, true] {
        let client = |agent| {
            let client = world.client(&server, agent);
            if old { client.v04() } else { client }
        };
        let (alpha, beta) = (client("alpha"), client("beta"));
        assert_eq!(alpha.state(), Ok(map(&[])));
        alpha.update_state(&[("a", "1"), ("b", "{\"x\":[]}")]).unwrap();
        alpha.update_state(&[("a", "2"), ("", "é\n\u{0}")]).unwrap();
        alpha.update_state(&[]).unwrap();
        let expected = map(&[("a", "2"), ("b", "{\"x\":[]}"), ("", "é\n\u{0}")]);
        assert_eq!(alpha.state(), Ok(expected));
        assert_eq!(beta.state(), Ok(map(&[])));
        if old {
            break;
        }
        alpha.reset_state().unwrap();
        assert_eq!(alpha.state(), Ok(map(&[])));
    }
    server.kill();
    let server = world.server();
    assert_eq!(world.client(&server, "alpha").state().unwrap().len(), 3);
}

#[test]
fn state_is_bounded_in_fields_and_bytes() {
    let world = World::with(World::PAIR, "limits: {max_state_fields: 3, max_state_bytes: 100}\n");
    let server = world.server();
    let alpha = world.client(&server, "alpha");
    let too_large = Refused { code: "RESOURCE_EXHAUSTED".to_owned(), details: "state_too_large".to_owned() };
    alpha.update_state(&[("a", "1"), ("b", "2"), ("c", "3")]).unwrap();
    assert_eq!(alpha.update_state(&[("d", "4")]).unwrap_err(), too_large);
    let ninety = "x".repeat(90);
    alpha.update_state(&[("a", &ninety)]).unwrap();
    assert_eq!(alpha.update_state(&[("b", &ninety)]).unwrap_err(), too_large);
    alpha.update_state(&[("a", "1")]).unwrap();
    assert_eq!(
        alpha.state(),
        Ok(map(&[("a", "1"), ("b", "2"), ("c", "3")])),
        "a refused update changes nothing"
    );
}

#[test]
fn discover_shows_connected_agents_that_the_caller_may_message() {
    let world = World::with(
        "permissions:
  - {type: allow_wildcard, agent_id: boss}
  - {type: allow, sender: alpha, targets: [beta]}
agents:
  - {agent_id: boss}
  - {agent_id: alpha, capabilities: [plan, rest]}
  - {agent_id: beta, capabilities: [work, rest], metadata: {level: 3, tags: [x]}}
  - {agent_id: gamma, capabilities: [work]}
",
        "",
    );
    let server = world.server();
    for old in [false, true] {
        let client = |agent| {
            let client = world.client(&server, agent);
            if old { client.v04() } else { client }
        };
        let (boss, alpha, beta) = (client("boss"), client("alpha"), client("beta"));
        let names = |found: Vec<mas::protocol::AgentRecord>| {
            found.into_iter().map(|agent| agent.agent_id).collect::<Vec<_>>().join(" ")
        };
        until("nobody is connected", || boss.discover(&[]).unwrap().is_empty());
        let (_a, b) = (alpha.session("a"), beta.session("b"));
        assert_eq!(names(boss.discover(&[]).unwrap()), "alpha beta");
        assert_eq!(names(boss.discover(&["work"]).unwrap()), "beta");
        assert_eq!(names(boss.discover(&["plan", "work"]).unwrap()), "alpha beta", "any of them");
        assert_eq!(names(boss.discover(&["fly"]).unwrap()), "");
        assert_eq!(names(beta.discover(&[]).unwrap()), "", "beta may message nobody");
        let found = alpha.discover(&[]).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].capabilities, ["work", "rest"]);
        assert_eq!(found[0].status, "ACTIVE");
        let metadata: serde_json::Value = serde_json::from_str(&found[0].metadata_json).unwrap();
        assert_eq!(metadata, serde_json::json!({"level": 3, "tags": ["x"]}));
        b.half_close();
        b.end();
        until("beta has left", || names(boss.discover(&[]).unwrap()) == "alpha");
    }
}
