//! Redaction: valid JSON, every byte outside the matches as it was, nothing left to find.

use proptest::prelude::*;

use super::*;

fn redacted(data: &str) -> String {
    let scan = scan(data);
    assert_eq!(scan.action, Action::Redact, "{:?} of {data}", scan.findings);
    scan.redacted.unwrap()
}

#[test]
fn only_the_matched_characters_change() {
    for (data, expected) in [
        (
            r#"{"ssn" : "x 123-45-6789 y",  "b":[1.50, "\u00e9"]}"#,
            r#"{"ssn" : "x XXX-XX-6789 y",  "b":[1.50, "\u00e9"]}"#,
        ),
        (r#"{"ssn":123456789}"#, r#"{"ssn":"XXX-XX-6789"}"#),
        (r#"{"ssn": -123456789 ,"b":1}"#, r#"{"ssn": "XXX-XX-6789" ,"b":1}"#),
        (r#"{"ssn":{"123-45-6789":1}}"#, r#"{"ssn":{"XXX-XX-6789":1}}"#),
        (r#"{"ssn":"\t123\t45\t6789\n"}"#, r#"{"ssn":"\tXXX-XX-6789\n"}"#),
        (r#"{"ssn":"é１２３-４５-６７８９é"}"#, r#"{"ssn":"éXXX-XX-6789é"}"#),
        (r#"{"ssn":"\u0031\u00323-45-6789\u0021"}"#, r#"{"ssn":"XXX-XX-6789\u0021"}"#),
        (r#"{"ssn":"MTIzLTQ1LTY3ODk=!"}"#, r#"{"ssn":"XXX-XX-6789!"}"#),
        (r#"{"ssn":"q=123%2D45%2D6789&z=%20"}"#, r#"{"ssn":"q=XXX-XX-6789&z=%20"}"#),
        (r#"{"ssn":"{\"ssn\":\"123456789\"}"}"#, r#"{"ssn":"{\"ssn\":\"XXX-XX-6789\"}"}"#),
        (r#"{"ssn":"\"\\\\ 123-45-6789 \""}"#, r#"{"ssn":"\"\\\\ XXX-XX-6789 \""}"#),
        (r#"{"ssn":"123-45-6789 and 234-56-7890"}"#, r#"{"ssn":"XXX-XX-6789 and XXX-XX-7890"}"#),
    ] {
        assert_eq!(redacted(data), expected);
    }
}

#[test]
fn an_alert_beside_a_redaction_stays() {
    assert_eq!(
        redacted(r#"{"ssn":"bob@example.com 123-45-6789"}"#),
        r#"{"ssn":"bob@example.com XXX-XX-6789"}"#
    );
}

#[test]
fn keys_that_become_equal_are_told_apart() {
    let out = redacted(r#"{"ssn":{"123-45-6789":1,"223-45-6789":2}}"#);
    assert_eq!(out, r#"{"ssn":{"XXX-XX-6789 (1)":1,"XXX-XX-6789 (2)":2}}"#);
}

#[test]
fn other_types_are_replaced_by_their_name() {
    let policy_overrides =
        [("password", Action::Redact), ("credit_card", Action::Redact), ("email", Action::Redact)]
            .map(|(kind, action)| (kind.to_owned(), action))
            .into();
    let dlp = Dlp::compile(&DlpConfig { policy_overrides, ..DlpConfig::default() }).unwrap();
    let data = r#"{"password":"a\"b\\c1","n":4111111111111111,"x":["4111","1111","1111","1111"],"e":"<bob@example.com>"}"#;
    let out = dlp.scan("", data, &mut Scratch::new()).redacted.unwrap();
    let r = "\"[REDACTED:credit_card]\"";
    assert_eq!(
        out,
        format!(
            r#"{{"password":"[REDACTED:password]","n":{r},"x":[{r},{r},{r},{r}],"e":"<[REDACTED:email]>"}}"#
        )
    );
    assert_eq!(dlp.scan("", &out, &mut Scratch::new()).action, Action::Allow);
}

fn ssn() -> impl Strategy<Value = String> {
    (1_u32..900, 1_u32..100, 1_u32..10_000, prop::sample::select(vec!["-", "."]))
        .prop_filter("a valid area", |(area, ..)| *area != 666)
        .prop_map(|(area, group, serial, s)| format!("{area:03}{s}{group:02}{s}{serial:04}"))
}

fn wide(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_ascii_digit() { char::from_u32(c as u32 - 0x30 + 0xFF10).unwrap() } else { c })
        .collect()
}

proptest! {
    #[test]
    fn redaction_holds(
        number in ssn(), before in "[ a-zé😀\"\\\\\n\u{200b}]{0,12}", after in "[ a-zé😀\"\\\\\n]{0,12}",
        style in 0..4, pretty in any::<bool>(),
    ) {
        let shown = match style { 0 => wide(&number), 1 => number.replace(['-', '.'], "-\u{200b}"), _ => number.clone() };
        let value = serde_json::json!({ "ssn": [format!("{before} {shown} {after}"), 1.25e3], "é": null });
        let data = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
        let scan = scan(&data);
        prop_assert_eq!(scan.action, Action::Redact);
        prop_assert_eq!(scan.findings.len(), 1);
        let out = scan.redacted.unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
        let expected = format!("{before} XXX-XX-{} {after}", &number[number.len() - 4..]);
        prop_assert_eq!(parsed["ssn"][0].as_str().unwrap(), expected.as_str());
        // The bytes around the match.
        let kept = out.find("XXX-XX-").unwrap();
        prop_assert_eq!(&out[..kept], &data[..kept]);
        prop_assert!(data.ends_with(&out[kept + 11..]));
        let found = &scan.findings[0];
        let decoded: Vec<char> = value["ssn"][0].as_str().unwrap().chars().collect();
        let matched: String = decoded[found.start..found.end].iter().collect();
        prop_assert_eq!(matched, shown);
        prop_assert_eq!(super::scan(&out).action, Action::Allow);
    }

    #[test]
    fn no_json_makes_the_scan_panic(text in "\\PC{0,80}", raw in "[-0-9a-zA-Z@.:=%+/ \\\\\"_{}\\[\\]]{0,120}", n in any::<f64>()) {
        let value = serde_json::json!({ &text: [&raw, { "password": &raw, "ssn": &text }], "n": n, &raw: &text });
        let data = value.to_string();
        let scan = defaults().scan(&raw, &data, &mut Scratch::new());
        if let Some(out) = scan.redacted {
            prop_assert!(crate::json::check_object(&out, 128).is_ok(), "{}", out);
        }
        for found in &scan.findings {
            prop_assert!(found.start < found.end);
        }
    }
}

#[test]
fn a_long_value_is_redacted_as_a_whole_wherever_its_letters_fall() {
    let policy_overrides = [("password".to_owned(), Action::Redact)].into();
    let dlp = Dlp::compile(&DlpConfig { policy_overrides, ..DlpConfig::default() }).unwrap();
    for before in 0..4 {
        for filler in ["é", "日", "😀", "q"] {
            let secret = format!("7zK{}{}9", "a".repeat(before), filler.repeat(150));
            for text in [format!("password={secret} end"), format!("{{'password': '{secret}'}} end")] {
                let data = serde_json::json!({ "x": text, "password": secret }).to_string();
                let out = dlp.scan("t", &data, &mut Scratch::new()).redacted.unwrap();
                let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
                assert_eq!(parsed["password"], "[REDACTED:password]", "{out}");
                assert_eq!(parsed["x"], text.replace(&secret, "[REDACTED:password]"), "{out}");
            }
        }
    }
}
