//! Event streams.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use mas::admin::http::Limits;

use super::support::{PATIENCE, Running, SHORT, connect, count, get, wait};
use super::tls::Authority;

#[test]
fn events_come_one_by_one_and_end_with_the_connection() {
    let running = Running::plain(Limits::default());
    let mut client = running.connect();
    client.send(get("/events/three"));
    let head = client.head();
    assert_eq!(head.status, 200);
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    assert_eq!(head.field("cache-control"), Some("no-store"));
    assert_eq!(head.field("x-content-type-options"), Some("nosniff"));
    assert_eq!((head.field("content-length"), head.field("connection")), (None, Some("close")));
    for number in 1..=3 {
        assert_eq!(client.until("\n\n"), format!("id: {number}\nevent: tick\ndata: x\n\n"));
    }
    assert!(client.ends());
    wait("its place is free", || running.streams() == 0 && running.open() == 0);
}

#[test]
fn a_silent_stream_has_a_heartbeat() {
    let running = Running::plain(Limits { heartbeat: Duration::from_millis(100), ..Limits::default() });
    let mut client = running.connect();
    client.send(get("/events/silent"));
    assert_eq!(client.head().status, 200);
    for _ in 0..3 {
        assert_eq!(client.until("\n\n"), ":\n\n");
    }
}

#[test]
fn a_head_request_gets_the_head_of_a_stream_alone() {
    let running = Running::plain(Limits { streams: 0, ..Limits::default() });
    let mut client = running.connect();
    client.send("HEAD /events/three HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.head().field("content-type"), Some("text/event-stream"));
    assert!(client.ends());
}

#[test]
fn streams_have_places_of_their_own_and_leave_those_of_others_alone() {
    let running = Running::plain(Limits { connections: 2, streams: 3, ..Limits::default() });
    let mut clients = Vec::new();
    for number in 1..=3 {
        let mut client = running.connect();
        client.send(get("/events/silent"));
        assert_eq!(client.head().status, 200);
        assert_eq!((running.streams(), running.open()), (number, 0));
        clients.push(client);
    }
    let refused = running.ask(get("/events/silent"));
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1")));
    assert_eq!(count(&running.counters.refused_streams), 1);
    wait("its place is free", || running.open() == 0);
    running.assert_serves();
    // A stream that its peer has closed makes room: closed at once, or in one direction.
    drop(clients.pop());
    clients.last_mut().unwrap().stream.shutdown(Shutdown::Write).unwrap();
    wait("two places are free", || running.streams() == 1);
    let mut client = running.connect();
    client.send(get("/events/silent"));
    assert_eq!(client.head().status, 200);
}

#[test]
fn a_stream_ends_when_its_peer_goes_on_talking() {
    let running = Running::plain(Limits::default());
    let mut client = running.connect();
    client.send(get("/events/silent"));
    assert_eq!(client.head().status, 200);
    client.send(get("/second"));
    assert!(client.ends());
    assert_eq!(running.responder.asked(), ["/events/silent"]);
}

#[test]
fn a_stream_that_nobody_reads_is_given_up() {
    let authority = Authority::new();
    let limits = || Limits { stall: SHORT, ..Limits::default() };
    let plain = Running::plain(limits());
    let tls = Running::tls(limits(), authority.tls());
    let mut client = plain.connect();
    client.send(get("/events/flood"));
    let mut tls_client = authority.connect(&tls, "http/1.1");
    tls_client.send(get("/events/flood"));
    for running in [&plain, &tls] {
        wait("the stream was begun", || count(&running.counters.answered_2xx) == 1);
        wait("its place is free", || running.streams() == 0);
    }
}

#[test]
fn a_source_that_panics_ends_its_stream_alone() {
    let running = Running::plain(Limits { streams: 1, ..Limits::default() });
    for number in 1..=2 {
        let mut client = running.connect();
        client.send(get("/events/panic"));
        assert_eq!(client.head().status, 200);
        assert!(client.ends());
        assert_eq!(count(&running.counters.panics), number);
        wait("its place is free", || running.streams() == 0);
    }
}

#[test]
fn a_stream_over_tls_sees_its_peer_close() {
    let authority = Authority::new();
    let running = Running::tls(Limits::default(), authority.tls());
    for closes_properly in [true, false] {
        let mut client = authority.connect(&running, "http/1.1");
        client.send(get("/events/silent"));
        assert_eq!(client.head().status, 200);
        assert_eq!(running.streams(), 1);
        if closes_properly {
            client.stream.conn.send_close_notify();
            let _ = client.stream.conn.write_tls(&mut client.stream.sock).unwrap();
        } else {
            drop(client);
        }
        let begun = Instant::now();
        wait("its place is free", || running.streams() == 0);
        assert!(begun.elapsed() < PATIENCE);
    }
    drop(connect(running.addr));
}
