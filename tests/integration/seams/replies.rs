//! A reply that was accepted is somewhere, also when its requester's instance is just being cleared away.

use std::time::Duration;

use crate::support::{Gate, Session, World, until, within};

/// `reclaim_idle_ms` is 300: an instance is cleared away after twice that time.
const CLEARED: Duration = Duration::from_secs(5);

/// Two servers, each behind a gate. `i` asked something and is gone; the server that clears away what is left of it
/// has found its inbox empty and is held right there, while the reply comes in over the other one.
#[test]
fn a_reply_that_is_accepted_while_its_requester_is_cleared_away_is_kept() {
    for round in 0..3 {
        reply_meets_clearing(round);
    }
}

fn reply_meets_clearing(round: u32) {
    let world = World::new();
    let gates = [world.gate("one.sock"), world.gate("two.sock")];
    let servers = gates.each_ref().map(|gate| world.server_behind(gate));
    let asking = world.client(&servers[0], "alpha");
    let i = asking.session("i");
    let beta = servers.each_ref().map(|server| world.client(server, "beta"));
    let b: Session = beta[0].session("b");
    let correlation = asking.request("i", "beta", "{}", 60_000).unwrap();
    b.take();
    until("both servers know the replier", || {
        beta.iter().all(|client| client.send("b", "alpha", "{\"n\":0}").is_ok())
    });
    for _ in 0..world.redis.len("agent.stream:alpha") {
        i.take();
    }
    until("the requester has nothing", || world.redis.len("agent.stream:alpha") == 0);
    gates.iter().for_each(|gate| gate.hold(&["agent.stream:alpha:i\r\n", "EXEC\r\n"]));
    drop(i);
    within(CLEARED, "the instance is being cleared away", || gates.iter().any(Gate::is_holding));
    let holding = usize::from(gates[1].is_holding());
    gates[1 - holding].open();
    let accepted = beta[1 - holding].reply("b", &correlation, &format!("{{\"round\":{round}}}"));
    gates[holding].open();
    // What passes the worker afterwards shows that the clearing has been carried out, or not.
    beta[holding].send("b", "alpha", "{\"marker\":1}").unwrap();
    if let Err(refused) = accepted {
        // Nothing is promised then.
        assert_eq!(refused.details, "unknown_correlation_id");
        return;
    }
    let waits = || world.redis.len("agent.stream:alpha:i") == 1;
    let is_letter = || {
        let letters = world.redis.entries("dlq:messages");
        letters.iter().any(|(_, fields)| fields.iter().any(|(_, value)| value.contains(&correlation)))
    };
    within(CLEARED, "the accepted reply waits, or is a dead letter", || waits() || is_letter());
}
