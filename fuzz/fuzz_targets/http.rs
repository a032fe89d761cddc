//! The reader of administrators' requests: it never panics, however the bytes are split it sees the same, and what it
//! lets through has one meaning only.

#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use mas_fuzz::admin::http::host::Hosts;
use mas_fuzz::admin::http::intake::{Intake, Wants};
use mas_fuzz::admin::http::limits::{MAX_HEAD_BYTES, MAX_HEADERS, MAX_QUERY_PAIRS};
use mas_fuzz::admin::http::refused::Refused;
use mas_fuzz::admin::http::request::{Method, Peer, Request, Rules};
use mas_fuzz::admin::http::socket::Remote;

const BODY_BYTES: usize = 1000;

static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    hosts: Arc::new(Hosts::default()),
    local: IpAddr::V4(Ipv4Addr::LOCALHOST),
    body_bytes: BODY_BYTES,
});
static PEER: LazyLock<Arc<Peer>> =
    LazyLock::new(|| Arc::new(Peer { remote: Remote::Addr(SocketAddr::from(([192, 0, 2, 1], 1))), certificate: None }));

/// The request, if it is whole, and how many bytes were taken; or why it was refused.
fn read(bytes: &[u8], mut piece: impl FnMut() -> usize) -> Result<(Option<Request>, usize), Refused> {
    let mut intake = Intake::new(&RULES);
    let mut taken = 0;
    while taken < bytes.len() && intake.wants() != Wants::Nothing {
        let end = bytes.len().min(taken + piece().max(1));
        let count = intake.take(&bytes[taken..end])?;
        assert!(count == end - taken || intake.wants() == Wants::Nothing);
        taken += count;
    }
    let is_whole = intake.wants() == Wants::Nothing;
    let request = intake.finish(PEER.clone());
    assert_eq!(request.is_some(), is_whole);
    Ok((request, taken))
}

/// What has to hold for everything that is let through.
fn check(request: &Request, bytes: &[u8]) {
    let path = request.path();
    assert!(path.starts_with('/') && !path.contains("//"), "{path:?}");
    assert!(!path.contains(|c: char| c.is_control() || matches!(c, '\\' | '%')), "{path:?}");
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{path:?}");
    assert!(request.query().len() <= MAX_QUERY_PAIRS);
    let odd = |text: &str| text.contains(char::is_control);
    assert!(!request.query().iter().any(|(name, value)| odd(name) || odd(value)));
    assert!(request.headers().len() <= MAX_HEADERS && !request.headers().contains_key("transfer-encoding"));
    // The body is where the only length says, and the head before it has no line end but CR LF.
    let length = request.headers().get_all("content-length").iter().map(|length| length.to_str().unwrap());
    let lengths: Vec<usize> = length.map(|length| length.parse().unwrap()).collect();
    assert!(lengths.len() <= 1 && lengths.first().copied().unwrap_or(0) == request.body().len());
    assert!(request.body().len() <= BODY_BYTES && (request.method() == Method::Post || request.body().is_empty()));
    let head = bytes.strip_suffix(request.body()).expect("the body is the end of the request");
    assert!(head.len() <= MAX_HEAD_BYTES && head.ends_with(b"\r\n\r\n"));
    for (index, byte) in head.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(head.get(index + 1), Some(&b'\n')),
            b'\n' => assert!(index > 0 && head[index - 1] == b'\r'),
            byte => assert!(*byte == b'\t' || !byte.is_ascii_control()),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((seed, tail)) = data.split_first_chunk::<4>() else { return };
    // Most of it behind a good beginning: the fuzzer would rarely find that.
    let bytes = match seed[0] % 4 {
        0 => tail.to_vec(),
        1 => [b"GET /", tail].concat(),
        2 => [b"GET / HTTP/1.1\r\nHost: localhost\r\n", tail].concat(),
        _ => [b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n", tail].concat(),
    };
    let whole = read(&bytes, || bytes.len());
    if let Ok((Some(request), taken)) = &whole {
        check(request, &bytes[..*taken]);
    }
    let mut state = u32::from_le_bytes(*seed) | 1;
    let pieces = read(&bytes, || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as usize % 40
    });
    assert_eq!(whole, pieces);
});
