//! Who may talk at all: certificates and the allowlist.

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use mas::certs::{CustomLeaf, San};

use crate::support::{Client, Ended, Refused, World, until};

fn refused(code: &str, details: &str) -> Refused {
    Refused { code: code.to_owned(), details: details.to_owned() }
}

/// A client whose certificate carries these names.
fn with_names(world: &World, server: &crate::support::Server, sans: Vec<San>) -> Client {
    let (cert, key) = world.authority.issue_custom(CustomLeaf::client(sans)).unwrap();
    world.client_with(server, cert.into(), key.into())
}

fn uri(text: &str) -> San {
    San::Uri(text.to_owned())
}

#[test]
fn only_one_well_formed_spiffe_uri_is_an_identity() {
    let world = World::new();
    let server = world.server();
    let good = "spiffe://mas/agent/alpha";
    let cases: Vec<(Vec<San>, &str)> = vec![
        (vec![], "missing_spiffe_san"),
        (vec![San::Dns("alpha".to_owned())], "invalid_spiffe_san"),
        (vec![uri("https://mas/agent/alpha")], "invalid_spiffe_san"),
        (vec![uri(good), uri("spiffe://mas/agent/beta")], "invalid_spiffe_san"),
        (vec![uri(good), uri(good)], "invalid_spiffe_san"),
        (vec![uri(good), uri("https://example.org/")], "invalid_spiffe_san"),
        (vec![uri("spiffe://other/agent/alpha")], "invalid_spiffe_format"),
        (vec![uri("spiffe://mas/operator/alpha")], "invalid_spiffe_format"),
        (vec![uri("spiffe://mas/agent/alpha/x")], "invalid_spiffe_format"),
        (vec![uri("spiffe://mas/agent//alpha")], "invalid_spiffe_format"),
        (vec![uri("spiffe://mas/agent/%61lpha")], "invalid_spiffe_format"),
        (vec![uri("spiffe://mas/agent/alpha?x=1")], "invalid_spiffe_format"),
        (vec![uri("spiffe://MAS/agent/alpha")], "invalid_spiffe_format"),
        (vec![uri("spiffe://mas/agent/")], "invalid_spiffe_format"),
        (vec![uri("spiffe://mas/agent/stranger")], "agent_not_allowlisted"),
    ];
    for (sans, details) in cases {
        let named = format!("{sans:?}");
        let client = with_names(&world, &server, sans);
        let expected = refused("UNAUTHENTICATED", details);
        assert_eq!(client.send("i", "beta", "{}"), Err(expected), "{named}");
        let ended = client.try_session("i").err();
        assert_eq!(ended, Some(Ended::refused("UNAUTHENTICATED", details)), "{named}");
    }
    // A DNS name may stand beside the one SPIFFE URI.
    let client = with_names(&world, &server, vec![San::Dns("alpha.example".to_owned()), uri(good)]);
    drop(client.session("i"));
}

#[test]
fn an_identity_outside_the_allowlist_is_refused_on_every_rpc_and_recorded() {
    let world = World::new();
    let server = world.server();
    for (client, path) in
        [(world.client(&server, "stranger"), "new"), (world.client(&server, "stranger").v04(), "old")]
    {
        let expected = refused("UNAUTHENTICATED", "agent_not_allowlisted");
        assert_eq!(client.send("i", "beta", "{}").unwrap_err(), expected, "{path}");
        assert_eq!(client.request("i", "beta", "{}", 0).unwrap_err(), expected, "{path}");
        assert_eq!(client.reply("i", &"0".repeat(32), "{}").unwrap_err(), expected, "{path}");
        assert_eq!(client.discover(&[]).unwrap_err(), expected, "{path}");
        assert_eq!(client.state().unwrap_err(), expected, "{path}");
        assert_eq!(client.update_state(&[("a", "b")]).unwrap_err(), expected, "{path}");
        assert_eq!(client.reset_state().unwrap_err(), expected, "{path}");
        let ended = client.try_session("i").err();
        assert_eq!(ended, Some(Ended::With(expected)), "{path}");
    }
    let records = world.records();
    let refusals = records.iter().filter(|r| r.agent == "stranger" && r.reason == "agent_not_allowlisted");
    assert_eq!(refusals.count(), 16);
    assert!(!world.redis.keys().iter().any(|key| key.contains("stranger")));
}

#[test]
fn without_a_certificate_of_our_authority_there_is_no_connection() {
    let world = World::new();
    let server = world.server();
    let ca = std::fs::read(mas::certs::ca_file(&world.certs())).unwrap();
    let code = |client: Client| client.send("i", "beta", "{}").unwrap_err().code;

    assert_eq!(code(Client::new(&server.addr, ca.clone(), None)), "UNAVAILABLE", "no certificate");

    let other = World::new();
    let (cert, key) = other.certificate("alpha");
    assert_eq!(code(Client::new(&server.addr, ca, Some((cert, key)))), "UNAVAILABLE", "other CA");

    let now = time::OffsetDateTime::now_utc();
    let hours = |n: i64| now + time::Duration::hours(n);
    for (from, to, what) in [(hours(-48), hours(-24), "expired"), (hours(24), hours(48), "not yet valid")] {
        let leaf = CustomLeaf {
            not_before: from,
            not_after: to,
            ..CustomLeaf::client(vec![uri("spiffe://mas/agent/alpha")])
        };
        let (cert, key) = world.authority.issue_custom(leaf).unwrap();
        assert_eq!(code(world.client_with(&server, cert.into(), key.into())), "UNAVAILABLE", "{what}");
        until("whose it is, is on record", || {
            world.records().iter().any(|r| {
                r.action.as_str() == "connection_refused" && r.target == "alpha" && r.reason.contains(what)
            })
        });
    }
    // Nothing was offered in the clear either.
    use std::io::{Read, Write};
    let mut plain = std::net::TcpStream::connect(&server.addr).unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    plain.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.windows(3).any(|w| w == b"\0\0\0"), "an HTTP/2 frame in the clear: {answer:?}");
}

#[test]
fn a_session_ends_when_its_certificate_expires() {
    let world = World::new();
    let server = world.server();
    let now = time::OffsetDateTime::now_utc();
    let leaf = CustomLeaf {
        not_before: now - time::Duration::hours(1),
        not_after: now + time::Duration::seconds(3),
        ..CustomLeaf::client(vec![uri("spiffe://mas/agent/alpha")])
    };
    let (cert, key) = world.authority.issue_custom(leaf).unwrap();
    let client = world.client_with(&server, cert.into(), key.into());
    let session = client.session("i");
    assert_eq!(session.end(), Ended::refused("UNAUTHENTICATED", "invalid_certificate"));
    // The connection is still open; its certificate is not good for anything any more.
    assert_eq!(client.discover(&[]).unwrap_err(), refused("UNAUTHENTICATED", "invalid_certificate"));
}

#[test]
fn a_certificate_that_is_no_leaf_for_handshakes_is_refused() {
    let world = World::new();
    let server = world.server();
    let leaf = CustomLeaf { is_ca: true, ..CustomLeaf::client(vec![uri("spiffe://mas/agent/alpha")]) };
    let (cert, key) = world.authority.issue_custom(leaf).unwrap();
    let refusal = world.client_with(&server, cert.into(), key.into()).send("i", "beta", "{}").unwrap_err();
    // The handshake may refuse it before we do.
    assert!(["UNAVAILABLE", "UNAUTHENTICATED"].contains(&refusal.code.as_str()), "{refusal:?}");
}

#[test]
fn a_renewed_server_certificate_is_used_without_a_restart() {
    let world = World::new();
    let server = world.server();
    let old = world.client(&server, "alpha");
    let _session = old.session("i1");
    // A certificate for another name: clients that expect the old one turn away.
    world.authority.issue_server(&["renewed.example".to_owned()], 30).unwrap();
    server.signal(nix::sys::signal::Signal::SIGHUP);
    until("new connections meet the new certificate", || {
        world.client(&server, "beta").discover(&[]).is_err_and(|refusal| refusal.code == "UNAVAILABLE")
    });
    old.send("i1", "beta", "{}").unwrap();
    world.authority.issue_server(&["127.0.0.1".to_owned()], 30).unwrap();
    server.signal(nix::sys::signal::Signal::SIGHUP);
    until("and back", || world.client(&server, "beta").discover(&[]).is_ok());
}

#[test]
fn a_revoked_certificate_is_refused_and_its_open_session_ends() {
    let world = World::with(World::PAIR, "tls_revoked_path: certs/revoked.json\n");
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let (a, _b) = (alpha.session("a"), beta.session("b"));
    let revoked = world.mas(&["certs", "revoke", "--dir", "certs", "--file", "certs/agents/alpha.pem"]);
    assert_eq!(revoked.status.code(), Some(0), "{revoked:?}");
    assert_eq!(a.end(), Ended::refused("UNAUTHENTICATED", "certificate_revoked"));
    assert_eq!(alpha.discover(&[]).unwrap_err(), refused("UNAUTHENTICATED", "certificate_revoked"));
    beta.discover(&[]).unwrap();
    // A new certificate of the same agent is another one.
    let id = mas::ids::AgentId::parse("alpha").unwrap();
    world.authority.issue_agent(&id, 30).unwrap();
    drop(world.client(&server, "alpha").session("a"));
    // The whole agent.
    assert_eq!(world.mas(&["certs", "revoke", "--dir", "certs", "--agent", "beta"]).status.code(), Some(0));
    until("beta is refused", || {
        beta.discover(&[]).is_err_and(|refusal| refusal.details == "certificate_revoked")
    });
    let records = world.records();
    assert!(records.iter().any(|r| r.agent == "alpha" && r.reason == "certificate_revoked"));
}

const DENY_LIST: &str = "tls_revoked_path: certs/revoked.json\n";

/// Replaces the file as a whole: nobody reads half of it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

fn is_refused(client: &Client) -> bool {
    client.discover(&[]).is_err_and(|refusal| refusal.details == "certificate_revoked")
}

fn lines_with(world: &World, text: &str) -> usize {
    world.logged().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_deny_list_that_disappears_stays_in_force_and_is_read_when_it_is_back() {
    let world = World::with(World::PAIR, DENY_LIST);
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let b = beta.session("b");
    // Missing at the start: nobody is revoked.
    alpha.discover(&[]).unwrap();
    let list = world.certs().join("revoked.json");
    replace(&list, r#"{"agents": ["alpha"]}"#);
    until("alpha is refused", || is_refused(&alpha));
    std::fs::rename(&list, list.with_extension("away")).unwrap();
    until("it is said that the list is gone", || lines_with(&world, "the deny-list in force stays") == 1);
    // Several looks later it is neither forgotten nor said again.
    assert!(b.next_within(Duration::from_millis(1600)).is_none());
    assert!(is_refused(&alpha));
    std::fs::rename(list.with_extension("away"), &list).unwrap();
    until("the list is read again", || lines_with(&world, "revoked.json: in force") == 2);
    assert!(is_refused(&alpha));
    // Another list, which is what a removal of an entry looks like.
    std::fs::remove_file(&list).unwrap();
    until("it is said again", || lines_with(&world, "the deny-list in force stays") == 2);
    replace(&list, r#"{"agents": ["gamma"]}"#);
    until("alpha is admitted again", || alpha.discover(&[]).is_ok());
}

#[test]
fn a_broken_deny_list_changes_nothing_and_is_said_once() {
    let world = World::with(World::PAIR, DENY_LIST);
    let list = world.certs().join("revoked.json");
    replace(&list, r#"{"agents": ["alpha"]}"#);
    let server = world.server();
    let (alpha, beta) = (world.client(&server, "alpha"), world.client(&server, "beta"));
    let b = beta.session("b");
    replace(&list, "{");
    until("it is said that the list is broken", || lines_with(&world, "the deny-list in force stays") == 1);
    assert!(b.next_within(Duration::from_millis(1600)).is_none());
    assert_eq!(lines_with(&world, "the deny-list in force stays"), 1);
    assert!(is_refused(&alpha));
    // Broken in another way.
    replace(&list, r#"{"agent": ["alpha"]}"#);
    until("the change is said", || lines_with(&world, "the deny-list in force stays") == 2);
    assert!(is_refused(&alpha));
    replace(&list, "{}");
    until("alpha is admitted again", || alpha.discover(&[]).is_ok());
}

#[test]
fn sessions_end_as_soon_as_a_deny_list_is_in_force() {
    let world = World::with(World::PAIR, DENY_LIST);
    let server = world.server();
    let list = world.certs().join("revoked.json");
    let at_us = |action: &str, agent: &str| -> Vec<u64> {
        let records = world.records().into_iter();
        records.filter(|r| r.action.as_str() == action && r.agent == agent).map(|r| r.time_us).collect()
    };
    replace(&list, r#"{"agents": ["gamma"]}"#);
    until("the list is in force", || at_us("revocations_changed", "").len() == 1);
    // The file was looked at just now: the next look comes before the certificates of this session are looked at.
    let a = world.client(&server, "alpha").session("a");
    replace(&list, r#"{"agents": ["gamma", "alpha"]}"#);
    assert_eq!(a.end(), Ended::refused("UNAUTHENTICATED", "certificate_revoked"));
    until("it is on record", || at_us("session_close", "alpha").len() == 1);
    until("so is the list", || at_us("revocations_changed", "").len() == 2);
    let (changed_us, closed_us) = (at_us("revocations_changed", "")[1], at_us("session_close", "alpha")[0]);
    assert!(closed_us < changed_us + 500_000, "after {} ms", closed_us.saturating_sub(changed_us) / 1000);
}

#[test]
fn whoever_talks_no_tls_to_the_port_fills_no_log() {
    const KNOCKS: usize = 1000;
    let world = World::new();
    let mut command = std::process::Command::new(World::SERVER);
    command.args(["--log-format", "json"]);
    let server = world.server_by(command, "127.0.0.1:0", &world.config_path());
    for _ in 0..KNOCKS {
        let mut stream = std::net::TcpStream::connect(&server.addr).unwrap();
        // The server may have closed it by then.
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let _ = stream.read(&mut [0; 64]);
    }
    assert!(world.client(&server, "alpha").discover(&[]).is_ok());
    let logged = world.logged();
    let lines: Vec<serde_json::Value> = logged
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    let of_core = lines.iter().filter(|line| line["module"] == "grpc").count();
    assert!(of_core > 0 && lines.len() < KNOCKS / 10, "{} lines: {logged}", lines.len());
}
