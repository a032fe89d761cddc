use std::os::unix::fs::PermissionsExt;

use super::*;

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("redis");
    (folder, data_dir)
}

impl ManagedRedis {
    /// What a killed runner leaves: a running child, and the lock released.
    pub(in crate::runner) fn left_behind(mut self) -> Child {
        match std::mem::replace(&mut self.process, Process::None) {
            Process::Child(child) => child,
            Process::Adopted(_) | Process::None => panic!("not a child"),
        }
    }
}

fn set(redis: &ManagedRedis, key: &str, value: &str) {
    let mut connection = redis.connect().unwrap();
    redis::cmd("SET").arg(key).arg(value).query::<()>(&mut connection).unwrap();
}

fn get(redis: &ManagedRedis, key: &str) -> Option<String> {
    let mut connection = redis.connect().unwrap();
    redis::cmd("GET").arg(key).query(&mut connection).unwrap()
}

#[test]
fn data_survive_a_stop() {
    let (_folder, data_dir) = folder();
    let mut redis = ManagedRedis::start(&data_dir, Fsync::EverySecond).unwrap();
    assert!(!redis.exited());
    assert_eq!(redis.url(), format!("unix://{}/redis.sock", data_dir.display()));
    let mode = std::fs::metadata(&data_dir).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    set(&redis, "key", "kept");
    redis.stop();
    assert!(redis.exited());
    drop(redis);

    let redis = ManagedRedis::start(&data_dir, Fsync::EverySecond).unwrap();
    assert_eq!(get(&redis, "key").as_deref(), Some("kept"));
}

#[test]
fn a_left_one_is_adopted_and_shut_down() {
    let (_folder, data_dir) = folder();
    let first = ManagedRedis::start(&data_dir, Fsync::EverySecond).unwrap();
    set(&first, "key", "kept");
    let mut left = first.left_behind();

    let mut second = ManagedRedis::start(&data_dir, Fsync::EverySecond).unwrap();
    assert!(matches!(second.process, Process::Adopted(_)));
    assert_eq!(second.pid(), Some(left.id()));
    assert_eq!(get(&second, "key").as_deref(), Some("kept"));
    second.stop();
    assert!(left.wait().unwrap().success());
}

#[test]
fn a_stale_socket_is_no_obstacle() {
    let (_folder, data_dir) = folder();
    data_dir::prepare(&data_dir).unwrap();
    drop(std::os::unix::net::UnixListener::bind(data_dir.join(MANAGED_SOCKET)).unwrap());
    let redis = ManagedRedis::start(&data_dir, Fsync::EverySecond).unwrap();
    assert!(matches!(redis.process, Process::Child(_)));
}

#[test]
fn a_second_runner_is_kept_out() {
    let (_folder, data_dir) = folder();
    let first = ManagedRedis::start(&data_dir, Fsync::EverySecond).unwrap();
    let second = ManagedRedis::start(&data_dir, Fsync::EverySecond);
    assert!(matches!(second, Err(RunnerError::DataDirInUse { .. })));
    assert_eq!(get(&first, "key"), None);
}

#[test]
fn the_log_says_why_it_ended_early() {
    let (_folder, data_dir) = folder();
    data_dir::prepare(&data_dir).unwrap();
    // Its append-only directory cannot be made where a file is.
    std::fs::write(data_dir.join("appendonlydir"), "").unwrap();
    let Err(error) = ManagedRedis::start(&data_dir, Fsync::EverySecond) else {
        panic!("started");
    };
    let RunnerError::RedisEnded { status, log, .. } = &error else {
        panic!("{error}");
    };
    assert!(!status.success());
    assert!(log.contains("append-only"), "{log}");
}

#[test]
fn a_request_to_stop_ends_the_start() {
    let (_folder, data_dir) = folder();
    let stop = StopSignal::new();
    stop.stop();
    // It may be quicker than the first look at the request, but must not hang.
    let started = ManagedRedis::start_unless_stopped(&data_dir, Fsync::Always, &stop, &|_| {});
    assert!(matches!(started, Ok(_) | Err(RunnerError::Stopped)));
}
