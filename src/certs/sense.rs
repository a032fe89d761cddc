//! Whether certificates can serve as what the configuration names them for: to be shown by the server, to be trusted.

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::describe::rfc3339;
use crate::clock::Now;

/// Days before its end that a certificate is named.
pub(crate) const SOON_DAYS: i64 = 14;
const SECONDS_PER_DAY: i64 = 24 * 60 * 60;

/// What is wrong, or will be soon.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sense {
    /// It cannot serve.
    Error(String),
    /// It serves, and should be looked at.
    Warning(String),
}

/// Looks at the certificate that the server is to show, given its DER encoding.
pub(crate) fn of_server(leaf: &[u8]) -> Vec<Sense> {
    let Ok((_, certificate)) = X509Certificate::from_der(leaf) else {
        return vec![Sense::Error("has a certificate that cannot be read".to_owned())];
    };
    let mut found = within_dates(&certificate);
    if certificate.is_ca() {
        found.push(Sense::Error(
            "begins with the certificate of a CA; the server's own comes first".to_owned(),
        ));
    }
    let purposes = certificate.extended_key_usage().ok().flatten();
    if purposes.is_some_and(|purposes| !purposes.value.server_auth && !purposes.value.any) {
        found.push(Sense::Error("is for clients only: its extended key usage lacks serverAuth".to_owned()));
    }
    let names = certificate.subject_alternative_name().ok().flatten();
    if names.is_none_or(|names| names.value.general_names.is_empty()) {
        let why =
            "names no host: clients compare the subject alternative names with the address they connect to";
        found.push(Sense::Error(why.to_owned()));
    }
    found
}

/// Looks at the authorities whose certificates are trusted.
pub(crate) fn of_authorities<'a>(trusted: impl Iterator<Item = &'a [u8]>) -> Vec<Sense> {
    let mut found = Vec::new();
    let mut ended = 0;
    let mut number = 0;
    for der in trusted {
        number += 1;
        let Ok((_, certificate)) = X509Certificate::from_der(der) else {
            found.push(Sense::Error("has a certificate that cannot be read".to_owned()));
            continue;
        };
        let subject = certificate.subject();
        // Certificates of version 1 cannot say it.
        if certificate.version().0 > 0 && !certificate.is_ca() {
            found.push(Sense::Error(format!("has the certificate of {subject}, which is no CA")));
        }
        let usage = certificate.key_usage().ok().flatten();
        if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
            found.push(Sense::Error(format!("has the CA {subject}, whose key usage lacks keyCertSign")));
        }
        for problem in within_dates(&certificate) {
            let (Sense::Error(why) | Sense::Warning(why)) = &problem;
            ended += usize::from(matches!(problem, Sense::Error(_)));
            found.push(Sense::Warning(format!("has the CA {subject}, which {why}")));
        }
    }
    if number > 0 && ended == number {
        found.push(Sense::Error("has no CA that is valid now".to_owned()));
    }
    found
}

fn within_dates(certificate: &X509Certificate<'_>) -> Vec<Sense> {
    let (validity, now_s) = (certificate.validity(), (Now::read().unix_us / 1_000_000) as i64);
    let time = |at: x509_parser::time::ASN1Time| rfc3339(at.to_datetime()).unwrap_or_else(|_| at.to_string());
    if now_s < validity.not_before.timestamp() {
        return vec![Sense::Error(format!("is not valid before {}", time(validity.not_before)))];
    }
    let left_s = validity.not_after.timestamp() - now_s;
    match left_s.div_euclid(SECONDS_PER_DAY) {
        _ if left_s < 0 => vec![Sense::Error(format!("ended {}", time(validity.not_after)))],
        days if days < SOON_DAYS => {
            vec![Sense::Warning(format!("ends {}, in {days} days", time(validity.not_after)))]
        }
        _ => Vec::new(),
    }
}
