//! Every kind of evasion that is meant to be found, with what it hides.

use super::*;

const CARD: &str = "4111111111111111";

fn hex(plain: &str) -> String {
    plain.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn percent(plain: &str) -> String {
    plain.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn base64(plain: &str, url: bool) -> String {
    let alphabet = if url { b"-_" } else { b"+/" };
    let table: Vec<u8> = (b'A'..=b'Z').chain(b'a'..=b'z').chain(b'0'..=b'9').chain(*alphabet).collect();
    let mut out = String::new();
    for chunk in plain.as_bytes().chunks(3) {
        let bits =
            chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            out.push(char::from(table[(bits >> (18 - 6 * place)) as usize & 63]));
        }
        if !url {
            out.push_str(&"=".repeat(3 - chunk.len()));
        }
    }
    out
}

#[test]
fn separators_and_escapes_do_not_hide() {
    for data in [
        r#"{"ssn":"123\t45\t6789"}"#,
        r#"{"ssn":"123 45 6789"}"#,
        "{\"ssn\":\"123\u{a0}45\u{a0}6789\"}",
        r#"{"ssn":"\u0031\u0032\u0033-45-6789"}"#,
        r#"{"ssn":"１２３-４５-６７８９"}"#,
        r#"{"ssn":"١٢٣-٤٥-٦٧٨٩"}"#,
        r#"{"ssn":"𝟏𝟐𝟑-𝟒𝟓-𝟔𝟕𝟖𝟗"}"#,
        "{\"ssn\":\"12\u{200b}3-4\u{ad}5-67\u{2060}89\"}",
        r#"{"ssn":"123–45–6789"}"#,
        r#"{"ssn":"123 - 45 - 6789"}"#,
        r#"{"ssn":{"123-45-6789":true}}"#,
        r#"{"ssn":["a",["123-45-6789"]]}"#,
    ] {
        let scan = assert_found("ssn", data);
        assert_eq!(scan.action, Action::Redact, "{data}");
        let redacted = scan.redacted.unwrap();
        assert!(redacted.contains("XXX-XX-6789"), "{redacted}");
    }
    for data in [
        r#"{"x":"4111\t1111\t1111\t1111"}"#.to_owned(),
        r#"{"x":"４１１１１１１１１１１１１１１１"}"#.to_owned(),
        r#"{"x":"4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"}"#.to_owned(),
        format!("{{\"{CARD}\":1}}"),
        format!("{{\"x\":{CARD}}}"),
        format!("{{\"x\":-{CARD}}}"),
        "{\"x\":\"4111-1111\u{200d}-1111-1111\"}".to_owned(),
    ] {
        assert_found("credit_card", &data);
    }
    assert_found("password", r#"{"ｐａｓｓｗｏｒｄ":"hunter2"}"#);
    assert_found("aws_key", "{\"x\":\"AKIA\u{200b}IOSFODNN7EXAMPLE\"}");
}

#[test]
fn one_layer_of_encoding_does_not_hide() {
    for (kind, plain) in [("ssn", "123-45-6789"), ("credit_card", CARD), ("aws_key", "AKIAIOSFODNN7EXAMPLE")]
    {
        for encoded in [
            base64(plain, false),
            base64(plain, true),
            format!("v1/{}", base64(plain, false)),
            format!("data:text/plain;base64,{}", base64(plain, false)),
            hex(plain),
            hex(plain).to_uppercase(),
            format!("0x{}", hex(plain)),
            percent(plain),
            format!("https://example.org/?q={}&r=1", percent(plain)),
            plain.bytes().map(|byte| format!("\\x{byte:02x}")).collect(),
            plain.bytes().map(|byte| format!("&#{byte};")).collect(),
        ] {
            assert_found(kind, &text(&encoded));
            assert_found(kind, &text(&format!("note {encoded} end")));
            assert_found(kind, &serde_json::json!({ "a": [1, { "b": encoded }] }).to_string());
        }
        let longer = format!("The quick brown fox, {plain}, jumps over the lazy dog. Grüße!");
        assert_found(kind, &text(&base64(&longer, false)));
        assert_found(kind, &text(&hex(&longer.replace('ü', "u").replace('ß', "s"))));
    }
    let lines =
        base64(&format!("{} 123-45-6789 {}", "lorem ipsum ".repeat(6), "dolor sit ".repeat(6)), false);
    let lines: Vec<&str> =
        lines.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    assert_found("ssn", &text(&lines.join("\r\n")));
}

#[test]
fn json_in_a_string_does_not_hide() {
    let inner = r#"{"user":{"password":"hunter2","n":[1,2]}}"#;
    let scan = assert_found("password", &text(inner));
    assert_eq!(scan.findings[0].pointer, "/x");
    assert_found("password", &text(r#"{"pass\u0077ord":"hunter2"}"#));
    let scan = assert_found("ssn", &text(r#"["SSN \u0031\u0032\u0033-45-6789"]"#));
    assert_eq!(scan.action, Action::Redact);
    assert_found("ssn", &text(r#"{"ssn":123456789}"#));
    assert_found("ssn", &text(r#" {"ssn": "123456789"} "#));
    assert_found("password", &text(&base64(inner, false)));
}

#[test]
fn splitting_over_siblings_does_not_hide() {
    for data in [
        r#"{"x":["4111","1111","1111","1111"]}"#,
        r#"{"a":"4111 1111","b":"1111 1111"}"#,
        r#"{"a":"41111111","b":"11111111","c":"next"}"#,
        r#"{"n":["3782","822463","10005"]}"#,
        r#"{"a":"4111","b":"1111","c":"1111","d":"1111","exp":"12"}"#,
        r#"{"x":["4","1","1","1","1","1","1","1","1","1","1","1","1","1","1","1"]}"#,
    ] {
        assert_found("credit_card", data);
    }
    for data in [
        r#"{"x":["DE89","3704","0044","0532","0130","00"]}"#,
        r#"{"a":"GB82WEST1234","b":"5698765432"}"#,
        r#"{"first":"x","a":"DE893704004","b":"40532013000","c":"next"}"#,
    ] {
        assert_found("iban", data);
    }
    // Without a checksum there is nothing to go by.
    assert_clean(r#"{"a":"123","b":"45","c":"6789"}"#);
    assert_clean(r#"{"zips":["45320","94107","10001","60601"]}"#);
}

#[test]
fn escapes_far_apart_in_one_text_are_all_taken_off() {
    let far = "é lorem ipsum ".repeat(700);
    let data = text(&format!("{far}SSN %3123-45-6789 {far}SSN &#50;24-56-7890 {far}"));
    let scan = scan(&data);
    assert_eq!(scan.findings.len(), 2, "{:?}", scan.findings);
    let redacted = scan.redacted.unwrap();
    assert!(redacted.contains("XXX-XX-6789") && redacted.contains("XXX-XX-7890"), "{redacted}");
    assert_eq!(redacted.matches("lorem").count(), 3 * 700);
}
