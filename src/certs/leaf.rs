//! What goes into a certificate that is not the CA's, and signing it.

use std::net::IpAddr;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime, UtcOffset};

use super::error::CertsError;
use super::files::SignedPem;

/// How far a certificate's start lies in the past, so that a machine whose clock runs behind
/// accepts it at once.
pub(super) const CLOCK_SKEW: Duration = Duration::minutes(5);
/// Longest DNS name, in bytes.
const MAX_DNS_NAME_BYTES: usize = 253;
/// Longest part of a DNS name between two dots, in bytes.
const MAX_DNS_LABEL_BYTES: usize = 63;

/// A certificate to be issued, in full. Start from [`CustomLeaf::client`] or [`CustomLeaf::server`]
/// and change what should differ.
#[derive(Debug, Clone)]
pub struct CustomLeaf {
    /// Subject alternative names; none: no such extension.
    pub sans: Vec<San>,
    /// Common name of the subject; `None`: an empty subject.
    pub common_name: Option<String>,
    /// Claims to be a CA.
    pub is_ca: bool,
    /// Key usages; none: no such extension.
    pub key_usages: Vec<KeyUsagePurpose>,
    /// Extended key usages; none: no such extension.
    pub extended_key_usages: Vec<ExtendedKeyUsagePurpose>,
    /// Start of the validity, used to the second.
    pub not_before: OffsetDateTime,
    /// End of the validity, used to the second.
    pub not_after: OffsetDateTime,
}

/// One subject alternative name, not checked beyond being ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum San {
    /// A URI.
    Uri(String),
    /// A DNS name.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
}

impl CustomLeaf {
    /// A TLS client's certificate without a common name, valid for one day from now.
    pub fn client(sans: Vec<San>) -> Self {
        Self::of(sans, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// A TLS server's certificate without a common name, valid for one day from now.
    pub fn server(sans: Vec<San>) -> Self {
        Self::of(sans, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn of(sans: Vec<San>, purpose: ExtendedKeyUsagePurpose) -> Self {
        let now = OffsetDateTime::now_utc();
        Self {
            sans,
            common_name: None,
            is_ca: false,
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            extended_key_usages: vec![purpose],
            not_before: now.saturating_sub(CLOCK_SKEW),
            not_after: now.saturating_add(Duration::days(1)),
        }
    }

    fn params(&self) -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::default();
        params.not_before = self.not_before;
        params.not_after = self.not_after;
        params.serial_number = Some(random_serial());
        params.distinguished_name = match &self.common_name {
            Some(name) => common_name(name),
            None => DistinguishedName::new(),
        };
        for san in &self.sans {
            params.subject_alt_names.push(match san {
                San::Uri(uri) => SanType::URI(uri.as_str().try_into()?),
                San::Dns(name) => SanType::DnsName(name.as_str().try_into()?),
                San::Ip(address) => SanType::IpAddress(*address),
            });
        }
        params.is_ca =
            if self.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
        params.key_usages.clone_from(&self.key_usages);
        params.extended_key_usages.clone_from(&self.extended_key_usages);
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

impl San {
    /// The name of a host as a server's certificate carries it: an IP address, or a DNS name whose
    /// first label may be `*`. `None` when it is neither.
    pub fn host(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Ip(address));
        }
        is_dns_name(text).then(|| Self::Dns(text.to_owned()))
    }
}

/// Signs `leaf` with a key made for it; `subject` names it in an error.
pub(super) fn sign(
    subject: &str,
    leaf: &CustomLeaf,
    issuer: &Issuer<'_, KeyPair>,
) -> Result<SignedPem, CertsError> {
    let failed = |source| CertsError::Issue { subject: subject.to_owned(), source };
    let mut params = leaf.params().map_err(failed)?;
    (params.not_before, params.not_after) = encodable(leaf.not_before, leaf.not_after)?;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let cert = params.signed_by(&key, issuer).map_err(failed)?;
    Ok(SignedPem { cert: cert.pem(), key: key.serialize_pem() })
}

/// Both times in UTC, if X.509 can express them: the encoder panics on a year it cannot write.
fn encodable(
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
) -> Result<(OffsetDateTime, OffsetDateTime), CertsError> {
    let utc = |at: OffsetDateTime| {
        at.checked_to_offset(UtcOffset::UTC).filter(|at| (1950..=9999).contains(&at.year()))
    };
    if let (Some(start), Some(end)) = (utc(not_before), utc(not_after))
        && start < end
    {
        return Ok((start, end));
    }
    Err(CertsError::Validity { not_before, not_after })
}

fn is_dns_name(text: &str) -> bool {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_DNS_LABEL_BYTES
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A last label of digits is a mistyped address, not a name.
    let ends_in_number = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    text.len() <= MAX_DNS_NAME_BYTES && !ends_in_number && name.split('.').all(is_label)
}

pub(super) fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// 16 random bytes; the first is made 0x40 to 0x7f, so that the number is positive and always has
/// the same length.
pub(super) fn random_serial() -> SerialNumber {
    let mut bytes = uuid::Uuid::new_v4().into_bytes();
    let [first, ..] = &mut bytes;
    *first = (*first & 0x3f) | 0x40;
    SerialNumber::from_slice(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_dns_name() {
        for name in ["localhost", "a.example", "*.a.example", "srv_1", "1and1.example"] {
            assert_eq!(San::host(name), Some(San::Dns(name.to_owned())), "{name}");
        }
        for address in ["127.0.0.1", "::1", "2001:db8::1"] {
            let parsed = address.parse().unwrap();
            assert_eq!(San::host(address), Some(San::Ip(parsed)), "{address}");
        }
        let long = "a".repeat(64);
        for wrong in [
            "",
            ".",
            "*",
            "*.",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a:1",
            "[::1]",
            "300.1.1.1",
            "a.*.b",
            "b\u{fc}ro",
            "a\n",
            &long,
        ] {
            assert_eq!(San::host(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_validity_that_cannot_be_written_is_refused() {
        let now = OffsetDateTime::now_utc();
        assert!(encodable(now, now).is_err());
        assert!(encodable(now, now - Duration::days(1)).is_err());
        let (first, last) = (time::Date::MIN.midnight(), time::Date::MAX.midnight());
        assert!(encodable(first.assume_utc(), now).is_err());
        assert!(encodable(now, last.assume_utc()).is_ok());
        // In UTC this is a day later than the last one that can be written.
        let west = UtcOffset::from_hms(-23, 0, 0).unwrap();
        let late = time::Date::MAX.with_hms(23, 0, 0).unwrap();
        assert!(encodable(now, late.assume_offset(west)).is_err());
    }
}
