//! Files that `mas.yaml` names and that cannot serve: the same refusal by `--check-config`, at start and by a reload, and none of them is
//! changed by a server that was told to use it for something else.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mas::certs::{CustomLeaf, San};
use nix::sys::signal::Signal;
use time::OffsetDateTime;

use crate::support::{PATIENCE, World, until};

fn leaf() -> CustomLeaf {
    CustomLeaf::server(vec![San::Dns("localhost".to_owned())])
}

/// Something that goes wrong with the server's files: what it is called, and what the refusal has to say.
type Case = (&'static str, fn(&World), &'static [&'static str]);

fn serve(world: &World, spec: CustomLeaf) {
    let (cert, key) = world.authority.issue_custom(spec).unwrap();
    std::fs::write(world.certs().join("server.pem"), cert).unwrap();
    let path = world.certs().join("server.key");
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, key).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn put(world: &World, name: &str, bytes: &[u8]) {
    let path = world.certs().join(name);
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

fn copied(world: &World, from: &str, to: &str) {
    put(world, to, &std::fs::read(world.certs().join(from)).unwrap());
}

fn fifo(world: &World, name: &str) {
    let path = world.certs().join(name);
    let _ = std::fs::remove_file(&path);
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
}

const CASES: &[Case] = &[
    (
        "an expired certificate",
        |world| {
            let now = OffsetDateTime::now_utc();
            let days = time::Duration::days;
            serve(world, CustomLeaf { not_before: now - days(9), not_after: now - days(2), ..leaf() });
        },
        &["tls_server_cert_path", "ended", "line 4"],
    ),
    (
        "one that is not valid yet",
        |world| {
            let now = OffsetDateTime::now_utc();
            let days = time::Duration::days;
            serve(world, CustomLeaf { not_before: now + days(2), not_after: now + days(9), ..leaf() });
        },
        &["tls_server_cert_path", "not valid before"],
    ),
    ("a client's certificate", |world| serve(world, CustomLeaf::client(leaf().sans)), &["serverAuth"]),
    (
        "one that names nobody",
        |world| serve(world, CustomLeaf { sans: Vec::new(), ..leaf() }),
        &["names no host"],
    ),
    ("one of a CA", |world| serve(world, CustomLeaf { is_ca: true, ..leaf() }), &["certificate of a CA"]),
    ("a leaf as the CA", |world| copied(world, "server.pem", "ca.pem"), &["tls_ca_path", "is no CA"]),
    (
        "two CAs without a line between them",
        |world| {
            let one = std::fs::read_to_string(world.certs().join("ca.pem")).unwrap();
            put(world, "ca.pem", format!("{}{one}", one.trim_end()).as_bytes());
        },
        &["tls_ca_path", "a line of its own"],
    ),
    (
        "a key as the CA",
        |world| copied(world, "server.key", "ca.pem"),
        &["is a private key", "BEGIN CERTIFICATE"],
    ),
    ("a certificate as the key", |world| copied(world, "server.pem", "server.key"), &["is a certificate"]),
    ("an empty CA", |world| put(world, "ca.pem", b"\n"), &["is empty"]),
    ("DER", |world| put(world, "server.pem", b"\x30\x82\x01\x0a"), &["is DER", "openssl"]),
    ("a FIFO as the CA", |world| fifo(world, "ca.pem"), &["it is a FIFO", "expected a file"]),
    ("a FIFO as the key", |world| fifo(world, "server.key"), &["tls_server_key_path", "it is a FIFO"]),
    (
        "a deny-list that is none",
        |world| put(world, "revoked.json", b"[1]"),
        &["tls_revoked_path", "revoked.json"],
    ),
    ("a FIFO as the deny-list", |world| fifo(world, "revoked.json"), &["revoked.json", "it is a FIFO"]),
];

fn world() -> World {
    World::with(World::PAIR, "tls_revoked_path: certs/revoked.json\n")
}

#[test]
fn files_that_cannot_serve_are_refused_before_anything_starts() {
    for (name, spoil, says) in CASES {
        let world = world();
        spoil(&world);
        for args in [&["--check-config"][..], &[]] {
            let output = world.mas_server(args);
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{name}, {args:?}: {message}");
            assert!(says.iter().all(|what| message.contains(what)), "{name}: {message}");
        }
    }
}

#[test]
fn a_reload_refuses_them_and_what_was_in_force_stays() {
    let world = world();
    let server = world.server();
    let kept: Vec<(String, Vec<u8>)> = ["ca.pem", "server.pem", "server.key"]
        .iter()
        .map(|name| ((*name).to_owned(), std::fs::read(world.certs().join(name)).unwrap()))
        .collect();
    for (number, (name, spoil, says)) in CASES.iter().enumerate() {
        spoil(&world);
        server.signal(Signal::SIGHUP);
        until(name, || world.logged().matches("reload refused").count() == number + 1);
        let logged = world.logged();
        let last = logged.lines().rfind(|line| line.contains("reload refused")).unwrap();
        assert!(says.iter().all(|what| last.contains(what)), "{name}: {last}");
        for (file, bytes) in &kept {
            put(&world, file, bytes);
        }
        let _ = std::fs::remove_file(world.certs().join("revoked.json"));
    }
    assert!(!world.logged().contains("mas.yaml: in force"), "{}", world.logged());
    let alpha = world.client(&server, "alpha");
    let _a = alpha.session("a");
}

#[test]
fn a_reload_names_what_waits_for_the_next_start() {
    let mut world = world();
    let server = world.server();
    world.set_settings("tls_revoked_path: certs/other.json\nthreads: 3\nlimits: {refusals_per_second: 7, max_json_depth: 9}\n");
    server.signal(Signal::SIGHUP);
    until("it is in force", || world.logged().contains("mas.yaml: in force"));
    let logged = world.logged();
    for key in ["tls_revoked_path", "threads", "limits.refusals_per_second"] {
        assert!(logged.contains(&format!("{key} has changed and is read at start only")), "{key}: {logged}");
    }
    assert_eq!(logged.matches("read at start only").count(), 3, "{logged}");
}

#[test]
fn no_file_is_cut_or_appended_to_that_is_something_else() {
    let cases: [(&str, &str, &str, &[&str]); 5] = [
        (
            "the anchor is the deny-list",
            "audit: {anchor_path: certs/revoked.json}",
            "certs/revoked.json",
            &["is the file of"],
        ),
        (
            "the copy is the CA",
            "audit: {file_path: ./certs/../certs/ca.pem}",
            "certs/ca.pem",
            &["is the file of tls_ca_path"],
        ),
        (
            "the anchor is somebody's notes",
            "audit: {anchor_path: notes.txt}",
            "notes.txt",
            &["notes.txt", "no line of an anchor"],
        ),
        (
            "the copy is somebody's notes",
            "audit: {file_path: notes.txt}",
            "notes.txt",
            &["notes.txt", "something else"],
        ),
        (
            "the copy is a link to the configuration",
            "audit: {file_path: link}",
            "mas.yaml",
            &["is the file of the configuration"],
        ),
    ];
    for (name, gateway, file, says) in cases {
        let mut world = world();
        put(&world, "revoked.json", b"{\"agents\":[]}");
        std::fs::write(world.path().join("notes.txt"), "something without an end of line").unwrap();
        std::os::unix::fs::symlink("mas.yaml", world.path().join("link")).unwrap();
        world.set_gateway(gateway);
        let before = std::fs::read(world.path().join(file)).unwrap();
        let output = world.mas_server(&[]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {message}");
        assert!(says.iter().all(|what| message.contains(what)), "{name}: {message}");
        assert_eq!(std::fs::read(world.path().join(file)).unwrap(), before, "{name}");
    }
}

#[test]
fn a_configuration_that_never_ends_is_an_error_at_once() {
    let world = world();
    let pipe = world.path().join("pipe.yaml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [pipe.as_path(), Path::new("/dev/zero"), world.path()] {
        let began = Instant::now();
        let output =
            Command::new(World::SERVER).arg("--check-config").arg("--config").arg(path).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(2) && message.contains("expected a file"),
            "{path:?}: {message}"
        );
        assert!(began.elapsed() < PATIENCE.max(Duration::from_secs(1)));
    }
}
