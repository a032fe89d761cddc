//! A client that speaks TLS and then whatever bytes it likes.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::support::{PATIENCE, Server, World};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_HEADERS: u8 = 4;
pub const END_STREAM: u8 = 1;
/// CANCEL.
pub const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// What is kept of a server's words.
const MAX_WORDS: usize = 64 * 1024;

/// What a client needs for its handshakes.
#[derive(Clone)]
pub struct Passport(Arc<ClientConfig>);

impl Passport {
    pub fn of(world: &World, agent: &str) -> Self {
        let (cert, key) = world.certificate(agent);
        Self::with(world, &cert, &key)
    }

    pub fn with(world: &World, cert: &[u8], key: &[u8]) -> Self {
        let mut roots = RootCertStore::empty();
        let ca = std::fs::read(mas::certs::ca_file(&world.certs())).unwrap();
        roots.add(CertificateDer::from_pem_slice(&ca).unwrap()).unwrap();
        let chain = CertificateDer::pem_slice_iter(cert).map(Result::unwrap).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key).unwrap())
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self(Arc::new(config))
    }
}

/// The other side is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone;

pub struct Raw {
    tcp: TcpStream,
    tls: ClientConnection,
    /// Bytes that the server said.
    pub heard: usize,
    /// The first of them.
    words: Vec<u8>,
}

impl Raw {
    /// Connects, and says nothing yet.
    fn dial(server: &Server, passport: &Passport) -> Result<Self, Gone> {
        let tcp = TcpStream::connect(&server.addr).map_err(|_| Gone)?;
        tcp.set_nonblocking(true).unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let tls = ClientConnection::new(passport.0.clone(), name).unwrap();
        Ok(Self { tcp, tls, heard: 0, words: Vec::new() })
    }

    /// Shakes hands; does not wait for the server's word on the client's certificate.
    pub fn connect(server: &Server, passport: &Passport) -> Result<Self, Gone> {
        let mut raw = Self::dial(server, passport)?;
        let give_up = Instant::now() + PATIENCE;
        while raw.tls.is_handshaking() {
            assert!(Instant::now() < give_up, "a handshake that does not end");
            raw.turn()?;
        }
        raw.flush()?;
        Ok(raw)
    }

    /// Shakes hands, and sends with its last words of the handshake that it closes, and bytes behind that.
    pub fn close_at_once(server: &Server, passport: &Passport) -> Result<Self, Gone> {
        let mut raw = Self::dial(server, passport)?;
        raw.flush()?;
        let give_up = Instant::now() + PATIENCE;
        while raw.tls.is_handshaking() {
            assert!(Instant::now() < give_up, "a handshake that does not end");
            raw.hear()?;
            std::thread::park_timeout(Duration::from_micros(200));
        }
        raw.tls.send_close_notify();
        let mut last = Vec::new();
        while raw.tls.wants_write() {
            raw.tls.write_tls(&mut last).unwrap();
        }
        last.extend([0x17; 6000]);
        raw.tcp.write_all(&last).map_err(|_| Gone)?;
        Ok(raw)
    }

    /// The same with preface and settings.
    pub fn greeted(server: &Server, passport: &Passport) -> Result<Self, Gone> {
        let mut raw = Self::connect(server, passport)?;
        raw.say(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())?;
        Ok(raw)
    }

    /// Sends, and hears what there is meanwhile.
    pub fn say(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        for part in bytes.chunks(32 * 1024) {
            self.tls.writer().write_all(part).map_err(|_| Gone)?;
            self.flush()?;
        }
        self.hear()
    }

    /// Sends what waits to be sent.
    fn flush(&mut self) -> Result<(), Gone> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.hear()?;
                    std::thread::park_timeout(Duration::from_millis(1));
                }
                Err(_) => return Err(Gone),
            }
        }
        Ok(())
    }

    /// Hears what there is.
    pub fn hear(&mut self) -> Result<(), Gone> {
        loop {
            match self.tls.read_tls(&mut self.tcp) {
                Ok(0) => return Err(Gone),
                Ok(_) => {
                    self.tls.process_new_packets().map_err(|_| Gone)?;
                    let mut buffer = [0; 16 * 1024];
                    while let Ok(n) = self.tls.reader().read(&mut buffer) {
                        if n == 0 {
                            return Err(Gone);
                        }
                        self.heard += n;
                        let room = MAX_WORDS.saturating_sub(self.words.len());
                        self.words.extend(&buffer[..n.min(room)]);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Gone),
            }
        }
    }

    fn turn(&mut self) -> Result<(), Gone> {
        self.flush()?;
        self.hear()?;
        std::thread::park_timeout(Duration::from_micros(200));
        Ok(())
    }

    /// Whether the server has answered on that stream with a message and a status, as far as it was heard.
    pub fn is_answered(&mut self, stream: u32) -> bool {
        let _ = self.hear();
        let (mut rest, mut data) = (self.words.as_slice(), false);
        while let [a, b, c, kind, flags, s0, s1, s2, s3, behind @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let of = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
            data |= *kind == DATA && of == stream;
            if *kind == HEADERS && flags & END_STREAM != 0 && of == stream {
                return data;
            }
            rest = behind.get(length..).unwrap_or_default();
        }
        false
    }

    /// Whether the server ends the connection within that time.
    pub fn ends_within(&mut self, span: Duration) -> bool {
        let give_up = Instant::now() + span;
        while Instant::now() < give_up {
            if self.hear().is_err() {
                return true;
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        false
    }
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The header fields of a call, without any table.
pub fn call_fields(path: &str) -> Vec<u8> {
    let mut bytes = vec![0x83, 0x87];
    for (name, value) in [
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ] {
        bytes.extend([0, name.len() as u8]);
        bytes.extend(name.as_bytes());
        bytes.push(value.len() as u8);
        bytes.extend(value.as_bytes());
    }
    bytes
}

/// A stream that opens a call and says no more.
pub fn opened(stream: u32, method: &str) -> Vec<u8> {
    let path = format!("/mas.runtime.v1.RuntimeService/{method}");
    frame(HEADERS, END_HEADERS, stream, &call_fields(&path))
}
