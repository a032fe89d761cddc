use super::*;
use crate::policy::RateLimit;

const HEAD: &str = "tls_ca_path: ca.pem\ntls_server_cert_path: s.pem\ntls_server_key_path: s.key\n";

fn parse(body: &str) -> Result<Config, String> {
    Config::parse(Path::new("/etc/mas/mas.yaml"), &format!("{HEAD}{body}")).map_err(|e| e.to_string())
}

#[test]
fn a_small_file_is_resolved_against_its_folder() {
    let config = parse("agents: [{agent_id: a, tls_cert_path: a.pem}, {agent_id: b}]\n").unwrap();
    assert_eq!(config.tls.ca, Path::new("/etc/mas/ca.pem"));
    assert_eq!(config.agents["a"].cert.as_deref(), Some(Path::new("/etc/mas/a.pem")));
    assert_eq!(config.limits.max_message_bytes, 1_048_576);
    assert_eq!(config.delivery.retry_backoff_ms, [100, 1000, 10_000]);
}

#[test]
fn an_error_names_file_key_and_line() {
    let unknown = parse("limits:\n  max_message_byte: 5\n").unwrap_err();
    assert!(unknown.starts_with("/etc/mas/mas.yaml: "), "{unknown}");
    assert!(unknown.contains("max_message_byte") && unknown.contains("line 5"), "{unknown}");

    let wrong_type = parse("delivery:\n  max_attempts: many\n").unwrap_err();
    assert!(wrong_type.contains("delivery.max_attempts") && wrong_type.contains("line 5"), "{wrong_type}");
}

#[test]
fn a_duplicate_key_is_refused() {
    assert!(parse("threads: 1\nthreads: 2\n").unwrap_err().contains("duplicate"));
}

#[test]
fn a_key_that_stands_twice_is_refused_however_deep() {
    for (body, key, line) in [
        ("threads: 1\nthreads: 2\n", "threads", 5),
        ("limits:\n  max_queue_len: 1\n  max_queue_len: 2\n", "max_queue_len", 6),
        ("agents:\n  - agent_id: a\n    env:\n      X: 1\n      X: 2\n", "X", 8),
        ("agents:\n  - agent_id: a\n    metadata: {a: {b: [{c: 1,\n      \"c\": 2}]}}\n", "c", 7),
        ("agents: [{agent_id: a, metadata: {1: x, '1': y}}]\n", "1", 4),
        ("gateway:\n  dlp:\n    policy_overrides: {ssn: block, iban: alert,\n      ssn: allow}\n", "ssn", 7),
    ] {
        let error = parse(body).unwrap_err();
        let said =
            error.contains(&format!("duplicate key {key:?}")) && error.contains(&format!("line {line}"));
        assert!(said, "{body}: {error}");
    }
    assert!(parse("agents: [{agent_id: a, metadata: {b: {c: 1}, d: {c: 1}}}]\n").is_ok());
}

#[test]
fn a_byte_order_mark_and_windows_ends_of_line_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mas.yaml");
    let text = format!("\u{feff}{HEAD}agents: [{{agent_id: a}}]\n").replace('\n', "\r\n");
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path).unwrap();
    assert!(config.agents.contains_key("a"));
    assert!(config.error_at("tls_server_key_path", "is wrong").to_string().ends_with("at line 3"));
}

#[test]
fn a_rule_over_an_unknown_agent_is_refused() {
    let error = parse("agents: [{agent_id: a}]\npermissions: [{type: allow, sender: a, targets: [b]}]\n")
        .unwrap_err();
    assert!(error.contains("permissions[0].targets") && error.contains("\"b\""), "{error}");
}

#[test]
fn an_agent_listed_twice_is_refused() {
    assert!(parse("agents: [{agent_id: a}, {agent_id: a}]").unwrap_err().contains("twice"));
}

#[test]
fn a_malformed_agent_id_is_refused() {
    for bad in ["'a:b'", "\"a\\n\"", "''", "'*'"] {
        let error = parse(&format!("agents: [{{agent_id: {bad}}}]")).unwrap_err();
        assert!(error.contains("agent id"), "{bad}: {error}");
    }
}

#[test]
fn out_of_range_values_are_refused_with_the_range() {
    let error = parse("limits: {max_message_bytes: 9000000}").unwrap_err();
    assert!(error.contains("limits.max_message_bytes") && error.contains("expected 1 to"), "{error}");
}

#[test]
fn a_managed_redis_is_reached_through_its_socket() {
    let config = parse("gateway: {redis: {url: managed, data_dir: data}}").unwrap();
    assert_eq!(config.redis.url, "unix:///etc/mas/data/redis.sock");
    assert_eq!(config.redis.managed.as_deref(), Some(Path::new("/etc/mas/data")));
}

#[test]
fn what_is_asked_of_redis_must_fit_together() {
    for (redis, key) in [
        ("durability: {mode: replicated}", "durability.replicas"),
        ("durability: {mode: fsynced}, socket_timeout: 1", "durability.timeout_ms"),
        ("durability: {mode: replicated, replicas: 17}", "durability.replicas"),
        ("tls: {ca_path: ca.pem}", "tls.ca_path"),
        ("url: 'rediss://x', tls: {cert_path: c.pem}", "tls.key_path"),
        ("sentinel: {master: m, addrs: []}", "sentinel.addrs"),
        ("sentinel: {master: m, addrs: [host]}", "sentinel.addrs"),
        ("url: 'unix:///x', sentinel: {master: m, addrs: ['h:1']}", "sentinel.master"),
    ] {
        let error = parse(&format!("gateway: {{redis: {{{redis}}}}}")).unwrap_err();
        assert!(error.contains(&format!("gateway.redis.{key}")), "{redis}: {error}");
    }
    let config = parse("gateway: {redis: {durability: {mode: replicated, replicas: 2}}}").unwrap();
    assert_eq!(config.redis.durability, Durability::Replicated { replicas: 2, timeout_ms: 1000 });
    let config = parse("gateway: {redis: {url: 'rediss://x', tls: {ca_path: ca.pem}}}").unwrap();
    assert_eq!(config.redis.tls.ca.as_deref(), Some(Path::new("/etc/mas/ca.pem")));
}

#[test]
fn every_permission_type_is_read() {
    let config = parse(
        "agents: [{agent_id: a}, {agent_id: b}, {agent_id: c}]\n\
         permissions:\n\
         - {type: allow_bidirectional, agents: [a, b]}\n\
         - {type: allow_network, agents: [a, b, c]}\n\
         - {type: allow_network, agents: [a, b, c], bidirectional: false}\n\
         - {type: allow_broadcast, sender: a, receivers: [b, c]}\n\
         - {type: allow_wildcard, agent_id: a}\n\
         - {type: allow, sender: a, targets: [b]}\n\
         - {type: deny, sender: a, targets: [c]}\n",
    )
    .unwrap();
    assert_eq!(config.permissions.len(), 7);
    assert!(config.warnings.iter().any(|w| w.contains("allow_wildcard")));
}

/// HEAD has three lines, so the first line of `body` is line 4.
#[test]
fn what_is_wrong_beyond_the_syntax_has_file_key_and_line_too() {
    let agents = "agents:\n  - agent_id: a\n  - agent_id: b\n";
    for (body, key, line) in [
        ("limits:\n  max_json_depth: 64\n  max_message_bytes: 0\n", "limits.max_message_bytes", 6),
        ("delivery:\n  retry_backoff_ms: []\n", "delivery.retry_backoff_ms", 5),
        ("\nthreads: 0\n", "threads", 5),
        ("\nspin_us: 10001\n", "spin_us", 5),
        ("server_listen_addr: nowhere\n", "server_listen_addr", 4),
        ("admin_listen_addr: '9464'\n", "admin_listen_addr", 4),
        ("gateway:\n  redis:\n    url: http://x\n", "gateway.redis.url", 6),
        ("gateway:\n  redis:\n    socket_timeout: 0\n", "gateway.redis.socket_timeout", 6),
        ("gateway:\n  redis: {durability: {mode: replicated}}\n", "gateway.redis.durability.replicas", 5),
        ("gateway:\n  audit:\n    checkpoint_interval_ms: 1\n", "gateway.audit.checkpoint_interval_ms", 6),
        ("gateway:\n  audit:\n    anchor_path: keys/audit.ed25519\n", "gateway.audit.anchor_path", 6),
        ("gateway:\n  telemetry:\n    sample_ratio: 2\n", "gateway.telemetry.sample_ratio", 6),
        (
            "gateway:\n  circuit_breaker:\n    timeout_seconds: 0\n",
            "gateway.circuit_breaker.timeout_seconds",
            6,
        ),
        (
            "gateway:\n  dlp:\n    rules:\n      - {id: x, type: t, pattern: a}\n      - {id: y, type: t,\n         pattern: '('}\n",
            "gateway.dlp.rules[1].pattern",
            9,
        ),
        ("gateway:\n  dlp:\n    policy_overrides:\n      no: block\n", "gateway.dlp.policy_overrides.no", 7),
        ("roles:\n  - name: r\n    permissions:\n      - send:a\n      - no\n", "roles[0].permissions[1]", 8),
        ("agents:\n  - agent_id: a\n    roles: [nobody]\n", "agents[0].roles[0]", 6),
        ("agents:\n  - agent_id: a\n  - agent_id: a\n", "agents[1].agent_id", 6),
        ("agents:\n  - agent_id: a\n    instances: 65\n", "agents[0].instances", 6),
        ("agents:\n  - agent_id: a\n    command: [x]\n    class_path: m:C\n", "agents[0]", 5),
        ("agents:\n  - agent_id: a\n    class_path: nothing\n", "agents[0].class_path", 6),
        (
            &format!(
                "{agents}permissions:\n  - {{type: allow, sender: a, targets: [b]}}\n  - type: deny\n    sender: a\n    targets:\n      - b\n      - c\n"
            ),
            "permissions[1].targets[1]",
            13,
        ),
        (
            &format!("{agents}permissions:\n  - {{type: allow_wildcard, agent_id: z}}\n"),
            "permissions[0].agent_id",
            8,
        ),
    ] {
        let error = parse(body).unwrap_err();
        assert!(error.starts_with(&format!("/etc/mas/mas.yaml: {key}: ")), "{key}: {error}");
        assert!(error.ends_with(&format!(" at line {line}")), "{line}: {error}");
    }
}

#[test]
fn a_value_of_the_wrong_type_has_key_and_line_wherever_it_stands() {
    for (body, key) in [
        ("gateway:\n  audit:\n    max_bytes: much\n", "gateway.audit.max_bytes"),
        ("gateway:\n  audit:\n    sign: true\n", "gateway.audit"),
        ("gateway:\n  telemetry:\n    enabled: perhaps\n", "gateway.telemetry.enabled"),
        ("gateway:\n  telemetry:\n    headers: [a]\n", "gateway.telemetry.headers"),
        ("gateway:\n  redis:\n    decode_responses: 1\n", "gateway.redis.decode_responses"),
        ("agents:\n - agent_id: a\n   init_kwargs: [1]\n", "agents[0].init_kwargs"),
        ("agents:\n - agent_id: a\n   metadata: text\n", "agents[0].metadata"),
        ("agents:\n - agent_id: a\n   rate_limit: {per_minute: -1}\n", "agents[0].rate_limit.per_minute"),
    ] {
        let error = parse(body).unwrap_err();
        assert!(error.starts_with(&format!("/etc/mas/mas.yaml: {key}: ")), "{key}: {error}");
        assert!(error.contains(" at line 6 "), "{error}");
    }
}

#[test]
fn the_audit_section_is_resolved_against_the_folder() {
    let defaults = parse("").unwrap().audit;
    assert_eq!(defaults.signing_key_path, Path::new("/etc/mas/keys/audit.ed25519"));
    assert_eq!(defaults.anchor_path.as_deref(), Some(Path::new("/etc/mas/audit-anchor.jsonl")));
    assert_eq!(defaults.archive(), Some(Path::new("/etc/mas/audit-archive")));
    assert_eq!((defaults.file_path.clone(), defaults.max_records()), (None, 250_000));
    assert_eq!((defaults.max_bytes, defaults.backup_count), (10_485_760, 5));
    assert_eq!(defaults.checkpoint_interval_ms, 1000);
    let audit = parse(
        "gateway: {audit: {file_path: a.jsonl, anchor_path: null, archive_dir: /var/mas, max_records: 9}}",
    )
    .unwrap()
    .audit;
    assert_eq!(audit.file_path.as_deref(), Some(Path::new("/etc/mas/a.jsonl")));
    assert_eq!(audit.archive(), Some(Path::new("/var/mas")));
    assert_eq!((audit.anchor_path.clone(), audit.max_records()), (None, 9));
}

#[test]
fn without_an_archive_nothing_bounds_the_trail_and_that_is_said() {
    for off in ["archive: off", "archive_dir: null"] {
        let config = parse(&format!("gateway: {{audit: {{{off}}}}}")).unwrap();
        assert_eq!((config.audit.archive(), config.audit.max_records()), (None, 0));
        assert!(config.warnings.iter().any(|warning| warning.contains("grows without a bound")), "{off}");
    }
    let config = parse("gateway: {audit: {archive: off, max_records: 7}}").unwrap();
    assert!(config.warnings.iter().any(|warning| warning.contains("once it has 7 records")));
    assert!(parse("gateway: {audit: {archive: never}}").is_err());
    assert!(!parse("").unwrap().warnings.iter().any(|warning| warning.contains("gateway.audit")));
}

#[test]
fn an_error_found_after_loading_has_the_line_as_long_as_the_file_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    std::fs::write(&path, HEAD).unwrap();
    let config = Config::load(&path).unwrap();
    let said = || config.error_at("tls_server_key_path", "cannot be read").to_string();
    assert_eq!(said(), format!("{}: tls_server_key_path: cannot be read at line 3", path.display()));
    std::fs::write(&path, format!("\n{HEAD}")).unwrap();
    assert_eq!(said(), format!("{}: tls_server_key_path: cannot be read", path.display()));
}

#[test]
fn a_role_for_everybody_is_said_loudly() {
    let roles = "roles: [{name: any, permissions: ['send:*']}]\n";
    assert!(!parse(roles).unwrap().warnings.iter().any(|w| w.contains("send:*")));
    let on = parse(&format!("{roles}gateway: {{features: {{rbac: true}}}}")).unwrap();
    assert!(on.warnings.iter().any(|w| w.contains("\"any\"") && w.contains("every agent")));
}

#[test]
fn settings_that_have_no_effect_are_named() {
    let config = parse("gateway: {telemetry: {enabled: true}, redis: {decode_responses: true}}").unwrap();
    assert!(config.warnings.iter().any(|w| w.starts_with("gateway.telemetry.otlp_endpoint")));
    assert!(config.warnings.iter().any(|w| w.starts_with("gateway.redis.decode_responses")));
    let off = parse("gateway: {telemetry: {enabled: false}}").unwrap();
    assert!(!off.warnings.iter().any(|w| w.starts_with("gateway.telemetry")));
}

#[test]
fn the_shipped_file_is_valid_and_shows_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE_NAME);
    let config = Config::load(&path).unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.delivery, Delivery::default());
    assert_eq!(config.listen_addr, "127.0.0.1:50051");
    assert_eq!(config.redis.timeout_ms, 5000);
    assert_eq!(config.rate_limit, RateLimit::default());
    assert_eq!(config.breaker, BreakerConfig::default());
    assert_eq!(config.features, Features::default());
    assert_eq!(config.telemetry, Telemetry::default());
    let folder = path.parent().unwrap();
    assert_eq!(config.audit, Audit::default().resolved(|path| folder.join(path)));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_admin_listener_is_at_its_default_unless_something_else_is_said() {
    assert_eq!(parse("").unwrap().admin_listen_addr, AdminListen::Default);
    assert_eq!(parse("admin_listen_addr: null").unwrap().admin_listen_addr, AdminListen::Off);
    let at = parse("admin_listen_addr: '0.0.0.0:0'").unwrap().admin_listen_addr;
    assert_eq!(at, AdminListen::At("0.0.0.0:0".to_owned()));
}

#[test]
fn operators_are_checked() {
    let config = parse("operators: [{name: ops, role: operator}, {name: o.2, role: auditor}]").unwrap();
    let found: Vec<_> = config.operators.iter().map(|o| (o.name.as_str(), o.role.as_str())).collect();
    assert_eq!(found, [("ops", "operator"), ("o.2", "auditor")]);
    for (bad, key) in [
        ("{name: a/b, role: reader}", "operators[0].name"),
        ("{name: '..', role: reader}", "operators[0].name"),
        ("{name: '', role: reader}", "operators[0].name"),
        ("{name: a, role: reader}, {name: a, role: reader}", "operators[1].name"),
        ("{name: a, role: king}", "operators[0].role"),
        ("{name: a}", "operators[0]"),
    ] {
        let error = parse(&format!("operators: [{bad}]")).unwrap_err();
        assert!(error.contains(key), "{bad}: {error}");
    }
}

#[test]
fn roles_are_checked() {
    let roles = "roles: [{name: dispatcher, permissions: ['send:worker-*', 'send:a', 'send:*']}]\n";
    let config = parse(&format!("{roles}agents: [{{agent_id: a, roles: [dispatcher]}}]")).unwrap();
    assert_eq!(config.agents["a"].roles, ["dispatcher"]);
    let unknown = parse("agents: [{agent_id: a, roles: [nobody]}]").unwrap_err();
    assert!(unknown.contains("agents[0].roles") && unknown.contains("nobody"), "{unknown}");
    for bad in ["worker", "read:a", "send:", "send:a:b", "send:*a", "send:a*b"] {
        let error = parse(&format!("roles: [{{name: r, permissions: ['{bad}']}}]")).unwrap_err();
        assert!(error.contains("roles[0].permissions[0]"), "{bad}: {error}");
    }
}

#[test]
fn a_bad_dlp_rule_is_named() {
    let error =
        parse("gateway: {dlp: {rules: [{id: mine, type: x, pattern: '(', action: block}]}}").unwrap_err();
    assert!(error.contains("gateway.dlp.rules[0].pattern: rule \"mine\""), "{error}");
    assert!(parse("gateway: {dlp: {policy_overrides: {nothing: block}}}").unwrap_err().contains("nothing"));
}

#[test]
fn a_file_of_the_python_server_is_read_as_it_is() {
    let config = parse(
        "gateway:\n  redis: {url: redis://localhost:6379, decode_responses: true, socket_timeout: null}\n  \
         circuit_breaker: {timeout_seconds: 60.0, window_seconds: 12.5}\n  \
         dlp: {merge_strategy: append, disable_defaults: [email], policy_overrides: {phone: block}}\n\
         agents: [{agent_id: a, class_path: 'm:A', instances: 2, init_kwargs: {n: 1}}]\n",
    )
    .unwrap();
    assert_eq!(config.redis.timeout_ms, 5000);
    assert_eq!((config.breaker.timeout_seconds, config.breaker.window_seconds), (60, 13));
    assert_eq!(config.agents["a"].program, Program::ClassPath("m:A".to_owned()));
    assert_eq!(config.agents["a"].init_kwargs["n"], 1);
}

#[test]
fn a_python_agent_that_cannot_be_made_is_refused() {
    for (entry, key) in [
        ("class_path: m", "agents[0].class_path"),
        ("class_path: 'm:'", "agents[0].class_path"),
        ("class_path: 'm:A', init_kwargs: {tls: 1}", "agents[0].init_kwargs.tls"),
        ("class_path: 'm:A', command: [x]", "agents[0]"),
    ] {
        let error = parse(&format!("agents: [{{agent_id: a, {entry}}}]")).unwrap_err();
        assert!(error.contains(key), "{entry}: {error}");
    }
}
