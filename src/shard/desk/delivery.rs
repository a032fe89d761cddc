//! Names of deliveries, as clients acknowledge by them.

use uuid::Uuid;

use crate::store::answers::EntryId;

/// Characters of a delivery's own part of its id.
const TOKEN_CHARS: usize = 16;

/// Which of a session's two inboxes a delivery came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// The agent's inbox, shared by its instances.
    Shared,
    /// The instance's own inbox: replies.
    Own,
}

/// A delivery id: an entry of an inbox, and a random number that no other delivery of it has. Its text is what the
/// client acknowledges with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// The inbox.
    pub source: Source,
    /// The entry.
    pub entry: EntryId,
    /// This delivery of it: 62 random bits.
    pub token: u64,
}

impl DeliveryId {
    /// The id of another delivery of an entry.
    pub fn fresh(source: Source, entry: EntryId) -> Self {
        Self { source, entry, token: Uuid::new_v4().as_u64_pair().1 }
    }

    /// Parses the text of [`to_text`](Self::to_text); `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (source, rest) = match text.strip_prefix('r') {
            Some(rest) => (Source::Own, rest),
            None => (Source::Shared, text),
        };
        let (entry, token) = rest.rsplit_once('-')?;
        let is_token =
            token.len() == TOKEN_CHARS && token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let token = is_token.then(|| u64::from_str_radix(token, 16).ok()).flatten()?;
        Some(Self { source, entry: EntryId::parse(entry)?, token })
    }

    /// Its text, without a detour over formatting: one is written for each message.
    pub fn to_text(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut numbers = [itoa::Buffer::new(), itoa::Buffer::new()];
        let [ms, seq] = &mut numbers;
        let mut text = String::with_capacity(48);
        if self.source == Source::Own {
            text.push('r');
        }
        text.push_str(ms.format(self.entry.ms));
        text.push('-');
        text.push_str(seq.format(self.entry.seq));
        text.push('-');
        for shift in (0..u64::BITS).step_by(4).rev() {
            let digit = DIGITS.get((self.token >> shift & 0xf) as usize).copied().unwrap_or(b'0');
            text.push(char::from(digit));
        }
        text
    }
}

impl std::fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_delivery_id_reads_back(ms in any::<u64>(), seq in any::<u64>(), token in any::<u64>(), own in any::<bool>()) {
            let source = if own { Source::Own } else { Source::Shared };
            let id = DeliveryId { source, entry: EntryId { ms, seq }, token };
            prop_assert_eq!(DeliveryId::parse(&id.to_string()), Some(id));
        }

        #[test]
        fn forged_delivery_ids_do_not_panic(text in ".{0,60}") {
            let _ = DeliveryId::parse(&text);
        }
    }

    #[test]
    fn an_entry_alone_names_no_delivery() {
        for text in
            ["1-2", "r1-2", "1-2-", "1-2-00000000000000zz", "1-2-0000000000000001x", "1-2-0000000000000001 "]
        {
            assert_eq!(DeliveryId::parse(text), None, "{text:?}");
        }
        let entry = EntryId { ms: 1, seq: 2 };
        assert_ne!(DeliveryId::fresh(Source::Shared, entry), DeliveryId::fresh(Source::Shared, entry));
    }
}
