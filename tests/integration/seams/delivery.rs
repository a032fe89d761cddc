//! Deliveries that meet a slow Redis, a restart, a reload or an event's bound: none is lost, late or counted twice.

use std::time::{Duration, Instant};

use mas::protocol::SendRequest;
use nix::sys::signal::Signal;

use super::{KNOWN, QUIET, send_numbers, send_to, unix_ms};
use crate::support::{Server, World, pass, until, within};

/// `reclaim_idle_ms` of [`World::new`] and what a promise allows beyond it.
const RECLAIMED: Duration = Duration::from_millis(300 + 3000);

/// Two servers; Redis is stopped for `pause` while `i` gets a message. Then `i` ends and `k` connects.
fn a_redelivery_after_a_slow_delivery(pause: Duration) {
    let world = World::new();
    let (server, _other) = (world.server(), world.server());
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, i) = (alpha.session("a"), beta.session("i"));
    // A server that has just seen another one come looks all inboxes over once more.
    pass(KNOWN);
    alpha.send("a", "beta", "{\"n\":0}").unwrap();
    i.take();
    until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
    std::thread::scope(|scope| {
        world.redis.halt();
        let sent = scope.spawn(|| alpha.send("a", "beta", "{\"n\":1}"));
        pass(pause);
        world.redis.proceed();
        sent.join().unwrap().unwrap();
    });
    let first = i.next();
    drop(i);
    let ended = Instant::now();
    let k = beta.session("k");
    let again = k.next_within(RECLAIMED).unwrap_or_else(|| panic!("nothing after {:?}", ended.elapsed()));
    assert_eq!(again.message_id(), first.message_id());
    k.ack(&again.id);
    until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
    world.assert_intact();
}

#[test]
fn a_message_that_redis_was_slow_to_hand_out_is_redelivered_in_time() {
    a_redelivery_after_a_slow_delivery(Duration::from_millis(30));
}

#[test]
fn a_message_that_redis_was_very_slow_to_hand_out_is_redelivered_in_time() {
    a_redelivery_after_a_slow_delivery(Duration::from_millis(200));
}

#[test]
fn restarts_do_not_use_up_the_attempts_of_a_message_that_waits_for_its_time() {
    const RESTARTS: usize = 7;
    let world = World::new();
    let mut server = world.server();
    let due_ms = unix_ms() + 14_000;
    {
        let alpha = world.client(&server, "alpha");
        let _a = alpha.session("a");
        let delayed =
            SendRequest { not_before_ms: due_ms, instance_id: "a".to_owned(), ..send_to("beta", "{}") };
        alpha.send_raw(&delayed).unwrap();
    }
    // What has its turn after the delayed message shows that the receiver was served.
    let served = |server: &Server, n: usize| {
        let (alpha, beta) = (world.client(server, "alpha"), world.client(server, "beta"));
        let (_a, b) = (alpha.session("a"), beta.session("b"));
        alpha.send("a", "beta", &format!("{{\"marker\":{n}}}")).unwrap();
        assert_eq!(b.take().data()["marker"], n);
        until("only what waits is left", || world.redis.len("agent.stream:beta") == 1);
    };
    for n in 0..RESTARTS {
        served(&server, n);
        if n % 3 != 2 {
            server.kill();
        } else {
            server.stop();
        }
        server = world.server();
    }
    assert!(unix_ms() < due_ms, "the restarts took too long for this test");
    let b = world.client(&server, "beta").session("b");
    let letters = || world.redis.entries("dlq:messages");
    let mut delivered = None;
    within(Duration::from_secs(15), "it is delivered", || {
        assert!(letters().is_empty(), "{:?}", letters());
        delivered = b.next_within(Duration::from_millis(100));
        delivered.is_some()
    });
    let delivered = delivered.unwrap();
    assert!(unix_ms() >= due_ms, "not before its time");
    assert_eq!(delivered.attempt, 1);
    b.ack(&delivered.id);
    until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
    assert!(letters().is_empty());
    world.assert_intact();
}

#[test]
fn a_message_that_waits_for_its_time_costs_no_work_and_holds_up_no_stop() {
    let world = World::new();
    let mut server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (_a, b) = (alpha.session("a"), beta.session("b"));
    let later = unix_ms() + 3_600_000;
    let delayed = SendRequest { not_before_ms: later, instance_id: "a".to_owned(), ..send_to("beta", "{}") };
    alpha.send_raw(&delayed).unwrap();
    alpha.send("a", "beta", "{\"n\":1}").unwrap();
    assert_eq!(b.take().data()["n"], 1);
    until("only what waits is left", || world.redis.len("agent.stream:beta") == 1);
    // A worker that spins would use up the second: 100 ticks.
    let used = server.cpu_ticks_during(Duration::from_secs(1));
    assert!(used <= 20, "{used} ticks in a second of idleness");
    let asked = Instant::now();
    server.stop();
    assert!(asked.elapsed() < Duration::from_secs(3), "the stop took {:?}", asked.elapsed());
}

#[test]
fn acknowledgements_count_in_full_after_a_reload_that_raises_the_credit() {
    let mut world = World::with(World::PAIR, "delivery: {max_in_flight: 10}\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    let b = beta.stream();
    b.hello_batched("b");
    send_numbers(&alpha, "a", "beta", 0..100);
    let mut held: Vec<String> = (0..10).map(|_| b.next().id).collect();
    world.set_settings("delivery: {max_in_flight: 200}\n");
    server.signal(Signal::SIGHUP);
    until("the reload is on record", || {
        world.records().iter().any(|record| record.action.as_str() == "config_changed")
    });
    // Makes the worker look at the inbox.
    alpha.send("a", "beta", "{\"n\":100}").unwrap();
    held.extend((0..91).map(|_| b.next().id));
    assert_eq!(held.len(), 101);
    b.ack_all(held);
    let left = || world.redis.len("agent.stream:beta");
    within(Duration::from_secs(5), "every acknowledgement counts", || left() == 0);
    world.assert_intact();
}

#[test]
fn large_deliveries_in_batches_stay_within_what_clients_receive() {
    const LARGEST: usize = 4_128_768;
    let world = World::with(World::PAIR, &format!("limits: {{max_message_bytes: {LARGEST}}}\n"));
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let _a = alpha.session("a");
    let padded = |bytes: usize| format!("{{\"x\":\"{}\"}}", "y".repeat(bytes - "{\"x\":\"\"}".len()));
    let sizes = [200 * 1024, LARGEST, 200 * 1024];
    for size in sizes {
        alpha.send("a", "beta", &padded(size)).unwrap();
    }
    let b = beta.stream();
    b.hello_batched("b");
    for size in sizes {
        let delivered = b.take();
        assert_eq!(delivered.data()["x"].as_str().unwrap().len(), size - "{\"x\":\"\"}".len());
        assert_eq!(delivered.attempt, 1);
    }
    until("the inbox is empty", || world.redis.len("agent.stream:beta") == 0);
    assert!(b.next_within(QUIET).is_none());
}
