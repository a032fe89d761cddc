//! Every type in plain form, and by field name.

use super::*;

const ALNUM36: &str = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8";

#[test]
fn plain_forms_are_found() {
    let jwt = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
    let cases: Vec<(&str, String)> = vec![
        ("ssn", "my number is 123-45-6789.".into()),
        ("ssn", "SSN 123.45.6789".into()),
        ("ssn", "SSN 123 45 6789 on file".into()),
        ("ssn", "SSN: 123456789".into()),
        ("ssn", "social security number is 123456789, ok".into()),
        ("email", "write to bob.smith+x@mail.example.com today".into()),
        ("phone", "call (555) 234-5678 now".into()),
        ("phone", "call 555-234-5678".into()),
        ("phone", "+44 20 7946 0958".into()),
        ("phone", "+14155552671".into()),
        ("phone", "1-800-555-1234".into()),
        ("phone", "phone: 5552345678".into()),
        ("address", "ship to 1600 Pennsylvania Avenue NW".into()),
        ("address", "I live at 12 Oak St. in town".into()),
        ("address", "221 baker street".into()),
        ("icd10", "diagnosed with E11.9 last year".into()),
        ("icd10", "ICD-10: J45".into()),
        ("mrn", "MRN: 12345678".into()),
        ("mrn", "medical record number AB123456".into()),
        ("health_insurance", "Member ID: XYZ123456789".into()),
        ("health_insurance", "health insurance number: 1234567890".into()),
        ("credit_card", "4111111111111111".into()),
        ("credit_card", "pay with 4111 1111 1111 1111 please".into()),
        ("credit_card", "4111-1111-1111-1111".into()),
        ("credit_card", "3782 822463 10005".into()),
        ("credit_card", "5555.5555.5555.4444".into()),
        ("credit_card", "card6011111111111117".into()),
        ("credit_card", "3056 930902 5904".into()),
        ("credit_card", "4111\u{a0}1111\u{a0}1111\u{a0}1111".into()),
        ("cvv", "CVV: 123".into()),
        ("cvv", "the security code is 1234".into()),
        ("api_key", "api_key=abc123def".into()),
        ("aws_key", "use AKIAIOSFODNN7EXAMPLE here".into()),
        ("aws_key", "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into()),
        ("private_key", "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----".into()),
        (
            "private_key",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl\n-----END OPENSSH PRIVATE KEY-----".into(),
        ),
        ("private_key", "-----BEGIN PRIVATE KEY-----\\nMIIE\\n-----END PRIVATE KEY-----\\n".into()),
        (
            "private_key",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlQ\n-----END PGP PRIVATE KEY BLOCK-----".into(),
        ),
        ("private_key", "---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nP2\n".into()),
        ("private_key", "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEI".into()),
        ("private_key", "-----BEGIN ENCRYPTED PRIVATE KEY-----".into()),
        ("jwt", format!("token {jwt} end")),
        ("jwt", "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.".into()),
        ("password", "password=hunter2".into()),
        ("password", "the password is hunter2".into()),
        ("password", "Password: swordfish".into()),
        ("password", "{'password': 'hunter2'}".into()),
        ("password", "postgres://app:s3cr3t@db.internal:5432/x".into()),
        ("password", "Authorization: Basic dXNlcjpwYXNzd29yZA==".into()),
        ("auth_token", "Authorization: Bearer a1b2c3d4e5f6g7h8i9".into()),
        ("iban", "DE89370400440532013000".into()),
        ("iban", "IBAN GB82 WEST 1234 5698 7654 32.".into()),
        ("iban", "fr14 2004 1010 0505 0001 3M02 606".into()),
        ("github_token", format!("ghp_{ALNUM36}")),
        ("gitlab_token", "glpat-a1B2c3D4e5F6g7H8i9J0".into()),
        ("slack_token", "xoxb-123456789012-1234567890123-a1B2c3D4e5F6".into()),
        ("stripe_key", "sk_live_a1B2c3D4e5F6g7H8i9J0".into()),
        ("google_api_key", format!("AIza{}", &ALNUM36[..35])),
        ("azure_key", format!("AccountKey={ALNUM36}{ALNUM36}a1B2c3D4e5F6g7==")),
        ("azure_key", format!("abc8Q~{}", &ALNUM36[..34])),
        ("npm_token", format!("npm_{ALNUM36}")),
        ("pypi_token", format!("pypi-AgEIcHlwaS5vcmc{ALNUM36}{ALNUM36}")),
        ("openai_key", format!("sk-{ALNUM36}")),
        ("openai_key", format!("sk-proj-{ALNUM36}")),
        ("anthropic_key", format!("sk-ant-api03-{ALNUM36}")),
        ("sendgrid_key", format!("SG.{}.{ALNUM36}s9T0u1V", &ALNUM36[..22])),
        ("twilio_key", "SK0123456789abcdef0123456789abcdef".into()),
        ("huggingface_token", format!("hf_{}", &ALNUM36[..34])),
        ("service_token", format!("r8_{ALNUM36}S")),
    ];
    for (kind, sample) in &cases {
        assert_found(kind, &text(sample));
    }
}

#[test]
fn field_names_tell_their_values() {
    for (kind, data) in [
        ("password", r#"{"password":"hunter2"}"#),
        ("password", r#"{"db_password":"correct horse battery"}"#),
        ("password", r#"{"userPassword":"abcd"}"#),
        ("password", r#"{"PASSWD":"x1y2"}"#),
        ("password", r#"{"pwd":"letmein"}"#),
        ("password", r#"{"password":123456}"#),
        ("password", r#"{"passwords":["hunter2"]}"#),
        ("password", r#"{"password":{"value":"hunter2"}}"#),
        ("password", r#"{"pass\u0077ord":"hunter2"}"#),
        ("password", r#"{"pass-word":"hunter2"}"#),
        ("password", r#"{"a":[{"b":{"password":"hunter2"}}]}"#),
        ("api_key", r#"{"api_key":"abc123"}"#),
        ("api_key", r#"{"X-API-Key":"abc123"}"#),
        ("api_key", r#"{"apiKey":"abcdefgh"}"#),
        ("secret", r#"{"client_secret":"shhhhh"}"#),
        ("secret", r#"{"secret":"shhh1"}"#),
        ("auth_token", r#"{"access_token":"abc123def456"}"#),
        ("auth_token", r#"{"token":"t0psecret"}"#),
        ("auth_token", r#"{"Authorization":"Bearer abcdef123"}"#),
        ("private_key", r#"{"private_key":"0x4c0883a69102937d6231471b5dbb6204fe512961708279"}"#),
        ("aws_key", r#"{"aws_secret_access_key":"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"}"#),
        ("high_entropy_secret", r#"{"x_token":"q8Zr2LkV9sTn4WbY7uPc3XmE"}"#),
        ("ssn", r#"{"ssn":123456789}"#),
        ("ssn", r#"{"ssn":"123456789"}"#),
        ("ssn", r#"{"socialSecurityNumber":"123 45 6789"}"#),
        ("ssn", r#"{"ssn":12345678}"#),
        ("ssn", r#"{"ssn":" 123456789 "}"#),
        ("ssn", r#"{"ssn":"1 2 3 4 5 6 7 8 9"}"#),
        ("ssn", r#"{"ssn":"123-456789"}"#),
        ("ssn", r#"{"ssn":1.23456789e8}"#),
        ("ssn", r#"{"ssn":123456789.0}"#),
        ("ssn", r#"{"ssn":[123456789]}"#),
        ("cvv", r#"{"cvv":123}"#),
        ("cvv", r#"{"card":{"security_code":"1234"}}"#),
        ("mrn", r#"{"mrn":"A-123456"}"#),
        ("mrn", r#"{"medicalRecordNumber":1234567}"#),
        ("health_insurance", r#"{"insurance_id":"H12345678"}"#),
        ("phone", r#"{"phone":"5552345678"}"#),
        ("phone", r#"{"mobile":15552345678}"#),
        ("icd10", r#"{"diagnosis_code":"J45"}"#),
        ("credit_card", r#"{"card_number":4111111111111111}"#),
        ("credit_card", r#"{"x":4.111111111111111e15}"#),
    ] {
        assert_found(kind, data);
    }
}

#[test]
fn field_names_have_exceptions() {
    for data in [
        r#"{"password":""}"#,
        r#"{"password":"***"}"#,
        r#"{"password":"${DB_PASSWORD}"}"#,
        r#"{"password":null,"secret":false,"token":true}"#,
        r#"{"password":"Password"}"#,
        r#"{"pwd":"/home/bob/project"}"#,
        r#"{"max_tokens":4096,"token_count":123456789,"tokens":1500000000,"total_tokens":123456}"#,
        r#"{"next_page_token":"q8Zr2LkV9sTn4WbY7uPc3XmE"}"#,
        r#"{"token":"identifier"}"#,
        r#"{"token":42}"#,
        r#"{"key":"value","primary_key":"id"}"#,
        r#"{"public_key":"q8Zr2LkV9sTn4WbY7uPc3XmE"}"#,
        r#"{"private_key":"/etc/ssl/private.key"}"#,
        r#"{"password":"[REDACTED:password]"}"#,
        r#"{"secretName":"db-credentials"}"#,
        r#"{"password_reset_required":"yes"}"#,
        r#"{"cvv":"checked"}"#,
        r#"{"authorization":"Bearer ${TOKEN}"}"#,
        r#"{"text":"password: required, token: invalid"}"#,
        r#"{"text":"Enter your password: it must be long"}"#,
    ] {
        assert_clean(data);
    }
}

#[test]
fn pointers_and_offsets_name_the_match() {
    let scan = assert_found("ssn", r#"{"a~b":[{"c/d":"é 😀 123-45-6789 SSN"}]}"#);
    let found = &scan.findings[0];
    assert_eq!((found.pointer.as_str(), found.start, found.end), ("/a~0b/0/c~1d", 4, 15));
    assert_eq!(&*found.rule, "default.ssn");
    assert_eq!(found.digest_input(), b"123456789");
    assert!(!format!("{scan:?}").contains("6789\"") || scan.redacted.is_some());
    assert!(!format!("{found:?}").contains("6789"));

    let scan = assert_found("ssn", r#"{"a":{"123-45-6789":"ssn"}}"#);
    let found = &scan.findings[0];
    assert_eq!(
        (found.pointer.as_str(), found.start, found.end, found.in_key),
        ("/a/XXX-XX-6789", 0, 11, true)
    );
    assert!(!format!("{found:?}").contains("123-45"));
}

#[test]
fn the_message_type_is_scanned() {
    let scan = defaults().scan("lookup 123-45-6789 ssn", "{}", &mut Scratch::new());
    assert_eq!(kinds(&scan), ["ssn"]);
    assert_eq!(scan.findings[0].pointer, crate::content::MESSAGE_TYPE);
    assert_eq!((scan.findings[0].start, scan.findings[0].end), (7, 18));
    // It cannot be redacted.
    assert_eq!((scan.action, scan.redacted), (Action::Block, None));
}

#[test]
fn the_trace_state_is_searched() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned();
    let trace = Trace { parent, state: Some("v=4111111111111111,w=x".to_owned()), arrived_us: 0 };
    let content = Content { message_type: "t", data_json: "", trace: Some(&trace) };
    let scan = defaults().search(&content, Route::default(), &mut Scratch::new());
    assert_eq!((scan.action, kinds(&scan)), (Action::Block, vec!["credit_card".to_owned()]));
    assert_eq!((scan.findings[0].pointer.as_str(), scan.findings[0].start), ("tracestate", 2));
}

#[test]
fn the_most_restrictive_action_wins() {
    let scan = scan(r#"{"a":"bob@example.com","ssn":"123-45-6789","c":"4111111111111111"}"#);
    assert_eq!(scan.action, Action::Block);
    assert_eq!(scan.redacted, None);
    assert_eq!(kinds(&scan), ["credit_card", "email", "ssn"]);
    assert_eq!(&*scan.findings[0].kind, "credit_card");
}

#[test]
fn invalid_numbers_are_not_found() {
    for sample in [
        "000-12-3456",
        "666-12-3456",
        "900-12-3456",
        "123-00-4567",
        "123-45-0000",
        "1123-45-67890",
        "123-45-67890",
        "1-123-45-6789",
        "4111111111111112",
        "41111111111111111111111",
        "0.4532015112830366",
        "DE88370400440532013000",
        "123456789",
        "555-0123",
        "abc4111111111111111def0123456789",
    ] {
        assert_clean(&text(sample));
    }
}
