use super::*;

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
fn a_durability_that_cannot_be_given_is_refused() {
    let error = parse("gateway: {redis: {durability: {mode: fsynced}}}").unwrap_err();
    assert!(error.contains("gateway.redis.durability.mode"), "{error}");
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

#[test]
fn settings_that_have_no_effect_are_named() {
    let config = parse("gateway: {telemetry: {enabled: true}, redis: {decode_responses: true}}").unwrap();
    assert!(config.warnings.iter().any(|w| w.starts_with("gateway.telemetry")));
    assert!(config.warnings.iter().any(|w| w.starts_with("gateway.redis.decode_responses")));
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
    assert_eq!(config.warnings, Vec::<String>::new());
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
    assert!(error.contains("dlp.rules[0]") && error.contains("mine"), "{error}");
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
    let Program::Python(python) = &config.agents["a"].program else {
        panic!("{:?}", config.agents["a"].program);
    };
    assert_eq!((python.class_path.as_str(), python.init_kwargs.as_str()), ("m:A", r#"{"n":1}"#));
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
