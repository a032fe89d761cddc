//! Findings on record: what kind, which rule, where, and a keyed digest of the text. The digest tells an
//! auditor with the key whether two findings are the same secret; without the key it tells nothing.

use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::dlp::Scan;
use crate::files::{self, MAX_MATERIAL_BYTES};
use crate::ids::hex;

/// Findings described in one record; further ones are counted.
const MAX_DESCRIBED: usize = 8;
/// Names of exceptions in one record beside those of its findings.
const MAX_EXCEPTIONS_NAMED: usize = 16;
/// Longest pointer in a record, in characters; what is longer is cut.
pub const MAX_POINTER_CHARS: usize = 128;
/// Bytes of a digest that are kept.
const DIGEST_BYTES: usize = 16;
/// Sets this use of the server's key apart from any other.
const DOMAIN: &[u8] = b"mas dlp finding digest v1";

/// The key of the digests: derived from the server's private key, so that it is as secret as that and
/// lasts as long, and there is no further file to keep.
pub(super) struct Digests {
    key: [u8; 32],
}

impl std::fmt::Debug for Digests {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digests(..)")
    }
}

impl Digests {
    pub(super) fn new(config: &Config) -> Self {
        // Without the file there is no server; a command that only explains needs no lasting key.
        let secret = files::read(&config.tls.key, MAX_MATERIAL_BYTES)
            .unwrap_or_else(|_| uuid::Uuid::new_v4().as_bytes().to_vec());
        Self { key: Sha256::new().chain_update(DOMAIN).chain_update(secret).finalize().into() }
    }

    pub(super) fn describe(&self, scan: &Scan) -> String {
        let mut described = Vec::new();
        for finding in scan.findings.iter().take(MAX_DESCRIBED) {
            let pointer: String = finding.pointer.chars().take(MAX_POINTER_CHARS).collect();
            let mut line = json!({
                "type": &*finding.kind,
                "rule": &*finding.rule,
                "pointer": pointer,
                "action": finding.action.as_str(),
                "digest": self.digest(finding.digest_input()),
            });
            if let (Some(exception), Some(line)) = (&finding.exception, line.as_object_mut()) {
                let _ = line.insert("exception".to_owned(), (&**exception).into());
            }
            described.push(line);
        }
        let further = scan.findings.len() - described.len() + scan.further;
        if further > 0 || !scan.exceptions.is_empty() {
            // Exceptions whose findings are not described are named.
            let named = |name: &&Arc<str>| {
                let mut shown = scan.findings.iter().take(MAX_DESCRIBED);
                shown.any(|finding| finding.exception.as_ref() == Some(*name))
            };
            let used = scan.exceptions.iter().filter(|name| !named(name));
            let mut used: Vec<&str> = used.map(|name| &**name).collect();
            let unnamed = used.len().saturating_sub(MAX_EXCEPTIONS_NAMED);
            used.truncate(MAX_EXCEPTIONS_NAMED);
            match used.is_empty() {
                true if further == 0 => {}
                true => described.push(json!({"further": further})),
                false => described
                    .push(json!({"further": further, "exceptions": used, "further_exceptions": unnamed})),
            }
        }
        serde_json::Value::from(described).to_string()
    }

    fn digest(&self, text: &[u8]) -> String {
        // HMAC takes a key of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else {
            return String::new();
        };
        mac.update(text);
        let digest = mac.finalize().into_bytes();
        hex(digest.get(..DIGEST_BYTES).unwrap_or_default())
    }
}
