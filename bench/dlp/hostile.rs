//! Texts made to cost time, a mebibyte each: units that start detectors over and over, alone, in the forms
//! in which a payload can carry them, and mixed.

use crate::MIB;
use crate::samples::base64;

/// Plain text that starts detectors: every kind of anchor, and what makes its detector look far.
const UNITS: &[&str] = &[
    "a",
    "A",
    "-",
    ".",
    "1",
    "1 ",
    "1-",
    "1.",
    "12 ",
    "123-45-",
    "123-45-6789 ",
    "4111 ",
    "4111-",
    "1234567 ",
    "4111111111111111 ",
    "4111111111111112 ",
    "411111111111111",
    "555-555-",
    "(555) 555-",
    "+1 ",
    "+15555555555 ",
    "@",
    "a@",
    "a@b.",
    "a@b.co ",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa@b",
    "eyJ",
    "eyJ.",
    "eyJhIjoxfQ.",
    "eyJhbGciOjF9.a.",
    "sk-",
    "sk-a",
    "ghp_",
    "AKIA",
    "AIza",
    "xoxb-",
    "SG.",
    "cio",
    "key-",
    "dapi",
    "secret_",
    "npm_",
    "hf_",
    "glpat-",
    "github_pat_",
    "hooks.slack.com/services/",
    "AccountKey=",
    "AGE-SECRET-KEY-1",
    "b3BlbnNzaC1rZXktdjE",
    "DE12 ",
    "DE12",
    "DE12-",
    "LC12A",
    "GB1 ",
    "-----BEGIN PRIVATE KEY-----",
    "PRIVATE KEY",
    "BEGIN PRIVATE KEY-",
    "-----BEGIN PRIVATE KEY----- ",
    "private key ",
    "PuTTY-User-Key-File-",
    "ssn ",
    "ssn 1",
    "ssn:",
    "ssn 123456789 ",
    "social security ",
    "password=",
    "password=a",
    "password: ",
    "password is ",
    "passwd=a1",
    "pwd=",
    "passcode=",
    "token ",
    "token=",
    "token:",
    "token=abc1",
    "api_key=",
    "api_key:",
    "api_key=1",
    "api key is ",
    "apikey=",
    "api-key=",
    "access_token=",
    "auth_token=",
    "secret_key=",
    "client_secret=",
    "secret_access_key=",
    "secretaccesskey=",
    "secret key ",
    "secret_",
    "secret.",
    "bearer ",
    "bearer a1",
    "basic ",
    "basic YWE6",
    "basic YWFh",
    "://",
    "://a:",
    "a://a:b@",
    "a://a:a",
    "cvv 1",
    "cvv 123 ",
    "cvv ",
    "mrn ",
    "mrn 12345 ",
    "mrn: ",
    "icd ",
    "icd10",
    "icd 10 ",
    "icd-10 ",
    "medicare ",
    "medicare number ",
    "member id ",
    "policy number is ",
    "tel ",
    "tel: ",
    "phone ",
    "phone number ",
    "fax 1",
    "diagnosis ",
    "E11.9 ",
    "E11.",
    "A1.",
    "A1",
    "12 Oak ",
    "1 A B C D ",
    "12 Oak Way ",
    "1 a b c street ",
    "Q~",
    "8Q~",
    "aaa8Q~",
    "%31",
    "%",
    "\\\\u0031",
    "\\\\x31",
    "&#49;",
    "&#",
    "MTIz",
    "/MTIz",
    "MTIzLTQ1LTY3ODkg/",
    "+MTIzLTQ1LTY3",
    "313233",
    "0x313233",
    "3132333435363738393/",
    "\u{ff13}",
    "\u{200b}",
    "\u{e9}",
    "\u{bd}",
    "\u{3b1}",
    "\u{627}",
    "\u{5d0}",
    "\u{338f}",
    "\u{fdfa}",
    "\u{1f600}",
    "\u{1d7ce}",
    "\u{e0041}",
    "\u{30a}",
    "\\n",
    "\\u0061",
    "\\u00e9",
    "\\ud83d\\ude00",
    "\\\"",
    "\\\\",
    "{\\\"a\\\":",
    "[",
    "pass",
    "pw",
    "key",
    "val",
    "pan",
    "dx",
    "card",
    "auth",
    "cookie",
    "record",
    "security code ",
    "card verification ",
    "insurance policy number ",
    "GET 1 2 3 ",
    "12 34 56 78 ",
    "1_2_3_4_",
    "1/2/3/4/",
    "12345.",
    "4111 1111 1111 ",
    "4111 1111 1111 1111 ",
    "12345678901234 ",
    "a4111111111111111a ",
    "<secret>token</secret>",
    "x-api-key: x ",
    "Authorization: Bearer ",
    "kty:",
    "kty:d:",
    "kty: ddddddddddddddddddddddddddddddddd ",
    "kty=k=",
    "jdbc:oracle:thin:",
    "jdbc:oracle:thin:a/a",
    "docker login -p ",
    "mysql -p",
    "curl -u a:a ",
    "INSERT INTO a (password) VALUES (",
    "(password, password, ",
    "<a value='a' name='password'",
    "\"password\", \"",
    "password: &str = ",
    "my_password[] = ",
    "login a password ",
    "4111111111111111,",
    "4111-1111-1111-1111",
    "4111 1111 1111 1112 ",
    "378282246310005 card ",
    "password: kontrase\u{f1}a es la ",
    "password=correct horse battery staple. ",
];

/// Members, elements and keys; `#` is a number that makes keys differ.
const MEMBERS: &[&str] = &[
    "\"a#\":1",
    "\"a#\":\"\"",
    "\"password#\":\"a\"",
    "\"#password\":\"\"",
    "\"#password\":\"a b\"",
    "\"#token\":\"next\"",
    "\"#api_key\":\"abc\"",
    "\"#secret\":\"abcdefghijklmnopqrstuvwxyz01\"",
    "\"#auth_token\":[]",
    "\"#ssn\":123456780",
    "\"#ssn\":1",
    "\"#cvv\":12",
    "\"#mrn\":\"A\"",
    "\"#phone\":\"1\"",
    "\"#card\":4111",
    "\"#diagnosis\":\"x\"",
    "\"#address\":\"1 a b\"",
    "\"#member_id\":\"x\"",
    "\"#value\":\"x\"",
    "\"#val\":[1]",
    "\"#credentials\":\"a1b2c3d4e5f6g7h8i9j0k\"",
    "\"#key\":\"-----BEGIN PRIVATE KEY-----\"",
    "\"#prompt_max_token\":\"x\"",
    "\"#aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaatoken\":\"\"",
];
const ELEMENTS: &[&str] = &[
    "1",
    "-1",
    "1e9",
    "1.5e8",
    "123456789",
    "1.23456789e8",
    "411111111111111",
    "\"\"",
    "\"a\"",
    "\"1\"",
    "\"4111\"",
    "\"DE\"",
    "\"DE12\"",
    "\"DE12\",\"1\"",
    "\"12\",\"34\"",
    "\"123-45-6789\"",
    "{}",
    "[]",
    "[[]]",
    "{\"a\":1}",
    "{\"password\":\"\"}",
    "{\"token\":[]}",
    "{\"a\":{\"value\":\"x\"}}",
    "\"[\"",
    "\"{\"",
    "\"[1\"",
    "\"{}\"",
    "\"[[],[]]\"",
    "\"{\\\"a\\\":1}\"",
    "\"%31\"",
    "\"MTIzLTQ1LTY3\"",
    "\"313233343536373839\"",
    "\"\u{e9}\"",
    "\"\\n\"",
    "true",
    "null",
];
/// Units that are also carried in one layer of encoding, or escaped here and there.
const CARRIED: &[&str] = &[
    "a",
    "api_key=",
    "api_key=1",
    "ssn 1",
    "password is ",
    "secret_access_key=",
    "1 ",
    "123-45-",
    "sk-a",
    "a@b.",
    "bearer a1",
    "4111 1111 1111 ",
    "a, b. ",
    "(555) 555-",
    "cvv 123 ",
    "icd-10 ",
    "[",
    "MTIz",
    "a://a:a",
    "\u{fdfa}",
];

fn fill(unit: &str) -> String {
    unit.repeat(MIB / unit.len())
}

fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// One hostile payload, built when it is needed: all of them together are half a gigabyte.
pub(crate) struct Input {
    pub(crate) name: String,
    build: Box<dyn Fn() -> String>,
}

impl Input {
    fn new(name: String, build: impl Fn() -> String + 'static) -> Self {
        Self { name, build: Box::new(build) }
    }

    /// The payload.
    pub(crate) fn payload(&self) -> String {
        (self.build)()
    }
}

/// The first `1/share` of a mebibyte of a unit.
fn part(unit: &str, share: usize) -> String {
    unit.repeat(MIB / share / unit.len())
}

fn list(elements: &[String]) -> String {
    format!("{{\"x\":[{}]}}", elements.join(","))
}

/// A text in pieces of so many characters.
fn pieces(text: &str, chars: usize) -> Vec<String> {
    let all: Vec<char> = text.chars().collect();
    all.chunks(chars).map(|piece| piece.iter().collect()).collect()
}

/// Every input.
pub(crate) fn inputs() -> Vec<Input> {
    let mut inputs = Vec::new();
    for unit in UNITS {
        inputs.push(Input::new(format!("text {unit}"), || format!("{{\"x\":\"{}\"}}", fill(unit))));
    }
    for member in MEMBERS {
        inputs.push(Input::new(format!("members {member}"), || members(member)));
    }
    for element in ELEMENTS {
        for (name, key) in [("elements", "x"), ("under a name", "ssn"), ("under password", "password")] {
            inputs.push(Input::new(format!("{name} {element}"), move || {
                let body = fill(&format!("{element},"));
                format!("{{\"{key}\":[{}]}}", body.trim_end_matches(','))
            }));
        }
    }
    for unit in CARRIED {
        carried(unit, &mut inputs);
    }
    let mut single = |name: &str, build: fn() -> String| inputs.push(Input::new(name.to_owned(), build));
    single("deep", || {
        let (open, close) = ("[".repeat(60), "]".repeat(60));
        format!("{{\"x\":[{}1]}}", fill(&format!("{open}{close},")))
    });
    single("one long key", || format!("{{\"{}\":[\"123-45-6789\"]}}", fill("k")));
    single("one long number", || format!("{{\"x\":{}}}", fill("1")));
    single("one long fraction", || format!("{{\"x\":0.{}}}", fill("1")));
    inputs
}

fn members(member: &str) -> String {
    let (mut body, mut number) = (String::from("{"), 0);
    while body.len() < MIB {
        body.push_str(&member.replace('#', &number.to_string()));
        body.push(',');
        number += 1;
    }
    body.pop();
    body.push('}');
    body
}

/// A unit in every form that makes a scan read it again.
fn carried(unit: &'static str, inputs: &mut Vec<Input>) {
    let mut add = |name: &str, build: fn(&str) -> String| {
        inputs.push(Input::new(format!("{name} {unit}"), move || build(unit)));
    };
    add("JSON in a string", |unit| {
        let inner = format!("{{\"a\":{}}}", json_text(&part(unit, 1)));
        format!("{{\"x\":{}}}", json_text(&inner))
    });
    add("JSON in a string, one escape", |unit| {
        format!("{{\"x\":{}}}", json_text(&format!("[\"%31{}\"]", part(unit, 1))))
    });
    add("one escape", |unit| format!("{{\"x\":{}}}", json_text(&format!("%31{}", part(unit, 1)))));
    add("sparse escapes", |unit| {
        format!("{{\"x\":{}}}", json_text(&format!("%31{}", pieces(&part(unit, 1), 400).join("%31"))))
    });
    add("base64", |unit| format!("{{\"x\":\"{}\"}}", base64(&part(unit, 4)).repeat(3)));
    add("short base64", |unit| {
        let runs: Vec<String> = pieces(&part(unit, 2), 96).iter().map(|piece| base64(piece)).collect();
        format!("{{\"x\":\"{}\"}}", runs.join(" "))
    });
    add("hex", |unit| format!("{{\"x\":\"{}\"}}", mas::ids::hex(part(unit, 2).as_bytes())));
    add("percent", |unit| {
        let percent: String = part(unit, 3).bytes().map(|byte| format!("%{byte:02x}")).collect();
        format!("{{\"x\":\"{percent}\"}}")
    });
    add("short strings", |unit| {
        list(&pieces(&part(unit, 1), 40).iter().map(|piece| json_text(piece)).collect::<Vec<_>>())
    });
}
