//! Labelled samples, made from a fixed seed: the same in every run.

/// A clean message as agents send them.
pub(crate) const CLEAN: &str = r#"{"task":"summarise","correlation_id":"7b1d6b1e-4f0a-4c44-9c7e-2f1f0f9a1b2c","priority":3,"payload":{"title":"Quarterly report","lines":["Revenue grew in all regions","Costs were flat"],"count":1289,"ok":true,"updated_at":"2024-05-01T12:30:45Z"}}"#;

const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const HEX: &str = "0123456789abcdef";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const DIGITS: &str = "0123456789";

/// A small generator (SplitMix64): fixed seed, no dependency.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.bytes().fold(0x9e37_79b9_7f4a_7c15, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte)))
    }

    pub(crate) fn clone_step(&mut self) -> Self {
        Self(self.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let at = self.below(list.len() as u64) as usize;
        list.get(at).copied().unwrap_or_default()
    }

    fn text(&mut self, alphabet: &str, length: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..length).filter_map(|_| letters.get(self.below(letters.len() as u64) as usize)).collect()
    }
}

/// One row of the table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// Types that count as found.
    pub(crate) kinds: &'static [&'static str],
    pub(crate) positive: fn(&mut Random) -> String,
    /// Look-alikes that are none; `None`: not measured.
    pub(crate) negative: Option<fn(&mut Random) -> String>,
}

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row { name: "credit_card", kinds: &["credit_card"], positive: card, negative: Some(no_card) },
        Row { name: "ssn", kinds: &["ssn"], positive: ssn, negative: Some(no_ssn) },
        Row { name: "iban", kinds: &["iban"], positive: iban, negative: Some(no_iban) },
        Row { name: "aws key id", kinds: &["aws_key"], positive: aws, negative: Some(hash) },
        Row { name: "github token", kinds: &["github_token"], positive: github, negative: Some(hash) },
        Row { name: "slack token", kinds: &["slack_token"], positive: slack, negative: Some(hash) },
        Row { name: "stripe key", kinds: &["stripe_key"], positive: stripe, negative: Some(hash) },
        Row { name: "google api key", kinds: &["google_api_key"], positive: google, negative: Some(hash) },
        Row { name: "card, full-width", kinds: &["credit_card"], positive: wide_card, negative: None },
        Row { name: "card, zero-width", kinds: &["credit_card"], positive: invisible_card, negative: None },
        Row { name: "ssn, base64", kinds: &["ssn"], positive: base64_ssn, negative: None },
        Row { name: "ssn, hex", kinds: &["ssn"], positive: hex_ssn, negative: None },
        Row { name: "ssn, percent", kinds: &["ssn"], positive: percent_ssn, negative: None },
        Row { name: "ssn, JSON in string", kinds: &["ssn"], positive: nested_ssn, negative: None },
    ]
}

/// A document with one text in it.
pub(crate) fn document(random: &mut Random, text: &str) -> String {
    let key = random.of(&["note", "text", "value", "body", "message"]);
    let words = random.of(&["see", "for the file:", "as agreed", "please use", "re"]);
    // JSON in a string is the whole string.
    let text = if text.starts_with('{') { text.to_owned() } else { format!("{words} {text} thanks") };
    serde_json::json!({"from": "alpha", key: text, "n": random.below(1000)}).to_string()
}

fn luhn_digit(digits: &str) -> u32 {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(at, byte)| {
            let digit = u32::from(byte - b'0');
            let doubled = if at % 2 == 0 { digit * 2 } else { digit };
            doubled / 10 + doubled % 10
        })
        .sum();
    (10 - sum % 10) % 10
}

fn card_digits(random: &mut Random) -> String {
    let (prefix, length) = match random.below(5) {
        0 => ("4", 16),
        1 => (random.of(&["51", "52", "53", "54", "55"]), 16),
        2 => (random.of(&["34", "37"]), 15),
        3 => ("6011", 16),
        _ => ("3530", 16),
    };
    let body = random.text(DIGITS, length - 1 - prefix.len());
    let digits = format!("{prefix}{body}");
    format!("{digits}{}", luhn_digit(&digits))
}

fn spaced(random: &mut Random, digits: &str) -> String {
    let separator = random.of(&["", " ", "-"]);
    let cuts: &[usize] = if digits.len() == 15 { &[4, 10] } else { &[4, 8, 12] };
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if cuts.contains(&at) {
            text.push_str(separator);
        }
        text.push(digit);
    }
    text
}

fn card(random: &mut Random) -> String {
    let digits = card_digits(random);
    spaced(random, &digits)
}

/// The right shape, the wrong check digit.
fn no_card(random: &mut Random) -> String {
    let mut digits = card_digits(random);
    let last = digits.pop().and_then(|digit| digit.to_digit(10)).unwrap_or(0);
    digits.push_str(&((last + 1 + random.below(8) as u32) % 10).to_string());
    spaced(random, &digits)
}

fn wide_card(random: &mut Random) -> String {
    card(random)
        .chars()
        .map(|c| {
            char::from_u32(if c.is_ascii_digit() { c as u32 - 0x30 + 0xff10 } else { c as u32 }).unwrap_or(c)
        })
        .collect()
}

fn invisible_card(random: &mut Random) -> String {
    card(random).chars().flat_map(|c| [c, '\u{200b}']).collect()
}

fn ssn(random: &mut Random) -> String {
    let area = 1 + random.below(665);
    let (group, serial) = (1 + random.below(99), 1 + random.below(9999));
    let separator = random.of(&["-", " ", "\t", "."]);
    format!("{area:03}{separator}{group:02}{separator}{serial:04}")
}

/// Areas, groups and serials that were never given out.
fn no_ssn(random: &mut Random) -> String {
    let (group, serial) = (1 + random.below(99), 1 + random.below(9999));
    match random.below(4) {
        0 => format!("000-{group:02}-{serial:04}"),
        1 => format!("666-{group:02}-{serial:04}"),
        2 => format!("9{:02}-{group:02}-{serial:04}", random.below(100)),
        _ => format!("{:03}-00-{serial:04}", 1 + random.below(665)),
    }
}

fn base64_ssn(random: &mut Random) -> String {
    base64(&format!("the number is {} today", ssn(random)))
}

pub(crate) fn base64(text: &str) -> String {
    const TABLE: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..4 {
            let index = (bits >> (18 - 6 * at) & 63) as usize;
            out.push(if at > chunk.len() {
                '='
            } else {
                char::from(TABLE.get(index).copied().unwrap_or(b'A'))
            });
        }
    }
    out
}

fn hex_ssn(random: &mut Random) -> String {
    mas::ids::hex(format!("number {}", ssn(random)).as_bytes())
}

fn percent_ssn(random: &mut Random) -> String {
    ssn(random).bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn nested_ssn(random: &mut Random) -> String {
    serde_json::json!({"inner": ssn(random)}).to_string()
}

fn iban(random: &mut Random) -> String {
    let (country, length) = match random.below(4) {
        0 => ("DE", 22),
        1 => ("NL", 18),
        2 => ("ES", 24),
        _ => ("AT", 20),
    };
    let bban = match country {
        "NL" => format!("{}{}", random.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 4), random.text(DIGITS, 10)),
        _ => random.text(DIGITS, length - 4),
    };
    let check = 98 - mod_97(&format!("{bban}{country}00"));
    let text = format!("{country}{check:02}{bban}");
    if random.below(2) == 0 { text } else { groups_of_four(&text) }
}

fn no_iban(random: &mut Random) -> String {
    let text = iban(random).replace(' ', "");
    let (head, tail) = text.split_at(4);
    let check: u64 = head.get(2..).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let country = head.get(..2).unwrap_or_default();
    format!("{country}{:02}{tail}", (check + 1 + random.below(90)) % 97)
}

fn groups_of_four(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(4).map(|chunk| chunk.iter().collect::<String>()).collect::<Vec<_>>().join(" ")
}

fn mod_97(text: &str) -> u64 {
    text.chars().fold(0, |rest, c| match c.to_digit(36) {
        Some(value) if value < 10 => (rest * 10 + u64::from(value)) % 97,
        Some(value) => (rest * 100 + u64::from(value)) % 97,
        None => rest,
    })
}

fn aws(random: &mut Random) -> String {
    format!("AKIA{}", random.text(UPPER, 16))
}

fn github(random: &mut Random) -> String {
    format!("ghp_{}", random.text(ALNUM, 36))
}

fn slack(random: &mut Random) -> String {
    let (team, bot) = (random.text(DIGITS, 12), random.text(DIGITS, 12));
    format!("xoxb-{team}-{bot}-{}", random.text(ALNUM, 24))
}

fn stripe(random: &mut Random) -> String {
    format!("sk_live_{}", random.text(ALNUM, 24))
}

fn google(random: &mut Random) -> String {
    format!("AIza{}", random.text(ALNUM, 35))
}

fn hash(random: &mut Random) -> String {
    random.text(HEX, 40)
}

/// What agents exchange all day: manifests, logs, ids, orders.
pub(crate) fn benign(random: &mut Random) -> String {
    let uuid = uuid(random);
    let value = match random.below(6) {
        0 => {
            serde_json::json!({"name": "left-pad", "version": "1.3.0", "dependencies": {"ms": "^2.1.3"}, "integrity": format!("sha512-{}==", random.text(ALNUM, 86))})
        }
        1 => {
            serde_json::json!({"level": "info", "ts": 1_700_000_000 + random.below(10_000_000), "msg": format!("request {uuid} took {} ms from 10.0.{}.{}", random.below(900), random.below(255), random.below(255))})
        }
        2 => {
            serde_json::json!({"id": uuid, "commit": random.text(HEX, 40), "digest": format!("sha256:{}", random.text(HEX, 64))})
        }
        3 => {
            serde_json::json!({"order_number": random.text(DIGITS, 12), "items": [{"sku": random.text(ALNUM, 8), "count": random.below(9)}], "total": random.below(100_000) as f64 / 100.0})
        }
        4 => {
            serde_json::json!({"max_tokens": 4096, "token_count": random.below(4000), "model": "m-1", "messages": [{"role": "user", "content": "Summarise the attached report in three sentences."}]})
        }
        _ => {
            serde_json::json!({"lat": random.below(90_000_000) as f64 / 1e6, "lon": random.below(180_000_000) as f64 / 1e6, "at": "2026-03-04T05:06:07Z", "trace_id": random.text(HEX, 32), "tags": ["a", "b"]})
        }
    };
    value.to_string()
}

fn uuid(random: &mut Random) -> String {
    let part = |random: &mut Random, length| random.text(HEX, length);
    format!(
        "{}-{}-4{}-a{}-{}",
        part(random, 8),
        part(random, 4),
        part(random, 3),
        part(random, 3),
        part(random, 12)
    )
}
