//! Checks of a candidate by itself: checksums, number ranges, shapes.

/// Bits of entropy a character must carry on average for a value to look random.
const RANDOM_BITS: f32 = 3.5;
/// Shortest value that can look random, and how much of it is looked at.
const RANDOM_BYTES: (usize, usize) = (20, 256);

/// Counts of a text's characters by class.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    pub(super) digits: usize,
    pub(super) upper: usize,
    pub(super) lower: usize,
    pub(super) other: usize,
}

impl Shape {
    pub(super) fn of(text: &[u8]) -> Self {
        let mut shape = Self::default();
        for byte in text {
            match byte {
                b'0'..=b'9' => shape.digits += 1,
                b'A'..=b'Z' => shape.upper += 1,
                b'a'..=b'z' => shape.lower += 1,
                _ => shape.other += 1,
            }
        }
        shape
    }
}

/// The Luhn checksum over ASCII digits.
pub(super) fn luhn(digits: &[u8]) -> bool {
    let mut sum = 0_u32;
    for (place, digit) in digits.iter().rev().enumerate() {
        let value = u32::from(digit.wrapping_sub(b'0'));
        let doubled = if place % 2 == 1 { value * 2 } else { value };
        sum += if doubled > 9 { doubled - 9 } else { doubled };
    }
    sum.is_multiple_of(10)
}

/// True when the digits are a payment card's: a known issuer, its length, the checksum.
pub(super) fn is_card(digits: &[u8]) -> bool {
    let head = |n: usize| {
        digits.iter().take(n).fold(0_u32, |value, digit| value * 10 + u32::from(digit.wrapping_sub(b'0')))
    };
    let (two, three, four, six) = (head(2), head(3), head(4), head(6));
    let length = digits.len();
    let visa = two / 10 == 4 && matches!(length, 13 | 16 | 19);
    let mastercard = (matches!(two, 51..=55) || matches!(four, 2221..=2720)) && length == 16;
    let amex = matches!(two, 34 | 37) && length == 15;
    let diners =
        (matches!(three, 300..=305 | 309) || matches!(two, 36 | 38 | 39)) && matches!(length, 14 | 16 | 19);
    let long = (16..=19).contains(&length);
    let discover = (four == 6011 || matches!(three, 644..=649) || two == 65) && long;
    let jcb = matches!(four, 3528..=3589) && long;
    let union_pay = (two == 62 || matches!(six, 810_000..=820_199)) && long;
    let maestro =
        matches!(four, 5018 | 5020 | 5038 | 5893 | 6304 | 6759 | 6761..=6763) && (12..=19).contains(&length);
    let mir = matches!(four, 2200..=2204) && long;
    let others =
        (matches!(six, 506_099..=506_198 | 507_865..=507_964 | 508_500..=508_999) || four == 9792) && long;
    let issuer =
        visa || mastercard || amex || diners || discover || jcb || union_pay || maestro || mir || others;
    let first = digits.first();
    issuer && !digits.iter().all(|digit| Some(digit) == first) && luhn(digits)
}

/// True when nine digits can be a social security number.
pub(super) fn is_ssn(digits: &[u8]) -> bool {
    let (Some(area), Some(group), Some(serial)) = (digits.get(..3), digits.get(3..5), digits.get(5..)) else {
        return false;
    };
    serial.len() == 4
        && area != b"000"
        && area != b"666"
        && !area.starts_with(b"9")
        && group != b"00"
        && serial != b"0000"
}

/// Countries of the IBAN registry: code, length, and whether all that follows the code is digits.
#[rustfmt::skip]
const IBAN_COUNTRIES: &[(&[u8; 2], usize, bool)] = &[
    (b"AD", 24, false), (b"AE", 23, true), (b"AL", 28, false), (b"AT", 20, true), (b"AZ", 28, false),
    (b"BA", 20, true), (b"BE", 16, true), (b"BG", 22, false), (b"BH", 22, false), (b"BI", 27, true),
    (b"BR", 29, false), (b"BY", 28, false), (b"CH", 21, false), (b"CR", 22, true), (b"CY", 28, false),
    (b"CZ", 24, true), (b"DE", 22, true), (b"DJ", 27, true), (b"DK", 18, true), (b"DO", 28, false),
    (b"EE", 20, true), (b"EG", 29, true), (b"ES", 24, true), (b"FI", 18, true), (b"FK", 18, false),
    (b"FO", 18, true), (b"FR", 27, false), (b"GB", 22, false), (b"GE", 22, false), (b"GI", 23, false),
    (b"GL", 18, true), (b"GR", 27, false), (b"GT", 28, false), (b"HR", 21, true), (b"HU", 28, true),
    (b"IE", 22, false), (b"IL", 23, true), (b"IQ", 23, false), (b"IS", 26, true), (b"IT", 27, false),
    (b"JO", 30, false), (b"KW", 30, false), (b"KZ", 20, false), (b"LB", 28, false), (b"LC", 32, false),
    (b"LI", 21, false), (b"LT", 20, true), (b"LU", 20, false), (b"LV", 21, false), (b"LY", 25, true),
    (b"MC", 27, false), (b"MD", 24, false), (b"ME", 22, true), (b"MK", 19, false), (b"MN", 20, true),
    (b"MR", 27, true), (b"MT", 31, false), (b"MU", 30, false), (b"NI", 28, false), (b"NL", 18, false),
    (b"NO", 15, true), (b"OM", 23, false), (b"PK", 24, false), (b"PL", 28, true), (b"PS", 29, false),
    (b"PT", 25, true), (b"QA", 29, false), (b"RO", 24, false), (b"RS", 22, true), (b"RU", 33, false),
    (b"SA", 24, false), (b"SC", 31, false), (b"SD", 18, true), (b"SE", 24, true), (b"SI", 19, true),
    (b"SK", 24, true), (b"SM", 27, false), (b"SO", 23, true), (b"ST", 25, true), (b"SV", 28, false),
    (b"TL", 23, true), (b"TN", 24, true), (b"TR", 26, false), (b"UA", 29, false), (b"VA", 22, true),
    (b"VG", 24, false), (b"XK", 20, true), (b"YE", 30, false),
];

/// Longest IBAN.
pub(super) const IBAN_MAX: usize = 34;

/// Letters of the alphabet.
const LETTERS: usize = 26;

/// [`IBAN_COUNTRIES`] by their letters: length and whether all is digits; length 0 for no country.
static IBAN_BY_LETTERS: [(u8, bool); LETTERS * LETTERS] = iban_by_letters();

#[allow(clippy::indexing_slicing)] // Evaluated when compiled: an index outside would not compile.
const fn iban_by_letters() -> [(u8, bool); LETTERS * LETTERS] {
    let mut table = [(0, false); LETTERS * LETTERS];
    let mut at = 0;
    while at < IBAN_COUNTRIES.len() {
        let (code, length, digits) = IBAN_COUNTRIES[at];
        table[(code[0] - b'A') as usize * LETTERS + (code[1] - b'A') as usize] = (length as u8, digits);
        at += 1;
    }
    table
}

/// The length of an IBAN that begins with this country code, and whether it is all digits after it.
pub(super) fn iban_country(first: u8, second: u8) -> Option<(usize, bool)> {
    if !first.is_ascii_alphabetic() || !second.is_ascii_alphabetic() {
        return None;
    }
    let place = |letter: u8| usize::from(letter.to_ascii_uppercase() - b'A');
    let (length, digits) = IBAN_BY_LETTERS.get(place(first) * LETTERS + place(second))?;
    (*length > 0).then_some((usize::from(*length), *digits))
}

/// The IBAN checksum over letters and digits: the remainder by 97 of the rearranged number is 1.
pub(super) fn iban_checksum(iban: &[u8]) -> bool {
    let Some((head, tail)) = iban.split_at_checked(4) else { return false };
    let mut rest = 0_u32;
    for byte in tail.iter().chain(head) {
        rest = match byte {
            b'0'..=b'9' => rest * 10 + u32::from(byte - b'0'),
            b'A'..=b'Z' => rest * 100 + u32::from(byte - b'A') + 10,
            b'a'..=b'z' => rest * 100 + u32::from(byte - b'a') + 10,
            _ => return false,
        } % 97;
    }
    rest == 1
}

/// True for an ICD-10 code, dotted or not: a letter, a digit, a digit or letter, up to four more.
pub(super) fn is_icd10(code: &[u8]) -> bool {
    let [letter, tens, ones, rest @ ..] = code else { return false };
    if !letter.is_ascii_uppercase() || !tens.is_ascii_digit() {
        return false;
    }
    if !(ones.is_ascii_digit() || matches!(ones, b'A' | b'B')) {
        return false;
    }
    let extension = match rest {
        [b'.', extension @ ..] if !extension.is_empty() => extension,
        [b'.'] => return false,
        _ => rest,
    };
    extension.len() <= 4 && extension.iter().all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
}

/// Words that stand where a secret would, sorted.
#[rustfmt::skip]
const PLACEHOLDERS: &[&str] = &[
    "-", "?", "abgelaufen", "abgelehnt", "accepted", "active", "again", "alert", "alerts", "allow", "allowed", "and", "any", "argon2id", "array", "ask", "authentication", "auto", "available", "bar", "base64", "basic", "baz", "bcrypt", "bearer", "blank", "blob", "block", "blocked", "blockiert", "bool", "boolean", "bytes", "caducada", "caducado", "cambiada", "cannot", "case-sensitive", "change", "change-me", "change_me", "changed", "changeme", "changée", "char", "compromised", "confirm", "confirmation", "correct", "created", "current", "date", "datetime", "default", "deleted", "denied", "deny", "deprecated", "dict", "different", "disabled", "dummy", "empty", "enabled", "encrypted", "env", "erforderlich", "every", "example", "execute", "expirada", "expirado", "expired", "expirou", "expirou.", "expiré", "expirée", "exposed", "failed", "fake", "falsch", "falsche", "false", "field", "filtered", "float", "foo", "for", "forgot", "forgotten", "from", "gesperrt", "geändert", "given", "has", "hash", "hashed", "here", "hidden", "hide", "ignore", "ignored", "in", "inactive", "incorrect", "incorrecta", "incorrecto", "inherit", "input", "insecure", "int", "integer", "invalid", "invalide", "inválida", "inválido", "is", "json", "jsonb", "known", "krävs", "kötelező", "leaked", "length", "list", "logged", "long", "manager", "masked", "match", "matches", "maximum", "mindestens", "minimum", "mismatch", "missing", "mock", "mode", "modifiée", "must", "mínimo", "n/a", "na", "name", "never", "new", "nil", "no", "none", "not", "null", "number", "nvarchar", "obbligatoria", "obbligatorio", "object", "obligatoire", "obligatoria", "obligatorio", "obligatória", "obrigatória", "obrigatório", "ogiltigt", "ok", "old", "only", "optional", "or", "other", "pakollinen", "pattern", "pbkdf2", "pending", "per", "placeholder", "plain", "plaintext", "policy", "povinné", "prompt", "protected", "provided", "påkrevd", "påkrævet", "rechazada", "rechazado", "redact", "redacted", "refuse", "refused", "refusé", "refusée", "rejected", "removed", "repeat", "required", "requis", "requise", "reset", "rotated", "rule", "rules", "salt", "salted", "same", "sample", "scaduta", "scaduto", "scrypt", "secure", "see", "sekrit", "self", "sent", "serial", "set", "sha256", "shared", "short", "should", "show", "skip", "skipped", "stored", "str", "string", "strong", "supplied", "taken", "tbd", "test", "testing", "text", "the", "timestamp", "to", "todo", "true", "trust", "type", "unavailable", "unchanged", "undefined", "ungültig", "unknown", "unset", "unverified", "updated", "use", "used", "uuid", "value", "varchar", "varchar2", "vereist", "vergessen", "verified", "verlopen", "verplicht", "visible", "void", "was", "weak", "will", "with", "write", "wrong", "wygasło", "wygasło.", "wymagane", "xxx", "yes", "your", "zablokowane", "ändern", "обязателен", "обязательно",
];
/// The longest of them.
const PLACEHOLDER_MAX: usize = 22;

/// Beginnings of references to a value that is elsewhere, in templates and in redacted text.
const OPENINGS: &[&str] = &["${", "{{", "$(", "[REDACTED", "<%", "#{", "@@", "%%"];
/// Beginnings of references to stores of secrets, and of instructions; letters of either case. Each has one of `: + . / _ -`.
const REFERENCES: &[&str] = &[
    "env:",
    "vault:",
    "secret:",
    "ref:",
    "ref+",
    "op://",
    "secret://",
    "arn:aws:",
    "secretref:",
    "sops:",
    "ssm:",
    "file:",
    "aws-ssm:",
    "gcp:",
    "keyvault:",
    "doppler:",
    "secretsmanager:",
    "kubernetes:",
    "k8s:",
    "process.env",
    "os.environ",
    "os.getenv",
    "projects/",
    "your_",
    "your-",
];
/// The shortest of them.
const PREFIX_MIN: usize = 4;

/// True for a value that stands in for a secret: empty, masked, a reference to somewhere else.
pub(super) fn is_placeholder(value: &str) -> bool {
    let value = value.trim();
    let value = value.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')).unwrap_or(value);
    let bytes = value.as_bytes();
    let Some(first) = bytes.first() else { return true };
    if matches!(first, b'*' | b'x' | b'X' | b'.' | b'#' | b'_' | b'-' | b'?' | b'=')
        && bytes.iter().all(|b| b == first)
    {
        return true;
    }
    let mut lower = [0_u8; PLACEHOLDER_MAX];
    if let Some(word) = lower.get_mut(..bytes.len()) {
        word.copy_from_slice(bytes);
        word.make_ascii_lowercase();
        if PLACEHOLDERS.binary_search_by(|known| known.as_bytes().cmp(word)).is_ok() {
            return true;
        }
    }
    let around = |open: char, close: char| value.starts_with(open) && value.ends_with(close);
    let opened = matches!(first, b'$' | b'{' | b'[' | b'<' | b'#' | b'@' | b'%')
        && OPENINGS.iter().any(|open| value.starts_with(open));
    if opened || around('<', '>') || around('[', ']') || around('%', '%') || around('{', '}') {
        return true;
    }
    let starts = |prefix: &&str| {
        prefix.bytes().next() == Some(first.to_ascii_lowercase())
            && value.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix))
    };
    let marked = || bytes.iter().any(|b| matches!(b, b':' | b'+' | b'.' | b'/' | b'_' | b'-'));
    if first.is_ascii_alphabetic() && bytes.len() > PREFIX_MIN && marked() && REFERENCES.iter().any(starts) {
        return true;
    }
    let variable = value.strip_prefix('$').unwrap_or_default();
    if variable.len() >= 2
        && variable.bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || b.is_ascii_digit())
    {
        return !variable.bytes().all(|b| b.is_ascii_digit());
    }
    // A masked value that shows its first or last characters.
    if ["***", "...", "…", "xxxx", "XXXX"].iter().any(|end| value.ends_with(end)) {
        return true;
    }
    if bytes.iter().all(|b| matches!(b, b'x' | b'X' | b'-' | b'_' | b'.' | b' ')) {
        return true;
    }
    if first.is_ascii_alphanumeric() && memchr::memchr(b'*', bytes).is_none() {
        return false;
    }
    let stars = bytes.iter().filter(|b| matches!(b, b'*')).count();
    stars >= 4 && stars * 2 >= bytes.len() || value.chars().all(|c| matches!(c, '•' | '●' | '·'))
}

/// Passwords of examples, in small letters.
const EXAMPLES: &[&str] = &[
    "password",
    "passwd",
    "pass",
    "pw",
    "pwd",
    "secret",
    "guest",
    "anonymous",
    "changeme",
    "user",
    "username",
    "admin",
    "root",
    "token",
    "api-token",
    "api_token",
    "mypassword",
    "yourpassword",
    "your-password",
    "my-password",
    "passwort",
    "contraseña",
    "p",
    "x",
    "postgres",
];

/// True for a password that only examples have beside a user: "user:password", or the user's name once more.
pub(super) fn is_example_password(user: &str, value: &str) -> bool {
    let lower = value.to_lowercase();
    EXAMPLES.contains(&lower.as_str())
        || super::words::is_hint(value)
        || value.starts_with(['!', '/', ':'])
        || value.ends_with("...")
        || value == user && value.bytes().all(|b| b.is_ascii_alphabetic())
}

/// True for a value that only a machine makes: long, of one word, mixed and without pattern. UUIDs and
/// plain words are not.
pub(super) fn looks_random(value: &[u8]) -> bool {
    let (least, most) = RANDOM_BYTES;
    if value.len() < least || value.iter().any(|b| !b.is_ascii_graphic()) {
        return false;
    }
    let head = value.get(..value.len().min(most)).unwrap_or_default();
    let shape = Shape::of(head);
    if shape.digits < 2 || shape.lower + shape.upper < 4 || shape.other * 4 > head.len() {
        return false;
    }
    let mut counts = [0_u16; 128];
    for byte in head {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count += 1;
        }
    }
    let len = head.len() as f32;
    let share = |count: u16| f32::from(count) / len;
    let bits: f32 = counts.iter().filter(|n| **n > 0).map(|n| -share(*n) * share(*n).log2()).sum();
    bits >= RANDOM_BITS && !is_uuid(value)
}

pub(super) fn is_uuid(value: &[u8]) -> bool {
    value.len() == 36
        && value.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with_check_digit(mut digits: Vec<u8>) -> Vec<u8> {
        digits.push(b'0');
        let last = digits.len() - 1;
        while !luhn(&digits) {
            digits[last] += 1;
        }
        digits
    }

    #[test]
    fn known_cards_are_cards() {
        for card in [
            "4111111111111111",
            "5500005555555559",
            "2223003122003222",
            "378282246310005",
            "371449635398431",
            "6011111111111117",
            "30569309025904",
            "36227206271667",
            "3530111333300000",
            "6200000000000005",
            "6759649826438453",
        ] {
            assert!(is_card(card.as_bytes()), "{card}");
        }
        for none in ["4111111111111112", "0000000000000000", "4444444444444448", "1234567812345670", ""] {
            assert_eq!(is_card(none.as_bytes()), none == "4444444444444448", "{none}");
        }
    }

    #[test]
    fn tables_are_sorted() {
        assert!(PLACEHOLDERS.is_sorted());
        assert_eq!(PLACEHOLDERS.iter().map(|word| word.len()).max(), Some(PLACEHOLDER_MAX));
        assert!(IBAN_COUNTRIES.is_sorted_by_key(|(code, _, _)| *code));
    }

    #[test]
    fn known_ibans_pass() {
        for iban in [
            "DE89370400440532013000",
            "GB82WEST12345698765432",
            "FR1420041010050500013M02606",
            "NO9386011117947",
        ] {
            assert!(iban_checksum(iban.as_bytes()), "{iban}");
            assert_eq!(iban_country(iban.as_bytes()[0], iban.as_bytes()[1]).unwrap().0, iban.len());
        }
        assert!(!iban_checksum(b"DE88370400440532013000"));
    }

    #[test]
    fn diagnosis_codes_are_told() {
        for code in ["E11.9", "J45", "S72.001A", "C7A.1", "Z00.00", "E119"] {
            assert!(is_icd10(code.as_bytes()), "{code}");
        }
        for none in ["e11.9", "E1", "E11.", "E11.12345", "11.9", "EE1.9"] {
            assert!(!is_icd10(none.as_bytes()), "{none}");
        }
    }

    #[test]
    fn stand_ins_are_told_from_secrets() {
        for stand_in in [
            "",
            "***",
            "${DB_PASSWORD}",
            "$DB_PASSWORD",
            "<password>",
            "{{ pw }}",
            "[REDACTED:password]",
            "null",
            "your_api_key_here",
            "****1234",
            "env:PW",
            "arn:aws:secretsmanager:eu-west-1:1:secret:x",
        ] {
            assert!(is_placeholder(stand_in), "{stand_in}");
        }
        for secret in ["hunter2", "$ecret", "xX12", "correct horse", "p*ss", "abc123"] {
            assert!(!is_placeholder(secret), "{secret}");
        }
    }

    proptest! {
        #[test]
        fn a_card_is_one_until_a_digit_changes(
            body in prop::collection::vec(b'0'..=b'9', 14), at in 1_usize..16, by in 1_u8..10,
        ) {
            let mut card = with_check_digit([b"4".as_slice(), &body].concat());
            prop_assume!(!card.iter().all(|digit| *digit == b'4'));
            prop_assert!(is_card(&card));
            card[at] = b'0' + (card[at] - b'0' + by) % 10;
            prop_assert!(!is_card(&card));
        }

        #[test]
        fn an_iban_is_one_until_a_digit_changes(body in "[0-9]{18}", at in 4_usize..22, by in 1_u8..10) {
            let rearranged: u128 = format!("{body}131400").parse().unwrap();
            let mut iban = format!("DE{:02}{body}", 98 - rearranged % 97).into_bytes();
            prop_assert!(iban_checksum(&iban));
            iban[at] = b'0' + (iban[at] - b'0' + by) % 10;
            prop_assert!(!iban_checksum(&iban));
        }

        #[test]
        fn ssn_ranges_hold(area in 0_u32..1000, group in 0_u32..100, serial in 0_u32..10_000) {
            let digits = format!("{area:03}{group:02}{serial:04}");
            let valid = area != 0 && area != 666 && area < 900 && group != 0 && serial != 0;
            prop_assert_eq!(is_ssn(digits.as_bytes()), valid);
        }
    }
}
