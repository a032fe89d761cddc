//! Messages that should wait in an inbox and do not.

use super::*;

#[test]
fn a_redrive_that_is_read_behind_its_acknowledgement_leaves_nothing_waiting() {
    let mut log = Log::new(2);
    let id = Uuid::now_v7();
    let message = Fields { agent: "a", target: "b", message_id: Some(id), ..Fields::default() };
    let custody = Fields { agent: "b", messages: &[(id, 1)], ..Fields::default() };
    let _ = log.lanes[0].append(now(1), Action::Send, Decision::Allowed, &message);
    let _ = log.lanes[0].append(now(2), Action::DeadLetter, Decision::Event, &message);
    let _ = log.lanes[0].append(now(4), Action::Acked, Decision::Event, &custody);
    log.store(0);
    // By an operator, whose lane is read later.
    let _ = log.lanes[1].append(now(3), Action::Redriven, Decision::Event, &message);
    log.store(1);
    let report = verify(&log.kept, None, None);
    assert!(report.is_intact(), "{report:?}");
    assert_eq!((report.accepted, report.done, report.waiting), (1, 1, 0));
}

/// When the trail of [`judged`] begins.
const START_MS: u64 = 1_700_000_000_000;
/// Far more than clocks may be apart.
const LATER_MS: u64 = START_MS + 600_000;

/// What a verification says of three waiting messages that are in no inbox: one for b at the start, then one for b and one
/// for c later; `between` is on record before those.
fn judged(partial: bool, between: impl FnOnce(&mut Log)) -> Report {
    let mut log = Log::new(2);
    let send = |log: &mut Log, target: &str, time_ms: u64| {
        let time = uuid::Timestamp::from_unix(uuid::NoContext, time_ms / 1000, 0);
        let message_id = Some(Uuid::new_v7(time));
        let fields = Fields { agent: "a", target, message_id, ..Fields::default() };
        let _ = log.lanes[0].append(now(time_ms), Action::Send, Decision::Allowed, &fields);
        log.store(0);
    };
    send(&mut log, "b", START_MS);
    between(&mut log);
    send(&mut log, "b", LATER_MS);
    send(&mut log, "c", LATER_MS);
    let mut verifier = Verifier::new(Questions { partial, ..Questions::default() });
    feed(&mut verifier, &log.kept);
    let waiting = verifier.waiting().into_iter().collect();
    verifier.not_found(waiting);
    verifier.finish(None).unwrap()
}

#[test]
fn messages_that_are_nowhere_are_missed() {
    let report = judged(false, |_| {});
    assert_eq!(codes(&report), ["message_missing"; 3]);
    assert_eq!((report.waiting, report.vanished), (0, 0));
    // The acknowledgements of the first may stand in the part that is not here.
    assert_eq!(codes(&judged(true, |_| {})), ["message_missing"; 2]);
}

#[test]
fn what_a_server_noticed_explains_what_was_missing_of_that_agent_then() {
    let report = judged(false, |log| {
        let fields = Fields { agent: "b", reason: "removed", ..Fields::default() };
        // By a server whose clock is a little behind.
        let _ = log.lanes[0].append(now(START_MS - 5_000), Action::Vanished, Decision::Event, &fields);
        log.store(0);
    });
    assert_eq!((codes(&report), report.vanished), (vec!["message_missing"; 2], 1));
}

#[test]
fn in_a_damaged_trail_nobody_is_accused_of_removing_messages() {
    let report = judged(false, |log| {
        // In another lane.
        let other = log.kept.iter_mut().find_map(|kept| match kept {
            Kept::Block(lane, _, bytes, _) if lane.contains("-w1-") => Some(bytes),
            _ => None,
        });
        *other.unwrap().last_mut().unwrap() ^= 1;
    });
    assert!(!codes(&report).contains(&"message_missing"), "{report:?}");
    assert!(report.not_shown.iter().any(|line| line.contains("in no inbox")), "{report:?}");
}
