//! A handshake that is refused says who knocked from where, and why.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use mas::certs::{CustomLeaf, Fingerprint, San, ca_file};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::Value;

use crate::support::{PATIENCE, Server, World, until};

/// How long a line is waited for before somebody knocks once more: five a second are logged.
const LINE: Duration = Duration::from_millis(500);

/// What a client has for its handshake.
struct Visitor {
    ca: Vec<u8>,
    /// Certificate and key, PEM.
    pair: Option<(Vec<u8>, Vec<u8>)>,
    alpn: &'static [u8],
}

impl Visitor {
    fn with(world: &World, pair: Option<(Vec<u8>, Vec<u8>)>) -> Self {
        Self { ca: std::fs::read(ca_file(&world.certs())).unwrap(), pair, alpn: b"h2" }
    }

    fn custom(world: &World, leaf: CustomLeaf) -> Self {
        let (cert, key) = world.authority.issue_custom(leaf).unwrap();
        Self::with(world, Some((cert.into(), key.into())))
    }

    fn config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&self.ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match &self.pair {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = CertificateDer::pem_slice_iter(cert).map(Result::unwrap).collect();
                let key = PrivateKeyDer::from_pem_slice(key).unwrap();
                // Not compared with the certificate: one visitor shows another one's.
                let key = provider.key_provider.load_private_key(key).unwrap();
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(CertifiedKey::new(
                    chain, key,
                ))))
            }
        };
        config.alpn_protocols = vec![self.alpn.to_vec()];
        config
    }

    /// Shakes hands as far as it goes, and says from where.
    fn knock(&self, server: &Server) -> SocketAddr {
        let tcp = TcpStream::connect(&server.addr).unwrap();
        tcp.set_read_timeout(Some(LINE)).unwrap();
        let from = tcp.local_addr().unwrap();
        let tls = ClientConnection::new(Arc::new(self.config()), ServerName::try_from("localhost").unwrap())
            .unwrap();
        // However it ends: the server's log is what counts.
        let _ = StreamOwned::new(tls, tcp).read(&mut [0; 1]);
        from
    }

    fn fingerprint(&self) -> String {
        let der = CertificateDer::from_pem_slice(&self.pair.as_ref().unwrap().0).unwrap();
        Fingerprint::of(&der).as_str().to_owned()
    }
}

/// The line about whoever came from there.
fn line_about(world: &World, from: SocketAddr) -> Option<Value> {
    let logged = world.logged();
    let lines = logged.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.into_iter().find(|line| line["peer"] == from.to_string())
}

/// Knocks until it is logged: some lines are left out.
#[track_caller]
fn told(world: &World, mut knock: impl FnMut() -> SocketAddr) -> Value {
    let mut found = None;
    until("it is said who knocked", || {
        let from = knock();
        let given_up = std::time::Instant::now() + LINE;
        while found.is_none() && std::time::Instant::now() < given_up {
            found = line_about(world, from);
            std::thread::park_timeout(Duration::from_millis(5));
        }
        found.is_some()
    });
    found.unwrap()
}

fn server(world: &World) -> Server {
    let mut command = Command::new(World::SERVER);
    command.args(["--log-format", "json"]);
    world.server_by(command, "127.0.0.1:0", &world.config_path())
}

fn alpha() -> Vec<San> {
    vec![San::Uri("spiffe://mas/agent/alpha".to_owned())]
}

#[track_caller]
fn assert_says(line: &Value, code: &str, reason: &str, words: &str) {
    assert_eq!((&line["code"], &line["reason"]), (&code.into(), &reason.into()), "{line}");
    assert_eq!(line["level"], "WARN");
    let message = line["message"].as_str().unwrap();
    assert!(message.contains(words) && message.contains(line["peer"].as_str().unwrap()), "{line}");
}

#[test]
fn a_certificate_that_is_not_good_is_named() {
    let world = World::new();
    let other = World::new();
    let server = server(&world);
    let now = time::OffsetDateTime::now_utc();
    let hours = |n: i64| now + time::Duration::hours(n);
    let between = |from: i64, to: i64| {
        let leaf =
            CustomLeaf { not_before: hours(from), not_after: hours(to), ..CustomLeaf::client(alpha()) };
        Visitor::custom(&world, leaf)
    };
    let thief = {
        let ((cert, _), (_, key)) = (world.certificate("alpha"), world.certificate("beta"));
        Visitor::with(&world, Some((cert, key)))
    };
    let cases = [
        (between(-48, -24), "certificate_expired", "its certificate is expired"),
        (between(24, 48), "certificate_not_yet_valid", "its certificate is not yet valid"),
        (
            Visitor::with(&world, Some(other.certificate("alpha"))),
            "unknown_ca",
            "its certificate is not signed by a CA of tls_ca_path",
        ),
        (
            Visitor::custom(&world, CustomLeaf::server(alpha())),
            "certificate_not_for_clients",
            "its certificate is not one for clients",
        ),
        (thief, "key_not_held", "it does not hold the key of the certificate that it shows"),
    ];
    for (visitor, reason, words) in cases {
        let line = told(&world, || visitor.knock(&server));
        assert_says(&line, "handshake_refused", reason, words);
        // What the certificate says, and no more than that.
        assert_eq!(line["claimed_agent"], "alpha", "{line}");
        assert_eq!(line["agent"], Value::Null, "{line}");
        assert_eq!(line["fingerprint"], visitor.fingerprint(), "{line}");
        assert!(line["serial"].as_str().is_some_and(|serial| !serial.is_empty()), "{line}");
        assert!(
            line["message"].as_str().unwrap().contains("the certificate shown is agent \"alpha\""),
            "{line}"
        );
    }
    drop(world.client(&server, "alpha").session("a"));
}

#[test]
fn whoever_shows_nothing_or_speaks_otherwise_is_told_apart() {
    let world = World::new();
    let other = World::new();
    let server = server(&world);
    let pair = || Some(world.certificate("alpha"));
    let cases = [
        (Visitor::with(&world, None), "no_certificate", "it shows no certificate"),
        (
            Visitor { ca: std::fs::read(ca_file(&other.certs())).unwrap(), ..Visitor::with(&world, pair()) },
            "server_not_trusted",
            "it does not take this server's certificate",
        ),
        (
            Visitor { alpn: b"http/1.1", ..Visitor::with(&world, pair()) },
            "no_http2",
            "it does not offer HTTP/2",
        ),
    ];
    for (visitor, reason, words) in cases {
        let line = told(&world, || visitor.knock(&server));
        assert_says(&line, "handshake_refused", reason, words);
        assert_eq!((&line["claimed_agent"], &line["serial"]), (&Value::Null, &Value::Null), "{line}");
    }
    let line = told(&world, || {
        let mut tcp = TcpStream::connect(&server.addr).unwrap();
        tcp.set_read_timeout(Some(LINE)).unwrap();
        tcp.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        // The server may have closed it by then.
        let _ = tcp.read(&mut [0; 64]);
        tcp.local_addr().unwrap()
    });
    assert_says(&line, "handshake_refused", "not_tls", "it does not speak TLS");
    // Says nothing, until the server loses patience.
    let tcp = TcpStream::connect(&server.addr).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!((&tcp).read(&mut [0; 1]).unwrap(), 0);
    let from = tcp.local_addr().unwrap();
    until("it is said who was silent", || line_about(&world, from).is_some());
    assert_says(&line_about(&world, from).unwrap(), "handshake_refused", "timeout", "it took too long");
}

#[test]
fn the_admin_listener_says_who_knocked_too() {
    let mut world = World::new();
    world.set_admin("0.0.0.0:0");
    world.set_settings("operators: [{name: ops, role: operator}]\n");
    let server = server(&world);
    let port = server.admin.as_ref().unwrap().rsplit_once(':').unwrap().1.parse::<u16>().unwrap();
    let line = told(&world, || {
        let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
        tcp.set_read_timeout(Some(LINE)).unwrap();
        tcp.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        // The server may have closed it by then.
        let _ = tcp.read(&mut [0; 64]);
        tcp.local_addr().unwrap()
    });
    assert_eq!((&line["code"], &line["listener"]), (&"handshake_refused".into(), &"admin".into()), "{line}");
}

#[test]
fn whoever_is_known_and_may_call_nothing_is_named_with_the_reason() {
    let world = World::with(World::PAIR, "tls_revoked_path: certs/revoked.json\n");
    let server = server(&world);
    let uri = |text: &str| vec![San::Uri(text.to_owned())];
    let cases = [
        (vec![], "missing_spiffe_san", "a certificate of nobody", "no subject alternative name"),
        (
            vec![San::Dns("alpha".to_owned())],
            "invalid_spiffe_san",
            "a certificate of nobody",
            "exactly one URI",
        ),
        (
            uri("spiffe://mas/operator/ops"),
            "invalid_spiffe_format",
            "a certificate of \"spiffe://mas/operator/ops\"",
            "its URI is not spiffe://mas/agent/ID",
        ),
        (
            uri("spiffe://mas/agent/stranger"),
            "agent_not_allowlisted",
            "a certificate of agent \"stranger\"",
            "the configuration has no such agent",
        ),
    ];
    for (sans, reason, whose, words) in cases {
        let visitor = Visitor::custom(&world, CustomLeaf::client(sans));
        let line = told(&world, || visitor.knock(&server));
        assert_says(&line, "caller_refused", reason, words);
        assert!(line["message"].as_str().unwrap().contains(whose), "{line}");
        assert_eq!(line["fingerprint"], visitor.fingerprint(), "{line}");
        let agent = (reason == "agent_not_allowlisted").then_some("stranger");
        assert_eq!(line["agent"].as_str(), agent, "{line}");
    }
    let visitor = Visitor::with(&world, Some(world.certificate("alpha")));
    let revoked = world.mas(&["certs", "revoke", "--dir", "certs", "--file", "certs/agents/alpha.pem"]);
    assert_eq!(revoked.status.code(), Some(0), "{revoked:?}");
    let line = told(&world, || visitor.knock(&server));
    assert_says(&line, "caller_refused", "certificate_revoked", "the deny-list names it or its agent");
    assert_eq!(
        (&line["agent"], &line["fingerprint"]),
        (&"alpha".into(), &visitor.fingerprint().into()),
        "{line}"
    );
}
