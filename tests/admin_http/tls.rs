//! TLS, and who is at the other end of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use mas::admin::http::{Limits, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};

use super::support::{Client, Running, connect, count, get, wait};

type Secure = Client<StreamOwned<ClientConnection, TcpStream>>;

/// A CA with a certificate for the server and one for a client.
pub(crate) struct Authority {
    roots: Arc<RootCertStore>,
    server: Leaf,
    pub client: Leaf,
}

pub(crate) struct Leaf {
    pub certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl Leaf {
    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let leaf = |usage| {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &issuer).unwrap();
            Leaf {
                certificate: certificate.der().clone(),
                key: PrivatePkcs8KeyDer::from(key.serialize_der()),
            }
        };
        let mut roots = RootCertStore::empty();
        roots.add(issuer.der().clone()).unwrap();
        Self {
            roots: Arc::new(roots),
            server: leaf(ExtendedKeyUsagePurpose::ServerAuth),
            client: leaf(ExtendedKeyUsagePurpose::ClientAuth),
        }
    }

    /// What a server needs that asks for certificates of this authority.
    pub(crate) fn server_config(&self) -> ServerConfig {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider.clone())
            .build()
            .unwrap();
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.server.certificate.clone()], self.server.key())
            .unwrap()
    }

    pub(crate) fn tls(&self) -> Arc<Tls> {
        Arc::new(Tls::new(self.server_config()))
    }

    /// A client that trusts this authority and shows `leaf`.
    fn client_of(&self, leaf: Option<&Leaf>, alpn: &str) -> ClientConnection {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match leaf {
            Some(leaf) => builder.with_client_auth_cert(vec![leaf.certificate.clone()], leaf.key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
    }

    pub(crate) fn client(&self, alpn: &str, shows: bool) -> ClientConnection {
        self.client_of(shows.then_some(&self.client), alpn)
    }

    /// Connects and shakes hands.
    pub(crate) fn connect(&self, running: &Running, alpn: &str) -> Secure {
        let mut client = Client::new(StreamOwned::new(self.client(alpn, true), connect(running.addr)));
        while client.stream.conn.is_handshaking() {
            let _ = client.stream.conn.complete_io(&mut client.stream.sock).unwrap();
        }
        client
    }
}

/// What a client is answered, or the error that it meets.
fn ask(client: ClientConnection, running: &Running) -> std::io::Result<Vec<u8>> {
    let mut stream = StreamOwned::new(client, connect(running.addr));
    stream.write_all(b"GET /who HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer)?;
    Ok(answer)
}

#[test]
fn a_client_is_known_by_its_certificate() {
    let authority = Authority::new();
    let running = Running::tls(Limits::default(), authority.tls());
    let mut client = authority.connect(&running, "http/1.1");
    for _ in 0..2 {
        client.send(get("/who"));
        let local = client.stream.sock.local_addr().unwrap();
        let expected = format!("{local} {}", authority.client.certificate.len());
        assert_eq!(String::from_utf8(client.reply().body).unwrap(), expected);
    }
    assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    // Without TLS there is none.
    let plain = Running::plain(Limits::default());
    let mut client = plain.connect();
    client.send(get("/who"));
    assert!(client.reply().body.ends_with(b" 0"));
}

#[test]
fn the_end_of_an_answer_is_told_by_tls_too() {
    let authority = Authority::new();
    let running = Running::tls(Limits::default(), authority.tls());
    // `read_to_end` would fail if the connection were cut.
    let answer = ask(authority.client("http/1.1", true), &running).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_client_without_a_good_certificate_reaches_nothing() {
    let authority = Authority::new();
    let other = Authority::new();
    let running = Running::tls(Limits::default(), authority.tls());
    assert!(ask(authority.client("http/1.1", false), &running).is_err(), "it shows none");
    assert!(ask(authority.client_of(Some(&other.client), "http/1.1"), &running).is_err(), "another CA's");
    assert!(ask(authority.client_of(Some(&authority.server), "http/1.1"), &running).is_err(), "a server's");
    assert!(ask(authority.client("h2", true), &running).is_err(), "it speaks HTTP/2 alone");
    wait("all were counted", || count(&running.counters.refused_handshake) == 4);
    assert_eq!(running.responder.asked(), [""; 0]);
    assert!(ask(authority.client("http/1.1", true), &running).is_ok());
}

#[test]
fn plain_http_on_the_port_of_tls_reaches_nothing() {
    let authority = Authority::new();
    let running = Running::tls(Limits::default(), authority.tls());
    for request in [get("/"), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "\0".repeat(1000)] {
        let mut client = running.connect();
        client.send(request);
        let mut answer = Vec::new();
        let _ = client.stream.read_to_end(&mut answer);
        assert!(!answer.starts_with(b"HTTP"), "{}", answer.escape_ascii());
    }
    wait("all were counted", || count(&running.counters.refused_handshake) == 3);
    assert_eq!(running.responder.asked(), [""; 0]);
}

#[test]
fn tls_on_the_port_of_plain_http_is_refused_at_once() {
    let authority = Authority::new();
    let running = Running::plain(Limits::default());
    assert!(ask(authority.client("http/1.1", true), &running).is_err());
    wait("it was answered", || count(&running.counters.answered_4xx) == 1);
    assert_eq!(running.responder.asked(), [""; 0]);
}

#[test]
fn a_new_configuration_holds_from_the_next_handshake_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let tls = old.tls();
    let running = Running::tls(Limits::default(), tls.clone());
    let mut kept = old.connect(&running, "http/1.1");
    tls.replace(new.server_config());
    assert!(ask(new.client("http/1.1", true), &running).is_ok());
    assert!(ask(old.client("http/1.1", true), &running).is_err(), "the old authority is trusted no more");
    kept.send(get("/"));
    assert_eq!(kept.reply().status, 200, "connections that are open stay");
}

#[test]
fn no_connection_rests_on_what_an_earlier_one_has_shown() {
    let authority = Authority::new();
    let running = Running::tls(Limits::default(), authority.tls());
    let first = authority.client("http/1.1", true);
    // The same configuration remembers sessions, if it is offered any.
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authority.roots.clone())
        .with_client_auth_cert(vec![authority.client.certificate.clone()], authority.client.key())
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    drop(first);
    for _ in 0..2 {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(config.clone(), name).unwrap();
        let mut client = Client::new(StreamOwned::new(connection, connect(running.addr)));
        client.send(get("/"));
        assert_eq!(client.reply().status, 200);
        assert_eq!(client.stream.conn.handshake_kind(), Some(rustls::HandshakeKind::Full));
    }
}
