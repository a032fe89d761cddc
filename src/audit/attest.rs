//! Tags on what servers store in Redis. A tag is a keyed digest of what is stored, of where it stands and, for
//! messages, of the record that allowed it. Redis is a disk that others can write to: what they write has no tag
//! that fits. Pure.
//!
//! A tag says who wrote something, not when: an old entry that somebody puts back into the place where it stood has a
//! tag that fits.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::ids::hex;

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a key's id: the first ones of each tag.
const ID_BYTES: usize = 4;
/// Bytes of a tag: the id of its key, and half of an HMAC-SHA256.
pub const TAG_BYTES: usize = ID_BYTES + 16;
/// Keys that one log may have had.
pub const MAX_STORE_KEYS: usize = 64;
/// Most parts of what a tag is over.
const MAX_PARTS: usize = 10;
/// What a key's id is a digest of.
const ID_KIND: &str = "key id";

/// A tag, as it is stored.
pub type Tag = [u8; TAG_BYTES];
/// Names a key; the first bytes of its tags.
pub type KeyId = [u8; ID_BYTES];

/// Why something has no tag that fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotOurs {
    /// There is none, or it does not fit.
    Foreign,
    /// It was made with a key that is not known here.
    UnknownKey,
}

/// One key, ready for use.
#[derive(Clone)]
struct StoreKey {
    id: KeyId,
    mac: Hmac<Sha256>,
}

/// The keys of a log, oldest first. One makes tags; all of them check.
#[derive(Clone)]
pub struct StoreKeys {
    first: StoreKey,
    later: Vec<StoreKey>,
    /// How many of the later ones are in use: the last of these makes tags.
    begun: usize,
}

impl std::fmt::Debug for StoreKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoreKeys({}, {} later)", self.name(), self.later.len())
    }
}

impl StoreKey {
    fn new(key: &[u8; KEY_BYTES]) -> Option<Self> {
        // HMAC takes a key of any length.
        let mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
        let digest = digest(mac.clone(), ID_KIND, &[]);
        let id = *digest.first_chunk::<ID_BYTES>()?;
        Some(Self { id, mac })
    }

    fn tag(&self, kind: &str, parts: &[&[u8]]) -> Tag {
        let digest = digest(self.mac.clone(), kind, parts);
        let mut tag = [0; TAG_BYTES];
        let (id, rest) = tag.split_at_mut(ID_BYTES);
        id.copy_from_slice(&self.id);
        rest.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        tag
    }
}

/// First how many parts there are and how long each is, then the parts: no two lists of parts are the same bytes.
fn digest(mut mac: Hmac<Sha256>, kind: &str, parts: &[&[u8]]) -> [u8; 32] {
    let mut lengths = [0; (MAX_PARTS + 2) * 8];
    let numbers = [parts.len(), kind.len()].into_iter().chain(parts.iter().map(|part| part.len()));
    for (to, number) in lengths.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&(number as u64).to_be_bytes());
    }
    debug_assert!(parts.len() <= MAX_PARTS);
    mac.update(lengths.get(..(parts.len() + 2) * 8).unwrap_or(&lengths));
    mac.update(kind.as_bytes());
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

impl StoreKeys {
    /// The keys of a log, of which the first `begun` are in use; `None` without one, or with more than
    /// [`MAX_STORE_KEYS`].
    pub fn new(keys: &[[u8; KEY_BYTES]], begun: usize) -> Option<Self> {
        let (first, later) = keys.split_first().filter(|_| keys.len() <= MAX_STORE_KEYS)?;
        let later = later.iter().map(StoreKey::new).collect::<Option<Vec<_>>>()?;
        Some(Self { first: StoreKey::new(first)?, later, begun: begun.saturating_sub(1) })
    }

    /// What servers with the same keys have in common: the first key's id, in hexadecimal. It tells nothing of the key.
    pub fn name(&self) -> String {
        hex(&self.first.id)
    }

    fn newest(&self) -> &StoreKey {
        self.later.iter().take(self.begun).next_back().unwrap_or(&self.first)
    }

    /// The id of the key that makes tags, in hexadecimal.
    pub fn newest_name(&self) -> String {
        hex(&self.newest().id)
    }

    /// The key that makes tags.
    pub fn key_in_use(&self) -> KeyId {
        self.newest().id
    }

    /// The key that a tag names.
    pub fn key_of(tag: &[u8]) -> Option<KeyId> {
        tag.first_chunk().copied()
    }

    fn key(&self, id: &[u8]) -> Option<&StoreKey> {
        std::iter::once(&self.first).chain(&self.later).find(|key| id.starts_with(&key.id))
    }

    /// A keyed digest of something of this kind; `None` where the key is not known.
    pub fn digest_with(&self, key: KeyId, kind: &str, parts: &[&[u8]]) -> Option<[u8; 16]> {
        digest(self.key(&key)?.mac.clone(), kind, parts).first_chunk().copied()
    }

    /// The tag of something of this kind.
    pub fn tag(&self, kind: &str, parts: &[&[u8]]) -> Tag {
        self.newest().tag(kind, parts)
    }

    /// Whether a tag was made of this by who has the key.
    pub fn check(&self, kind: &str, parts: &[&[u8]], tag: &[u8]) -> Result<(), NotOurs> {
        let tag: &Tag = tag.try_into().map_err(|_| NotOurs::Foreign)?;
        let key = self.key(tag).ok_or(NotOurs::UnknownKey)?;
        let own = key.tag(kind, parts);
        // In a time that does not depend on where they differ.
        let differs = own.iter().zip(tag).fold(0, |differs, (a, b)| differs | (a ^ b));
        if differs == 0 { Ok(()) } else { Err(NotOurs::Foreign) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keys(bytes: &[u8]) -> StoreKeys {
        let keys: Vec<_> = bytes.iter().map(|byte| [*byte; KEY_BYTES]).collect();
        StoreKeys::new(&keys, keys.len()).unwrap()
    }

    #[test]
    fn a_log_has_some_keys_and_not_too_many() {
        assert!(StoreKeys::new(&[], 0).is_none());
        assert!(StoreKeys::new(&[[1; KEY_BYTES]; MAX_STORE_KEYS], 1).is_some());
        assert!(StoreKeys::new(&[[1; KEY_BYTES]; MAX_STORE_KEYS + 1], 1).is_none());
        assert_eq!(keys(&[1, 2]).name(), keys(&[1]).name());
        assert_eq!(keys(&[1, 2]).newest_name(), keys(&[2]).name());
        assert!(!format!("{:?}", keys(&[7])).contains("07070707"));
    }

    #[test]
    fn an_older_key_checks_and_a_key_to_come_is_unknown() {
        let (old, both) = (keys(&[1]), keys(&[1, 2]));
        let parts: [&[u8]; 1] = [b"x"];
        assert_eq!(both.check("k", &parts, &old.tag("k", &parts)), Ok(()));
        assert_eq!(old.check("k", &parts, &both.tag("k", &parts)), Err(NotOurs::UnknownKey));
        assert_eq!(both.check("k", &parts, b""), Err(NotOurs::Foreign));
    }

    proptest! {
        #[test]
        fn a_tag_fits_what_it_was_made_of_and_nothing_else(
            kind in "[a-z]{1,8}", parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..5),
            at in any::<usize>(), bit in 0u8..8,
        ) {
            let keys = keys(&[1, 2]);
            let check = |kind: &str, parts: &[Vec<u8>], tag: &Tag| {
                keys.check(kind, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>(), tag)
            };
            let tag = keys.tag(&kind, &parts.iter().map(Vec::as_slice).collect::<Vec<_>>());
            prop_assert_eq!(check(&kind, &parts, &tag), Ok(()));
            let mut flipped = tag;
            flipped[at % TAG_BYTES] ^= 1 << bit;
            prop_assert!(check(&kind, &parts, &flipped).is_err());
            prop_assert_eq!(check("other kind", &parts, &tag), Err(NotOurs::Foreign));
            let mut more = parts.clone();
            more.push(Vec::new());
            prop_assert_eq!(check(&kind, &more, &tag), Err(NotOurs::Foreign));
            // Bytes that move from one part to the next.
            let mut moved = parts;
            if let [first, second, ..] = moved.as_mut_slice()
                && let Some(byte) = first.pop()
            {
                second.insert(0, byte);
                prop_assert_eq!(check(&kind, &moved, &tag), Err(NotOurs::Foreign));
            }
        }
    }
}
