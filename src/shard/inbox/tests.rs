use super::handout::{Claim, Expected};
use super::settle::{Nacked, NotClaimed};
use super::*;
use crate::shard::desk::delivery::Source;
use crate::shard::desk::session::Then;
use crate::store::answers::PendingEntry;
use crate::store::claims::Wanted;

mod property;

const MAX_ATTEMPTS: u32 = 3;
const RECLAIM_MS: u64 = 1000;

fn config() -> Delivery {
    Delivery {
        max_in_flight: 4,
        reclaim_idle_ms: RECLAIM_MS,
        max_attempts: MAX_ATTEMPTS,
        retry_backoff_ms: vec![10, 100],
        ..Delivery::default()
    }
}

fn instance(n: usize) -> InstanceId {
    InstanceId::parse(&format!("i{n}")).unwrap()
}

/// Connects instance `n`; its session.
fn open(inbox: &mut Inbox, n: usize) -> SessionKey {
    let session = SessionKey::next();
    inbox.open(&instance(n), session, &config());
    session
}

fn inbox() -> Inbox {
    Inbox::new(AgentId::parse("a").unwrap(), 100)
}

/// The delivery of entry `n` that has this token.
fn delivery(n: u64, token: u64) -> DeliveryId {
    DeliveryId { source: Source::Shared, entry: EntryId { ms: n, seq: 0 }, token }
}

/// The first delivery of entry `n`.
fn id(n: u64) -> DeliveryId {
    delivery(n, 1)
}

fn deliver(inbox: &mut Inbox, n: usize, entry: u64) {
    inbox.added(1, 100, 164);
    inbox.delivered_new(&instance(n), id(entry), (Uuid::nil(), 100), 5);
}

/// What would be claimed now.
fn due(inbox: &mut Inbox, now_ms: u64) -> Vec<Claim> {
    inbox.promote(now_ms, &config());
    inbox.handout(&config(), Expected::default(), false).claims
}

fn reads(inbox: &mut Inbox) -> Vec<handout::Read> {
    let handout = inbox.handout(&config(), Expected::default(), true);
    inbox.set_turn(handout.turn);
    handout.reads
}

fn claim(n: usize, holder: usize, entry: u64, attempt: u32) -> Claim {
    let entries = vec![Wanted { entry: id(entry).entry, delivery: attempt, stored: attempt - 1 }];
    Claim { instance: instance(n), source: Source::Shared, holder: instance(holder), entries }
}

#[test]
fn an_ack_counts_once_and_only_from_the_holder() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    let _ = open(&mut inbox, 1);
    deliver(&mut inbox, 0, 1);
    assert!(inbox.ack(&instance(1), id(1)).is_none(), "foreign");
    assert!(inbox.ack(&instance(0), id(2)).is_none(), "forged");
    assert!(inbox.ack(&instance(0), id(1)).is_some());
    assert!(inbox.ack(&instance(0), id(1)).is_none(), "repeated");
    assert_eq!(inbox.leaving.len(), 1);
}

#[test]
fn credit_bounds_what_a_session_is_given() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    inbox.read_answered(&instance(0), Source::Own, 1, 0);
    for entry in 0..10 {
        deliver(&mut inbox, 0, entry);
        inbox.backlog = Backlog::AtMost(5);
        if entry == 3 {
            break;
        }
    }
    assert_eq!(reads(&mut inbox), []);
    assert!(inbox.ack(&instance(0), id(2)).is_some());
    let reads = reads(&mut inbox);
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].count, 1);
}

#[test]
fn a_burst_is_shared_between_instances() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    let _ = open(&mut inbox, 1);
    for n in 0..2 {
        inbox.read_answered(&instance(n), Source::Own, 1, 0);
    }
    inbox.backlog = Backlog::AtMost(6);
    let reads = reads(&mut inbox);
    let counts: Vec<usize> = reads.iter().map(|read| read.count).collect();
    assert_eq!(counts, [3, 3]);
}

#[test]
fn single_messages_go_round() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    let _ = open(&mut inbox, 1);
    for n in 0..2 {
        inbox.read_answered(&instance(n), Source::Own, 1, 0);
    }
    let mut turns = Vec::new();
    for _ in 0..4 {
        inbox.backlog = Backlog::AtMost(1);
        let reads = reads(&mut inbox);
        assert_eq!(reads.len(), 1);
        turns.push(reads[0].instance.clone());
    }
    assert_ne!(turns[0], turns[1]);
    assert_eq!(turns[0], turns[2]);
}

#[test]
fn a_lost_sessions_message_waits_for_its_return_then_moves() {
    let mut inbox = inbox();
    let lost = open(&mut inbox, 0);
    let _ = open(&mut inbox, 1);
    deliver(&mut inbox, 0, 1);
    assert!(inbox.close(lost, RECLAIM_MS).is_some());
    assert_eq!(due(&mut inbox, RECLAIM_MS - 1), []);
    let claims = due(&mut inbox, RECLAIM_MS);
    assert_eq!(claims, [claim(1, 0, 1, 2)]);
}

#[test]
fn the_same_instance_gets_its_own_back_at_once() {
    let mut inbox = inbox();
    let lost = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    assert!(inbox.close(lost, RECLAIM_MS).is_some());
    let _ = open(&mut inbox, 0);
    let claims = due(&mut inbox, 5);
    assert_eq!(claims, [claim(0, 0, 1, 2)]);
    inbox.delivered_again(&instance(0), delivery(1, 2), (Uuid::nil(), 100), 2, 5);
    assert_eq!(due(&mut inbox, 5 + RECLAIM_MS), [], "claimed once only");
}

#[test]
fn a_session_that_holds_a_message_keeps_it_however_long() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    let _ = open(&mut inbox, 1);
    deliver(&mut inbox, 0, 1);
    assert_eq!(due(&mut inbox, RECLAIM_MS * 1000), []);
}

#[test]
fn a_retried_message_waits_longer_each_time_and_dies_in_the_end() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    let mut now_ms = 0;
    for attempt in 1..MAX_ATTEMPTS {
        let current = delivery(1, attempt.into());
        let nacked = inbox.nack(&instance(0), current, ("again", Then::Retry), now_ms, &config());
        assert_eq!(nacked, Nacked::Retried(Held { message_id: Uuid::nil(), attempt, handed_ms: 5 }));
        let wait_ms = config().backoff_ms(attempt);
        assert_eq!(due(&mut inbox, now_ms + wait_ms - 1), []);
        now_ms += wait_ms;
        assert_eq!(due(&mut inbox, now_ms), [claim(0, 0, 1, attempt + 1)]);
        let next = delivery(1, u64::from(attempt) + 1);
        inbox.delivered_again(&instance(0), next, (Uuid::nil(), 100), attempt + 1, 5);
    }
    let last = delivery(1, MAX_ATTEMPTS.into());
    let nacked = inbox.nack(&instance(0), last, ("never", Then::Retry), now_ms, &config());
    assert_eq!(nacked, Nacked::Dead(Held { message_id: Uuid::nil(), attempt: MAX_ATTEMPTS, handed_ms: 5 }));
    assert_eq!(inbox.dead.len(), 1);
    assert_eq!(inbox.dead[0].reason, "never");
}

#[test]
fn what_cannot_be_handled_now_comes_again_without_an_attempt_and_never_dies_of_it() {
    const HOUR_MS: u64 = 3_600_000;
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    let (mut now_ms, mut waits) = (0, Vec::new());
    for n in 1..=u64::from(3 * MAX_ATTEMPTS) {
        let nacked =
            inbox.nack(&instance(0), delivery(1, n), ("rate_limited", Then::Later(100)), now_ms, &config());
        assert!(matches!(nacked, Nacked::Retried(Held { attempt: 1, .. })));
        assert_eq!(inbox.count_of(&inbox.recounts[0]), Some((&instance(0), 0)));
        inbox.recounted();
        let due_ms = (now_ms..).find(|at_ms| !due(&mut inbox, *at_ms).is_empty()).unwrap();
        assert_eq!(due(&mut inbox, due_ms), [claim(0, 0, 1, 1)]);
        inbox.delivered_again(&instance(0), delivery(1, n + 1), (Uuid::nil(), 100), 1, 5);
        waits.push(due_ms - now_ms);
        now_ms = due_ms;
    }
    assert!(waits[0] >= 250 && waits[..8].windows(2).all(|pair| pair[0] < pair[1]), "{waits:?}");
    assert!(waits.iter().all(|wait_ms| *wait_ms <= 75_000), "{waits:?}");
    // As late as was asked for, up to an hour.
    for (n, asked_ms, at_least_ms) in [(0, 90_000, 90_000), (1, u64::MAX, HOUR_MS)] {
        let current = delivery(1, u64::from(3 * MAX_ATTEMPTS) + 1 + n);
        let _ = inbox.nack(&instance(0), current, ("rate_limited", Then::Later(asked_ms)), now_ms, &config());
        inbox.recounted();
        assert_eq!(due(&mut inbox, now_ms + at_least_ms - 1), []);
        now_ms += at_least_ms + at_least_ms / 4;
        assert_eq!(due(&mut inbox, now_ms).len(), 1);
        let next = DeliveryId { token: current.token + 1, ..current };
        inbox.delivered_again(&instance(0), next, (Uuid::nil(), 100), 1, 5);
    }
    assert!(inbox.dead.is_empty());
}

#[test]
fn a_message_that_kills_its_handler_each_time_dies_too() {
    let mut inbox = inbox();
    let mut now_ms = 0;
    let mut current = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    for attempt in 1..MAX_ATTEMPTS {
        assert!(inbox.close(current, now_ms + RECLAIM_MS).is_some());
        now_ms += 1;
        current = open(&mut inbox, 0);
        assert_eq!(due(&mut inbox, now_ms).len(), 1);
        let next = delivery(1, u64::from(attempt) + 1);
        inbox.delivered_again(&instance(0), next, (Uuid::nil(), 100), attempt + 1, 5);
    }
    assert!(inbox.close(current, now_ms + RECLAIM_MS).is_some());
    let _ = open(&mut inbox, 0);
    assert_eq!(due(&mut inbox, now_ms), []);
    assert_eq!(inbox.dead.len(), 1);
    assert_eq!(inbox.dead[0].reason, "max_attempts");
}

#[test]
fn a_plan_that_comes_to_nothing_leaves_everything_as_it_was() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    assert!(matches!(inbox.nack(&instance(0), id(1), ("", Then::Retry), 0, &config()), Nacked::Retried(_)));
    for _ in 0..3 {
        assert_eq!(due(&mut inbox, 10), [claim(0, 0, 1, 2)]);
    }
    // Redis refused it: due again later.
    let key = EntryKey { owner: None, entry: id(1).entry };
    inbox.not_claimed(&key, &instance(0), NotClaimed::Refused { retry_at_ms: 50 });
    assert_eq!(due(&mut inbox, 49), []);
    assert_eq!(due(&mut inbox, 50), [claim(0, 0, 1, 2)]);
    // Another server has it.
    inbox.not_claimed(&key, &instance(0), NotClaimed::Settled);
    assert_eq!(due(&mut inbox, 50), []);
    assert_eq!(inbox.tracked(), 0);
}

#[test]
fn a_settlement_of_an_earlier_delivery_changes_nothing_of_a_later_one() {
    let mut inbox = inbox();
    let lost = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    assert!(inbox.close(lost, RECLAIM_MS).is_some());
    let _ = open(&mut inbox, 0);
    assert_eq!(due(&mut inbox, 1).len(), 1);
    inbox.delivered_again(&instance(0), delivery(1, 2), (Uuid::nil(), 100), 2, 5);
    assert!(inbox.ack(&instance(0), id(1)).is_none());
    assert_eq!(inbox.nack(&instance(0), id(1), ("late", Then::Bury), 1, &config()), Nacked::Unknown);
    assert_eq!(inbox.held(&instance(0), id(1)), None);
    assert!(inbox.dead.is_empty());
    assert!(inbox.ack(&instance(0), delivery(1, 2)).is_some());
}

#[test]
fn a_reply_waits_for_its_instance_and_blocks_nobody() {
    let mut inbox = inbox();
    let lost = open(&mut inbox, 0);
    let _ = open(&mut inbox, 1);
    let reply = DeliveryId { source: Source::Own, entry: EntryId { ms: 1, seq: 0 }, token: 1 };
    inbox.delivered_new(&instance(0), reply, (Uuid::nil(), 10), 5);
    deliver(&mut inbox, 0, 2);
    assert!(inbox.close(lost, RECLAIM_MS).is_some());
    assert_eq!(due(&mut inbox, RECLAIM_MS), [claim(1, 0, 2, 2)]);
}

#[test]
fn a_session_that_is_to_move_gets_its_replies_and_no_further_messages() {
    let mut inbox = inbox();
    let session = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    inbox.retire(session, true);
    assert!(reads(&mut inbox).iter().all(|read| read.source == Source::Own), "replies alone");
    assert_eq!(inbox.to_move(), (Vec::new(), Vec::new()), "it holds something");
    // Once its own inbox is read there is nothing to do, although messages wait: a worker that saw work would not sleep.
    inbox.read_answered(&instance(0), Source::Own, 1, 0);
    inbox.added(1, 100, 164);
    assert!(!inbox.has_work(0, &config()) && reads(&mut inbox).is_empty());
    let _ = inbox.nack(&instance(0), id(1), ("again", Then::Retry), 0, &config());
    assert_eq!(due(&mut inbox, u64::MAX), [], "what is due is for others");
    assert_eq!(inbox.to_move(), (Vec::new(), vec![session]));
    // It stays after all.
    inbox.retire(session, false);
    assert!(inbox.has_work(u64::MAX, &config()) && inbox.retired().is_empty());
    assert_eq!(due(&mut inbox, u64::MAX), [claim(0, 0, 1, 2)]);
}

fn line(entry: u64, consumer: &str, idle_ms: u64) -> PendingEntry {
    PendingEntry { id: id(entry).entry, consumer: consumer.to_owned(), idle_ms, deliveries: 1 }
}

fn entries(claims: &[Claim]) -> Vec<(u64, u32)> {
    let entries = claims.iter().flat_map(|claim| &claim.entries);
    let mut entries: Vec<(u64, u32)> = entries.map(|wanted| (wanted.entry.ms, wanted.delivery)).collect();
    entries.sort_unstable();
    entries
}

#[test]
fn entries_that_an_earlier_server_left_pending_are_adopted() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 1);
    let scan = inbox.begin_scan();
    for line in [
        line(1, "a-i0", RECLAIM_MS),
        line(2, "a-i0", RECLAIM_MS - 100),
        line(3, "a-i1", 0),
        line(4, "other", 99_999),
    ] {
        inbox.adopt(None, &line, scan, 0, &config());
    }
    assert_eq!(inbox.end_scan(None, scan), 0);
    assert_eq!(entries(&due(&mut inbox, 0)), [(1, 2), (3, 2)]);
    assert_eq!(entries(&due(&mut inbox, 100)), [(1, 2), (2, 2), (3, 2)]);
}

#[test]
fn deliveries_that_the_holder_had_on_another_server_count() {
    let mut inbox = inbox();
    let lost = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    assert!(inbox.close(lost, RECLAIM_MS).is_some());
    let elsewhere = PendingEntry { deliveries: 3, ..line(1, "a-i0", 0) };
    let scan = inbox.begin_scan();
    inbox.adopt(None, &elsewhere, scan, 1, &config());
    inbox.adopt(None, &elsewhere, scan, 1, &config());
    let _ = open(&mut inbox, 0);
    // Three deliveries are all that it may have.
    assert_eq!(due(&mut inbox, 2), []);
    assert_eq!(inbox.dead[0].attempts, 3);
}

#[test]
fn a_claim_whose_answer_was_lost_was_no_delivery() {
    let mut inbox = inbox();
    let lost = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    assert!(inbox.close(lost, RECLAIM_MS).is_some());
    let _ = open(&mut inbox, 0);
    let claims = due(&mut inbox, 1);
    assert_eq!(claims[0].entries, [Wanted { entry: id(1).entry, delivery: 2, stored: 1 }]);
    inbox.claim_unknown(&claims[0]);
    // Whether Redis carried it out or not.
    for deliveries in [2, 1] {
        let scan = inbox.begin_scan();
        inbox.adopt(None, &PendingEntry { deliveries, ..line(1, "a-i0", 0) }, scan, 2, &config());
        assert_eq!(due(&mut inbox, 3)[0].entries[0].delivery, 2);
    }
}

#[test]
fn a_claim_for_another_instance_whose_answer_was_lost_was_no_delivery() {
    /// How it comes to be known what Redis did: by the next claim, by a scan, or by both in one round.
    #[derive(Clone, Copy, PartialEq)]
    enum By {
        Claim,
        Scan,
        Both,
    }
    let ways = [By::Claim, By::Scan, By::Both];
    for (by, carried_out) in ways.into_iter().flat_map(|by| [(by, true), (by, false)]) {
        let mut inbox = inbox();
        let lost = open(&mut inbox, 0);
        deliver(&mut inbox, 0, 1);
        assert!(inbox.close(lost, RECLAIM_MS).is_some());
        let _ = open(&mut inbox, 1);
        let claims = due(&mut inbox, RECLAIM_MS);
        assert_eq!(claims, [claim(1, 0, 1, 2)]);
        inbox.claim_unknown(&claims[0]);
        inbox.mark_unverified();
        let (holder, deliveries) = if carried_out { (1, 2) } else { (0, 1) };
        // Planned before anything is known.
        assert_eq!(due(&mut inbox, RECLAIM_MS)[0].holder, instance(0));
        if by != By::Claim {
            let scan = inbox.begin_scan();
            let line = PendingEntry { deliveries, ..line(1, &format!("a-i{holder}"), 0) };
            inbox.adopt(None, &line, scan, RECLAIM_MS, &config());
            assert_eq!(inbox.end_scan(None, scan), 0);
        }
        if by != By::Scan && carried_out {
            let key = EntryKey { owner: None, entry: id(1).entry };
            inbox.not_claimed(&key, &instance(0), NotClaimed::Settled);
        }
        let again = due(&mut inbox, RECLAIM_MS);
        assert_eq!((again.len(), &again[0].holder), (1, &instance(holder)));
        assert_eq!(entries(&again), [(1, 2)]);
        // The handler's history is not lost with it.
        assert_eq!(inbox.entries.values().map(|entry| entry.failures.len()).collect::<Vec<_>>(), [1]);
    }
}

#[test]
fn of_several_claims_in_doubt_each_may_have_been_carried_out() {
    for carried_out in 1..=3 {
        let mut inbox = inbox();
        let lost = open(&mut inbox, 0);
        deliver(&mut inbox, 0, 1);
        assert!(inbox.close(lost, RECLAIM_MS).is_some());
        let _ = open(&mut inbox, 9);
        let _ = due(&mut inbox, RECLAIM_MS);
        for receiver in 1..=3 {
            inbox.claim_unknown(&claim(receiver, 0, 1, 2));
        }
        let key = EntryKey { owner: None, entry: id(1).entry };
        let mut asked = 0;
        loop {
            let claims = due(&mut inbox, RECLAIM_MS);
            if claims[0].holder == instance(carried_out) {
                assert_eq!(entries(&claims), [(1, 2)]);
                break;
            }
            asked += 1;
            assert!(asked <= 4, "never asked of its holder");
            inbox.not_claimed(&key, &claims[0].holder, NotClaimed::Settled);
        }
    }
}

#[test]
fn an_instance_that_was_seen_to_leave_has_the_whole_time_to_return() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 1);
    let _ = inbox.gone.insert(instance(0), Gone { since_ms: Some(500), clear_at_ms: 9000 });
    let scan = inbox.begin_scan();
    // Its handler had the message long before.
    inbox.adopt(None, &line(1, "a-i0", RECLAIM_MS * 50), scan, 500, &config());
    assert_eq!(due(&mut inbox, 500 + RECLAIM_MS - 1), []);
    assert_eq!(due(&mut inbox, 500 + RECLAIM_MS).len(), 1);
}

#[test]
fn a_read_whose_answer_was_lost_was_no_delivery() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    inbox.mark_unverified();
    let scan = inbox.begin_scan();
    inbox.adopt(None, &line(1, "a-i0", 5), scan, 0, &config());
    let _ = inbox.end_scan(None, scan);
    assert!(inbox.verified);
    assert_eq!(entries(&due(&mut inbox, 0)), [(1, 1)]);
}

#[test]
fn a_delivery_that_redis_does_not_list_is_settled_and_gives_its_credit_back() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    deliver(&mut inbox, 0, 2);
    inbox.mark_unverified();
    let scan = inbox.begin_scan();
    inbox.adopt(None, &line(2, "a-i0", 5), scan, 0, &config());
    // Read while the scan was under way.
    deliver(&mut inbox, 0, 3);
    assert_eq!(inbox.end_scan(None, scan), 1);
    assert_eq!(inbox.held(&instance(0), id(1)), None);
    assert!(inbox.held(&instance(0), id(2)).is_some() && inbox.held(&instance(0), id(3)).is_some());
    assert_eq!(inbox.consumer(&instance(0)).unwrap().in_flight, 2);
}

#[test]
fn a_message_whose_time_has_not_come_was_not_delivered() {
    let mut inbox = inbox();
    let _ = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    inbox.postponed(&instance(0), id(1), 70);
    assert_eq!(inbox.recounts.len(), 1);
    assert_eq!(inbox.count_of(&inbox.recounts[0]), Some((&instance(0), 0)));
    inbox.recounted();
    assert_eq!(due(&mut inbox, 69), []);
    assert_eq!(due(&mut inbox, 70), [claim(0, 0, 1, 1)]);
}

#[test]
fn nothing_that_waits_is_remembered_where_nobody_is_connected() {
    let mut inbox = inbox();
    let lost = open(&mut inbox, 0);
    deliver(&mut inbox, 0, 1);
    deliver(&mut inbox, 0, 2);
    assert!(inbox.ack(&instance(0), id(2)).is_some());
    assert!(inbox.close(lost, RECLAIM_MS).is_some());
    inbox.forget_waiting();
    assert_eq!(inbox.tracked(), 1, "acknowledged, and still in Redis");
    assert_eq!(inbox.next_due_ms(), None);
}
