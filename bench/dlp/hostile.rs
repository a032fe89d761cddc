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

/// Name and payload of each input.
pub(crate) fn inputs() -> Vec<(String, String)> {
    let mut inputs = Vec::new();
    for unit in UNITS {
        inputs.push((format!("text {unit}"), format!("{{\"x\":\"{}\"}}", fill(unit))));
    }
    for member in MEMBERS {
        let (mut body, mut number) = (String::new(), 0);
        while body.len() < MIB {
            body.push_str(&member.replace('#', &number.to_string()));
            body.push(',');
            number += 1;
        }
        inputs.push((format!("members {member}"), format!("{{{}}}", body.trim_end_matches(','))));
    }
    for element in ELEMENTS {
        let body = fill(&format!("{element},"));
        inputs.push((format!("elements {element}"), format!("{{\"x\":[{}]}}", body.trim_end_matches(','))));
        inputs.push((
            format!("under a name {element}"),
            format!("{{\"ssn\":[{}]}}", body.trim_end_matches(',')),
        ));
    }
    for unit in CARRIED {
        let plain = fill(unit);
        let text = |share: usize| -> String { plain.chars().take(plain.chars().count() / share).collect() };
        let nested = json_text(&format!("{{\"a\":{}}}", json_text(&text(1))));
        inputs.push((format!("JSON in a string {unit}"), format!("{{\"x\":{nested}}}")));
        let spare = json_text(&format!("[\"%31{}\"]", text(1)));
        inputs.push((format!("JSON in a string, one escape {unit}"), format!("{{\"x\":{spare}}}")));
        inputs.push((
            format!("one escape {unit}"),
            format!("{{\"x\":{}}}", json_text(&format!("%31{}", text(1)))),
        ));
        let sparse: String = plain
            .as_bytes()
            .chunks(400)
            .flat_map(|part| [b"%31", part])
            .flatten()
            .map(|b| char::from(*b).to_ascii_lowercase())
            .filter(char::is_ascii)
            .collect();
        inputs.push((format!("sparse escapes {unit}"), format!("{{\"x\":{}}}", json_text(&sparse))));
        inputs.push((format!("base64 {unit}"), format!("{{\"x\":\"{}\"}}", base64(&text(4)).repeat(3))));
        let short: Vec<String> =
            text(4).as_bytes().chunks(96).map(|part| base64(&String::from_utf8_lossy(part))).collect();
        inputs.push((format!("short base64 {unit}"), format!("{{\"x\":\"{}\"}}", short.join(" ").repeat(3))));
        let hex = mas::ids::hex(text(2).as_bytes());
        inputs.push((format!("hex {unit}"), format!("{{\"x\":\"{hex}\"}}")));
        let percent: String = text(3).bytes().map(|byte| format!("%{byte:02x}")).collect();
        inputs.push((format!("percent {unit}"), format!("{{\"x\":\"{percent}\"}}")));
        let words: Vec<String> =
            plain.as_bytes().chunks(40).map(|part| json_text(&String::from_utf8_lossy(part))).collect();
        inputs.push((format!("short strings {unit}"), format!("{{\"x\":[{}]}}", words.join(","))));
    }
    let deep = 60;
    inputs.push((
        "deep".to_owned(),
        format!("{{\"x\":[{}1]}}", fill(&format!("{}{},", "[".repeat(deep), "]".repeat(deep)))),
    ));
    inputs.push(("one long key".to_owned(), format!("{{\"{}\":[\"123-45-6789\"]}}", fill("k"))));
    inputs.push(("one long number".to_owned(), format!("{{\"x\":{}}}", fill("1"))));
    inputs.push(("one long fraction".to_owned(), format!("{{\"x\":0.{}}}", fill("1"))));
    inputs
}
