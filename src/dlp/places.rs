//! E-mail and street addresses, diagnosis codes, bank account numbers: what is told by its shape from an
//! anchor that the byte pass finds (`@`, a number, a letter before a digit).

use super::checks;
use super::hits::{Sink, at, before, run_end, run_start};
use super::kinds::Kind;

/// Longest local part and domain of an e-mail address.
const LOCAL_MAX: usize = 64;
const DOMAIN_MAX: usize = 128;
/// Price of an `@`, of a number before a word, and of a country's letters before a digit.
const SIGN_STEPS: usize = 8;
const IBAN_STEPS: usize = 40;
/// Most words of a street's name, and longest word.
const STREET_WORDS: usize = 4;
const STREET_WORD_MAX: usize = 20;
/// Most characters between two groups of an IBAN.
const IBAN_TEXT_MAX: usize = 2 * checks::IBAN_MAX;

/// Endings of file names such as `logo@2x.png`.
const FILE_ENDINGS: &[&str] = &[
    "png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "mjs", "ts", "html", "json", "service",
    "target", "socket", "timer", "tgz", "gz", "zip",
];

fn is_local(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'%' | b'+' | b'-' | 0x80..)
}

/// An e-mail address around the `@` at `sign`.
pub(super) fn email(text: &[u8], sign: usize, sink: &mut Sink<'_>) {
    let domain_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | 0x80..);
    let begins = at(text, sign + 1);
    if !(begins.is_ascii_alphanumeric() || begins >= 0x80) || !is_local(before(text, sign)) {
        return;
    }
    sink.spend(SIGN_STEPS);
    let start = run_start(text, sign, LOCAL_MAX + 1, is_local);
    let start = run_end(text, start, LOCAL_MAX + 1, |b| matches!(b, b'.' | b'-' | b'%')).min(sign);
    let end = run_end(text, sign + 1, DOMAIN_MAX + 1, domain_byte);
    if sign - start == 0 || sign - start > LOCAL_MAX || end - sign > DOMAIN_MAX || before(text, sign) == b'.'
    {
        return;
    }
    let end = run_start(text, end, DOMAIN_MAX, |b| matches!(b, b'.' | b'-')).max(sign + 1);
    let domain = text.get(sign + 1..end).unwrap_or_default();
    let Some(dot) = memchr::memrchr(b'.', domain) else { return };
    let last = domain.get(dot + 1..).unwrap_or_default();
    let letters = last.iter().all(|b| b.is_ascii_alphabetic() || *b >= 0x80);
    let encoded = last.get(..4).is_some_and(|head| head.eq_ignore_ascii_case(b"xn--"));
    if !(2..=63).contains(&last.len())
        || !(letters || encoded)
        || letters && last.is_ascii() && last.len() > 24
    {
        return;
    }
    if domain.split(|b| *b == b'.').any(<[u8]>::is_empty) {
        return;
    }
    if FILE_ENDINGS.iter().any(|ending| last.eq_ignore_ascii_case(ending.as_bytes())) {
        return;
    }
    // The account of a remote: "git@example.org:team/x", "ssh://git@example.org", "https://user:pw@example.org".
    let user = text.get(start..sign).unwrap_or_default();
    let account = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'%');
    let authority = match before(text, start) {
        b':' => run_start(text, start - 1, LOCAL_MAX, account),
        _ => start,
    };
    let remote = user.eq_ignore_ascii_case(b"git")
        || before(text, authority) == b'/'
            && authority.checked_sub(2).is_some_and(|place| at(text, place) == b'/');
    if remote || matches!(at(text, end), b'@') {
        return;
    }
    sink.add(Kind::Email, start, end);
}

/// What a word of an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreetWord {
    /// Makes a street of any words before it.
    Street,
    /// Does so only among capitalised words: "Dr", "Way".
    Capital,
    /// Stands between a number and "street" where no street is meant: "a two way street".
    Other,
    Name,
}

fn street_word(word: &[u8]) -> StreetWord {
    let mut lower = [0_u8; 9];
    let Some(letters) = lower.get_mut(..word.len()) else { return StreetWord::Name };
    letters.copy_from_slice(word);
    letters.make_ascii_lowercase();
    match &*letters {
        b"street" | b"avenue" | b"boulevard" => StreetWord::Street,
        b"way" if word.first() == Some(&b'w') => StreetWord::Other,
        b"st" | b"ave" | b"blvd" | b"road" | b"rd" | b"lane" | b"ln" | b"drive" | b"dr" | b"court"
        | b"ct" | b"way" | b"place" | b"pl" | b"terrace" | b"circle" | b"cir" | b"highway" | b"hwy"
        | b"parkway" | b"pkwy" | b"square" | b"sq" | b"trail" => StreetWord::Capital,
        b"minute" | b"minutes" | b"mile" | b"miles" | b"on" | b"the" | b"a" | b"of" | b"per" | b"for" => {
            StreetWord::Other
        }
        _ => StreetWord::Name,
    }
}

/// A US street address that begins with the number `start..end`.
pub(super) fn street(text: &[u8], start: usize, end: usize, sink: &mut Sink<'_>) {
    let left = before(text, start);
    if left.is_ascii_alphanumeric() || matches!(left, b'.' | b'-' | b'_' | b'/' | b':' | b'$' | b'%' | b'=') {
        return;
    }
    sink.spend(SIGN_STEPS);
    let mut from = end;
    let mut capitals = 0;
    for words in 0..=STREET_WORDS {
        if at(text, from) != b' ' {
            return;
        }
        let word_end = run_end(text, from + 1, STREET_WORD_MAX, |b| {
            b.is_ascii_alphanumeric() || matches!(b, b'\'' | b'-' | b'.')
        });
        let word = text.get(from + 1..word_end).unwrap_or_default();
        let Some(first) = word.first() else { return };
        let bare = word.strip_suffix(b".").unwrap_or(word);
        // "5th Avenue" has a number for a name; a row of numbers has not.
        let number = first.is_ascii_digit();
        let digits = bare.iter().any(u8::is_ascii_digit);
        if digits && (words > 0 || !number || bare.iter().all(u8::is_ascii_digit)) {
            return;
        }
        let capital = first.is_ascii_uppercase();
        match street_word(bare) {
            StreetWord::Street if words > 0 => return sink.add(Kind::Address, start, from + 1 + bare.len()),
            StreetWord::Capital if words > 0 && capital && capitals == words => {
                return sink.add(Kind::Address, start, from + 1 + bare.len());
            }
            StreetWord::Other => return,
            _ => {}
        }
        capitals += usize::from(capital || number);
        from = word_end;
    }
}

/// A dotted diagnosis code whose digits begin at `digits`: "E11.9".
pub(super) fn diagnosis(text: &[u8], digits: usize, sink: &mut Sink<'_>) {
    let Some(start) = digits.checked_sub(1) else { return };
    let left = before(text, start);
    let glue = |byte: u8| byte.is_ascii_alphanumeric() || byte >= 0x80;
    if !at(text, start).is_ascii_uppercase()
        || glue(left)
        || matches!(left, b'-' | b'_' | b'.' | b'/' | b'#' | b'=')
    {
        return;
    }
    if at(text, start + 3) != b'.' {
        return;
    }
    let end = run_end(text, start + 4, 6, |b| b.is_ascii_alphanumeric());
    let code = text.get(start..end).unwrap_or_default();
    let right = at(text, end);
    let more = matches!(right, b'.' | b'-' | b'_' | b'/' | b'+') && glue(at(text, end + 1))
        || matches!(right, b'%' | b'_');
    if checks::is_icd10(code) && !more {
        sink.add(Kind::Icd10, start, end);
    }
}

/// An IBAN that begins at `start`, with groups parted by single blanks or dashes or none.
pub(super) fn iban(text: &[u8], start: usize, sink: &mut Sink<'_>) {
    let Some((length, digits_only)) = checks::iban_country(at(text, start), at(text, start + 1)) else {
        return;
    };
    let left = before(text, start);
    // The middle of an id: "fbf9080f-ad6f-4977".
    let middle = left == b'-' && before(text, start - 1).is_ascii_hexdigit() && at(text, start + 4) == b'-';
    if left.is_ascii_alphanumeric() || matches!(left, b'+' | b'/') || middle {
        return;
    }
    sink.spend(IBAN_STEPS);
    let mut compact = [0_u8; checks::IBAN_MAX];
    let (mut len, mut end) = (0, start);
    for (offset, byte) in text.get(start..).unwrap_or_default().iter().take(IBAN_TEXT_MAX).enumerate() {
        if byte.is_ascii_alphanumeric() {
            if digits_only && len >= 2 && !byte.is_ascii_digit() {
                return;
            }
            let Some(slot) = compact.get_mut(len) else { return };
            *slot = *byte;
            len += 1;
            end = start + offset + 1;
            if len == length {
                break;
            }
        } else if !matches!(byte, b' ' | b'\t' | b'-' | b'.')
            || !at(text, start + offset + 1).is_ascii_alphanumeric()
        {
            return;
        }
    }
    if len != length || matches!(at(text, end), b'+' | b'/' | b'=') || at(text, end).is_ascii_alphanumeric() {
        return;
    }
    if compact.get(..len).is_some_and(checks::iban_checksum) {
        sink.add(Kind::Iban, start, end);
    }
}
