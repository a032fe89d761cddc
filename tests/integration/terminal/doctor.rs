//! What `mas doctor` sees of a Redis, a server and a fleet that are not as they should be.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;

use serde_json::Value as Json;

use super::{NOBODY, admin, diagnosed, world};
use crate::support::{Server, World, get, until};

#[track_caller]
fn finds(world: &World, args: &[&str], code: &str) -> Json {
    let mut found = Json::Null;
    until(code, || {
        let (_, codes, said) = diagnosed(world, args);
        found = said;
        codes.iter().any(|other| other == code)
    });
    let findings = found["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["code"] == code).unwrap().clone()
}

fn used_memory(world: &World) -> u64 {
    let info: String = world.redis.query(&["INFO", "memory"]);
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    used.trim().parse().unwrap()
}

#[test]
fn the_doctor_sees_a_redis_that_fills_up_and_a_server_that_does_not_tell() {
    let world = world();
    let server = world.server();
    let used = used_memory(&world);
    let most = (used + used / 20).to_string();
    let _: String = world.redis.query(&["CONFIG", "SET", "maxmemory", &most]);
    let full = finds(&world, &["--admin", admin(&server)], "redis_full");
    assert_eq!(full["severity"], "critical");
    assert!(full["remedy"].as_str().unwrap().contains("maxmemory"), "{full}");
    let silent = finds(&world, &["--admin", NOBODY], "admin_unreachable");
    assert!(silent["remedy"].as_str().unwrap().contains("--admin HOST:PORT"), "{silent}");
}

/// Descriptors beyond those of a server that nobody is connected to.
const ROOM: usize = 12;

#[test]
fn the_doctor_sees_a_server_that_has_no_descriptors_left() {
    let world = world();
    let first = world.server();
    let open = std::fs::read_dir(format!("/proc/{}/fd", first.pid())).unwrap().count();
    drop(first);
    let mut command = Command::new("sh");
    let _ = command.args(["-c", &format!("ulimit -n {} && exec \"$0\" \"$@\"", open + ROOM), World::SERVER]);
    let server = world.server_by(command, "127.0.0.1:0", &world.config_path());
    // Each connection takes three; the server accepts as many as it has room for.
    let clients: Vec<_> = (0..6).map(|_| world.client(&server, "alpha")).collect();
    let connected = clients.iter().filter(|client| client.discover(&[]).is_ok()).count();
    assert!(connected > 0, "{connected}");
    let low = finds(&world, &["--admin", admin(&server)], "descriptors_low");
    assert!(low["remedy"].as_str().unwrap().contains("LimitNOFILE"), "{low}");
}

#[test]
fn the_doctor_sees_a_trail_that_nobody_seals_or_archives() {
    let mut world = World::new();
    world.set_admin("127.0.0.1:0");
    world.set_gateway("audit: {archive: off, anchor_path: null, checkpoint_interval_ms: 100}");
    let server = world.server();
    until("a checkpoint is made", || {
        let (_, codes, _) = diagnosed(&world, &["--admin", admin(&server)]);
        !codes.iter().any(|code| code == "checkpoint_old" || code == "server_not_ready")
    });
    // Whoever asks has the archive on; no server has.
    world.set_gateway("audit: {archive: on, anchor_path: null, checkpoint_interval_ms: 100}");
    let alone = finds(&world, &["--admin", NOBODY], "nobody_archives");
    assert!(alone["remedy"].as_str().unwrap().contains("archive"), "{alone}");
    world.redis.halt();
    let old = finds(&world, &["--admin", admin(&server)], "checkpoint_old");
    assert_eq!(old["severity"], "critical");
    world.redis.proceed();
}

/// Carries a Redis' answers, and has its clock an hour and more behind.
fn behind(world: &World) -> String {
    let (path, redis) = (world.path().join("behind.sock"), world.redis.socket());
    let listener = UnixListener::bind(&path).unwrap();
    // Ends with the test's process.
    let _ = std::thread::spawn(move || {
        for client in listener.incoming() {
            let (client, store) = (client.unwrap(), UnixStream::connect(&redis).unwrap());
            let (mut asks, mut asked) = (client.try_clone().unwrap(), store.try_clone().unwrap());
            let _ = std::thread::spawn(move || std::io::copy(&mut asks, &mut asked));
            let _ = std::thread::spawn(move || {
                let (mut store, mut client) = (store, client);
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(count) = store.read(&mut bytes) {
                    let Some(read) = bytes.get_mut(..count).filter(|read| !read.is_empty()) else { return };
                    let name = b"server_time_usec:";
                    if let Some(at) = read.windows(name.len()).position(|window| window == name) {
                        read[at + name.len() + 3] = b'0';
                    }
                    if client.write_all(read).is_err() {
                        return;
                    }
                }
            });
        }
    });
    format!("unix://{}", path.display())
}

#[test]
fn the_doctor_sees_clocks_that_differ() {
    let mut world = world();
    let url = behind(&world);
    world.set_redis(&format!("url: '{url}', socket_timeout: 2"));
    let differs = finds(&world, &["--admin", NOBODY], "clock_differs");
    assert!(differs["remedy"].as_str().unwrap().contains("chrony"), "{differs}");
}

#[test]
fn the_doctor_sees_who_is_shut_out_and_a_server_that_does_not_follow() {
    let world = world();
    let (one, other) = (world.server(), world.server());
    let run = |args: &[&str]| assert_eq!(world.mas(args).status.code(), Some(0), "{args:?}");
    run(&["quarantine", "beta", "--reason", "it leaks"]);
    let held = finds(&world, &["--admin", admin(&one)], "quarantined");
    assert!(held["evidence"].as_str().unwrap().contains("it leaks"), "{held}");
    assert!(held["remedy"].as_str().unwrap().contains("mas release beta"), "{held}");
    // A server that hangs takes up nothing; its last report is read until it is too old.
    let reported = |server: &Server| {
        let fleet = get(admin(&one), "/api/v1/fleet").unwrap().body;
        let fleet: Json = serde_json::from_str(&fleet).unwrap();
        let of = |status: &Json| status["admin_addr"] == *admin(server);
        let servers = fleet["servers"].as_array().unwrap();
        servers
            .iter()
            .find(|one| of(&one["status"]))
            .map_or(0, |one| one["status"]["quarantine_version"].as_u64().unwrap())
    };
    until("the other one has told", || reported(&other) == 1);
    other.halt();
    run(&["quarantine", "gamma", "--reason", "it too"]);
    let behind = finds(&world, &["--admin", admin(&one)], "quarantine_not_followed");
    assert!(behind["evidence"].as_str().unwrap().contains("version 1"), "{behind}");
}
