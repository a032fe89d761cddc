use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use proptest::prelude::*;

use super::super::host::Hosts;
use super::super::limits::{MAX_HEAD_BYTES, MAX_HEADERS};
use super::super::request::Method;
use super::super::socket::Remote;
use super::*;

const BODY_BYTES: usize = 1000;

fn rules() -> Rules {
    let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
    Rules {
        hosts: Arc::new(Hosts::new(&["admin.example".to_owned()]).unwrap()),
        local,
        body_bytes: BODY_BYTES,
    }
}

fn peer() -> Arc<Peer> {
    Arc::new(Peer { remote: Remote::Addr(SocketAddr::from(([192, 0, 2, 1], 1000))), certificate: None })
}

/// What came of the bytes: a request or none yet, how many were taken, and what was wrong.
type Outcome = Result<(Option<Request>, usize), Refused>;

fn read(pieces: &[&[u8]]) -> (Outcome, bool) {
    let rules = rules();
    let mut intake = Intake::new(&rules);
    let mut taken = 0;
    for piece in pieces {
        match intake.take(piece) {
            Ok(count) => taken += count,
            Err(refused) => return (Err(refused), intake.is_head()),
        }
    }
    let is_head = intake.is_head();
    (Ok((intake.finish(peer()), taken)), is_head)
}

fn whole(bytes: impl AsRef<[u8]>) -> Request {
    let bytes = bytes.as_ref();
    let (request, taken) = read(&[bytes]).0.unwrap();
    assert_eq!(taken, bytes.len());
    request.unwrap()
}

/// A request with a Host and these fields.
fn with(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

fn refusal(bytes: impl AsRef<[u8]>) -> Refused {
    read(&[bytes.as_ref()]).0.unwrap_err()
}

#[test]
fn a_request_is_taken_apart() {
    let request = whole(with("GET /a%20b?c=d&e", "X-One: 1\r\nx-two:2 \r\nX-Two: 3\r\n"));
    assert_eq!((request.method(), request.path(), request.body()), (Method::Get, "/a b", &b""[..]));
    assert_eq!((request.param("c"), request.param("e"), request.param("f")), (Some("d"), Some(""), None));
    assert_eq!(
        (request.header("x-one"), request.header("X-Two"), request.header("y")),
        (Some("1"), None, None)
    );
    assert_eq!(request.headers().get_all("x-two").iter().collect::<Vec<_>>(), ["2", "3"]);
    assert!(request.head.keeps);
    assert_eq!(request.peer(), &*peer());
}

#[test]
fn a_body_is_as_long_as_it_says() {
    let bytes = with("POST /", "Content-Length: 5\r\n") + "hello, and more";
    let (request, taken) = read(&[bytes.as_bytes()]).0.unwrap();
    assert_eq!(request.unwrap().body(), b"hello");
    assert_eq!(&bytes[taken..], ", and more");
    assert_eq!(whole(with("POST /", "")).body(), b"");
    assert_eq!(whole(with("POST /", "Content-Length: 0\r\n")).body(), b"");
    assert_eq!(whole(with("GET /", "Content-Length: 0\r\n")).body(), b"");
    let (request, _) = read(&[with("POST /", "Content-Length: 5\r\n").as_bytes(), b"hell"]).0.unwrap();
    assert_eq!(request, None);
}

#[test]
fn lengths_that_two_readers_may_read_differently_are_refused() {
    for bad in ["+5", "-5", "0x5", "5 5", "5,5", "5, 5", "", " ", "5;", "five", "1e1", "٥", "5.0", "5\t5"] {
        let fields = format!("Content-Length: {bad}\r\n");
        assert_eq!(refusal(with("POST /", &fields)), Refused::Length, "{bad:?}");
    }
    let twice = "Content-Length: 5\r\nContent-Length: 5\r\n";
    assert_eq!(refusal(with("POST /", twice)), Refused::Length);
    assert_eq!(refusal(with("POST /", "Content-Length: 5\r\ncontent-length: 6\r\n")), Refused::Length);
    assert_eq!(
        refusal(with("POST /", &format!("Content-Length: {}\r\n", BODY_BYTES + 1))),
        Refused::BodyTooLong
    );
    assert_eq!(
        refusal(with("POST /", &format!("Content-Length: {}\r\n", "9".repeat(99)))),
        Refused::BodyTooLong
    );
    assert_eq!(refusal(with("GET /", "Content-Length: 1\r\n")), Refused::BodyOfGet);
    assert_eq!(refusal(with("HEAD /", "Content-Length: 1\r\n")), Refused::BodyOfGet);
}

#[test]
fn encodings_are_refused_in_any_spelling() {
    for encoding in ["chunked", "CHUNKED", "cHuNkEd", "gzip, chunked", "identity", "", "\tchunked", "x"] {
        let fields = format!("Transfer-Encoding: {encoding}\r\n");
        assert_eq!(refusal(with("POST /", &fields)), Refused::Encoding, "{encoding:?}");
        for both in [format!("{fields}Content-Length: 5\r\n"), format!("Content-Length: 5\r\n{fields}")] {
            assert_eq!(refusal(with("POST /", &both)), Refused::LengthAndEncoding, "{encoding:?}");
        }
    }
    assert_eq!(refusal(with("POST /", "tRANSFER-eNCODING: chunked\r\n")), Refused::Encoding);
    assert_eq!(refusal(with("POST /", "Transfer-Encoding : chunked\r\n")), Refused::Malformed);
    assert_eq!(refusal(with("POST /", "Transfer-Encoding\t: chunked\r\n")), Refused::Malformed);
    assert_eq!(refusal(with("POST /", "Content-Length : 5\r\n")), Refused::Malformed);
    assert_eq!(refusal(with("POST /", "X: y\r\n Transfer-Encoding: chunked\r\n")), Refused::Malformed);
    assert_eq!(refusal(with("POST /", "X: y\rTransfer-Encoding: chunked\r\n")), Refused::Malformed);
    assert_eq!(refusal(with("POST /", "X: y\nTransfer-Encoding: chunked\r\n")), Refused::Malformed);
}

#[test]
fn request_lines_that_are_none_are_refused() {
    for bad in ["GET  / HTTP/1.1", "GET / HTTP/1.1 ", "GET", "G@T", "GET\t/ HTTP/1.1"] {
        assert_eq!(refusal(format!("{bad}\r\nHost: localhost\r\n\r\n")), Refused::Malformed, "{bad:?}");
    }
    for line in [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "GET / HTTP/1.2\r\n\r\n",
        "GET /  HTTP/1.1\r\n\r\n",
        "GET / http/1.1\r\n\r\n",
    ] {
        assert_eq!(refusal(line), Refused::Version, "{line}");
    }
    for method in ["OPTIONS", "PUT", "DELETE", "TRACE", "CONNECT", "PATCH", "get", "GETX"] {
        assert_eq!(refusal(with(&format!("{method} /"), "")), Refused::Method, "{method}");
    }
    assert_eq!(refusal(with("GET /%2e%2e/a", "")), Refused::Target);
    assert_eq!(refusal(with("GET http://localhost/", "")), Refused::Target);
}

#[test]
fn a_host_is_required_once() {
    assert_eq!(refusal("GET / HTTP/1.1\r\n\r\n"), Refused::Host);
    assert_eq!(refusal(with("GET /", "Host: localhost\r\n")), Refused::Host);
    assert_eq!(refusal("GET / HTTP/1.1\r\nHost:\r\n\r\n"), Refused::Host);
    assert_eq!(refusal("GET / HTTP/1.1\r\nHost: a@localhost\r\n\r\n"), Refused::Host);
    assert_eq!(refusal("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"), Refused::WrongHost);
    assert_eq!(refusal("GET / HTTP/1.0\r\nHost: evil.example\r\n\r\n"), Refused::WrongHost);
    assert_eq!(refusal("GET / HTTP/1.0\r\nHost: localhost\r\nHost: localhost\r\n\r\n"), Refused::Host);
    assert!(!whole("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").head.keeps);
    whole("GET / HTTP/1.1\r\nhost: Admin.Example:8443\r\n\r\n");
    whole("GET / HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n");
}

#[test]
fn a_connection_is_kept_unless_one_side_will_not() {
    assert!(whole(with("GET /", "Connection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n")).head.keeps);
    for close in ["close", "Close", "keep-alive, CLOSE", "x,close ,y"] {
        assert!(!whole(with("GET /", &format!("Connection: {close}\r\n"))).head.keeps, "{close}");
    }
    assert!(!whole(with("GET /", "Connection: x\r\nConnection: close\r\n")).head.keeps);
}

#[test]
fn a_client_that_asks_first_is_told() {
    let rules = rules();
    let mut intake = Intake::new(&rules);
    let head = with("POST /", "Content-Length: 2\r\nExpect: 100-Continue\r\n");
    assert_eq!(intake.take(head.as_bytes()), Ok(head.len()));
    assert_eq!(intake.wants(), Wants::Body { asks_first: true });
    assert_eq!(intake.take(b"a"), Ok(1));
    assert_eq!(intake.wants(), Wants::Body { asks_first: false });
    // Nothing to be asked for, or a body that will not be read.
    whole(with("POST /", "Expect: 100-continue\r\n"));
    let long = format!("Content-Length: {}\r\nExpect: 100-continue\r\n", BODY_BYTES + 1);
    assert_eq!(refusal(with("POST /", &long)), Refused::BodyTooLong);
    assert_eq!(refusal(with("POST /", "Expect: 200-ok\r\n")), Refused::Expectation);
    assert_eq!(refusal(with("POST /", "Expect: 100-continue\r\nExpect: x\r\n")), Refused::Expectation);
    whole("GET / HTTP/1.0\r\nExpect: x\r\n\r\n");
}

#[test]
fn other_origins_may_read_what_their_browser_shows_and_send_nothing() {
    for fields in ["Origin: https://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        assert_eq!(refusal(with("POST /", fields)), Refused::Origin, "{fields}");
        whole(with("GET /", fields));
    }
    whole(with("POST /", "Origin: http://localhost\r\nSec-Fetch-Site: same-origin\r\n"));
    assert_eq!(refusal("POST / HTTP/1.0\r\nOrigin: http://localhost\r\n\r\n"), Refused::Origin);
}

#[test]
fn heads_have_bounds() {
    let fields = |count: usize| "A: b\r\n".repeat(count);
    whole(with("GET /", &fields(MAX_HEADERS - 1)));
    assert_eq!(refusal(with("GET /", &fields(MAX_HEADERS))), Refused::HeadTooLarge);
    assert_eq!(
        refusal(with("GET /", &format!("A: {}\r\n", "a".repeat(MAX_HEAD_BYTES)))),
        Refused::HeadTooLarge
    );
    assert_eq!(refusal(format!("GET /{}", "a".repeat(MAX_HEAD_BYTES))), Refused::TargetTooLong);
}

/// Bytes that are nearly requests.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        4 => Just("POST /a?b=c HTTP/1.1\r\n"),
        1 => Just("GET /%2e%2e/ HTTP/1.1\r\n"),
        1 => Just("HEAD / HTTP/1.0\r\n"),
        1 => Just("PRI * HTTP/2.0\r\n"),
        1 => Just("GET /\r\n"),
    ];
    let field = prop_oneof![
        4 => Just("Host: localhost\r\n".to_owned()),
        4 => (0usize..12).prop_map(|length| format!("Content-Length: {length}\r\n")),
        1 => Just("Content-Length: +5\r\n".to_owned()),
        1 => Just("Transfer-Encoding: chunked\r\n".to_owned()),
        1 => Just("Expect: 100-continue\r\n".to_owned()),
        1 => Just("Origin: http://localhost\r\n".to_owned()),
        1 => Just(" folded\r\n".to_owned()),
        1 => Just("X: y\n".to_owned()),
        1 => "[A-Za-z-]{1,8}:[ -~\t]{0,12}\r\n",
    ];
    let fields = proptest::collection::vec(field, 0..4).prop_map(|fields| fields.concat());
    let rest = proptest::collection::vec(any::<u8>(), 0..40);
    let made = (line, any::<bool>(), fields, rest).prop_map(|(line, ends, fields, rest)| {
        let host = "Host: localhost\r\n";
        let head = [line, host, &fields, if ends { "\r\n" } else { "" }].concat();
        [head.into_bytes(), rest].concat()
    });
    prop_oneof![6 => made, 1 => proptest::collection::vec(any::<u8>(), 0..200)]
}

proptest! {
    #[test]
    fn however_bytes_are_split_the_result_is_the_same(
        bytes in bytes(), cuts in proptest::collection::vec(1usize..30, 0..30)
    ) {
        let mut pieces: Vec<&[u8]> = Vec::new();
        let mut rest = &bytes[..];
        for cut in cuts {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece);
            rest = tail;
        }
        pieces.push(rest);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let expected = read(&[&bytes]);
        prop_assert_eq!(&read(&pieces), &expected);
        prop_assert_eq!(&read(&single), &expected);
    }

    #[test]
    fn what_passes_is_in_order(bytes in bytes()) {
        if let Ok((Some(request), taken)) = read(&[&bytes]).0 {
            prop_assert!(taken <= bytes.len());
            prop_assert!(request.path().starts_with('/') && !request.path().split('/').any(|part| part == ".."));
            prop_assert!(!request.headers().contains_key("transfer-encoding"));
            let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
            prop_assert_eq!(request.body().len(), length);
            prop_assert!(request.method() == Method::Post || length == 0);
            prop_assert!(bytes[..taken].ends_with(request.body()));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&[&bytes]);
        let _ = read(&[b"GET / HTTP/1.1\r\n", &bytes]);
        let _ = read(&[b"GET / HTTP/1.1\r\nHost: localhost\r\n", &bytes, b"\r\n\r\n"]);
    }
}
