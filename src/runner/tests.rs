use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::tests_support::{Lines, SOON, collector};
use super::*;

/// Options whose server is a script: it announces itself and shows its arguments.
fn options(folder: &Path, server: &str, body: &str) -> (RunOptions, Lines) {
    let mut options = tests_support::options(folder, body);
    let (sink, lines) = collector();
    options.sink = sink;
    options.server_binary = folder.join("server");
    // Written by another process: a descriptor that is open for writing here could be inherited by a
    // child that another test starts just now, and a file open for writing cannot be executed.
    let written = Command::new("sh")
        .args(["-c", "printf '%s' \"$1\" > \"$2\" && chmod 700 \"$2\"", "sh"])
        .arg(server)
        .arg(&options.server_binary)
        .status()
        .unwrap();
    assert!(written.success());
    (options, lines)
}

const SERVER: &str = r#"#!/bin/sh
echo '{"event":"mas.server.ready","pid":'$$',"listen_addr":"127.0.0.1:4242"}'
echo "arguments $*"
sleep 1000 & wait
"#;

const AGENT: &str = "agents: [{agent_id: a, tls_cert_path: a.pem, tls_key_path: a.key, instances: 2,
  command: [sh, -c, 'echo \"$MAS_AGENT_ID $MAS_INSTANCE_ID $MAS_SERVER_ADDR\"; sleep 1000 & wait']}]\n";

#[test]
fn server_and_agents_run_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (mut options, lines) = options(folder.path(), SERVER, AGENT);
    options.threads = Some(3);
    let runner = Runner::start(options).unwrap();
    assert_eq!(runner.server_addr(), "127.0.0.1:4242");
    assert_eq!(runner.active_agents(), 2);
    let pid = runner.server_pid().unwrap();
    let mut three: Vec<_> = (0..3).map(|_| lines.next().1).collect();
    three.sort();
    assert_eq!(three[0], "a/i0 | a i0 127.0.0.1:4242");
    assert_eq!(three[1], "a/i1 | a i1 127.0.0.1:4242");
    let file = folder.path().join("mas.yaml");
    let expected = format!("mas-server | arguments --config {} --threads 3", file.display());
    assert_eq!(three[2], expected);

    let stop = StopSignal::new();
    stop.stop();
    runner.wait_until_stopped(&stop);
    runner.stop();
    assert_eq!((runner.active_agents(), runner.server_pid()), (0, None));
    assert!(kill(Pid::from_raw(pid.cast_signed()), None).is_err());
}

#[test]
fn a_dead_server_comes_back_on_the_same_port() {
    let folder = tempfile::tempdir().unwrap();
    let body = "server_listen_addr: 127.0.0.1:0\n";
    let (options, lines) = options(folder.path(), SERVER, body);
    let runner = Runner::start(options).unwrap();
    assert!(!lines.next_with("arguments").contains("--listen"));
    let first = runner.server_pid().unwrap();
    kill(Pid::from_raw(first.cast_signed()), Signal::SIGKILL).unwrap();
    assert!(lines.next_with("arguments").contains("--listen 127.0.0.1:4242"));
    assert_ne!(runner.server_pid(), Some(first));
}

#[test]
fn a_server_that_ends_at_once_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (options, lines) = options(folder.path(), "#!/bin/sh\necho why >&2; exit 1\n", AGENT);
    let Err(error) = Runner::start(options) else {
        panic!("started");
    };
    assert!(matches!(error, RunnerError::EndedEarly { .. }), "{error}");
    assert_eq!(lines.next().1, "mas-server | why");
}

#[test]
fn a_request_to_stop_ends_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let silent = "#!/bin/sh\necho waiting >&2; sleep 1000 & wait\n";
    let (options, lines) = options(folder.path(), silent, AGENT);
    let stop = options.stop.clone();
    let starting = std::thread::spawn(move || Runner::start(options).map(drop));
    lines.next_with("waiting");
    stop.stop();
    assert!(matches!(starting.join().unwrap(), Err(RunnerError::Stopped)));
}

#[test]
fn a_managed_redis_runs_as_long_as_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let body = "gateway: {redis: {url: managed, data_dir: redis}}\n";
    let (options, _lines) = options(folder.path(), SERVER, body);
    let socket = folder.path().join("redis/redis.sock");
    let runner = Runner::start(options).unwrap();
    assert!(socket.exists());
    runner.stop();
    assert!(!socket.exists());
}

#[test]
fn a_second_request_kills_everything() {
    let folder = tempfile::tempdir().unwrap();
    let stubborn = "agents: [{agent_id: a, tls_cert_path: a.pem, tls_key_path: a.key,
      command: [sh, -c, 'trap \"echo asked\" TERM; echo armed; while :; do sleep 1000 & wait; done']}]\n";
    let (options, lines) = options(folder.path(), SERVER, stubborn);
    let stop = options.stop.clone();
    let runner = Runner::start(options).unwrap();
    lines.next_with("armed");
    let asked = Instant::now();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| runner.stop());
        lines.next_with("asked");
        stop.escalate();
        stopping.join().unwrap();
    });
    assert!(asked.elapsed() < SOON);
    assert_eq!((runner.active_agents(), runner.server_pid()), (0, None));
}

#[test]
fn a_failed_start_leaves_the_redis_of_an_earlier_run_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("redis");
    let mut left = ManagedRedis::start(&data_dir, Fsync::EverySecond).unwrap().left_behind();
    let body = format!("gateway: {{redis: {{url: managed, data_dir: '{}'}}}}\n{AGENT}", data_dir.display());
    let (failing, _) = options(folder.path(), "#!/bin/sh\necho no >&2\nexit 1\n", &body);
    assert!(Runner::start(failing).is_err());
    assert!(left.try_wait().unwrap().is_none(), "it was ended by a start that failed");
    // The next start that succeeds takes it, and ends it with everything else.
    let (working, _) = options(folder.path(), SERVER, &body);
    let runner = Runner::start(working).unwrap();
    runner.stop();
    assert!(left.wait().unwrap().success());
}
