//! What is in a message: when it was sent, its number, filling.

const STAMP_BYTES: usize = 16;
const FILLING: u8 = b'y';
const WORD_BITS: u64 = u64::BITS as u64;
/// Highest number that is taken for one of ours: beyond what the longest run can send.
const MAX_NUMBER: u64 = 1 << 36;

/// The part of a message that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The instant it was sent, or was due.
    pub(crate) since_us: u64,
    /// Counts up from 0 for each sender.
    pub(crate) number: u64,
}

impl Stamp {
    /// A payload of `bytes` bytes that begins with it.
    pub(crate) fn payload(self, bytes: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(bytes.max(STAMP_BYTES));
        payload.extend_from_slice(&self.since_us.to_le_bytes());
        payload.extend_from_slice(&self.number.to_le_bytes());
        payload.resize(bytes.max(STAMP_BYTES), FILLING);
        payload
    }

    /// The one that `payload` begins with; `None`: not a message of ours.
    pub(crate) fn of(payload: &[u8]) -> Option<Self> {
        let (since, rest) = payload.split_first_chunk()?;
        let (number, _) = rest.split_first_chunk()?;
        let stamp = Self { since_us: u64::from_le_bytes(*since), number: u64::from_le_bytes(*number) };
        (stamp.number < MAX_NUMBER).then_some(stamp)
    }
}

/// Which numbers of a sender have arrived: a second delivery is none.
#[derive(Debug, Default)]
pub(crate) struct Seen(Vec<u64>);

impl Seen {
    /// Whether this is the first time.
    pub(crate) fn first(&mut self, number: u64) -> bool {
        let (word, bit) = ((number / WORD_BITS) as usize, 1u64 << (number % WORD_BITS));
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        match self.0.get_mut(word) {
            Some(word) => {
                let first = *word & bit == 0;
                *word |= bit;
                first
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_comes_back_out_of_its_payload() {
        let stamp = Stamp { since_us: 7, number: 130 };
        let payload = stamp.payload(256);
        assert_eq!(payload.len(), 256);
        assert_eq!(Stamp::of(&payload), Some(stamp));
        assert_eq!(Stamp::of(b"short"), None);
        assert_eq!(Stamp::of(&[0xff; 64]), None, "a number that nobody has sent");
    }

    #[test]
    fn a_repeated_number_is_seen() {
        let mut seen = Seen::default();
        assert!(seen.first(130) && seen.first(0) && seen.first(131));
        assert!(!seen.first(130) && !seen.first(0));
    }
}
