//! Signed notes as C2SP's signed-note has them (<https://c2sp.org/signed-note>), with Ed25519 keys: the
//! form that Go's `sumdb/note` and the tools of transparency logs read. Pure but for making keys.
//!
//! A note is lines of text, an empty line, and a line `— {name} {base64}` per signature, where the base64
//! holds the first four bytes of the key's hash and the signature over the text with its last newline.
//! Notes of ours have exactly one.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// The signature type of Ed25519 in signed-note.
const ED25519_TYPE: u8 = 0x01;
/// What a signature line begins with: an em dash and a space.
const SIGNATURE_PREFIX: &str = "— ";
/// Label of a private key in PEM.
const PEM_LABEL: &str = "PRIVATE KEY";
/// Longest note that is read, in bytes.
pub const MAX_NOTE_BYTES: usize = 4 * 1024 * 1024;

/// Why bytes are no note of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the form of a note with one signature, or not its one encoding.
    #[error("is no signed note: {0}")]
    Malformed(&'static str),
    /// Another key's signature.
    #[error("is signed by key {found}, and not by {expected}")]
    WrongKey {
        /// Name and key hash on the signature line.
        found: String,
        /// What the key's own are.
        expected: String,
    },
    /// The text is not what was signed.
    #[error("carries a signature that does not fit its text")]
    BadSignature,
    /// A private key that cannot be used.
    #[error("is no Ed25519 private key in PKCS#8 PEM")]
    PrivateKey,
}

/// A public key and the name that it signs under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    pub(super) name: String,
    pub(super) public: [u8; 32],
}

impl VerifierKey {
    /// A key under a name, which must be neither empty nor hold white space or `+`.
    pub fn new(name: &str, public: [u8; 32]) -> Option<Self> {
        let fits = !name.is_empty() && !name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '+');
        fits.then(|| Self { name: name.to_owned(), public })
    }

    /// Reads `{name}+{key hash}+{base64}`.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('+')?;
        let (_, encoded) = rest.split_once('+')?;
        let bytes = STANDARD.decode(encoded).ok()?;
        let (kind, public) = bytes.split_first()?;
        if *kind != ED25519_TYPE {
            return None;
        }
        let key = Self::new(name, public.try_into().ok()?)?;
        // The hash in the middle included, there is one text of a key.
        (key.to_string() == text).then_some(key)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The raw key.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The first four bytes of the key's hash, in hexadecimal.
    pub fn hash_text(&self) -> String {
        crate::ids::hex(&self.hash())
    }

    fn hash(&self) -> [u8; 4] {
        let digest = Sha256::new()
            .chain_update(self.name.as_bytes())
            .chain_update([b'\n', ED25519_TYPE])
            .chain_update(self.public)
            .finalize();
        let mut hash = [0; 4];
        hash.copy_from_slice(digest.get(..4).unwrap_or(&[0; 4]));
        hash
    }

    /// The text of a note, if this key signed it.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        let parts = split(note)?;
        if parts.name != self.name || parts.hash != self.hash() {
            return Err(NoteError::WrongKey {
                found: format!("{}+{}", parts.name, crate::ids::hex(&parts.hash)),
                expected: format!("{}+{}", self.name, self.hash_text()),
            });
        }
        UnparsedPublicKey::new(&ED25519, &self.public)
            .verify(parts.text.as_bytes(), &parts.signature)
            .map_err(|_| NoteError::BadSignature)?;
        Ok(parts.text)
    }
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![ED25519_TYPE];
        bytes.extend_from_slice(&self.public);
        write!(f, "{}+{}+{}", self.name, self.hash_text(), STANDARD.encode(bytes))
    }
}

/// A private key. Its name comes from the log that it signs for.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("public", &crate::ids::hex(&self.public)).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A new key, as PKCS#8 in PEM.
    pub fn generate_pem() -> Result<String, NoteError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| NoteError::PrivateKey)?;
        let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
        Ok(pem::encode_config(&pem::Pem::new(PEM_LABEL, document.as_ref()), config))
    }

    /// Reads a key, also one that other tools made (without its public half).
    pub fn from_pem(text: &str) -> Result<Self, NoteError> {
        let parsed = pem::parse(text).map_err(|_| NoteError::PrivateKey)?;
        if parsed.tag() != PEM_LABEL {
            return Err(NoteError::PrivateKey);
        }
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(parsed.contents())
            .map_err(|_| NoteError::PrivateKey)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| NoteError::PrivateKey)?;
        Ok(Self { pair, public })
    }

    /// The raw public half.
    pub fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// Signs `text` under `name`; `None` where one of them cannot stand in a note.
    pub fn sign(&self, name: &str, text: &str) -> Option<String> {
        let key = VerifierKey::new(name, self.public)?;
        let complete = text.ends_with('\n') && !text.starts_with('\n') && !text.contains("\n\n");
        if !complete || text.chars().any(|c| c != '\n' && c.is_control()) {
            return None;
        }
        let mut bytes = key.hash().to_vec();
        bytes.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        Some(format!("{text}\n{SIGNATURE_PREFIX}{name} {}\n", STANDARD.encode(bytes)))
    }
}

/// The text of a note, whoever signed it.
pub fn text_of(note: &str) -> Result<&str, NoteError> {
    Ok(split(note)?.text)
}

struct Parts<'a> {
    text: &'a str,
    name: &'a str,
    hash: [u8; 4],
    signature: [u8; 64],
}

fn split(note: &str) -> Result<Parts<'_>, NoteError> {
    let malformed = |what| NoteError::Malformed(what);
    if note.len() > MAX_NOTE_BYTES {
        return Err(malformed("too long"));
    }
    let (before, line) = note.split_once("\n\n").ok_or(malformed("no empty line"))?;
    // With its last newline: that is what is signed.
    let text = note.get(..before.len() + 1).ok_or(malformed("no text"))?;
    if before.is_empty() || text.chars().any(|c| c != '\n' && c.is_control()) {
        return Err(malformed("no text, or control characters"));
    }
    let line = line.strip_suffix('\n').ok_or(malformed("no newline at its end"))?;
    let line = line.strip_prefix(SIGNATURE_PREFIX).ok_or(malformed("no signature"))?;
    let (name, encoded) = line.split_once(' ').ok_or(malformed("no signature"))?;
    // The decoder takes canonical padding only, so a signature has one text.
    let bytes = STANDARD.decode(encoded).map_err(|_| malformed("a signature that is no base64"))?;
    let (hash, signature) = bytes.split_first_chunk::<4>().ok_or(malformed("a short signature"))?;
    let signature = signature.try_into().map_err(|_| malformed("a signature of another length"))?;
    Ok(Parts { text, name, hash: *hash, signature })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The example of Go's `golang.org/x/mod/sumdb/note`.
    const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\
        \n\
        — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    #[test]
    fn a_note_that_go_signed_is_read() {
        let key = VerifierKey::parse(GO_KEY).unwrap();
        assert!(key.open(GO_NOTE).unwrap().ends_with("your problem is.\n"));
        assert_eq!(key.to_string(), GO_KEY);
    }

    #[test]
    fn a_key_has_one_text() {
        for bad in [
            "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW\n",
            "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "",
            "a+b",
        ] {
            assert_eq!(VerifierKey::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn another_key_and_another_name_are_refused() {
        let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        let other = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        let note = key.sign("log", "text\n").unwrap();
        let open = |name: &str, public: &[u8; 32]| {
            VerifierKey::new(name, *public).unwrap().open(&note).map(str::to_owned)
        };
        assert_eq!(open("log", key.public()).unwrap(), "text\n");
        assert!(matches!(open("log", other.public()), Err(NoteError::WrongKey { .. })));
        assert!(matches!(open("logs", key.public()), Err(NoteError::WrongKey { .. })));
        for bad in ["text", "", "\n", "a\n\nb\n", "a\rb\n"] {
            assert_eq!(key.sign("log", bad), None, "{bad:?}");
        }
        assert_eq!(key.sign("a b", "text\n"), None);
    }

    #[test]
    fn a_private_key_is_not_shown() {
        let pem = SigningKey::generate_pem().unwrap();
        let shown = format!("{:?}", SigningKey::from_pem(&pem).unwrap());
        assert!(!pem.lines().any(|line| shown.contains(line)));
        assert!(SigningKey::from_pem(&pem.replace("PRIVATE", "PUBLIC")).is_err());
    }

    proptest! {
        #[test]
        fn any_flipped_bit_is_refused(at in any::<usize>(), bit in 0u8..8) {
            let mut bytes = GO_NOTE.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(note) = String::from_utf8(bytes) {
                prop_assert!(VerifierKey::parse(GO_KEY).unwrap().open(&note).is_err());
            }
        }
    }
}
