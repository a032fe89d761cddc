use std::os::unix::fs::PermissionsExt;

use rcgen::ExtendedKeyUsagePurpose;
use x509_parser::extensions::GeneralName;

use super::*;

fn agent(id: &str) -> AgentId {
    AgentId::parse(id).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

fn der(path: &Path) -> Vec<u8> {
    describe::certificate_der(path, &std::fs::read(path).unwrap()).unwrap()
}

fn scratch() -> (tempfile::TempDir, Authority) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::create(&dir.path().join("ca"), 30).unwrap();
    (dir, authority)
}

#[test]
fn keys_and_folders_are_their_owners_only() {
    let (_scratch, authority) = scratch();
    let dir = authority.dir();
    let server = authority.issue_server(&["localhost".to_owned()], 1).unwrap();
    let alpha = authority.issue_agent(&agent("alpha"), 1).unwrap();
    assert_eq!(server, server_files(dir));
    assert_eq!(alpha, agent_files(dir, &agent("alpha")));
    for key in [&ca_key_file(dir), &server.key, &alpha.key] {
        assert_eq!(mode(key), 0o600, "{}", key.display());
    }
    assert_eq!(mode(dir), 0o700);
    assert_eq!(mode(&agents_folder(dir)), 0o700);
    let mut names: Vec<_> =
        dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let expected = [".lock", "agents", "ca.key", "ca.pem", "server.key", "server.pem"];
    assert_eq!(names, expected);
}

#[test]
fn a_ca_is_never_overwritten() {
    let (_scratch, authority) = scratch();
    let dir = authority.dir();
    let before = (der(&ca_file(dir)), std::fs::read(ca_key_file(dir)).unwrap());
    assert!(matches!(Authority::create(dir, 30), Err(CertsError::CaExists { .. })));
    Authority::open_or_create(dir, 30).unwrap();
    assert_eq!(before, (der(&ca_file(dir)), std::fs::read(ca_key_file(dir)).unwrap()));

    // Nor is half of one.
    std::fs::remove_file(ca_file(dir)).unwrap();
    assert!(matches!(Authority::create(dir, 30), Err(CertsError::CaExists { .. })));
    assert!(matches!(Authority::open_or_create(dir, 30), Err(CertsError::CaExists { .. })));
}

#[test]
fn one_of_many_creators_wins_and_the_others_open_its_ca() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("a/b");
    let names: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| Authority::open_or_create(&dir, 30).unwrap())).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let keys = names.iter().map(|a| a.issuer.key().public_key_raw().to_vec());
    let distinct: std::collections::BTreeSet<_> = keys.collect();
    assert_eq!(distinct.len(), 1);
}

#[test]
fn the_ca_may_sign_leaves_only() {
    let (_scratch, authority) = scratch();
    let path = ca_file(authority.dir());
    let der = der(&path);
    let cert = describe::parse_der(&path, &der).unwrap();
    let constraints = cert.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && constraints.value.ca);
    assert_eq!(constraints.value.path_len_constraint, Some(0));
    let usage = cert.key_usage().unwrap().unwrap().value;
    assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
    assert_eq!(cert.subject().to_string(), "CN=MAS CA");
    cert.verify_signature(None).unwrap();
}

#[test]
fn an_agents_certificate_names_it_once_and_verifies() {
    let (_scratch, authority) = scratch();
    // As the next process sees it.
    let authority = Authority::open(authority.dir()).unwrap();
    let paths = authority.issue_agent(&agent("alpha"), 10).unwrap();
    let (ca_path, ca_der) = (ca_file(authority.dir()), der(&ca_file(authority.dir())));
    let ca = describe::parse_der(&ca_path, &ca_der).unwrap();
    let der = der(&paths.cert);
    let cert = describe::parse_der(&paths.cert, &der).unwrap();

    cert.verify_signature(Some(ca.public_key())).unwrap();
    assert_eq!(cert.issuer(), ca.subject());
    let sans = &cert.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(sans, &[GeneralName::URI("spiffe://mas/agent/alpha")]);
    assert_eq!(cert.subject().to_string(), "CN=alpha");
    assert!(!cert.is_ca());
    let usage = cert.key_usage().unwrap().unwrap().value;
    assert_eq!(usage.flags, 1, "digitalSignature and nothing else");
    let purposes = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.client_auth && !purposes.server_auth && !purposes.any);
    assert!(cert.validity().is_valid());
    assert!(cert.raw_serial().len() == 16 && cert.raw_serial()[0] & 0xc0 == 0x40);
    let names_its_issuer = cert
        .iter_extensions()
        .any(|extension| extension.oid == x509_parser::oid_registry::OID_X509_EXT_AUTHORITY_KEY_IDENTIFIER);
    assert!(names_its_issuer);
    let key = KeyPair::from_pem(&std::fs::read_to_string(&paths.key).unwrap()).unwrap();
    assert_eq!(key.public_key_raw(), cert.public_key().subject_public_key.data.as_ref());
}

#[test]
fn the_servers_certificate_names_its_hosts() {
    let (_scratch, authority) = scratch();
    let names = ["localhost", "127.0.0.1", "::1", "localhost"].map(str::to_owned);
    let paths = authority.issue_server(&names, 10).unwrap();
    let said = describe(&paths.cert).unwrap();
    assert_eq!(said.sans, ["DNS:localhost", "IP:127.0.0.1", "IP:::1"]);
    assert_eq!((said.is_ca, said.days_left), (false, 9));
    let der = der(&paths.cert);
    let cert = describe::parse_der(&paths.cert, &der).unwrap();
    let purposes = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(purposes.server_auth && !purposes.client_auth);

    assert!(matches!(authority.issue_server(&[], 1), Err(CertsError::NoHostName)));
    let wrong = authority.issue_server(&["a b".to_owned()], 1);
    assert!(matches!(wrong, Err(CertsError::HostName { .. })));
}

#[test]
fn issuing_again_renews_certificate_and_key() {
    let (_scratch, authority) = scratch();
    let paths = authority.issue_agent(&agent("alpha"), 1).unwrap();
    let first = (describe(&paths.cert).unwrap(), std::fs::read(&paths.key).unwrap());
    authority.issue_agent(&agent("alpha"), 1).unwrap();
    let second = (describe(&paths.cert).unwrap(), std::fs::read(&paths.key).unwrap());
    assert_ne!(first.0.serial, second.0.serial);
    assert_ne!(first.0.fingerprint, second.0.fingerprint);
    assert_ne!(first.1, second.1);
}

#[test]
fn no_certificate_outlives_the_ca_unless_it_is_told_to() {
    let (_scratch, authority) = scratch();
    let ca = describe(&ca_file(authority.dir())).unwrap();
    let paths = authority.issue_agent(&agent("alpha"), 1000).unwrap();
    assert_eq!(describe(&paths.cert).unwrap().not_after, ca.not_after);

    for days in [0, MAX_DAYS + 1] {
        let refused = authority.issue_agent(&agent("alpha"), days);
        assert!(matches!(refused, Err(CertsError::Days { .. })));
    }

    let now = OffsetDateTime::now_utc();
    let (start, end) = (now - Duration::days(3), now - Duration::hours(1));
    let paths = authority.issue_agent_with(&agent("late"), start, end).unwrap();
    assert_eq!(describe(&paths.cert).unwrap().days_left, -1);
    assert!(matches!(
        authority.issue_agent_with(&agent("late"), end, start),
        Err(CertsError::Validity { .. })
    ));
}

#[test]
fn a_custom_leaf_is_what_was_asked_for() {
    let (scratch, authority) = scratch();
    let path = scratch.path().join("custom.pem");
    let spec = CustomLeaf {
        common_name: Some("alpha".to_owned()),
        is_ca: true,
        key_usages: vec![KeyUsagePurpose::KeyCertSign],
        extended_key_usages: vec![ExtendedKeyUsagePurpose::Any],
        ..CustomLeaf::client(vec![
            San::Uri("spiffe://mas/agent/alpha".to_owned()),
            San::Uri("spiffe://mas/agent/be\0ta".to_owned()),
            San::Dns("alpha".to_owned()),
        ])
    };
    let (cert, key) = authority.issue_custom(spec).unwrap();
    KeyPair::from_pem(&key).unwrap();
    std::fs::write(&path, cert).unwrap();
    let said = describe(&path).unwrap();
    assert!(said.is_ca);
    assert_eq!(said.sans.len(), 3);
    assert!(said.sans.contains(&"URI:spiffe://mas/agent/be\0ta".to_owned()));

    let (cert, _) = authority.issue_custom(CustomLeaf::client(Vec::new())).unwrap();
    std::fs::write(&path, cert).unwrap();
    let said = describe(&path).unwrap();
    assert_eq!((said.subject.as_str(), said.sans.len()), ("", 0));

    let not_ascii = CustomLeaf::client(vec![San::Uri("\u{fc}".to_owned())]);
    assert!(matches!(authority.issue_custom(not_ascii), Err(CertsError::Issue { .. })));
}

#[test]
fn a_ca_that_is_not_whole_is_not_opened() {
    let (scratch, authority) = scratch();
    let dir = authority.dir();
    let problem = |dir: &Path| Authority::open(dir).unwrap_err().to_string();

    let other = Authority::create(&scratch.path().join("other"), 30).unwrap();
    std::fs::copy(ca_key_file(other.dir()), ca_key_file(dir)).unwrap();
    assert!(problem(dir).contains("does not belong to the key"), "{}", problem(dir));

    let paths = other.issue_agent(&agent("alpha"), 1).unwrap();
    std::fs::copy(&paths.cert, ca_file(dir)).unwrap();
    std::fs::copy(&paths.key, ca_key_file(dir)).unwrap();
    assert!(problem(dir).contains("is not the certificate of a CA"), "{}", problem(dir));

    std::fs::write(ca_key_file(dir), "secret").unwrap();
    assert!(problem(dir).contains("ca.key") && !problem(dir).contains("secret"));
    std::fs::remove_file(ca_key_file(dir)).unwrap();
    assert!(problem(dir).contains("ca.key"));
    assert!(!format!("{other:?}").contains("PRIVATE"));
}
