//! Payloads: JSON objects of a given size, with a stamp that the receiver's client reads back.
//!
//! The stamp is written in letters, so that no detector takes it for a telephone or card number and a
//! payload that is meant to be clean is clean.

use memchr::memmem;

/// Key of the stamp.
const STAMP_KEY: &str = "lg";
/// What stands around the stamp and the text.
const FRAME: &str = r#"{"lg":"","text":""}"#;
/// Letters of one number: 4 bits each.
const NUMBER_LETTERS: usize = 16;
const STAMP_LETTERS: usize = 2 * NUMBER_LETTERS;
/// Smallest payload, in bytes.
pub(crate) const MIN_BYTES: usize = FRAME.len() + STAMP_LETTERS;
/// Texts of each kind; a message's number chooses.
const TEXTS: usize = 64;
/// Redacted by the default rules: the message is delivered, and costs a rewrite.
const FINDING: &str = " the SSN on file is 536-90-4399 ";
/// Smallest payload with a finding, in bytes.
pub(crate) const MIN_FINDING_BYTES: usize = MIN_BYTES + FINDING.len();
/// Plain words, with nothing in them that a detector looks for.
const WORDS: [&str; 24] = [
    "report", "queue", "worker", "the", "and", "result", "plan", "with", "status", "ready", "table", "next",
    "step", "of", "summary", "for", "window", "index", "batch", "to", "shape", "model", "done", "field",
];

/// What a message carries: when it was sent or due, and which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Microseconds of the machine's clock.
    pub(crate) since_us: u64,
    /// The sender's number of it.
    pub(crate) number: u64,
}

/// Makes payloads of one size.
pub(crate) struct Payloads {
    clean: Vec<String>,
    finding: Vec<String>,
    /// Messages with a finding, of 2^32.
    finding_share: u64,
    seed: u64,
}

impl Payloads {
    /// Of `bytes` each, the part `findings` (0 to 1) of them with a finding; the same for the same `seed`.
    pub(crate) fn new(bytes: usize, findings: f64, seed: u64) -> Self {
        let mut random = seed;
        let room = bytes.saturating_sub(MIN_BYTES);
        let clean = (0..TEXTS).map(|_| text(room, &mut random)).collect();
        let finding = (0..TEXTS)
            .map(|_| {
                let half = room.saturating_sub(FINDING.len()) / 2;
                let rest = room.saturating_sub(FINDING.len() + half);
                text(half, &mut random) + FINDING + &text(rest, &mut random)
            })
            .collect();
        Self { clean, finding, finding_share: (findings * 4_294_967_296.0) as u64, seed }
    }

    /// The payload of one message.
    pub(crate) fn make(&self, stamp: Stamp) -> String {
        let mut random = self.seed ^ stamp.number;
        let drawn = next(&mut random);
        let texts = if drawn >> 32 < self.finding_share { &self.finding } else { &self.clean };
        let text = texts.get(drawn as usize % TEXTS).map_or("", String::as_str);
        let mut payload = String::with_capacity(MIN_BYTES + text.len());
        payload.push_str("{\"lg\":\"");
        letters(stamp.since_us, &mut payload);
        letters(stamp.number, &mut payload);
        payload.push_str("\",\"text\":\"");
        payload.push_str(text);
        payload.push_str("\"}");
        payload
    }
}

/// The stamp in an envelope, or in a payload; `None` in one of another sender.
pub(crate) fn stamp(json: &str) -> Option<Stamp> {
    let value = string_after(json, STAMP_KEY)?;
    let (since, number) = (value.get(..NUMBER_LETTERS)?, value.get(NUMBER_LETTERS..STAMP_LETTERS)?);
    Some(Stamp { since_us: number_of(since)?, number: number_of(number)? })
}

/// The string value of the first `"key":` in a JSON text; escapes are not looked at, for none of the values
/// read here has any. Tolerates the spaces that other servers write.
pub(crate) fn string_after<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = json;
    loop {
        let at = memmem::find(rest.as_bytes(), key.as_bytes())?;
        let (before, after) = (rest.get(..at)?, rest.get(at + key.len()..)?);
        if before.ends_with('"')
            && let Some(value) = after.strip_prefix("\":")
        {
            return Some(value.trim_start().strip_prefix('"')?.split_once('"')?.0);
        }
        rest = after;
    }
}

fn letters(number: u64, to: &mut String) {
    for place in (0..NUMBER_LETTERS).rev() {
        to.push(char::from(b'a' + ((number >> (4 * place)) & 15) as u8));
    }
}

fn number_of(letters: &str) -> Option<u64> {
    letters.bytes().try_fold(0, |number: u64, letter| {
        let digit = letter.checked_sub(b'a').filter(|digit| *digit < 16)?;
        Some(number << 4 | u64::from(digit))
    })
}

fn text(bytes: usize, random: &mut u64) -> String {
    let mut text = String::with_capacity(bytes + 8);
    while text.len() < bytes {
        let word = WORDS.get(next(random) as usize % WORDS.len());
        text.push_str(word.copied().unwrap_or_default());
        text.push(' ');
    }
    text.truncate(bytes);
    text
}

/// SplitMix64 (Steele, Lea, Flood 2014): good enough to mix payloads, and the same everywhere.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_its_size_and_carries_its_stamp() {
        for bytes in [MIN_FINDING_BYTES, 256, 4096] {
            for findings in [0.0, 1.0] {
                let stamp_in = Stamp { since_us: 123_456_789, number: u64::MAX };
                let payload = Payloads::new(bytes, findings, 7).make(stamp_in);
                assert_eq!(payload.len(), bytes);
                assert_eq!(stamp(&payload), Some(stamp_in));
                assert_eq!(payload.contains(FINDING), findings > 0.0);
                assert!(serde_json::from_str::<serde_json::Value>(&payload).unwrap().is_object());
            }
        }
    }

    #[test]
    fn a_string_is_found_with_or_without_a_space() {
        assert_eq!(string_after(r#"{"alg":1,"lg": "x"}"#, "lg"), Some("x"));
        assert_eq!(string_after(r#"{"lg":null}"#, "lg"), None);
    }
}
