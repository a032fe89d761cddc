//! Keys and tokens that tell themselves: by a service's prefix, or by their structure.

use std::collections::HashMap;

use super::checks::Shape;
use super::hits::{Sink, at, before, run_end, run_start};
use super::kinds::Kind;
use super::layers;

/// Part of a token that is looked at for its mix of characters.
const SHAPE_MAX: usize = 40;
/// How many [`Alphabet`]s there are.
const ALPHABETS: usize = 7;
/// Price of something that begins as a token.
const TOKEN_STEPS: usize = 15;
/// Longest header of a JSON web token.
const JWT_HEADER_MAX: usize = 2 * 1024;
/// Longest PEM block; a longer one is cut there, and still found.
const PEM_MAX: usize = 64 * 1024;
/// Farthest that "BEGIN" stands before "PRIVATE KEY".
const PEM_LABEL_MAX: usize = 48;
/// Longest user and password in a URL.
const USERINFO_MAX: usize = 512;

/// What a token is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    Alnum,
    /// Letters, digits and `_`.
    Word,
    /// Letters, digits, `_` and `-`.
    Url,
    /// Letters, digits, `_`, `-` and `.`.
    Dotted,
    Hex,
    /// Capital letters and 2 to 7.
    Base32,
    /// Letters, digits, `+`, `/` and `=`.
    Base64,
}

impl Alphabet {
    pub(super) fn has(self, byte: u8) -> bool {
        match self {
            Self::Alnum => byte.is_ascii_alphanumeric(),
            Self::Word => byte.is_ascii_alphanumeric() || byte == b'_',
            Self::Url => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Self::Dotted => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Base32 => byte.is_ascii_uppercase() || matches!(byte, b'2'..=b'7'),
            Self::Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='),
        }
    }
}

/// A prefix, the kind it tells, and the alphabet and length of what follows it.
pub(super) type Prefix = (&'static str, Kind, Alphabet, usize, usize);

use Alphabet::{Alnum, Base32, Base64, Dotted, Hex, Url, Word};

/// Tokens by prefix. Prefixes are compared exactly; a token ends where its alphabet does.
pub(super) const PREFIXES: &[Prefix] = &[
    ("AKIA", Kind::AwsKey, Base32, 16, 16),
    ("ASIA", Kind::AwsKey, Base32, 16, 16),
    ("ABIA", Kind::AwsKey, Base32, 16, 16),
    ("ACCA", Kind::AwsKey, Base32, 16, 16),
    ("ghp_", Kind::GithubToken, Alnum, 36, 255),
    ("gho_", Kind::GithubToken, Alnum, 36, 255),
    ("ghu_", Kind::GithubToken, Alnum, 36, 255),
    ("ghs_", Kind::GithubToken, Alnum, 36, 255),
    ("ghr_", Kind::GithubToken, Alnum, 36, 255),
    ("github_pat_", Kind::GithubToken, Word, 50, 255),
    ("glpat-", Kind::GitlabToken, Dotted, 20, 300),
    ("gldt-", Kind::GitlabToken, Dotted, 20, 300),
    ("glrt-", Kind::GitlabToken, Dotted, 20, 300),
    ("glptt-", Kind::GitlabToken, Dotted, 20, 300),
    ("glcbt-", Kind::GitlabToken, Dotted, 20, 300),
    ("glsoat-", Kind::GitlabToken, Dotted, 20, 300),
    ("glft-", Kind::GitlabToken, Dotted, 20, 300),
    ("xoxb-", Kind::SlackToken, Url, 20, 300),
    ("xoxp-", Kind::SlackToken, Url, 20, 300),
    ("xoxa-", Kind::SlackToken, Url, 20, 300),
    ("xoxr-", Kind::SlackToken, Url, 20, 300),
    ("xoxs-", Kind::SlackToken, Url, 20, 300),
    ("xoxe-", Kind::SlackToken, Url, 20, 300),
    ("xoxe.", Kind::SlackToken, Url, 20, 300),
    ("xapp-", Kind::SlackToken, Url, 20, 300),
    ("hooks.slack.com/services/", Kind::SlackToken, Base64, 30, 100),
    ("sk_live_", Kind::StripeKey, Alnum, 16, 255),
    ("sk_test_", Kind::StripeKey, Alnum, 16, 255),
    ("rk_live_", Kind::StripeKey, Alnum, 16, 255),
    ("rk_test_", Kind::StripeKey, Alnum, 16, 255),
    ("whsec_", Kind::StripeKey, Base64, 24, 255),
    ("AIza", Kind::GoogleApiKey, Url, 35, 35),
    ("GOCSPX-", Kind::GoogleApiKey, Url, 28, 28),
    ("ya29.", Kind::GoogleApiKey, Url, 40, 2048),
    ("AccountKey=", Kind::AzureKey, Base64, 44, 88),
    ("SharedAccessKey=", Kind::AzureKey, Base64, 40, 88),
    ("npm_", Kind::NpmToken, Alnum, 36, 36),
    ("pypi-AgE", Kind::PypiToken, Url, 50, 1024),
    ("sk-ant-", Kind::AnthropicKey, Url, 24, 255),
    ("sk-proj-", Kind::OpenaiKey, Url, 32, 255),
    ("sk-svcacct-", Kind::OpenaiKey, Url, 32, 255),
    ("sk-admin-", Kind::OpenaiKey, Url, 32, 255),
    ("sk-or-v1-", Kind::ServiceToken, Hex, 64, 64),
    ("sk-", Kind::OpenaiKey, Alnum, 32, 255),
    ("SG.", Kind::SendgridKey, Dotted, 66, 66),
    ("hf_", Kind::HuggingfaceToken, Alnum, 30, 60),
    ("shpat_", Kind::ServiceToken, Hex, 32, 32),
    ("shpss_", Kind::ServiceToken, Hex, 32, 32),
    ("shpca_", Kind::ServiceToken, Hex, 32, 32),
    ("shppa_", Kind::ServiceToken, Hex, 32, 32),
    ("dop_v1_", Kind::ServiceToken, Hex, 64, 64),
    ("doo_v1_", Kind::ServiceToken, Hex, 64, 64),
    ("dor_v1_", Kind::ServiceToken, Hex, 64, 64),
    ("dapi", Kind::ServiceToken, Hex, 32, 32),
    ("hvs.", Kind::ServiceToken, Url, 24, 255),
    ("hvb.", Kind::ServiceToken, Url, 24, 1024),
    ("dckr_pat_", Kind::ServiceToken, Url, 27, 64),
    ("lin_api_", Kind::ServiceToken, Alnum, 40, 64),
    ("ntn_", Kind::ServiceToken, Alnum, 40, 64),
    ("secret_", Kind::ServiceToken, Alnum, 43, 43),
    ("PMAK-", Kind::ServiceToken, Url, 50, 80),
    ("NRAK-", Kind::ServiceToken, Alnum, 27, 27),
    ("sq0atp-", Kind::ServiceToken, Url, 22, 22),
    ("sq0csp-", Kind::ServiceToken, Url, 43, 43),
    ("figd_", Kind::ServiceToken, Url, 38, 64),
    ("glsa_", Kind::ServiceToken, Word, 40, 64),
    ("glc_", Kind::ServiceToken, Base64, 40, 400),
    ("rubygems_", Kind::ServiceToken, Hex, 48, 48),
    ("gsk_", Kind::ServiceToken, Alnum, 48, 64),
    ("pplx-", Kind::ServiceToken, Alnum, 40, 64),
    ("xai-", Kind::ServiceToken, Alnum, 60, 100),
    ("r8_", Kind::ServiceToken, Alnum, 37, 37),
    ("sbp_", Kind::ServiceToken, Hex, 40, 40),
    ("sntrys_", Kind::ServiceToken, Base64, 40, 400),
    ("ATATT3", Kind::ServiceToken, Dotted, 80, 400),
    ("key-", Kind::ServiceToken, Hex, 32, 32),
    ("AGE-SECRET-KEY-1", Kind::PrivateKey, Alnum, 58, 58),
    ("b3BlbnNzaC1rZXktdjE", Kind::PrivateKey, Base64, 16, 64 * 1024),
    ("cio", Kind::ServiceToken, Alnum, 32, 32),
];

/// Memory of the last run of each alphabet, so that many prefixes within one run cost one walk over it.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Runs {
    spans: [(usize, usize); ALPHABETS],
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
pub(super) fn prefixed(text: &[u8], start: usize, prefix: &Prefix, runs: &mut Runs, sink: &mut Sink<'_>) {
    let (literal, kind, alphabet, least, most) = *prefix;
    let body = start + literal.len();
    let left = before(text, start);
    let exact = text.get(start..body) == Some(literal.as_bytes());
    if !exact || left.is_ascii_alphanumeric() {
        return;
    }
    sink.spend(TOKEN_STEPS);
    let end = runs.end(text, alphabet, body).min(body + most + 1);
    let length = end - body;
    if length < least || (least == most && length != least) {
        return;
    }
    if least == most && at(text, end).is_ascii_alphanumeric() {
        return;
    }
    let shape = Shape::of(text.get(body..end.min(body + SHAPE_MAX)).unwrap_or_default());
    // Words and file names behind a short prefix have no digits, or nothing else.
    let mixed = shape.digits >= 2 && shape.upper + shape.lower >= 2;
    let fits = match literal {
        "AKIA" | "ASIA" | "ABIA" | "ACCA" => shape.upper > 0,
        "sk-" | "cio" | "gsk_" | "ntn_" => mixed && shape.upper > 0 && shape.lower > 0,
        "SG." => at(text, body + 22) == b'.',
        _ => mixed || shape.upper >= 4 && shape.lower >= 4,
    };
    if fits {
        sink.add(kind, start, end.min(body + most));
    }
}

/// Long runs of one alphabet whose length and beginning tell them: a Twilio key, an Azure client secret.
pub(super) fn run(text: &[u8], start: usize, end: usize, sink: &mut Sink<'_>) {
    let body = text.get(start..end).unwrap_or_default();
    if let [b'S', b'K', hex @ ..] = body
        && hex.len() == 32
        && hex.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    {
        sink.add(Kind::TwilioKey, start, end);
    }
}

/// An Azure client secret around the `Q~` at `sign`.
pub(super) fn azure_secret(text: &[u8], sign: usize, sink: &mut Sink<'_>) {
    let has = |b: u8| Dotted.has(b) || b == b'~';
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
    if Url.has(left) || left == b'.' || text.get(start..start + 3) != Some(b"eyJ") {
        return;
    }
    let header_end = run_end(text, start, JWT_HEADER_MAX, |b| Url.has(b));
    sink.spend(2 * TOKEN_STEPS + (header_end - start) / 2);
    if at(text, header_end) != b'.' || !Url.has(at(text, header_end + 1)) {
        return;
    }
    let payload_end = run_end(text, header_end + 1, PEM_MAX, |b| Url.has(b));
    sink.spend((payload_end - header_end) / 2 + TOKEN_STEPS);
    if at(text, payload_end) != b'.' {
        return;
    }
    // Three parts are signed, five encrypted; the signature of an unsigned one is empty.
    let end = run_end(text, payload_end + 1, PEM_MAX, |b| Url.has(b) || b == b'.');
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
        let inner = |b: u8| Base64.has(b) || matches!(b, b'-' | b'\r' | b'\n' | b'\\' | b' ');
        let body = run_end(text, label_end, PEM_MAX, inner);
        sink.add(Kind::PrivateKey, dashes, body);
        return body;
    };
    let label_end = run_end(text, footer + "PRIVATE KEY".len(), 16, |b| b.is_ascii_uppercase() || b == b' ');
    let block_end = run_end(text, label_end, 8, |b| b == b'-');
    sink.add(Kind::PrivateKey, dashes, block_end);
    block_end
}

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
    let password = text.get(start + colon + 1..end).and_then(|password| std::str::from_utf8(password).ok());
    if password.is_some_and(|password| !password.is_empty() && !super::checks::is_placeholder(password)) {
        sink.add(Kind::Password, start + colon + 1, end);
    }
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
