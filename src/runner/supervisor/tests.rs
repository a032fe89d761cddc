use std::os::unix::process::ExitStatusExt;

use super::*;
use crate::runner::tests_support::{Lines, SOON, collector, shell};

fn supervisor() -> (Supervisor, Lines) {
    let (sink, lines) = collector();
    (Supervisor::start("test", sink, Guard::default()).unwrap(), lines)
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn the_waits_double_up_to_the_longest_and_start_over() {
    let mut backoff = Backoff::new();
    let waits_ms: Vec<_> = (0..8).map(|_| backoff.after(Duration::from_secs(1)).as_millis()).collect();
    assert_eq!(waits_ms, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
    assert_eq!(backoff.after(HEALTHY_AFTER), FIRST_BACKOFF);
    assert_eq!(backoff.after(Duration::ZERO), FIRST_BACKOFF * 2);
}

#[test]
fn the_policy_decides_by_the_status() {
    let success = ExitStatus::from_raw(0);
    let failure = ExitStatus::from_raw(1 << 8);
    let signal = ExitStatus::from_raw(9);
    for (policy, after_success, after_failure) in
        [(Restart::Always, true, true), (Restart::OnFailure, false, true), (Restart::Never, false, false)]
    {
        assert_eq!(restarts(policy, success), after_success);
        assert_eq!(restarts(policy, failure), after_failure);
        assert_eq!(restarts(policy, signal), after_failure);
    }
}

#[test]
fn a_failure_is_followed_by_a_restart_and_a_success_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let script = format!("echo started; [ -e '{0}' ] && exit 0; : > '{0}'; exit 1", mark.display());
    let (supervisor, lines) = supervisor();
    supervisor.supervise(shell("a", &script, Restart::OnFailure)).unwrap();
    wait_until("still active", || supervisor.active() == 0);
    assert_eq!(lines.rest(), ["a | started", "a | started"]);
}

#[test]
fn a_stop_does_not_wait_for_a_restart() {
    let (supervisor, lines) = supervisor();
    let slot = supervisor.supervise(shell("a", "echo started; exit 1", Restart::Always)).unwrap();
    for _ in 0..3 {
        lines.next_with("started");
    }
    wait_until("no restart planned", || supervisor.child(slot).is_none());
    let asked = Instant::now();
    supervisor.stop(SOON);
    assert!(asked.elapsed() < SOON / 2);
    assert_eq!(supervisor.active(), 0);
    let refused = supervisor.supervise(shell("b", "true", Restart::Never));
    assert!(matches!(refused, Err(RunnerError::Stopped)));
}

#[test]
fn all_are_stopped_in_parallel_and_the_stubborn_killed() {
    let (supervisor, lines) = supervisor();
    let stubborn = "trap '' TERM; echo armed; sleep 1000 & wait";
    for label in ["a", "b", "c"] {
        supervisor.supervise(shell(label, stubborn, Restart::Always)).unwrap();
    }
    for _ in 0..3 {
        lines.next_with("armed");
    }
    supervisor.stop(Duration::from_millis(50));
    assert_eq!(supervisor.active(), 0);
}

#[test]
fn a_kill_cuts_a_grace_short() {
    let (supervisor, lines) = supervisor();
    let slot = supervisor
        .supervise(shell(
            "a",
            "trap 'echo asked' TERM; echo armed; while :; do sleep 1000 & wait; done",
            Restart::Always,
        ))
        .unwrap();
    lines.next_with("armed");
    let child = supervisor.child(slot).unwrap();
    let kill = supervisor.killer();
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| supervisor.stop(SOON * 10));
        lines.next_with("asked");
        kill();
        stopping.join().unwrap();
    });
    let status = child.wait(Duration::ZERO).unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
}

#[test]
fn a_new_specification_counts_for_a_process_that_has_ended() {
    let (supervisor, lines) = supervisor();
    let slot = supervisor.supervise(shell("a", "echo first", Restart::Never)).unwrap();
    wait_until("still active", || supervisor.active() == 0);
    supervisor.set_spec(slot, shell("a", "echo second; sleep 1000", Restart::Always));
    lines.next_with("second");
    assert!(supervisor.child(slot).is_some());
}
