//! Peers that take their time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use mas::admin::http::Limits;

use super::support::{Client, PATIENCE, Running, SHORT, connect, count, get, post, wait};
use super::tls::Authority;

/// Between two bytes of a slow peer: much less than any deadline.
const TRICKLE: Duration = Duration::from_millis(40);

/// Sends the bytes one by one until the server has had enough. Returns how long that took.
fn trickle(socket: &mut TcpStream, bytes: &[u8]) -> Duration {
    let begun = Instant::now();
    socket.set_nonblocking(true).unwrap();
    for byte in bytes {
        let mut seen = [0; 1];
        let closed = socket.peek(&mut seen).is_ok();
        if closed || socket.write_all(&[*byte]).is_err() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "the server still waits");
        std::thread::sleep(TRICKLE);
    }
    socket.set_nonblocking(false).unwrap();
    begun.elapsed()
}

fn short() -> Limits {
    Limits { request: SHORT, handshake: SHORT, idle: SHORT, stall: SHORT, ..Limits::default() }
}

#[test]
fn a_head_that_comes_byte_by_byte_meets_the_deadline_of_the_request() {
    let running = Running::plain(short());
    let head = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(5000));
    let mut client = running.connect();
    let took = trickle(&mut client.stream, head.as_bytes());
    assert!(took >= SHORT, "{took:?}");
    assert_eq!(client.reply().status, 408);
    wait("its place is free", || running.open() == 0);
    assert_eq!(running.responder.asked(), [""; 0]);
}

#[test]
fn a_body_that_comes_byte_by_byte_meets_the_deadline_of_the_request() {
    let running = Running::plain(short());
    let mut client = running.connect();
    client.send(post("/echo", "Content-Length: 5000\r\n", ""));
    let took = trickle(&mut client.stream, &[b'a'; 5000]);
    assert!(took < PATIENCE);
    assert_eq!(client.reply().status, 408);
    wait("its place is free", || running.open() == 0);
    assert_eq!(running.responder.asked(), [""; 0]);
}

#[test]
fn a_second_request_has_no_more_time_than_the_first() {
    let running = Running::plain(Limits { idle: PATIENCE, ..short() });
    let mut client = running.connect();
    client.send(get("/"));
    assert_eq!(client.reply().status, 200);
    let _ = trickle(&mut client.stream, &[b'G'; 5000]);
    assert_eq!(client.reply().status, 408);
}

#[test]
fn a_handshake_that_comes_byte_by_byte_meets_its_deadline() {
    let authority = Authority::new();
    let running = Running::tls(short(), authority.tls());
    let mut hello = Vec::new();
    let _ = authority.client("http/1.1", true).write_tls(&mut hello).unwrap();
    let mut socket = connect(running.addr);
    let took = trickle(&mut socket, &hello);
    assert!(took >= SHORT, "{took:?}");
    wait("the handshake was given up", || count(&running.counters.refused_handshake) == 1);
    wait("its place is free", || running.open() == 0);
}

#[test]
fn a_peer_that_says_nothing_is_closed() {
    let authority = Authority::new();
    let plain = Running::plain(short());
    let tls = Running::tls(short(), authority.tls());
    for running in [&plain, &tls] {
        assert!(running.connect().ends());
        wait("its place is free", || running.open() == 0);
    }
    // One that has shaken hands is told by TLS.
    let mut shaken = authority.connect(&tls, "http/1.1");
    assert_eq!(shaken.stream.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_connection_without_a_next_request_is_closed() {
    let running = Running::plain(Limits { request: PATIENCE * 2, ..short() });
    let mut client = running.connect();
    client.send(get("/"));
    assert_eq!(client.reply().status, 200);
    let begun = Instant::now();
    assert!(client.ends());
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn an_answer_that_nobody_reads_is_given_up() {
    let authority = Authority::new();
    let plain = Running::plain(short());
    let tls = Running::tls(short(), authority.tls());
    let mut client = plain.connect();
    client.send(get("/large"));
    let mut tls_client = authority.connect(&tls, "http/1.1");
    tls_client.send(get("/large"));
    for running in [&plain, &tls] {
        wait("the answer was begun", || count(&running.counters.answered_2xx) == 1);
        wait("its place is free", || running.open() == 0);
    }
    // What is left in the buffers, and not all of it.
    let mut rest = Vec::new();
    let _ = client.stream.read_to_end(&mut rest);
    assert!(rest.len() < super::support::LARGE_BYTES);
    plain.assert_serves();
}

#[test]
fn a_reader_that_is_slow_and_goes_on_gets_all_of_a_large_answer() {
    let running = Running::plain(short());
    let mut client = Client::new(connect(running.addr));
    client.send(get("/large"));
    // Longer than the deadline without progress, and never without progress for that long.
    let until = Instant::now() + SHORT * 3;
    let mut read = 0;
    let mut buffer = vec![0; 256 * 1024];
    while Instant::now() < until {
        read += client.stream.read(&mut buffer).unwrap();
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(read < super::support::LARGE_BYTES, "it was not slow");
    while read < super::support::LARGE_BYTES {
        let count = client.stream.read(&mut buffer).unwrap();
        assert!(count > 0, "the answer was cut after {read} bytes");
        read += count;
    }
}
