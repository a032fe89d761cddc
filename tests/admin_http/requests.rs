//! What requests may not be, and what is answered.

use std::net::Shutdown;

use mas::admin::http::Limits;

use super::support::{Running, count, get, post, wait};

#[test]
fn an_answer_has_all_protection() {
    let running = Running::plain(Limits::default());
    let mut client = running.connect();
    client.send(get("/"));
    let reply = client.reply();
    assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]));
    for (name, value) in [
        ("cache-control", "no-store"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        assert_eq!(reply.field(name), Some(value), "{name}");
    }
    assert!(reply.field("content-security-policy").unwrap().starts_with("default-src 'none'; "));
    assert_eq!(reply.field("connection"), None);
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let running = Running::plain(Limits { requests_per_connection: 5, ..Limits::default() });
    let mut client = running.connect();
    client.send("HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let head = client.head();
    assert_eq!((head.status, head.field("content-length")), (200, Some("5")));
    client.send("GET /static HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: \"v0\", \"v1\"\r\n\r\n");
    let known = client.head();
    assert_eq!(
        (known.status, known.field("etag"), known.field("content-length")),
        (304, Some("\"v1\""), None)
    );
    client.send("GET /static HTTP/1.1\r\nHost: localhost\r\nIf-None-Match: \"v2\"\r\n\r\n");
    assert_eq!(client.reply().body, b"a page");
    client.send(post("/echo", "Content-Length: 4\r\n", "body"));
    assert_eq!(client.reply().body, b"body");
    // The answers before had no byte that was not accounted for.
    client.send(get("/"));
    let last = client.reply();
    assert_eq!((last.status, last.field("connection")), (200, Some("close")));
    assert!(client.ends());
    assert_eq!(count(&running.counters.answered_2xx), 4);
    assert_eq!(count(&running.counters.answered_3xx), 1);
}

#[test]
fn what_is_not_in_order_is_refused_and_ends_the_connection() {
    let running = Running::plain(Limits::default());
    let chunks = "0\r\n\r\nGET /second HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let long = "a".repeat(20_000);
    for (request, status) in [
        // Two readers that would see another end of the request.
        (post("/echo", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", chunks), 400),
        (post("/echo", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", chunks), 400),
        (post("/echo", "Transfer-Encoding: chunked\r\n", chunks), 501),
        (post("/echo", "Transfer-encoding: cHuNkEd\r\n", chunks), 501),
        (post("/echo", "Transfer-Encoding: xchunked\r\n", chunks), 501),
        (post("/echo", "Transfer-Encoding : chunked\r\n", chunks), 400),
        (post("/echo", "Content-Length: 0\r\nContent-Length: 5\r\n", chunks), 400),
        (post("/echo", "Content-Length: 5\r\nContent-Length: 5\r\n", chunks), 400),
        (post("/echo", "Content-Length: 5, 5\r\n", chunks), 400),
        (post("/echo", "Content-Length: +5\r\n", chunks), 400),
        (post("/echo", "Content-Length: 0x5\r\n", chunks), 400),
        (post("/echo", "Content-Length: -1\r\n", chunks), 400),
        (post("/echo", "Content-Length : 5\r\n", chunks), 400),
        (post("/echo", "Content-Length: 5\n", chunks), 400),
        (post("/echo", "X: y\r\n Content-Length: 5\r\n", chunks), 400),
        (post("/echo", "X: y\rContent-Length: 5\r\n", chunks), 400),
        ("GET / HTTP/1.1\nHost: localhost\n\n".to_owned(), 400),
        ("\r\nGET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        // Bombs.
        (get(&format!("/{long}")), 414),
        (post("/", &format!("X: {long}\r\n"), ""), 431),
        (post("/", &"X: y\r\n".repeat(65), ""), 431),
        (get(&format!("/?{}", "a&".repeat(100))), 400),
        (post("/echo", "Content-Length: 300000\r\n", ""), 413),
        (post("/echo", "Content-Length: 99999999999999999999999999\r\n", ""), 413),
        // Paths and odd bytes.
        (get("/../etc/passwd"), 400),
        (get("/a/../../etc/passwd"), 400),
        (get("/%2e%2e/%2e%2e/etc/passwd"), 400),
        (get("/%252e%252e/etc/passwd"), 400),
        (get("/..%2fetc%2fpasswd"), 400),
        (get("/..%5cetc"), 400),
        (get("/a%00.html"), 400),
        (get("/a%0d%0aSet-Cookie:%20x"), 400),
        (get("/a\0"), 400),
        (get("/a\x01"), 400),
        (get("/a\x7f"), 400),
        (post("/", "X: a\0b\r\n", ""), 400),
        (post("/", "X: a\x08b\r\n", ""), 400),
        (get("//evil.example/"), 400),
        (get("http://localhost/"), 400),
        // Who is spoken to, and who speaks.
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: rebound.example\r\n\r\n".to_owned(), 421),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.2\r\n\r\n".to_owned(), 421),
        (post("/echo", "Origin: https://evil.example\r\n", ""), 403),
        (post("/echo", "Origin: null\r\n", ""), 403),
        (post("/echo", "Sec-Fetch-Site: cross-site\r\n", ""), 403),
        // What is spoken.
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 505),
        ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n".to_owned(), 505),
        ("OPTIONS / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 405),
        ("CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 405),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx".to_owned(), 400),
        (post("/echo", "Content-Length: 1\r\nExpect: 102-processing\r\n", "x"), 417),
        ("\x16\x03\x01".to_owned(), 400),
    ] {
        let reply = running.ask(&request);
        assert_eq!(reply.status, status, "{:?}", &request[..request.len().min(200)]);
        assert_eq!(reply.field("content-length"), Some(&*reply.body.len().to_string()));
        assert_eq!(reply.field("allow").is_some(), status == 405);
    }
    assert_eq!(running.responder.asked(), [""; 0], "none of them reached the service");
    assert_eq!(count(&running.counters.answered_2xx), 0);
    running.assert_serves();
}

#[test]
fn what_is_unusual_and_in_order_is_answered() {
    let running = Running::plain(Limits { hosts: vec!["admin.example".to_owned()], ..Limits::default() });
    let own = format!("http://{}", running.addr);
    for request in [
        "GET / HTTP/1.0\r\n\r\n".to_owned(),
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".to_owned(),
        "GET / HTTP/1.1\r\nHost: ADMIN.example:9\r\nConnection: close\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: Close\r\n\r\n", running.addr),
        format!(
            "POST / HTTP/1.1\r\nHost: {}\r\nOrigin: {own}\r\nSec-Fetch-Site: same-origin\r\nConnection: close\r\n\r\n",
            running.addr
        ),
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade, close\r\n\r\n"
            .to_owned(),
    ] {
        assert_eq!(running.ask(&request).status, 200, "{request}");
    }
}

#[test]
fn a_request_that_follows_before_its_time_is_not_served() {
    let running = Running::plain(Limits::default());
    assert_eq!(running.ask(get("/") + &get("/second")).status, 200);
    assert_eq!(running.ask(post("/echo", "Content-Length: 4\r\n", "body") + &get("/second")).body, b"body");
    // Behind the request, and before its answer.
    let mut client = running.connect();
    client.send(get("/hold"));
    wait("the request is being answered", || running.responder.asked().contains(&"/hold".to_owned()));
    client.send(get("/second"));
    running.responder.release();
    assert_eq!(client.reply().field("connection"), Some("close"));
    assert!(client.ends());
    assert!(!running.responder.asked().contains(&"/second".to_owned()));
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    let running = Running::plain(Limits::default());
    let mut client = running.connect();
    client.send(post("/echo", "Content-Length: 4\r\nExpect: 100-continue\r\n", ""));
    assert_eq!(client.until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    assert_eq!(client.reply().body, b"body");
    // The connection goes on.
    client.send(get("/"));
    assert_eq!(client.reply().status, 200);
    // A body that will not be read is not asked for.
    let refused = running.ask(post("/echo", "Content-Length: 999999\r\nExpect: 100-continue\r\n", ""));
    assert_eq!(refused.status, 413);
}

#[test]
fn a_client_may_go_on_sending_a_body_that_was_refused() {
    let running = Running::plain(Limits::default());
    let mut client = running.connect();
    client.send(post("/echo", "Content-Length: 2000000\r\n", ""));
    assert_eq!(client.reply().status, 413);
    assert!(client.ends());
    // For a while its bytes are taken and dropped: a reset could reach it before the answer does.
    for _ in 0..20 {
        client.send([b'x'; 10_000]);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    wait("its place is free", || running.open() == 0);
}

#[test]
fn a_client_that_sends_no_more_is_still_answered() {
    let running = Running::plain(Limits::default());
    let mut client = running.connect();
    client.send(get("/"));
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.reply().status, 200);
    assert!(client.ends());
    // Unless its request has no end.
    for part in ["", "GET / HT", "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbod"] {
        let mut client = running.connect();
        client.send(part);
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(client.ends(), "{part:?}");
    }
    assert_eq!(running.responder.asked(), ["/"]);
}

#[test]
fn a_panic_fails_one_request_and_takes_no_place() {
    let running = Running::plain(Limits { connections: 1, ..Limits::default() });
    for number in 1..=3 {
        let reply = running.ask(get("/panic"));
        assert_eq!((reply.status, &reply.body[..]), (500, &b"the request failed\n"[..]));
        assert_eq!(count(&running.counters.panics), number);
        wait("its place is free", || running.open() == 0);
    }
    running.assert_serves();
}

#[test]
fn errors_of_the_service_end_the_connection_too() {
    let running = Running::plain(Limits::default());
    let reply = running.ask(get("/nowhere"));
    assert_eq!((reply.status, &reply.body[..]), (404, &b"no such page"[..]));
    let mut client = running.connect();
    client.send("HEAD /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(client.head().status, 404);
    assert!(client.ends());
}
