//! Folds text to the form the detectors read: digits and letters of any width or style become ASCII,
//! characters nobody sees disappear, every blank is a space and every dash a hyphen.
//!
//! Folding is done character by character, so that an offset in folded text can be walked back to the
//! character, and to the bytes of the JSON text, that it came from.

use std::sync::LazyLock;

use unicode_normalization::char::decompose_compatible;

/// Stands for a NUL in the payload: the scan buffer separates its segments with the real one.
pub(super) const NUL_SUBSTITUTE: char = '\u{1}';

/// Longest compatibility decomposition that is looked at; longer ones are ligatures of whole phrases.
const MAX_DECOMPOSITION: usize = 4;

/// The zero of every run of ten decimal digits outside ASCII (general category Nd).
const DIGIT_ZEROES: [u32; 66] = [
    0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50, 0xED0,
    0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40, 0x1C50,
    0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x104A0, 0x10D30, 0x11066, 0x110F0,
    0x11136, 0x111D0, 0x112F0, 0x11450, 0x114D0, 0x11650, 0x116C0, 0x11730, 0x118E0, 0x11950, 0x11C50,
    0x11D50, 0x11DA0, 0x11F50, 0x16A60, 0x16AC0, 0x16B50, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6,
    0x1E140, 0x1E2F0, 0x1E950, 0x1FBF0,
];

/// What one character folds to: at most [`MAX_DECOMPOSITION`] characters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folded {
    chars: [char; MAX_DECOMPOSITION],
    len: usize,
}

impl Folded {
    const NOTHING: Self = Self { chars: ['\0'; MAX_DECOMPOSITION], len: 0 };

    fn one(c: char) -> Self {
        let mut folded = Self::NOTHING;
        folded.push(c);
        folded
    }

    fn push(&mut self, c: char) -> bool {
        match self.chars.get_mut(self.len) {
            Some(slot) => {
                *slot = c;
                self.len += 1;
                true
            }
            None => false,
        }
    }

    /// The folded characters.
    pub(super) fn chars(&self) -> impl Iterator<Item = char> + '_ {
        self.chars.iter().take(self.len).copied()
    }

    /// Bytes the folded characters take in UTF-8.
    pub(super) fn utf8_len(&self) -> usize {
        self.chars().map(char::len_utf8).sum()
    }
}

/// Characters below this are folded by table: both planes that living scripts, digits of every style and
/// emoji stand in. Looking each of them up anew would let a text of rare characters cost ten times others.
const TABLE_END: usize = 0x2_0000;
/// In the table: folds to itself.
const SAME: u32 = u32::MAX;

/// What characters fold to: the ASCII characters, from the lowest byte up, or [`SAME`]. Every folding that
/// changes anything leads to at most [`MAX_DECOMPOSITION`] ASCII characters.
static TABLE: LazyLock<Box<[u32]>> = LazyLock::new(|| {
    (0..TABLE_END as u32).map(|code| char::from_u32(code).map_or(SAME, |c| pack(c, &compute(c)))).collect()
});

fn pack(c: char, folded: &Folded) -> u32 {
    if folded.chars().eq([c]) {
        return SAME;
    }
    folded.chars().enumerate().fold(0, |packed, (at, c)| packed | (c as u32) << (8 * at))
}

/// Folds one character.
pub(super) fn fold(c: char) -> Folded {
    let packed = match TABLE.get(c as usize) {
        Some(packed) => *packed,
        None => return compute(c),
    };
    if packed == SAME {
        return Folded::one(c);
    }
    let mut folded = Folded::NOTHING;
    for byte in packed.to_le_bytes().into_iter().take_while(|byte| *byte != 0) {
        folded.push(char::from(byte));
    }
    folded
}

fn compute(c: char) -> Folded {
    let code = c as u32;
    match code {
        0 => Folded::one(NUL_SUBSTITUTE),
        0x01..=0x7F => Folded::one(c),
        // The bulk of the world's text: letters with nothing to fold.
        0xC0..=0x24F | 0x400..=0x52F | 0x3041..=0x30FA | 0x3400..=0x9FFF | 0xAC00..=0xD7A3 => Folded::one(c),
        _ if is_invisible(code) => Folded::NOTHING,
        0xA0 | 0x1680 | 0x2000..=0x200A | 0x202F | 0x205F | 0x3000 => Folded::one(' '),
        0x85 | 0x2028 | 0x2029 => Folded::one('\n'),
        0x2010..=0x2015 | 0x2043 | 0x207B | 0x208B | 0x2212 | 0xFE58 | 0xFE63 | 0xFF0D => Folded::one('-'),
        0xB7 | 0x2022 | 0x2024 | 0x2027 | 0x2219 | 0x22C5 | 0x3002 | 0x30FB | 0xFF0E | 0xFF61 => {
            Folded::one('.')
        }
        _ => fold_rare(c, code),
    }
}

fn fold_rare(c: char, code: u32) -> Folded {
    if let Some(digit) = decimal_digit(code) {
        return Folded::one(digit);
    }
    let mut folded = Folded::NOTHING;
    let mut ascii = true;
    decompose_compatible(c, |part| ascii &= part.is_ascii() && part != '\0' && folded.push(part));
    // A decomposition that leaves ASCII (an accent, a fraction) says something else than its base letter.
    if ascii && folded.len > 0 { folded } else { Folded::one(c) }
}

/// Characters that take no room on a screen: soft hyphens, joiners, direction marks, variation
/// selectors, fillers, tags, and combining marks.
fn is_invisible(code: u32) -> bool {
    matches!(code,
        0xAD | 0x300..=0x36F | 0x61C | 0x115F..=0x1160 | 0x17B4..=0x17B5 | 0x180B..=0x180F
        | 0x1AB0..=0x1AFF | 0x1DC0..=0x1DFF | 0x200B..=0x200F | 0x202A..=0x202E | 0x2060..=0x206F
        | 0x20D0..=0x20FF | 0x3164 | 0xFE00..=0xFE0F | 0xFE20..=0xFE2F | 0xFEFF | 0xFFA0
        | 0xFFF9..=0xFFFB | 0x1D173..=0x1D17A | 0xE0000..=0xE0FFF)
}

fn decimal_digit(code: u32) -> Option<char> {
    let below = DIGIT_ZEROES.partition_point(|zero| *zero <= code);
    let zero = DIGIT_ZEROES.get(below.checked_sub(1)?)?;
    char::from_digit(code - zero, 10)
}

/// Iterates over the characters of a text; over the decoded ones when it is the inside of a JSON string.
#[derive(Debug, Clone)]
pub(super) struct SourceChars<'a> {
    source: &'a str,
    at: usize,
    escapes: bool,
}

impl<'a> SourceChars<'a> {
    /// `escapes`: `source` stands between the quotes of a JSON string.
    pub(super) fn new(source: &'a str, escapes: bool) -> Self {
        Self { source, at: 0, escapes }
    }

    /// The byte of the source that comes next.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    /// Passes characters that are one byte and fold to themselves, at most so many; returns their number.
    pub(super) fn skip_plain(&mut self, most: usize) -> usize {
        let rest = self.rest().as_bytes();
        let plain = plain_len(rest.get(..most.min(rest.len())).unwrap_or_default(), self.escapes);
        self.at += plain;
        plain
    }

    fn hex4(&self, from: usize) -> Option<u32> {
        u32::from_str_radix(self.source.get(from..from + 4)?, 16).ok()
    }

    /// The character an escape at `self.at` stands for, and the escape's length.
    fn escape(&self) -> Option<(char, usize)> {
        let letter = self.source.as_bytes().get(self.at + 1)?;
        let plain = match letter {
            b'"' | b'\\' | b'/' => char::from(*letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = self.hex4(self.at + 2)?;
                if let Some(c) = char::from_u32(high) {
                    return Some((c, 6));
                }
                let low = self.hex4(self.at + 8).filter(|low| (0xDC00..0xE000).contains(low))?;
                let code = 0x1_0000 + ((high.checked_sub(0xD800)? & 0x3FF) << 10) + (low - 0xDC00);
                return Some((char::from_u32(code)?, 12));
            }
            _ => return None,
        };
        Some((plain, 2))
    }
}

impl Iterator for SourceChars<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let first = self.rest().chars().next()?;
        let (char, len) = if first == '\\' && self.escapes {
            // What is no escape cannot come from checked JSON; it is passed through as it stands.
            self.escape().unwrap_or((first, 1))
        } else {
            (first, first.len_utf8())
        };
        self.at += len;
        Some(char)
    }
}

/// Bytes that are looked at together for one that folds.
const CHUNK: usize = 16;

/// The bytes from `from` on that fold to themselves and are no escape.
fn plain_len(bytes: &[u8], escapes: bool) -> usize {
    let folds = |byte: &u8| *byte >= 0x80 || *byte == 0 || (escapes && *byte == b'\\');
    let mut plain = 0;
    for chunk in bytes.chunks(CHUNK) {
        // Without an early exit, so that the chunk is one comparison.
        if chunk.iter().fold(false, |any, byte| any | folds(byte)) {
            return plain + chunk.iter().take_while(|byte| !folds(byte)).count();
        }
        plain += chunk.len();
    }
    plain
}

/// Appends the folded characters of `source` to `text`.
pub(super) fn append_folded(text: &mut String, source: &str, escapes: bool) {
    let mut chars = SourceChars::new(source, escapes);
    loop {
        let rest = chars.rest();
        let plain = chars.skip_plain(usize::MAX);
        text.push_str(rest.get(..plain).unwrap_or_default());
        let Some(char) = chars.next() else { return };
        match TABLE.get(char as usize) {
            Some(packed) if *packed != SAME => {
                text.extend(packed.to_le_bytes().into_iter().take_while(|b| *b != 0).map(char::from));
            }
            Some(_) => text.push(char),
            None => text.extend(compute(char).chars()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folded(source: &str) -> String {
        let mut text = String::new();
        append_folded(&mut text, source, true);
        text
    }

    #[test]
    fn digit_zeroes_are_sorted() {
        assert!(DIGIT_ZEROES.is_sorted());
    }

    #[test]
    fn widths_and_styles_become_ascii() {
        assert_eq!(folded("１２３－４５－６７８９"), "123-45-6789");
        assert_eq!(folded("٠١٢३४५𝟔𝟕𝟖"), "012345678");
        assert_eq!(folded("𝐩𝐚𝐬𝐬ｗｏｒｄ"), "password");
        assert_eq!(folded("1️⃣2️⃣3️⃣"), "123");
    }

    #[test]
    fn the_table_says_what_the_rules_say() {
        for c in (0..0x11_0000).filter_map(char::from_u32) {
            let (packed, computed) = (fold(c), compute(c));
            assert!(packed.chars().eq(computed.chars()), "{c:?}");
            assert!(computed.chars().eq([c]) || computed.chars().all(|c| c.is_ascii() && c != '\0'), "{c:?}");
        }
    }

    #[test]
    fn long_texts_are_folded_everywhere() {
        let plain = "x".repeat(40);
        assert_eq!(
            folded(&format!("{plain}１{plain}\\n{plain}é{plain}")),
            format!("{plain}1{plain}\n{plain}é{plain}")
        );
    }

    #[test]
    fn what_is_unseen_disappears() {
        assert_eq!(folded("1\u{200b}2\u{ad}3\u{2060}4\u{feff}"), "1234");
    }

    #[test]
    fn ordinary_letters_stay() {
        assert_eq!(folded("Grüße, мир, 世界, ½"), "Grüße, мир, 世界, ½");
    }

    #[test]
    fn json_escapes_are_decoded() {
        assert_eq!(folded(r#"\u0031\t\n\"\\\/\ud83d\ude00\u0000"#), "1\t\n\"\\/😀\u{1}");
    }
}
