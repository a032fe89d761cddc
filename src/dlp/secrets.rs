//! Keys and tokens that tell themselves: by a service's prefix, or by their structure.

use std::collections::HashMap;

use super::catalogue::{Alphabet, Mixed, TokenRule};
use super::checks::Shape;
use super::hits::{Sink, at, before, run_end, run_start};
use super::kinds::Kind;
use super::layers;

/// Part of a token that is looked at for its mix of characters.
const SHAPE_MAX: usize = 128;
/// Price of something that begins as a token.
const TOKEN_STEPS: usize = 8;
/// Longest header of a JSON web token.
const JWT_HEADER_MAX: usize = 2 * 1024;
/// Longest PEM block; a longer one is cut there, and still found.
const PEM_MAX: usize = 64 * 1024;
/// Farthest that "BEGIN" stands before "PRIVATE KEY".
const PEM_LABEL_MAX: usize = 48;
/// Longest user and password in a URL.
const USERINFO_MAX: usize = 512;

/// Memory of the last run of each alphabet, so that many prefixes within one run cost one walk over it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Runs {
    spans: [(usize, usize); Alphabet::COUNT],
}

impl Runs {
    /// The end of the run of an alphabet's characters from `from` on.
    fn end(&mut self, text: &[u8], alphabet: Alphabet, from: usize) -> usize {
        let Some((start, end)) = self.spans.get_mut(alphabet as usize) else { return from };
        if from < *start || from >= *end {
            *start = from;
            *end = run_end(text, from, usize::MAX, |b| alphabet.has(b));
        }
        *end
    }
}

/// A token whose prefix stands at `start`.
pub(super) fn prefixed(text: &[u8], start: usize, rule: &TokenRule, runs: &mut Runs, sink: &mut Sink<'_>) {
    let (least, most) = rule.length();
    let body = start + rule.prefix.len();
    let left = before(text, start);
    let exact = text.get(start..body) == Some(rule.prefix.as_bytes());
    if !exact || left.is_ascii_alphanumeric() {
        return;
    }
    sink.spend(TOKEN_STEPS);
    let end = runs.end(text, rule.alphabet, body).min(body + most + 1);
    let length = end - body;
    if length < least || (least == most && length != least) {
        return;
    }
    if least == most && at(text, end).is_ascii_alphanumeric() {
        return;
    }
    let token = text.get(body..end.min(body + SHAPE_MAX)).unwrap_or_default();
    sink.spend(5 * TOKEN_STEPS + token.len());
    let shape = Shape::of(token);
    if !is_varied(token) {
        return;
    }
    // Words and file names behind a short prefix have no digits, or nothing else.
    let mixed = shape.digits >= 2 && shape.upper + shape.lower >= 2;
    let fits = match (rule.prefix.as_str(), rule.alphabet, rule.mixed) {
        (_, Alphabet::Base32, _) => shape.upper > 0,
        ("SG.", ..) => at(text, body + 22) == b'.',
        (_, _, Mixed::Both) => mixed && shape.upper > 0 && shape.lower > 0,
        (_, _, Mixed::Digits) => mixed || shape.upper >= 4 && shape.lower >= 4,
    };
    if fits {
        sink.add(rule.kind, start, end.min(body + most));
    }
}

/// More than a few characters again and again: "XXXXXXXX".
fn is_varied(token: &[u8]) -> bool {
    let seen = token.iter().fold(0_u128, |seen, byte| seen | 1 << (byte & 0x7f));
    seen.count_ones() >= VARIETY
}

/// Different characters that a token has at least.
const VARIETY: u32 = 5;

/// Long runs whose form tells them: a Twilio key, one of Mailchimp, a token of Asana, that of a Discord bot, one of Terraform Cloud.
pub(super) fn run(text: &[u8], start: usize, end: usize, sink: &mut Sink<'_>) {
    let body = text.get(start..end).unwrap_or_default();
    if let [b'S', b'K', hex @ ..] = body
        && hex.len() == 32
        && hex.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        sink.add(Kind::TwilioKey, start, end);
    }
    let small_hex = |part: &[u8]| part.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    // 0123456789abcdef0123456789abcdef-us8
    if let Some((key, [b'-', b'u', b's', center @ ..])) = body.split_at_checked(32)
        && (1..=2).contains(&center.len())
        && center.iter().all(u8::is_ascii_digit)
        && small_hex(key)
        && Shape::of(key).digits > 0
    {
        sink.add(Kind::ServiceToken, start, end);
    }
    // 1/0123456789012345:0123456789abcdef0123456789abcdef
    if let [b'0' | b'1' | b'2', b'/', number @ ..] = body
        && number.len() == 16
        && number.iter().all(u8::is_ascii_digit)
        && at(text, end) == b':'
    {
        let last = run_end(text, end + 1, 33, |b| b.is_ascii_alphanumeric());
        if last - end - 1 == 32 && text.get(end + 1..last).is_some_and(small_hex) {
            sink.add(Kind::ServiceToken, start, last);
        }
    }
    if at(text, end) != b'.' {
        return;
    }
    let part = |from: usize| run_end(text, from, 128, |b| Alphabet::Url.has(b));
    let second = part(end + 1);
    let third = if at(text, second) == b'.' { part(second + 1) } else { second };
    let discord = matches!(body.first(), Some(b'M' | b'N' | b'O'))
        && (23..=28).contains(&body.len())
        && second - end - 1 == 6
        && (27..=40).contains(&(third.saturating_sub(second + 1)));
    let terraform = body.len() == 14 && text.get(end + 1..second) == Some(b"atlasv1") && third - second > 60;
    if discord && Shape::of(body).digits > 0 || terraform {
        sink.add(Kind::ServiceToken, start, third);
    }
}

/// An Azure client secret around the `Q~` at `sign`.
pub(super) fn azure_secret(text: &[u8], sign: usize, sink: &mut Sink<'_>) {
    let has = |b: u8| Alphabet::Dotted.has(b) || b == b'~';
    if !before(text, sign).is_ascii_digit() {
        return;
    }
    sink.spend(TOKEN_STEPS);
    let start = run_start(text, sign, 5, has);
    if sign - start != 4 {
        return;
    }
    let end = run_end(text, sign + 2, 40, has);
    if (31..=34).contains(&(end - sign - 2)) {
        sink.add(Kind::AzureKey, start, end);
    }
}

/// A JSON web token whose header begins at `start` with `eyJ`.
pub(super) fn jwt(text: &[u8], start: usize, buffer: &mut Vec<u8>, sink: &mut Sink<'_>) {
    let left = before(text, start);
    if Alphabet::Url.has(left) || left == b'.' || text.get(start..start + 3) != Some(b"eyJ") {
        return;
    }
    let header_end = run_end(text, start, JWT_HEADER_MAX, |b| Alphabet::Url.has(b));
    sink.spend(2 * TOKEN_STEPS + (header_end - start) / 2);
    if at(text, header_end) != b'.' || !Alphabet::Url.has(at(text, header_end + 1)) {
        return;
    }
    let payload_end = run_end(text, header_end + 1, PEM_MAX, |b| Alphabet::Url.has(b));
    sink.spend((payload_end - header_end) / 2 + TOKEN_STEPS);
    if at(text, payload_end) != b'.' {
        return;
    }
    // Three parts are signed, five encrypted; the signature of an unsigned one is empty.
    let end = run_end(text, payload_end + 1, PEM_MAX, |b| Alphabet::Url.has(b) || b == b'.');
    let end = if at(text, end.saturating_sub(1)) == b'.' && end > payload_end + 1 { end - 1 } else { end };
    sink.spend((end - payload_end) / 2 + 4 * (header_end - start));
    buffer.clear();
    let header = text.get(start..header_end).unwrap_or_default();
    if !layers::base64(header, buffer) {
        return;
    }
    let parsed: Result<HashMap<String, serde::de::IgnoredAny>, _> = serde_json::from_slice(buffer);
    if parsed.is_ok_and(|members| members.contains_key("alg")) {
        sink.add(Kind::Jwt, start, end);
    }
}

/// A private key around the words "PRIVATE KEY" at `start..end`: a PEM, OpenSSH, SSH2 or PGP block.
/// Returns how far the block reaches.
pub(super) fn pem(text: &[u8], start: usize, end: usize, sink: &mut Sink<'_>) -> usize {
    sink.spend(PEM_LABEL_MAX);
    let head_start = run_start(text, start, PEM_LABEL_MAX, |b| b != 0 && b != b'\n');
    let head = text.get(head_start..start).unwrap_or_default();
    let Some(begin) = find_begin(head) else { return end };
    let dashes = run_start(text, run_start(text, head_start + begin, 1, |b| b == b' '), 8, |b| b == b'-');
    let label_end = run_end(text, end, 16, |b| b.is_ascii_uppercase() || b == b' ');
    if run_end(text, dashes, 4, |b| b == b'-') - dashes < 4 || at(text, label_end) != b'-' {
        return end;
    }
    let block = text.get(label_end..text.len().min(label_end + PEM_MAX)).unwrap_or_default();
    let footer = memchr::memmem::find(block, b"PRIVATE KEY").map(|at| label_end + at);
    let ended = footer.filter(|footer| {
        let body = text.get(label_end..*footer).unwrap_or_default();
        let near = body.get(body.len().saturating_sub(PEM_LABEL_MAX)..).unwrap_or_default();
        memchr::memmem::find(near, b"END").is_some() && memchr::memchr(0, body).is_none()
    });
    let Some(footer) = ended else {
        // Without an end the block is as long as base64 goes on.
        let inner = |b: u8| Alphabet::Base64.has(b) || matches!(b, b'-' | b'\r' | b'\n' | b'\\' | b' ');
        let body = run_end(text, label_end, PEM_MAX, inner);
        sink.add(Kind::PrivateKey, dashes, body);
        return body;
    };
    // Documents name both lines with words between them.
    let body = text.get(label_end..footer).unwrap_or_default();
    let quoted = memchr::memchr3(b'"', b'\'', b'`', body).is_some();
    if quoted && body.iter().filter(|b| Alphabet::Base64.has(**b)).count() < PEM_LEAST {
        return footer;
    }
    let label_end = run_end(text, footer + "PRIVATE KEY".len(), 16, |b| b.is_ascii_uppercase() || b == b' ');
    let block_end = run_end(text, label_end, 8, |b| b == b'-');
    sink.add(Kind::PrivateKey, dashes, block_end);
    block_end
}

/// Fewest characters of base64 in a key that is written with quotes, with the word "END".
const PEM_LEAST: usize = 20;

fn find_begin(head: &[u8]) -> Option<usize> {
    head.windows(5).rposition(|word| word.eq_ignore_ascii_case(b"begin"))
}

/// A password in a URL whose `://` is at `sign`.
pub(super) fn url_password(text: &[u8], sign: usize, sink: &mut Sink<'_>) {
    if !before(text, sign).is_ascii_alphanumeric() {
        return;
    }
    let start = sign + 3;
    let stops = |b: u8| {
        b <= b' '
            || matches!(
                b,
                b'/' | b'?' | b'#' | b'"' | b'\'' | b'<' | b'>' | b'@' | b'\\' | b',' | b'|' | b'`'
            )
    };
    let end = run_end(text, start, USERINFO_MAX, |b| !stops(b));
    sink.spend(TOKEN_STEPS + (end - start));
    if at(text, end) != b'@' {
        return;
    }
    let user = text.get(start..end).unwrap_or_default();
    let Some(colon) = memchr::memchr(b':', user) else { return };
    sink.spend(8 * TOKEN_STEPS);
    let password = text.get(start + colon + 1..end).and_then(|password| std::str::from_utf8(password).ok());
    let name = user.get(..colon).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
    if password.is_some_and(|password| is_url_password(name, password)) {
        sink.add(Kind::Password, start + colon + 1, end);
    }
}

/// The password of `jdbc:oracle:thin:USER/PASSWORD@HOST`, behind its scheme.
pub(super) fn oracle_password(text: &[u8], from: usize, sink: &mut Sink<'_>) {
    let driver = run_end(text, from, 8, |b| b.is_ascii_alphanumeric());
    if at(text, driver) != b':' {
        return;
    }
    let inside = |b: u8| b > b' ' && !matches!(b, b'@' | b'"' | b'\'' | b'<' | b'>' | b'`' | b'\\');
    let user = run_end(text, driver + 1, USERINFO_MAX, |b| inside(b) && b != b'/');
    let end = run_end(text, user, USERINFO_MAX, inside);
    sink.spend(8 * TOKEN_STEPS + 2 * (end - from));
    if at(text, user) != b'/' || at(text, end) != b'@' || user == driver + 1 {
        return;
    }
    let part = |from: usize, to: usize| text.get(from..to).and_then(|part| std::str::from_utf8(part).ok());
    if let (Some(name), Some(password)) = (part(driver + 1, user), part(user + 1, end))
        && is_url_password(name, password)
    {
        sink.add(Kind::Password, user + 1, end);
    }
}

/// Whether a password in a URL is one, and no example of one.
fn is_url_password(user: &str, password: &str) -> bool {
    !password.is_empty()
        && !password.starts_with(['[', '<', '{', '$', '%', '@'])
        && !super::checks::is_placeholder(password)
        && !super::checks::is_example_password(user, password)
}

/// A PuTTY key file, which begins at `start` and is a finding to the end of its segment. Returns how far
/// it was looked at.
pub(super) fn putty(text: &[u8], start: usize, sink: &mut Sink<'_>) -> usize {
    let end = run_end(text, start, PEM_MAX, |b| b != 0);
    let body = text.get(start..end).unwrap_or_default();
    if memchr::memmem::find(body, b"Private-Lines").is_some() {
        sink.add(Kind::PrivateKey, start, end);
    }
    end
}

/// The token of a Telegram bot, around the `:AA` at `sign`: the bot's number, and 35 characters.
pub(super) fn telegram(text: &[u8], sign: usize, sink: &mut Sink<'_>) {
    let start = run_start(text, sign, 11, |b| b.is_ascii_digit());
    sink.spend(TOKEN_STEPS);
    let end = run_end(text, sign + 1, 36, |b| Alphabet::Url.has(b));
    let glued = run_start(text, start, 4, |b| b.is_ascii_alphanumeric());
    let edge = glued == start || text.get(glued..start).is_some_and(|word| word.eq_ignore_ascii_case(b"bot"));
    if edge
        && (8..=10).contains(&(sign - start))
        && end - sign - 1 == 35
        && text.get(sign + 1..sign + 3) == Some(b"AA")
    {
        sink.add(Kind::ServiceToken, start, end);
    }
}

/// How far from its type the private part of a JSON web key stands, and the price of looking for it.
const JWK_REACH: usize = 4 * 1024;
const JWK_STEPS: usize = 20;
/// Shortest private part.
const JWK_LEAST: usize = 16;

/// The private part of a JSON web key in a text, whose `kty` stands at `start..end`.
pub(super) fn jwk(text: &[u8], (start, end): (usize, usize), sink: &mut Sink<'_>) {
    let next = run_end(text, end, 4, |b| matches!(b, b'"' | b'\'' | b'\\' | b' '));
    if before(text, start).is_ascii_alphanumeric() || !matches!(at(text, next), b':' | b'=') {
        return;
    }
    let inside = |b: u8| b != 0 && b != b'{' && b != b'}';
    let from = run_start(text, start, JWK_REACH, inside);
    let to = run_end(text, end, JWK_REACH, inside);
    let object = text.get(from..to).unwrap_or_default();
    sink.spend(JWK_STEPS + object.len());
    for place in memchr::memchr2_iter(b'd', b'k', object) {
        if sink.is_spent() {
            return;
        }
        sink.spend(TOKEN_STEPS);
        let name = from + place;
        let edge = before(text, name);
        let after = run_end(text, name + 1, 2, |b| matches!(b, b'"' | b'\'' | b'\\'));
        let lead = run_end(text, after, 2, |b| b == b' ');
        if edge.is_ascii_alphanumeric() || edge == b'_' || !matches!(at(text, lead), b':' | b'=') {
            continue;
        }
        let value = run_end(text, lead + 1, 4, |b| matches!(b, b'"' | b'\'' | b'\\' | b' '));
        let value_end = run_end(text, value, JWK_REACH, |b| Alphabet::Url.has(b));
        if value_end - value >= JWK_LEAST {
            sink.spend(value_end - value);
            sink.add(Kind::PrivateKey, value, value_end);
        }
    }
}
