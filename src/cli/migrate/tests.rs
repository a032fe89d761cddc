use super::*;

const OLD: &str = "\
server_listen_addr: 127.0.0.1:50051
tls_ca_path: ca.pem
tls_server_cert_path: s.pem
tls_server_key_path: s.key
gateway:
  redis: {url: redis://localhost:6379, decode_responses: true,
          socket_timeout: null}
  circuit_breaker:
    timeout_seconds: 30.5
  dlp: {disable_defaults: [email]}
  audit: {file_path: audit.jsonl}
permissions:
  - {type: allow, sender: a, targets: [b]}
  - type: allow_broadcast
    sender: a
    receivers: [c]
agents:
  - agent_id: a
    class_path: m:A
  - {agent_id: b, class_path: m:B, init_kwargs: {debug: yes}}
  - agent_id: c
    class_path: m:C
    instances: 3
";

fn of(text: &str) -> Report {
    report(Path::new("/nowhere/mas.yaml"), text)
}

fn row<'a>(report: &'a Report, key: &str) -> &'a Row {
    report.keys.iter().find(|row| row.key.starts_with(key)).unwrap_or_else(|| panic!("{key}: {report:#?}"))
}

#[test]
fn each_key_is_told_with_its_line() {
    let report = of(OLD);
    for (key, line, result) in [
        ("tls_ca_path", 2, Outcome::Same),
        ("gateway.redis.url", 6, Outcome::Same),
        ("gateway.redis.decode_responses", 6, Outcome::NoEffect),
        ("gateway.redis.socket_timeout", 7, Outcome::Differs),
        ("gateway.circuit_breaker.timeout_seconds", 9, Outcome::Differs),
        ("gateway.dlp.disable_defaults", 10, Outcome::Differs),
        ("permissions[] allow_broadcast", 14, Outcome::Same),
        ("permissions[1]", 14, Outcome::Differs),
        ("agents[].class_path (3 of 3)", 19, Outcome::Differs),
        ("agents[].init_kwargs (1 of 3)", 20, Outcome::Same),
        ("yes", 20, Outcome::Differs),
        ("agents[].instances (1 of 3)", 23, Outcome::Differs),
    ] {
        let row = row(&report, key);
        assert_eq!((row.line, row.result), (Some(line), result), "{key}");
    }
    // The certificates are not there.
    assert!(!report.runs);
    assert!(report.keys.iter().any(|row| row.note.contains("s.key")), "{report:#?}");
}

#[test]
fn what_is_refused_is_named_with_its_line() {
    let unknown = of(&OLD.replace("    instances: 3", "    instancs: 3"));
    let refused = unknown.keys.iter().find(|row| row.result == Outcome::Refused).unwrap();
    assert!(refused.note.contains("instancs") && refused.line == Some(23), "{refused:?}");

    let nobody = of(&OLD.replace("receivers: [c]", "receivers: [nobody]"));
    let refused = nobody.keys.iter().find(|row| row.result == Outcome::Refused).unwrap();
    assert!(refused.note.contains("permissions[1].receivers") && refused.line == Some(16), "{refused:?}");

    let encrypt = of(&OLD.replace("disable_defaults: [email]", "policy_overrides: {email: encrypt}"));
    let refused = encrypt.keys.iter().find(|row| row.result == Outcome::Refused).unwrap();
    assert!(refused.note.contains("encrypt") && refused.line == Some(10), "{refused:?}");
    assert!(!encrypt.runs);
}

#[test]
fn a_text_that_is_no_configuration_is_refused() {
    for text in ["", "[]", "a: [", "server_listen_addr: 1\n"] {
        assert!(!of(text).runs, "{text:?}");
    }
}
