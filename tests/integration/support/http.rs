//! A plain HTTP client, and one with a certificate.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::PATIENCE;

/// What a server answered.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub head: String,
    pub body: String,
}

fn ask(mut stream: impl Read + Write, addr: &str, path: &str, further: &str) -> Result<Answered, String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n{further}\r\n");
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        // A peer that closes without a word of TLS has said everything.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof || bytes.is_empty() => {
            return Err(error.to_string());
        }
        _ => {}
    }
    let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no head: {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("no status: {head:?}"))?;
    Ok(Answered { status, head: head.to_owned(), body: body.to_owned() })
}

fn connect(addr: &str) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(addr).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Ok(stream)
}

/// Asks a plain server; the error says why there was no answer.
pub fn get(addr: &str, path: &str) -> Result<Answered, String> {
    ask(connect(addr)?, addr, path, "")
}

/// Asks a server with TLS, with the certificate and key in these files.
pub fn get_as(
    addr: &str,
    path: &str,
    ca: &Path,
    identity: Option<(&Path, &Path)>,
) -> Result<Answered, String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match identity {
        Some((cert, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_file(cert).unwrap()],
                PrivateKeyDer::from_pem_file(key).unwrap(),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    ask(StreamOwned::new(connection, connect(addr)?), addr, path, "")
}
