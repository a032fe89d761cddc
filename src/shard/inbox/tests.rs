use super::*;
use crate::identity::Identity;
use crate::shard::mailbox::mailbox;
use crate::store::answers::PendingEntry;
use proptest::prelude::*;

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

fn session(n: usize) -> Arc<Session> {
    let identity = Arc::new(Identity {
        agent: AgentId::parse("a").unwrap(),
        fingerprint: [0; 32],
        serial: crate::certs::Serial::of(&[1]),
        not_before_s: 0,
        not_after_s: i64::MAX,
    });
    Session::new(identity, instance(n), 4, mailbox().0).0
}

fn inbox() -> Inbox {
    Inbox::new(AgentId::parse("a").unwrap(), 100)
}

fn id(n: u64) -> DeliveryId {
    DeliveryId { place: Place::Shared, entry: EntryId { ms: n, seq: 0 } }
}

fn deliver(inbox: &mut Inbox, n: usize, entry: u64) {
    inbox.added(100);
    inbox.delivered_new(&instance(n), Place::Shared, id(entry).entry, Uuid::nil(), 100, 0);
}

#[test]
fn an_ack_counts_once_and_only_from_the_holder() {
    let mut inbox = inbox();
    inbox.open(session(0));
    inbox.open(session(1));
    deliver(&mut inbox, 0, 1);
    assert!(inbox.ack(&instance(1), id(1)).is_none(), "foreign");
    assert!(inbox.ack(&instance(0), id(2)).is_none(), "forged");
    assert!(inbox.ack(&instance(0), id(1)).is_some());
    assert!(inbox.ack(&instance(0), id(1)).is_none(), "repeated");
    assert_eq!(inbox.acked.len(), 1);
}

#[test]
fn credit_bounds_what_a_session_is_given() {
    let mut inbox = inbox();
    inbox.open(session(0));
    inbox.read_answered(&instance(0), Place::Own, 1, 0);
    for entry in 0..10 {
        deliver(&mut inbox, 0, entry);
        inbox.backlog = Backlog::AtMost(5);
        if entry == 3 {
            break;
        }
    }
    assert_eq!(inbox.reads(&config()), []);
    assert!(inbox.ack(&instance(0), id(2)).is_some());
    let reads = inbox.reads(&config());
    assert_eq!(reads.len(), 1);
    assert_eq!(reads[0].count, 1);
}

#[test]
fn a_burst_is_shared_between_instances() {
    let mut inbox = inbox();
    inbox.open(session(0));
    inbox.open(session(1));
    for n in 0..2 {
        inbox.read_answered(&instance(n), Place::Own, 1, 0);
    }
    inbox.backlog = Backlog::AtMost(6);
    let reads = inbox.reads(&config());
    let counts: Vec<usize> = reads.iter().map(|read| read.count).collect();
    assert_eq!(counts, [3, 3]);
}

#[test]
fn single_messages_go_round() {
    let mut inbox = inbox();
    inbox.open(session(0));
    inbox.open(session(1));
    for n in 0..2 {
        inbox.read_answered(&instance(n), Place::Own, 1, 0);
    }
    let mut turns = Vec::new();
    for _ in 0..4 {
        inbox.backlog = Backlog::AtMost(1);
        let reads = inbox.reads(&config());
        assert_eq!(reads.len(), 1);
        turns.push(reads[0].instance.clone());
    }
    assert_ne!(turns[0], turns[1]);
    assert_eq!(turns[0], turns[2]);
}

#[test]
fn a_lost_sessions_message_waits_for_its_return_then_moves() {
    let mut inbox = inbox();
    let lost = session(0);
    inbox.open(lost.clone());
    inbox.open(session(1));
    deliver(&mut inbox, 0, 1);
    assert!(inbox.close(&lost, RECLAIM_MS));
    assert_eq!(inbox.due(RECLAIM_MS - 1, &config(), false), []);
    let claims = inbox.due(RECLAIM_MS, &config(), false);
    assert_eq!(
        claims,
        [Claim { instance: instance(1), place: Place::Shared, entries: vec![id(1).entry], min_idle_ms: 0 }]
    );
}

#[test]
fn the_same_instance_gets_its_own_back_at_once() {
    let mut inbox = inbox();
    let lost = session(0);
    inbox.open(lost.clone());
    inbox.open(session(1));
    deliver(&mut inbox, 0, 1);
    assert!(inbox.close(&lost, RECLAIM_MS));
    inbox.open(session(0));
    let claims = inbox.due(5, &config(), false);
    assert_eq!(claims.len(), 1);
    assert_eq!(inbox.due(5 + RECLAIM_MS, &config(), false), [], "claimed once only");
}

#[test]
fn a_session_that_holds_a_message_keeps_it_however_long() {
    let mut inbox = inbox();
    inbox.open(session(0));
    inbox.open(session(1));
    deliver(&mut inbox, 0, 1);
    assert_eq!(inbox.due(RECLAIM_MS * 1000, &config(), false), []);
}

#[test]
fn a_retried_message_waits_longer_each_time_and_dies_in_the_end() {
    let mut inbox = inbox();
    inbox.open(session(0));
    deliver(&mut inbox, 0, 1);
    let mut now_ms = 0;
    for attempt in 1..MAX_ATTEMPTS {
        let nacked = inbox.nack(&instance(0), id(1), "later", true, now_ms, &config());
        assert_eq!(nacked, Nacked::Retried(attempt));
        let wait_ms = config().backoff_ms(attempt);
        assert_eq!(inbox.due(now_ms + wait_ms - 1, &config(), false), []);
        now_ms += wait_ms;
        assert_eq!(inbox.due(now_ms, &config(), false).len(), 1);
        inbox.delivered_again(&instance(0), Place::Shared, id(1).entry, Uuid::nil(), 100, 0);
    }
    let nacked = inbox.nack(&instance(0), id(1), "never", true, now_ms, &config());
    assert_eq!(nacked, Nacked::Dead(MAX_ATTEMPTS));
    assert_eq!(inbox.dead.len(), 1);
    assert_eq!(inbox.dead[0].reason, "never");
}

#[test]
fn a_message_that_kills_its_handler_each_time_dies_too() {
    let mut inbox = inbox();
    let mut now_ms = 0;
    let mut current = session(0);
    inbox.open(current.clone());
    deliver(&mut inbox, 0, 1);
    for _ in 1..MAX_ATTEMPTS {
        assert!(inbox.close(&current, now_ms + RECLAIM_MS));
        now_ms += 1;
        current = session(0);
        inbox.open(current.clone());
        assert_eq!(inbox.due(now_ms, &config(), false).len(), 1);
        inbox.delivered_again(&instance(0), Place::Shared, id(1).entry, Uuid::nil(), 100, 0);
    }
    assert!(inbox.close(&current, now_ms + RECLAIM_MS));
    inbox.open(session(0));
    assert_eq!(inbox.due(now_ms, &config(), false), []);
    assert_eq!(inbox.dead.len(), 1);
    assert_eq!(inbox.dead[0].reason, "max_attempts");
}

#[test]
fn a_claim_lost_with_the_connection_is_made_again() {
    let mut inbox = inbox();
    inbox.open(session(0));
    deliver(&mut inbox, 0, 1);
    assert_eq!(inbox.nack(&instance(0), id(1), "", true, 0, &config()), Nacked::Retried(1));
    assert_eq!(inbox.due(10, &config(), false).len(), 1);
    inbox.claims_lost(20);
    assert_eq!(inbox.due(20, &config(), false).len(), 1);
}

#[test]
fn a_reply_waits_for_its_instance_and_blocks_nobody() {
    let mut inbox = inbox();
    let lost = session(0);
    inbox.open(lost.clone());
    inbox.open(session(1));
    inbox.delivered_new(&instance(0), Place::Own, EntryId { ms: 1, seq: 0 }, Uuid::nil(), 10, 0);
    deliver(&mut inbox, 0, 2);
    assert!(inbox.close(&lost, RECLAIM_MS));
    let claims = inbox.due(RECLAIM_MS, &config(), false);
    assert_eq!(
        claims,
        [Claim { instance: instance(1), place: Place::Shared, entries: vec![id(2).entry], min_idle_ms: 0 }]
    );
}

#[test]
fn what_an_earlier_server_left_pending_is_taken_up() {
    let mut inbox = inbox();
    inbox.open(session(1));
    let line = |entry: u64, consumer: &str, idle_ms| PendingEntry {
        id: id(entry).entry,
        consumer: consumer.to_owned(),
        idle_ms,
        deliveries: 1,
    };
    inbox.adopt(None, &line(1, "a-i0", RECLAIM_MS), 0, &config());
    inbox.adopt(None, &line(2, "a-i0", RECLAIM_MS - 100), 0, &config());
    inbox.adopt(None, &line(3, "a-i1", 0), 0, &config());
    inbox.adopt(None, &line(4, "other", 99_999), 0, &config());
    let entries =
        |claims: Vec<Claim>| claims.into_iter().flat_map(|c| c.entries).map(|e| e.ms).collect::<Vec<_>>();
    let mut now = entries(inbox.due(0, &config(), false));
    now.sort_unstable();
    assert_eq!(now, [1, 3]);
    assert_eq!(entries(inbox.due(100, &config(), false)), [2]);
}

/// One step of a random life.
#[derive(Debug, Clone)]
enum Step {
    Open(usize),
    Close(usize),
    Read,
    Ack(usize, u64),
    Nack(usize, u64, bool),
    Time(u64),
    ConnectionLost,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0usize..3).prop_map(Step::Open),
        (0usize..3).prop_map(Step::Close),
        (0usize..3, 0u64..30).prop_map(|(n, e)| Step::Ack(n, e)),
        (0usize..3, 0u64..30, any::<bool>()).prop_map(|(n, e, r)| Step::Nack(n, e, r)),
        (1u64..2000).prop_map(Step::Time),
        Just(Step::ConnectionLost),
        Just(Step::Read),
    ]
}

proptest! {
    /// Whatever happens: nobody exceeds their credit, no entry is with two holders, and once things calm
    /// down every message has been acknowledged, is dead, or is with a session.
    #[test]
    fn no_message_is_forgotten_and_no_credit_leaks(steps in proptest::collection::vec(step(), 1..120)) {
        let config = config();
        let mut inbox = inbox();
        let mut sessions: HashMap<usize, Arc<Session>> = HashMap::new();
        let mut holder: HashMap<u64, usize> = HashMap::new();
        let mut acked = std::collections::BTreeSet::new();
        let (mut now_ms, mut next_entry) = (0u64, 0u64);

        fn settle(inbox: &mut Inbox, config: &Delivery, now_ms: u64, holder: &mut HashMap<u64, usize>) {
            for claim in inbox.due(now_ms, config, false) {
                let n: usize = claim.instance.as_str()[1..].parse().unwrap();
                for entry in claim.entries {
                    inbox.delivered_again(&claim.instance, claim.place, entry, Uuid::nil(), 100, 0);
                    assert!(holder.insert(entry.ms, n).is_none(), "entry {} is with two", entry.ms);
                }
            }
        }

        for step in steps {
            match step {
                Step::Open(n) => {
                    if let std::collections::hash_map::Entry::Vacant(slot) = sessions.entry(n) {
                        inbox.open(slot.insert(session(n)).clone());
                    }
                }
                Step::Close(n) => {
                    if let Some(session) = sessions.remove(&n) {
                        prop_assert!(inbox.close(&session, now_ms + RECLAIM_MS));
                        holder.retain(|_, h| *h != n);
                    }
                }
                Step::Read => {
                    inbox.added(100);
                    let reads = inbox.reads(&config);
                    for read in reads {
                        let n: usize = read.instance.as_str()[1..].parse().unwrap();
                        let got = usize::from(read.place == Place::Shared && read.count > 0);
                        for _ in 0..got {
                            inbox.delivered_new(&read.instance, read.place, id(next_entry).entry, Uuid::nil(), 100, 0);
                            prop_assert!(holder.insert(next_entry, n).is_none());
                            next_entry += 1;
                        }
                        inbox.read_answered(&read.instance, read.place, read.count, got);
                    }
                }
                Step::Ack(n, entry) => {
                    let known = holder.get(&entry) == Some(&n);
                    prop_assert_eq!(inbox.ack(&instance(n), id(entry)).is_some(), known);
                    if known {
                        let _ = holder.remove(&entry);
                        let _ = acked.insert(entry);
                    }
                }
                Step::Nack(n, entry, retryable) => {
                    let known = holder.get(&entry) == Some(&n);
                    let nacked = inbox.nack(&instance(n), id(entry), "r", retryable, now_ms, &config);
                    prop_assert_eq!(nacked != Nacked::Unknown, known);
                    if known {
                        let _ = holder.remove(&entry);
                    }
                }
                Step::Time(ms) => now_ms += ms,
                Step::ConnectionLost => {
                    // Claims that were under way never reached anybody.
                    for claim in inbox.due(now_ms, &config, false) {
                        let _ = claim;
                    }
                    inbox.claims_lost(now_ms);
                }
            }
            settle(&mut inbox, &config, now_ms, &mut holder);
            for n in sessions.keys() {
                let held = holder.values().filter(|h| *h == n).count();
                let slot = inbox.slot(&instance(*n)).unwrap();
                prop_assert_eq!(slot.in_flight, held, "credit of i{}", n);
                prop_assert!(held <= config.max_in_flight);
            }
        }

        // Calm: one instance that acknowledges everything.
        if !sessions.contains_key(&9) {
            inbox.open(session(9));
        }
        for _ in 0..200 {
            now_ms += RECLAIM_MS;
            settle(&mut inbox, &config, now_ms, &mut holder);
            let all: Vec<(u64, usize)> = holder.drain().collect();
            for (entry, n) in all {
                prop_assert!(inbox.ack(&instance(n), id(entry)).is_some());
                let _ = acked.insert(entry);
            }
        }
        let dead: std::collections::BTreeSet<u64> = inbox.dead.iter().map(|letter| letter.key.entry.ms).collect();
        for entry in 0..next_entry {
            prop_assert!(acked.contains(&entry) != dead.contains(&entry), "entry {} is lost or both", entry);
        }
    }
}
