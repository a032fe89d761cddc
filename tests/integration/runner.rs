//! A runner that is killed: nothing of its fleet runs on, nothing runs twice, and the next one is up.

use std::collections::BTreeSet;
use std::fs::File;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{Process, World, until};

/// A process and its parent, with its name.
fn processes() -> Vec<(i32, i32, String)> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let read = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        (state != "Z").then(|| (pid, parent, head.split_once('(').map_or("", |(_, name)| name).to_owned()))
    };
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).filter_map(read).collect()
}

/// What a process has started, and what that has.
fn descendants(of: i32) -> BTreeSet<(i32, String)> {
    let all = processes();
    let mut found = BTreeSet::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        for (pid, _, name) in all.iter().filter(|(_, its, _)| *its == parent) {
            parents.push(*pid);
            let _ = found.insert((*pid, name.clone()));
        }
    }
    found
}

fn start(world: &World) -> Process {
    Process::start(&mut command(world))
}

fn command(world: &World) -> Command {
    let log = File::options().create(true).append(true).open(world.path().join("run.log")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_mas"));
    command.args(["run", "--config", "run.yaml"]).current_dir(world.path()).env_remove("MAS_CONFIG_FILE");
    command.stdout(Stdio::null()).stderr(log);
    command
}

fn world() -> World {
    let world = World::new();
    let config = "\
server_listen_addr: 127.0.0.1:0
admin_listen_addr: null
tls_ca_path: certs/ca.pem
tls_server_cert_path: certs/server.pem
tls_server_key_path: certs/server.key
gateway: {redis: {url: managed, data_dir: own-redis}}
agents:
  - agent_id: alpha
    command: [sh, -c, 'echo started >> agents; trap \"\" TERM; sleep 1000 & while :; do wait; done']
    tls_cert_path: certs/agents/alpha.pem
    tls_key_path: certs/agents/alpha.key
";
    let _ = world.certificate("alpha");
    std::fs::write(world.path().join("run.yaml"), config).unwrap();
    world
}

#[test]
fn a_killed_runner_leaves_nothing_behind_and_the_next_one_is_up() {
    let world = world();
    let started = || std::fs::read_to_string(world.path().join("agents")).unwrap_or_default().lines().count();
    let mut runner = start(&world);
    // What is killed beside the runner.
    for (round, beside) in
        [&[][..], &["redis-server"], &["mas-server"], &["mas-server", "redis-server"], &[]].iter().enumerate()
    {
        until("the fleet runs", || started() > round);
        let pid = runner.pid().cast_signed();
        let runs = |name: &str| descendants(pid).iter().any(|(_, its)| its == name);
        until("all of it runs", || {
            ["mas-server", "redis-server", "sh", "sleep", "mas"].iter().all(|name| runs(name))
        });
        let fleet = descendants(pid);
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        for (other, _) in fleet.iter().filter(|(_, name)| beside.contains(&name.as_str())) {
            kill(Pid::from_raw(*other), Signal::SIGKILL).unwrap();
        }
        let _ = runner.wait();
        // At once: it waits for what the guard still ends.
        runner = start(&world);
        let still = || {
            processes()
                .into_iter()
                .map(|(pid, _, name)| (pid, name))
                .filter(|one| fleet.contains(one))
                .collect::<Vec<_>>()
        };
        until("the next fleet runs", || started() > round + 1);
        until("nothing of the fleet before is left", || still().is_empty());
    }
    let fleet = descendants(runner.pid().cast_signed());
    kill(Pid::from_raw(runner.pid().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(runner.wait().code(), Some(0));
    until("a stop leaves nothing either", || {
        !processes().into_iter().any(|(pid, _, name)| fleet.contains(&(pid, name)))
    });
}

#[test]
fn a_runner_that_is_killed_while_it_starts_leaves_nothing_behind() {
    let world = world();
    // A server that is never ready. Written by another process: a file that is open for writing cannot be executed, and
    // what another test starts just now could inherit the descriptor.
    let server = world.path().join("server");
    let write = "printf '#!/bin/sh\\nsleep 1000\\n' > \"$1\" && chmod 700 \"$1\"";
    assert!(Command::new("sh").args(["-c", write, "sh"]).arg(&server).status().unwrap().success());
    let mut runner = Process::start(command(&world).env("MAS_SERVER_BIN", &server));
    let pid = runner.pid().cast_signed();
    let runs = |name: &str| descendants(pid).iter().any(|(_, its)| its == name);
    until("redis runs, and the server is waited for", || runs("redis-server") && runs("sleep"));
    let fleet = descendants(pid);
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let _ = runner.wait();
    until("nothing is left", || !processes().into_iter().any(|(pid, _, name)| fleet.contains(&(pid, name))));
    assert!(!world.path().join("agents").exists());
}
