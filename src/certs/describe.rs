//! Reading a certificate for people and for the revocation list.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use super::error::{CertsError, unusable};
use super::files::io_error;
use crate::files::{self, MAX_MATERIAL_BYTES};
use crate::ids::hex;

/// Length of a SHA-256 fingerprint, in hexadecimal digits.
const FINGERPRINT_DIGITS: usize = 64;
/// Longest serial number, in hexadecimal digits: X.509 allows 20 bytes.
const MAX_SERIAL_DIGITS: usize = 40;
const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// Distinguished name of the subject.
    pub subject: String,
    /// Subject alternative names as `URI:...`, `DNS:...` or `IP:...`; other kinds by their name.
    pub sans: Vec<String>,
    /// Serial number.
    pub serial: Serial,
    /// SHA-256 of the DER encoding.
    pub fingerprint: Fingerprint,
    /// Start of the validity, RFC 3339, UTC.
    pub not_before: String,
    /// End of the validity, RFC 3339, UTC.
    pub not_after: String,
    /// Claims to be a CA.
    pub is_ca: bool,
    /// Whole days until the end of the validity; negative once it is over.
    pub days_left: i64,
}

/// SHA-256 over a certificate's DER encoding: names exactly one certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(String);

/// A certificate's serial number in its one canonical form: lower-case hexadecimal, whole bytes, no
/// leading zero byte.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(String);

/// Describes the first certificate in a PEM file.
///
/// # Errors
/// [`CertsError::Io`], or [`CertsError::Unusable`] when the file does not start with a certificate.
pub fn describe(pem_path: &Path) -> Result<Description, CertsError> {
    let text = files::read(pem_path, MAX_MATERIAL_BYTES).map_err(io_error("read", pem_path))?;
    let der = certificate_der(pem_path, &text)?;
    let cert = parse_der(pem_path, &der)?;
    let fail = |problem: &dyn fmt::Display| unusable(pem_path, problem);

    let sans = cert
        .subject_alternative_name()
        .map_err(|error| fail(&error))?
        .map(|extension| extension.value.general_names.iter().map(san_text).collect())
        .unwrap_or_default();
    let validity = cert.validity();
    let not_after = validity.not_after.to_datetime();
    let rfc3339 = |at: OffsetDateTime| rfc3339(at).map_err(|error| fail(&error));
    Ok(Description {
        subject: cert.subject().to_string(),
        sans,
        serial: Serial::of(cert.raw_serial()),
        fingerprint: Fingerprint::of(&der),
        not_before: rfc3339(validity.not_before.to_datetime())?,
        not_after: rfc3339(not_after)?,
        is_ca: cert.is_ca(),
        days_left: (not_after - OffsetDateTime::now_utc()).whole_seconds().div_euclid(SECONDS_PER_DAY),
    })
}

/// A time as certificates are described with, in UTC.
pub(super) fn rfc3339(at: OffsetDateTime) -> Result<String, time::error::Format> {
    at.format(&Rfc3339)
}

/// The last second of the first certificate in a PEM file, Unix time; `None` where there is none.
pub fn ends(pem_path: &Path) -> Option<i64> {
    all_ends(pem_path).into_iter().next()
}

/// The last second in which any certificate of a PEM file is good, as one of several authorities.
pub fn last_ends(pem_path: &Path) -> Option<i64> {
    all_ends(pem_path).into_iter().max()
}

fn all_ends(pem_path: &Path) -> Vec<i64> {
    let Ok(text) = files::read(pem_path, MAX_MATERIAL_BYTES) else { return Vec::new() };
    let blocks = Pem::iter_from_buffer(&text).filter_map(Result::ok);
    let certificates = blocks.filter(|block| block.label == "CERTIFICATE");
    let end = |block: Pem| Some(parse_der(pem_path, &block.contents).ok()?.validity().not_after.timestamp());
    certificates.filter_map(end).collect()
}

impl Fingerprint {
    /// The fingerprint of a certificate, given its DER encoding.
    pub fn of(der: &[u8]) -> Self {
        Self(hex(&Sha256::digest(der)))
    }

    /// Reads 64 hexadecimal digits of either case, with or without colons; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = hex_digits(text)?;
        (digits.len() == FINGERPRINT_DIGITS).then_some(Self(digits))
    }

    /// 64 lower-case hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Serial {
    /// The serial number, given the bytes of its DER integer.
    pub fn of(raw: &[u8]) -> Self {
        Self(without_zero_bytes(&hex(raw)))
    }

    /// Reads up to 40 hexadecimal digits of either case, with or without colons or leading zeros;
    /// `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut digits = hex_digits(text)?;
        if digits.len() % 2 == 1 {
            digits.insert(0, '0');
        }
        let digits = without_zero_bytes(&digits);
        (digits.len() <= MAX_SERIAL_DIGITS).then_some(Self(digits))
    }

    /// The canonical digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! hex_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}
hex_text!(Fingerprint);
hex_text!(Serial);

/// The DER encoding of the first block of a PEM file, which must be a certificate.
pub(super) fn certificate_der(path: &Path, pem: &[u8]) -> Result<Vec<u8>, CertsError> {
    match Pem::iter_from_buffer(pem).next() {
        None => Err(unusable(path, "holds no PEM block")),
        Some(Err(error)) => Err(unusable(path, error)),
        Some(Ok(block)) if block.label == "CERTIFICATE" => Ok(block.contents),
        Some(Ok(block)) => {
            let problem = format!("holds a {:?}, not a certificate", block.label);
            Err(unusable(path, problem))
        }
    }
}

/// Parses a certificate that must fill `der`; `path` names it in an error.
pub(super) fn parse_der<'a>(path: &Path, der: &'a [u8]) -> Result<X509Certificate<'a>, CertsError> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        Ok((_, _)) => Err(unusable(path, "has bytes after the certificate")),
        Err(error) => Err(unusable(path, error)),
    }
}

fn san_text(name: &GeneralName<'_>) -> String {
    match name {
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        GeneralName::IPAddress(octets) => match address(octets) {
            Some(address) => format!("IP:{address}"),
            None => format!("IP:{}", hex(octets)),
        },
        GeneralName::OtherName(..)
        | GeneralName::RFC822Name(_)
        | GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => name.to_string(),
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(octets)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from))
        .ok()
}

/// The digits of a hexadecimal number in lower case, colons between them removed; `None` when there
/// is anything else or nothing.
fn hex_digits(text: &str) -> Option<String> {
    let digits = text.replace(':', "").to_ascii_lowercase();
    let right = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    right.then_some(digits)
}

/// Removes leading `00`, but leaves one byte of a zero.
fn without_zero_bytes(digits: &str) -> String {
    let mut rest = digits;
    while let Some(shorter) = rest.strip_prefix("00").filter(|rest| !rest.is_empty()) {
        rest = shorter;
    }
    rest.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_has_one_form() {
        for text in ["0a1b", "A1B", "0a:1b", "00:0A:1B", "000A1B"] {
            assert_eq!(Serial::parse(text).unwrap().as_str(), "0a1b", "{text}");
        }
        assert_eq!(Serial::of(&[0, 0x0a, 0x1b]).as_str(), "0a1b");
        assert_eq!(Serial::of(&[0]), Serial::parse("0").unwrap());
        let longest = "f".repeat(MAX_SERIAL_DIGITS);
        assert!(Serial::parse(&format!("00{longest}")).is_some());
        for wrong in ["", ":", "xyz", "0x12", "1 2", &format!("1{longest}")] {
            assert_eq!(Serial::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_fingerprint_is_64_digits() {
        let fingerprint = Fingerprint::of(b"");
        let text = fingerprint.as_str();
        assert!(text.starts_with("e3b0c44298fc1c14"), "{text}");
        assert_eq!(Fingerprint::parse(&text.to_uppercase()), Some(fingerprint.clone()));
        assert_eq!(Fingerprint::parse(&text[1..]), None);
        assert_eq!(Fingerprint::parse(&format!("{text}0")), None);
    }

    #[test]
    fn what_is_no_certificate_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.pem");
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        for text in [
            "",
            "text",
            "-----BEGIN CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &key,
        ] {
            std::fs::write(&path, text).unwrap();
            let error = describe(&path).unwrap_err().to_string();
            assert!(error.contains("x.pem"), "{error}");
            let secret = key.lines().nth(1).unwrap();
            assert!(!error.contains(secret), "{error}");
        }
    }
}
