//! Documents as programs exchange them, in which there is nothing to find.

use super::*;

/// A small generator of numbers, the same every time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn from(&mut self, alphabet: &str, len: usize) -> String {
        let letters: Vec<char> = alphabet.chars().collect();
        (0..len).map(|_| letters[self.below(letters.len() as u64) as usize]).collect()
    }

    fn hex(&mut self, len: usize) -> String {
        self.from("0123456789abcdef", len)
    }

    fn base64(&mut self, len: usize) -> String {
        self.from("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", len)
    }

    fn uuid(&mut self) -> String {
        format!("{}-{}-4{}-a{}-{}", self.hex(8), self.hex(4), self.hex(3), self.hex(3), self.hex(12))
    }

    fn word(&mut self) -> &'static str {
        const WORDS: &[&str] = &[
            "lodash", "express", "report", "build", "update", "review", "server", "request", "token",
            "secret", "agent", "keyboard", "password", "street", "member", "phone", "address", "record",
            "security", "code", "policy",
        ];
        WORDS[self.below(WORDS.len() as u64) as usize]
    }
}

fn manifest(r: &mut Random) -> serde_json::Value {
    serde_json::json!({
        "name": r.word(), "version": format!("{}.{}.{}", r.below(20), r.below(50), r.below(300)),
        "scripts": { "test": "jest --maxWorkers=50%", "build": "tsc -p . && node ./dist/index.js" },
        "dependencies": { r.word(): format!("^{}.{}.{}", r.below(9), r.below(9), r.below(9)), "@scope/pkg": "npm:other@1.2.3" },
        "repository": { "type": "git", "url": "git+ssh://git@github.com/team/project.git" },
        "engines": { "node": ">=18.12.0" },
    })
}

fn lock(r: &mut Random) -> serde_json::Value {
    serde_json::json!({
        "lockfileVersion": 3,
        "packages": { format!("node_modules/{}", r.word()): {
            "version": "4.17.21", "resolved": "https://registry.npmjs.org/lodash/-/lodash-4.17.21.tgz",
            "integrity": format!("sha512-{}==", r.base64(86)), "checksum": r.hex(64), "shasum": r.hex(40),
        } },
    })
}

fn log(r: &mut Random) -> serde_json::Value {
    serde_json::json!({
        "ts": format!("2024-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", 1 + r.below(12), 1 + r.below(28), r.below(24), r.below(60), r.below(60), r.below(1_000_000_000)),
        "timestamp_ms": 1_700_000_000_000_u64 + r.below(10_000_000_000), "time_ns": 1_700_000_000_000_000_000_u64 + r.below(1 << 40),
        "level": "info", "trace_id": r.hex(32), "span_id": r.hex(16), "pid": r.below(99_999),
        "msg": format!("GET /v1/{}/{} HTTP/1.1 {} {} {}", r.word(), r.uuid(), 200 + r.below(300), r.below(100), r.below(10_000)),
        "line": format!("{}.{}.{}.{} - - [10/Oct/2000:13:55:36 -0700] \"GET / HTTP/1.0\" 200 {} {}", r.below(256), r.below(256), r.below(256), r.below(256), r.below(100), r.below(9999)),
        "latency": r.below(1 << 53) as f64 / (1_u64 << 53) as f64, "token_count": r.below(100_000),
    })
}

fn order(r: &mut Random) -> serde_json::Value {
    serde_json::json!({
        "order_id": format!("ORD-{}-{:06}", 2020 + r.below(6), r.below(1_000_000)), "order_number": 1_000_000_000_000_000 + r.below(9_000_000_000_000_000),
        "sku": format!("{}-{}", r.from("ABCDEFGHJKLMNPQRSTUVWXYZ", 3), r.below(100_000)), "ean": format!("{:013}", r.below(10_000_000_000_000)),
        "quantity": r.below(100), "price": r.below(100_000) as f64 / 100.0, "customer_id": r.below(1_000_000_000),
        "invoice": format!("INV{:08}", r.below(100_000_000)), "tracking": format!("1Z{}", r.from("0123456789ABCDEFGHXYZ", 16)),
        "account": format!("{:010}", r.below(10_000_000_000)), "zip": format!("{:05}", r.below(100_000)), "lat": -73.985_428_123_456_7,
    })
}

fn ids(r: &mut Random) -> serde_json::Value {
    serde_json::json!({
        "id": r.uuid(), "ulid": r.from("0123456789ABCDEFGHJKMNPQRSTVWXYZ", 26), "object_id": r.hex(24), "etag": format!("\"{}\"", r.hex(32)),
        "digest": format!("sha256:{}", r.hex(64)), "commit": r.hex(40), "nano_id": r.base64(21), "image": r.base64(400),
        "snowflake": 1_000_000_000_000_000_000_u64 + r.below(300_000_000_000_000_000), "urn": format!("urn:uuid:{}", r.uuid()),
        "version": format!("v{}.{}.{}-rc.{}", r.below(9), r.below(99), r.below(99), r.below(9)), "mac": "00:1b:44:11:3a:b7",
        "next_page_token": r.base64(44), "csrf_token": r.hex(32), "key": format!("{}/{}.png", r.word(), r.hex(12)),
        "values": [r.below(10_000), r.below(10_000), r.below(10_000), r.below(10_000)], "f": [r.below(1 << 52) as f64 * 1.1e-16],
    })
}

fn chat(r: &mut Random) -> serde_json::Value {
    let (a, b) = (r.word(), r.word());
    serde_json::json!({
        "role": "user", "model": "large-2024-08-06", "max_tokens": r.below(8192), "temperature": 0.7,
        "content": format!("Please {a} the {b}. Step 1 of {}: see section {}.{} of RFC {}, due 2024-05-{:02} at {}:30. The password policy, the secret key to success and the token: all of it on page {}.", r.below(9), r.below(9), r.below(9), r.below(9999), 1 + r.below(28), r.below(12), r.below(500)),
        "usage": { "prompt_tokens": r.below(100_000), "completion_tokens": r.below(10_000) },
        "tools": [{ "name": "lookup", "parameters": { "type": "object", "properties": { "password": { "type": "string" }, "token": { "type": "string", "description": "An API token." } }, "required": ["password"] } }],
    })
}

#[test]
fn ordinary_documents_pass() {
    let dlp = defaults();
    let mut scratch = Scratch::new();
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let makers = [manifest, lock, log, order, ids, chat];
    let (mut stopped, mut alerts) = (Vec::new(), Vec::new());
    let documents = 6_000;
    for number in 0..documents {
        let data = makers[number % makers.len()](&mut random).to_string();
        let scan = dlp.scan("task.update", &data, &mut scratch);
        match scan.action {
            Action::Allow => {}
            Action::Alert => alerts.push((scan.findings, data)),
            _ => stopped.push((scan.findings, data)),
        }
    }
    assert!(
        stopped.len() <= documents / 1000,
        "{} stopped: {:#?}",
        stopped.len(),
        &stopped[..stopped.len().min(10)]
    );
    assert!(
        alerts.len() <= documents / 1000,
        "{} alerts: {:#?}",
        alerts.len(),
        &alerts[..alerts.len().min(10)]
    );
}

#[test]
fn ordinary_texts_pass() {
    for sample in [
        "10 minute drive",
        "2 way street",
        "version 10.15.7 (19H2)",
        "192.168.1.100",
        "10.0.0.1:8080",
        "2001:db8::8a2e:370:7334",
        "logo@2x.png",
        "git@github.com:team/x.git",
        "user@localhost",
        "@team please look",
        "a@b",
        "react@18.2.0",
        "sk-learn and scikit-learn",
        "task-force",
        "the basic idea",
        "bearer of news",
        "Basic authentication",
        "password reset",
        "forgot password?",
        "tokenizer",
        "No secrets here: none",
        "ISBN 978-3-16-148410-0",
        "2024-05-01 12:30:45,123",
        "+1",
        "C++20",
        "12:30:45.678901234",
        "$1,234,567.89",
        "3.14159265358979323846",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----",
        "a private key is secret",
        "SSN is required",
        "enter CVV",
        "token=next",
        "https://example.org/a:b@c",
        "https://user@example.org/",
        "100% of 50%25",
        "0x4111111111111111",
        "Room E11.9a-x",
        "T1.5",
        "A4",
        "1234-5678-9012-3456",
        "ABCD-1234-EFGH-5678",
        "Total: 123 45 6789 10",
        "eyJhbGciOiJIUzI1NiJ9",
        "eyJ.eyJ.eyJ",
        "DE12345",
        "Lorem ipsum dolor sit amet",
        "mcvc 123",
        "api_key: required",
    ] {
        assert_clean(&text(sample));
    }
}
