use std::time::Instant;

use super::*;
use crate::runner::tests_support::{SOON, collector, shell};

fn start(script: &str, announces_ready: bool) -> (Child, crate::runner::tests_support::Lines) {
    let (sink, lines) = collector();
    let mut spec = shell("a/i0", script, Restart::Never);
    spec.announces_ready = announces_ready;
    (Child::start(&spec, &sink, &Guard::default(), |_| {}).unwrap(), lines)
}

#[test]
fn its_lines_carry_its_label() {
    let (child, lines) = start("echo out; echo err >&2; exit 3", false);
    assert_eq!(child.wait(SOON).and_then(|status| status.code()), Some(3));
    let mut both = [lines.next(), lines.next()];
    both.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
    assert_eq!(both[0], (Stream::Stdout, "a/i0 | out".to_owned()));
    assert_eq!(both[1], (Stream::Stderr, "a/i0 | err".to_owned()));
}

#[test]
fn all_output_has_been_forwarded_when_the_end_is_reported() {
    let (child, lines) = start("for n in $(seq 1000); do echo $n; done", false);
    assert!(child.wait(SOON).unwrap().success());
    assert_eq!(lines.rest().len(), 1000);
}

#[test]
fn the_announcement_is_read_and_not_forwarded() {
    let ready = r#"{"event":"mas.server.ready","pid":7,"listen_addr":"127.0.0.1:9","more":1}"#;
    let (child, lines) = start(&format!("echo '{ready}'; echo next; sleep 1000"), true);
    let line = child.wait_ready(SOON).unwrap();
    assert_eq!((line.pid, line.listen_addr.as_str()), (7, "127.0.0.1:9"));
    assert_eq!(lines.next().1, "a/i0 | next");
    assert!(child.stop(SOON).is_some());
}

#[test]
fn a_missing_or_wrong_announcement_is_an_error() {
    let (ended, _) = start("exit 4", true);
    let error = ended.wait_ready(SOON).unwrap_err();
    assert!(matches!(error, RunnerError::EndedEarly { status, .. } if status.code() == Some(4)), "{error}");
    let (wrong, _) = start("echo hello; sleep 1000", true);
    let error = wrong.wait_ready(SOON).unwrap_err();
    assert!(
        matches!(error, RunnerError::Announcement { .. }) && error.to_string().contains("hello"),
        "{error}"
    );
    let (silent, _) = start("sleep 1000", true);
    let error = silent.wait_ready(Duration::from_millis(1)).unwrap_err();
    assert!(matches!(error, RunnerError::NotReady { .. }), "{error}");
}

#[test]
fn a_child_that_ignores_sigterm_is_killed_after_the_grace() {
    let (child, lines) = start("trap '' TERM; echo armed; sleep 1000 & wait", false);
    lines.next_with("armed");
    let grace = Duration::from_millis(100);
    let asked = Instant::now();
    let status = child.stop(grace).unwrap();
    assert!(asked.elapsed() >= grace);
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
}

#[test]
fn a_child_that_obeys_sigterm_is_not_killed() {
    let (child, lines) = start("trap 'echo bye; exit 5' TERM; echo armed; sleep 1000 & wait", false);
    lines.next_with("armed");
    assert_eq!(child.stop(SOON).and_then(|status| status.code()), Some(5));
    assert_eq!(lines.next().1, "a/i0 | bye");
}

#[test]
fn what_a_child_leaves_behind_ends_with_it() {
    let (child, lines) = start("sh -c 'trap \"\" TERM; echo $$; sleep 1000 & wait' & wait $!", false);
    let (_, line) = lines.next();
    let left: i32 = line.trim_start_matches("a/i0 | ").parse().unwrap();
    // Only the child itself, as a crash would end it.
    nix::sys::signal::kill(child.inner.group(), Signal::SIGKILL).unwrap();
    assert!(child.wait(SOON).is_some());
    let deadline = Instant::now() + SOON;
    // A zombie still takes signals until init has reaped it, so its state is looked at.
    while std::fs::read_to_string(format!("/proc/{left}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(Instant::now() < deadline, "{left} still runs");
        std::thread::yield_now();
    }
}

#[test]
fn a_missing_program_is_named() {
    let mut spec = shell("a/i0", "", Restart::Never);
    spec.program = PathBuf::from("/no/such/program");
    let (sink, _lines) = collector();
    let Err(error) = Child::start(&spec, &sink, &Guard::default(), |_| {}) else {
        panic!("started");
    };
    assert!(error.to_string().contains("a/i0: /no/such/program"), "{error}");
    assert!(error.is_configuration());
}
