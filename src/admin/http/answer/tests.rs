use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::super::host::Hosts;
use super::super::intake::Intake;
use super::super::request::{Peer, Rules};
use super::super::socket::Remote;
use super::*;
use http::header::{CONTENT_SECURITY_POLICY, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS};

fn request(line: &str, fields: &str) -> Request {
    let rules =
        Rules { hosts: Arc::new(Hosts::default()), local: IpAddr::V4(Ipv4Addr::LOCALHOST), body_bytes: 0 };
    let peer = Peer { remote: Remote::Addr(SocketAddr::from(([127, 0, 0, 1], 1))), certificate: None };
    let mut intake = Intake::new(&rules);
    let bytes = format!("{line} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    let _ = intake.take(bytes.as_bytes()).unwrap();
    intake.finish(Arc::new(peer)).unwrap()
}

fn lines(content: &Content, keeps: bool) -> Vec<String> {
    let head = String::from_utf8(content.head(keeps)).unwrap();
    head.strip_suffix("\r\n\r\n").unwrap().split("\r\n").map(str::to_owned).collect()
}

fn page() -> Content {
    Content::text(StatusCode::OK, "hello").with_etag(ETag::new("v1").unwrap())
}

#[test]
fn an_answer_says_what_it_is_and_how_to_treat_it() {
    let expected = [
        "HTTP/1.1 200 OK",
        "content-type: text/plain; charset=utf-8",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "content-security-policy: default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "cross-origin-opener-policy: same-origin",
        "cross-origin-resource-policy: same-origin",
        "content-length: 5",
    ];
    let content = Content::text(StatusCode::OK, "hello");
    assert_eq!(lines(&content, true), expected);
    assert_eq!(lines(&content, false), [&expected[..], &["connection: close"]].concat());
}

#[test]
fn a_service_cannot_change_framing_or_protection() {
    let value = HeaderValue::from_static;
    let content = Content::text(StatusCode::OK, "hello")
        .with(CONTENT_LENGTH, value("7"))
        .with(TRANSFER_ENCODING, value("chunked"))
        .with(CONNECTION, value("upgrade"))
        .with(CONTENT_SECURITY_POLICY, value("default-src *"))
        .with(X_CONTENT_TYPE_OPTIONS, value("sniff"))
        .with(CACHE_CONTROL, value("no-cache"))
        .with(HeaderName::from_static("x-mine"), value("1"))
        .with(HeaderName::from_static("x-mine"), value("2"));
    let lines = lines(&content, true);
    for absent in ["7", "chunked", "upgrade", "default-src *", ": sniff", "no-store"] {
        assert!(!lines.iter().any(|line| line.contains(absent)), "{absent}: {lines:?}");
    }
    for present in ["content-length: 5", "cache-control: no-cache", "x-mine: 1", "x-mine: 2"] {
        assert_eq!(lines.iter().filter(|line| *line == present).count(), 1, "{present}");
    }
    assert!(HeaderValue::from_str("a\r\nSet-Cookie: b").is_err(), "a value cannot split the answer");
}

#[test]
fn a_status_that_would_break_framing_is_not_given() {
    assert_eq!(
        Content::text(StatusCode::SWITCHING_PROTOCOLS, "").status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
    let empty = Content::text(StatusCode::NO_CONTENT, "not sent");
    assert!(!empty.has_body());
    assert!(!lines(&empty, true).iter().any(|line| line.starts_with("content-length")));
}

#[test]
fn a_client_that_has_it_is_not_sent_it_again() {
    for tags in ["\"v1\"", "W/\"v1\"", "*", "\"v0\", \"v1\"", "\"v0\",W/\"v1\" ,\"a,b\""] {
        let fields = format!("If-None-Match: {tags}\r\n");
        for line in ["GET /", "HEAD /"] {
            let content = page().unless_known(&request(line, &fields));
            assert_eq!((content.status(), content.body()), (StatusCode::NOT_MODIFIED, &b""[..]), "{tags}");
            let lines = lines(&content, true);
            assert!(lines.contains(&"etag: \"v1\"".to_owned()), "{lines:?}");
            assert!(!lines.iter().any(|line| line.starts_with("content-length")), "{lines:?}");
        }
        assert_eq!(page().unless_known(&request("POST /", &fields)).status(), StatusCode::OK);
    }
    let twice = "If-None-Match: \"v0\"\r\nIf-None-Match: \"v1\"\r\n";
    assert_eq!(page().unless_known(&request("GET /", twice)).status(), StatusCode::NOT_MODIFIED);
}

#[test]
fn a_client_that_has_another_one_is_sent_it() {
    for tags in ["\"v2\"", "v1", "\"v1", "", "\"v1\"x", "w/\"v1\""] {
        let request = request("GET /", &format!("If-None-Match: {tags}\r\n"));
        assert_eq!(page().unless_known(&request).status(), StatusCode::OK, "{tags}");
    }
    let any = request("GET /", "If-None-Match: *\r\n");
    assert_eq!(
        Content::text(StatusCode::OK, "").unless_known(&any).status(),
        StatusCode::OK,
        "it has no tag"
    );
    let missing = Content::text(StatusCode::NOT_FOUND, "").with_etag(ETag::new("v1").unwrap());
    assert_eq!(missing.unless_known(&any).status(), StatusCode::NOT_FOUND);
}

#[test]
fn a_tag_is_plain() {
    assert_eq!(ETag::new("a-B_0.9").unwrap().0, "\"a-B_0.9\"");
    for bad in ["", "\"", "a b", "a,b", "é", "a\r\n", "*", "W/a"] {
        assert_eq!(ETag::new(bad), None, "{bad:?}");
    }
}

#[test]
fn refusals_say_what_to_do_instead() {
    assert!(lines(&Refused::Method.into(), false).contains(&"allow: GET, HEAD, POST".to_owned()));
    assert!(lines(&Refused::Full.into(), false).contains(&"retry-after: 1".to_owned()));
    assert_eq!(Content::from(Refused::Slow).body(), b"the request took too long\n");
}
