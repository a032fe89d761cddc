//! Rules by field name: what the key of a member says about its value.

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::checks::{self, Shape};
use super::kinds::Kind;

/// Longest key, in letters and digits, whose end is compared; of a longer one the end counts.
const MAX_NAME: usize = 48;

/// What a key says about its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyClass {
    None,
    /// `value` and the like: the name stands one level up.
    Value,
    Password,
    ApiKey,
    Secret,
    Token,
    Authorization,
    PrivateKey,
    AwsKey,
    /// Hints at a secret; the value must look random.
    MaybeSecret,
    Ssn,
    Cvv,
    Mrn,
    HealthInsurance,
    Phone,
    Icd10,
    Card,
    Address,
}

/// Names that mean their class when they are the whole key.
const EXACT: &[(&str, KeyClass)] = &[
    ("value", KeyClass::Value),
    ("val", KeyClass::Value),
    ("stringvalue", KeyClass::Value),
    ("pass", KeyClass::Password),
    ("pw", KeyClass::Password),
    ("pswd", KeyClass::Password),
    ("secret", KeyClass::Secret),
    ("secrets", KeyClass::Secret),
    ("token", KeyClass::Token),
    ("bearer", KeyClass::Token),
    ("jwt", KeyClass::Token),
    ("authorization", KeyClass::Authorization),
    ("proxyauthorization", KeyClass::Authorization),
    ("auth", KeyClass::MaybeSecret),
    ("cookie", KeyClass::MaybeSecret),
    ("setcookie", KeyClass::MaybeSecret),
    ("cvc", KeyClass::Cvv),
    ("cvn", KeyClass::Cvv),
    ("csc", KeyClass::Cvv),
    ("securitycode", KeyClass::Cvv),
    ("medicare", KeyClass::HealthInsurance),
    ("medicaid", KeyClass::HealthInsurance),
    ("subscriberid", KeyClass::HealthInsurance),
    ("memberid", KeyClass::HealthInsurance),
    ("tel", KeyClass::Phone),
    ("mobile", KeyClass::Phone),
    ("cell", KeyClass::Phone),
    ("fax", KeyClass::Phone),
    ("diagnosis", KeyClass::Icd10),
    ("diagnoses", KeyClass::Icd10),
    ("dx", KeyClass::Icd10),
    ("address", KeyClass::Address),
    ("pan", KeyClass::Card),
];

/// Names that mean their class at the end of a key, such as `db_password`.
const ENDINGS: &[(&str, KeyClass)] = &[
    ("password", KeyClass::Password),
    ("passwords", KeyClass::Password),
    ("passwd", KeyClass::Password),
    ("passphrase", KeyClass::Password),
    ("passcode", KeyClass::Password),
    ("pwd", KeyClass::Password),
    ("userpass", KeyClass::Password),
    ("dbpass", KeyClass::Password),
    ("apikey", KeyClass::ApiKey),
    ("apikeys", KeyClass::ApiKey),
    ("appkey", KeyClass::ApiKey),
    ("authkey", KeyClass::ApiKey),
    ("subscriptionkey", KeyClass::ApiKey),
    ("secretaccesskey", KeyClass::AwsKey),
    ("awssecretkey", KeyClass::AwsKey),
    ("awssecret", KeyClass::AwsKey),
    ("awssessiontoken", KeyClass::AwsKey),
    ("accesskey", KeyClass::ApiKey),
    ("privatekey", KeyClass::PrivateKey),
    ("privkey", KeyClass::PrivateKey),
    ("secret", KeyClass::Secret),
    ("clientsecrets", KeyClass::Secret),
    ("secretkey", KeyClass::Secret),
    ("secretvalue", KeyClass::Secret),
    ("signingkey", KeyClass::Secret),
    ("encryptionkey", KeyClass::Secret),
    ("masterkey", KeyClass::Secret),
    ("hmackey", KeyClass::Secret),
    ("accountkey", KeyClass::Secret),
    ("sharedkey", KeyClass::Secret),
    ("presharedkey", KeyClass::Secret),
    ("credential", KeyClass::MaybeSecret),
    ("credentials", KeyClass::MaybeSecret),
    ("accesstoken", KeyClass::Token),
    ("refreshtoken", KeyClass::Token),
    ("authtoken", KeyClass::Token),
    ("authenticationtoken", KeyClass::Token),
    ("authorizationtoken", KeyClass::Token),
    ("idtoken", KeyClass::Token),
    ("bearertoken", KeyClass::Token),
    ("sessiontoken", KeyClass::Token),
    ("securitytoken", KeyClass::Token),
    ("apitoken", KeyClass::Token),
    ("secrettoken", KeyClass::Token),
    ("privatetoken", KeyClass::Token),
    ("bottoken", KeyClass::Token),
    ("oauthtoken", KeyClass::Token),
    ("usertoken", KeyClass::Token),
    ("clienttoken", KeyClass::MaybeSecret),
    ("devicetoken", KeyClass::Token),
    ("logintoken", KeyClass::Token),
    ("servicetoken", KeyClass::Token),
    ("deploytoken", KeyClass::Token),
    ("jobtoken", KeyClass::Token),
    ("resettoken", KeyClass::Token),
    ("githubtoken", KeyClass::Token),
    ("gitlabtoken", KeyClass::Token),
    ("slacktoken", KeyClass::Token),
    ("npmtoken", KeyClass::Token),
    ("token", KeyClass::MaybeSecret),
    ("ssn", KeyClass::Ssn),
    ("ssnumber", KeyClass::Ssn),
    ("socialsecurity", KeyClass::Ssn),
    ("socialsecuritynumber", KeyClass::Ssn),
    ("socialsecurityno", KeyClass::Ssn),
    ("socialsecuritynum", KeyClass::Ssn),
    ("ssnno", KeyClass::Ssn),
    ("ssnnumber", KeyClass::Ssn),
    ("socsec", KeyClass::Ssn),
    ("taxpayerid", KeyClass::Ssn),
    ("cvv", KeyClass::Cvv),
    ("cvv2", KeyClass::Cvv),
    ("cvc2", KeyClass::Cvv),
    ("cardcvc", KeyClass::Cvv),
    ("cvvcode", KeyClass::Cvv),
    ("cvccode", KeyClass::Cvv),
    ("cvvnumber", KeyClass::Cvv),
    ("cardsecuritycode", KeyClass::Cvv),
    ("cardverificationvalue", KeyClass::Cvv),
    ("cardverificationcode", KeyClass::Cvv),
    ("mrn", KeyClass::Mrn),
    ("mrnnumber", KeyClass::Mrn),
    ("medicalrecordnumber", KeyClass::Mrn),
    ("medicalrecordno", KeyClass::Mrn),
    ("medicalrecordid", KeyClass::Mrn),
    ("medicalrecord", KeyClass::Mrn),
    ("healthinsurance", KeyClass::HealthInsurance),
    ("healthinsuranceid", KeyClass::HealthInsurance),
    ("healthinsurancenumber", KeyClass::HealthInsurance),
    ("healthplanid", KeyClass::HealthInsurance),
    ("insuranceid", KeyClass::HealthInsurance),
    ("insurancenumber", KeyClass::HealthInsurance),
    ("insurancememberid", KeyClass::HealthInsurance),
    ("insurancepolicy", KeyClass::HealthInsurance),
    ("insurancepolicynumber", KeyClass::HealthInsurance),
    ("medicarenumber", KeyClass::HealthInsurance),
    ("medicareid", KeyClass::HealthInsurance),
    ("medicaidid", KeyClass::HealthInsurance),
    ("medicaidnumber", KeyClass::HealthInsurance),
    ("phone", KeyClass::Phone),
    ("phonenumber", KeyClass::Phone),
    ("phoneno", KeyClass::Phone),
    ("telephone", KeyClass::Phone),
    ("mobilenumber", KeyClass::Phone),
    ("mobilephone", KeyClass::Phone),
    ("cellphone", KeyClass::Phone),
    ("cellnumber", KeyClass::Phone),
    ("faxnumber", KeyClass::Phone),
    ("icd10", KeyClass::Icd10),
    ("icd", KeyClass::Icd10),
    ("icdcode", KeyClass::Icd10),
    ("icd10code", KeyClass::Icd10),
    ("icd10cm", KeyClass::Icd10),
    ("diagnosiscode", KeyClass::Icd10),
    ("diagnosiscodes", KeyClass::Icd10),
    ("icdcodes", KeyClass::Icd10),
    ("cardnumber", KeyClass::Card),
    ("cardno", KeyClass::Card),
    ("creditcard", KeyClass::Card),
    ("ccnumber", KeyClass::Card),
    ("ccnum", KeyClass::Card),
    ("creditcardnumber", KeyClass::Card),
    ("streetaddress", KeyClass::Address),
    ("homeaddress", KeyClass::Address),
    ("mailingaddress", KeyClass::Address),
    ("billingaddress", KeyClass::Address),
    ("shippingaddress", KeyClass::Address),
    ("addressline1", KeyClass::Address),
];

/// Words in the name of a token that is no credential: cursors, counters, vocabulary, CSRF guards.
const HARMLESS: &[&str] = &[
    "next", "page", "contin", "cursor", "sync", "delta", "resume", "csrf", "xsrf", "cancel", "lock", "fenc",
    "idempot", "lease", "watch", "scroll", "max", "min", "num", "count", "total", "prompt", "complet",
    "stop", "eos", "bos", "pad", "unk", "sep", "mask", "public", "primary", "foreign",
];

/// The names as a tree over their letters from the last to the first, so that a key is read once however
/// many names there are.
#[derive(Debug)]
pub(super) struct Fields {
    nodes: Vec<Node>,
    harmless: AhoCorasick,
}

/// Where a name, or the end of one, has been read.
#[derive(Debug, Clone, Default)]
struct Node {
    /// The node for each letter that may stand before; 0: none.
    letters: [u16; 26],
    /// The same for digits.
    digits: [u16; 10],
    /// What a key that ends so means.
    ending: Option<KeyClass>,
    /// What a key that is this means.
    exact: Option<KeyClass>,
}

impl Node {
    /// The slot for a lower-case letter or a digit.
    fn slot(&mut self, byte: u8) -> Option<&mut u16> {
        match byte {
            b'a'..=b'z' => self.letters.get_mut(usize::from(byte - b'a')),
            b'0'..=b'9' => self.digits.get_mut(usize::from(byte - b'0')),
            _ => None,
        }
    }

    fn before(&self, byte: u8) -> u16 {
        let slot = match byte {
            b'a'..=b'z' => self.letters.get(usize::from(byte - b'a')),
            b'0'..=b'9' => self.digits.get(usize::from(byte - b'0')),
            _ => None,
        };
        slot.copied().unwrap_or(0)
    }
}

impl Fields {
    pub(super) fn new() -> Result<Self, String> {
        let harmless = AhoCorasick::builder().kind(Some(AhoCorasickKind::DFA)).build(HARMLESS);
        let mut fields =
            Self { nodes: vec![Node::default()], harmless: harmless.map_err(|error| error.to_string())? };
        for (name, class) in EXACT {
            if let Some(node) = fields.node(name)? {
                node.exact = Some(*class);
            }
        }
        for (name, class) in ENDINGS {
            if let Some(node) = fields.node(name)? {
                node.ending = Some(*class);
            }
        }
        Ok(fields)
    }

    /// The node of a name, made where it is missing.
    fn node(&mut self, name: &str) -> Result<Option<&mut Node>, String> {
        let mut at = 0_usize;
        for byte in name.bytes().rev() {
            let made = u16::try_from(self.nodes.len()).map_err(|_| "too many names of fields".to_owned())?;
            let slot = self.nodes.get_mut(at).and_then(|node| node.slot(byte));
            let slot = slot.ok_or_else(|| format!("{name:?} has more than letters and digits"))?;
            let fresh = *slot == 0;
            if fresh {
                *slot = made;
            }
            at = usize::from(*slot);
            if fresh {
                self.nodes.push(Node::default());
            }
        }
        Ok(self.nodes.get_mut(at))
    }

    /// What a key says: its whole name if that has a meaning, else its longest end that has one.
    pub(super) fn classify(&self, key: &str) -> KeyClass {
        let mut letters = [0_u8; MAX_NAME];
        let mut at = MAX_NAME;
        let mut node = self.nodes.first();
        let mut class = KeyClass::None;
        let mut class_at = at;
        // Past the longest name that fits, letters are read on for HARMLESS alone.
        for byte in key.bytes().rev().take(4 * MAX_NAME).filter(u8::is_ascii_alphanumeric) {
            let Some(slot) = at.checked_sub(1).and_then(|at| letters.get_mut(at)) else {
                node = None;
                break;
            };
            *slot = byte.to_ascii_lowercase();
            at -= 1;
            node = node.and_then(|node| match node.before(*slot) {
                0 => None,
                next => self.nodes.get(usize::from(next)),
            });
            match node.and_then(|node| node.ending) {
                Some(ending) => (class, class_at) = (ending, at),
                None if node.is_none() && class == KeyClass::None => return KeyClass::None,
                None => {}
            }
        }
        if let Some(exact) = node.and_then(|node| node.exact) {
            (class, class_at) = (exact, at);
        }
        if matches!(class, KeyClass::MaybeSecret | KeyClass::ApiKey) {
            let before = letters.get(at..class_at).unwrap_or_default();
            if self.harmless.is_match(before) {
                return KeyClass::None;
            }
        }
        class
    }
}

/// The part of a value that a key of this class makes a finding, and its kind. Kinds that are found by
/// the digits of the value (SSN, phone, card) are told by the digit pass.
pub(super) fn judge(class: KeyClass, key: &str, value: &str, number: bool) -> Option<(Kind, usize, usize)> {
    let trimmed = value.trim();
    let start = value.len() - value.trim_start().len();
    let found = |kind| Some((kind, start, start + trimmed.len()));
    match class {
        KeyClass::Cvv => (matches!(trimmed.len(), 3 | 4) && trimmed.bytes().all(|b| b.is_ascii_digit()))
            .then_some((Kind::Cvv, start, start + trimmed.len())),
        KeyClass::Mrn if is_record_number(trimmed) => found(Kind::Mrn),
        KeyClass::HealthInsurance if is_insurance_number(trimmed, key) => found(Kind::HealthInsurance),
        KeyClass::Icd10 if checks::is_icd10(trimmed.as_bytes()) => found(Kind::Icd10),
        KeyClass::Address if is_address(trimmed) => found(Kind::Address),
        KeyClass::None | KeyClass::Value | KeyClass::Ssn | KeyClass::Phone | KeyClass::Card => None,
        _ if checks::is_placeholder(trimmed) || is_version(trimmed) => None,
        KeyClass::Password => {
            is_password(trimmed, key, number).then_some(()).and_then(|()| found(Kind::Password))
        }
        KeyClass::ApiKey if is_key(trimmed, number, 4) => found(Kind::ApiKey),
        KeyClass::Secret if is_key(trimmed, number, 4) => found(Kind::Secret),
        KeyClass::AwsKey if is_key(trimmed, number, 16) => found(Kind::AwsKey),
        KeyClass::PrivateKey if is_key(trimmed, number, 16) => found(Kind::PrivateKey),
        KeyClass::Token if is_token(trimmed, number) => found(Kind::AuthToken),
        KeyClass::Authorization => {
            let credential = trimmed.split_once(' ').map_or(trimmed, |(_, rest)| rest.trim_start());
            let at = start + trimmed.len() - credential.len();
            (is_key(credential, number, 6) && !checks::is_placeholder(credential)).then_some((
                Kind::AuthToken,
                at,
                start + trimmed.len(),
            ))
        }
        KeyClass::MaybeSecret if checks::looks_random(trimmed.as_bytes()) => found(Kind::HighEntropySecret),
        _ => None,
    }
}

/// A version or a range of versions: packages are called "password" and "token" too.
fn is_version(value: &str) -> bool {
    let range = value.trim_start_matches(['^', '~', '<', '>', '=', 'v', ' ']);
    let dots = range.bytes().filter(|b| *b == b'.').count();
    range.starts_with(|c: char| c.is_ascii_digit())
        && (1..=3).contains(&dots)
        && range.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'x' | b'*'))
        || value.starts_with("workspace:")
        || value.starts_with("npm:")
}

fn is_path(value: &str) -> bool {
    let rooted = ["/", "./", "../", "~/", "~", "C:\\", "file:"].iter().any(|root| value.starts_with(root));
    rooted
        && !value.contains(' ')
        && !value.ends_with('=')
        && value.bytes().filter(|b| *b == b'/').count() > 0
        || [".pem", ".key", ".pub", ".txt", ".json", ".yaml", ".yml"].iter().any(|end| value.ends_with(end))
}

fn is_password(value: &str, key: &str, number: bool) -> bool {
    if number {
        return value.len() >= 4 && value.bytes().all(|b| b.is_ascii_digit());
    }
    // "pwd" is the working directory as often as a password.
    if key.len() <= 4 && key.to_ascii_lowercase().ends_with("pwd") && is_path(value) {
        return false;
    }
    // {"password": "Password"} is a label, {"password": "password"} a bad password.
    let label = value.starts_with(|c: char| c.is_ascii_uppercase()) && value.eq_ignore_ascii_case(key);
    !label && value.chars().count() >= 3 && value.split_whitespace().count() <= 6
}

fn is_key(value: &str, number: bool, least: usize) -> bool {
    if number {
        return value.len() >= least.max(6) && value.bytes().all(|b| b.is_ascii_digit());
    }
    value.len() >= least && !value.contains(char::is_whitespace) && !is_path(value)
}

fn is_token(value: &str, number: bool) -> bool {
    if number {
        return value.len() >= 9 && value.bytes().all(|b| b.is_ascii_digit());
    }
    let value = value.strip_prefix("Bearer ").unwrap_or(value);
    if !is_key(value, number, 6) {
        return false;
    }
    // A lexer's {"token": "identifier"} is no credential.
    let shape = Shape::of(value.as_bytes());
    (shape.digits > 0 && shape.digits < value.len())
        || value.len() >= 16
        || (shape.upper > 0 && shape.lower > 0 && value.len() >= 10)
        || (shape.other > 0 && shape.lower + shape.upper >= 6)
}

fn is_record_number(value: &str) -> bool {
    let shape = Shape::of(value.as_bytes());
    (4..=20).contains(&value.len())
        && shape.digits >= 4
        && shape.upper + shape.lower <= 6
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b' ' | b'/' | b'#'))
}

fn is_insurance_number(value: &str, key: &str) -> bool {
    let shape = Shape::of(value.as_bytes());
    // Clubs have members too; a bare number under such a name says nothing.
    let generic = matches!(key.len(), 8..=13) && !key.to_ascii_lowercase().contains("insur");
    let letters = shape.upper + shape.lower;
    (6..=24).contains(&value.len())
        && shape.digits >= 4
        && shape.lower <= 3
        && letters <= 8
        && (!generic || (shape.upper > 0 && shape.digits >= 6 && shape.lower == 0) || key_is_medical(key))
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b' ' | b'/'))
}

fn key_is_medical(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["medic", "health"].iter().any(|word| key.contains(word))
}

fn is_address(value: &str) -> bool {
    // An IP, e-mail or web address is none of a street.
    let shape = Shape::of(value.as_bytes());
    let words = value.split_whitespace().count();
    value.starts_with(|c: char| c.is_ascii_digit())
        && words >= 3
        && value.len() <= 200
        && shape.upper + shape.lower >= 5
        && !value.contains("://")
        && !value.contains('@')
}
