//! The end of a server.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mas::admin::http::{HttpServer, Limits};

use super::support::{PATIENCE, Running, get, wait};

#[test]
fn a_stop_ends_streams_and_idle_connections_at_once() {
    let mut running = Running::plain(Limits::default());
    let mut streams: Vec<_> = (0..3)
        .map(|_| {
            let mut client = running.connect();
            client.send(get("/events/silent"));
            assert_eq!(client.head().status, 200);
            client
        })
        .collect();
    let mut kept = running.connect();
    kept.send(get("/"));
    assert_eq!(kept.reply().status, 200);
    let mut silent = running.connect();
    let mut half = running.connect();
    half.send("GET / HT");
    wait("all are connected", || running.streams() == 3 && running.open() == 3);
    let begun = Instant::now();
    // One request has begun and is not finished: it has until shortly before the deadline.
    assert!(running.server.take().unwrap().stop(begun + Duration::from_secs(2)));
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    for client in streams.iter_mut().chain([&mut kept, &mut silent, &mut half]) {
        assert!(client.ends());
    }
    assert_eq!((running.streams(), running.open()), (0, 0));
    assert!(std::net::TcpStream::connect(running.addr).is_err());
}

#[test]
fn a_stop_without_requests_does_not_wait_for_its_deadline() {
    let mut running = Running::plain(Limits::default());
    let mut kept = running.connect();
    kept.send(get("/"));
    assert_eq!(kept.reply().status, 200);
    let mut client = running.connect();
    client.send(get("/events/silent"));
    assert_eq!(client.head().status, 200);
    let begun = Instant::now();
    assert!(running.server.take().unwrap().stop(begun + PATIENCE * 6));
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert!(client.ends() && kept.ends());
}

#[test]
fn a_request_that_is_being_answered_is_answered() {
    let mut running = Running::plain(Limits::default());
    let mut client = running.connect();
    client.send(get("/hold"));
    wait("the request is being answered", || !running.responder.asked().is_empty());
    let server = running.server.take().unwrap();
    let stopping = std::thread::spawn(move || server.stop(Instant::now() + PATIENCE));
    // The listener is closed once the server has begun to stop.
    wait("the server stops", || std::net::TcpStream::connect(running.addr).is_err());
    running.responder.release();
    let reply = client.reply();
    assert_eq!((&reply.body[..], reply.field("connection")), (&b"released"[..], Some("close")));
    assert!(client.ends());
    assert!(stopping.join().unwrap());
}

#[test]
fn a_stop_cuts_answers_that_nobody_reads() {
    let mut running = Running::plain(Limits { stall: PATIENCE * 6, ..Limits::default() });
    let mut client = running.connect();
    client.send(get("/large"));
    wait("the answer was begun", || running.counters.answered_2xx.load(Ordering::Relaxed) == 1);
    let begun = Instant::now();
    assert!(running.server.take().unwrap().stop(begun + Duration::from_secs(2)));
    assert!(begun.elapsed() < Duration::from_secs(2));
    drop(client);
}

#[test]
fn a_stop_does_not_wait_for_a_service_that_hangs() {
    let mut running = Running::plain(Limits::default());
    let mut client = running.connect();
    client.send(get("/hold"));
    wait("the request is being answered", || !running.responder.asked().is_empty());
    let begun = Instant::now();
    assert!(!running.server.take().unwrap().stop(begun + Duration::from_secs(1)));
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    assert!(client.ends(), "its connection is cut");
    running.responder.release();
    wait("its thread has ended", || running.open() == 0);
}

#[test]
fn hosts_that_are_none_are_not_started_with() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let running = Running::plain(Limits::default());
    let limits = Limits { hosts: vec!["https://admin.example".to_owned()], ..Limits::default() };
    let started = HttpServer::start(listener, None, Arc::clone(&running.responder) as _, limits);
    let error = started.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("https://admin.example"), "{error}");
}
