//! The certificates of an agent: read again at every connect, and looked at before anything is sent.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::error::AgentError;

/// Certificates of an agent: three PEM files, or what is in them.
#[derive(Clone)]
pub struct Credentials(Source);

#[derive(Clone)]
enum Source {
    Files { ca: PathBuf, cert: PathBuf, key: PathBuf },
    Given(Arc<Pem>),
}

/// What is in the files.
#[derive(Clone)]
pub struct Pem {
    /// The CA of the server's certificate.
    pub ca: Vec<u8>,
    /// The agent's certificate.
    pub cert: Vec<u8>,
    /// The agent's private key.
    pub key: Vec<u8>,
}

impl std::fmt::Debug for Pem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pem(..)")
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Source::Files { ca, cert, key } => write!(f, "Credentials({ca:?}, {cert:?}, {key:?})"),
            Source::Given(_) => f.write_str("Credentials(..)"),
        }
    }
}

impl Credentials {
    /// Of these files, which are read again at every connect: a certificate that was renewed is used by the next
    /// connection. Fails when one cannot be read now, or when they do not belong together.
    pub fn from_files(
        ca: impl AsRef<Path>,
        cert: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, AgentError> {
        let owned = |path: &Path| path.to_owned();
        let source =
            Source::Files { ca: owned(ca.as_ref()), cert: owned(cert.as_ref()), key: owned(key.as_ref()) };
        let credentials = Self(source);
        drop(credentials.load()?);
        Ok(credentials)
    }

    /// Of what is in the files. Fails when it does not belong together.
    pub fn from_pem(ca: Vec<u8>, cert: Vec<u8>, key: Vec<u8>) -> Result<Self, AgentError> {
        let credentials = Self(Source::Given(Arc::new(Pem { ca, cert, key })));
        drop(credentials.load()?);
        Ok(credentials)
    }

    /// Of the files that `MAS_TLS_CA`, `MAS_TLS_CERT` and `MAS_TLS_KEY` name, as `mas run` sets them.
    pub fn from_env() -> Result<Self, AgentError> {
        let [ca, cert, key] = variables(["MAS_TLS_CA", "MAS_TLS_CERT", "MAS_TLS_KEY"])?;
        Self::from_files(ca, cert, key)
    }

    /// What is in the files now. Names everything that is wrong with them.
    pub fn load(&self) -> Result<Pem, AgentError> {
        let (pem, names) = match &self.0 {
            Source::Given(pem) => {
                (Pem::clone(pem), ["the CA", "the certificate", "the key"].map(str::to_owned))
            }
            Source::Files { ca, cert, key } => {
                let names = [ca, cert, key].map(|path| path.display().to_string());
                let read = [ca, cert, key].map(std::fs::read);
                let failed: Vec<String> = read
                    .iter()
                    .zip(&names)
                    .filter_map(|(read, name)| Some(format!("{name}: {}", read.as_ref().err()?)))
                    .collect();
                match read {
                    [Ok(ca), Ok(cert), Ok(key)] => (Pem { ca, cert, key }, names),
                    _ => return Err(AgentError::Setup(failed.join("; "))),
                }
            }
        };
        check(&pem, &names)?;
        Ok(pem)
    }
}

/// These environment variables; all that are missing are named.
pub(crate) fn variables<const N: usize>(names: [&str; N]) -> Result<[String; N], AgentError> {
    let values = names.map(|name| std::env::var(name).unwrap_or_default());
    let missing: Vec<&str> =
        names.into_iter().zip(&values).filter(|(_, value)| value.is_empty()).map(|(name, _)| name).collect();
    match missing.as_slice() {
        [] => Ok(values),
        _ => Err(AgentError::Setup(format!(
            "{} {} not set: `mas run` sets what an agent needs; outside of it, set them or give the values to the builder",
            missing.join(", "),
            if missing.len() == 1 { "is" } else { "are" },
        ))),
    }
}

/// Each is what it is taken for, and the key is the certificate's.
fn check(pem: &Pem, [ca, cert, key]: &[String; 3]) -> Result<(), AgentError> {
    let mut wrong = Vec::new();
    let certificates = |bytes: &[u8]| -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(bytes).filter_map(Result::ok).collect()
    };
    let chain = certificates(&pem.cert);
    if certificates(&pem.ca).is_empty() {
        wrong.push(format!("{ca}: no PEM certificate"));
    }
    if chain.is_empty() {
        wrong.push(format!("{cert}: no PEM certificate"));
    }
    match PrivateKeyDer::from_pem_slice(&pem.key) {
        Err(_) => wrong.push(format!("{key}: no PEM private key")),
        Ok(private) if !chain.is_empty() => {
            let both = CertifiedKey::from_der(chain, private, &default_provider());
            // Of what else may be unusual about them gRPC has the last word.
            if let Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) = both {
                wrong.push(format!("{key} does not belong to {cert}"));
            }
        }
        Ok(_) => {}
    }
    if wrong.is_empty() { Ok(()) } else { Err(AgentError::Setup(wrong.join("; "))) }
}
