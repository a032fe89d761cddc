//! Certificates: a CA kept in a folder, what it issues, and the list of what was revoked.
//!
//! The folder holds `ca.pem`, `ca.key`, `server.pem`, `server.key`, `agents/{agent_id}.pem`,
//! `agents/{agent_id}.key` and `revoked.json`. Keys are ECDSA P-256 and only their owner may read
//! them. Files are replaced whole, so a reader never sees half of one.

mod describe;
mod error;
mod files;
mod leaf;
mod paths;
mod revoked;
pub(crate) mod sense;

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use time::{Duration, OffsetDateTime};

use crate::ids::{AgentId, is_operator_name};
use error::unusable;
use files::SignedPem;
use leaf::{CLOCK_SKEW, common_name, random_serial};
use paths::ca_key_file;

pub use describe::{Description, Fingerprint, Serial, describe, ends, last_ends};
pub use error::{CertsError, MAX_DAYS};
pub use leaf::{CustomLeaf, San};
pub use paths::{
    AgentFiles, IssuedPaths, agent_files, agents_folder, ca_file, operator_files, operators_folder,
    revoked_file, server_files,
};
pub use revoked::{Revocations, Revoked, revoke};

/// What precedes the agent id in the URI of an agent's certificate.
pub const AGENT_URI_PREFIX: &str = "spiffe://mas/agent/";
/// What precedes the name in the URI of an operator's certificate.
pub const OPERATOR_URI_PREFIX: &str = "spiffe://mas/operator/";
/// Days that a new CA is valid for, unless told otherwise.
pub const CA_DAYS: u32 = 3650;
/// Days that an issued certificate is valid for, unless told otherwise.
pub const LEAF_DAYS: u32 = 365;
/// Subject of the CA. The space keeps it from ever being an agent id.
const CA_NAME: &str = "MAS CA";
/// Subject of the server's certificate; clients look at its SANs. No agent id either.
const SERVER_NAME: &str = "MAS server";
/// The URI that names agent `id` in its certificate.
pub fn agent_uri(id: &AgentId) -> String {
    format!("{AGENT_URI_PREFIX}{id}")
}

/// A CA in a folder. Its debug output does not show the private key.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// When the CA's own certificate ends: nothing it issues by days lives longer.
    not_after: OffsetDateTime,
}

impl Authority {
    /// Makes a new CA in `dir`, valid for `days`; the folder is made (mode 0700) if it is missing.
    ///
    /// # Errors
    /// [`CertsError::CaExists`] if `ca.pem` or `ca.key` is there, [`CertsError::Days`], or what went
    /// wrong while making or writing it.
    pub fn create(dir: &Path, days: u32) -> Result<Self, CertsError> {
        files::create_folder(dir)?;
        let _lock = files::FolderLock::take(dir)?;
        Self::create_locked(dir, days)
    }

    /// Opens the CA in `dir`.
    ///
    /// # Errors
    /// When a file is missing or unreadable, is not a CA's, or certificate and key do not match.
    pub fn open(dir: &Path) -> Result<Self, CertsError> {
        let cert_path = ca_file(dir);
        let key_path = ca_key_file(dir);
        let cert_pem = files::read(&cert_path)?;
        let key = KeyPair::from_pem(&files::read(&key_path)?).map_err(|error| unusable(&key_path, error))?;

        let der = describe::certificate_der(&cert_path, cert_pem.as_bytes())?;
        let cert = describe::parse_der(&cert_path, &der)?;
        if !cert.is_ca() {
            return Err(unusable(&cert_path, "is not the certificate of a CA"));
        }
        if cert.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            let problem = format!("does not belong to the key in {}", key_path.display());
            return Err(unusable(&cert_path, problem));
        }
        let not_after = cert.validity().not_after.to_datetime();
        let issuer = Issuer::from_ca_cert_der(&der.as_slice().into(), key)
            .map_err(|error| unusable(&cert_path, error))?;
        Ok(Self { dir: dir.to_path_buf(), issuer, not_after })
    }

    /// Opens the CA in `dir`, or makes one that is valid for `days` if there is none.
    ///
    /// # Errors
    /// Those of [`Authority::open`] if there is a CA, else those of [`Authority::create`].
    pub fn open_or_create(dir: &Path, days: u32) -> Result<Self, CertsError> {
        // The certificate is written last: where it is, the CA is whole.
        if files::exists(&ca_file(dir))? {
            return Self::open(dir);
        }
        files::create_folder(dir)?;
        let _lock = files::FolderLock::take(dir)?;
        // Another process may have made it while this one waited.
        if files::exists(&ca_file(dir))? {
            return Self::open(dir);
        }
        Self::create_locked(dir, days)
    }

    /// The folder that holds the CA.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Issues the server's certificate for `names` (DNS names and IP addresses), valid for `days` but
    /// no longer than the CA, and writes it and a new key, replacing earlier ones.
    ///
    /// # Errors
    /// [`CertsError::NoHostName`], [`CertsError::HostName`], [`CertsError::Days`], an expired CA, or
    /// what went wrong while signing or writing.
    pub fn issue_server(&self, names: &[String], days: u32) -> Result<IssuedPaths, CertsError> {
        let mut sans = Vec::with_capacity(names.len());
        for name in names {
            let san = San::host(name).ok_or_else(|| CertsError::HostName { name: name.clone() })?;
            if !sans.contains(&san) {
                sans.push(san);
            }
        }
        if sans.is_empty() {
            return Err(CertsError::NoHostName);
        }
        let (not_before, not_after) = self.validity(days)?;
        let leaf = CustomLeaf {
            common_name: Some(SERVER_NAME.to_owned()),
            not_before,
            not_after,
            ..CustomLeaf::server(sans)
        };
        self.store(server_files(&self.dir), SERVER_NAME, &leaf)
    }

    /// Issues the certificate of agent `id`, valid for `days` but no longer than the CA, and writes it
    /// and a new key, replacing earlier ones.
    ///
    /// # Errors
    /// [`CertsError::Days`], an expired CA, or what went wrong while signing or writing.
    pub fn issue_agent(&self, id: &AgentId, days: u32) -> Result<IssuedPaths, CertsError> {
        let (not_before, not_after) = self.validity(days)?;
        self.issue_agent_with(id, not_before, not_after)
    }

    /// Issues the certificate of an operator, valid for `days` but no longer than the CA, and writes it and a new key,
    /// replacing earlier ones.
    ///
    /// # Errors
    /// [`CertsError::Operator`], [`CertsError::Days`], an expired CA, or what went wrong while signing or writing.
    pub fn issue_operator(&self, name: &str, days: u32) -> Result<IssuedPaths, CertsError> {
        if !is_operator_name(name) {
            return Err(CertsError::Operator { name: name.to_owned() });
        }
        let (not_before, not_after) = self.validity(days)?;
        let leaf = CustomLeaf {
            common_name: Some(name.to_owned()),
            not_before,
            not_after,
            ..CustomLeaf::client(vec![San::Uri(format!("{OPERATOR_URI_PREFIX}{name}"))])
        };
        self.store(operator_files(&self.dir, name), name, &leaf)
    }

    /// Like [`Authority::issue_agent`], with exactly this validity: the way to a certificate that has
    /// expired or is not valid yet.
    ///
    /// # Errors
    /// [`CertsError::Validity`], or what went wrong while signing or writing.
    pub fn issue_agent_with(
        &self,
        id: &AgentId,
        validity_start: OffsetDateTime,
        validity_end: OffsetDateTime,
    ) -> Result<IssuedPaths, CertsError> {
        let leaf = CustomLeaf {
            common_name: Some(id.to_string()),
            not_before: validity_start,
            not_after: validity_end,
            ..CustomLeaf::client(vec![San::Uri(agent_uri(id))])
        };
        self.store(agent_files(&self.dir, id), id.as_str(), &leaf)
    }

    /// Signs whatever `spec` says with a new key and writes nothing: certificates that no honest
    /// caller would ask for, to test those who check them. Returns certificate and key, PEM.
    ///
    /// # Errors
    /// [`CertsError::Validity`], or [`CertsError::Issue`] for text that is not ASCII.
    pub fn issue_custom(&self, spec: CustomLeaf) -> Result<(String, String), CertsError> {
        let subject = spec.common_name.as_deref().unwrap_or("a custom leaf");
        let signed = leaf::sign(subject, &spec, &self.issuer)?;
        Ok((signed.cert, signed.key))
    }

    /// Makes the CA; the caller holds the folder's lock.
    fn create_locked(dir: &Path, days: u32) -> Result<Self, CertsError> {
        let paths = IssuedPaths { cert: ca_file(dir), key: ca_key_file(dir) };
        for path in [&paths.cert, &paths.key] {
            if files::exists(path)? {
                return Err(CertsError::CaExists { path: path.clone() });
            }
        }
        let (not_before, not_after) = validity_of(days)?;
        let signed = self_signed(not_before, not_after)
            .map_err(|source| CertsError::Issue { subject: CA_NAME.to_owned(), source })?;
        files::write_pair(&paths, &signed)?;
        Self::open(dir)
    }

    /// Start and end of a certificate that is issued now for `days`, ending with the CA at the latest:
    /// beyond that nobody would accept it.
    fn validity(&self, days: u32) -> Result<(OffsetDateTime, OffsetDateTime), CertsError> {
        let (not_before, not_after) = validity_of(days)?;
        if self.not_after <= OffsetDateTime::now_utc() {
            let problem = format!("the CA expired on {}", self.not_after.date());
            return Err(unusable(&ca_file(&self.dir), problem));
        }
        Ok((not_before, not_after.min(self.not_after)))
    }

    fn store(&self, paths: IssuedPaths, subject: &str, leaf: &CustomLeaf) -> Result<IssuedPaths, CertsError> {
        let signed = leaf::sign(subject, leaf, &self.issuer)?;
        if let Some(folder) = paths.cert.parent() {
            files::create_folder(folder)?;
        }
        // Two processes that issue the same certificate must not mix their keys.
        let _lock = files::FolderLock::take(&self.dir)?;
        files::write_pair(&paths, &signed)?;
        Ok(paths)
    }
}

/// Start and end of a validity of `days` from now.
fn validity_of(days: u32) -> Result<(OffsetDateTime, OffsetDateTime), CertsError> {
    if !(1..=MAX_DAYS).contains(&days) {
        return Err(CertsError::Days { days });
    }
    let now = OffsetDateTime::now_utc();
    let end = now.saturating_add(Duration::days(i64::from(days)));
    Ok((now.saturating_sub(CLOCK_SKEW), end))
}

fn self_signed(not_before: OffsetDateTime, not_after: OffsetDateTime) -> Result<SignedPem, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::default();
    params.not_before = not_before;
    params.not_after = not_after;
    params.serial_number = Some(random_serial());
    params.distinguished_name = common_name(CA_NAME);
    // It signs leaves only: no CA below it.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(SignedPem { cert: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

#[cfg(test)]
mod tests;
